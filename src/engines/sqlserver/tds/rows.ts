/**
 * Takes the rows out of a response's token stream (MS-TDS 2.2.7) and makes cells of them, exactly (cells.ts); everything else
 * goes on to the driver, byte for byte. The driver's own row parser makes an object of every value, doubles of decimals, and drops
 * the zone of a datetimeoffset.
 */
import { SluiceError } from '../../../model/errors.ts';
import type { Cell } from '../../../model/changes.ts';
import { asByteText, cellOf, endOfValue, partsOf, readColumn, type ReadColumn } from './read-columns.ts';
import { emptyRests, isSet, type RowRests } from './row-rests.ts';

/** Rows of the `result`-th result set of a request (from 0), flat. */
export interface ResultRows {
  readonly result: number;
  /** Cells of a row: all columns, or the leading ones. */
  readonly width: number;
  readonly rows: number;
  readonly cells: Cell[];
  /** The rest of each row, as it came. */
  readonly rests: RowRests | null;
}

const COLMETADATA = 0x81;
const ROW = 0xd1;
const NBCROW = 0xd2;
/** DONE, DONEPROC, DONEINPROC: status, command, row count. */
const DONE = new Set([0xfd, 0xfe, 0xff]);
const RETURNSTATUS = 0x79;
const NO_COLUMNS = 0xffff;
/** What is put together of packets is put into blocks of this size. */
const BLOCK = 64 * 1024;
/** A seam has room for so many rows like the last one, so that most of a chunk is not copied. */
const SEAM_ROWS = 2;
/** TABNAME, COLINFO, ORDER, ERROR, INFO, ENVCHANGE: two bytes of length. */
const WITH_LENGTH = new Set([0xa4, 0xa5, 0xa9, 0xaa, 0xab, 0xe3]);

/** Rows of about `batchBytes` are handed to `take`, which pushes back by its promise. One for each request. */
export class RowExtractor {
  readonly #take: (rows: ResultRows) => Promise<void>;
  readonly #batchBytes: number;
  readonly #leading: number | null;
  #buffer: Buffer = Buffer.alloc(0);
  /** Its memory is ours alone, and may have room behind it. */
  #isOwn = false;
  /** The buffer is the end of a chunk and the beginning of this one, which begins at `at` in there. */
  #behindSeam: { readonly chunk: Buffer; readonly at: number } | null = null;
  #at = 0;
  #columns: readonly ReadColumn[] = [];
  /** Columns that become cells. */
  #width = 0;
  #result = -1;
  #cells: Cell[] = [];
  #rows = 0;
  #bytes = 0;
  /** Of `#bytes`: before the row in hand. */
  #bytesBefore = 0;
  /** Of the last row. */
  #rowBytes = 0;
  /** Column of the row whose value begins at #at; −1: no row has begun. */
  #column = -1;
  /** Of a value in parts: how far its complete parts reach, from #at. */
  #parts = 0;
  #nulls: Uint8Array | null = null;
  /** Where the row's rest begins, which is kept until all of it is there; −1: not yet, or there is none. */
  #restAt = -1;
  #rests: RowRests | null = null;

  /** `leading`: only so many columns, the first ones, become cells, bytes among them as text of one character a byte; the rest stays as it came. */
  constructor(take: (rows: ResultRows) => Promise<void>, batchBytes: number, leading: number | null = null) {
    this.#take = take;
    this.#batchBytes = batchBytes;
    this.#leading = leading;
  }

  /** The response without its rows. */
  async *rest(message: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
    for await (const chunk of message) {
      this.#append(chunk);
      const others: Buffer[] = [];
      for (;;) {
        const token = this.#buffer[this.#at];
        if (this.#column < 0 && token === undefined) {
          if (this.#follow()) continue;
          break;
        }
        if (this.#column >= 0 || token === ROW || token === NBCROW) {
          if (!this.#row(token)) {
            if (this.#follow()) continue;
            break;
          }
          if (this.#bytes >= this.#batchBytes) await this.#flush();
          continue;
        }
        const end = token === COLMETADATA ? this.#metadata() : this.#endOf(token ?? 0);
        if (end > this.#buffer.length) {
          if (this.#follow()) continue;
          break;
        }
        // What is said of rows (how many there were) comes after them.
        await this.#flush();
        if (token !== COLMETADATA) others.push(this.#buffer.subarray(this.#at, end));
        this.#at = end;
      }
      if (others.length > 0) yield others.length === 1 && others[0] ? others[0] : Buffer.concat(others);
    }
  }

  /** What is left of the last chunk goes before this one: in a seam, where it is less than a row of rows that are not large. */
  #append(chunk: Buffer): void {
    const first = this.#restAt < 0 ? this.#at : this.#restAt;
    const left = this.#buffer.length - first;
    const seam = left + SEAM_ROWS * this.#rowBytes;
    if (left === 0 || seam * 2 > chunk.length) {
      this.#join(chunk);
      return;
    }
    const joined = Buffer.allocUnsafe(seam);
    this.#buffer.copy(joined, 0, first);
    chunk.copy(joined, left, 0, seam - left);
    this.#moveTo(joined, -first);
    this.#behindSeam = { chunk, at: left };
  }

  /** Goes on behind a seam. False: more bytes are needed. */
  #follow(): boolean {
    const behind = this.#behindSeam;
    if (behind === null) return false;
    this.#behindSeam = null;
    if ((this.#restAt < 0 ? this.#at : this.#restAt) >= behind.at) {
      this.#moveTo(behind.chunk, -behind.at);
    } else {
      // A row that is larger than the last one.
      this.#buffer = this.#buffer.subarray(0, behind.at);
      this.#join(behind.chunk);
    }
    return true;
  }

  /**
   * What is left of the last chunk and this one, in one buffer. Blocks are filled one chunk behind the other, and are larger for a large
   * value, which is not copied for each packet of it.
   */
  #join(chunk: Buffer): void {
    const first = this.#restAt < 0 ? this.#at : this.#restAt;
    const left = this.#buffer.length - first;
    if (left <= 0) {
      this.#moveTo(chunk, -first);
      return;
    }
    const { buffer: memory, byteOffset, length } = this.#buffer;
    if (this.#isOwn && memory.byteLength - byteOffset - length >= chunk.length) {
      this.#moveTo(Buffer.from(memory, byteOffset + first, left + chunk.length), -first);
      chunk.copy(this.#buffer, left);
      this.#isOwn = true;
      return;
    }
    const whole = left + chunk.length;
    const joined = Buffer.allocUnsafeSlow(Math.max(BLOCK, left > chunk.length ? whole * 2 : whole));
    this.#buffer.copy(joined, 0, first);
    chunk.copy(joined, left);
    this.#moveTo(joined.subarray(0, whole), -first);
    this.#isOwn = true;
  }

  /** Another buffer, in which everything lies `by` further on. */
  #moveTo(buffer: Buffer, by: number): void {
    this.#buffer = buffer;
    this.#isOwn = false;
    this.#at += by;
    if (this.#restAt >= 0) this.#restAt += by;
  }

  async #flush(): Promise<void> {
    if (this.#rows === 0) return;
    const rows = {
      result: this.#result,
      width: this.#width,
      rows: this.#rows,
      cells: this.#cells,
      rests: this.#rests,
    };
    this.#cells = [];
    this.#rests = this.#rests && emptyRests(this.#rests.format);
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
      this.#bytesBefore = this.#bytes;
      this.#bytes += 1 + bitmap;
      this.#at += 1 + bitmap;
      this.#column = 0;
    }
    const buffer = this.#buffer;
    const limit = buffer.length;
    const nulls = this.#nulls;
    const cells = this.#cells;
    const width = this.#width;
    let at = this.#at;
    for (let i = this.#column; i < columns.length; i++) {
      if (i === width) this.#restAt = at;
      if (nulls !== null && isSet(nulls, i)) {
        if (i < width) cells.push(null);
        continue;
      }
      const column = columns[i];
      if (column === undefined) break;
      const end = endOfValue(column, buffer, at, this.#parts);
      if (end > limit) {
        if (column.framing === 'parts' && at + 8 <= limit) this.#parts = partsOf(buffer, at, this.#parts);
        return this.#wait(i, at);
      }
      this.#parts = 0;
      if (i < width) cells.push(cellOf(column, buffer, at));
      at = end;
    }
    const rests = this.#rests;
    if (rests !== null) {
      const restAt = this.#restAt < 0 ? at : this.#restAt;
      rests.buffers.push(buffer);
      rests.starts.push(restAt);
      rests.lengths.push(at - restAt);
      if (nulls !== null) rests.nulls[rests.starts.length - 1] = nulls;
    }
    this.#restAt = -1;
    this.#bytes += at - this.#at;
    this.#rowBytes = this.#bytes - this.#bytesBefore;
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
    const columns: ReadColumn[] = [];
    for (let i = 0; i < count && count !== NO_COLUMNS; i++) {
      const read = readColumn(buffer, at);
      if (read === null) return Infinity;
      columns.push(this.#leading !== null && i < this.#leading ? asByteText(read.column) : read.column);
      at = read.end;
    }
    if (at > buffer.length) return Infinity;
    this.#columns = columns;
    this.#width = this.#leading ?? columns.length;
    const leading = this.#leading;
    this.#rests = leading === null ? null : emptyRests({ leading, columns: columns.slice(leading) });
    this.#result++;
    return at;
  }
}

function unknown(what: string): SluiceError {
  return new SluiceError('INTERNAL', `the server's answer has ${what}, which no statement here asks for`);
}
