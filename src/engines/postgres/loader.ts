/** Bulk loading by COPY FROM STDIN: the byte lanes as they are, 'cells' as COPY text. */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table, type TableName } from '../../model/tables.ts';
import type { RowBatch } from '../../model/changes.ts';
import type { UpsertImages } from '../../model/keyed-changes.ts';
import type { RowStream } from '../contract.ts';
import { CopyTextEncoder } from './copy-format.ts';
import { copyIn, type CopyIn } from './copy-protocol.ts';
import type { Session } from './connection.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { copyLanes, laneFormat } from './types.ts';

/** A column to load into: its name there, and its type, which says whether cells are text or raw bytes. */
export type LoadColumn = Pick<Column, 'name' | 'type'>;

/**
 * Byte lanes for `columns` of `table` in this order, best first; the same for reading and loading, because a lane's name says
 * all that its bytes depend on (`copyLanes`). None when a column is not the table's.
 */
export function lanesOf(table: Table, columns: readonly string[]): readonly string[] {
  const byName = new Map(table.columns.map((column) => [column.name, column]));
  const chosen = columns.flatMap((name) => byName.get(name) ?? []);
  return chosen.length === columns.length && chosen.length > 0 ? copyLanes(chosen) : [];
}

/**
 * Loads rows in the session's open transaction (or one of its own); resolves to their number. `columns` are in the order of
 * the stream's columns. On an error nothing of this call remains and an open transaction is aborted; the stream is cancelled.
 * Throws ROW_REFUSED for a value that the table does not take, and what the stream throws. `before`: a statement that goes first,
 * in the same message.
 */
export async function loadRows(
  session: Session,
  table: TableName,
  columns: readonly LoadColumn[],
  rows: RowStream,
  before: string | null = null,
): Promise<number> {
  const doing = `load rows into ${displayName(table)}`;
  const source = frames(rows, columns)[Symbol.asyncIterator]();
  let copy: CopyIn | null = null;
  let exhausted = false;
  try {
    const format = 'batches' in rows ? 'text' : laneFormat(rows.format);
    if (format === null) throw new SluiceError('INTERNAL', `could not ${doing}: unknown lane ${rows.format}`);
    const list = columns.map((column) => quoteIdentifier(column.name)).join(', ');
    const sql = `COPY ${quoteTable(table)} (${list}) FROM STDIN (FORMAT ${format})`;
    copy = await copyIn(session, before === null ? sql : `${before}; ${sql}`, doing);
    for (;;) {
      const next = await source.next();
      if (next.done) break;
      await copy.write(next.value);
    }
    exhausted = true;
    return await copy.end();
  } catch (error) {
    await copy?.fail();
    throw error;
  } finally {
    // Also when COPY never began: a stream that nobody reads would keep its session and its transaction.
    if (!exhausted) await source.return?.();
  }
}

function frames(rows: RowStream, columns: readonly LoadColumn[]): AsyncIterable<Uint8Array> {
  if (!('batches' in rows)) return rows.bytes;
  return encodeCells(
    rows.batches,
    columns.map((column) => column.type.kind === 'bytes'),
  );
}

/** Row batches as CopyData messages of COPY text. Cancelling it cancels `batches`, begun or not. */
function encodeCells(batches: AsyncIterable<RowBatch>, binary: readonly boolean[]): AsyncIterable<Uint8Array> {
  return {
    [Symbol.asyncIterator]: () => {
      const source = batches[Symbol.asyncIterator]();
      const encoded = encodeFrom(source, binary);
      return {
        next: () => encoded.next(),
        return: async () => {
          await source.return?.();
          await encoded.return();
          return { done: true, value: undefined };
        },
      };
    },
  };
}

async function* encodeFrom(
  source: AsyncIterator<RowBatch>,
  binary: readonly boolean[],
): AsyncGenerator<Uint8Array, void, void> {
  const encoder = new CopyTextEncoder(binary);
  for (;;) {
    const next = await source.next();
    if (next.done) break;
    yield* encoder.encode(next.value);
  }
  const last = encoder.flush();
  if (last) yield last;
}

/** Rows `first` to before `end` as they came, as the messages of COPY's text. */
export async function* imageFrames(
  images: UpsertImages,
  first: number,
  end: number,
): AsyncGenerator<Buffer, void, void> {
  // None of the columns is of bytes, which text has in hex.
  const encoder = new CopyTextEncoder(images.columns.map(() => false));
  yield* encoder.encodeImages(images, first, end);
  const last = encoder.flush();
  if (last) yield last;
}
