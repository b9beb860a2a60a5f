/** What the suites of this folder ask of a server that holds control databases; which there are says servers.ts. */
import { readFileSync } from 'node:fs';

export type Rows<R> = Promise<R[]>;

export interface ControlSession {
  query<R = Record<string, unknown>>(sql: string, parameters?: unknown[]): Rows<R>;
}

export interface ControlTestDatabase extends ControlSession {
  readonly name: string;
  readonly url: string;
  /** Another session, of a person with an open transaction for example. */
  connect(): Promise<ControlSession>;
  /** Runs the file a DBA runs. */
  runSchemaFile(): Promise<void>;
  /** Takes all rows away; only where `reuse` says so. */
  empty?(): Promise<void>;
  drop(): Promise<void>;
}

export interface ControlServer {
  readonly name: string;
  /** A `before` hook: skips where there is no such server. */
  require(context: Mocha.Context): Promise<void>;
  /** Of the server, without a database. */
  url(): Promise<string>;
  createDatabase(): Promise<ControlTestDatabase>;
  /** Making a database takes long: tests of one suite take turns on one. */
  readonly reuse: boolean;
  dropDatabase(name: string): Promise<void>;
  /** A login that may connect and nothing else. */
  createLogin(name: string, password: string): Promise<void>;
  dropLogin(name: string): Promise<void>;
  /** Ends the sessions of a program, in a database. */
  endSessions(application: string, database: string): Promise<void>;
  /** Statistics are up to date, as they are on a server that has been running. */
  analyze(database: string): Promise<void>;
  /** How long the server takes for a query, the transfer left out where it says so itself. */
  time(database: ControlTestDatabase, sql: string): Promise<{ ms: number; rows: number }>;
  /** Parameters of a URL that ask for more TLS than the server has. */
  readonly demandingTls: string;
  readonly sql: {
    readonly now: string;
    /** `expression` plus seconds (a number, or an SQL expression). */
    shift(expression: string, seconds: number | string): string;
    /** Seconds from now until `expression`. */
    secondsUntil(expression: string): string;
    /** A table of one column `n`. */
    numbers(from: number, to: number): string;
    /** Changes when any row of `table` is written. */
    writes(table: string): string;
    createDatabase(name: string): string;
    /** Inserts a number that the database would give out itself. */
    withIdentity(table: string, insert: string): string;
  };
}

export const schemaFile = (engine: string) =>
  readFileSync(new URL(`../../sql/${engine}/schema.sql`, import.meta.url), 'utf8');

/** Tables that no other refers to. */
export const TABLES = [
  'config',
  'mapping_state',
  'stream_health',
  'full_sync_requests',
  'leases',
  'source_objects',
  'sync_progress',
  'sync_status',
  'sync_logs',
  'error_logs',
  'verification_logs',
  'verification_mismatches',
  'dead_letters',
];
