/** A world (service.ts) whose mappings go from one database of an engine to another of the same, and the little SQL that differs. */
import type { Context } from 'mocha';
import { createEnd, type End, type EngineName } from './ends.ts';
import { findMysql, findMysqlItself } from './mysql.ts';
import { createWorld, eventually, type World } from './service.ts';
import { skip } from './skip.ts';

/** Of table_mappings. */
type Columns = Readonly<Record<string, string | number | null>>;

export interface EngineOfPairs {
  readonly name: string;
  readonly engine: Exclude<EngineName, 'postgres'>;
  readonly mysql?: typeof findMysql;
  /** Seconds (patience.ts): what is waited for comes by itself, or never. */
  readonly patience: number;
  /** `text` so many times. */
  repeat(text: string, times: number): string;
  /** A text that no other row has, of some 500 bytes. */
  readonly unique: string;
  /** Numbers from 1, as a table `n` with column `i`. */
  numbers(count: number): string;
  /** Makes a table like another, with its rows. */
  copyTable(from: string, into: string): string;
  /** Sets `positions` to what the table `saved` holds. */
  restorePositions(positions: string, saved: string): string;
  /** Names of Sluice's backlogs. */
  readonly backlogs: string;
  /** Ids of the service's sessions in the database; of those that read the server's log, where they are in none. */
  sessions(database: string): string;
  readonly logReaders?: string;
  kill(id: number): string;
  /** Fails with TIMEOUT while somebody else holds the row; takes nothing. */
  probeRow(table: string, id: number): string;
  /** How a writer says that it waits for locks a second at most. */
  readonly shortLockWait?: string;
  /** Has the source discard what it has recorded of the table, as its retention would. */
  discard?(table: string): string;
}

const DIGITS = '(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))';

const MYSQL = {
  engine: 'mysql',
  patience: 40,
  repeat: (text, times) => `REPEAT('${text}', ${times})`,
  unique: "CONCAT(UUID(), REPEAT('x', 500))",
  numbers: (count) =>
    `JSON_TABLE(CONCAT('[', REPEAT('0,', ${count - 1}), '0]'), '$[*]' COLUMNS (i FOR ORDINALITY)) AS n`,
  copyTable: (from, into) => `CREATE TABLE ${into} AS SELECT * FROM ${from}`,
  restorePositions: (positions, saved) =>
    `UPDATE ${positions} p JOIN ${saved} s ON s.stream = p.stream AND s.apply_group = p.apply_group SET p.position = s.position`,
  backlogs: `SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'sluice\\_backlog%'`,
  sessions: (database) =>
    `SELECT ID AS id FROM information_schema.PROCESSLIST WHERE DB = '${database}' AND ID <> CONNECTION_ID()`,
  logReaders: "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'",
  kill: (id) => `KILL CONNECTION ${id}`,
  probeRow: (table, id) => `SELECT id FROM ${table} WHERE id = ${id} FOR UPDATE NOWAIT`,
  shortLockWait: 'SET SESSION innodb_lock_wait_timeout = 1',
} satisfies Partial<EngineOfPairs>;

export const MARIADB: EngineOfPairs = { ...MYSQL, name: 'MariaDB', mysql: findMysql };
export const MYSQL_ITSELF: EngineOfPairs = { ...MYSQL, name: 'MySQL', mysql: findMysqlItself };
export const SQL_SERVER: EngineOfPairs = {
  name: 'SQL Server',
  engine: 'sqlserver',
  patience: 60,
  repeat: (text, times) => `REPLICATE(N'${text}', ${times})`,
  unique: "CONVERT(nvarchar(50), NEWID()) + REPLICATE(N'x', 500)",
  numbers: (count) =>
    `(SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 1 AS i FROM ${DIGITS} AS a(d) CROSS JOIN ${DIGITS} AS b(d)
    CROSS JOIN ${DIGITS} AS c(d) CROSS JOIN ${DIGITS} AS e(d) WHERE a.d + 10 * b.d + 100 * c.d + 1000 * e.d < ${count}) AS n`,
  copyTable: (from, into) => `SELECT * INTO ${into} FROM ${from}`,
  restorePositions: (positions, saved) =>
    `UPDATE p SET position = s.position FROM ${positions} p JOIN ${saved} s ON s.stream = p.stream AND s.apply_group = p.apply_group`,
  backlogs: `SELECT t.name AS name FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id WHERE s.name = N'sluice' AND t.name LIKE N'backlog%'`,
  sessions: () =>
    `SELECT session_id AS id FROM sys.dm_exec_sessions WHERE program_name LIKE N'sluice%' AND program_name <> N'sluice tests' AND database_id = DB_ID()`,
  kill: (id) => `KILL ${id}`,
  probeRow: (table, id) =>
    `SET LOCK_TIMEOUT 200; BEGIN TRANSACTION; UPDATE ${table} SET v = v WHERE id = ${id}; ROLLBACK TRANSACTION; SET LOCK_TIMEOUT -1`,
  discard: (table) =>
    `DECLARE @low binary(10) = sys.fn_cdc_get_max_lsn();
     EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_${table}', @low_water_mark = @low`,
};

export interface SameEnginePair {
  readonly world: World;
  /** Server 2 of the control database. */
  readonly from: End;
  /** Destination server 1. */
  readonly into: End;
  /** Makes the table (id int, v text of any length) with rows 1 to `rows`, captured. */
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

/** To be called in a hook: skips its tests where there is no such server. Between databases of `other`, when given: another installation. */
export async function createSameEnginePair(
  context: Context,
  under: EngineOfPairs,
  settings: Readonly<Record<string, number>> = {},
  other?: SameEnginePair,
): Promise<SameEnginePair> {
  const open = async (role: 'src' | 'dst') => {
    const found = await createEnd(under.engine, role, under.mysql);
    return typeof found === 'string' ? skip(context, found) : found;
  };
  const from = other?.from ?? (await open('src'));
  const into = other?.into ?? (await open('dst'));
  const world = await createWorld({ lease_seconds: 15, ...settings });
  for (const [list, { url }] of [
    ['source_servers', from],
    ['destination_servers', into],
  ] as const)
    await world.control.query(`INSERT INTO ${list} (server_name, connection_string) VALUES ($1, $2)`, [
      under.engine,
      url,
    ]);
  const state = (mapping: number, wanted: string) => world.state(mapping, wanted, under.patience);
  const map = (table: string, columns: Columns = {}) =>
    world.map(table, {
      server_id: 2,
      ...from.asSource,
      dest_server_id: 1,
      ...into.asDestination,
      ...columns,
    });
  const rows = async (end: End, table: string) =>
    (await end.query(`SELECT * FROM ${table}`)).map((row) => JSON.stringify(row));
  return {
    world,
    from,
    into,
    create: async (table, count, v = 'first') => {
      await from.query(`CREATE TABLE ${table} (id int NOT NULL PRIMARY KEY, v ${from.words.text} NULL)`);
      await from.query(`INSERT INTO ${table} SELECT i, '${v}' FROM ${under.numbers(count)}`);
      await from.capture(table);
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
      }, under.patience * 1000),
    errorCode: async (mapping) => (await world.problem(mapping)).error_code,
    copyAgain: (mapping) => world.copyAgain(mapping, under.patience),
    close: async () => {
      await world.close();
      if (other) return;
      await from.drop();
      await into.drop();
    },
  };
}
