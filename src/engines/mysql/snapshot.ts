/**
 * Full copies from MySQL and MariaDB: chunks by ranges of the key, each one SELECT in a short read-only transaction (its snapshot keeps
 * old row versions from being purged). Nothing is locked but the table's definition: writers never wait (F44), and SELECT is all that the login needs.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table } from '../../model/tables.ts';
import type { Cell, RowBatch } from '../../model/changes.ts';
import type { Chunk, ChunkPlan, RowStream, SnapshotSource } from '../contract.ts';
import { atSource, columnsOf } from '../source-table.ts';
import { describeTables } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { fetchByKey } from './fetch.ts';
import { binaryLogOf } from './binlog/log-of-server.ts';
import { bindBounds, boundsCondition, forceIndex, layoutOf, planRanges, readBounds, type Bounds } from './ranges.ts';
import { readColumns, readRows } from './rows.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { selectExpression } from './types.ts';

/** How long the table's definition may be locked by somebody else, s. */
const LOCK_SECONDS = 60;

export class MysqlSnapshot implements SnapshotSource {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  lanes(): readonly string[] {
    return [];
  }

  planChunks(table: Table, options: { targetBytes: number }): Promise<ChunkPlan> {
    return this.#connection
      .use((session) => planRanges(session, table, this.#connection.database, options.targetBytes))
      .catch((error: unknown) => {
        throw atSource(error, table);
      });
  }

  async readChunk(
    table: Table,
    layout: string,
    chunk: Chunk,
    columns: readonly string[],
    lane: string,
  ): Promise<RowStream> {
    if (lane !== 'cells') throw new SluiceError('INTERNAL', `unknown lane ${lane}`);
    const bounds = readBounds(table, layout, chunk);
    const chosen = columnsOf(table, columns);
    const session = await this.#connection.open();
    try {
      await session.run(`read a chunk of ${displayName(table.name)}`, [
        `SET SESSION lock_wait_timeout = ${LOCK_SECONDS}`,
        'START TRANSACTION READ ONLY',
      ]);
      await this.#checkLayout(session, table, layout);
      await bindBounds(session, bounds);
    } catch (error) {
      await this.#connection.release(session);
      throw atSource(error, table);
    }
    return { format: 'cells', batches: this.#chunk(session, table, layout, bounds, chosen) };
  }

  /** Nothing is read before the first batch is asked for; a generator that has not begun still has its session ended by `return`. */
  #chunk(
    session: Session,
    table: Table,
    layout: string,
    bounds: Bounds,
    columns: readonly Column[],
  ): AsyncIterable<RowBatch> {
    const release = () => this.#connection.release(session);
    const rows = this.#rows(session, table, layout, bounds, columns);
    const iterator: AsyncIterator<RowBatch> = {
      next: async () => {
        try {
          const next = await rows.next();
          if (next.done) await release();
          return next;
        } catch (error) {
          await release();
          throw atSource(error, table);
        }
      },
      return: async () => {
        session.destroy();
        await release();
        await rows.return();
        return { done: true, value: undefined };
      },
    };
    return { [Symbol.asyncIterator]: () => iterator };
  }

  async *#rows(
    session: Session,
    table: Table,
    layout: string,
    bounds: Bounds,
    columns: readonly Column[],
  ): AsyncGenerator<RowBatch, void, void> {
    const doing = `read a chunk of ${displayName(table.name)}`;
    yield* readRows(session, doing, selectSql(table, columns, bounds), readColumns(columns));
    // The transaction still holds the table's definition: what is seen now is what was read.
    await this.#checkLayout(session, table, layout);
    await session.run(doing, ['COMMIT']);
  }

  async #checkLayout(session: Session, table: Table, layout: string): Promise<void> {
    const [now] = await describeTables(session, [table.name], this.#connection.database);
    if (!now) throw new SluiceError('SOURCE_TABLE_MISSING', `${displayName(table.name)} no longer exists`);
    if (layoutOf(now) !== layout)
      throw new SluiceError('COPY_RESTARTED', `the key of ${displayName(table.name)} was changed during the copy`);
  }

  async *readWhole(
    table: Table,
    plan: ChunkPlan,
    columns: readonly string[],
    lane: string,
  ): AsyncGenerator<{ chunk: Chunk; rows: RowStream }, void, void> {
    if (lane !== 'cells') throw new SluiceError('INTERNAL', `unknown lane ${lane}`);
    const doing = `read ${displayName(table.name)}`;
    const chosen = columnsOf(table, columns);
    const session = await this.#connection.open();
    try {
      await session.run(doing, [
        `SET SESSION lock_wait_timeout = ${LOCK_SECONDS}`,
        'START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY',
      ]);
      for (const chunk of plan.chunks) {
        const bounds = readBounds(table, plan.layout, chunk);
        await bindBounds(session, bounds);
        let isEnded = false;
        const batches = async function* () {
          try {
            yield* readRows(session, doing, selectSql(table, chosen, bounds), readColumns(chosen));
            isEnded = true;
          } catch (error) {
            throw atSource(error, table);
          }
        };
        yield { chunk, rows: { format: 'cells', batches: batches() } };
        if (!isEnded) throw new SluiceError('CANCELLED', `${doing}: chunk ${chunk.id} was not read to its end`);
      }
      await this.#checkLayout(session, table, plan.layout);
      await session.run(doing, ['COMMIT']);
      await this.#connection.release(session);
    } catch (error) {
      throw atSource(error, table);
    } finally {
      session.destroy();
    }
  }

  /** `visibility`: tokens of the decoder. */
  async fetchRows(
    table: Table,
    columns: readonly string[],
    keyColumns: readonly string[],
    keys: readonly (readonly Cell[])[],
    visibility: readonly string[],
  ): Promise<RowBatch> {
    const request = { table, columns: columnsOf(table, columns), key: columnsOf(table, keyColumns), keys };
    const doing = `fetch rows of ${displayName(table.name)} by key`;
    return this.#connection
      .use(async (session) => {
        if (visibility.length === 0) return fetchByKey(session, request);
        await binaryLogOf(session).beginBehind(session, visibility, doing);
        const batch = await fetchByKey(session, request);
        await session.run(doing, ['COMMIT']);
        return batch;
      })
      .catch((error: unknown) => {
        throw atSource(error, table);
      });
  }
}

function selectSql(table: Table, columns: readonly Column[], bounds: Bounds): string {
  const condition = boundsCondition(table, bounds);
  const list = columns.map((column) => selectExpression(column.nativeType, quoteIdentifier(column.name))).join(', ');
  // Without bounds the table's own order is the quickest.
  const from = `${quoteTable(table.name)}${condition === '' ? '' : forceIndex(table)}`;
  return `SELECT ${list === '' ? '1' : list} FROM ${from}${condition}`;
}
