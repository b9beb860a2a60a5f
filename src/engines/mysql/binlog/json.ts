/**
 * MySQL's parsed JSON (sql-common/json_binary.h) as the text that the server itself prints (sql-common/json_dom.cc,
 * Json_wrapper::to_string), so that a change brings the same cell as a copy.
 */
import { SluiceError } from '../../../model/errors.ts';
import { binaryDecimal } from './decimal.ts';

const TYPE = {
  smallObject: 0,
  largeObject: 1,
  smallArray: 2,
  largeArray: 3,
  literal: 4,
  int16: 5,
  uint16: 6,
  int32: 7,
  uint32: 8,
  int64: 9,
  uint64: 10,
  double: 11,
  string: 12,
  opaque: 15,
} as const;

/** MYSQL_TYPE_… of values that JSON has no form for. */
const OPAQUE = { timestamp: 7, date: 10, time: 11, datetime: 12, decimal: 246 } as const;

/** An empty document is what NULL became in a column that may not be NULL (INSERT IGNORE): the server prints it so. */
export function jsonText(document: Buffer): string {
  return document.length === 0 ? 'null' : valueText(document[0] ?? 0, document, 1);
}

function valueText(type: number, data: Buffer, at: number): string {
  switch (type) {
    case TYPE.smallObject:
    case TYPE.largeObject:
      return containerText(data.subarray(at), type === TYPE.largeObject, true);
    case TYPE.smallArray:
    case TYPE.largeArray:
      return containerText(data.subarray(at), type === TYPE.largeArray, false);
    case TYPE.literal:
      return ['null', 'true', 'false'][data[at] ?? 3] ?? unknown(`literal ${data[at]}`);
    case TYPE.int16:
      return String(data.readInt16LE(at));
    case TYPE.uint16:
      return String(data.readUInt16LE(at));
    case TYPE.int32:
      return String(data.readInt32LE(at));
    case TYPE.uint32:
      return String(data.readUInt32LE(at));
    case TYPE.int64:
      return String(data.readBigInt64LE(at));
    case TYPE.uint64:
      return String(data.readBigUInt64LE(at));
    case TYPE.double:
      return doubleText(data.readDoubleLE(at));
    case TYPE.string: {
      const { length, next } = variableLength(data, at);
      return quoted(data.toString('utf8', next, next + length));
    }
    case TYPE.opaque: {
      const { length, next } = variableLength(data, at + 1);
      return opaqueText(data[at] ?? 0, data.subarray(next, next + length));
    }
    default:
      return unknown(`type ${type}`);
  }
}

function containerText(data: Buffer, isLarge: boolean, isObject: boolean): string {
  const width = isLarge ? 4 : 2;
  const read = (at: number) => (isLarge ? data.readUInt32LE(at) : data.readUInt16LE(at));
  const count = read(0);
  // Keys are an offset and a length of two bytes, values a type and an offset, or the value itself where it fits.
  const values = 2 * width + (isObject ? count * (width + 2) : 0);
  const parts: string[] = [];
  for (let i = 0; i < count; i++) {
    const entry = values + i * (1 + width);
    const type = data[entry] ?? 0;
    const isInline =
      type === TYPE.literal ||
      type === TYPE.int16 ||
      type === TYPE.uint16 ||
      (isLarge && (type === TYPE.int32 || type === TYPE.uint32));
    const text = valueText(type, data, isInline ? entry + 1 : read(entry + 1));
    if (isObject) {
      const key = 2 * width + i * (width + 2);
      const start = read(key);
      parts.push(`${quoted(data.toString('utf8', start, start + data.readUInt16LE(key + width)))}: ${text}`);
    } else parts.push(text);
  }
  return isObject ? `{${parts.join(', ')}}` : `[${parts.join(', ')}]`;
}

/** Seven bits of a byte, the lowest first; the eighth says that another follows. */
function variableLength(data: Buffer, at: number): { length: number; next: number } {
  let length = 0;
  for (let i = 0; i < 5; i++) {
    const byte = data[at + i] ?? 0;
    length += (byte & 0x7f) * 2 ** (7 * i);
    if ((byte & 0x80) === 0) return { length, next: at + i + 1 };
  }
  return unknown('a length of more than five bytes');
}

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};
const TO_ESCAPE = /["\\\x00-\x1f]/g;

function quoted(text: string): string {
  const escape = (character: string) =>
    ESCAPES[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return `"${text.replace(TO_ESCAPE, escape)}"`;
}

/**
 * Shortest digits that give the number back (strings/dtoa.cc, my_gcvt): without an exponent from 1e-15 to below 1e15, and up to where
 * there are digits behind the point.
 */
function doubleText(value: number): string {
  const [, sign = '', first = '', rest = '', exponent = ''] =
    /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(value.toExponential()) ?? [];
  const negative = Object.is(value, -0) ? '-' : sign;
  const digits = first + rest;
  const point = Number(exponent) + 1;
  if (point < -14 || (point > 15 && digits.length <= point))
    return `${negative}${first}${rest === '' ? '' : `.${rest}`}e${point - 1}`;
  if (point <= 0) return `${negative}0.${'0'.repeat(-point)}${digits}`;
  return `${negative}${digits.slice(0, point).padEnd(point, '0')}.${digits.slice(point) || '0'}`;
}

function opaqueText(type: number, data: Buffer): string {
  switch (type) {
    case OPAQUE.decimal:
      return binaryDecimal(data[0] ?? 0, data[1] ?? 0)(data, 2);
    case OPAQUE.date:
      return `"${dateText(data.readBigInt64LE(0))}"`;
    case OPAQUE.datetime:
    case OPAQUE.timestamp: {
      const packed = data.readBigInt64LE(0);
      return `"${dateText(packed)} ${clockText(packed, 5n)}"`;
    }
    case OPAQUE.time: {
      const packed = data.readBigInt64LE(0);
      return packed < 0n ? `"-${clockText(-packed, 10n)}"` : `"${clockText(packed, 10n)}"`;
    }
    default:
      return `"base64:type${type}:${data.toString('base64')}"`;
  }
}

/** Packed: 24 bits of microseconds, then 6, 6 and `hourBits` of the time of day, then 5 of the day and the months of all years. */
function dateText(packed: bigint): string {
  const date = packed >> 41n;
  const months = date >> 5n;
  return `${digits(months / 13n, 4)}-${digits(months % 13n, 2)}-${digits(date & 31n, 2)}`;
}

function clockText(packed: bigint, hourBits: bigint): string {
  const time = packed >> 24n;
  const hours = (time >> 12n) & ((1n << hourBits) - 1n);
  const microseconds = packed & 0xffffffn;
  return `${digits(hours, 2)}:${digits((time >> 6n) & 63n, 2)}:${digits(time & 63n, 2)}.${digits(microseconds, 6)}`;
}

function digits(value: bigint, width: number): string {
  return String(value).padStart(width, '0');
}

function unknown(what: string): never {
  throw new SluiceError('INTERNAL', `the binary log holds JSON with ${what}, which is not known`);
}
