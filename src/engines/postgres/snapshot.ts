/**
 * Full copies from PostgreSQL: chunks of pages read by COPY, each in a short transaction (a long one would stop vacuum from
 * cleaning up, F44). The locks taken are ACCESS SHARE: writers never wait.
 */
import { SluiceError, hasCode } from '../../model/errors.ts';
import { displayName, type Column, type Table } from '../../model/tables.ts';
import type { Cell, RowBatch } from '../../model/changes.ts';
import type { Chunk, ChunkPlan, RowStream, SnapshotSource } from '../contract.ts';
import { decodeCopyText } from './copy-format.ts';
import { atSource, columnsOf } from '../source-table.ts';
import { startCopyOut } from './copy-out.ts';
import type { Connection, Session } from './connection.ts';
import { fetchByKey } from './fetch.ts';
import { lanesOf } from './loader.ts';
import { chunkCondition, checkLayout, lockLayout, planLeaves, readBounds, resolveLeaf, type Bounds } from './pages.ts';
import { quoteIdentifier } from './sql.ts';
import { laneFormat } from './types.ts';

/** How often a lock on the source's table is asked for before TIMEOUT; each time waits `LOCK_TIMEOUT`. */
const LOCK_ATTEMPTS = 20;
const LOCK_TIMEOUT = '3s';
const LOCK_PAUSE_MS = 1000;

export class PostgresSnapshot implements SnapshotSource {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  lanes(table: Table, columns: readonly string[]): readonly string[] {
    return lanesOf(table, columns);
  }

  /** Chunks by ctid page ranges of each leaf. Throws SOURCE_TABLE_MISSING when the table is gone. */
  async planChunks(table: Table, options: { targetBytes: number }): Promise<ChunkPlan> {
    return this.#connection.use((session) => planLeaves(session, table, options.targetBytes));
  }

  async readChunk(
    table: Table,
    layout: string,
    chunk: Chunk,
    columns: readonly string[],
    lane: string,
  ): Promise<RowStream> {
    const bounds = readBounds(table, layout, chunk);
    const chosen = columnsOf(table, columns);
    const session = await this.#connection.take();
    let isWhole = false;
    try {
      const messages = await this.#begin(session, table, bounds, chosen, lane);
      const finish = async () => {
        // The lock of the COPY is still held, so what is seen now is what it read.
        await checkLayout(session, table, bounds);
        await session.query(`finish a chunk of ${displayName(table.name)}`, 'COMMIT');
        isWhole = true;
      };
      const release = () => (isWhole ? this.#connection.giveBack(session) : this.#connection.release(session));
      return rowStream(lane, chosen, cancellable(messages, finish, release, session));
    } catch (error) {
      await this.#connection.release(session);
      throw error;
    }
  }

  /** Begins the chunk's transaction and COPY. A table that somebody holds exclusively is asked for again, never queued for long. */
  async #begin(
    session: Session,
    table: Table,
    bounds: Bounds,
    columns: readonly Column[],
    lane: string,
  ): Promise<AsyncIterable<Buffer>> {
    const doing = `read a chunk of ${displayName(table.name)}`;
    for (let attempt = 1; ; attempt++) {
      try {
        await session.query(doing, `BEGIN READ ONLY; SET LOCAL lock_timeout = '${LOCK_TIMEOUT}'`);
        const leaf = await resolveLeaf(session, table, bounds);
        const sql = copySql(columns, leaf, chunkCondition(bounds), lane);
        return (await startCopyOut(session, doing, sql)).data;
      } catch (error) {
        if (!hasCode(error, 'TIMEOUT') || session.lost || attempt >= LOCK_ATTEMPTS) throw atSource(error, table);
        await session.query(doing, 'ROLLBACK');
        await new Promise((resolve) => setTimeout(resolve, LOCK_PAUSE_MS));
      }
    }
  }

  /**
   * All chunks in one REPEATABLE READ snapshot. The locks come before the snapshot: a table rewritten between the two would
   * look empty to it. Each chunk's rows must be read to their end before the next is asked for.
   */
  async *readWhole(
    table: Table,
    plan: ChunkPlan,
    columns: readonly string[],
    lane: string,
  ): AsyncGenerator<{ chunk: Chunk; rows: RowStream }, void, void> {
    const chosen = columnsOf(table, columns);
    const all = plan.chunks.map((chunk) => ({ chunk, bounds: readBounds(table, plan.layout, chunk) }));
    const doing = `read ${displayName(table.name)}`;
    const session = await this.#connection.open();
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          await session.query(
            doing,
            `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '${LOCK_TIMEOUT}'`,
          );
          await lockLayout(session, table, plan.layout);
          break;
        } catch (error) {
          if (!hasCode(error, 'TIMEOUT') || session.lost || attempt >= LOCK_ATTEMPTS) throw atSource(error, table);
          await session.query(doing, 'ROLLBACK');
          await new Promise((resolve) => setTimeout(resolve, LOCK_PAUSE_MS));
        }
      }
      for (const { chunk, bounds } of all) {
        const leaf = await resolveLeaf(session, table, bounds);
        const started = await startCopyOut(session, doing, copySql(chosen, leaf, chunkCondition(bounds), lane));
        let ended = false;
        const finish = async () => {
          ended = true;
          await checkLayout(session, table, bounds);
        };
        yield { chunk, rows: rowStream(lane, chosen, cancellable(started.data, finish, null, session)) };
        if (!ended) throw new SluiceError('CANCELLED', `${doing}: chunk ${chunk.id} was not read to its end`);
      }
      await session.query(doing, 'COMMIT');
      await this.#connection.release(session);
    } finally {
      session.destroy();
    }
  }

  async fetchRows(
    table: Table,
    columns: readonly string[],
    keyColumns: readonly string[],
    keys: readonly (readonly Cell[])[],
    visibility: readonly string[],
  ): Promise<RowBatch> {
    const request = { table, columns: columnsOf(table, columns), key: columnsOf(table, keyColumns), keys, visibility };
    return this.#connection
      .use((session) => fetchByKey(session, request))
      .catch((error: unknown) => {
        throw atSource(error, table);
      });
  }
}

function copySql(columns: readonly Column[], from: string, condition: string, lane: string): string {
  const format = lane === 'cells' ? 'text' : laneFormat(lane);
  if (format === null) throw new SluiceError('INTERNAL', `unknown lane ${lane}`);
  const list = columns.map((column) => quoteIdentifier(column.name)).join(', ');
  return `COPY (SELECT ${list} FROM ${from}${condition}) TO STDOUT (FORMAT ${format})`;
}

function rowStream(lane: string, columns: readonly Column[], messages: AsyncIterable<Buffer>): RowStream {
  if (lane !== 'cells') return { format: lane, bytes: messages };
  const names = columns.map((column) => column.name);
  const binary = columns.map((column) => column.type.kind === 'bytes');
  return {
    format: 'cells',
    batches: {
      [Symbol.asyncIterator]: () => {
        const source = messages[Symbol.asyncIterator]();
        const decoded = decodeCopyText({ [Symbol.asyncIterator]: () => source }, names, binary);
        return {
          next: () => decoded.next(),
          // A generator that has not begun does not pass `return` on.
          return: async () => {
            await source.return?.();
            await decoded.return();
            return { done: true, value: undefined };
          },
        };
      },
    },
  };
}

/**
 * The messages with an end: `finish` runs after the last one and may throw; `release` once, however it ends. Cancelling,
 * also before the first message, destroys the session (a COPY TO cannot be called off politely).
 */
function cancellable(
  messages: AsyncIterable<Buffer>,
  finish: () => Promise<void>,
  release: (() => Promise<void>) | null,
  session: Session,
): AsyncIterable<Buffer> {
  const source = messages[Symbol.asyncIterator]();
  let over = false;
  const end = async () => {
    if (over) return;
    over = true;
    await release?.();
  };
  return {
    [Symbol.asyncIterator]: () => ({
      next: async () => {
        if (over) return { done: true, value: undefined };
        try {
          const next = await source.next();
          if (!next.done) return next;
          await finish();
        } catch (error) {
          await end();
          throw error;
        }
        await end();
        return { done: true, value: undefined };
      },
      return: async () => {
        if (!over) {
          session.destroy();
          await end();
        }
        return { done: true, value: undefined };
      },
    }),
  };
}
