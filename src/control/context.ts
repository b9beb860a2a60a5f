/**
 * What every part of the control database shares: the query builder, the engine's dialect, and one way to turn a driver's
 * error into ours. The parts say *what* in knex; what differs between engines is asked of the dialect.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Knex } from 'knex';
import type { SluiceError } from '../model/errors.ts';
import type { Columns, Copy, Layout, OldTable } from './dataflow-layouts.ts';

/** MySQL finds more of them than others: an update locks the entries of its indexes one after the other. */
const DEADLOCK_ATTEMPTS = 10;

/** A pool or a transaction: both build queries. */
export type Queries = Knex;

/** Statements over that tool's tables, by the dialect of an engine that may hold them. */
export interface DataflowTables {
  readColumns(queries: Queries): Promise<Columns>;
  renameSql(from: string, to: string): string;
  /** Renames the old tables; what holds nothing and has a name of ours goes. */
  keep(queries: Queries, renamed: readonly { readonly from: string; readonly to: string }[]): Promise<void>;
  /** `called`: an old table's name by now. `settings`: names of ours. */
  copies(
    layout: Layout,
    columns: Columns,
    called: (table: OldTable) => string,
    settings: readonly string[],
  ): readonly Copy[];
  carry(queries: Queries, copy: Copy, from: string): Promise<void>;
  count(queries: Queries, table: string, where?: string): Promise<number>;
}

/** The little that cannot be said the same way on every engine that may hold the control tables. */
export interface ControlDialect {
  readonly name: string;
  /** URL schemes it answers for, without `://`. */
  readonly schemes: readonly string[];
  /** Connection strings that are no URLs, where the engine has them. */
  understands?(url: string): boolean;
  /** Where the tables of dbaops-dataflow may be. */
  readonly dataflow?: DataflowTables;
  /** Opens a pool on `database`; creates the database when it is missing and the login may. */
  open(options: ControlOptions): Promise<Knex>;
  /** A driver's error as ours; `doing` completes "could not …". Never throws, never repeats a secret or a bound value. */
  classify(thrown: unknown, doing: string): SluiceError;
  /** The statement lost a race for a unique index: somebody else made the row. */
  isDuplicate(thrown: unknown): boolean;
  /** The database's clock now, not the transaction's start. */
  now(queries: Queries): Knex.Raw;
  /** The database's clock plus `seconds`. */
  inSeconds(queries: Queries, seconds: number): Knex.Raw;
  /**
   * Runs `work` while nobody else migrates, in a transaction as far as the engine's DDL takes part in one (MySQL's does not: there
   * what `work` does must stand being done twice). The lock, and each lock of the migration, is waited for at most `seconds`; the
   * server frees it when we die.
   */
  migrateAlone<T>(queries: Queries, seconds: number, work: (queries: Queries) => Promise<T>): Promise<T>;
  /** The tables are there (some version of them). */
  hasSchema(queries: Queries): Promise<boolean>;
  /**
   * One value that changes when anything does that a poll acts upon: rows of servers, mappings and requests, and states.
   * Another for `config`. One round trip that transfers a few dozen bytes.
   */
  fingerprints(queries: Queries): Promise<{ plan: string; config: string; minReaderVersion: number }>;
  /**
   * Updates many rows of mapping_state in few statements: adds to totals, replaces the rest where given. Rows of unknown
   * mappings are left out.
   */
  addCounters(queries: Queries, rows: readonly CounterRow[]): Promise<void>;
  /**
   * The rows of `query`, each locked until the end of the transaction, as they are once whoever held them let go.
   * `column` is any of the table's that may be written; it keeps its value.
   */
  lockRows<T>(queries: Queries, query: Knex.QueryBuilder, column: string): Promise<T[]>;
  /** Updates the rows of `query`; resolves to how many it found, changed by it or not. `column` is any of the table's. */
  updateRows(query: Knex.QueryBuilder, change: Record<string, unknown>, column: string): Promise<number>;
  /** Inserts rows that all have the same columns, in statements as large as the engine takes. */
  insertRows(queries: Queries, table: string, rows: readonly Record<string, unknown>[]): Promise<void>;
  /** Copies what a person sees of the stream into `table_mappings`, where it differs. */
  refreshDisplay(queries: Queries): Promise<void>;
  /** Inserts those rows that `unique` does not hold yet, in few statements; resolves to how many were new. */
  insertMissing(
    queries: Queries,
    table: string,
    rows: readonly Record<string, unknown>[],
    unique: readonly string[],
  ): Promise<number>;
}

export interface ControlOptions {
  /** Where the control database lives, as DEST_URL says it; secrets already resolved. */
  readonly url: string;
  /** CONTROL_DATABASE; wins over the URL's. */
  readonly database: string;
  /** Shown to the DBA. */
  readonly applicationName?: string;
  /** Largest number of connections; default 4. */
  readonly maxConnections?: number;
  /** How long a connection attempt, or the wait for a free connection, may take; default 15 s. */
  readonly timeoutMs?: number;
  /**
   * A connection on which nothing arrives for this long is given up: a network that swallows packets would hold it for
   * a quarter of an hour. Default 60 s; 0: never (a migration may take its time).
   */
  readonly silenceMs?: number;
  /**
   * How long a statement waits for a row that somebody else holds, such as a person with an open transaction in a SQL
   * client; then TIMEOUT. Default 10 s.
   */
  readonly lockWaitMs?: number;
}

/** What a stream tells about one mapping since the last flush. Totals are increments. */
export interface CounterRow {
  readonly mappingUid: string;
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
  readonly failed: number;
  /** For display. Absent or null: as before. */
  readonly position?: string | null;
  readonly displayLsn?: Uint8Array | null;
  /** When the newest applied transaction committed at the source, ms since 1970. */
  readonly lastCommitAt?: number | null;
  readonly lagSeconds?: number | null;
}

export class ControlContext {
  readonly knex: Knex;
  readonly dialect: ControlDialect;

  constructor(knex: Knex, dialect: ControlDialect) {
    this.knex = knex;
    this.dialect = dialect;
  }

  /**
   * Runs `work`; rejects with SluiceError only. The victim of a deadlock has written nothing (or, outside of a
   * transaction, what may be written again): it is run again, a few times.
   */
  async run<T>(doing: string, work: (queries: Queries) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work(this.knex);
      } catch (error) {
        const classified = this.dialect.classify(error, doing);
        if (classified.code !== 'DEADLOCK' || attempt === DEADLOCK_ATTEMPTS) throw classified;
        await pause(Math.random() * 50 * attempt);
      }
    }
  }

  /** Runs `work` in a transaction of its own; rolled back when it throws. */
  transaction<T>(doing: string, work: (queries: Queries) => Promise<T>): Promise<T> {
    return this.run(doing, (queries) => queries.transaction((transaction) => work(transaction)));
  }

  now(queries: Queries = this.knex): Knex.Raw {
    return this.dialect.now(queries);
  }
}

/** The id of an inserted row: engines with RETURNING give a row, MySQL gives the number. */
export function insertedId(result: unknown, column: string): number {
  const first: unknown = Array.isArray(result) ? result[0] : result;
  const value = typeof first === 'object' && first !== null ? (first as Record<string, unknown>)[column] : first;
  const id = Number(value);
  if (!Number.isSafeInteger(id)) throw new Error(`no ${column} came back from the insert`);
  return id;
}
