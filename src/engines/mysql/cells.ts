/** The server's text of a value to a cell. Integers, decimals and dates are ASCII; what is not (text, bytes) is read from the bytes. */
import type { Cell } from '../../model/changes.ts';
import { float32Text, float64Text } from '../float-text.ts';
import type { CellForm } from './types.ts';

/** `row` is the row's bytes as Latin-1 text, made once: its substrings cost less than a call for each value. */
export type CellReader = (row: string, from: number, to: number, bytes: Buffer, offset: number) => Cell;

const NOT_ASCII = /[^\x00-\x7f]/;

const READERS: Readonly<Record<CellForm, CellReader>> = {
  plain: (row, from, to) => row.substring(from, to),
  zerofill: (row, from, to) => withoutZeros(row.substring(from, to)),
  bit: (_row, from, to, bytes, offset) => bitsText(bytes.subarray(offset + from, offset + to)),
  boolean: (row, _from, to) => (row.charCodeAt(to - 1) === 1 ? 't' : 'f'),
  float32: (row, from, to) => float32Text(Math.fround(Number(row.substring(from, to)))),
  float64: (row, from, to) => float64Text(Number(row.substring(from, to))),
  fraction: (row, from, to) => withoutFractionZeros(row.substring(from, to)),
  instant: (row, from, to) => `${withoutFractionZeros(row.substring(from, to))}+00`,
  text: (row, from, to, bytes, offset) => {
    const text = row.substring(from, to);
    return NOT_ASCII.test(text) ? bytes.toString('utf8', offset + from, offset + to) : text;
  },
  // Copied: a view would keep the socket's whole buffer.
  bytes: (_row, from, to, bytes, offset) => Buffer.from(bytes.subarray(offset + from, offset + to)),
  geometry: (_row, from, to, bytes, offset) => wellKnownBinary(bytes.subarray(offset + from, offset + to)),
};

export function cellReader(form: CellForm): CellReader {
  return READERS[form];
}

/** `00042` → 42, `-0001.50` → -1.50, `0000` → 0. */
export function withoutZeros(text: string): string {
  return text.replace(/^(-?)0+(?=\d)/, '$1');
}

/** `10:00:00.500000` → 10:00:00.5. */
export function withoutFractionZeros(text: string): string {
  const point = text.length - 7;
  // The common case first: no fraction, or one that ends in another digit.
  if (text.charCodeAt(text.length - 1) !== 0x30 || text.indexOf('.', Math.max(0, point)) < 0) return text;
  return text.replace(/\.?0+$/, '');
}

/** A bit string as the unsigned number that it is. */
export function bitsText(bytes: Buffer): string {
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return value.toString();
}

const EWKB_HAS_SRID = 0x20000000;

/**
 * The internal form (four bytes of SRID, then WKB) as WKB; with an SRID as extended WKB, PostGIS's way to say it. The internal form
 * is always little-endian, and its axes are in the order of the spatial reference system's definition nowhere but in functions.
 */
export function wellKnownBinary(internal: Buffer): Buffer {
  const srid = internal.length >= 9 ? internal.readUInt32LE(0) : 0;
  if (srid === 0) return Buffer.from(internal.subarray(4));
  const out = Buffer.allocUnsafe(internal.length);
  out[0] = 1;
  out.writeUInt32LE((internal.readUInt32LE(5) | EWKB_HAS_SRID) >>> 0, 1);
  out.writeUInt32LE(srid, 5);
  internal.copy(out, 9, 9);
  return out;
}
