/** The message of a bulk load: COLMETADATA, a ROW token for each row, DONE (MS-TDS 2.2.6.1). */
import type { Cell, RowBatch } from '../../../model/changes.ts';
import { Refused, RowBuffer } from './bulk-buffer.ts';
import type { BulkColumn } from './bulk-columns.ts';
import { valueCopier, type ValueCopier } from './bulk-rests.ts';
import { endOfValue, isNull, isSameColumn } from './read-columns.ts';
import { isSet, type RestFormat, type RowRests } from './row-rests.ts';

const COLMETADATA = 0x81;
const ROW = 0xd1;
const DONE = 0xfd;
/** Updatable, NULL allowed: the message's own columns, whatever the table's. */
const FLAGS = 0x05;

export function columnMetadata(columns: readonly BulkColumn[], table: string): Buffer {
  const parts: Buffer[] = [];
  const count = Buffer.alloc(3);
  count[0] = COLMETADATA;
  count.writeUInt16LE(columns.length, 1);
  parts.push(count);
  for (const column of columns) {
    const head = Buffer.alloc(6);
    head.writeUInt16LE(FLAGS, 4);
    parts.push(head, column.typeInfo);
    if (column.named) {
      const length = Buffer.alloc(2);
      length.writeUInt16LE(table.length);
      parts.push(length, Buffer.from(table, 'utf16le'));
    }
    parts.push(Buffer.from([column.name.length]), Buffer.from(column.name, 'utf16le'));
  }
  return Buffer.concat(parts);
}

export function done(): Buffer {
  const token = Buffer.alloc(13);
  token[0] = DONE;
  return token;
}

/** A value that the column does not take; `column` is its name. */
export class RefusedCell extends Error {
  readonly column: string;
  /** The row was ended with NULLs: what was encoded is whole rows, and can be sent for the answer's sake. */
  readonly isRowEnded: boolean;

  constructor(column: string, reason: string, isRowEnded = false) {
    super(reason);
    this.column = column;
    this.isRowEnded = isRowEnded;
  }
}

export class RowEncoder {
  readonly #columns: readonly BulkColumn[];
  readonly out = new RowBuffer();
  rows = 0;
  #format: RestFormat | null = null;
  #copiers: readonly ValueCopier[] = [];
  // Of the row in hand, by column of its result set.
  #starts = new Int32Array(0);
  #ends = new Int32Array(0);

  constructor(columns: readonly BulkColumn[]) {
    this.#columns = columns;
  }

  /** Adds rows `from` up to `end` of a batch whose columns are ours. Throws RefusedCell. */
  add(batch: RowBatch, from: number, end: number): void {
    const columns = this.#columns;
    const width = columns.length;
    const { cells } = batch;
    const { out } = this;
    let at = from * width;
    for (let row = from; row < end; row++) {
      out.reserve(1);
      out.bytes[out.at++] = ROW;
      for (const column of columns) this.#write(column, cells[at++] ?? null);
    }
    this.rows += end - from;
  }

  /**
   * Adds a row as a result set had it (its rest: `RowRests`). `columns`: by column of ours, which of the rest's it is. `number`: goes into
   * our first column, which is an int, before them. Throws RefusedCell.
   */
  addRest(batch: RowRests, index: number, columns: readonly number[], number: number | null): void {
    const { out } = this;
    const { format } = batch;
    const buffer = batch.buffers[index];
    const nulls = batch.nulls[index] ?? null;
    if (buffer === undefined) throw new RangeError(`there is no row ${index}`);
    if (format !== this.#format) this.#prepare(format, columns, number === null ? 0 : 1);
    const starts = this.#starts;
    const ends = this.#ends;
    let at = batch.starts[index] ?? 0;
    for (let i = 0; i < starts.length; i++) {
      const column = format.columns[i];
      starts[i] = at;
      if (column !== undefined && (nulls === null || !isSet(nulls, format.leading + i)))
        at = endOfValue(column, buffer, at);
      ends[i] = at;
    }
    out.reserve(6);
    out.bytes[out.at++] = ROW;
    let own = 0;
    if (number !== null) {
      out.bytes[out.at++] = 4;
      out.at = out.bytes.writeInt32LE(number, out.at);
      own = 1;
    }
    for (let c = 0; c < columns.length; c++) {
      const i = columns[c] ?? 0;
      const target = this.#columns[own + c];
      const source = format.columns[i];
      if (target === undefined || source === undefined) throw new RangeError(`there is no column ${c}`);
      const from = starts[i] ?? 0;
      const end = ends[i] ?? 0;
      if (end === from || isNull(source, buffer, from)) this.#write(target, null);
      else {
        const block = out.bytes;
        const { at: begun } = out;
        try {
          this.#copiers[c]?.(out, buffer, from, end);
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          // What was written of the value is still in this block, or it is not known where it begins.
          const isKnown = out.bytes === block;
          if (isKnown) {
            out.at = begun;
            for (const rest of this.#columns.slice(own + c)) out.append(rest.null);
            this.rows++;
          }
          throw new RefusedCell(target.name, error.message, isKnown);
        }
      }
    }
    this.rows++;
  }

  #prepare(format: RestFormat, columns: readonly number[], first: number): void {
    const isKnown = this.#format !== null && isSameFormat(this.#format, format);
    this.#format = format;
    if (isKnown) return;
    this.#starts = new Int32Array(format.columns.length);
    this.#ends = new Int32Array(format.columns.length);
    this.#copiers = columns.map((i, c) => {
      const source = format.columns[i];
      const target = this.#columns[first + c];
      if (source === undefined || target === undefined) throw new RangeError(`there is no column ${i}`);
      return valueCopier(source, target);
    });
  }

  #write(column: BulkColumn, cell: Cell): void {
    if (cell === null) {
      if (!column.nullable) throw new RefusedCell(column.name, 'it is NULL, which the column is not');
      this.out.append(column.null);
      return;
    }
    try {
      column.write(this.out, cell);
    } catch (error) {
      throw refusal(column, error);
    }
  }
}

/** Each page has a description of its own, mostly of the same columns. */
function isSameFormat(a: RestFormat, b: RestFormat): boolean {
  const { length } = a.columns;
  return length === b.columns.length && a.columns.every((column, i) => isSameColumn(column, b.columns[i]));
}

function refusal(column: BulkColumn, error: unknown): unknown {
  return error instanceof Refused ? new RefusedCell(column.name, error.message) : error;
}
