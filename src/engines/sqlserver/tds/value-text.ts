/**
 * Values as TDS sends them as the UTF-8 bytes of their text, the same that their cells have (cells.ts), without a string in between; what
 * would end a field of COPY or LOAD DATA text has a backslash before it. What is not written here goes by way of its cell.
 */
import { decodeBit, decodeDate, decodeInt, decodeUnicode, integerAt, type Decoder } from './cells.ts';
import type { ReadColumn } from './read-columns.ts';

/** Writes the value that lies from `at` to `end` into `out`, at `to`; returns where it ends there, −1: this one goes by way of its cell. */
export type TextWriter = (buffer: Buffer, at: number, end: number, out: Buffer, to: number) => number;

const ZERO = 0x30;
const MINUS = 0x2d;
const POINT = 0x2e;
const BACKSLASH = 0x5c;
const TWO_32 = 0x1_0000_0000;
/** High halves of 64-bit integers that a double still holds. */
const SAFE_HIGH = 0x20_0000;

/** By character: the letter behind a backslash; 0: it stands for itself. */
const ESCAPES = new Uint8Array(128);
for (const [character, letter] of ['\0' + '0', '\tt', '\nn', '\rr', '\\\\'].map(
  (pair) => [pair.charCodeAt(0), pair.charCodeAt(1)] as const,
))
  ESCAPES[character] = letter;

/** Bytes that a value's text takes at most, of so many of its own. */
export function mostText(bytes: number): number {
  // 16-bit units: two characters of a byte where there is a backslash, else at most three bytes. Numbers and times: 48.
  return bytes + (bytes >> 1) + 48;
}

/** Null: by way of its cell. */
export function textWriter({ decode, type, scale }: ReadColumn): TextWriter | null {
  const simple = SIMPLE.get(decode);
  if (simple) return simple;
  if (type === 0x6a || type === 0x6c) return decimalWriter(scale);
  if (type === 0x2a) return datetime2Writer(scale);
  return null;
}

const writeBit: TextWriter = (buffer, at, _end, out, to) => {
  out[to] = buffer[at] === 0 ? 0x66 : 0x74;
  return to + 1;
};

const writeInt: TextWriter = (buffer, at, end, out, to) => {
  if (end - at === 8) {
    const high = buffer.readInt32LE(at + 4);
    if (high >= SAFE_HIGH || high < -SAFE_HIGH) return -1;
  }
  const value = integerAt(buffer, at, end - at);
  if (value < 0) out[to] = MINUS;
  return writeDigits(Math.abs(value), 1, out, value < 0 ? to + 1 : to);
};

/** A whole number of at most 2^53, with at least `least` digits. */
function writeDigits(value: number, least: number, out: Buffer, to: number): number {
  let digits = least;
  for (let bound = 10 ** least; value >= bound; bound *= 10) digits++;
  let rest = value;
  for (let at = to + digits - 1; at >= to; at--) {
    const tens = Math.floor(rest / 10);
    out[at] = ZERO + (rest - tens * 10);
    rest = tens;
  }
  return to + digits;
}

function decimalWriter(scale: number): TextWriter {
  return (buffer, at, end, out, to) => {
    const high = end - at > 5 ? buffer.readUInt32LE(at + 5) : 0;
    if (end - at > 9 || high >= SAFE_HIGH) return -1;
    const value = high * TWO_32 + buffer.readUInt32LE(at + 1);
    let start = to;
    // Zero has no sign.
    if (buffer[at] === 0 && value !== 0) out[start++] = MINUS;
    const written = writeDigits(value, scale + 1, out, start);
    if (scale === 0) return written;
    out.copyWithin(written - scale + 1, written - scale, written);
    out[written - scale] = POINT;
    return written + 1;
  };
}

/** Text in 16-bit units. Half a surrogate pair is nothing that UTF-8 has. */
const writeUnicode: TextWriter = (buffer, at, end, out, to) => {
  let next = to;
  for (let from = at; from < end; from += 2) {
    const low = buffer[from] ?? 0;
    const high = buffer[from + 1] ?? 0;
    if (high === 0 && low < 0x80) {
      const letter = ESCAPES[low] ?? 0;
      if (letter !== 0) {
        out[next++] = BACKSLASH;
        out[next++] = letter;
      } else out[next++] = low;
      continue;
    }
    const unit = (high << 8) | low;
    if (unit < 0x800) {
      out[next++] = 0xc0 | (unit >> 6);
    } else if (unit < 0xd800 || unit >= 0xe000) {
      out[next++] = 0xe0 | (unit >> 12);
      out[next++] = 0x80 | ((unit >> 6) & 0x3f);
    } else {
      const second = from + 3 < end ? buffer.readUInt16LE(from + 2) : 0;
      if (unit >= 0xdc00 || second < 0xdc00 || second >= 0xe000) return -1;
      const point = 0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00);
      from += 2;
      out[next++] = 0xf0 | (point >> 18);
      out[next++] = 0x80 | ((point >> 12) & 0x3f);
      out[next++] = 0x80 | ((point >> 6) & 0x3f);
      out[next++] = 0x80 | (point & 0x3f);
      continue;
    }
    out[next++] = 0x80 | (unit & 0x3f);
  }
  return next;
};

/** Rows of one time come together, so that the day before is often the day. */
let lastDay = -1;
const lastDayText = Buffer.alloc(10);

/** Days since 0001-01-01, in three bytes. */
const writeDate: TextWriter = (buffer, at, end, out, to) => {
  const days = buffer.readUInt16LE(at) + (buffer[at + 2] ?? 0) * 0x10000;
  if (days !== lastDay) {
    lastDayText.write(String(decodeDate(buffer, at, end - at)), 'latin1');
    lastDay = days;
  }
  for (let i = 0; i < 10; i++) out[to + i] = lastDayText[i] ?? 0;
  return to + 10;
};

function datetime2Writer(scale: number): TextWriter {
  const perSecond = 10 ** scale;
  return (buffer, at, end, out, to) => {
    const bytes = end - at - 3;
    const low = bytes === 3 ? buffer.readUInt16LE(at) + (buffer[at + 2] ?? 0) * 0x10000 : buffer.readUInt32LE(at);
    const units = bytes === 5 ? low + (buffer[at + 4] ?? 0) * TWO_32 : low;
    let next = writeDate(buffer, end - 3, end, out, to);
    out[next++] = 0x20;
    const seconds = Math.floor(units / perSecond);
    const minutes = Math.floor(seconds / 60);
    const hours = Math.floor(minutes / 60);
    next = writeDigits(hours, 2, out, next);
    out[next++] = 0x3a;
    next = writeDigits(minutes - hours * 60, 2, out, next);
    out[next++] = 0x3a;
    next = writeDigits(seconds - minutes * 60, 2, out, next);
    const fraction = units - seconds * perSecond;
    if (fraction === 0) return next;
    out[next++] = POINT;
    next = writeDigits(fraction, scale, out, next);
    while (out[next - 1] === ZERO) next--;
    return next;
  };
}

const SIMPLE: ReadonlyMap<Decoder, TextWriter> = new Map([
  [decodeBit, writeBit],
  [decodeInt, writeInt],
  [decodeUnicode, writeUnicode],
  [decodeDate, writeDate],
]);

/** A cell's text, escaped as above. */
export function writeCell(cell: string, out: Buffer, to: number): number {
  const bytes = Buffer.from(cell, 'utf8');
  let next = to;
  for (const byte of bytes) {
    const letter = byte < 0x80 ? (ESCAPES[byte] ?? 0) : 0;
    if (letter !== 0) {
      out[next++] = BACKSLASH;
      out[next++] = letter;
    } else out[next++] = byte;
  }
  return next;
}
