/** What an engine is, and one database of one of its servers. */
import type { Table, TableName } from '../../model/tables.ts';
import type { Finding } from '../../model/findings.ts';
import type { ChangeSource } from './changes.ts';
import type { Checksummer } from './checksum.ts';
import type { Destination } from './destination.ts';
import type { SnapshotSource, TriggerSource } from './snapshot.ts';

export interface Engine {
  readonly name: string;
  /** URL schemes of connection strings, without `://`. */
  readonly schemes: readonly string[];
  /** Recognizes connection strings of another form than a URL (`server=…;user id=…`). */
  understands?(connectionString: string): boolean;
  /** Checks a connection string without connecting. Throws MAPPING_INVALID with a hint; the message holds no secret. */
  check(connectionString: string): void;
  /** The database a connection string names, or null. */
  databaseOf(connectionString: string): string | null;
  /** The schema that a NULL `source_schema`/`dest_schema` means. */
  readonly defaultSchema: string;
  /**
   * What one log, and so one change stream, is of: a database, or a server with all its databases (PROTOCOL, The stream). Of a server, the
   * schema of a source's table is its database, so that tables of two databases are told apart.
   */
  readonly streamScope: 'database' | 'server';
  /** Opens a handle; sessions are made when first needed, so this does not connect. */
  open(options: OpenOptions): EngineDatabase;
}

export interface OpenOptions {
  /** Secrets already resolved. */
  readonly connectionString: string;
  /** The database; wins over the string's. Null: the string's. */
  readonly database: string | null;
  /** No database is chosen, whatever the string names: the handle is of a stream whose scope is the server. */
  readonly serverWide?: boolean;
  /** Names our slots, publications, staging tables and position rows. */
  readonly installation: Installation;
  /** Shown to the DBA by the server (application_name and the like). */
  readonly applicationName: string;
  /** Idle sessions kept for short queries. */
  readonly maxSessions?: number;
}

export interface Installation {
  /** The control database's `installation_uid`. */
  readonly uid: string;
}

/** One database of one server, or (`serverWide`) the server as far as its change stream goes. */
export interface EngineDatabase {
  readonly engine: Engine;
  /** Connects and asks for the version; the cheapest proof that the server is there. */
  ping(): Promise<{ version: string }>;
  readonly catalog: Catalog;
  readonly preflight: Preflight | null;
  readonly snapshot: SnapshotSource | null;
  readonly changes: ChangeSource | null;
  readonly destination: Destination | null;
  readonly checksum: Checksummer | null;
  readonly triggers: TriggerSource | null;
  /** Ends every session, readers and appliers included. Safe to call twice. */
  close(): Promise<void>;
}

export interface Catalog {
  /** The tables as they are now, in one round trip; null for one that is missing or not visible. Same order as asked. */
  describe(names: readonly TableName[]): Promise<(Table | null)[]>;
  /** No row is visible. Reads at most one. */
  isEmpty(name: TableName): Promise<boolean>;
}

/** What is missing for a role, each with the exact SQL that fixes it. */
export interface Preflight {
  /** Findings for following `tables` (none named: for the server alone). An empty list means ready. */
  source(tables: readonly TableName[], options: { cdc: boolean }): Promise<Finding[]>;
  destination(): Promise<Finding[]>;
}
