/** Where the demo plays: a folder, an embedded PostgreSQL in it, two databases, and the sessions on them. All of it goes with `strike`. */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../embedded/postgres.ts';

export const SOURCE_DATABASE = 'demo_source';
export const COPY_DATABASE = 'demo_copy';
export const CONTROL_DATABASE = 'sluice';

export interface Stage {
  readonly folder: string;
  readonly server: EmbeddedPostgres;
  /** A session of its own on one of the databases; ended by `strike`. */
  connect(database: string): Promise<pg.Client>;
  strike(): Promise<void>;
}

export async function setStage(): Promise<Stage> {
  const folder = mkdtempSync(path.join(tmpdir(), 'sluice-demo-'));
  // As root the server runs as another user, who has to get in.
  chmodSync(folder, 0o755);
  const clients: pg.Client[] = [];
  const server = await startEmbeddedPostgres({
    directory: path.join(folder, 'data'),
    settings: { wal_level: 'logical', max_wal_senders: '10', max_replication_slots: '10', max_connections: '100' },
  }).catch((error: unknown) => {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  });
  const stage: Stage = {
    folder,
    server,
    connect: async (database) => {
      const client = new pg.Client({ connectionString: server.url(database), application_name: 'sluice demo' });
      client.on('error', () => undefined); // the server stops before the sessions at the end
      await client.connect();
      clients.push(client);
      return client;
    },
    strike: async () => {
      await Promise.allSettled(clients.map((client) => client.end()));
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  try {
    const client = await stage.connect('postgres');
    for (const name of [SOURCE_DATABASE, COPY_DATABASE]) await client.query(`CREATE DATABASE ${name}`);
  } catch (error) {
    await stage.strike();
    throw error;
  }
  return stage;
}
