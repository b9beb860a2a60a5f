/** Exact text of numbers as TDS has them on the wire (MS-TDS 2.2.5.5.1): nothing passes through a double that does not fit one. */
import { refuse, type RowBuffer } from './bulk-buffer.ts';

const RANGE = 'it is out of the range of';

/** Digits of `text` as a number without its point, `scale` digits after it: exact below 10^15, else in `wide`. */
interface Digits {
  negative: boolean;
  /** The magnitude, or −1: it is in `limbs`. */
  small: number;
}

const digits: Digits = { negative: false, small: 0 };
/** Magnitude of more than 15 digits: four 32-bit limbs, lowest first. 38 digits fit. */
const limbs = new Float64Array(4);
const TEN_TO = [1, 10, 100, 1e3, 1e4, 1e5, 1e6];
const MOST_DIGITS = 38;

/** limbs × factor + addend; factor ≤ 10^6, so that no product passes 2^53. */
function multiplyAdd(factor: number, addend: number): void {
  let carry = addend;
  for (let i = 0; i < 4; i++) {
    const product = (limbs[i] ?? 0) * factor + carry;
    const low = product % 4294967296;
    limbs[i] = low;
    carry = (product - low) / 4294967296;
  }
}

/** Into `digits` and `limbs`. Refuses what is no decimal number, and what needs more than `scale` or `precision` digits. */
function parseDecimal(text: string, precision: number, scale: number, type: string): void {
  const length = text.length;
  let i = 0;
  digits.negative = false;
  const sign = text.charCodeAt(0);
  if (sign === 0x2d || sign === 0x2b) {
    digits.negative = sign === 0x2d;
    i = 1;
  }
  let small = 0;
  let significant = 0;
  let wide = false;
  let group = 0;
  let grouped = 0;
  let seen = false;
  let fraction = -1;
  for (; i < length; i++) {
    const c = text.charCodeAt(i) - 48;
    if (c < 0 || c > 9) {
      if (c === -2 && fraction < 0) {
        fraction = 0;
        continue;
      }
      if ((c === 21 || c === 53) && seen) return parseDecimal(withoutExponent(text), precision, scale, type);
      refuse(`it is not a number that ${type} has`);
    }
    seen = true;
    if (fraction >= 0 && ++fraction > scale) {
      if (c !== 0) refuse(`it has more digits after the decimal point than ${type}`);
      fraction = scale;
      continue;
    }
    add(c);
  }
  if (!seen) refuse(`it is not a number that ${type} has`);
  for (let have = Math.max(fraction, 0); have < scale; have++) add(0);
  if (wide) {
    multiplyAdd(TEN_TO[grouped] ?? 1, group);
    digits.small = -1;
  } else digits.small = small;

  function add(digit: number): void {
    if (significant === 0 && digit === 0) return;
    if (++significant > precision) refuse(`${RANGE} ${type}`);
    if (significant <= 15) {
      small = small * 10 + digit;
      return;
    }
    if (!wide) {
      wide = true;
      limbs[0] = small % 4294967296;
      limbs[1] = Math.floor(small / 4294967296);
      limbs[2] = 0;
      limbs[3] = 0;
    }
    group = group * 10 + digit;
    if (++grouped === 6) {
      multiplyAdd(1e6, group);
      group = 0;
      grouped = 0;
    }
  }
}

/**
 * As `parseDecimal`, for what most numbers are: a sign, at most 15 digits in all and a point somewhere, every digit kept. NaN: it is
 * something else, and nothing is known of it.
 */
function plainDecimal(text: string, scale: number): number {
  const { length } = text;
  if (length === 0 || length > 16) return NaN;
  const negative = text.charCodeAt(0) === 0x2d;
  let value = 0;
  let point = -1;
  let i = negative ? 1 : 0;
  if (i === length) return NaN;
  for (; i < length; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit >= 0 && digit <= 9) value = value * 10 + digit;
    else if (digit === -2 && point < 0) point = i;
    else return NaN;
  }
  const behind = point < 0 ? 0 : length - 1 - point;
  if (point === length - 1 || behind > scale) return NaN;
  const missing = scale - behind;
  if (missing > 6) return NaN;
  value *= TEN_TO[missing] ?? NaN;
  return value > MOST_PLAIN ? NaN : negative ? -value : value;
}

const MOST_PLAIN = 999_999_999_999_999;

/** `1.5E+3` → `1500`. */
function withoutExponent(text: string): string {
  const match = /^([+-]?)(\d*)\.?(\d*)[eE]([+-]?\d{1,4})$/.exec(text);
  if (!match) return refuse('it is not a number');
  const [, sign = '', whole = '', part = '', exponent = ''] = match;
  const point = whole.length + Number(exponent);
  const all = whole + part;
  if (point <= 0) return `${sign}0.${'0'.repeat(-point)}${all}`;
  return `${sign}${all.slice(0, point).padEnd(point, '0')}.${all.slice(point)}`;
}

export type NumberWriter = (out: RowBuffer, text: string) => void;

/**
 * A sign and 16 bytes of magnitude, whatever the precision, as Microsoft's clients bulk load them. Fewer bytes are allowed for
 * fewer digits, but Babelfish reads 16 all the same.
 */
export const DECIMAL_SIZE = 17;

function writePlain(out: RowBuffer, value: number): void {
  const { bytes, at } = out;
  const magnitude = Math.abs(value);
  bytes[at] = DECIMAL_SIZE;
  bytes[at + 1] = value < 0 ? 0 : 1;
  const high = Math.floor(magnitude / 4294967296);
  bytes.writeUInt32LE(magnitude - high * 4294967296, at + 2);
  bytes.writeUInt32LE(high, at + 6);
  bytes.fill(0, at + 10, at + 18);
  out.at = at + 18;
}

export function decimalWriter(precision: number, scale: number): NumberWriter {
  const type = `decimal(${precision},${scale})`;
  const most = Math.min(precision, MOST_DIGITS);
  const limit = 10 ** precision;
  return (out, text) => {
    const plain = plainDecimal(text, scale);
    if (plain < limit && plain > -limit) {
      out.reserve(DECIMAL_SIZE + 1);
      writePlain(out, plain);
      return;
    }
    parseDecimal(text, most, scale, type);
    out.reserve(DECIMAL_SIZE + 1);
    const { bytes } = out;
    let at = out.at;
    bytes[at++] = DECIMAL_SIZE;
    bytes[at++] = digits.negative && digits.small !== 0 ? 0 : 1;
    const small = digits.small;
    for (let i = 0; i < 4; i++) {
      let limb: number;
      if (small < 0) limb = limbs[i] ?? 0;
      else limb = i === 0 ? small % 4294967296 : i === 1 ? Math.floor(small / 4294967296) : 0;
      at = bytes.writeUInt32LE(limb, at);
    }
    out.at = at;
  };
}

/** The magnitude just parsed. */
function magnitude(): bigint {
  if (digits.small >= 0) return BigInt(digits.small);
  return (BigInt(limbs[1] ?? 0) << 32n) + BigInt(limbs[0] ?? 0) + (BigInt(limbs[2] ?? 0) << 64n);
}

const MAX_64 = (1n << 63n) - 1n;

/** int, smallint, tinyint and bigint: `size` bytes. tinyint has no sign. */
export function integerWriter(size: 1 | 2 | 4 | 8, type: string): NumberWriter {
  const least = size === 1 ? 0 : -(2 ** (size * 8 - 1));
  const most = size === 1 ? 255 : 2 ** (size * 8 - 1) - 1;
  const writeValue = (out: RowBuffer, value: number) => {
    const { bytes, at } = out;
    bytes[at] = size;
    if (size === 1) bytes[at + 1] = value;
    else if (size === 2) bytes.writeInt16LE(value, at + 1);
    else if (size === 4) bytes.writeInt32LE(value, at + 1);
    else {
      const high = Math.floor(value / 4294967296);
      bytes.writeUInt32LE(value - high * 4294967296, at + 1);
      bytes.writeInt32LE(high, at + 5);
    }
    out.at = at + 1 + size;
  };
  return (out, text) => {
    out.reserve(9);
    const plain = plainDecimal(text, 0);
    if (plain >= least && plain <= most) {
      writeValue(out, plain);
      return;
    }
    parseDecimal(text, 20, 0, type);
    const value = digits.negative ? -magnitude() : magnitude();
    if (value < BigInt(least) || value > (size === 8 ? MAX_64 : BigInt(most))) refuse(`${RANGE} ${type}`);
    if (size === 8) {
      out.bytes[out.at] = 8;
      out.at = out.bytes.writeBigInt64LE(value, out.at + 1);
    } else writeValue(out, Number(value));
  };
}

/**
 * money: ten-thousandths as an integer, its high half first. smallmoney is sent as money, which its column takes exactly once the
 * range is checked: Babelfish reads its own four bytes without their sign.
 */
export function moneyWriter(type: 'money' | 'smallmoney'): NumberWriter {
  const limit = 1n << (type === 'smallmoney' ? 31n : 63n);
  return (out, text) => {
    parseDecimal(text, 20, 4, type);
    let value = magnitude();
    if (digits.negative) value = -value;
    if (value < -limit || value >= limit) refuse(`${RANGE} ${type}`);
    out.reserve(9);
    const { bytes, at } = out;
    bytes[at] = 8;
    out.at = at + 9;
    bytes.writeInt32LE(Number(value >> 32n), at + 1);
    bytes.writeUInt32LE(Number(value & 0xffffffffn), at + 5);
  };
}

const FLOAT = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;

/** float and real: the nearest value of the type to the text. NaN and infinity are none of SQL Server's. */
export function floatWriter(size: 4 | 8): NumberWriter {
  const type = size === 4 ? 'real' : 'float';
  return (out, text) => {
    if (!FLOAT.test(text)) refuse(`it is not a number that ${type} has`);
    const double = Number(text);
    const value = size === 4 ? Math.fround(double) : double;
    if (!Number.isFinite(value) || (value === 0 && /^[^eE]*[1-9]/.test(text))) refuse(`${RANGE} ${type}`);
    out.reserve(9);
    const { bytes, at } = out;
    bytes[at] = size;
    out.at = at + 1 + size;
    if (size === 4) bytes.writeFloatLE(value, at + 1);
    else bytes.writeDoubleLE(value, at + 1);
  };
}

const BITS: Readonly<Record<string, number>> = { 1: 1, t: 1, true: 1, 0: 0, f: 0, false: 0 };

export const writeBit: NumberWriter = (out, text) => {
  const value = BITS[text] ?? refuse('it is neither true nor false');
  out.reserve(2);
  out.bytes[out.at] = 1;
  out.bytes[out.at + 1] = value;
  out.at += 2;
};
