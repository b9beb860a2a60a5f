/** PostgreSQL 14 and newer: source, change source and destination. */
import type { Engine, EngineDatabase, OpenOptions, TriggerSource } from '../contract.ts';
import { PostgresCatalog } from './catalog.ts';
import { PostgresChanges } from './changes.ts';
import { PostgresChecksummer } from './checksum.ts';
import { clientConfig, Connection } from './connection.ts';
import { PostgresDestination } from './destination.ts';
import { PostgresPreflight } from './preflight.ts';
import { PostgresSnapshot } from './snapshot.ts';
import { triggerColumns } from './triggers.ts';

export const postgres: Engine = {
  name: 'postgres',
  schemes: ['postgres', 'postgresql'],
  defaultSchema: 'public',
  streamScope: 'database',
  check: (connectionString) => void clientConfig(connectionString),
  databaseOf: (connectionString) => clientConfig(connectionString).config.database ?? null,
  open: (options) => new PostgresDatabase(options),
};

class PostgresDatabase implements EngineDatabase {
  readonly engine = postgres;
  readonly catalog: PostgresCatalog;
  readonly preflight: PostgresPreflight;
  readonly snapshot: PostgresSnapshot;
  readonly changes: PostgresChanges;
  readonly destination: PostgresDestination;
  readonly checksum: PostgresChecksummer;
  readonly triggers: TriggerSource;
  readonly #connection: Connection;

  constructor(options: OpenOptions) {
    this.#connection = new Connection(options);
    this.catalog = new PostgresCatalog(this.#connection);
    this.preflight = new PostgresPreflight(this.#connection);
    this.snapshot = new PostgresSnapshot(this.#connection);
    this.changes = new PostgresChanges(this.#connection);
    this.destination = new PostgresDestination(this.#connection);
    this.checksum = new PostgresChecksummer(this.#connection);
    this.triggers = triggerColumns(this.#connection);
  }

  async ping(): Promise<{ version: string }> {
    const [row] = await this.#connection.query('ask for the version', 'SELECT current_setting($1) AS version', [
      'server_version',
    ]);
    return { version: `PostgreSQL ${row?.['version'] ?? 'unknown'}` };
  }

  close(): Promise<void> {
    return this.#connection.close();
  }
}
