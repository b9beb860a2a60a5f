/**
 * A MySQL or MariaDB for a whole test run: the one that TEST_MYSQL_URL names, else a private MariaDB made with the binaries of this
 * machine (Debian: mariadb-server), on a free loopback port with a directory of its own. Without either, `requireMysql` skips the
 * suite and says why.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Context } from 'mocha';
import { Connection, type Parameter, type Row } from '../../src/engines/mysql/connection.ts';
import { quoteIdentifier } from '../../src/engines/mysql/sql.ts';
import { skip } from './skip.ts';

export interface MysqlUnderTest {
  /** A URL without a database, of an account that may do everything. */
  readonly url: string;
  readonly version: string;
  readonly isMariaDb: boolean;
}

interface Running {
  readonly server: MysqlUnderTest;
  stop(): Promise<void>;
}

/** Everything that a change stream asks for; no waiting for disks. */
export const TEST_SETTINGS: Readonly<Record<string, string>> = {
  'server-id': '1',
  'log-bin': 'binlog',
  'binlog-format': 'ROW',
  'binlog-row-image': 'FULL',
  'binlog-row-metadata': 'FULL',
  'sync-binlog': '0',
  'innodb-flush-log-at-trx-commit': '0',
  'innodb-buffer-pool-size': '64M',
  'max-connections': '300',
  'max-allowed-packet': '128M',
  'local-infile': '1',
  'performance-schema': 'OFF',
};

const started = new Map<string, Promise<Running | string>>();

/** To be called in a `before` hook: skips its tests where there is no server. */
export async function requireMysql(context: Context): Promise<MysqlUnderTest> {
  context.timeout(60_000);
  return required(context, 'mysql', () => find());
}

/** The run's server, or the reason why there is none. */
export function findMysql(): Promise<MysqlUnderTest | string> {
  return found('mysql', () => find());
}

async function required(
  context: Context,
  name: string,
  start: () => Promise<Running | string>,
): Promise<MysqlUnderTest> {
  const server = await found(name, start);
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

/** The server, or the reason why there is none. */
async function find(): Promise<Running | string> {
  const given = process.env['TEST_MYSQL_URL'];
  if (given) return { server: await described(given), stop: () => Promise.resolve() };
  if (program('mariadbd') === null || program('mariadb-install-db') === null)
    return 'no MySQL or MariaDB: TEST_MYSQL_URL is not set, and no mariadbd is installed (Debian: mariadb-server)';
  return startMariaDb();
}

async function described(url: string): Promise<MysqlUnderTest> {
  const connection = connect(url, null);
  try {
    const [row] = await connection.query('ask for the version', 'SELECT VERSION() AS version');
    const version = String(row?.['version']);
    return { url, version, isMariaDb: /mariadb/i.test(version) };
  } finally {
    await connection.close();
  }
}

function program(name: string): string | null {
  const places = [...(process.env['PATH'] ?? '').split(path.delimiter), '/usr/sbin', '/usr/bin', '/usr/local/sbin'];
  return places.map((place) => path.join(place, name)).find((file) => existsSync(file)) ?? null;
}

/** As root the server insists on another user: the package's own, else nobody. */
function serverUser(): { uid: number; gid: number } | null {
  if (process.getuid?.() !== 0) return null;
  const users = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  const found = users.find(([name]) => name === 'mysql') ?? users.find(([name]) => name === 'nobody');
  return { uid: Number(found?.[2] ?? 65534), gid: Number(found?.[3] ?? 65534) };
}

export interface PrivateMariaDb extends Running {
  readonly port: number;
  readonly directory: string;
  /** Ends the server: politely, or as a power failure would. */
  halt(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Starts it again in its directory, with other settings where given. */
  restart(settings?: Readonly<Record<string, string>>): Promise<void>;
}

/** A MariaDB of the caller's own; `settings` over TEST_SETTINGS. */
export async function startMariaDb(settings: Readonly<Record<string, string>> = {}): Promise<PrivateMariaDb> {
  const directory = mkdtempSync(path.join(tmpdir(), 'sluice-test-mariadb-'));
  chmodSync(directory, 0o755);
  const data = path.join(directory, 'data');
  mkdirSync(data);
  const user = serverUser();
  if (user) for (const each of [directory, data]) chownSync(each, user.uid, user.gid);
  const install = spawnSync(
    program('mariadb-install-db') ?? 'mariadb-install-db',
    [
      '--no-defaults',
      `--datadir=${data}`,
      '--auth-root-authentication-method=normal',
      '--skip-test-db',
      '--innodb-flush-log-at-trx-commit=0',
    ],
    { ...user, encoding: 'utf8', cwd: directory },
  );
  if (install.status !== 0) throw new Error(`mariadb-install-db failed: ${install.stderr || install.stdout}`);
  const port = await freePort();
  const url = `mysql://root@127.0.0.1:${port}`;
  let child: ChildProcess | null = null;
  const halt = async (signal: 'SIGTERM' | 'SIGKILL') => {
    const running = child;
    child = null;
    if (running === null || running.exitCode !== null || running.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => running.once('exit', () => resolve()));
    running.kill(signal);
    await gone;
  };
  const restart = async (changed: Readonly<Record<string, string>> = settings) => {
    await halt('SIGTERM');
    child = await serve(directory, data, port, user, { ...TEST_SETTINGS, ...changed }, url);
  };
  const onExit = () => child?.kill('SIGKILL');
  process.once('exit', onExit);
  await restart();
  return {
    server: await described(url),
    port,
    directory,
    halt,
    restart,
    stop: async () => {
      // Nothing of it is kept: no need to wait for its own farewell.
      await halt('SIGKILL');
      process.removeListener('exit', onExit);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function serve(
  directory: string,
  data: string,
  port: number,
  user: { uid: number; gid: number } | null,
  settings: Readonly<Record<string, string>>,
  url: string,
): Promise<ChildProcess> {
  const logFile = path.join(directory, 'server.log');
  const log = openSync(logFile, 'a');
  const child = spawn(
    program('mariadbd') ?? 'mariadbd',
    [
      '--no-defaults',
      `--datadir=${data}`,
      `--port=${port}`,
      '--bind-address=127.0.0.1',
      `--socket=${path.join(directory, 'socket')}`,
      // A server that starts deletes the temporary files of any other in the same directory.
      `--tmpdir=${directory}`,
      `--pid-file=${path.join(directory, 'pid')}`,
      ...Object.entries(settings).map(([name, value]) => `--${name}=${value}`),
    ],
    { ...user, stdio: ['ignore', log, log], cwd: directory },
  );
  closeSync(log);
  const until = Date.now() + 40_000;
  for (;;) {
    const connection = connect(url, null);
    const up = await connection.query('look whether the server is up', 'SELECT 1 AS up').then(
      () => true,
      () => false,
    );
    await connection.close();
    if (up) return child;
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > until) {
      child.kill('SIGKILL');
      throw new Error(`MariaDB did not start:\n${readFileSync(logFile, 'utf8').split('\n').slice(-12).join('\n')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

function connect(url: string, database: string | null): Connection {
  return new Connection({
    connectionString: url,
    database,
    installation: { uid: 'test' },
    applicationName: 'sluice tests',
  });
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
