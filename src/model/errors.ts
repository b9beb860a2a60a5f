/**
 * Every failure Sluice reports, by code. The comment above each code is its manual entry; `docs/errors.md` is printed
 * from this file, so write the comment for the person who meets the code at night.
 */
export const ERROR_CODES = {
  /** A configuration value (environment, `config` table, command line) is missing, unknown or out of range. */
  CONFIG_INVALID: 'never',
  /** A row of `source_servers`, `destination_servers` or `table_mappings` cannot be understood. Others keep running. */
  MAPPING_INVALID: 'on_change',
  /** No destination is configured: set DEST_URL (or DEST_SERVER …), or start with `--embedded`. */
  DESTINATION_MISSING: 'never',
  /** The connection string's scheme belongs to no engine of this build. */
  ENGINE_UNKNOWN: 'on_change',
  /** The engine is known but lacks what the mapping asks of it (for example change capture). */
  CAPABILITY_MISSING: 'on_change',
  /** A secret reference (`${env:…}`, `${file:…}`, `enc:v1:…`) could not be resolved. */
  SECRET_UNREADABLE: 'on_change',
  /** The server refused the user name or password. */
  LOGIN_FAILED: 'backoff',
  /** The host name does not resolve, or nothing answers at that host and port. */
  SERVER_UNREACHABLE: 'backoff',
  /** The server is there, but the database named does not exist. */
  DATABASE_MISSING: 'backoff',
  /** TLS could not be negotiated, or the certificate is not trusted. */
  TLS_FAILED: 'backoff',
  /** A connection was lost while in use. Work since the last commit is done again. */
  CONNECTION_LOST: 'backoff',
  /** The server has no free connection for us, or is starting up or shutting down. */
  SERVER_BUSY: 'backoff',
  /** A statement ran longer than its limit, or waited too long for a lock. */
  TIMEOUT: 'backoff',
  /** This transaction was chosen as a deadlock's victim, or failed to serialize. It is run again. */
  DEADLOCK: 'backoff',
  /** The server ran out of disk, log space or memory. */
  SERVER_FULL: 'backoff',
  /** The login lacks a right. The hint has the statement that grants it. */
  PERMISSION_DENIED: 'backoff',
  /** The source's table does not exist, or the login cannot see it. */
  SOURCE_TABLE_MISSING: 'on_change',
  /** The source's table was renamed or replaced by another of the same name while it was followed. */
  SOURCE_TABLE_REPLACED: 'on_change',
  /** The destination's table is gone. */
  DESTINATION_TABLE_MISSING: 'on_change',
  /** Changes cannot be followed without a key: a primary key, or a unique index on columns that are not null. */
  KEY_REQUIRED: 'on_change',
  /** The key named in `primary_key_column` is not unique and not null at the source, or lacks a unique index at the destination. */
  KEY_INVALID: 'on_change',
  /** The schema check found a column or type that cannot be carried exactly. `sync_logs` has one line per column. */
  SCHEMA_MISMATCH: 'on_change',
  /** A column was added at the source that cannot be followed in place; a full sync was requested. */
  COLUMN_ADDED: 'on_change',
  /** The source's table changed in a way that cannot be followed (dropped or retyped column, lost key). */
  SCHEMA_CHANGED: 'on_change',
  /** Another mapping already writes to this destination table. */
  DESTINATION_TAKEN: 'on_change',
  /** The destination table holds rows that Sluice did not put there: `is_full_sync = 1` replaces them, `initial_sync = 'none'` adopts them. */
  DESTINATION_NOT_EMPTY: 'on_change',
  /** The destination table has triggers or foreign keys that cannot be suspended for the session. */
  DESTINATION_GUARDED: 'on_change',
  /** Change capture is not set up at the source. The hint has the exact statements. */
  CDC_NOT_READY: 'backoff',
  /** No replication slot (or capture job, or log reader) is free at the source. */
  CDC_SLOTS_EXHAUSTED: 'backoff',
  /** The reader of this change stream is in use by someone else. */
  CDC_IN_USE: 'backoff',
  /** The source has discarded changes that this mapping has not seen, or is not the server it was. `on_gap` decides what follows. */
  GAP: 'on_change',
  /** The backlog of a paused, failing or copying mapping grew past `backlog_max_bytes`. */
  BACKLOG_FULL: 'on_change',
  /** The destination stayed away longer than `hold_max_bytes` or `hold_max_hours` allow, so the source's log was released. */
  HOLD_EXCEEDED: 'on_change',
  /** The source's trigger column could not be set back to 0; it counts once, and no more until 0 was seen. */
  TRIGGER_RESET_DENIED: 'backoff',
  /** Somebody else owns this work now: our epoch is older than the one stored with the data. Nothing was written. */
  FENCED: 'backoff',
  /** The rows a copy was reading moved (the table was rewritten or truncated); the copy starts again. */
  COPY_RESTARTED: 'backoff',
  /** The person set `is_full_sync` back to 0, or disabled the mapping, during the copy. */
  CANCELLED: 'never',
  /** The destination refused a row (constraint, range, encoding). Its key is in `dead_letters`. */
  ROW_REFUSED: 'on_change',
  /** Source and destination differ; the keys are in `verification_mismatches`. */
  VERIFICATION_FAILED: 'never',
  /** The control database is of a newer version than this program can serve. */
  CONTROL_TOO_NEW: 'never',
  /** The control database does not answer. The service waits for it. */
  CONTROL_UNREACHABLE: 'backoff',
  /** Something Sluice did not foresee. The cause is attached; please report it. */
  INTERNAL: 'backoff',
} as const satisfies Record<string, RetryClass>;

/** `never`: trying again cannot help. `backoff`: try again later. `on_change`: try again when the row or the schema changes (and rarely, in case). */
export type RetryClass = 'never' | 'backoff' | 'on_change';

export type ErrorCode = keyof typeof ERROR_CODES;

export interface SluiceErrorOptions {
  /** What to do about it, in one sentence; may hold the SQL that fixes it. Never a secret, never a row's value. */
  hint?: string | undefined;
  /** Overrides the code's own retry class. */
  retry?: RetryClass | undefined;
  /** Of ROW_REFUSED: the row is refused because of another one (unique, foreign key), not for what it is. */
  isConflict?: boolean | undefined;
  /** Of CDC_NOT_READY: what changes at the source until it is ready is in no log. */
  losesChanges?: boolean | undefined;
  cause?: unknown;
}

/** The one error type: a code, what happened, what to do, and whether to try again. Messages hold no secrets and no row values. */
export class SluiceError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | null;
  readonly retry: RetryClass;
  readonly isConflict: boolean;
  readonly losesChanges: boolean;

  constructor(code: ErrorCode, message: string, options: SluiceErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SluiceError';
    this.code = code;
    this.hint = options.hint ?? null;
    this.retry = options.retry ?? ERROR_CODES[code];
    this.isConflict = options.isConflict ?? false;
    this.losesChanges = options.losesChanges ?? false;
  }
}

/** Anything thrown, as a SluiceError; what is not one already becomes INTERNAL with the original as cause. */
export function toSluiceError(thrown: unknown): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new SluiceError('INTERNAL', message, { cause: thrown });
}

export function hasCode(thrown: unknown, ...codes: ErrorCode[]): thrown is SluiceError {
  return thrown instanceof SluiceError && codes.includes(thrown.code);
}
