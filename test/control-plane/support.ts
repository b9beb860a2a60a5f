/** What the tests of the control plane share: a service whose log is kept, and servers of their own. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import { expect } from 'chai';
import pg from 'pg';
import { ControlDatabase } from '../../src/control/index.ts';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/embedded/postgres.ts';
import { createLogger } from '../../src/log/logger.ts';
import { Service } from '../../src/service/service.ts';
import { testServer } from '../support/postgres.ts';
import { eventually, type World } from '../support/service.ts';

export interface RecordedService {
  /** The log as a person sees it, one event a line. */
  readonly lines: readonly string[];
  stop(): Promise<void>;
}

/** A service in this process whose log lines are kept. `controlServerUrl`: absent, the shared server's. */
export async function startRecorded(
  controlDatabase: string,
  options: { controlServerUrl?: string } = {},
): Promise<RecordedService> {
  const controlServerUrl = options.controlServerUrl ?? (await testServer()).url();
  const lines: string[] = [];
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(...chunk.toString('utf8').split('\n').filter(Boolean));
      if (process.env['SLUICE_TEST_LOG']) process.stderr.write(chunk);
      done();
    },
  });
  const control = await ControlDatabase.open({ url: controlServerUrl, database: controlDatabase });
  const service = new Service({ control, controlServerUrl, logger: createLogger({ level: 'debug', stream }) });
  const running = service.run();
  running.catch(() => undefined);
  let stopped: Promise<void> | null = null;
  return {
    lines,
    stop: () =>
      (stopped ??= (async () => {
        service.stop();
        await running;
        await control.close();
      })()),
  };
}

export interface PrivateServer extends EmbeddedPostgres {
  /** Replaces pg_hba.conf and loads it. */
  authenticate(lines: readonly string[]): Promise<void>;
  query(sql: string, database?: string): Promise<Record<string, unknown>[]>;
  /** Stops the server and removes its files. */
  remove(): Promise<void>;
}

/** A server for settings that the shared one cannot have. `restartOf`: the files of one that was stopped. */
export async function privateServer(settings: Readonly<Record<string, string>>): Promise<PrivateServer> {
  const home = mkdtempSync(path.join(tmpdir(), 'sluice-private-'));
  chmodSync(home, 0o755);
  const directory = path.join(home, 'data');
  const server = await startEmbeddedPostgres({
    directory,
    settings: { fsync: 'off', max_connections: '50', shared_buffers: '16MB', ...settings },
  });
  const query = async (sql: string, database?: string) => {
    const client = new pg.Client({ connectionString: server.url(database) });
    await client.connect();
    try {
      const result: unknown = await client.query(sql);
      return (Array.isArray(result) ? [] : (result as pg.QueryResult).rows) as Record<string, unknown>[];
    } finally {
      await client.end();
    }
  };
  return {
    ...server,
    query,
    authenticate: async (lines) => {
      writeFileSync(path.join(directory, 'pg_hba.conf'), `${lines.join('\n')}\n`);
      await query('SELECT pg_reload_conf()');
    },
    remove: async () => {
      await server.stop();
      rmSync(home, { recursive: true, force: true });
    },
  };
}

/** An open row of `error_logs`. */
export interface LoggedError {
  readonly error_code: string;
  readonly error_message: string;
  readonly hint: string | null;
  readonly retry_count: number;
}

export async function errorsOf(world: World, mappingId: number): Promise<LoggedError[]> {
  return world.control.query<{ error_code: string; error_message: string; hint: string | null; retry_count: number }>(
    'SELECT error_code, error_message, hint, retry_count FROM error_logs WHERE mapping_id = $1 ORDER BY error_id',
    [mappingId],
  );
}

/** Waits for an error of the mapping with this code. */
export async function errorOf(world: World, mappingId: number, code: string, seconds = 20): Promise<LoggedError> {
  let found: LoggedError | undefined;
  await eventually(async () => {
    const errors = await errorsOf(world, mappingId);
    found = errors.find((error) => error.error_code === code);
    if (!found) throw new Error(`no ${code} of mapping ${mappingId}: ${JSON.stringify(errors)}`);
  }, seconds * 1000);
  if (!found) throw new Error('unreachable');
  return found;
}

/** The mapping is named by its number. */
export function names(text: string, mappingId: number): boolean {
  return new RegExp(`mapping(_id)? ${mappingId}\\b`).test(text);
}

/** `fix`: words of the hint. */
export function isOneGoodLine(error: LoggedError, mappingId: number, fix: RegExp): void {
  expect(names(error.error_message, mappingId), `the mapping's name in: ${error.error_message}`).to.equal(true);
  expect(error.error_message).not.to.include('\n');
  expect(error.hint, error.error_message).to.be.a('string').that.matches(fix);
}
