/**
 * A MariaDB and a MySQL for a whole test run: those that TEST_MYSQL_URL and TEST_MYSQL8_URL name, else private ones made with the
 * binaries of this machine (Debian: mariadb-server; MySQL itself: CONTRIBUTING.md). Without either, its suites are skipped and the
 * reason is printed.
 */
import './loaded-once.ts';
import { randomBytes } from 'node:crypto';
import type { Context } from 'mocha';
import type { Connection, Parameter, Row } from '../../src/engines/mysql/connection.ts';
import { quoteIdentifier } from '../../src/engines/mysql/sql.ts';
import {
  connect,
  described,
  isMariaDbInstalled,
  isMysqlInstalled,
  startMariaDb,
  startMysqlItself,
  type MysqlUnderTest,
} from './mysql-servers.ts';
import { skip } from './skip.ts';

interface Running {
  readonly server: MysqlUnderTest;
  stop(): Promise<void>;
}

const started = new Map<string, Promise<Running | string>>();

async function startMariaDbOrSay(): Promise<Running | string> {
  const given = process.env['TEST_MYSQL_URL'];
  if (given) return { server: await described(given), stop: () => Promise.resolve() };
  if (isMariaDbInstalled()) return startMariaDb();
  return 'no MariaDB: TEST_MYSQL_URL is not set, and no mariadbd is installed (Debian: mariadb-server)';
}

async function startMysqlOrSay(): Promise<Running | string> {
  const given = process.env['TEST_MYSQL8_URL'];
  if (given) return { server: await described(given), stop: () => Promise.resolve() };
  if (isMysqlInstalled()) return startMysqlItself();
  return 'no MySQL itself: TEST_MYSQL8_URL is not set, MYSQL_HOME names no unpacked MySQL, and no mysqld is installed';
}

/** The run's server (MariaDB, where TEST_MYSQL_URL names no other), or the reason why there is none. */
export function findMysql(): Promise<MysqlUnderTest | string> {
  return found('mysql', startMariaDbOrSay);
}

/** As `findMysql`: MySQL itself, 8.0 or newer. */
export function findMysqlItself(): Promise<MysqlUnderTest | string> {
  return found('mysql8', startMysqlOrSay);
}

/** To be called in a `before` hook: skips its tests where there is no server. */
export function requireMysql(context: Context): Promise<MysqlUnderTest> {
  return required(context, findMysql);
}

/** As `requireMysql`: MySQL itself. */
export function requireMysqlItself(context: Context): Promise<MysqlUnderTest> {
  return required(context, findMysqlItself);
}

async function required(context: Context, find: () => Promise<MysqlUnderTest | string>): Promise<MysqlUnderTest> {
  context.timeout(60_000);
  const server = await find();
  return typeof server === 'string' ? skip(context, server) : server;
}

async function found(name: string, start: () => Promise<Running | string>): Promise<MysqlUnderTest | string> {
  const running = started.get(name) ?? start();
  started.set(name, running);
  const server = await running;
  return typeof server === 'string' ? server : server.server;
}

/** Called once at the end of the run (root hook in `hooks.ts`). */
export async function stopMysql(): Promise<void> {
  for (const running of started.values()) {
    const found = await running.catch(() => null);
    if (found !== null && typeof found !== 'string') await found.stop();
  }
  started.clear();
}

export interface MysqlTestDatabase {
  readonly server: MysqlUnderTest;
  readonly name: string;
  readonly url: string;
  readonly connection: Connection;
  /** Runs one statement on a pooled session, as our own sessions are set up. */
  query(sql: string, values?: readonly Parameter[]): Promise<Row[]>;
  drop(): Promise<void>;
}

/** A new empty database with a random name. */
export async function createMysqlDatabase(server: MysqlUnderTest, prefix = 't'): Promise<MysqlTestDatabase> {
  const name = `${prefix}_${randomBytes(4).toString('hex')}`;
  const admin = connect(server.url, null);
  await admin.query('create a test database', `CREATE DATABASE ${quoteIdentifier(name)} CHARACTER SET utf8mb4`);
  const connection = connect(server.url, name);
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  return {
    server,
    name,
    url: url.toString(),
    connection,
    query: (sql, values) => connection.query('run a test’s statement', sql, values),
    drop: async () => {
      await connection.close();
      await admin
        .query('drop a test database', `DROP DATABASE IF EXISTS ${quoteIdentifier(name)}`)
        .catch(() => undefined);
      await admin.close();
    },
  };
}
