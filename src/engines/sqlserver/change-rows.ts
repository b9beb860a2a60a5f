/** Rows of a change table made changes (manual: "cdc.<capture_instance>_CT"). */
import {
  emptyTableChanges,
  Op,
  type Cell,
  type ChangeCell,
  type ChangeRelation,
  type TableChanges,
} from '../../model/changes.ts';
import { SluiceError } from '../../model/errors.ts';
import { displayName } from '../../model/tables.ts';
import type { CapturedColumn, CaptureInstance } from './capture-instances.ts';
import { lsnOf, type Lsn } from './position.ts';

/** `__$operation`. */
const DELETE = '1';
const INSERT = '2';
const UPDATE_OLD = '3';
const UPDATE_NEW = '4';

/** A row's place in a change table, in the order in which changes happened. */
export interface RowPlace {
  readonly lsn: Lsn;
  /** `__$command_id`, `__$seqval` (one character a byte) and `__$operation`, as the server sent them. */
  readonly command: string;
  readonly sequence: string;
  readonly operation: string;
}

/**
 * Columns of a change table that go before the captured ones, in the order in which `ChangeRows.add` wants them; binary ones as
 * text, one character a byte (`readRows`).
 */
export const BOOKKEEPING = ['__$start_lsn', '__$command_id', '__$seqval', '__$operation', '__$update_mask'] as const;
const LEADING = BOOKKEEPING.length;

/** What a cell costs besides its content, about. */
const CELL_BYTES = 16;

/** Where a transaction's rows begin. */
interface Mark {
  readonly lsn: Lsn;
  readonly ops: number;
  readonly cells: number;
  readonly bytes: number;
}

/** The stream's description of what a capture instance holds. */
export function relationOf(instance: CaptureInstance, columns: readonly CapturedColumn[]): ChangeRelation {
  return {
    name: instance.table,
    id: String(instance.sourceId),
    columns: columns.map((column) => column.name),
    columnTypes: columns.map((column) => column.nativeType),
  };
}

/** Collects rows of one capture instance, which come in order. */
export class ChangeRows {
  readonly instance: CaptureInstance;
  readonly columns: readonly CapturedColumn[];
  readonly #relation: ChangeRelation;
  readonly #hasKey: boolean;
  #changes: TableChanges;
  #marks: Mark[] = [];
  #bytes = 0;
  /** Where the cells of the last complete change lie; kept apart from `RowPlace` because it is set for every row. */
  #lastCommand: string | null = null;
  #lastSequence = '';
  #lastOperation = '';
  #lastLsn: Lsn = '';
  /** An update's old row, whose new one follows. */
  #old: { readonly cells: readonly Cell[]; readonly at: number } | null = null;
  #lsn: Lsn = '';
  #lsnText = '';

  constructor(instance: CaptureInstance, columns: readonly CapturedColumn[]) {
    this.instance = instance;
    this.columns = columns;
    this.#relation = relationOf(instance, columns);
    this.#hasKey = columns.some((column) => column.isKey);
    this.#changes = emptyTableChanges(this.#relation);
  }

  get bytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#changes.ops.length;
  }

  /** Of the last complete change; null: nothing was read yet. */
  get last(): RowPlace | null {
    if (this.#lastCommand === null) return null;
    return {
      lsn: this.#lastLsn,
      command: this.#lastCommand,
      sequence: this.#lastSequence,
      operation: this.#lastOperation,
    };
  }

  /** Rows as they were selected: BOOKKEEPING, then the columns. A page may end between an update's two rows: go on behind `last`. */
  add(cells: readonly Cell[], rows: number): void {
    const width = LEADING + this.columns.length;
    for (let row = 0; row < rows; row++) this.#row(cells, row * width);
  }

  /** An old row without its new one is read again with it. */
  endPage(): void {
    this.#old = null;
  }

  /** What was collected, which begins anew; null: nothing. */
  take(): { changes: TableChanges; bytes: number } | null {
    const taken = this.#changes.ops.length > 0 ? { changes: this.#changes, bytes: this.#bytes } : null;
    this.#changes = emptyTableChanges(this.#relation);
    this.#marks = [];
    this.#bytes = 0;
    return taken;
  }

  /** Forgets transactions beyond `lsn`. */
  trim(lsn: Lsn): void {
    const mark = this.#marks.find((each) => each.lsn > lsn);
    if (!mark) return;
    const { ops, before, after, cells } = this.#changes;
    ops.length = before.length = after.length = mark.ops;
    cells.length = mark.cells;
    this.#marks = this.#marks.filter((each) => each.lsn <= lsn);
    this.#bytes = mark.bytes;
  }

  /** The transaction in the middle of what was read, by size. */
  get middleLsn(): Lsn | null {
    return (this.#marks.find((mark) => mark.bytes * 2 >= this.#bytes) ?? this.#marks.at(-1))?.lsn ?? null;
  }

  /** Transactions that it holds changes of. */
  get transactions(): number {
    return this.#marks.length;
  }

  /** The transaction of the last row added. */
  get lastLsn(): Lsn | null {
    return this.#marks.at(-1)?.lsn ?? null;
  }

  #row(cells: readonly Cell[], at: number): void {
    const lsnText = cells[at];
    const command = cells[at + 1];
    const sequence = cells[at + 2];
    const operation = cells[at + 3];
    if (typeof lsnText !== 'string' || typeof command !== 'string' || typeof sequence !== 'string')
      throw new SluiceError('INTERNAL', `a change of ${displayName(this.instance.table)} has no place`);
    if (lsnText !== this.#lsnText) {
      this.#lsnText = lsnText;
      this.#lsn = lsnOf(bytesOf(lsnText));
    }
    if (operation === UPDATE_OLD) {
      this.#old = { cells, at: at + LEADING };
      return;
    }
    if (this.#marks.at(-1)?.lsn !== this.#lsn)
      this.#marks.push({
        lsn: this.#lsn,
        ops: this.#changes.ops.length,
        cells: this.#changes.cells.length,
        bytes: this.#bytes,
      });
    switch (operation) {
      case INSERT:
        this.#push(Op.Insert, -1, this.#values(cells, at + LEADING));
        break;
      case DELETE:
        this.#push(Op.Delete, this.#identity(cells, at + LEADING), -1);
        break;
      case UPDATE_NEW: {
        const old = this.#old;
        if (!old)
          throw new SluiceError(
            'INTERNAL',
            `an update of ${displayName(this.instance.table)} came without the row it changed`,
          );
        const mask = cells[at + 4];
        const changed = typeof mask === 'string' ? mask : null;
        const before = this.#movesKey(changed) ? this.#identity(old.cells, old.at) : -1;
        this.#push(Op.Update, before, this.#values(cells, at + LEADING, changed));
        this.#old = null;
        break;
      }
      default:
        throw new SluiceError('INTERNAL', `unknown operation ${String(operation)} in a change table`);
    }
    this.#lastLsn = this.#lsn;
    this.#lastCommand = command;
    this.#lastSequence = sequence;
    this.#lastOperation = operation;
  }

  #push(op: Op, before: number, after: number): void {
    this.#changes.ops.push(op);
    this.#changes.before.push(before);
    this.#changes.after.push(after);
  }

  /** `mask` given: a large value that is NULL and did not change is absent, never NULL (F22). */
  #values(from: readonly Cell[], at: number, mask: string | null = null): number {
    const { cells } = this.#changes;
    const start = cells.length;
    for (const [i, { isLarge, ordinal }] of this.columns.entries()) {
      const cell = from[at + i] ?? null;
      if (cell === null && isLarge && mask !== null && !isSet(mask, ordinal)) {
        cells.push(undefined);
        this.#changes.hasAbsent = true;
      } else cells.push(cell);
      this.#bytes += CELL_BYTES + (cell?.length ?? 0);
    }
    return start;
  }

  /** Only what can be a key: a row's other values before a change are nobody's. */
  #identity(from: readonly Cell[], at: number): number {
    const { cells } = this.#changes;
    const start = cells.length;
    for (const [i, { isKey, isLarge }] of this.columns.entries()) {
      const cell: ChangeCell = isKey || (!this.#hasKey && !isLarge) ? (from[at + i] ?? null) : undefined;
      cells.push(cell);
      this.#bytes += CELL_BYTES + (cell?.length ?? 0);
    }
    return start;
  }

  #movesKey(mask: string | null): boolean {
    return mask === null || this.columns.some(({ isKey, ordinal }) => isKey && isSet(mask, ordinal));
  }
}

/** Bit `ordinal` of an update mask: the first column is the lowest bit of the last byte. */
function isSet(mask: string, ordinal: number): boolean {
  // Beyond its first byte: NaN, of which no bit is set.
  const byte = mask.charCodeAt(mask.length - 1 - ((ordinal - 1) >> 3));
  return ((byte >> ((ordinal - 1) & 7)) & 1) === 1;
}

/** Of text with one character a byte. */
export function bytesOf(text: string): Uint8Array {
  return Buffer.from(text, 'latin1');
}
