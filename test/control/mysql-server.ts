/** MySQL and MariaDB as servers of control databases: see server.ts. */
import type { Context } from 'mocha';
import mysql from 'mysql2/promise';
import { createMysqlDatabase, requireMysql, requireMysqlItself } from '../support/mysql.ts';
import type { MysqlUnderTest } from '../support/mysql-servers.ts';
import { schemaFile, TABLES, type ControlServer, type ControlSession } from './server.ts';

/** Of the tests themselves. */
const ours = new Set<number>();

/** Rows as the other servers give them: int as numbers, bigint as text, times as dates. */
async function connect(url: string): Promise<mysql.Connection> {
  const connection = await mysql.createConnection({
    uri: url,
    timezone: 'Z',
    charset: 'UTF8MB4_BIN',
    supportBigNumbers: true,
    bigNumberStrings: true,
    multipleStatements: true,
  });
  ours.add(connection.threadId);
  return connection;
}

function session(connection: mysql.Connection): ControlSession {
  return {
    query: async <R>(sql: string, parameters: unknown[] = []) => {
      const values: unknown[] = [];
      const text = sql
        .replace(/^(BEGIN|COMMIT|ROLLBACK) TRANSACTION$/, '$1')
        .replaceAll(/\$(\d+)/g, (_, number: string) => {
          values.push(parameters[Number(number) - 1] ?? null);
          return '?';
        });
      const [rows] =
        values.length === 0
          ? await connection.query(text)
          : await connection.execute(text, values as (string | number | null)[]);
      return (Array.isArray(rows) ? rows : []) as R[];
    },
  };
}

async function run(url: string, sql: string): Promise<void> {
  const connection = await connect(url);
  try {
    await connection.query(sql);
  } finally {
    await connection.end();
  }
}

const EMPTY = [
  ...TABLES.map((table) => `DELETE FROM ${table}`),
  ...['table_mappings', 'source_servers', 'destination_servers'].flatMap((table) => [
    `DELETE FROM ${table}`,
    `ALTER TABLE ${table} AUTO_INCREMENT = 1`,
  ]),
  'UPDATE meta SET epoch_counter = 0, schema_version = 1, min_reader_version = 1',
].join(';\n');

function controlServer(name: string, require: (context: Context) => Promise<MysqlUnderTest>): ControlServer {
  let found: MysqlUnderTest | null = null;
  const server = () => {
    if (found === null) throw new Error('the suite has not required the server');
    return found;
  };
  const onServer = (sql: string) => run(server().url, sql);
  return {
    name,
    require: async (context) => {
      found = await require(context);
    },
    reuse: true,
    url: () => Promise.resolve(server().url),
    createDatabase: async () => {
      const database = await createMysqlDatabase(server(), 'control');
      const connections = [await connect(database.url)];
      const [own] = connections;
      if (!own) throw new Error('no connection');
      return {
        name: database.name,
        url: database.url,
        ...session(own),
        connect: async () => {
          const other = await connect(database.url);
          connections.push(other);
          return session(other);
        },
        runSchemaFile: async () => void (await own.query(schemaFile('mysql'))),
        empty: async () => void (await own.query(EMPTY)),
        drop: async () => {
          for (const each of connections) each.destroy();
          await database.drop();
        },
      };
    },
    dropDatabase: (name) => onServer(`DROP DATABASE IF EXISTS \`${name}\``),
    createLogin: (name, password) => onServer(`CREATE USER ${name} IDENTIFIED BY '${password}'`),
    dropLogin: (name) => onServer(`DROP USER ${name}`),
    // Where performance_schema is off the server does not say which program a session is of.
    endSessions: async (_application, database) => {
      const connection = await connect(server().url);
      try {
        const [rows] = await connection.query<mysql.RowDataPacket[]>(
          `SELECT ID AS id FROM information_schema.PROCESSLIST WHERE DB = '${database}'`,
        );
        const ids = rows.map((row) => Number(row['id'])).filter((id) => !ours.has(id));
        for (const id of ids) await connection.query(`KILL ${id}`);
      } finally {
        await connection.end();
      }
    },
    analyze: async (database) => {
      const tables = [...TABLES, 'table_mappings', 'source_servers'].map((table) => `\`${database}\`.${table}`);
      await onServer(`ANALYZE TABLE ${tables.join(', ')}`);
    },
    demandingTls: 'ssl-mode=VERIFY_IDENTITY',
    time: async (database, sql) => {
      await database.query('SET profiling = 1, profiling_history_size = 1');
      const rows = await database.query(sql);
      const [profile] = await database.query<{ Duration: number }>('SHOW PROFILES');
      await database.query('SET profiling = 0');
      return { ms: (profile?.Duration ?? Infinity) * 1000, rows: rows.length };
    },
    sql: {
      now: 'UTC_TIMESTAMP(3)',
      shift: (expression, seconds) => `${expression} + INTERVAL (${seconds}) SECOND`,
      secondsUntil: (expression) => `TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(3), ${expression}) / 1e6`,
      numbers: (from, to) => numbersTable(from, to),
      writes: (table) => `SELECT GROUP_CONCAT(updated_at) AS w FROM ${table}`,
      createDatabase: (name) => `CREATE DATABASE \`${name}\``,
      withIdentity: (_table, insert) => insert,
    },
  };
}

export const MARIADB = controlServer('MariaDB', requireMysql);
export const MYSQL = controlServer('MySQL', requireMysqlItself);

/** A recursion ends at 1,000 rows on MySQL. */
function numbersTable(from: number, to: number): string {
  const digits = `(SELECT 0 AS v ${Array.from({ length: 9 }, (_, digit) => `UNION ALL SELECT ${digit + 1}`).join(' ')})`;
  const places = String(to - from).length;
  const tables = Array.from({ length: places }, (_, place) => `${digits} AS d${place}`).join(' CROSS JOIN ');
  const sum = Array.from({ length: places }, (_, place) => `d${place}.v * ${10 ** place}`).join(' + ');
  return `(SELECT ${from} + i.v AS n FROM (SELECT ${sum} AS v FROM ${tables}) AS i WHERE i.v <= ${to - from}) AS numbers`;
}
