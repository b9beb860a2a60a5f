/** A world (service.ts) whose mappings go from one database of MariaDB or MySQL to another, by the binary log. */
import { expect } from 'chai';
import { createMysqlDatabase, type MysqlTestDatabase } from './mysql.ts';
import type { MysqlUnderTest } from './mysql-servers.ts';
import { createWorld, eventually, type World } from './service.ts';

/** Seconds (patience.ts): what is waited for comes by itself, or never. */
const PATIENCE = 40;

/** Of table_mappings. */
type Columns = Readonly<Record<string, string | number | null>>;

export interface MysqlPair {
  readonly world: World;
  /** Server 2 of the control database. */
  readonly from: MysqlTestDatabase;
  /** Destination server 1. */
  readonly into: MysqlTestDatabase;
  /** Makes the table (id int, v longtext) with rows 1 to `rows`. */
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
  return `JSON_TABLE(CONCAT('[', REPEAT('0,', ${count - 1}), '0]'), '$[*]' COLUMNS (i FOR ORDINALITY)) AS n`;
}

/** Between databases of this pair, when given: another installation. */
export async function createMysqlPair(
  server: MysqlUnderTest,
  settings: Readonly<Record<string, number>> = {},
  other?: MysqlPair,
): Promise<MysqlPair> {
  const world = await createWorld({ lease_seconds: 15, ...settings });
  const from = other?.from ?? (await createMysqlDatabase(server, 'src'));
  const into = other?.into ?? (await createMysqlDatabase(server, 'dst'));
  for (const [list, database] of [
    ['source_servers', from],
    ['destination_servers', into],
  ] as const)
    await world.control.query(`INSERT INTO ${list} (server_name, connection_string) VALUES ('mysql', $1)`, [
      database.url,
    ]);
  const state = (mapping: number, wanted: string) => world.state(mapping, wanted, PATIENCE);
  const map = (table: string, columns: Columns = {}) =>
    world.map(table, {
      server_id: 2,
      source_database: from.name,
      dest_server_id: 1,
      dest_database: into.name,
      ...columns,
    });
  const rows = async (database: MysqlTestDatabase, table: string) =>
    (await database.query(`SELECT * FROM \`${table}\` ORDER BY id`)).map((row) => JSON.stringify(row));
  return {
    world,
    from,
    into,
    create: async (table, count, v = 'first') => {
      await from.query(`CREATE TABLE \`${table}\` (id int NOT NULL PRIMARY KEY, v longtext NULL)`);
      await from.query(`INSERT INTO \`${table}\` SELECT i, '${v}' FROM ${numbers(count)}`);
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
    errorCode: async (mapping) => {
      const [row] = await world.control.query<{ error_code: string | null }>(
        'SELECT s.error_code FROM table_mappings m JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1',
        [mapping],
      );
      return row?.error_code ?? null;
    },
    copyAgain: async (mapping) => {
      await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
      await eventually(async () => {
        const [row] = await world.control.query('SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1', [
          mapping,
        ]);
        expect(row?.['is_full_sync']).to.equal(0);
      }, PATIENCE * 1000);
    },
    close: async () => {
      await world.close();
      if (other) return;
      await from.drop();
      await into.drop();
    },
  };
}
