/** Rows of a change table made changes (manual: "cdc.<capture_instance>_CT"). */
import { Op, type ChangeRelation, type TableChanges } from '../../model/changes.ts';
import { SluiceError } from '../../model/errors.ts';
import { displayName } from '../../model/tables.ts';
import { ImageChanges } from '../image-changes.ts';
import type { CapturedColumn, CaptureInstance } from './capture-instances.ts';
import { CapturedRows, isChanged } from './captured-rows.ts';
import { lsnOf, type Lsn } from './position.ts';
import type { RowRests } from './tds/row-rests.ts';
import type { ResultRows } from './tds/rows.ts';

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

/** Columns of a change table that go before the captured ones, in the order in which `ChangeRows.add` wants them. */
export const BOOKKEEPING = ['__$start_lsn', '__$command_id', '__$seqval', '__$operation', '__$update_mask'] as const;
/** What a change costs besides its row's bytes, about. */
const CHANGE_BYTES = 64;

/** Where a transaction's rows begin. */
interface Mark {
  readonly lsn: Lsn;
  readonly ops: number;
  readonly rows: number;
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
  readonly #keyOrdinals: readonly number[];
  #changes: ImageChanges<CapturedRows>;
  #marks: Mark[] = [];
  #bytes = 0;
  /** Where the last complete change lies; kept apart from `RowPlace` because it is set for every row. */
  #lastCommand: string | null = null;
  #lastSequence = '';
  #lastOperation = '';
  #lastLsn: Lsn = '';
  /** An update's old row, whose new one follows. */
  #old: { readonly rests: RowRests; readonly row: number } | null = null;
  #lsn: Lsn = '';
  #lsnText = '';

  constructor(instance: CaptureInstance, columns: readonly CapturedColumn[]) {
    this.instance = instance;
    this.columns = columns;
    this.#relation = relationOf(instance, columns);
    this.#keyOrdinals = columns.flatMap(({ isKey, ordinal }) => (isKey ? [ordinal] : []));
    this.#changes = this.#empty();
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

  /** Rows as they were selected: BOOKKEEPING as cells, the columns as they came. A page may end between an update's two rows: go on behind `last`. */
  add({ cells, width, rows, rests }: ResultRows): void {
    if (rests === null || width !== BOOKKEEPING.length)
      throw new SluiceError('INTERNAL', `changes of ${displayName(this.instance.table)} were not read as they came`);
    for (let row = 0; row < rows; row++) this.#row(cells, row * width, rests, row);
  }

  /** An old row without its new one is read again with it. */
  endPage(): void {
    this.#old = null;
  }

  /** What was collected, which begins anew; null: nothing. */
  take(): { changes: TableChanges; bytes: number } | null {
    const taken = this.#changes.ops.length > 0 ? { changes: this.#changes, bytes: this.#bytes } : null;
    this.#changes = this.#empty();
    this.#marks = [];
    this.#bytes = 0;
    return taken;
  }

  /** Forgets transactions beyond `lsn`. */
  trim(lsn: Lsn): void {
    const mark = this.#marks.find((each) => each.lsn > lsn);
    if (!mark) return;
    const { ops, before, after, rows } = this.#changes;
    ops.length = before.length = after.length = mark.ops;
    rows.cut(mark.rows);
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

  #empty(): ImageChanges<CapturedRows> {
    return new ImageChanges(this.#relation, new CapturedRows(this.columns));
  }

  #row(cells: ResultRows['cells'], at: number, rests: RowRests, row: number): void {
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
      this.#old = { rests, row };
      return;
    }
    const { rows } = this.#changes;
    if (this.#marks.at(-1)?.lsn !== this.#lsn)
      this.#marks.push({ lsn: this.#lsn, ops: this.#changes.ops.length, rows: rows.count, bytes: this.#bytes });
    switch (operation) {
      case INSERT:
        this.#push(Op.Insert, -1, rows.pushNew(rests, row));
        break;
      case DELETE:
        this.#push(Op.Delete, rows.pushOld(rests, row), -1);
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
        let before = -1;
        if (this.#movesKey(changed)) {
          before = rows.pushOld(old.rests, old.row);
          this.#bytes += old.rests.lengths[old.row] ?? 0;
        }
        const after = rows.pushUpdated(rests, row, changed);
        this.#changes.hasAbsent ||= !rows.isWhole(after);
        this.#push(Op.Update, before, after);
        this.#old = null;
        break;
      }
      default:
        throw new SluiceError('INTERNAL', `unknown operation ${String(operation)} in a change table`);
    }
    this.#bytes += CHANGE_BYTES + (rests.lengths[row] ?? 0);
    this.#lastLsn = this.#lsn;
    this.#lastCommand = command;
    this.#lastSequence = sequence;
    this.#lastOperation = operation;
  }

  /** Rows are named by their first cell among all. */
  #push(op: Op, before: number, after: number): void {
    const width = this.columns.length;
    this.#changes.ops.push(op);
    this.#changes.before.push(before < 0 ? -1 : before * width);
    this.#changes.after.push(after < 0 ? -1 : after * width);
  }

  #movesKey(mask: string | null): boolean {
    return mask === null || this.#keyOrdinals.some((ordinal) => isChanged(mask, ordinal));
  }
}

/** Of text with one character a byte. */
export function bytesOf(text: string): Uint8Array {
  return Buffer.from(text, 'latin1');
}
