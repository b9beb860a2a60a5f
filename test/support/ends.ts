/**
 * A database of any engine at either end of a mapping, and the little SQL that differs between the engines, so that a test is written
 * once for all pairs of them.
 */
import type { EngineDatabase } from '../../src/engines/contract.ts';
import { engineOf } from '../../src/engines/registry.ts';
import type { Table } from '../../src/model/tables.ts';
import { createMysqlDatabase, findMysql } from './mysql.ts';
import type { TestDatabase } from './postgres.ts';
import { createSqlServerDatabase, findSqlServer, type SqlServerTestDatabase } from './sqlserver.ts';

export const ENGINES = ['postgres', 'sqlserver', 'mysql'] as const;
export type EngineName = (typeof ENGINES)[number];
export const TITLES: Readonly<Record<EngineName, string>> = {
  postgres: 'PostgreSQL',
  sqlserver: 'SQL Server',
  mysql: 'MariaDB',
};

/** What tables of shared tests are made of, where the engines call it differently. */
export interface Words {
  /** Of any length. */
  readonly text: string;
  /** Text that a key tells apart by its characters. */
  readonly key: string;
  /** Date and time in milliseconds, no zone. */
  readonly moment: string;
}

export type Value = string | number | null;

export interface End {
  readonly engine: EngineName;
  readonly name: string;
  readonly url: string;
  readonly words: Words;
  /** What a mapping's row says of it, besides the server. */
  readonly asSource: Readonly<Record<string, string>>;
  readonly asDestination: Readonly<Record<string, string>>;
  /** A table of Sluice's own in it. */
  home(table: string): string;
  query(sql: string): Promise<Readonly<Record<string, unknown>>[]>;
  /** These statements as one transaction. */
  transaction(...statements: string[]): Promise<void>;
  /** A transaction whose statements come one by one. */
  held(work: (run: (sql: string) => Promise<unknown>) => Promise<unknown>): Promise<unknown>;
  /** For what only SQL Server has. */
  readonly sqlServer: SqlServerTestDatabase | null;
  insert(table: string, columns: readonly string[], rows: readonly (readonly Value[])[]): Promise<void>;
  /** Empties the table by the shortest way that a table whose changes are followed has. */
  emptying(table: string): string;
  /** Has the source record the table's changes, where somebody has to ask for it. */
  capture(table: string): Promise<void>;
  /** As the engine's catalog says. */
  describe(table: string): Promise<Table>;
  /** Its columns, and all rows, each as one line that is the same at another engine when the values are. */
  rows(table: string): Promise<{ columns: string[]; rows: string[] }>;
  drop(): Promise<void>;
}

interface Dialect {
  readonly words: Words;
  readonly literal: (text: string) => string;
  readonly begin: string;
  readonly schema: string;
  readonly home: (table: string) => string;
  readonly emptying: (table: string) => string;
}

const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`;

const DIALECTS: Readonly<Record<EngineName, Dialect>> = {
  postgres: {
    words: { text: 'text', key: 'varchar(40)', moment: 'timestamp(3)' },
    literal: quoted,
    begin: 'BEGIN',
    schema: 'public',
    home: (table) => `sluice.${table}`,
    emptying: (table) => `TRUNCATE ${table}`,
  },
  sqlserver: {
    words: {
      text: 'nvarchar(max)',
      key: 'nvarchar(40) COLLATE Latin1_General_100_BIN2',
      moment: 'datetime2(3)',
    },
    literal: (text) => `N${quoted(text)}`,
    begin: 'SET XACT_ABORT ON; BEGIN TRANSACTION',
    schema: 'dbo',
    home: (table) => `sluice.${table}`,
    // TRUNCATE TABLE is refused for captured tables.
    emptying: (table) => `DELETE FROM ${table}`,
  },
  mysql: {
    words: { text: 'longtext', key: 'varchar(40) COLLATE utf8mb4_nopad_bin', moment: 'datetime(3)' },
    literal: (text) => quoted(text.replaceAll('\\', '\\\\')),
    begin: 'START TRANSACTION',
    schema: '',
    home: (table) => `sluice_${table}`,
    emptying: (table) => `TRUNCATE TABLE ${table}`,
  },
};

interface Database {
  readonly name: string;
  readonly url: string;
  query(sql: string): Promise<Readonly<Record<string, unknown>>[]>;
  drop(): Promise<void>;
}

interface Special {
  readonly held: End['held'];
  readonly capture?: End['capture'];
  readonly sqlServer?: SqlServerTestDatabase;
}

/** A new database; the reason, where there is no such server. `mysql`: which of the two is meant. */
export async function createEnd(
  engine: Exclude<EngineName, 'postgres'>,
  role: 'src' | 'dst',
  mysql: typeof findMysql = findMysql,
): Promise<End | string> {
  if (engine === 'mysql') {
    const server = await mysql();
    if (typeof server === 'string') return server;
    const database = await createMysqlDatabase(server, role);
    return end(engine, database, {
      held: (work) =>
        database.connection.use((session) =>
          session.transaction('START TRANSACTION', () => work((sql) => session.run('hold a transaction', [sql]))),
        ),
    });
  }
  const server = await findSqlServer();
  if (typeof server === 'string') return server;
  const database = await createSqlServerDatabase(server, role);
  if (role === 'src') await database.enableCdc();
  return end(engine, database, {
    held: (work) =>
      database.connection.use((session) =>
        session.transaction(() => work((sql) => session.run('hold a transaction', [sql]))),
      ),
    capture: (table) => database.captureTable('dbo', table),
    sqlServer: database,
  });
}

export function postgresEnd(database: TestDatabase): End {
  // Made and dropped with the world that it is part of.
  const part = { ...database, query: (sql: string) => database.query(sql), drop: () => Promise.resolve() };
  return end('postgres', part, { held: () => Promise.reject(new Error('no test holds a transaction here')) });
}

function end(engine: EngineName, database: Database, special: Special): End {
  const dialect = DIALECTS[engine];
  const { name, url } = database;
  const query = (sql: string) => database.query(sql);
  const handle = engineOf(url).open({
    connectionString: url,
    database: name,
    installation: { uid: 'test' },
    applicationName: 'sluice tests',
  });
  const literal = (value: Value) =>
    value === null ? 'NULL' : typeof value === 'number' ? String(value) : dialect.literal(value);
  return {
    engine,
    name,
    url,
    words: dialect.words,
    asSource: engine === 'sqlserver' ? { source_database: name, source_schema: dialect.schema } : {},
    asDestination: { dest_database: name, ...(dialect.schema === '' ? {} : { dest_schema: dialect.schema }) },
    home: dialect.home,
    emptying: dialect.emptying,
    query,
    held: special.held,
    sqlServer: special.sqlServer ?? null,
    transaction: async (...statements) => void (await query([dialect.begin, ...statements, 'COMMIT'].join('; '))),
    insert: async (table, columns, rows) => {
      for (let at = 0; at < rows.length; at += 500) {
        const lines = rows.slice(at, at + 500).map((row) => `(${row.map(literal).join(', ')})`);
        await query(`INSERT INTO ${table} (${columns.join(', ')}) VALUES ${lines.join(', ')}`);
      }
    },
    capture: (table) => special.capture?.(table) ?? Promise.resolve(),
    describe: (table) => described(handle, dialect.schema, table),
    rows: (table) => linesOf(handle, dialect.schema, table),
    drop: async () => {
      await handle.close();
      await database.drop();
    },
  };
}

async function described(handle: EngineDatabase, schema: string, table: string): Promise<Table> {
  const [found] = await handle.catalog.describe([{ schema, table }]);
  if (!found) throw new Error(`${table} is not there`);
  return found;
}

/** By the engine's own reading, which test/engines/<engine> and test/values hold to what the server prints. */
async function linesOf(
  handle: EngineDatabase,
  schema: string,
  table: string,
): Promise<{ columns: string[]; rows: string[] }> {
  const { snapshot } = handle;
  if (!snapshot) throw new Error('nothing is read from this engine');
  const found = await described(handle, schema, table);
  const columns = found.columns.map((column) => column.name);
  const isBytes = found.columns.map((column) => column.type.kind === 'bytes');
  const plan = await snapshot.planChunks(found, { targetBytes: 1 << 24 });
  const rows: string[] = [];
  for (const chunk of plan.chunks) {
    const stream = await snapshot.readChunk(found, plan.layout, chunk, columns, 'cells');
    if (!('batches' in stream)) throw new Error('no cells');
    for await (const batch of stream.batches)
      for (let row = 0; row < batch.rows; row++) {
        const cells = batch.cells.slice(row * columns.length, (row + 1) * columns.length);
        const text = cells.map((cell, i) =>
          cell instanceof Uint8Array ? Buffer.from(cell).toString(isBytes[i] ? 'hex' : 'utf8') : cell,
        );
        rows.push(JSON.stringify(text));
      }
  }
  return { columns, rows: rows.sort() };
}
