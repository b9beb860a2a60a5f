/** One embedded PostgreSQL for a whole test run, started at its first use; each suite makes databases of its own in it. */
import './loaded-once.ts';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/embedded/postgres.ts';

let started: Promise<EmbeddedPostgres> | null = null;
let directory: string | null = null;

/** Settings of the shared server: logical decoding, room for many slots, and no waiting for disks. */
export const TEST_SETTINGS = {
  wal_level: 'logical',
  max_wal_senders: '40',
  max_replication_slots: '40',
  max_connections: '300',
  fsync: 'off',
  wal_sender_timeout: '60s',
  log_statement: 'none',
} as const;

export function testServer(): Promise<EmbeddedPostgres> {
  started ??= (async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'sluice-test-'));
    chmodSync(directory, 0o755); // run as root, the server is another user
    const server = await startEmbeddedPostgres({ directory: path.join(directory, 'data'), settings: TEST_SETTINGS });
    // A run that ends before its last hook leaves nothing running either: SIGQUIT is an immediate shutdown.
    process.once('exit', () => {
      if (started === null) return;
      try {
        process.kill(server.pid, 'SIGQUIT');
      } catch {
        // It is gone already.
      }
    });
    return server;
  })();
  return started;
}

/** Called once at the end of the run (root hook in `hooks.ts`). */
export async function stopTestServer(): Promise<void> {
  if (started) await (await started).stop();
  if (directory) rmSync(directory, { recursive: true, force: true });
  started = null;
  directory = null;
}

export interface TestDatabase {
  readonly name: string;
  readonly url: string;
  /** Runs SQL on a connection kept open for the test. */
  query<R extends pg.QueryResultRow = Record<string, unknown>>(sql: string, params?: unknown[]): Promise<R[]>;
  /** Another connection, closed by `drop`. */
  connect(): Promise<pg.Client>;
  drop(): Promise<void>;
}

/** A new empty database with a random name. `drop` also removes replication slots left in it. */
export async function createDatabase(prefix = 't'): Promise<TestDatabase> {
  const server = await testServer();
  const name = `${prefix}_${randomBytes(4).toString('hex')}`;
  await once(server.url(), `CREATE DATABASE "${name}"`);
  const url = server.url(name);
  const clients: pg.Client[] = [];
  const connect = async () => {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => undefined); // killed on purpose by some tests
    await client.connect();
    clients.push(client);
    return client;
  };
  let main: pg.Client | null = null;
  return {
    name,
    url,
    connect,
    query: async <R extends pg.QueryResultRow>(sql: string, params?: unknown[]) => {
      main ??= await connect();
      return (await main.query<R>(sql, params)).rows;
    },
    drop: async () => {
      await Promise.all(clients.map((client) => client.end().catch(() => undefined)));
      await once(
        server.url(),
        `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '${name}' AND active`,
      );
      await new Promise((resolve) => setTimeout(resolve, 20));
      await once(
        server.url(),
        `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '${name}'`,
      ).catch(() => undefined);
      await once(server.url(), `DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`).catch(() => undefined);
    },
  };
}

async function once(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
