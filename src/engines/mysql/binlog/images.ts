/**
 * Rows of a table where they lie in the events that were read (MySQL Internals, "Rows Event": a bit for each NULL, then the values),
 * and nothing made of them. Between two of these servers they are written from there (load/images.ts); cells are made for whoever asks.
 */
import type { ChangeCell } from '../../../model/changes.ts';
import type { StoredRows } from '../../image-changes.ts';
import { valueSize, type LogColumn } from './columns.ts';
import { decoderOf, type Cursor, type ValueReader } from './values.ts';

/** No key column is longer (InnoDB's limit in bytes): a longer value of an old row is not needed. */
const MAX_KEY_BYTES = 3072;
/** The longest whole numbers that are keys as numbers. */
const MAX_SHORT = 999_999_999;

/** How a table's rows are read. */
export interface RowFormat {
  readonly columns: readonly LogColumn[];
  readonly readers: readonly ValueReader[];
  /** By column, as `valueSize` says. */
  readonly sizes: Int8Array | Int16Array;
  /** Of the bits that say which values are NULL. */
  readonly nullBytes: number;
  /** By column: bytes of an integer; 0: it is none. */
  readonly integers: Int8Array;
  /** Some value may be one that cannot be read, and is absent. */
  readonly mayLack: boolean;
}

export function rowFormat(columns: readonly LogColumn[], readers: readonly ValueReader[]): RowFormat {
  return {
    columns,
    readers,
    sizes: Int16Array.from(columns, valueSize),
    nullBytes: (columns.length + 7) >> 3,
    integers: Int8Array.from(columns, (column) => INTEGER_BYTES[column.type] ?? 0),
    mayLack: columns.some(({ charset }) => charset !== null && decoderOf(charset) === null),
  };
}

/** MYSQL_TYPE_TINY, SHORT, LONG, LONGLONG, INT24. */
const INTEGER_BYTES: Readonly<Record<number, number>> = { 1: 1, 2: 2, 3: 4, 8: 8, 9: 3 };

/** The form of all these rows; null: they are not rows of a binary log, or not all of one form. */
export function commonFormat(images: readonly unknown[]): RowFormat | null {
  const [image] = images;
  if (!(image instanceof BinlogRows)) return null;
  const { format } = image;
  let last: unknown = image;
  for (const each of images) {
    if (each === last) continue;
    if (!(each instanceof BinlogRows) || each.format !== format) return null;
    last = each;
  }
  return format;
}

export function isNullAt(buffer: Buffer, row: number, column: number): boolean {
  return (((buffer[row + (column >> 3)] ?? 0) >> (column & 7)) & 1) === 1;
}

/** Where the value that begins at `at` ends. */
export function endOfValue(buffer: Buffer, at: number, size: number): number {
  switch (size) {
    case -1:
      return at + 1 + (buffer[at] ?? 0);
    case -2:
      return at + 2 + ((buffer[at] ?? 0) | ((buffer[at + 1] ?? 0) << 8));
    case -3:
      return at + 3 + buffer.readUIntLE(at, 3);
    case -4:
      return at + 4 + buffer.readUInt32LE(at);
    default:
      return at + size;
  }
}

/** Where the row that begins at `row` ends. */
function endOfRow(buffer: Buffer, row: number, { sizes, nullBytes }: RowFormat): number {
  let at = row + nullBytes;
  for (let column = 0; column < sizes.length; column++)
    if (!isNullAt(buffer, row, column)) at = endOfValue(buffer, at, sizes[column] ?? 0);
  return at;
}

export class BinlogRows implements StoredRows {
  readonly format: RowFormat;
  // One entry a row: the buffer, where the row begins and ends in it, and whether it is what an update or a delete found.
  readonly buffers: Buffer[] = [];
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  readonly areOld: boolean[] = [];

  constructor(format: RowFormat) {
    this.format = format;
  }

  /** Notes the row that begins at `start`; returns where it ends. */
  add(buffer: Buffer, start: number, isOld: boolean): number {
    this.buffers.push(buffer);
    this.starts.push(start);
    this.areOld.push(isOld);
    const end = endOfRow(buffer, start, this.format);
    this.ends.push(end);
    return end;
  }

  /** Forgets the row that was noted last; -1. */
  dropLast(): -1 {
    for (const each of [this.buffers, this.starts, this.ends, this.areOld]) each.pop();
    return -1;
  }

  get count(): number {
    return this.starts.length;
  }

  isWhole(row: number): boolean {
    return this.areOld[row] === false && !this.format.mayLack;
  }

  cell(row: number, column: number): ChangeCell {
    const buffer = this.buffers[row];
    if (buffer === undefined) return undefined;
    const start = this.starts[row] ?? 0;
    if (isNullAt(buffer, start, column)) return null;
    return this.#value({ buffer, at: this.#valueAt(buffer, start, column) }, row, column);
  }

  integer(row: number, column: number): number | null {
    const bytes = this.format.integers[column] ?? 0;
    const buffer = this.buffers[row];
    const start = this.starts[row] ?? 0;
    if (bytes === 0 || buffer === undefined || isNullAt(buffer, start, column)) return null;
    const at = this.#valueAt(buffer, start, column);
    const isUnsigned = this.format.columns[column]?.unsigned ?? false;
    const value = bytes === 8 ? small64(buffer, at, isUnsigned) : smaller(buffer, at, bytes, isUnsigned);
    return value > MAX_SHORT || value < -MAX_SHORT ? null : value;
  }

  append(row: number, cells: ChangeCell[]): void {
    const { sizes, nullBytes } = this.format;
    const buffer = this.buffers[row];
    if (buffer === undefined) return;
    const start = this.starts[row] ?? 0;
    const cursor = { buffer, at: start + nullBytes };
    for (let column = 0; column < sizes.length; column++)
      cells.push(isNullAt(buffer, start, column) ? null : this.#value(cursor, row, column));
  }

  #value(cursor: Cursor, row: number, column: number): ChangeCell {
    const cell = this.format.readers[column]?.(cursor);
    return this.areOld[row] && cell != null && cell.length > MAX_KEY_BYTES ? undefined : cell;
  }

  #valueAt(buffer: Buffer, start: number, column: number): number {
    const { sizes, nullBytes } = this.format;
    let at = start + nullBytes;
    for (let before = 0; before < column; before++)
      if (!isNullAt(buffer, start, before)) at = endOfValue(buffer, at, sizes[before] ?? 0);
    return at;
  }
}

function smaller(buffer: Buffer, at: number, bytes: number, isUnsigned: boolean): number {
  return isUnsigned ? buffer.readUIntLE(at, bytes) : buffer.readIntLE(at, bytes);
}

/** Infinity for what is larger than any short number. */
function small64(buffer: Buffer, at: number, isUnsigned: boolean): number {
  const high = buffer.readInt32LE(at + 4);
  if (high === 0) return buffer.readUInt32LE(at);
  const low = buffer.readInt32LE(at);
  return high === -1 && low < 0 && !isUnsigned ? low : Infinity;
}
