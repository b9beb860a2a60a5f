/** Text, bytes and identifiers as TDS has them on the wire. Values of (max) types go in chunks (PLP, MS-TDS 2.2.5.2.3). */
import { isUtf8 } from 'node:buffer';
import { refuse, type RowBuffer } from './bulk-buffer.ts';
import type { CodePage } from './code-pages.ts';

export type CellWriter = (out: RowBuffer, cell: string | Uint8Array) => void;

/** Characters, or bytes, that are put into the buffer at a time. */
const PIECE = 16 * 1024;

export function textOf(cell: string | Uint8Array): string {
  return typeof cell === 'string' ? cell : decodeUtf8(cell);
}

function decodeUtf8(cell: Uint8Array): string {
  // toString would replace what is not UTF-8.
  if (!isUtf8(cell)) refuse('its bytes are not UTF-8');
  return Buffer.from(cell.buffer, cell.byteOffset, cell.length).toString('utf8');
}

/** nvarchar(n), nchar(n): 16-bit units, half surrogate pairs included. */
export function unicodeWriter(units: number, type: string): CellWriter {
  return (out, cell) => {
    const text = textOf(cell);
    if (text.length > units) refuse(`it is longer than ${type}`);
    out.reserve(2 + text.length * 2);
    out.at = out.bytes.writeUInt16LE(text.length * 2, out.at);
    out.at += out.bytes.write(text, out.at, 'utf16le');
  };
}

/** nvarchar(max), and xml, which is sent as such. */
export const writeUnicodeMax: CellWriter = (out, cell) => {
  const text = textOf(cell);
  writePlpLength(out, text.length * 2);
  for (let from = 0; from < text.length; from += PIECE) {
    const length = Math.min(PIECE, text.length - from);
    out.reserve(4 + length * 2);
    out.at = out.bytes.writeUInt32LE(length * 2, out.at);
    out.at += out.bytes.write(length === text.length ? text : text.slice(from, from + length), out.at, 'utf16le');
  }
  writePlpEnd(out);
};

export function unicodeTextWriter(): CellWriter {
  return (out, cell) => {
    const text = textOf(cell);
    writeTextHeader(out, text.length * 2);
    for (let from = 0; from < text.length; from += PIECE) {
      const piece = text.slice(from, from + PIECE);
      out.reserve(piece.length * 2);
      out.at += out.bytes.write(piece, out.at, 'utf16le');
    }
  };
}

/** How text becomes a varchar's bytes; null: UTF-8. */
export type Encoding = CodePage | null;

const HALF_PAIR = /\p{Surrogate}/u;

/** Bytes of `text` in `encoding`, or null when a character is not in it. */
function encode(text: string, encoding: Encoding): Uint8Array | null {
  if (encoding === null) return HALF_PAIR.test(text) ? null : Buffer.from(text, 'utf8');
  const bytes = Buffer.allocUnsafe(text.length * 2);
  let at = 0;
  for (let i = 0; i < text.length; i++) {
    const code = encoding[text.charCodeAt(i)] ?? -1;
    if (code < 0) return null;
    if (code > 0xff) bytes[at++] = code >> 8;
    bytes[at++] = code & 0xff;
  }
  return bytes.subarray(0, at);
}

function encoded(cell: string | Uint8Array, encoding: Encoding): Uint8Array {
  return encode(textOf(cell), encoding) ?? refuse('it has a character that the column’s collation has no code for');
}

/** varchar(n), char(n): n bytes of the code page. */
export function singleByteWriter(size: number, type: string, encoding: Encoding): CellWriter {
  return (out, cell) => {
    // Most text is ASCII, which every code page has.
    const length = cell.length;
    if (typeof cell === 'string' && length <= size) {
      out.reserve(2 + length);
      const { bytes } = out;
      let at = out.at + 2;
      let i = 0;
      for (; i < length; i++) {
        const c = cell.charCodeAt(i);
        if (c >= 0x80) break;
        bytes[at++] = c;
      }
      if (i === length) {
        bytes.writeUInt16LE(length, out.at);
        out.at = at;
        return;
      }
    }
    const value = encoded(cell, encoding);
    if (value.length > size) refuse(`it is longer than ${type}`);
    out.reserve(2 + value.length);
    out.at = out.bytes.writeUInt16LE(value.length, out.at);
    out.append(value);
  };
}

export function singleByteMaxWriter(encoding: Encoding): CellWriter {
  return (out, cell) => writeMax(out, encoded(cell, encoding));
}

export function singleByteTextWriter(encoding: Encoding): CellWriter {
  return (out, cell) => {
    const value = encoded(cell, encoding);
    writeTextHeader(out, value.length);
    out.append(value);
  };
}

function bytesOf(cell: string | Uint8Array): Uint8Array {
  return typeof cell === 'string' ? refuse('it is text where bytes belong') : cell;
}

/** varbinary(n) and binary(n). A shorter value would be padded with zeros in binary(n): it is refused. */
export function binaryWriter(size: number, type: string, fixed: boolean): CellWriter {
  return (out, cell) => {
    const value = bytesOf(cell);
    if (value.length > size) refuse(`it is longer than ${type}`);
    if (fixed && value.length < size) refuse(`it is shorter than ${type}`);
    out.reserve(2 + value.length);
    out.at = out.bytes.writeUInt16LE(value.length, out.at);
    out.append(value);
  };
}

export const writeBinaryMax: CellWriter = (out, cell) => writeMax(out, bytesOf(cell));

export const writeImage: CellWriter = (out, cell) => {
  const value = bytesOf(cell);
  writeTextHeader(out, value.length);
  out.append(value);
};

function writeMax(out: RowBuffer, value: Uint8Array): void {
  writePlpLength(out, value.length);
  if (value.length > 0) {
    out.reserve(4);
    out.at = out.bytes.writeUInt32LE(value.length, out.at);
    out.append(value);
  }
  writePlpEnd(out);
}

function writePlpLength(out: RowBuffer, length: number): void {
  out.reserve(8);
  out.at = out.bytes.writeUInt32LE(length, out.at);
  out.at = out.bytes.writeUInt32LE(0, out.at);
}

function writePlpEnd(out: RowBuffer): void {
  out.reserve(4);
  out.at = out.bytes.writeUInt32LE(0, out.at);
}

/** text, ntext and image: a text pointer and a timestamp that mean nothing here, then the length. */
function writeTextHeader(out: RowBuffer, length: number): void {
  out.reserve(29);
  out.bytes[out.at] = 16;
  out.bytes.fill(0, out.at + 1, out.at + 25);
  out.bytes.writeUInt32LE(length, out.at + 25);
  out.at += 29;
}

/** The first three groups are little-endian numbers, the last two are bytes as they stand. */
const GUID_ORDER = [6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34];
const HEX = new Int8Array(128).fill(-1);
for (let i = 0; i < 16; i++) {
  const digit = i.toString(16);
  HEX[digit.charCodeAt(0)] = i;
  HEX[digit.toUpperCase().charCodeAt(0)] = i;
}

export const writeGuid: CellWriter = (out, cell) => {
  const text = textOf(cell);
  const dash = 0x2d;
  const dashes =
    text.charCodeAt(8) === dash &&
    text.charCodeAt(13) === dash &&
    text.charCodeAt(18) === dash &&
    text.charCodeAt(23) === dash;
  if (text.length !== 36 || !dashes) refuse('it is not a uniqueidentifier');
  out.reserve(17);
  const { bytes } = out;
  bytes[out.at++] = 16;
  for (const place of GUID_ORDER) {
    const high = HEX[text.charCodeAt(place)] ?? -1;
    const low = HEX[text.charCodeAt(place + 1)] ?? -1;
    if (high < 0 || low < 0) refuse('it is not a uniqueidentifier');
    bytes[out.at++] = high * 16 + low;
  }
};
