/**
 * Rows of a change table as the server sent them (tds/rows.ts): where they lie in what was read, and nothing made of them. A bulk load
 * takes most values from there as they are (tds/bulk-rests.ts); cells are made for whoever asks.
 */
import type { Cell, ChangeCell } from '../../model/changes.ts';
import type { StoredRows } from '../image-changes.ts';
import type { CapturedColumn } from './capture-instances.ts';
import { decodeInt, decodeUnicode, integerAt } from './tds/cells.ts';
import { cellOf, endOfValue, isNull, lengthOfValue, startOfValue } from './tds/read-columns.ts';
import { isSet, type RestFormat, type RowRests } from './tds/row-rests.ts';
import { mostText, textWriter, writeCell, type TextWriter } from './tds/value-text.ts';

/** What a row says besides its values. */
const Row = {
  Whole: 0,
  /** Only what can be a key: a row's other values before a change are nobody's. */
  KeyOnly: 1,
  /** NULL in a large column may mean that it did not change. */
  Masked: 2,
} as const;
type Row = (typeof Row)[keyof typeof Row];

const TAB = 0x09;
const BACKSLASH = 0x5c;
const LETTER_N = 0x4e;
/** Nine digits, as `RowImages.integer` has them. */
const MOST_INTEGER = 999_999_999;

/** A row: where its batch is among all, where it is in there, and what it is. One number, because a piece has many of them. */
const KINDS = 4;
const BATCH_ROWS = 1 << 20;

export class CapturedRows implements StoredRows {
  readonly #batches: RowRests[] = [];
  readonly #rows: number[] = [];
  readonly #columns: readonly CapturedColumn[];
  readonly #inIdentity: readonly boolean[];
  readonly #large: readonly { readonly at: number; readonly ordinal: number }[];
  /** By row that is `Masked`: the columns that changed. */
  readonly #masks = new Map<number, string>();
  // Of `line`: what the writers are of, and where the values of the row in hand begin (−1: NULL).
  #written: RestFormat | null = null;
  #writers: readonly (TextWriter | null)[] = [];
  #starts = new Int32Array(0);

  constructor(columns: readonly CapturedColumn[]) {
    this.#columns = columns;
    const hasKey = columns.some((column) => column.isKey);
    this.#inIdentity = columns.map(({ isKey, isLarge }) => isKey || (!hasKey && !isLarge));
    this.#large = columns.flatMap(({ isLarge, ordinal }, at) => (isLarge ? [{ at, ordinal }] : []));
  }

  get count(): number {
    return this.#rows.length;
  }

  /** The row that an insert made. */
  pushNew(from: RowRests, index: number): number {
    return this.#push(from, index, Row.Whole);
  }

  /** What identified a row that is not there any more. */
  pushOld(from: RowRests, index: number): number {
    return this.#push(from, index, Row.KeyOnly);
  }

  /** The row that an update made. `mask`: the columns that it changed; null: not known. */
  pushUpdated(from: RowRests, index: number, mask: string | null): number {
    const row = this.#push(from, index, Row.Whole);
    if (mask === null || this.#large.length === 0) return row;
    if (this.#large.some(({ at, ordinal }) => !isChanged(mask, ordinal) && this.#valueAt(row, at) < 0)) {
      this.#rows[row] = (this.#rows[row] ?? 0) + Row.Masked;
      this.#masks.set(row, mask);
    }
    return row;
  }

  /** Where the row lies. */
  batchOf(row: number): RowRests {
    const batch = this.#batches[Math.floor((this.#rows[row] ?? 0) / (KINDS * BATCH_ROWS))];
    if (batch === undefined) throw new RangeError(`there is no row ${row}`);
    return batch;
  }

  /** Its number among its batch's. */
  indexOf(row: number): number {
    return Math.floor((this.#rows[row] ?? 0) / KINDS) % BATCH_ROWS;
  }

  isWhole(row: number): boolean {
    return this.#kind(row) === Row.Whole;
  }

  cell(row: number, column: number): ChangeCell {
    if (this.#isAbsent(row, column)) return undefined;
    const at = this.#valueAt(row, column);
    const read = this.batchOf(row).format.columns[column];
    return this.#present(row, column, at < 0 || read === undefined ? null : cellOf(read, this.#buffer(row), at));
  }

  integer(row: number, column: number): number | null {
    const read = this.batchOf(row).format.columns[column];
    const at = read?.decode === decodeInt ? this.#valueAt(row, column) : -1;
    if (read === undefined || at < 0) return null;
    const buffer = this.#buffer(row);
    const isFixed = read.framing === 'fixed';
    const number = integerAt(buffer, isFixed ? at : at + 1, isFixed ? read.size : (buffer[at] ?? 0));
    return number <= MOST_INTEGER && number >= -MOST_INTEGER ? number : null;
  }

  append(row: number, cells: ChangeCell[]): void {
    const { format, buffers, starts, nulls: bitmaps } = this.batchOf(row);
    const index = this.indexOf(row);
    const kind = this.#kind(row);
    const buffer = buffers[index];
    const nulls = bitmaps[index] ?? null;
    if (buffer === undefined) return;
    const { columns, leading } = format;
    let at = starts[index] ?? 0;
    for (let column = 0; column < columns.length; column++) {
      const read = columns[column];
      let cell: Cell = null;
      if (read !== undefined && (nulls === null || !isSet(nulls, leading + column))) {
        cell = cellOf(read, buffer, at);
        at = endOfValue(read, buffer, at);
      }
      if (kind === Row.Whole) cells.push(cell);
      else cells.push(this.#isAbsent(row, column) ? undefined : this.#present(row, column, cell));
    }
  }

  mostLine(row: number, columns: readonly number[]): number {
    return mostText(this.batchOf(row).lengths[this.indexOf(row)] ?? 0) + columns.length * mostText(0);
  }

  line(row: number, columns: readonly number[], out: Buffer, to: number): number {
    const batch = this.batchOf(row);
    const index = this.indexOf(row);
    const { format } = batch;
    const buffer = batch.buffers[index];
    const nulls = batch.nulls[index] ?? null;
    if (buffer === undefined || this.#kind(row) !== Row.Whole) return -1;
    if (format !== this.#written) {
      this.#written = format;
      this.#writers = format.columns.map(textWriter);
      this.#starts = new Int32Array(format.columns.length);
    }
    let at = batch.starts[index] ?? 0;
    for (let i = 0; i < format.columns.length; i++) {
      const read = format.columns[i];
      const hasBytes = read !== undefined && (nulls === null || !isSet(nulls, format.leading + i));
      this.#starts[i] = hasBytes && !isNull(read, buffer, at) ? at : -1;
      if (hasBytes) at = endOfValue(read, buffer, at);
    }
    let next = to;
    for (let c = 0; c < columns.length; c++) {
      if (c > 0) out[next++] = TAB;
      const column = columns[c] ?? 0;
      const start = this.#starts[column] ?? -1;
      const read = format.columns[column];
      if (start < 0 || read === undefined) {
        out[next++] = BACKSLASH;
        out[next++] = LETTER_N;
        continue;
      }
      const writer = this.#writers[column] ?? null;
      const from = writer === null ? -1 : startOfValue(read, buffer, start);
      const end = from < 0 ? -1 : from + lengthOfValue(read, buffer, start);
      const written = writer === null || from < 0 ? -1 : writer(buffer, from, end, out, next);
      if (written >= 0) next = written;
      else {
        // Text that is not written here may be something that UTF-8 does not have.
        const cell = read.decode === decodeUnicode ? null : cellOf(read, buffer, start);
        if (typeof cell !== 'string') return -1;
        next = writeCell(cell, out, next);
      }
    }
    return next;
  }

  /** Forgets rows from number `count` on. */
  cut(count: number): void {
    this.#rows.length = count;
    for (const row of this.#masks.keys()) if (row >= count) this.#masks.delete(row);
  }

  #push(from: RowRests, index: number, kind: Row): number {
    if (this.#batches.at(-1) !== from) this.#batches.push(from);
    const batch = this.#batches.length - 1;
    return this.#rows.push((batch * BATCH_ROWS + index) * KINDS + kind) - 1;
  }

  #kind(row: number): number {
    return (this.#rows[row] ?? 0) % KINDS;
  }

  #buffer(row: number): Buffer {
    return this.batchOf(row).buffers[this.indexOf(row)] ?? Buffer.alloc(0);
  }

  #isAbsent(row: number, column: number): boolean {
    return this.#kind(row) === Row.KeyOnly && this.#inIdentity[column] === false;
  }

  /** A large value that is NULL and did not change is absent, never NULL (F22). */
  #present(row: number, column: number, cell: Cell): ChangeCell {
    if (cell !== null || this.#kind(row) !== Row.Masked) return cell;
    const { isLarge = false, ordinal = 0 } = this.#columns[column] ?? {};
    return isLarge && !isChanged(this.#masks.get(row) ?? '', ordinal) ? undefined : null;
  }

  /** Where the value begins; −1: it is NULL. */
  #valueAt(row: number, column: number): number {
    const { format, buffers, starts, nulls: bitmaps } = this.batchOf(row);
    const index = this.indexOf(row);
    const buffer = buffers[index];
    const nulls = bitmaps[index] ?? null;
    if (buffer === undefined) return -1;
    const { columns, leading } = format;
    let at = starts[index] ?? 0;
    for (let before = 0; before < column; before++) {
      const read = columns[before];
      if (read !== undefined && (nulls === null || !isSet(nulls, leading + before))) at = endOfValue(read, buffer, at);
    }
    const read = columns[column];
    if (read === undefined || (nulls !== null && isSet(nulls, leading + column))) return -1;
    return isNull(read, buffer, at) ? -1 : at;
  }
}

/** Bit `ordinal` of an update mask: the first column is the lowest bit of the last byte. */
export function isChanged(mask: string, ordinal: number): boolean {
  // Beyond its first byte: NaN, of which no bit is set.
  const byte = mask.charCodeAt(mask.length - 1 - ((ordinal - 1) >> 3));
  return ((byte >> ((ordinal - 1) & 7)) & 1) === 1;
}
