/**
 * Values of row images as the bytes of their text, as LOAD DATA takes them: the same that cells become there (binlog/values.ts, then
 * load/values.ts), without a string in between. What is not written here goes that way.
 */
import { DIGIT_BYTES } from '../binlog/decimal.ts';
import { stringLength, TYPE, UTF8, type LogColumn } from '../binlog/columns.ts';

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
      return UTF8.has(column.charset) ? escapedText(stringLength(meta) > 255 ? 2 : 1) : null;
    case TYPE.blob:
      return UTF8.has(column.charset) ? escapedText(meta) : null;
    default:
      return null;
  }
}

/** By byte: what stands behind a backslash in its place; 0: it stands for itself. */
const ESCAPES = new Uint8Array(256);
for (const [byte, letter] of [
  [TAB, 0x74],
  [LINE_END, 0x6e],
  [BACKSLASH, BACKSLASH],
  [0, ZERO],
] as const)
  ESCAPES[byte] = letter;

/** The text of bytes: a tab, a line end, a zero and a backslash are escaped. */
export function writeEscaped(source: Buffer, from: number, end: number, out: Buffer, to: number): number {
  for (let at = from; at < end; at++) {
    const byte = source[at] ?? 0;
    const letter = ESCAPES[byte] ?? 0;
    if (letter !== 0) {
      out[to++] = BACKSLASH;
      out[to++] = letter;
    } else out[to++] = byte;
  }
  return to;
}

/** How many bytes are escaped. */
export function escapesIn(source: Buffer, from: number, end: number): number {
  let count = 0;
  for (let at = from; at < end; at++) if (ESCAPES[source[at] ?? 0] !== 0) count++;
  return count;
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
  let at = to + width - 1;
  for (; rest >= 0x40000000; at--) {
    const next = Math.floor(rest / 10);
    out[at] = ZERO + (rest - next * 10);
    rest = next;
  }
  // Small integers divide quickly.
  for (let small = rest | 0; at >= to; at--) {
    const next = (small / 10) | 0;
    out[at] = ZERO + (small - next * 10);
    small = next;
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
    to = writeDay((months / 13) | 0, months % 13, date & 31, out, to);
    out[to] = SPACE;
    writeTwo(time >> 12, out, to + 1);
    out[to + 3] = COLON;
    writeTwo((time >> 6) & 63, out, to + 4);
    out[to + 6] = COLON;
    writeTwo(time & 63, out, to + 7);
    to += 9;
    if (fractionBytes === 0) return to;
    const fraction = bigEndian(source, at + 5, fractionBytes);
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
  writeTwo((year / 100) | 0, out, to);
  writeTwo(year % 100, out, to + 2);
  out[to + 4] = MINUS;
  writeTwo(month, out, to + 5);
  out[to + 7] = MINUS;
  writeTwo(day, out, to + 8);
  return to + 10;
}

function writeTwo(value: number, out: Buffer, to: number): void {
  const tens = (value / 10) | 0;
  out[to] = ZERO + tens;
  out[to + 1] = ZERO + value - tens * 10;
}

/** Of at most four bytes; Buffer's own checks its arguments. */
function bigEndian(source: Buffer, at: number, bytes: number): number {
  let value = 0;
  for (let i = 0; i < bytes; i++) value = value * 256 + (source[at + i] ?? 0);
  return value;
}

/** As in binlog/decimal.ts: groups of nine digits in four bytes, the first bit set for positive numbers, negative ones inverted. */
function decimal(precision: number, scale: number): ImageText {
  const whole = precision - scale;
  // From the point outwards groups are full; the outermost ones hold the rest.
  const widths = [whole % 9, ...Array<number>(Math.floor(whole / 9)).fill(9)].filter((width) => width > 0);
  const wholeGroups = widths.length;
  widths.push(...[...Array<number>(Math.floor(scale / 9)).fill(9), scale % 9].filter((width) => width > 0));
  const groups = widths.map((width) => DIGIT_BYTES[width] ?? 0);
  const signBit = 2 ** (8 * (groups[0] ?? 0) - 1);
  const largest = groups.map((bytes) => 2 ** (8 * bytes) - 1);
  return {
    most: () => precision + 3,
    write: (source, at, _end, out, to) => {
      const isNegative = ((source[at] ?? 0) & 0x80) === 0;
      const start = to;
      if (isNegative) out[to++] = MINUS;
      const first = to;
      let isZero = true;
      for (let i = 0, from = at; i < groups.length; i++) {
        if (i === wholeGroups) to = writePoint(first, out, to);
        const bytes = groups[i] ?? 0;
        let group = bigEndian(source, from, bytes);
        if (i === 0) group += group < signBit ? signBit : -signBit;
        if (isNegative) group = (largest[i] ?? 0) - group;
        from += bytes;
        if (group !== 0) isZero = false;
        // No zeros before the first digit of the whole part.
        if (i < wholeGroups && to === first) {
          if (group !== 0) to = writeNumber(group, out, to);
        } else to = writeDigits(group, widths[i] ?? 0, out, to);
      }
      if (to === first) out[to++] = ZERO;
      if (!isNegative || !isZero) return to;
      // The server prints minus zero as zero.
      out.copyWithin(start, first, to);
      return to - 1;
    },
  };
}

/** A zero where nothing is before the point. */
function writePoint(first: number, out: Buffer, to: number): number {
  if (to === first) out[to++] = ZERO;
  out[to++] = POINT;
  return to;
}
