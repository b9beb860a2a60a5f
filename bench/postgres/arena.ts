/** Where the bench runs: one embedded server for source, destinations and control database, and the service as its own process. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { chmodSync, closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/embedded/postgres.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CONTROL = 'sluice';

/** As a tuned, durable server would have it: fsync on; room for WAL, so that no arm pays for another's checkpoint. */
const SETTINGS = {
  wal_level: 'logical',
  max_wal_senders: '20',
  max_replication_slots: '20',
  max_connections: '100',
  shared_buffers: '1GB',
  max_wal_size: '16GB',
  checkpoint_timeout: '1h',
  autovacuum: 'off',
  max_sync_workers_per_subscription: '1',
};

/** Seconds the copy ran, rows it copied. */
export interface CopyRun {
  readonly seconds: number;
  readonly rows: number;
}

export class Arena {
  readonly folder: string;
  readonly #server: EmbeddedPostgres;
  readonly #clients = new Map<string, pg.Client>();
  #service: ChildProcess | null = null;

  private constructor(folder: string, server: EmbeddedPostgres) {
    this.folder = folder;
    this.#server = server;
  }

  static async open(): Promise<Arena> {
    build();
    const folder = mkdtempSync(path.join(tmpdir(), 'sluice-bench-'));
    chmodSync(folder, 0o755); // as root the server runs as another user
    const server = await startEmbeddedPostgres({ directory: path.join(folder, 'data'), settings: SETTINGS });
    const arena = new Arena(folder, server);
    await arena.query('postgres', `CREATE DATABASE source`);
    return arena;
  }

  url(database: string): string {
    return this.#server.url(database);
  }

  get serverUrl(): string {
    return this.#server.url('');
  }

  /** Runs SQL on a connection kept open for the database. */
  async query<R extends pg.QueryResultRow = Record<string, unknown>>(database: string, sql: string): Promise<R[]> {
    let client = this.#clients.get(database);
    if (!client) {
      client = new pg.Client({ connectionString: this.url(database), application_name: 'sluice bench' });
      client.on('error', () => undefined); // the server stops before the sessions at the end
      await client.connect();
      this.#clients.set(database, client);
    }
    const result: unknown = await client.query(sql);
    return (Array.isArray(result) ? (result.at(-1) as pg.QueryResult<R>) : (result as pg.QueryResult<R>)).rows;
  }

  async value(database: string, sql: string): Promise<string> {
    const [row] = await this.query(database, sql);
    return String(Object.values(row ?? {})[0]);
  }

  /** A new empty database under this name; an older one goes, with its slots. */
  async createDatabase(name: string): Promise<void> {
    await this.#clients.get(name)?.end();
    this.#clients.delete(name);
    await this.query('postgres', `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    await this.query('postgres', `CREATE DATABASE ${name}`);
  }

  /** Dirty pages of one arm are not written during the next. */
  async settle(): Promise<void> {
    await this.query('postgres', 'CHECKPOINT');
    await sleep(300);
  }

  control(sql: string): Promise<Record<string, unknown>[]> {
    return this.query(CONTROL, sql);
  }

  /** A fresh control database with one server, the source. */
  async createControl(settings: Readonly<Record<string, number>> = {}): Promise<void> {
    await this.createDatabase(CONTROL);
    const made = spawnSync(process.execPath, [path.join(ROOT, 'dist/cli/main.js'), 'migrate'], {
      env: this.#environment(),
      cwd: this.folder,
      encoding: 'utf8',
    });
    if (made.status !== 0) throw new Error(`sluice migrate failed: ${made.stderr}${made.stdout}`);
    for (const [key, value] of Object.entries({
      cdc_check_interval_seconds: 1,
      verification_interval_minutes: 0,
      ...settings,
    }))
      await this.query(CONTROL, `UPDATE config SET config_value = '${value}' WHERE config_key = '${key}'`);
    await this.query(
      CONTROL,
      `INSERT INTO source_servers (server_name, connection_string) VALUES ('source', '${this.url('source')}')`,
    );
  }

  /** Maps public.<table> into `database` and resolves when it has been copied. */
  copy(table: string, database: string): Promise<CopyRun> {
    return this.copyMapping(`(server_id, source_table, dest_database) VALUES (1, '${table}', '${database}')`);
  }

  /** `columns`: what follows INSERT INTO table_mappings. */
  async copyMapping(columns: string): Promise<CopyRun> {
    const id = await this.value(CONTROL, `INSERT INTO table_mappings ${columns} RETURNING mapping_id`);
    for (;;) {
      const [row] = await this.query<{ status: string; seconds: string; rows: string; error: string | null }>(
        CONTROL,
        `SELECT status, extract(epoch FROM completed_at - started_at) AS seconds, records_processed AS rows, error_message AS error
           FROM sync_status WHERE mapping_id = ${id} AND sync_type = 'FULL_SYNC' ORDER BY status_id DESC LIMIT 1`,
      );
      if (row?.status === 'COMPLETED') return { seconds: Number(row.seconds), rows: Number(row.rows) };
      if (row?.status === 'ERROR') throw new Error(`the copy failed: ${row.error}\n${this.lastWords()}`);
      this.#mustRun();
      await sleep(50);
    }
  }

  /** Starts `sluice run`. `nodeOptions`: for a profile. */
  startService(): void {
    const log = openSync(this.#logFile, 'a');
    const options = (process.env['SLUICE_BENCH_NODE_OPTIONS'] ?? '').split(' ').filter((option) => option !== '');
    this.#service = spawn(process.execPath, [...options, path.join(ROOT, 'dist/cli/main.js'), 'run'], {
      env: this.#environment(),
      cwd: this.folder,
      stdio: ['ignore', log, log],
    });
    closeSync(log);
  }

  /** 0: it does not run. */
  get servicePid(): number {
    return this.#service?.pid ?? 0;
  }

  /** Drains and ends the service; its peak resident size in bytes. */
  async stopService(): Promise<number> {
    const child = this.#service;
    if (!child) return 0;
    const peak = this.peakMemory();
    this.#service = null;
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await exited;
    return peak;
  }

  /** VmHWM of the service. */
  peakMemory(): number {
    this.#mustRun();
    const status = readFileSync(`/proc/${this.#service?.pid}/status`, 'utf8');
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
  }

  async close(): Promise<void> {
    if (this.#service?.exitCode === null) await this.stopService();
    await Promise.allSettled([...this.#clients.values()].map((client) => client.end()));
    await this.#server.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  #mustRun(): void {
    if (this.#service?.exitCode === null && this.#service.signalCode === null) return;
    throw new Error(`the service does not run:\n${this.lastWords()}`);
  }

  get #logFile(): string {
    return path.join(this.folder, 'service.log');
  }

  lastWords(): string {
    return existsSync(this.#logFile) ? readFileSync(this.#logFile, 'utf8').split('\n').slice(-15).join('\n') : '';
  }

  #environment(): NodeJS.ProcessEnv {
    const own = Object.entries(process.env).filter(([name]) => !/^(DEST_|CONFIG_|CONTROL_|SLUICE_|LOG_|PG)/.test(name));
    return { ...Object.fromEntries(own), DEST_URL: this.serverUrl, CONTROL_DATABASE: CONTROL };
  }
}

/** What is measured is what is shipped: the built service. */
function build(): void {
  const result = spawnSync(
    process.execPath,
    [path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json'],
    {
      cwd: ROOT,
      encoding: 'utf8',
    },
  );
  if (result.status !== 0) throw new Error(`the build failed:\n${result.stdout}`);
}
