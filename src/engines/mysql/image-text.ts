/**
 * Values of row images as the bytes of their text, as LOAD DATA takes them: the same that cells become there (binlog-values.ts, then
 * load-values.ts), without a string in between. What is not written here goes that way.
 */
import type { LogColumn } from './binlog-values.ts';
import { TYPE } from './binlog-values.ts';

/** Writes the text of the value that lies from `at` to `end` in `source` into `out`, at `to`; returns where it ends there. */
export type TextWriter = (source: Buffer, at: number, end: number, out: Buffer, to: number) => number;

export interface ImageText {
  readonly write: TextWriter;
  /** The longest text of a value of so many bytes. */
  readonly most: (bytes: number) => number;
}

const ZERO = 0x30;
const MINUS = 0x2d;
const POINT = 0x2e;
const COLON = 0x3a;
const SPACE = 0x20;
const BACKSLASH = 0x5c;
const TAB = 0x09;
const LINE_END = 0x0a;

const UTF8: ReadonlySet<string | null> = new Set(['utf8', 'utf8mb3', 'utf8mb4', 'ascii']);

/** Null: not written here. */
export function imageText(column: LogColumn): ImageText | null {
  const { type, meta, unsigned } = column;
  switch (type) {
    case TYPE.tiny:
      return integer(1, unsigned);
    case TYPE.short:
      return integer(2, unsigned);
    case TYPE.int24:
      return integer(3, unsigned);
    case TYPE.long:
      return integer(4, unsigned);
    case TYPE.longlong:
      return { write: unsigned ? writeUnsigned64 : writeSigned64, most: () => 20 };
    case TYPE.newdecimal:
      return decimal(meta & 0xff, meta >> 8);
    case TYPE.date:
      return { write: writeDate, most: () => 10 };
    case TYPE.datetime2:
      return { write: datetime(meta), most: () => 26 };
    case TYPE.varchar:
    case TYPE.varString:
      return UTF8.has(column.charset) ? escapedText(meta > 255 ? 2 : 1) : null;
    case TYPE.string:
      // Only CHAR of more than 255 bytes has a length of two.
      return UTF8.has(column.charset) ? escapedText((((meta >> 8) & 0x30) ^ 0x30) << 4 > 0 ? 2 : 1) : null;
    case TYPE.blob:
      return UTF8.has(column.charset) ? escapedText(meta) : null;
    default:
      return null;
  }
}

/** The text of bytes: a tab, a line end, a zero and a backslash are escaped. */
export function writeEscaped(source: Buffer, from: number, end: number, out: Buffer, to: number): number {
  for (let at = from; at < end; at++) {
    const byte = source[at] ?? 0;
    if (byte > BACKSLASH || (byte > LINE_END && byte !== BACKSLASH)) out[to++] = byte;
    else if (byte === BACKSLASH || byte === TAB || byte === LINE_END || byte === 0) {
      out[to++] = BACKSLASH;
      out[to++] = byte === TAB ? 0x74 : byte === LINE_END ? 0x6e : byte === 0 ? ZERO : BACKSLASH;
    } else out[to++] = byte;
  }
  return to;
}

/** Bytes before the value say its length. */
function escapedText(lengthBytes: number): ImageText {
  return {
    write: (source, at, end, out, to) => writeEscaped(source, at + lengthBytes, end, out, to),
    most: (bytes) => 2 * bytes,
  };
}

function integer(bytes: number, unsigned: boolean): ImageText {
  return {
    write: (source, at, _end, out, to) =>
      writeNumber(unsigned ? source.readUIntLE(at, bytes) : source.readIntLE(at, bytes), out, to),
    most: () => 11,
  };
}

/** A whole number of at most 2^53. */
function writeNumber(value: number, out: Buffer, to: number): number {
  if (value < 0) {
    out[to++] = MINUS;
    value = -value;
  }
  let width = 1;
  for (let limit = 10; value >= limit; limit *= 10) width++;
  return writeDigits(value, width, out, to);
}

/** The last `width` digits, zeros before them. */
function writeDigits(value: number, width: number, out: Buffer, to: number): number {
  let rest = value;
  for (let at = to + width - 1; at >= to; at--) {
    const next = rest < 0x40000000 ? (rest / 10) | 0 : Math.floor(rest / 10);
    out[at] = ZERO + (rest - next * 10);
    rest = next;
  }
  return to + width;
}

const writeSigned64: TextWriter = (source, at, _end, out, to) => {
  const high = source.readInt32LE(at + 4);
  // Within 2^53 a double is exact.
  if (high >= -0x200000 && high < 0x200000) return writeNumber(high * 0x100000000 + source.readUInt32LE(at), out, to);
  return to + out.write(source.readBigInt64LE(at).toString(), to, 'latin1');
};

const writeUnsigned64: TextWriter = (source, at, _end, out, to) => {
  const high = source.readUInt32LE(at + 4);
  if (high < 0x200000) return writeNumber(high * 0x100000000 + source.readUInt32LE(at), out, to);
  return to + out.write(source.readBigUInt64LE(at).toString(), to, 'latin1');
};

/** 17 bits of months and 5 of days, then 5, 6 and 6 of the time of day, then the fraction, two digits a byte, all big-endian. */
function datetime(precision: number): TextWriter {
  const fractionBytes = (precision + 1) >> 1;
  return (source, at, _end, out, to) => {
    const high = source.readUInt32BE(at) - 0x80000000;
    const date = high >> 9;
    const time = ((high & 0x1ff) << 8) | (source[at + 4] ?? 0);
    const months = date >> 5;
    to = writeDay(Math.floor(months / 13), months % 13, date & 31, out, to);
    out[to++] = SPACE;
    to = writeDigits(time >> 12, 2, out, to);
    out[to++] = COLON;
    to = writeDigits((time >> 6) & 63, 2, out, to);
    out[to++] = COLON;
    to = writeDigits(time & 63, 2, out, to);
    if (fractionBytes === 0) return to;
    const fraction = source.readUIntBE(at + 5, fractionBytes);
    // As the cell has it: no zeros behind the last digit that counts.
    if (fraction === 0) return to;
    out[to++] = POINT;
    to = writeDigits(fraction, 2 * fractionBytes, out, to);
    while (out[to - 1] === ZERO) to--;
    return to;
  };
}

const writeDate: TextWriter = (source, at, _end, out, to) => {
  const value = source.readUIntLE(at, 3);
  return writeDay(value >> 9, (value >> 5) & 15, value & 31, out, to);
};

function writeDay(year: number, month: number, day: number, out: Buffer, to: number): number {
  to = writeDigits(year, 4, out, to);
  out[to++] = MINUS;
  to = writeDigits(month, 2, out, to);
  out[to++] = MINUS;
  return writeDigits(day, 2, out, to);
}

/** Bytes that hold so many decimal digits. */
const DIGIT_BYTES = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4] as const;

/** As in binlog-decimal.ts: groups of nine digits in four bytes, the first bit set for positive numbers, negative ones inverted. */
function decimal(precision: number, scale: number): ImageText {
  const whole = precision - scale;
  // From the point outwards groups are full; the outermost ones hold the rest.
  const widths = [whole % 9, ...Array<number>(Math.floor(whole / 9)).fill(9)];
  const wholeGroups = widths.length;
  widths.push(...Array<number>(Math.floor(scale / 9)).fill(9), scale % 9);
  return {
    most: () => precision + 3,
    write: (source, at, _end, out, to) => {
      const isNegative = ((source[at] ?? 0) & 0x80) === 0;
      const start = to;
      if (isNegative) out[to++] = MINUS;
      const first = to;
      let isZero = true;
      for (let i = 0, from = at; i < widths.length; i++) {
        const width = widths[i] ?? 0;
        if (i === wholeGroups) {
          if (to === first) out[to++] = ZERO;
          if (scale > 0) out[to++] = POINT;
        }
        if (width === 0) continue;
        const bytes = DIGIT_BYTES[width] ?? 0;
        let group = source.readUIntBE(from, bytes);
        if (from === at)
          group = group < 2 ** (8 * bytes - 1) ? group + 2 ** (8 * bytes - 1) : group - 2 ** (8 * bytes - 1);
        if (isNegative) group = 2 ** (8 * bytes) - 1 - group;
        from += bytes;
        if (group !== 0) isZero = false;
        // No zeros before the first digit of the whole part.
        if (i < wholeGroups && to === first) {
          if (group !== 0) to = writeNumber(group, out, to);
        } else to = writeDigits(group, width, out, to);
      }
      if (!isNegative || !isZero) return to;
      // The server prints minus zero as zero.
      out.copyWithin(start, first, to);
      return to - 1;
    },
  };
}
