/**
 * Full copies from SQL Server: ranges of the clustered key, each read by one statement in a short transaction. SNAPSHOT isolation where
 * the database allows it: writers and readers never wait for each other (F44). Elsewhere READ COMMITTED: rows are locked for as
 * long as it takes to send them, and what moves meanwhile is a change behind the position that the copy began with, so that the
 * fold puts it right (PROTOCOL, A copy).
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table } from '../../model/tables.ts';
import type { Cell, RowBatch } from '../../model/changes.ts';
import type { Chunk, ChunkPlan, RowStream, SnapshotSource } from '../contract.ts';
import { atSource, columnsOf } from '../source-table.ts';
import type { Connection, Session } from './connection.ts';
import { errorNumber } from './errors.ts';
import { fetchByKey } from './fetch.ts';
import { moved, objectIdSql, planRanges, rangeOf, type Range } from './ranges.ts';
import { readRows } from './rows.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { selectExpression } from './types.ts';

/** For a row that somebody keeps locked; the copy's job tries the chunk again later. */
const LOCK_TIMEOUT_MS = 60_000;
/** "The table was changed by DDL under SNAPSHOT isolation." */
const CHANGED_UNDER_SNAPSHOT = 3961;
/** The session is one of the kept ones, so that it is given back as it was. */
const END = 'COMMIT TRANSACTION; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCK_TIMEOUT -1';

export class SqlServerSnapshot implements SnapshotSource {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  lanes(): readonly string[] {
    return [];
  }

  planChunks(table: Table, options: { targetBytes: number }): Promise<ChunkPlan> {
    return this.#connection
      .use((session) => planRanges(session, table, options.targetBytes))
      .catch((error: unknown) => {
        throw readFailure(error, table);
      });
  }

  /** The session is one of the kept ones; it is given back when the rows have been read. */
  readChunk(table: Table, layout: string, chunk: Chunk, columns: readonly string[], lane: string): Promise<RowStream> {
    const range = rangeOf(table, layout, chunk);
    const chosen = columnsOf(table, columns);
    checkLane(lane);
    const open = async (session: Session) => {
      const begin = `${await isolation(session)}; SET LOCK_TIMEOUT ${LOCK_TIMEOUT_MS}; BEGIN TRANSACTION;`;
      return readRange(session, table, range, chosen, { begin, end: END });
    };
    return Promise.resolve({ format: 'cells', batches: borrowing(this.#connection, open, table) });
  }

  /**
   * In one SNAPSHOT transaction where that is allowed. Elsewhere all rows are read by one statement, as the first chunk's, and the
   * others are empty: under READ_COMMITTED_SNAPSHOT a statement is a snapshot, and without it one scan is the nearest there is.
   */
  async *readWhole(
    table: Table,
    plan: ChunkPlan,
    columns: readonly string[],
    lane: string,
  ): AsyncGenerator<{ chunk: Chunk; rows: RowStream }, void, void> {
    checkLane(lane);
    const chosen = columnsOf(table, columns);
    const session = await this.#connection.take();
    let isDone = false;
    try {
      const level = await isolation(session);
      const whole = !level.endsWith('SNAPSHOT');
      await session.run(`read ${displayName(table.name)}`, [level, 'BEGIN TRANSACTION']);
      for (const [i, chunk] of plan.chunks.entries()) {
        let ended = whole && i > 0;
        const range = rangeOf(table, plan.layout, whole ? null : chunk);
        const batches = ended
          ? none()
          : untilEnd(readRange(session, table, range, chosen, { begin: '', end: '' }), table, () => (ended = true));
        yield { chunk, rows: { format: 'cells', batches } };
        if (!ended)
          throw new SluiceError('CANCELLED', `${displayName(table.name)}: chunk ${chunk.id} was not read to its end`);
      }
      await session.run('finish a copy', ['COMMIT TRANSACTION']);
      isDone = true;
    } finally {
      if (isDone) await this.#connection.giveBack(session);
      else session.destroy();
    }
  }

  /** No `visibility` is needed: rows are read under locks, which a transaction keeps until everybody sees it. */
  fetchRows(
    table: Table,
    columns: readonly string[],
    keyColumns: readonly string[],
    keys: readonly (readonly Cell[])[],
  ): Promise<RowBatch> {
    const request = { table, columns: columnsOf(table, columns), key: columnsOf(table, keyColumns), keys };
    return this.#connection
      .use((session) => fetchByKey(session, request))
      .catch((error: unknown) => {
        throw readFailure(error, table);
      });
  }
}

/** Asked each time: an administrator may change it. */
async function isolation(session: Session): Promise<string> {
  const [row] = await session.query(
    'ask for the isolation level',
    `SELECT snapshot_isolation_state AS state FROM sys.databases WHERE database_id = DB_ID()`,
  );
  return `SET TRANSACTION ISOLATION LEVEL ${Number(row?.['state']) === 1 ? 'SNAPSHOT' : 'READ COMMITTED'}`;
}

/**
 * Which object the name meant, when the rows have been read, is the last row of the answer: a table that was replaced by another
 * under its name is noticed within the transaction.
 */
async function* readRange(
  session: Session,
  table: Table,
  range: Range,
  columns: readonly Column[],
  around: { begin: string; end: string },
): AsyncGenerator<RowBatch, void, void> {
  const names = columns.map((column) => column.name);
  // Aliases, because a stand-in miscounts names beyond ASCII. Rows of no columns are counted by one.
  const list = columns.map(
    (column, i) => `${selectExpression(column.nativeType, quoteIdentifier(column.name))} AS c${i}`,
  );
  const sql = `${around.begin}
    SELECT ${list.length === 0 ? '1 AS c0' : list.join(', ')} FROM ${quoteTable(table.name)}${range.condition};
    SELECT ${objectIdSql(table)} AS id; ${around.end}`;
  const doing = `read a chunk of ${displayName(table.name)}`;
  let id: Cell | undefined;
  for await (const { result, rows, cells } of readRows(session, doing, sql, { parameters: range.parameters })) {
    if (result === 0) yield { columns: names, rows, cells: list.length === 0 ? [] : cells };
    else id = cells[0];
  }
  if (id !== range.id) throw moved(table);
}

/** Runs `open` on a kept session when the first batch is asked for. Cancelling, also before that, leaves nothing open. */
function borrowing(
  connection: Connection,
  open: (session: Session) => Promise<AsyncGenerator<RowBatch, void, void>>,
  table: Table,
): AsyncIterable<RowBatch> {
  return {
    [Symbol.asyncIterator]: async function* () {
      let release: () => void = () => undefined;
      let fail: (error: unknown) => void = () => undefined;
      const over = new Promise<void>((resolve, reject) => {
        release = resolve;
        fail = reject;
      });
      const session = await new Promise<Session>((resolve, reject) => {
        connection
          .use((given) => {
            resolve(given);
            return over;
          })
          .catch(reject);
      });
      let failure: unknown = new SluiceError('CANCELLED', 'the rows were not read to their end');
      try {
        yield* await open(session);
        failure = null;
      } catch (error) {
        failure = readFailure(error, table);
        throw failure;
      } finally {
        if (failure === null) release();
        else fail(failure);
      }
    },
  };
}

async function* untilEnd(
  batches: AsyncGenerator<RowBatch, void, void>,
  table: Table,
  ended: () => void,
): AsyncGenerator<RowBatch, void, void> {
  try {
    yield* batches;
    ended();
  } catch (error) {
    throw readFailure(error, table);
  }
}

async function* none(): AsyncGenerator<RowBatch, void, void> {
  // No rows.
}

function checkLane(lane: string): void {
  if (lane !== 'cells') throw new SluiceError('INTERNAL', `unknown lane ${lane}`);
}

/** As the source's: also a table that DDL changed under the snapshot. */
function readFailure(error: unknown, table: Table): unknown {
  return errorNumber(error) === CHANGED_UNDER_SNAPSHOT ? moved(table) : atSource(error, table);
}
