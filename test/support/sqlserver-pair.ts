/** A world (service.ts) whose mappings go from one SQL Server database to another, by change data capture. */
import { createWorld, eventually, type World } from './service.ts';
import { createSqlServerDatabase, type SqlServerTestDatabase, type SqlServerUnderTest } from './sqlserver.ts';

/** Seconds (patience.ts): what is waited for comes by itself, or never. */
const PATIENCE = 60;

/** Of table_mappings. */
type Columns = Readonly<Record<string, string | number | null>>;

export interface SqlServerPair {
  readonly world: World;
  /** Captured; server 2 of the control database. */
  readonly from: SqlServerTestDatabase;
  /** Destination server 1. */
  readonly into: SqlServerTestDatabase;
  /** Makes `dbo.<table>` (id int, v nvarchar(max)) with rows 1 to `rows`, captured. */
  create(table: string, rows: number, v?: string): Promise<void>;
  /** Maps it, and waits until it streams. */
  stream(table: string, columns?: Columns): Promise<number>;
  map(table: string, columns?: Columns): Promise<number>;
  state(mapping: number, state: string): Promise<void>;
  /** Waits until both tables hold the same rows. */
  equal(table: string, target?: string): Promise<void>;
  /** `error_code` of the mapping. */
  errorCode(mapping: number): Promise<string | null>;
  /** Asks for a full sync and waits until it is done. */
  copyAgain(mapping: number): Promise<void>;
  close(): Promise<void>;
}

/** Numbers from 1, as a table with column `i`. */
export function numbers(count: number): string {
  const digits = '(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))';
  return `(SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 1 AS i FROM ${digits} AS a(d) CROSS JOIN ${digits} AS b(d)
    CROSS JOIN ${digits} AS c(d) CROSS JOIN ${digits} AS e(d) WHERE a.d + 10 * b.d + 100 * c.d + 1000 * e.d < ${count})`;
}

/** Between databases of this pair, when given: another installation. */
export async function createSqlServerPair(
  server: SqlServerUnderTest,
  settings: Readonly<Record<string, number>> = {},
  other?: SqlServerPair,
): Promise<SqlServerPair> {
  const world = await createWorld({ lease_seconds: 15, ...settings });
  const from = other?.from ?? (await createSqlServerDatabase(server, 'src'));
  const into = other?.into ?? (await createSqlServerDatabase(server, 'dst'));
  if (!other) await from.enableCdc();
  for (const [list, database] of [
    ['source_servers', from],
    ['destination_servers', into],
  ] as const)
    await world.control.query(`INSERT INTO ${list} (server_name, connection_string) VALUES ('sqlserver', $1)`, [
      database.url,
    ]);
  const state = (mapping: number, wanted: string) => world.state(mapping, wanted, PATIENCE);
  const map = (table: string, columns: Columns = {}) =>
    world.map(table, {
      server_id: 2,
      source_database: from.name,
      source_schema: 'dbo',
      dest_server_id: 1,
      dest_database: into.name,
      dest_schema: 'dbo',
      ...columns,
    });
  const rows = async (database: SqlServerTestDatabase, table: string) =>
    (await database.query(`SELECT * FROM dbo.[${table}] ORDER BY id`)).map((row) => JSON.stringify(row));
  return {
    world,
    from,
    into,
    create: async (table, count, v = 'first') => {
      await from.query(`CREATE TABLE dbo.[${table}] (id int NOT NULL PRIMARY KEY, v nvarchar(max) NULL)`);
      await from.query(`INSERT INTO dbo.[${table}] SELECT i, N'${v}' FROM ${numbers(count)} n`);
      await from.captureTable('dbo', table);
    },
    map,
    stream: async (table, columns) => {
      const mapping = await map(table, columns);
      await state(mapping, 'streaming');
      return mapping;
    },
    state,
    equal: (table, target = table) =>
      eventually(async () => {
        const here = await rows(from, table);
        const there = new Set(await rows(into, target));
        const missing = here.filter((row) => !there.has(row)).length;
        if (missing > 0 || here.length !== there.size)
          throw new Error(`${target}: ${there.size} rows; of the source's ${here.length}, ${missing} are missing`);
      }, PATIENCE * 1000),
    errorCode: async (mapping) => (await world.problem(mapping)).error_code,
    copyAgain: (mapping) => world.copyAgain(mapping, PATIENCE),
    close: async () => {
      await world.close();
      if (other) return;
      await from.drop();
      await into.drop();
    },
  };
}
