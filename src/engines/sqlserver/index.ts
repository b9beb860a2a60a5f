/** SQL Server 2019 and newer: source, change source and destination. */
import { isKeyValueString } from '../../model/key-value-string.ts';
import { parseSqlServerAddress, SQLSERVER_SCHEMES } from './address.ts';
import type { Engine, EngineDatabase, OpenOptions, TriggerSource } from '../contract.ts';
import { CapturedCatalog } from './captured-catalog.ts';
import { SqlServerChanges } from './changes.ts';
import { SqlServerChecksummer } from './checksum.ts';
import { Connection } from './connection.ts';
import { SqlServerDestination } from './destination.ts';
import { SqlServerPreflight } from './preflight.ts';
import { SqlServerSnapshot } from './snapshot.ts';
import { triggerColumns } from './triggers.ts';

export const sqlserver: Engine = {
  name: 'sqlserver',
  schemes: SQLSERVER_SCHEMES,
  understands: isKeyValueString,
  defaultSchema: 'dbo',
  streamScope: 'database',
  check: (connectionString) => void parseSqlServerAddress(connectionString),
  databaseOf: (connectionString) => parseSqlServerAddress(connectionString).database,
  open: (options) => new SqlServerDatabase(options),
};

class SqlServerDatabase implements EngineDatabase {
  readonly engine = sqlserver;
  readonly catalog: CapturedCatalog;
  readonly preflight: SqlServerPreflight;
  readonly snapshot: SqlServerSnapshot;
  readonly changes: SqlServerChanges;
  readonly destination: SqlServerDestination;
  readonly checksum: SqlServerChecksummer;
  readonly triggers: TriggerSource;
  readonly #connection: Connection;

  constructor(options: OpenOptions) {
    this.#connection = new Connection(options);
    this.catalog = new CapturedCatalog(this.#connection);
    this.snapshot = new SqlServerSnapshot(this.#connection);
    this.checksum = new SqlServerChecksummer(this.#connection);
    this.triggers = triggerColumns(this.#connection);
    this.changes = new SqlServerChanges(this.#connection);
    this.preflight = new SqlServerPreflight(this.#connection);
    this.destination = new SqlServerDestination(this.#connection);
  }

  async ping(): Promise<{ version: string }> {
    const [row] = await this.#connection.query(
      'ask for the version',
      `SELECT CAST(SERVERPROPERTY('ProductVersion') AS nvarchar(128)) AS version`,
    );
    return { version: `SQL Server ${String(row?.['version'] ?? 'unknown')}` };
  }

  close(): Promise<void> {
    return this.#connection.close();
  }
}
