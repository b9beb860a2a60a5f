/**
 * A SQL Server for a whole test run: the one that TEST_SQLSERVER_URL names, else a private Babelfish, where one is installed
 * (BABELFISH_HOME, or PostgreSQL's default prefix) and the CDC stand-in lies beside the project (CDC_STANDIN, or ../shared/cdc-standin).
 * Without either, `requireSqlServer` skips the suite and says why.
 */
import './loaded-once.ts';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Context } from 'mocha';
import { Connection } from '../../src/engines/sqlserver/connection.ts';
import type { Parameters, Row } from '../../src/engines/sqlserver/connection.ts';
import { quoteIdentifier, quoteLiteral } from '../../src/engines/sqlserver/sql.ts';
import { PATIENCE } from './patience.ts';
import { skip } from './skip.ts';

const root = path.resolve(import.meta.dirname, '../..');
const standIn = process.env['CDC_STANDIN'] ?? path.join(root, '..', 'shared', 'cdc-standin');

export interface SqlServerUnderTest {
  /** A URL without a database. */
  readonly url: string;
  readonly kind: 'sqlserver' | 'babelfish';
  /** The PostgreSQL behind a Babelfish, for the stand-in's controls. */
  readonly pgUrl: string | null;
}

interface StandIn {
  readonly startBabelfish: (options?: { settings?: Record<string, string> }) => Promise<{
    tdsUrl: string;
    pgUrl: string;
    pid: number;
    stop(): Promise<void>;
  }>;
  readonly hasBabelfish: () => boolean;
}

export interface CaptureJob {
  readonly ready: Promise<void>;
  poll(): Promise<number>;
  stop(): Promise<void>;
}

interface Installer {
  readonly startCaptureJob: (options: {
    pg: string;
    intervalMs?: number;
    dummyEvery?: number;
    databases?: string[];
    cleanupEveryMs?: number;
  }) => CaptureJob;
}

let started: Promise<{ server: SqlServerUnderTest; stop(): Promise<void> } | string> | null = null;

/** The server, or the reason why there is none. */
async function find(): Promise<{ server: SqlServerUnderTest; stop(): Promise<void> } | string> {
  const given = process.env['TEST_SQLSERVER_URL'];
  if (given) {
    const pgUrl = process.env['TEST_SQLSERVER_PG_URL'] ?? null;
    return {
      server: { url: given, kind: pgUrl === null ? 'sqlserver' : 'babelfish', pgUrl },
      stop: () => Promise.resolve(),
    };
  }
  if (!existsSync(path.join(standIn, 'babelfish.mjs')))
    return 'no SQL Server: TEST_SQLSERVER_URL is not set, and no CDC stand-in for a Babelfish was found (CDC_STANDIN)';
  process.env['CDC_STANDIN_MODULES'] ??= path.join(root, 'node_modules');
  const { startBabelfish, hasBabelfish } = (await import(
    pathToFileURL(path.join(standIn, 'babelfish.mjs')).href
  )) as StandIn;
  if (!hasBabelfish())
    return 'no SQL Server: TEST_SQLSERVER_URL is not set, and no Babelfish is installed (BABELFISH_HOME)';
  const server = await startBabelfish();
  return {
    server: { url: `${server.tdsUrl}?encrypt=false`, kind: 'babelfish', pgUrl: server.pgUrl },
    stop: async () => {
      // At once: a shutdown that writes everything takes seconds, and nothing of it is kept.
      try {
        process.kill(server.pid, 'SIGQUIT');
      } finally {
        await server.stop();
      }
    },
  };
}

/** The run's server, or the reason why there is none. */
export async function findSqlServer(): Promise<SqlServerUnderTest | string> {
  started ??= find();
  const found = await started;
  return typeof found === 'string' ? found : found.server;
}

/** To be called in a `before` hook: skips its tests where there is no server. */
export async function requireSqlServer(context: Context): Promise<SqlServerUnderTest> {
  const own = context.timeout();
  // Of a hook that asks for more time, no less.
  if (own > 0) context.timeout(Math.max(own, 120_000 * PATIENCE));
  const found = await findSqlServer();
  return typeof found === 'string' ? skip(context, found) : found;
}

/** Called once at the end of the run (root hook in `hooks.ts`). */
export async function stopSqlServer(): Promise<void> {
  const found = started === null ? null : await started.catch(() => null);
  if (found !== null && typeof found !== 'string') await found.stop();
  started = null;
}

export interface SqlServerTestDatabase {
  readonly server: SqlServerUnderTest;
  readonly name: string;
  readonly url: string;
  /** Runs one batch on a pooled session. */
  query(sql: string, parameters?: Parameters): Promise<Row[]>;
  readonly connection: Connection;
  /** Turns CDC on for the database and starts the capture job, where the server has no agent of its own. */
  enableCdc(): Promise<void>;
  /** Captures `schema.table` with what it has now. */
  captureTable(schema: string, table: string, options?: { instance?: string }): Promise<void>;
  /** The capture job of a stand-in, once CDC is enabled; null on a real server. */
  job(): CaptureJob | null;
  drop(): Promise<void>;
}

/** A new empty database with a random name. */
export async function createSqlServerDatabase(
  server: SqlServerUnderTest,
  prefix = 't',
): Promise<SqlServerTestDatabase> {
  const name = `${prefix}_${randomBytes(4).toString('hex')}`;
  const open = (database: string) =>
    new Connection({
      connectionString: server.url,
      database,
      installation: { uid: 'test' },
      applicationName: 'sluice tests',
    });
  const master = open('master');
  await master.query('create a test database', `CREATE DATABASE ${quoteIdentifier(name)}`);
  const connection = open(name);
  let job: CaptureJob | null = null;
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  return {
    server,
    name,
    url: url.toString(),
    connection,
    query: (sql, parameters) => connection.query('run a test’s statement', sql, parameters),
    enableCdc: async () => {
      await connection.query('enable CDC', 'EXEC sys.sp_cdc_enable_db');
      if (server.pgUrl === null) return;
      const { startCaptureJob } = (await import(pathToFileURL(path.join(standIn, 'install.mjs')).href)) as Installer;
      job = startCaptureJob({ pg: server.pgUrl, intervalMs: 100, dummyEvery: 10, databases: [name] });
      await job.ready;
    },
    captureTable: async (schema, table, options = {}) => {
      const instance = options.instance === undefined ? '' : `, @capture_instance = ${quoteLiteral(options.instance)}`;
      await connection.query(
        'capture a table',
        `EXEC sys.sp_cdc_enable_table @source_schema = ${quoteLiteral(schema)}, @source_name = ${quoteLiteral(table)}, @role_name = NULL${instance}`,
      );
    },
    job: () => job,
    drop: async () => {
      await job?.stop();
      await connection.close();
      // WITH ROLLBACK IMMEDIATE is SQL Server's only: a stand-in has nobody left in there by now.
      await master
        .query(
          'drop a test database',
          server.kind === 'sqlserver'
            ? `ALTER DATABASE ${quoteIdentifier(name)} SET SINGLE_USER WITH ROLLBACK IMMEDIATE; DROP DATABASE ${quoteIdentifier(name)}`
            : `DROP DATABASE ${quoteIdentifier(name)}`,
        )
        .catch(() => undefined);
      await master.close();
    },
  };
}
