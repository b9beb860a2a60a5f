/**
 * Collapse: per key, in source order, the last state wins (DESIGN §4). Keys are compared as bytes; a key change is a
 * delete of the old key and an upsert of the new one; an absent value stays absent until something supplies it, and is
 * never NULL. The same code serves the live stream and the fold of a backlog.
 */
import { isUtf8 } from 'node:buffer';
import { Op, type ChangeCell, type TableChanges } from '../model/changes.ts';
import type { KeyedChanges } from '../model/keyed-changes.ts';
import { SluiceError } from '../model/errors.ts';

/** A slot's row was made within these changes: nothing of it is at the destination. */
const NONE = null;
/** A slot's row lies at the destination under the slot's own key. */
const SELF = undefined;
type Base = readonly ChangeCell[] | typeof NONE | typeof SELF;

export interface CollapseOptions {
  /**
   * The columns' types when the copy began. Changes made while a column was not there yet, or had another type, leave its cell
   * absent even in new rows: what it became is known only to the source. Null: such a cell of a new row is NULL.
   */
  readonly types: ReadonlyMap<string, string> | null;
}

/** Collects changes of one table; `result` may be taken once. Memory: one row per distinct key. */
export class Collapse {
  readonly #columns: readonly string[];
  readonly #key: readonly string[];
  readonly #keyInColumns: readonly number[];
  readonly #types: CollapseOptions['types'];
  readonly #slots = new Map<string, number>();
  // One entry per slot.
  #alive: boolean[] = [];
  /** The first change of the key made its row: before these changes no row had it. */
  #fresh: boolean[] = [];
  #bases: Base[] = [];
  #slotKeys: ChangeCell[] = [];
  #cells: ChangeCell[] = [];
  #truncate = false;
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
    const { ops, before, after, cells } = changes;
    const stride = changes.relation.columns.length;
    const source = this.#columns.map((name) => {
      const at = changes.relation.columns.indexOf(name);
      const type = this.#types?.get(name);
      return type === undefined || this.#key.includes(name) || type === changes.relation.columnTypes[at] ? at : -1;
    });
    const keySource = this.#key.map((name) => changes.relation.columns.indexOf(name));
    if (keySource.includes(-1)) {
      throw new SluiceError(
        'SCHEMA_CHANGED',
        `a key column of ${changes.relation.name.schema}.${changes.relation.name.table} is gone`,
      );
    }
    for (const token of changes.visibility) this.#visibility.add(token);
    for (let i = 0; i < ops.length; i++) {
      const op = ops[i];
      const oldAt = before[i] ?? -1;
      const newAt = after[i] ?? -1;
      switch (op) {
        case Op.Insert:
          this.#insert(cells, newAt, source, keySource);
          break;
        case Op.Update:
          this.#update(cells, oldAt, newAt, source, keySource);
          break;
        case Op.Delete:
          this.#kill(this.#slot(cells, oldAt, keySource));
          break;
        case Op.Truncate:
          this.#reset();
          this.#truncate = true;
          break;
        default:
          throw new SluiceError('INTERNAL', `unknown change ${String(op)} (row of ${stride} columns)`);
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
    for (let slot = 0; slot < this.#alive.length; slot++) {
      if (this.#alive[slot]) (this.#isNew(slot) ? fresh : others).push(slot);
      else if (!this.#truncate) for (let k = 0; k < keyWidth; k++) deletes.push(this.#slotKeys[slot * keyWidth + k]);
    }
    others.forEach((slot, i) => {
      if (!this.#isIncomplete(slot)) return;
      hasAbsent = true;
      const base = this.#bases[slot];
      if (base) bases.set(fresh.length + i, base);
    });
    return {
      columns: this.#columns,
      key: this.#key,
      truncate: this.#truncate,
      deletes,
      upserts: this.#rows([...fresh, ...others]),
      newCount: fresh.length,
      bases,
      hasAbsent,
      deleteCount: deletes.length / keyWidth,
      upsertCount: fresh.length + others.length,
    };
  }

  /** The cells of these slots; when they are all there are, in order, without copying. */
  #rows(slots: readonly number[]): readonly ChangeCell[] {
    if (slots.length === this.#alive.length && slots.every((slot, i) => slot === i)) return this.#cells;
    const width = this.#columns.length;
    const cells: ChangeCell[] = [];
    for (const slot of slots) for (let at = slot * width; at < (slot + 1) * width; at++) cells.push(this.#cells[at]);
    return cells;
  }

  #isNew(slot: number): boolean {
    return this.#fresh[slot] === true && this.#bases[slot] === NONE && !this.#isIncomplete(slot);
  }

  #isIncomplete(slot: number): boolean {
    const width = this.#columns.length;
    for (let at = slot * width; at < (slot + 1) * width; at++) if (this.#cells[at] === undefined) return true;
    return false;
  }

  #insert(cells: readonly ChangeCell[], at: number, source: readonly number[], keySource: readonly number[]): void {
    const text = keyOf(cells, at, keySource);
    const known = this.#slots.get(text);
    if (known === undefined) {
      this.#append(text, cells, at, source, keySource);
      return;
    }
    this.#alive[known] = true;
    this.#bases[known] = NONE;
    // A column that the relation does not have is NULL in a new row, never "as before".
    this.#forget(known);
    this.#put(known, cells, at, source, this.#types !== null);
  }

  /** The most frequent change by far: a row under a key not seen before. */
  #append(
    text: string,
    cells: readonly ChangeCell[],
    at: number,
    source: readonly number[],
    keySource: readonly number[],
  ): void {
    this.#slots.set(text, this.#alive.length);
    this.#alive.push(true);
    this.#fresh.push(true);
    this.#bases.push(NONE);
    for (const c of keySource) this.#slotKeys.push(cells[at + c]);
    const without = this.#types === null ? null : undefined;
    let bytes = 64 + text.length;
    for (const from of source) {
      const cell = from < 0 ? without : cells[at + from];
      this.#cells.push(cell);
      bytes += 16 + (cell ? cell.length : 0);
    }
    this.#bytes += bytes;
  }

  #update(
    cells: readonly ChangeCell[],
    oldAt: number,
    newAt: number,
    source: readonly number[],
    keySource: readonly number[],
  ): void {
    const keyMoved = oldAt >= 0 && keyOf(cells, oldAt, keySource) !== keyOf(cells, newAt, keySource);
    if (!keyMoved) {
      const keys = this.#alive.length;
      const slot = this.#slot(cells, newAt, keySource);
      if (slot === keys || !this.#alive[slot]) {
        this.#alive[slot] = true;
        this.#bases[slot] = this.#truncate ? NONE : SELF;
        this.#forget(slot);
      }
      this.#put(slot, cells, newAt, source, true);
      return;
    }
    const from = this.#slots.get(keyOf(cells, oldAt, keySource));
    const width = this.#columns.length;
    let base: Base;
    let carried: ChangeCell[] | null = null;
    if (from !== undefined && this.#alive[from]) {
      base = this.#bases[from];
      if (base === SELF) base = this.#keyCells(from);
      carried = this.#cells.slice(from * width, (from + 1) * width);
    } else {
      base = keySource.map((c) => cells[oldAt + c]);
    }
    this.#kill(from ?? this.#slot(cells, oldAt, keySource));
    const slot = this.#slot(cells, newAt, keySource, true);
    this.#alive[slot] = true;
    this.#bases[slot] = base;
    this.#forget(slot);
    if (carried) for (let c = 0; c < width; c++) this.#cells[slot * width + c] = carried[c];
    this.#put(slot, cells, newAt, source, true);
  }

  #slot(cells: readonly ChangeCell[], at: number, keySource: readonly number[], fresh = false): number {
    const text = keyOf(cells, at, keySource);
    let slot = this.#slots.get(text);
    if (slot === undefined) {
      slot = this.#alive.length;
      this.#slots.set(text, slot);
      this.#alive.push(false);
      this.#fresh.push(fresh);
      this.#bases.push(SELF);
      for (const c of keySource) this.#slotKeys.push(cells[at + c]);
      for (let c = 0; c < this.#columns.length; c++) this.#cells.push(undefined);
      this.#bytes += 64 + text.length;
    }
    return slot;
  }

  #put(slot: number, cells: readonly ChangeCell[], at: number, source: readonly number[], keepAbsent: boolean): void {
    const width = this.#columns.length;
    for (let c = 0; c < width; c++) {
      const from = source[c] ?? -1;
      const cell = from < 0 ? (keepAbsent ? undefined : null) : cells[at + from];
      if (cell === undefined) continue;
      this.#cells[slot * width + c] = cell;
      this.#bytes += 16 + (cell === null ? 0 : cell.length);
    }
  }

  #forget(slot: number): void {
    const width = this.#columns.length;
    this.#cells.fill(undefined, slot * width, (slot + 1) * width);
  }

  #kill(slot: number): void {
    this.#alive[slot] = false;
    this.#bases[slot] = SELF;
    this.#forget(slot);
  }

  #keyCells(slot: number): readonly ChangeCell[] {
    return this.#slotKeys.slice(slot * this.#key.length, (slot + 1) * this.#key.length);
  }

  #reset(): void {
    this.#slots.clear();
    this.#alive = [];
    this.#fresh = [];
    this.#bases = [];
    this.#slotKeys = [];
    this.#cells = [];
    this.#bytes = 0;
  }
}

/** A row's key as text that is equal exactly when the bytes are. */
function keyOf(cells: readonly ChangeCell[], at: number, keySource: readonly number[]): string {
  if (keySource.length === 1) return cellText(cells[at + (keySource[0] ?? 0)]);
  let text = '';
  for (const c of keySource) {
    const part = cellText(cells[at + c]);
    text += `${part.length}:${part}`;
  }
  return text;
}

/** A key's cells as text that is equal exactly when their bytes are, strings and UTF-8 bytes alike. */
export function keyText(cells: readonly ChangeCell[]): string {
  return keyOf(
    cells,
    0,
    cells.map((_, i) => i),
  );
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
