/**
 * Rows of a relation as pgoutput sent them (manual: "Logical Replication Message Formats", TupleData): where they lie in what
 * was read from the socket, and nothing made of them. Most changes go from there straight into the destination's COPY
 * (binary-rows.ts); cells are made for whoever asks.
 */
import type { ChangeCell } from '../../model/changes.ts';
import type { StoredRows } from '../image-changes.ts';

/** `utf8Slice` is what Buffer's own toString calls after checking its arguments; the checks cost as much as a short cell. */
interface FastBuffer extends Buffer {
  utf8Slice(start: number, end: number): string;
  latin1Slice(start: number, end: number): string;
}

/** Text from this size on is delivered as its UTF-8 bytes: outside V8's heap, and a string could not hold 1 GB. */
const LARGE_CELL = 1 << 20;

/** Kinds of values in a tuple. */
export const TEXT_VALUE = 0x74; // t
export const NULL_VALUE = 0x6e; // n
export const UNCHANGED_VALUE = 0x75; // u

/** What a row is besides its values. */
export const Row = {
  Whole: 0,
  /** Columns outside the identity are sent as NULL but mean absent. */
  KeyOnly: 1,
  /** Some value was not sent. */
  Absent: 2,
  /** Some value was not sent; the row before this one (what it was) may hold it. */
  AbsentAfterBefore: 3,
} as const;
export type Row = (typeof Row)[keyof typeof Row];

/** How a relation's values are read. */
export interface RowFormat {
  /** Columns of the replica identity. */
  readonly identity: readonly boolean[];
  /** Columns whose text is bytea's. */
  readonly binary: readonly boolean[];
  readonly textAsBytes: boolean;
}

export class PgoutputRows implements StoredRows {
  readonly format: RowFormat;
  // One entry a row: the buffer, where its first value begins in it, and what it is.
  readonly buffers: Buffer[];
  readonly starts: number[];
  readonly kinds: Row[];

  constructor(format: RowFormat, buffers: Buffer[] = [], starts: number[] = [], kinds: Row[] = []) {
    this.format = format;
    this.buffers = buffers;
    this.starts = starts;
    this.kinds = kinds;
  }

  get count(): number {
    return this.starts.length;
  }

  isWhole(row: number): boolean {
    return this.kinds[row] === Row.Whole;
  }

  cell(row: number, column: number): ChangeCell {
    const buffer = this.buffers[row];
    const kind = this.kinds[row] ?? Row.Whole;
    if (buffer === undefined) return undefined;
    const at = valueAt(buffer, this.starts[row] ?? 0, column);
    const cell = this.#value(buffer, at, column, kind);
    return cell === undefined && kind === Row.AbsentAfterBefore ? this.cell(row - 1, column) : cell;
  }

  integer(row: number, column: number): number | null {
    const buffer = this.buffers[row];
    if (buffer === undefined || this.format.binary[column]) return null;
    const at = valueAt(buffer, this.starts[row] ?? 0, column);
    if (buffer[at] !== TEXT_VALUE) return null;
    return integerAt(buffer, at + 5, buffer.readUInt32BE(at + 1));
  }

  append(row: number, cells: ChangeCell[]): void {
    const width = this.format.identity.length;
    const buffer = this.buffers[row];
    const kind = this.kinds[row] ?? Row.Whole;
    if (buffer === undefined) return;
    let at = this.starts[row] ?? 0;
    for (let column = 0; column < width; column++) {
      const cell = this.#value(buffer, at, column, kind);
      cells.push(cell === undefined && kind === Row.AbsentAfterBefore ? this.cell(row - 1, column) : cell);
      at += buffer[at] === TEXT_VALUE ? 5 + buffer.readUInt32BE(at + 1) : 1;
    }
  }

  /** Takes away the rows from number `first` on. */
  splice(first: number): PgoutputRows {
    return new PgoutputRows(
      this.format,
      this.buffers.splice(first),
      this.starts.splice(first),
      this.kinds.splice(first),
    );
  }

  #value(buffer: Buffer, at: number, column: number, kind: Row): ChangeCell {
    const { identity, binary, textAsBytes } = this.format;
    switch (buffer[at]) {
      case TEXT_VALUE: {
        const start = at + 5;
        const length = buffer.readUInt32BE(at + 1);
        if (binary[column]) return Buffer.from((buffer as FastBuffer).latin1Slice(start + 2, start + length), 'hex');
        // A copy: the cell may be kept longer than what it came with.
        if (textAsBytes || length >= LARGE_CELL) return Uint8Array.prototype.slice.call(buffer, start, start + length);
        return (buffer as FastBuffer).utf8Slice(start, start + length);
      }
      case NULL_VALUE:
        return kind === Row.KeyOnly && identity[column] === false ? undefined : null;
      default:
        return undefined;
    }
  }
}

/** Where the value of the column begins, of a row that begins at `at`. */
function valueAt(buffer: Buffer, at: number, column: number): number {
  let value = at;
  for (let before = 0; before < column; before++)
    value += buffer[value] === TEXT_VALUE ? 5 + buffer.readUInt32BE(value + 1) : 1;
  return value;
}

const ZERO = 0x30;
const MINUS = 0x2d;

function integerAt(buffer: Buffer, start: number, length: number): number | null {
  const isNegative = buffer[start] === MINUS;
  const first = isNegative ? start + 1 : start;
  const end = start + length;
  // No digits, too many, or a zero before others or behind a sign.
  if (end === first || end - first > 9 || (buffer[first] === ZERO && length > 1)) return null;
  let number = 0;
  for (let at = first; at < end; at++) {
    const digit = (buffer[at] ?? 0) - ZERO;
    if (digit < 0 || digit > 9) return null;
    number = number * 10 + digit;
  }
  return isNegative ? -number : number;
}
