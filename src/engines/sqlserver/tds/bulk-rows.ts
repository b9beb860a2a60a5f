/** The message of a bulk load: COLMETADATA, a ROW token for each row, DONE (MS-TDS 2.2.6.1). */
import type { Cell, RowBatch } from '../../../model/changes.ts';
import { Refused, RowBuffer } from './bulk-buffer.ts';
import type { BulkColumn } from './bulk-columns.ts';

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

  constructor(column: string, reason: string) {
    super(reason);
    this.column = column;
  }
}

export class RowEncoder {
  readonly #columns: readonly BulkColumn[];
  readonly out = new RowBuffer();
  rows = 0;

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

  #write(column: BulkColumn, cell: Cell): void {
    if (cell === null) {
      if (!column.nullable) throw new RefusedCell(column.name, 'it is NULL, which the column is not');
      this.out.append(column.null);
      return;
    }
    try {
      column.write(this.out, cell);
    } catch (error) {
      if (error instanceof Refused) throw new RefusedCell(column.name, error.message);
      throw error;
    }
  }
}
