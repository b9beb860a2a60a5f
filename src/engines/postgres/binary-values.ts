/**
 * PostgreSQL's text of a value to its binary format (the types' send functions; what COPY … BINARY takes), byte by byte. Only for
 * text that a server wrote under our session settings: anything else throws. Each writer writes at `to` and returns where it ended.
 */
import { SluiceError } from '../../model/errors.ts';

/** Writes the text at [from, end) of `text` as binary into `out` at `to`; there is room. */
export type ValueWriter = (text: Buffer, from: number, end: number, out: Buffer, to: number) => number;

/** What a value takes at most, in bytes, where its text takes `length`. */
export function mostBytes(length: number): number {
  return length + 32;
}

const ZERO = 0x30;
const MINUS = 0x2d;
const DOT = 0x2e;
const COLON = 0x3a;
const SPACE = 0x20;

/** Days and seconds are counted from 2000-01-01. */
const EPOCH_DAY = 10_957;
const SECONDS_A_DAY = 86_400;

/** As text, json, enum labels: the same bytes. */
export const writeText: ValueWriter = (text, from, end, out, to) => {
  // A call into the runtime costs more than a short loop.
  if (end - from > 256) return to + text.copy(out, to, from, end);
  for (let at = from; at < end; at++) out[to++] = text[at] ?? 0;
  return to;
};

/** A version, then the text. */
export const writeJsonb: ValueWriter = (text, from, end, out, to) => {
  out[to] = 1;
  return writeText(text, from, end, out, to + 1);
};

export const writeBoolean: ValueWriter = (text, from, end, out, to) => {
  const isTrue = text[from] === 0x74;
  if (end - from !== 1 || !(isTrue || text[from] === 0x66)) throw unreadable('boolean');
  out[to] = isTrue ? 1 : 0;
  return to + 1;
};

/** Where digits end is where the number ends: at most 15 of them are exact. */
function digits(text: Buffer, from: number, end: number, what: string): number {
  if (from >= end || end - from > 15) throw unreadable(what);
  let value = 0;
  for (let at = from; at < end; at++) {
    const digit = (text[at] ?? 0) - ZERO;
    if (digit < 0 || digit > 9) throw unreadable(what);
    value = value * 10 + digit;
  }
  return value;
}

function writeInteger(bits: 16 | 32 | 64): ValueWriter {
  const limit = 2 ** (bits - 1);
  return (text, from, end, out, to) => {
    const negative = text[from] === MINUS;
    const first = negative ? from + 1 : from;
    if (end - first > 15) {
      const value = BigInt(text.toString('latin1', from, end));
      if (bits < 64 || BigInt.asIntN(64, value) !== value) throw outOfRange(bits);
      return out.writeBigInt64BE(value, to);
    }
    const size = digits(text, first, end, 'integer');
    const value = negative ? -size : size;
    if (value >= limit || value < -limit) throw outOfRange(bits);
    if (bits === 16) return out.writeInt16BE(value, to);
    if (bits === 32) return out.writeInt32BE(value, to);
    return writeInt64(Math.floor(value / 0x100000000), value, out, to);
  };
}

export const writeInt16 = writeInteger(16);
export const writeInt32 = writeInteger(32);
export const writeInt64Text = writeInteger(64);

/** `high`: the upper 32 bits; `low`: any number whose lower 32 bits are the lower ones. */
function writeInt64(high: number, low: number, out: Buffer, to: number): number {
  out.writeInt32BE(high | 0, to);
  // Not `low | 0` of a negative number beyond 2^53: callers stay within it.
  return out.writeInt32BE(low | 0, to + 4);
}

/** The text is shortest-exact, so that it is nearer to its own value of either width than to any other. */
export const writeFloat32: ValueWriter = (text, from, end, out, to) => out.writeFloatBE(float(text, from, end), to);
export const writeFloat64: ValueWriter = (text, from, end, out, to) => out.writeDoubleBE(float(text, from, end), to);

function float(text: Buffer, from: number, end: number): number {
  const value = text.toString('latin1', from, end);
  const number = Number(value);
  if (value === '' || (Number.isNaN(number) && value !== 'NaN')) throw unreadable('float');
  return number;
}

/** numeric: digits in base 10,000, the first one's weight, sign, digits shown after the point (numeric_send). */
export const writeNumeric: ValueWriter = (text, from, end, out, to) => {
  let at = from;
  let sign = 0;
  if (text[at] === MINUS) {
    sign = 0x4000;
    at++;
  }
  if ((text[at] ?? 0) > 0x39) return writeSpecialNumeric(text, from, end, out, to);
  let point = at;
  while (point < end && text[point] !== DOT) point++;
  const scale = point < end ? end - point - 1 : 0;
  // Groups of four digits lie to both sides of the point; the first one of the whole part may be short.
  const whole = point - at;
  const first = whole % 4 || 4;
  let weight = Math.ceil(whole / 4) - 1;
  let count = 0;
  let kept = 0;
  for (let next = at, size = first; next < end; next += size, size = Math.min(4, end - next)) {
    // Past the point a short group is filled up with zeros.
    const value = next < point ? digits(text, next, next + size, 'numeric') : fraction(text, next, size);
    if (next + size === point) size++;
    if (count === 0 && value === 0) {
      weight--;
      continue;
    }
    out.writeUInt16BE(value, to + 8 + 2 * count);
    count++;
    if (value !== 0) kept = count;
  }
  out.writeUInt16BE(kept, to);
  out.writeInt16BE(kept === 0 ? 0 : weight, to + 2);
  out.writeUInt16BE(kept === 0 ? 0 : sign, to + 4);
  out.writeUInt16BE(scale, to + 6);
  return to + 8 + 2 * kept;
};

const FILL = [1, 1000, 100, 10, 1];

function fraction(text: Buffer, from: number, size: number): number {
  return digits(text, from, from + size, 'numeric') * (FILL[size] ?? 1);
}

const SPECIAL_NUMERIC: Readonly<Record<string, number>> = { NaN: 0xc000, Infinity: 0xd000, '-Infinity': 0xf000 };

function writeSpecialNumeric(text: Buffer, from: number, end: number, out: Buffer, to: number): number {
  const sign = SPECIAL_NUMERIC[text.toString('latin1', from, end)];
  if (sign === undefined) throw unreadable('numeric');
  out.writeUInt32BE(0, to);
  out.writeUInt16BE(sign, to + 4);
  // What servers send for infinity, and nobody reads.
  out.writeUInt16BE(sign === 0xc000 ? 0 : 0x20, to + 6);
  return to + 8;
}

const HEX = new Int8Array(256).fill(-1);
for (let value = 0; value < 16; value++) HEX[value.toString(16).charCodeAt(0)] = value;

function hexByte(text: Buffer, at: number, what: string): number {
  const high = HEX[text[at] ?? 0] ?? -1;
  const low = HEX[text[at + 1] ?? 0] ?? -1;
  if (high < 0 || low < 0) throw unreadable(what);
  return high * 16 + low;
}

export const writeUuid: ValueWriter = (text, from, end, out, to) => {
  if (end - from !== 36) throw unreadable('uuid');
  for (let at = from; at < end; at += 2) {
    if (text[at] === MINUS) at++;
    out[to++] = hexByte(text, at, 'uuid');
  }
  return to;
};

/** `\x` and hex. */
export const writeBytea: ValueWriter = (text, from, end, out, to) => {
  if (text[from] !== 0x5c || text[from + 1] !== 0x78 || (end - from) % 2 !== 0) throw unreadable('bytea');
  for (let at = from + 2; at < end; at += 2) out[to++] = hexByte(text, at, 'bytea');
  return to;
};

/** Of the proleptic Gregorian calendar; `year` 0 is 1 BC. Days since 2000-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"). */
function daysOf(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468 - EPOCH_DAY;
}

/** `2024-02-29…`: days since 2000-01-01. The year ends at the first minus and has four digits or more; `bc`: the text ended so. */
function readDate(text: Buffer, from: number, end: number, bc: boolean): number {
  const year = end - 6;
  if (year - from < 4 || text[year] !== MINUS || text[year + 3] !== MINUS) throw unreadable('date');
  const count = digits(text, from, year, 'date');
  return daysOf(bc ? 1 - count : count, digits(text, year + 1, year + 3, 'date'), digits(text, year + 4, end, 'date'));
}

/** `23:59:59.999999`: whole seconds times a million, and millionths, apart from each other. */
function readSeconds(text: Buffer, from: number, end: number): number {
  if (end - from < 8 || text[from + 2] !== COLON || text[from + 5] !== COLON) throw unreadable('time');
  return (
    digits(text, from, from + 2, 'time') * 3600 +
    digits(text, from + 3, from + 5, 'time') * 60 +
    digits(text, from + 6, from + 8, 'time')
  );
}

function readMicroseconds(text: Buffer, from: number, end: number): number {
  if (from === end) return 0;
  const count = end - from - 1;
  if (text[from] !== DOT || count < 1 || count > 6) throw unreadable('time');
  return digits(text, from + 1, end, 'time') * 10 ** (6 - count);
}

function endsWithBc(text: Buffer, end: number): boolean {
  return text[end - 1] === 0x43 && text[end - 2] === 0x42 && text[end - 3] === SPACE;
}

/** 1, −1: (−)infinity. */
function infinity(text: Buffer, from: number, end: number): 1 | -1 | 0 {
  const first = text[from] === MINUS ? from + 1 : from;
  if (text[first] !== 0x69) return 0;
  if (text.toString('latin1', first, end) !== 'infinity') throw unreadable('date');
  return first > from ? -1 : 1;
}

export const writeDate: ValueWriter = (text, from, end, out, to) => {
  const endless = infinity(text, from, end);
  if (endless !== 0) return out.writeInt32BE(endless > 0 ? 0x7fffffff : -0x80000000, to);
  const bc = endsWithBc(text, end);
  return out.writeInt32BE(readDate(text, from, bc ? end - 3 : end, bc), to);
};

export const writeTime: ValueWriter = (text, from, end, out, to) => {
  const micros = readSeconds(text, from, end) * 1_000_000 + readMicroseconds(text, from + 8, end);
  return writeInt64(Math.floor(micros / 0x100000000), micros, out, to);
};

/** `zone`: it ends with `+00`, because our sessions' time zone is UTC. */
function writeTimestamp(zone: boolean): ValueWriter {
  return (text, from, end, out, to) => {
    const endless = infinity(text, from, end);
    if (endless !== 0) return endless > 0 ? writeInt64(0x7fffffff, -1, out, to) : writeInt64(-0x80000000, 0, out, to);
    const bc = endsWithBc(text, end);
    let last = bc ? end - 3 : end;
    if (zone) {
      last -= 3;
      if (text[last] !== 0x2b || text[last + 1] !== ZERO || text[last + 2] !== ZERO) throw unreadable('timestamptz');
    }
    let space = from + 10;
    while (space < last && text[space] !== SPACE) space++;
    const seconds = readDate(text, from, space, bc) * SECONDS_A_DAY + readSeconds(text, space + 1, last);
    const micros = readMicroseconds(text, space + 9, last);
    // seconds × 1,000,000 exceeds 2^53: in parts of 16 bits, every one of them exact.
    const upper = Math.floor(seconds / 0x10000) * 1_000_000;
    const lower = (seconds - Math.floor(seconds / 0x10000) * 0x10000) * 1_000_000 + micros;
    const carried = upper + Math.floor(lower / 0x10000);
    const high = Math.floor(carried / 0x10000);
    return writeInt64(high, (carried - high * 0x10000) * 0x10000 + (lower % 0x10000), out, to);
  };
}

export const writeTimestampWithZone = writeTimestamp(true);
export const writeTimestampWithoutZone = writeTimestamp(false);

function unreadable(type: string): SluiceError {
  return new SluiceError('INTERNAL', `a value of the change stream is not the text of a ${type}`);
}

function outOfRange(bits: number): SluiceError {
  return new SluiceError('ROW_REFUSED', `a number does not fit a ${bits}-bit integer`);
}
