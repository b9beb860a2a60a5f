/**
 * Takes the rows out of a response's token stream (MS-TDS 2.2.7) and makes cells of them, exactly (cells.ts); everything else
 * goes on to the driver, byte for byte. The driver's own row parser makes an object of every value, doubles of decimals, and drops
 * the zone of a datetimeoffset.
 */
import { SluiceError } from '../../../model/errors.ts';
import type { Cell } from '../../../model/changes.ts';
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

/** Rows of the `result`-th result set of a request (from 0), flat. */
export interface ResultRows {
  readonly result: number;
  readonly width: number;
  readonly rows: number;
  readonly cells: Cell[];
}

/** How a column's values are framed: by a fixed length, a length of one or two bytes, or in parts (max types). */
type Framing = 'fixed' | 'byte' | 'short' | 'parts';

interface WireColumn {
  readonly framing: Framing;
  /** Of `fixed`. */
  readonly length: number;
  readonly decode: Decoder;
}

const COLMETADATA = 0x81;
const ROW = 0xd1;
const NBCROW = 0xd2;
/** DONE, DONEPROC, DONEINPROC: status, command, row count. */
const DONE = new Set([0xfd, 0xfe, 0xff]);
const RETURNSTATUS = 0x79;
/** TABNAME, COLINFO, ORDER, ERROR, INFO, ENVCHANGE: two bytes of length. */
const WITH_LENGTH = new Set([0xa4, 0xa5, 0xa9, 0xaa, 0xab, 0xe3]);

const NULL_SHORT = 0xffff;
const NULL_PARTS = 0xffff_ffff_ffff_ffffn;

const fixed = (length: number, decode: Decoder): WireColumn => ({ framing: 'fixed', length, decode });
const FIXED: Readonly<Record<number, WireColumn>> = {
  0x30: fixed(1, decodeInt),
  0x32: fixed(1, decodeBit),
  0x34: fixed(2, decodeInt),
  0x38: fixed(4, decodeInt),
  0x3a: fixed(4, decodeDatetime),
  0x3b: fixed(4, decodeFloat),
  0x3c: fixed(8, decodeMoney),
  0x3d: fixed(8, decodeDatetime),
  0x3e: fixed(8, decodeFloat),
  0x7a: fixed(4, decodeMoney),
  0x7f: fixed(8, decodeInt),
};
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

/** Rows of about `batchBytes` are handed to `take`, which pushes back by its promise. One for each request. */
export class RowExtractor {
  readonly #take: (rows: ResultRows) => Promise<void>;
  readonly #batchBytes: number;
  readonly #byteTexts: number;
  #buffer: Buffer = Buffer.alloc(0);
  /** Its memory is ours alone, and may have room behind it. */
  #isOwn = false;
  #at = 0;
  #columns: readonly WireColumn[] = [];
  #result = -1;
  #cells: Cell[] = [];
  #rows = 0;
  #bytes = 0;
  /** Column of the row whose value begins at #at; −1: no row has begun. */
  #column = -1;
  /** Of a value in parts: how far its complete parts reach, from #at. */
  #parts = 0;
  #nulls: Uint8Array | null = null;

  /** `byteTexts`: of so many columns, the first ones, bytes come as text, one character a byte. */
  constructor(take: (rows: ResultRows) => Promise<void>, batchBytes: number, byteTexts = 0) {
    this.#take = take;
    this.#batchBytes = batchBytes;
    this.#byteTexts = byteTexts;
  }

  /** The response without its rows. */
  async *rest(message: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
    for await (const chunk of message) {
      this.#append(chunk);
      const others: Buffer[] = [];
      for (;;) {
        const token = this.#buffer[this.#at];
        if (this.#column < 0 && token === undefined) break;
        if (this.#column >= 0 || token === ROW || token === NBCROW) {
          if (!this.#row(token)) break;
          if (this.#bytes >= this.#batchBytes) await this.#flush();
          continue;
        }
        const end = token === COLMETADATA ? this.#metadata() : this.#endOf(token ?? 0);
        if (end > this.#buffer.length) break;
        // What is said of rows (how many there were) comes after them.
        await this.#flush();
        if (token !== COLMETADATA) others.push(this.#buffer.subarray(this.#at, end));
        this.#at = end;
      }
      if (others.length > 0) yield others.length === 1 && others[0] ? others[0] : Buffer.concat(others);
    }
  }

  /**
   * What is left of the last chunk and this one, in one buffer. It doubles when it grows, so that a large value is not copied
   * for each packet of it.
   */
  #append(chunk: Buffer): void {
    const left = this.#buffer.length - this.#at;
    if (left === 0) {
      this.#buffer = chunk;
      this.#isOwn = false;
      this.#at = 0;
      return;
    }
    const { buffer: memory, byteOffset, length } = this.#buffer;
    if (this.#isOwn && memory.byteLength - byteOffset - length >= chunk.length && left > chunk.length) {
      this.#buffer = Buffer.from(memory, byteOffset, length + chunk.length);
      chunk.copy(this.#buffer, length);
      return;
    }
    const whole = left + chunk.length;
    const joined = Buffer.allocUnsafeSlow(left > chunk.length ? whole * 2 : whole);
    this.#buffer.copy(joined, 0, this.#at);
    chunk.copy(joined, left);
    this.#buffer = joined.subarray(0, whole);
    this.#isOwn = true;
    this.#at = 0;
  }

  async #flush(): Promise<void> {
    if (this.#rows === 0) return;
    const rows = { result: this.#result, width: this.#columns.length, rows: this.#rows, cells: this.#cells };
    this.#cells = [];
    this.#rows = 0;
    this.#bytes = 0;
    await this.#take(rows);
  }

  /** Goes on with the row at #at. False: more bytes are needed. */
  #row(token: number | undefined): boolean {
    const columns = this.#columns;
    if (this.#column < 0) {
      const bitmap = token === NBCROW ? (columns.length + 7) >> 3 : 0;
      if (this.#at + 1 + bitmap > this.#buffer.length) return false;
      this.#nulls =
        bitmap === 0 ? null : Uint8Array.prototype.slice.call(this.#buffer, this.#at + 1, this.#at + 1 + bitmap);
      this.#bytes += 1 + bitmap;
      this.#at += 1 + bitmap;
      this.#column = 0;
    }
    const buffer = this.#buffer;
    const limit = buffer.length;
    const nulls = this.#nulls;
    const cells = this.#cells;
    let at = this.#at;
    for (let i = this.#column; i < columns.length; i++) {
      if (nulls !== null && ((nulls[i >> 3] ?? 0) >> (i & 7)) & 1) {
        cells.push(null);
        continue;
      }
      const column = columns[i];
      if (column === undefined) break;
      let length = column.length;
      let header = 0;
      if (column.framing === 'parts') {
        const end = this.#valueInParts(at, column);
        if (end < 0) return this.#wait(i, at);
        at = end;
        continue;
      }
      if (column.framing === 'byte') {
        if (at >= limit) return this.#wait(i, at);
        length = buffer[at] ?? 0;
        header = 1;
      } else if (column.framing === 'short') {
        if (at + 2 > limit) return this.#wait(i, at);
        length = buffer.readUInt16LE(at);
        header = 2;
      }
      if (header === 1 ? length === 0 : header === 2 && length === NULL_SHORT) {
        cells.push(null);
        at += header;
        continue;
      }
      const end = at + header + length;
      if (end > limit) return this.#wait(i, at);
      cells.push(column.decode(buffer, at + header, length));
      at = end;
    }
    this.#bytes += at - this.#at;
    this.#at = at;
    this.#column = -1;
    this.#rows++;
    return true;
  }

  #wait(column: number, at: number): false {
    this.#bytes += at - this.#at;
    this.#column = column;
    this.#at = at;
    return false;
  }

  /** Eight bytes of length (or: unknown, or NULL), then parts, each with its length in four bytes, up to one of length 0. −1: more bytes are needed. */
  #valueInParts(at: number, column: WireColumn): number {
    const buffer = this.#buffer;
    if (at + 8 > buffer.length) return -1;
    if (buffer.readBigUInt64LE(at) === NULL_PARTS) {
      this.#cells.push(null);
      return at + 8;
    }
    let part = at + Math.max(this.#parts, 8);
    for (;;) {
      const length = part + 4 > buffer.length ? -1 : buffer.readUInt32LE(part);
      if (length === 0) break;
      if (length < 0 || part + 4 + length > buffer.length) {
        this.#parts = part - at;
        return -1;
      }
      part += 4 + length;
    }
    this.#parts = 0;
    const first = at + 8;
    const only = part > first && first + 4 + buffer.readUInt32LE(first) === part;
    if (only) this.#cells.push(column.decode(buffer, first + 4, part - first - 4));
    else {
      const whole: Buffer[] = [];
      for (let from = first; from < part;) {
        const end = from + 4 + buffer.readUInt32LE(from);
        whole.push(buffer.subarray(from + 4, end));
        from = end;
      }
      const value = Buffer.concat(whole);
      this.#cells.push(column.decode(value, 0, value.length));
    }
    return part + 4;
  }

  /** Where a token that goes to the driver ends; beyond the buffer: more bytes are needed. */
  #endOf(token: number): number {
    if (DONE.has(token)) return this.#at + 13;
    if (token === RETURNSTATUS) return this.#at + 5;
    if (!WITH_LENGTH.has(token)) throw unknown(`token ${token}`);
    return this.#at + 3 > this.#buffer.length ? Infinity : this.#at + 3 + this.#buffer.readUInt16LE(this.#at + 1);
  }

  /** Reads COLMETADATA. */
  #metadata(): number {
    const buffer = this.#buffer;
    let at = this.#at + 1;
    if (at + 2 > buffer.length) return Infinity;
    const count = buffer.readUInt16LE(at);
    at += 2;
    const columns: WireColumn[] = [];
    for (let i = 0; i < count && count !== NULL_SHORT; i++) {
      // User type and flags, type; the longest description is 11 bytes more, then the name's length.
      if (at + 7 > buffer.length) return Infinity;
      const type = buffer[at + 6] ?? 0;
      at += 7;
      const known = FIXED[type];
      if (known) columns.push(known);
      else {
        if (at + 8 > buffer.length) return Infinity;
        const [column, length] = described(type, buffer, at);
        const isByteText = i < this.#byteTexts && column.decode === decodeBytes;
        columns.push(isByteText ? { ...column, decode: byteTextDecoder() } : column);
        at += length;
      }
      const name = buffer[at];
      if (name === undefined) return Infinity;
      at += 1 + name * 2;
    }
    if (at > buffer.length) return Infinity;
    this.#columns = columns;
    this.#result++;
    return at;
  }
}

/** A column by the type's own description at `at`, and how long that is. */
function described(type: number, buffer: Buffer, at: number): [WireColumn, number] {
  const nullable = NULLABLE[type];
  if (nullable) return [{ framing: 'byte', length: 0, decode: nullable }, 1];
  if (type === 0x28) return [{ framing: 'byte', length: 0, decode: decodeDate }, 0];
  const ofScale = SCALED[type];
  if (ofScale) return [{ framing: 'byte', length: 0, decode: ofScale(buffer[at] ?? 0) }, 1];
  // Length, precision, scale.
  if (type === 0x6a || type === 0x6c)
    return [{ framing: 'byte', length: 0, decode: decimalDecoder(buffer[at + 2] ?? 0) }, 3];
  const long = LONG[type];
  if (!long) throw unknown(`type ${type}`);
  const framing = buffer.readUInt16LE(at) === 0xffff ? 'parts' : 'short';
  return [{ framing, length: 0, decode: long.decode }, long.collation ? 7 : 2];
}

function unknown(what: string): SluiceError {
  return new SluiceError('INTERNAL', `the server's answer has ${what}, which no statement here asks for`);
}
