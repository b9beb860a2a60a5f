/**
 * Values as TDS sends them (MS-TDS 2.2.5.4 and 2.2.5.5), made cells at once: exact text, no numbers or dates in between but where
 * they are exact. A decoder is given a buffer and where the value lies in it; NULL never reaches it.
 */
import { SluiceError } from '../../../model/errors.ts';
import { float32Text, float64Text } from '../../float-text.ts';

export type Decoder = (buffer: Buffer, at: number, length: number) => string | Uint8Array;

/** What Buffer's own slices call after checking their arguments. */
interface FastBuffer extends Buffer {
  ucs2Slice(start: number, end: number): string;
  latin1Slice(start: number, end: number): string;
}

const TWO_32 = 0x1_0000_0000;
/** High halves of 64-bit integers that a double still holds. */
const SAFE_HIGH = 0x20_0000;

export const decodeBit: Decoder = (buffer, at) => (buffer[at] === 0 ? 'f' : 't');

export const decodeInt: Decoder = (buffer, at, length) =>
  length === 8 ? int64Text(buffer.readInt32LE(at + 4), buffer.readUInt32LE(at)) : String(integerAt(buffer, at, length));

/** tinyint has no sign. Exact up to 2^53. */
export function integerAt(buffer: Buffer, at: number, length: number): number {
  if (length === 4) return buffer.readInt32LE(at);
  if (length === 8) return buffer.readInt32LE(at + 4) * TWO_32 + buffer.readUInt32LE(at);
  return length === 2 ? buffer.readInt16LE(at) : (buffer[at] ?? 0);
}

function int64Text(high: number, low: number): string {
  if (high < SAFE_HIGH && high >= -SAFE_HIGH) return String(high * TWO_32 + low);
  return String((BigInt(high) << 32n) + BigInt(low));
}

/** Digits of an integer of 10^−scale, with the point put in. */
function scaled(digits: string, negative: boolean, scale: number): string {
  const sign = negative ? '-' : '';
  if (scale === 0) return sign + digits;
  const padded = digits.length > scale ? digits : digits.padStart(scale + 1, '0');
  return `${sign}${padded.slice(0, -scale)}.${padded.slice(-scale)}`;
}

export const decodeMoney: Decoder = (buffer, at, length) => {
  // The high half comes first, each half little-endian.
  const text =
    length === 4 ? String(buffer.readInt32LE(at)) : int64Text(buffer.readInt32LE(at), buffer.readUInt32LE(at + 4));
  return text.startsWith('-') ? scaled(text.slice(1), true, 4) : scaled(text, false, 4);
};

export function decimalDecoder(scale: number): Decoder {
  return (buffer, at, length) => {
    let digits: string;
    const low = buffer.readUInt32LE(at + 1);
    if (length === 5) digits = String(low);
    else {
      const high = buffer.readUInt32LE(at + 5);
      if (length === 9 && high < SAFE_HIGH) digits = String(high * TWO_32 + low);
      else {
        let magnitude = 0n;
        for (let word = length - 4; word > 0; word -= 4)
          magnitude = (magnitude << 32n) + BigInt(buffer.readUInt32LE(at + word));
        digits = String(magnitude);
      }
    }
    // The sign of zero is dropped: a decimal has none.
    return scaled(digits, buffer[at] === 0 && !/^0*$/.test(digits), scale);
  };
}

export const decodeFloat: Decoder = (buffer, at, length) =>
  length === 4 ? float32Text(buffer.readFloatLE(at)) : float64Text(buffer.readDoubleLE(at));

const two = (value: number) => (value < 10 ? `0${value}` : String(value));

/** Rows of one time come together, so the day before is often the day. */
let lastDay = -1;
let lastDayText = '';

/** Days since 0001-01-01. */
function dateText(days: number): string {
  if (days === lastDay) return lastDayText;
  lastDay = days;
  // 1970-01-01 is day 719,162. A Date is exact in whole days.
  lastDayText = new Date((days - 719_162) * 86_400_000).toISOString().slice(0, 10);
  return lastDayText;
}

function clockText(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  return `${two(Math.floor(minutes / 60))}:${two(minutes % 60)}:${two(seconds % 60)}`;
}

/** `.25` of 2500000 ten-millionths; nothing of 0. */
function fractionText(fraction: number, digits: number): string {
  if (fraction === 0) return '';
  return `.${String(fraction).padStart(digits, '0').replace(/0+$/, '')}`;
}

const readUInt24 = (buffer: Buffer, at: number) => buffer.readUInt16LE(at) + (buffer[at + 2] ?? 0) * 0x10000;

export const decodeDate: Decoder = (buffer, at) => dateText(readUInt24(buffer, at));

/** The units of a second since midnight, in 3 to 5 bytes. */
function readTime(buffer: Buffer, at: number, length: number): number {
  const low = length === 3 ? readUInt24(buffer, at) : buffer.readUInt32LE(at);
  return length === 5 ? low + (buffer[at + 4] ?? 0) * TWO_32 : low;
}

function timeText(units: number, scale: number): string {
  const perSecond = 10 ** scale;
  const seconds = Math.floor(units / perSecond);
  return clockText(seconds) + fractionText(units - seconds * perSecond, scale);
}

export function timeDecoder(scale: number): Decoder {
  return (buffer, at, length) => timeText(readTime(buffer, at, length), scale);
}

export function datetime2Decoder(scale: number): Decoder {
  return (buffer, at, length) =>
    `${dateText(readUInt24(buffer, at + length - 3))} ${timeText(readTime(buffer, at, length - 3), scale)}`;
}

/** On the wire: the instant in UTC, and the offset in minutes. */
export function datetimeoffsetDecoder(scale: number): Decoder {
  const perSecond = 10 ** scale;
  const perDay = 86_400 * perSecond;
  return (buffer, at, length) => {
    const offset = buffer.readInt16LE(at + length - 2);
    let days = readUInt24(buffer, at + length - 5);
    let units = readTime(buffer, at, length - 5) + offset * 60 * perSecond;
    if (units < 0) {
      units += perDay;
      days--;
    } else if (units >= perDay) {
      units -= perDay;
      days++;
    }
    const minutes = Math.abs(offset);
    const zone = `${offset < 0 ? '-' : '+'}${two(Math.floor(minutes / 60))}${minutes % 60 === 0 ? '' : `:${two(minutes % 60)}`}`;
    return `${dateText(days)} ${timeText(units, scale)}${zone}`;
  };
}

/** Days from 1900-01-01 to day 0. */
const DAYS_TO_1900 = 693_595;

/** smalldatetime: days and minutes; datetime: days and 1/300 s, shown in milliseconds that end in 0, 3 or 7. */
export const decodeDatetime: Decoder = (buffer, at, length) => {
  if (length === 4)
    return `${dateText(DAYS_TO_1900 + buffer.readUInt16LE(at))} ${clockText(buffer.readUInt16LE(at + 2) * 60)}`;
  const milliseconds = Math.round((buffer.readUInt32LE(at + 4) * 10) / 3);
  return `${dateText(DAYS_TO_1900 + buffer.readInt32LE(at))} ${timeText(milliseconds, 3)}`;
};

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

/** The first three groups are little-endian. */
export const decodeUuid: Decoder = (buffer, at) => {
  const hex = (i: number) => HEX[buffer[at + i] ?? 0] ?? '';
  return `${hex(3)}${hex(2)}${hex(1)}${hex(0)}-${hex(5)}${hex(4)}-${hex(7)}${hex(6)}-${hex(8)}${hex(9)}-${hex(10)}${hex(11)}${hex(12)}${hex(13)}${hex(14)}${hex(15)}`;
};

export const decodeUnicode: Decoder = (buffer, at, length) => (buffer as FastBuffer).ucs2Slice(at, at + length);

/** A copy: the packet it came in is not kept for it. */
export const decodeBytes: Decoder = (buffer, at, length) => Uint8Array.prototype.slice.call(buffer, at, at + length);

/**
 * Bytes as text, one character a byte: what is only compared and handed back needs no array of its own, and nothing at all
 * when it is what the row before had.
 */
export function byteTextDecoder(): Decoder {
  let last = '';
  return (buffer, at, length) => {
    let same = length === last.length;
    for (let i = 0; same && i < length; i++) same = last.charCodeAt(i) === buffer[at + i];
    if (!same) last = (buffer as FastBuffer).latin1Slice(at, at + length);
    return last;
  };
}

/** Text in a code page: only what is the same in all of them. Columns are selected as Unicode (types.ts). */
export const decodeAscii: Decoder = (buffer, at, length) => {
  for (let i = at; i < at + length; i++) {
    if ((buffer[i] ?? 0) >= 0x80)
      throw new SluiceError('INTERNAL', 'text of a code page was selected without making Unicode of it');
  }
  return (buffer as FastBuffer).latin1Slice(at, at + length);
};
