/**
 * Columns of a result set as COLMETADATA describes them (MS-TDS 2.2.7.4): how their values are framed in a row, and how a value
 * becomes a cell (cells.ts).
 */
import type { Cell } from '../../../model/changes.ts';
import { SluiceError } from '../../../model/errors.ts';
import {
  byteTextDecoder,
  datetime2Decoder,
  datetimeoffsetDecoder,
  decimalDecoder,
  decodeAscii,
  decodeBit,
  decodeBytes,
  decodeDate,
  decodeDatetime,
  decodeFloat,
  decodeInt,
  decodeMoney,
  decodeUnicode,
  decodeUuid,
  timeDecoder,
  type Decoder,
} from './cells.ts';

/** How a column's values are framed: by a fixed length, a length of one or two bytes, or in parts (max types). */
type Framing = 'fixed' | 'byte' | 'short' | 'parts';

export interface ReadColumn {
  readonly framing: Framing;
  readonly decode: Decoder;
  /** The type's number in the protocol. */
  readonly type: number;
  /** Of a value, in bytes; the most there can be where it varies, `MAX_SIZE` of max types, 0 where the type says all. */
  readonly size: number;
  /** Of decimals. */
  readonly precision: number;
  /** Of decimals and times. */
  readonly scale: number;
}

/** The size of max types. */
export const MAX_SIZE = 0xffff;

const NULL_SHORT = 0xffff;
const NULL_PARTS = 0xffff_ffff_ffff_ffffn;

const column = (
  framing: Framing,
  type: number,
  decode: Decoder,
  size: number,
  precision = 0,
  scale = 0,
): ReadColumn => ({
  framing,
  decode,
  type,
  size,
  precision,
  scale,
});

const fixed = (type: number, size: number, decode: Decoder): [number, ReadColumn] => [
  type,
  column('fixed', type, decode, size),
];
const FIXED: ReadonlyMap<number, ReadColumn> = new Map([
  fixed(0x30, 1, decodeInt),
  fixed(0x32, 1, decodeBit),
  fixed(0x34, 2, decodeInt),
  fixed(0x38, 4, decodeInt),
  fixed(0x3a, 4, decodeDatetime),
  fixed(0x3b, 4, decodeFloat),
  fixed(0x3c, 8, decodeMoney),
  fixed(0x3d, 8, decodeDatetime),
  fixed(0x3e, 8, decodeFloat),
  fixed(0x7a, 4, decodeMoney),
  fixed(0x7f, 8, decodeInt),
]);
const NULLABLE: Readonly<Record<number, Decoder>> = {
  0x24: decodeUuid,
  0x26: decodeInt,
  0x68: decodeBit,
  0x6d: decodeFloat,
  0x6e: decodeMoney,
  0x6f: decodeDatetime,
};
const SCALED: Readonly<Record<number, (scale: number) => Decoder>> = {
  0x29: timeDecoder,
  0x2a: datetime2Decoder,
  0x2b: datetimeoffsetDecoder,
};
const LONG: Readonly<Record<number, { decode: Decoder; collation: boolean }>> = {
  0xa5: { decode: decodeBytes, collation: false },
  0xad: { decode: decodeBytes, collation: false },
  0xa7: { decode: decodeAscii, collation: true },
  0xaf: { decode: decodeAscii, collation: true },
  0xe7: { decode: decodeUnicode, collation: true },
  0xef: { decode: decodeUnicode, collation: true },
};

/** A column by its description, which begins at `at`, and where that ends; null: more bytes are needed. */
export function readColumn(buffer: Buffer, at: number): { readonly column: ReadColumn; readonly end: number } | null {
  // User type and flags, type; the longest rest is 7 bytes, then the name's length.
  if (at + 7 > buffer.length) return null;
  const type = buffer[at + 6] ?? 0;
  let end = at + 7;
  let made = FIXED.get(type);
  if (made === undefined) {
    if (end + 8 > buffer.length) return null;
    const [varying, length] = varyingColumn(type, buffer, end);
    made = varying;
    end += length;
  }
  const name = buffer[end];
  return name === undefined ? null : { column: made, end: end + 1 + name * 2 };
}

/** A column of values of no fixed length by the type's own description at `at`, and how long that is. */
function varyingColumn(type: number, buffer: Buffer, at: number): [ReadColumn, number] {
  const nullable = NULLABLE[type];
  if (nullable) return [column('byte', type, nullable, buffer[at] ?? 0), 1];
  if (type === 0x28) return [column('byte', type, decodeDate, 0), 0];
  const ofScale = SCALED[type];
  const first = buffer[at] ?? 0;
  if (ofScale) return [column('byte', type, ofScale(first), 0, 0, first), 1];
  // Length, precision, scale.
  if (type === 0x6a || type === 0x6c) {
    const scale = buffer[at + 2] ?? 0;
    return [column('byte', type, decimalDecoder(scale), first, buffer[at + 1] ?? 0, scale), 3];
  }
  const long = LONG[type];
  if (!long)
    throw new SluiceError('INTERNAL', `the server's answer has type ${type}, which no statement here asks for`);
  const size = buffer.readUInt16LE(at);
  return [column(size === MAX_SIZE ? 'parts' : 'short', type, long.decode, size), long.collation ? 7 : 2];
}

/** The column with its bytes as text, one character a byte: cheap for what is only compared. */
export function asByteText(made: ReadColumn): ReadColumn {
  return made.decode === decodeBytes ? { ...made, decode: byteTextDecoder() } : made;
}

/** Values of both are framed and decoded in the same way. */
export function isSameColumn(a: ReadColumn, b: ReadColumn | undefined): boolean {
  if (a === b || b === undefined) return a === b;
  return a.type === b.type && a.size === b.size && a.precision === b.precision && a.scale === b.scale;
}

/**
 * Where the value at `at` ends; beyond the buffer: more bytes are needed. `known`: of a value in parts, how far those reach from `at`
 * that were seen to be there, so that a large value is not gone through again for each packet of it.
 */
export function endOfValue({ framing, size }: ReadColumn, buffer: Buffer, at: number, known = 0): number {
  switch (framing) {
    case 'fixed':
      return at + size;
    case 'byte':
      return at + 1 + (buffer[at] ?? 0);
    case 'short': {
      if (at + 2 > buffer.length) return Infinity;
      const length = buffer.readUInt16LE(at);
      return length === NULL_SHORT ? at + 2 : at + 2 + length;
    }
    case 'parts': {
      if (at + 8 > buffer.length) return Infinity;
      if (buffer.readBigUInt64LE(at) === NULL_PARTS) return at + 8;
      const part = at + partsOf(buffer, at, known);
      return part + 4 <= buffer.length && buffer.readUInt32LE(part) === 0 ? part + 4 : Infinity;
    }
  }
}

/**
 * How far the complete parts of the value at `at` reach from there: eight bytes of length (or: unknown, or NULL), then parts, each with its
 * length in four bytes, up to one of length 0.
 */
export function partsOf(buffer: Buffer, at: number, known = 0): number {
  let part = at + Math.max(known, 8);
  while (part + 4 <= buffer.length) {
    const length = buffer.readUInt32LE(part);
    if (length === 0 || part + 4 + length > buffer.length) break;
    part += 4 + length;
  }
  return part - at;
}

/** The value at `at`, all of whose bytes are there. */
export function cellOf({ framing, size, decode }: ReadColumn, buffer: Buffer, at: number): Cell {
  switch (framing) {
    case 'fixed':
      return decode(buffer, at, size);
    case 'byte': {
      const length = buffer[at] ?? 0;
      return length === 0 ? null : decode(buffer, at + 1, length);
    }
    case 'short': {
      const length = buffer.readUInt16LE(at);
      return length === NULL_SHORT ? null : decode(buffer, at + 2, length);
    }
    case 'parts': {
      const value = wholeOf(buffer, at);
      return value && decode(value.bytes, value.at, value.length);
    }
  }
}

/** Where the bytes of the value at `at`, which is not NULL, begin; −1: they are not in one piece. */
export function startOfValue({ framing }: ReadColumn, buffer: Buffer, at: number): number {
  if (framing !== 'parts') return framing === 'fixed' ? at : framing === 'byte' ? at + 1 : at + 2;
  const first = buffer.readUInt32LE(at + 8);
  return first === 0 || buffer.readUInt32LE(at + 12 + first) === 0 ? at + 12 : -1;
}

/** Bytes of such a value that is in one piece. */
export function lengthOfValue({ framing, size }: ReadColumn, buffer: Buffer, at: number): number {
  switch (framing) {
    case 'fixed':
      return size;
    case 'byte':
      return buffer[at] ?? 0;
    case 'short':
      return buffer.readUInt16LE(at);
    case 'parts':
      return buffer.readUInt32LE(at + 8);
  }
}

export function isNull({ framing }: ReadColumn, buffer: Buffer, at: number): boolean {
  switch (framing) {
    case 'fixed':
      return false;
    case 'byte':
      return buffer[at] === 0;
    case 'short':
      return buffer.readUInt16LE(at) === NULL_SHORT;
    case 'parts':
      return buffer.readBigUInt64LE(at) === NULL_PARTS;
  }
}

/** The parts of a value put together; null: it is NULL. */
function wholeOf(
  buffer: Buffer,
  at: number,
): { readonly bytes: Buffer; readonly at: number; readonly length: number } | null {
  if (buffer.readBigUInt64LE(at) === NULL_PARTS) return null;
  const parts: Buffer[] = [];
  for (let part = at + 8; ;) {
    const length = buffer.readUInt32LE(part);
    if (length === 0) break;
    parts.push(buffer.subarray(part + 4, part + 4 + length));
    part += 4 + length;
  }
  const bytes = parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts);
  return { bytes, at: 0, length: bytes.length };
}
