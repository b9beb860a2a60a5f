/** MySQL 8.0 and newer, MariaDB 10.6 and newer: source, change source and destination. */
import { MYSQL_SCHEMES, parseMysqlAddress } from './address.ts';
import type { Engine, EngineDatabase, OpenOptions, TriggerSource } from '../contract.ts';
import { MysqlCatalog } from './catalog.ts';
import { Connection } from './connection.ts';
import { MysqlChecksummer } from './checksum.ts';
import { MysqlChanges } from './changes.ts';
import { MysqlDestination } from './destination.ts';
import { MysqlPreflight } from './preflight.ts';
import { MysqlSnapshot } from './snapshot.ts';
import { triggerColumns } from './triggers.ts';
import { ENGINE } from './types.ts';

export const mysql: Engine = {
  name: ENGINE,
  schemes: MYSQL_SCHEMES,
  // A database has no schemas in it: the empty name is the session's own database.
  defaultSchema: '',
  streamScope: 'server',
  check: (connectionString) => void parseMysqlAddress(connectionString),
  databaseOf: (connectionString) => parseMysqlAddress(connectionString).database,
  open: (options) => new MysqlDatabase(options),
};

class MysqlDatabase implements EngineDatabase {
  readonly engine = mysql;
  readonly catalog: MysqlCatalog;
  readonly preflight: MysqlPreflight;
  readonly snapshot: MysqlSnapshot;
  readonly changes: MysqlChanges;
  readonly destination: MysqlDestination;
  readonly checksum: MysqlChecksummer;
  readonly triggers: TriggerSource;
  readonly #connection: Connection;

  constructor(options: OpenOptions) {
    this.#connection = new Connection(options);
    this.catalog = new MysqlCatalog(this.#connection);
    this.preflight = new MysqlPreflight(this.#connection);
    this.snapshot = new MysqlSnapshot(this.#connection);
    this.destination = new MysqlDestination(this.#connection);
    this.changes = new MysqlChanges(this.#connection);
    this.checksum = new MysqlChecksummer(this.#connection);
    this.triggers = triggerColumns(this.#connection);
  }

  async ping(): Promise<{ version: string }> {
    const { kind } = await this.#connection.use((session) => Promise.resolve(session));
    return { version: kind.isMariaDb ? `MariaDB ${kind.version}` : `MySQL ${kind.version}` };
  }

  close(): Promise<void> {
    return this.#connection.close();
  }
}
