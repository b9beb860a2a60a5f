/** Private servers of MariaDB and of MySQL itself: on a free loopback port, each with a directory of its own, as an unprivileged user. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Connection } from '../../src/engines/mysql/connection.ts';

export interface MysqlUnderTest {
  /** A URL without a database, of an account that may do everything. */
  readonly url: string;
  readonly version: string;
  readonly isMariaDb: boolean;
}

export interface PrivateServer {
  readonly server: MysqlUnderTest;
  readonly port: number;
  readonly directory: string;
  /** Ends the server: politely, or as a power failure would. */
  halt(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Starts it again in its directory, with other settings where given. */
  restart(settings?: Settings): Promise<void>;
  stop(): Promise<void>;
}

export type Settings = Readonly<Record<string, string>>;

/** Everything that a change stream asks for; no waiting for disks. */
export const TEST_SETTINGS: Settings = {
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

type Command = readonly [program: string, ...args: string[]];

/** How one of the two is installed and run. */
interface Product {
  readonly name: string;
  readonly settings: Settings;
  readonly install: (data: string) => Command;
  readonly serve: (data: string) => Command;
}

/** Null: not installed here. */
function mariaDb(): Product | null {
  const [server, install] = [program('mariadbd'), program('mariadb-install-db')];
  if (server === null || install === null) return null;
  return {
    name: 'mariadb',
    settings: TEST_SETTINGS,
    install: (data) => [
      install,
      '--no-defaults',
      `--datadir=${data}`,
      '--auth-root-authentication-method=normal',
      '--skip-test-db',
      '--innodb-flush-log-at-trx-commit=0',
    ],
    serve: (data) => [server, '--no-defaults', `--datadir=${data}`],
  };
}

/**
 * A folder that packages of MySQL were unpacked into (`dpkg-deb -x`), with the libraries and the dynamic linker that they need; or the
 * machine's own mysqld. Null: neither is here.
 */
function mysqlItself(): Product | null {
  const home = process.env['MYSQL_HOME'] ?? '/usr/local/mysql9';
  const private_ = path.join(home, 'usr/sbin/mysqld');
  const own = program('mysqld');
  if (!existsSync(private_) && own === null) return null;
  const inHome = existsSync(private_);
  const command = (data: string): Command => {
    const files = [`--no-defaults`, `--datadir=${data}`, '--secure-file-priv=NULL'];
    if (!inHome) return [own ?? 'mysqld', ...files];
    const libraries = path.join(home, 'usr/lib', libraryFolder(home));
    const share = path.join(home, 'usr/share/mysql');
    return [
      path.join(libraries, linkerIn(libraries)),
      '--library-path',
      [libraries, path.join(home, 'usr/lib/mysql/private')].join(':'),
      private_,
      ...files,
      `--lc-messages-dir=${share}`,
      `--character-sets-dir=${path.join(share, 'charsets')}`,
      `--plugin-dir=${path.join(home, 'usr/lib/mysql/plugin')}`,
    ];
  };
  return {
    name: 'mysql',
    settings: {
      ...TEST_SETTINGS,
      'gtid-mode': 'ON',
      'enforce-gtid-consistency': 'ON',
      'innodb-redo-log-capacity': '64M',
      mysqlx: 'OFF',
    },
    install: (data) => [...command(data), '--initialize-insecure', '--innodb-flush-log-at-trx-commit=0'],
    serve: command,
  };
}

/** `x86_64-linux-gnu` and the like. */
function libraryFolder(home: string): string {
  return readdirSync(path.join(home, 'usr/lib')).find((name) => name.endsWith('-linux-gnu')) ?? '';
}

function linkerIn(libraries: string): string {
  return readdirSync(libraries).find((name) => name.startsWith('ld-linux')) ?? 'ld-linux';
}

export const isMariaDbInstalled = () => mariaDb() !== null;
export const isMysqlInstalled = () => mysqlItself() !== null;

/** A MariaDB of the caller's own; `settings` over TEST_SETTINGS. */
export function startMariaDb(settings: Settings = {}): Promise<PrivateServer> {
  return start(mariaDb(), settings);
}

/** A MySQL of the caller's own, with GTIDs; `settings` over that and TEST_SETTINGS. */
export function startMysqlItself(settings: Settings = {}): Promise<PrivateServer> {
  return start(mysqlItself(), settings);
}

async function start(product: Product | null, settings: Settings): Promise<PrivateServer> {
  if (product === null) throw new Error('the server is not installed');
  const directory = mkdtempSync(path.join(tmpdir(), `sluice-test-${product.name}-`));
  chmodSync(directory, 0o755);
  const data = path.join(directory, 'data');
  mkdirSync(data);
  const user = serverUser();
  if (user) for (const each of [directory, data]) chownSync(each, user.uid, user.gid);
  const [installer, ...args] = product.install(data);
  // MySQL itself is made with it, once and for all.
  const folds = settings['lower-case-table-names'];
  if (folds !== undefined) args.push(`--lower-case-table-names=${folds}`);
  const install = spawnSync(installer, args, { ...user, encoding: 'utf8', cwd: directory });
  if (install.status !== 0) throw new Error(`${product.name} was not installed: ${install.stderr || install.stdout}`);
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
  const restart = async (changed: Settings = settings) => {
    await halt('SIGTERM');
    child = await serve(product.serve(data), { directory, port, user }, { ...product.settings, ...changed }, url);
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
  [file, ...args]: Command,
  at: { directory: string; port: number; user: { uid: number; gid: number } | null },
  settings: Settings,
  url: string,
): Promise<ChildProcess> {
  const { directory, port, user } = at;
  const logFile = path.join(directory, 'server.log');
  const log = openSync(logFile, 'a');
  const child = spawn(
    file,
    [
      ...args,
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
      throw new Error(`the server did not start:\n${readFileSync(logFile, 'utf8').split('\n').slice(-12).join('\n')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function program(name: string): string | null {
  const places = [...(process.env['PATH'] ?? '').split(path.delimiter), '/usr/sbin', '/usr/bin', '/usr/local/sbin'];
  return places.map((place) => path.join(place, name)).find((file) => existsSync(file)) ?? null;
}

/** As root the servers insist on another user: the package's own, else nobody. */
function serverUser(): { uid: number; gid: number } | null {
  if (process.getuid?.() !== 0) return null;
  const users = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  const found = users.find(([name]) => name === 'mysql') ?? users.find(([name]) => name === 'nobody');
  return { uid: Number(found?.[2] ?? 65534), gid: Number(found?.[3] ?? 65534) };
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

export async function described(url: string): Promise<MysqlUnderTest> {
  const connection = connect(url, null);
  try {
    const [row] = await connection.query('ask for the version', 'SELECT VERSION() AS version');
    const version = String(row?.['version']);
    return { url, version, isMariaDb: /mariadb/i.test(version) };
  } finally {
    await connection.close();
  }
}

export function connect(url: string, database: string | null): Connection {
  return new Connection({
    connectionString: url,
    database,
    installation: { uid: 'test' },
    applicationName: 'sluice tests',
  });
}
