/**
 * Collapse: per key, in source order, the last state wins (DESIGN §4). Keys are compared as bytes; a key change is a
 * delete of the old key and an upsert of the new one; an absent value stays absent until something supplies it, and is
 * never NULL. The same code serves the live stream and the fold of a backlog.
 */
import { isUtf8 } from 'node:buffer';
import { Slots } from './slots.ts';
import { cellAt, Op, type ChangeCell, type RowImages, type TableChanges } from '../model/changes.ts';
import type { KeyedChanges, UpsertImages } from '../model/keyed-changes.ts';
import { SluiceError } from '../model/errors.ts';

/** As an image's `integer` has them: a text has to become the same key whichever way it came. */
const SHORT_INTEGER = /^(?:0|-?[1-9]\d{0,8})$/;

/** A slot's row was made within these changes: nothing of it is at the destination. */
const NONE = null;
/** A slot's row lies at the destination under the slot's own key. */
const SELF = undefined;
type Base = readonly ChangeCell[] | typeof NONE | typeof SELF;

/** Changes that were added, and where the carried columns lie in them. */
interface Source {
  /** Its place among those that were added. */
  readonly number: number;
  readonly changes: TableChanges;
  /** By carried column: its place in the relation, −1 when it is not there. */
  readonly columns: readonly number[];
  /** By key column. */
  readonly key: readonly number[];
  /** Every carried column is there. */
  readonly hasAll: boolean;
}

export interface CollapseOptions {
  /**
   * The columns' types when the copy began. Changes made while a column was not there yet, or had another type, leave its cell
   * absent even in new rows: what it became is known only to the source. Null: such a cell of a new row is NULL.
   */
  readonly types: ReadonlyMap<string, string> | null;
}

/**
 * Collects changes of one table; `result` may be taken once. A row that is whole is only pointed at, so that nothing of it is
 * looked at here but its key. Memory: the changes that were added, and one entry per distinct key.
 */
export class Collapse {
  readonly #columns: readonly string[];
  readonly #key: readonly string[];
  readonly #keyInColumns: readonly number[];
  readonly #types: CollapseOptions['types'];
  /** One entry for each distinct key. */
  readonly #slots = new Map<string | number, number>();
  readonly #entries = new Slots();
  /** What was added; entries name a source by its place here. */
  readonly #sources: Source[] = [];
  /** Of slots whose row was under another key before: that key. */
  readonly #moved = new Map<number, readonly ChangeCell[]>();
  /** Rows that were put together, or lack something. */
  readonly #own = new Map<number, ChangeCell[]>();
  #truncate = false;
  #hasUnread = false;
  #visibility = new Set<string>();
  #bytes = 0;

  /** `columns`: the carried source columns; `key`: those of the key, all among them. */
  constructor(columns: readonly string[], key: readonly string[], options: CollapseOptions = { types: null }) {
    this.#types = options.types;
    this.#columns = columns;
    this.#key = key;
    this.#keyInColumns = key.map((name) => columns.indexOf(name));
    if (key.length === 0 || this.#keyInColumns.includes(-1))
      throw new SluiceError('INTERNAL', 'collapse needs its key among its columns');
  }

  /** Tokens of the transactions whose changes had absent cells. */
  get visibility(): readonly string[] {
    return [...this.#visibility];
  }

  /** Cells held, in bytes, approximately: when to send what was collected. */
  get bytes(): number {
    return this.#bytes;
  }

  get keys(): number {
    return this.#slots.size;
  }

  add(changes: TableChanges): void {
    const { ops, before, after } = changes;
    const columns = this.#columns.map((name) => {
      const at = changes.relation.columns.indexOf(name);
      const type = this.#types?.get(name);
      return type === undefined || this.#key.includes(name) || type === changes.relation.columnTypes[at] ? at : -1;
    });
    const key = this.#key.map((name) => changes.relation.columns.indexOf(name));
    if (key.includes(-1)) {
      throw new SluiceError(
        'SCHEMA_CHANGED',
        `a key column of ${changes.relation.name.schema}.${changes.relation.name.table} is gone`,
      );
    }
    const source: Source = { number: this.#sources.length, changes, columns, key, hasAll: !columns.includes(-1) };
    this.#sources.push(source);
    this.#hasUnread ||= changes.hasUnread === true;
    for (const token of changes.visibility) this.#visibility.add(token);
    for (let i = 0; i < ops.length; i++) {
      const op = ops[i];
      const oldAt = before[i] ?? -1;
      const newAt = after[i] ?? -1;
      if (oldAt >= 0 && !changes.images) this.#count(changes.cells, oldAt, changes.relation.columns.length);
      switch (op) {
        case Op.Insert:
          this.#insert(source, newAt);
          break;
        case Op.Update:
          this.#update(source, oldAt, newAt);
          break;
        case Op.Delete:
          this.#kill(this.#slot(source, oldAt));
          break;
        case Op.Truncate:
          this.#reset();
          this.#truncate = true;
          break;
        default:
          throw new SluiceError('INTERNAL', `unknown change ${String(op)}`);
      }
    }
  }

  result(): KeyedChanges {
    const keyWidth = this.#key.length;
    const deletes: ChangeCell[] = [];
    const bases = new Map<number, readonly ChangeCell[]>();
    const fresh: number[] = [];
    const others: number[] = [];
    let hasAbsent = false;
    for (let slot = 0; slot < this.#entries.count; slot++) {
      if (this.#entries.isAlive(slot)) (this.#isNew(slot) ? fresh : others).push(slot);
      else if (!this.#truncate) for (const cell of this.#keyCells(slot)) deletes.push(cell);
    }
    others.forEach((slot, i) => {
      if (!this.#isIncomplete(slot)) return;
      hasAbsent = true;
      const base = this.#base(slot);
      if (base) bases.set(fresh.length + i, base);
    });
    // Without these arrays' copies where rows are all new, as they mostly are.
    const slots = others.length === 0 ? fresh : fresh.concat(others);
    const rows = () => this.#rows(slots);
    let upserts: ChangeCell[] | null = null;
    return {
      columns: this.#columns,
      key: this.#key,
      truncate: this.#truncate,
      deletes,
      // Cells are made only for a destination that does not take the rows as they came.
      get upserts() {
        return (upserts ??= rows());
      },
      images: this.#images(slots),
      newCount: fresh.length,
      bases,
      hasAbsent,
      hasUnread: this.#hasUnread,
      deleteCount: deletes.length / keyWidth,
      upsertCount: fresh.length + others.length,
    };
  }

  #rows(slots: readonly number[]): ChangeCell[] {
    const cells: ChangeCell[] = [];
    for (const slot of slots) {
      const from = this.#sources[this.#entries.from(slot)];
      if (from) {
        const { cells: all } = from.changes;
        const at = this.#entries.at(slot);
        for (const column of from.columns) cells.push(all[at + column]);
      } else for (const cell of this.#own.get(slot) ?? []) cells.push(cell);
    }
    return cells;
  }

  /** The rows of these slots as they came; null: not all of them came so, or not with the same columns. */
  #images(slots: readonly number[]): UpsertImages | null {
    const first = slots[0] === undefined ? undefined : this.#sources[this.#entries.from(slots[0])];
    if (!first?.changes.images || this.#own.size > 0) return null;
    const { relation } = first.changes;
    const width = relation.columns.length;
    const images: RowImages[] = [];
    const rows: number[] = [];
    for (const slot of slots) {
      const from = this.#sources[this.#entries.from(slot)];
      if (!from?.changes.images || from.changes.relation !== relation) return null;
      images.push(from.changes.images);
      rows.push(this.#entries.at(slot) / width);
    }
    return { relation, columns: first.columns, images, rows };
  }

  #isNew(slot: number): boolean {
    return this.#entries.isFresh(slot) && this.#entries.isMade(slot) && !this.#isIncomplete(slot);
  }

  #isIncomplete(slot: number): boolean {
    return this.#own.get(slot)?.includes(undefined) ?? false;
  }

  #insert(source: Source, at: number): void {
    const key = keyOf(source, at);
    const known = this.#slots.get(key);
    const slot = known ?? this.#append(key, source, at);
    if (known === undefined) this.#entries.setFresh(slot);
    this.#revive(slot, NONE);
    // A column that the relation does not have is NULL in a new row, never "as before".
    this.#put(slot, source, at, null, this.#types === null ? null : undefined);
  }

  #update(source: Source, oldAt: number, newAt: number): void {
    const keyMoved = oldAt >= 0 && keyOf(source, oldAt) !== keyOf(source, newAt);
    if (!keyMoved) {
      const keys = this.#entries.count;
      const slot = this.#slot(source, newAt);
      const isFirst = slot === keys || !this.#entries.isAlive(slot);
      if (isFirst) this.#revive(slot, this.#truncate ? NONE : SELF);
      this.#put(slot, source, newAt, isFirst ? null : slot, undefined);
      return;
    }
    const from = this.#slots.get(keyOf(source, oldAt));
    let base: Base;
    let carried: readonly ChangeCell[] | null = null;
    if (from !== undefined && this.#entries.isAlive(from)) {
      base = this.#base(from);
      if (base === SELF) base = this.#keyCells(from);
      carried = this.#rows([from]);
    } else {
      base = source.key.map((column) => cellAt(source.changes, oldAt, column));
    }
    this.#kill(from ?? this.#slot(source, oldAt));
    const slot = this.#slot(source, newAt, true);
    this.#revive(slot, base);
    this.#put(slot, source, newAt, carried, undefined);
  }

  #slot(source: Source, at: number, fresh = false): number {
    const key = keyOf(source, at);
    const known = this.#slots.get(key);
    if (known !== undefined) return known;
    const slot = this.#append(key, source, at);
    if (fresh) this.#entries.setFresh(slot);
    return slot;
  }

  /** An entry for a key not seen before, with no row yet. */
  #append(key: string | number, source: Source, at: number): number {
    const slot = this.#entries.append(source.number, at);
    this.#slots.set(key, slot);
    this.#bytes += 64 + (typeof key === 'string' ? key.length : 0);
    return slot;
  }

  #base(slot: number): Base {
    return this.#moved.get(slot) ?? (this.#entries.isMade(slot) ? NONE : SELF);
  }

  /** The slot has a row (again), which was at `base` before. */
  #revive(slot: number, base: Base): void {
    this.#entries.setAlive(slot, base === NONE);
    if (base) this.#moved.set(slot, base);
    else if (this.#moved.size > 0) this.#moved.delete(slot);
  }

  /**
   * The slot's row becomes the one at `at`. What that one lacks comes from `before` (a row, or that of a slot), unless it may be another
   * value by now that could not be read; a column that its relation does not have, and `before` neither, is `missing`.
   */
  #put(
    slot: number,
    source: Source,
    at: number,
    before: readonly ChangeCell[] | number | null,
    missing: null | undefined,
  ): void {
    const { changes, columns } = source;
    if (source.hasAll && isWhole(changes, at)) {
      this.#entries.setRow(slot, source.number, at);
      if (this.#own.size > 0) this.#own.delete(slot);
      // Of images nobody asks how much they take: they are held by the piece that brought them.
      if (!changes.images) this.#count(changes.cells, at, changes.relation.columns.length);
      return;
    }
    const old = typeof before === 'number' ? this.#rows([before]) : before;
    const cells = columns.map((column, c) => {
      if (column < 0) return missing === undefined ? old?.[c] : missing;
      const cell = cellAt(changes, at, column);
      return cell === undefined && !changes.hasUnread ? old?.[c] : cell;
    });
    this.#entries.setNoRow(slot);
    this.#own.set(slot, cells);
    this.#count(cells, 0, cells.length);
  }

  #count(cells: readonly ChangeCell[], at: number, width: number): void {
    for (let c = at; c < at + width; c++) this.#bytes += 16 + (cells[c]?.length ?? 0);
  }

  #kill(slot: number): void {
    this.#entries.kill(slot);
    this.#moved.delete(slot);
    this.#own.delete(slot);
  }

  #keyCells(slot: number): readonly ChangeCell[] {
    const from = this.#sources[this.#entries.keyFrom(slot)];
    return from ? from.key.map((column) => cellAt(from.changes, this.#entries.keyAt(slot), column)) : [];
  }

  #reset(): void {
    this.#slots.clear();
    this.#entries.clear();
    this.#moved.clear();
    this.#own.clear();
    this.#bytes = 0;
  }
}

/** The row has every cell of its relation, and, where rows are as they came, has them all itself. */
function isWhole(changes: TableChanges, at: number): boolean {
  const width = changes.relation.columns.length;
  if (changes.images) return changes.images.isWhole(at / width);
  if (!changes.hasAbsent) return true;
  for (let c = 0; c < width; c++) if (changes.cells[at + c] === undefined) return false;
  return true;
}

/** A row's key as something that is equal exactly when the bytes are: the integer that they are the text of, else a text. */
function keyOf({ changes, key }: Source, at: number): string | number {
  if (key.length > 1) return joined(key.map((column) => cellAt(changes, at, column)));
  const column = key[0] ?? 0;
  const { images } = changes;
  const row = images ? at / changes.relation.columns.length : 0;
  const integer = images?.integer(row, column);
  if (integer != null) return integer;
  const cell = images ? images.cell(row, column) : changes.cells[at + column];
  const text = cellText(cell);
  return SHORT_INTEGER.test(text) ? Number(text) : text;
}

function joined(cells: readonly ChangeCell[]): string {
  let text = '';
  for (const cell of cells) {
    const part = cellText(cell);
    text += `${part.length}:${part}`;
  }
  return text;
}

/** A key's cells as text that is equal exactly when their bytes are, strings and UTF-8 bytes alike. */
export function keyText(cells: readonly ChangeCell[]): string {
  return cells.length === 1 ? cellText(cells[0]) : joined(cells);
}

/**
 * Strings and their UTF-8 bytes must meet in one key, and bytes that are not UTF-8 may not meet anything else: no text of a source
 * begins with half a surrogate pair.
 */
function cellText(cell: ChangeCell): string {
  if (typeof cell === 'string') return cell;
  if (cell === undefined) throw new SluiceError('INTERNAL', 'a change carries no value for a key column');
  if (cell === null) return '\udfffnull';
  const bytes = cell instanceof Buffer ? cell : Buffer.from(cell.buffer, cell.byteOffset, cell.byteLength);
  return isUtf8(bytes) ? bytes.toString('utf8') : `\udfff${bytes.toString('latin1')}`;
}
