/**
 * The servers a control database may live on, as the suites of this folder see them: PostgreSQL always, the others where there
 * are some. What a test says in SQL is the same text on all of them, but for the few fragments named here.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { Connection, type Parameters } from '../../src/engines/sqlserver/connection.ts';
import { createDatabase, testServer } from '../support/postgres.ts';
import {
  createSqlServerDatabase,
  requireSqlServer,
  type SqlServerTestDatabase,
  type SqlServerUnderTest,
} from '../support/sqlserver.ts';
import { MARIADB, MYSQL } from './mysql-server.ts';
import { schemaFile, TABLES, type ControlServer } from './server.ts';

export type { ControlServer, ControlSession, ControlTestDatabase } from './server.ts';

const isLong = process.env['SLUICE_TEST_LONG'] !== undefined;

/** Runs a suite on each server. */
export function onControlServers(
  title: string,
  suite: (server: ControlServer) => void,
  servers: readonly ControlServer[] = isLong ? all() : [POSTGRES, SQLSERVER, MARIADB],
): void {
  for (const server of servers) {
    describe(`${title}, on ${server.name}`, () => {
      before(function () {
        return server.require(this);
      });
      suite(server);
    });
  }
}

const all = (): readonly ControlServer[] => [POSTGRES, SQLSERVER, MARIADB, MYSQL];

/** On MySQL itself besides: for suites whose statements it might take otherwise than MariaDB does. */
export function onAllControlServers(title: string, suite: (server: ControlServer) => void): void {
  onControlServers(title, suite, all());
}

export const POSTGRES: ControlServer = {
  name: 'PostgreSQL',
  require: () => Promise.resolve(),
  reuse: false,
  url: async () => (await testServer()).url('postgres'),
  createDatabase: async () => {
    const database = await createDatabase('control');
    const query = async <R>(sql: string, parameters?: unknown[]) =>
      (await database.query(sql, parameters)) as unknown as R[];
    return {
      name: database.name,
      url: database.url,
      query,
      connect: async () => {
        const client = await database.connect();
        return {
          query: async <R>(sql: string, parameters?: unknown[]) => (await client.query(sql, parameters)).rows as R[],
        };
      },
      runSchemaFile: async () => void (await database.query(schemaFile('postgres'))),
      drop: () => database.drop(),
    };
  },
  dropDatabase: (name) => onPostgres(`DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`),
  createLogin: (name, password) => onPostgres(`CREATE ROLE ${name} LOGIN PASSWORD '${password}'`),
  dropLogin: (name) => onPostgres(`DROP ROLE ${name}`),
  endSessions: (application) =>
    onPostgres(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '${application}'`),
  analyze: async (database) => void (await runPostgres((await testServer()).url(database), 'ANALYZE')),
  demandingTls: 'sslmode=require',
  time: async (database, sql) => explained(await database.query<Explained>(`${EXPLAIN} ${sql}`)),
  sql: {
    now: 'clock_timestamp()',
    shift: (expression, seconds) => `${expression} + (${seconds}) * interval '1 second'`,
    secondsUntil: (expression) => `extract(epoch FROM ${expression} - clock_timestamp())`,
    numbers: (from, to) => `generate_series(${from}, ${to}) AS numbers (n)`,
    writes: (table) => `SELECT string_agg(xmin::text, ',') AS w FROM ${table}`,
    createDatabase: (name) => `CREATE DATABASE "${name}"`,
    withIdentity: (_table, insert) => insert,
  },
};

async function onPostgres(sql: string): Promise<void> {
  await runPostgres((await testServer()).url('postgres'), sql);
}

const EXPLAIN = 'EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON)';

interface Explained {
  readonly 'QUERY PLAN': readonly [{ 'Execution Time': number; Plan: { 'Actual Rows': number } }];
}

function explained([plan]: readonly Explained[]): { ms: number; rows: number } {
  const top = plan?.['QUERY PLAN'][0];
  return { ms: top?.['Execution Time'] ?? Infinity, rows: top?.Plan['Actual Rows'] ?? 0 };
}

async function runPostgres(url: string, sql: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await client.query(sql);
  } finally {
    await client.end();
  }
}

let found: SqlServerUnderTest | null = null;

function sqlServer(): SqlServerUnderTest {
  if (found === null) throw new Error('the suite has not required SQL Server');
  return found;
}

/** TRUNCATE starts identities again, and is slow on a stand-in; what foreign keys refer to can be truncated only without them. */
const EMPTY = [
  ...TABLES.map((table) => `DELETE FROM ${table}`),
  'TRUNCATE TABLE table_mappings',
  ...[
    ['table_mappings_server_in_use', 'server_id', 'source_servers'],
    ['table_mappings_dest_server_in_use', 'dest_server_id', 'destination_servers'],
  ].flatMap(([key, column, servers]) => [
    `ALTER TABLE table_mappings DROP CONSTRAINT ${key}`,
    `TRUNCATE TABLE ${servers}`,
    `ALTER TABLE table_mappings ADD CONSTRAINT ${key} FOREIGN KEY (${column}) REFERENCES ${servers} (server_id)`,
  ]),
  'UPDATE meta SET epoch_counter = 0, schema_version = 1, min_reader_version = 1',
];

export const SQLSERVER: ControlServer = {
  name: 'SQL Server',
  require: async (context) => {
    found = await requireSqlServer(context);
  },
  reuse: true,
  url: () => Promise.resolve(sqlServer().url),
  createDatabase: async () => {
    const database = await createSqlServerDatabase(sqlServer(), 'control');
    const others: Connection[] = [];
    return {
      name: database.name,
      url: database.url,
      query: <R>(sql: string, parameters?: unknown[]) => asRows<R>(database.query(...translated(sql, parameters))),
      connect: async () => {
        const session = await database.connection.open();
        return {
          query: <R>(sql: string, parameters?: unknown[]) =>
            asRows<R>(session.query('run a test’s statement', ...translated(sql, parameters))),
        };
      },
      runSchemaFile: async () => {
        for (const batch of batchesOf(schemaFile('sqlserver'))) await database.query(batch);
      },
      empty: async () => {
        await database.query(EMPTY.join(';\n'));
      },
      drop: async () => {
        for (const other of others) await other.close();
        await database.drop();
      },
    };
  },
  dropDatabase: (name) => onMaster(`IF DB_ID(N'${name}') IS NOT NULL DROP DATABASE [${name}]`),
  createLogin: (name, password) => onMaster(`CREATE LOGIN ${name} WITH PASSWORD = '${password}'`),
  dropLogin: (name) => onMaster(`DROP LOGIN ${name}`),
  endSessions: async (application) => {
    const { pgUrl } = sqlServer();
    // The stand-in has no KILL.
    if (pgUrl !== null)
      await runPostgres(
        pgUrl,
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '${application}'`,
      );
    else
      await onMaster(
        `DECLARE @kill nvarchar(max) = N''; SELECT @kill += CONCAT(N'KILL ', session_id, N';') FROM sys.dm_exec_sessions WHERE program_name = N'${application}'; EXEC (@kill)`,
      );
  },
  analyze: async () => {
    const { pgUrl } = sqlServer();
    // A real server makes statistics when it needs them.
    if (pgUrl !== null) await runPostgres(pgUrl, 'ANALYZE');
  },
  demandingTls: 'encrypt=strict',
  time: async (database, sql) => {
    const { pgUrl } = sqlServer();
    // The stand-in's database is a schema of the PostgreSQL behind it, which says how long it takes.
    if (pgUrl !== null) {
      const schema = `${database.name.toLowerCase()}_dbo`;
      const answers = await runPostgres(pgUrl, `SET search_path = "${schema}", sys; ${EXPLAIN} ${sql}`);
      return explained((answers as unknown as pg.QueryResult<Explained>[]).at(-1)?.rows ?? []);
    }
    const before = performance.now();
    const rows = await database.query(sql);
    return { ms: performance.now() - before, rows: rows.length };
  },
  sql: {
    now: 'SYSUTCDATETIME()',
    shift: (expression, seconds) => `DATEADD(second, ${seconds}, ${expression})`,
    secondsUntil: (expression) => `DATEDIFF_BIG(millisecond, SYSUTCDATETIME(), ${expression}) / 1000.0e0`,
    numbers: (from, to) => numbersTable(from, to),
    writes: (table) => `SELECT STRING_AGG(CONVERT(varchar(40), updated_at, 121), ',') AS w FROM ${table}`,
    createDatabase: (name) => `CREATE DATABASE [${name}]`,
    withIdentity: (table, insert) => `SET IDENTITY_INSERT ${table} ON; ${insert}; SET IDENTITY_INSERT ${table} OFF`,
  },
};

/** SQL Server before 2022 has no GENERATE_SERIES. */
function numbersTable(from: number, to: number): string {
  const digits = '(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))';
  const places = String(to - from).length;
  const tables = Array.from({ length: places }, (_, place) => `${digits} AS d${place} (v)`).join(' CROSS JOIN ');
  const sum = Array.from({ length: places }, (_, place) => `d${place}.v * ${10 ** place}`).join(' + ');
  return `(SELECT ${from} + i.v AS n FROM (SELECT ${sum} AS v FROM ${tables}) AS i WHERE i.v <= ${to - from}) AS numbers`;
}

async function onMaster(sql: string): Promise<void> {
  const connection = new Connection({
    connectionString: sqlServer().url,
    database: 'master',
    installation: { uid: 'test' },
    applicationName: 'sluice tests',
  });
  try {
    await connection.query('run a test’s statement', sql);
  } finally {
    await connection.close();
  }
}

/** What sqlcmd and SSMS send apart. */
export function batchesOf(sql: string): string[] {
  return sql.split(/^[ \t]*GO[ \t]*\r?$/im).filter((batch) => batch.trim() !== '');
}

/** `$1` as the driver binds it. */
function translated(sql: string, parameters: unknown[] = []): [string, Parameters] {
  const bound = Object.fromEntries(
    parameters.map((value, index) => [`p${index + 1}`, value as string | number | null]),
  );
  return [sql.replaceAll(/\$(\d+)/g, '@p$1'), bound];
}

/** Flags as numbers and uuids in small letters, as the other servers give them. */
async function asRows<R>(answer: ReturnType<SqlServerTestDatabase['query']>): Promise<R[]> {
  return (await answer).map((row) =>
    Object.fromEntries(
      Object.entries(row).map(([name, value]) => [name, typeof value === 'boolean' ? Number(value) : lower(value)]),
    ),
  ) as R[];
}

function lower(value: unknown): unknown {
  return typeof value === 'string' && /^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$/.test(value)
    ? value.toLowerCase()
    : value;
}

export function randomName(prefix: string): string {
  return `${prefix}_${randomBytes(4).toString('hex')}`;
}
