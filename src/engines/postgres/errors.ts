import { SluiceError, type ErrorCode } from '../../model/errors.ts';
import { SOCKET_ERRORS } from '../../model/socket-errors.ts';

interface DriverError {
  readonly code?: unknown;
  readonly message?: unknown;
  readonly column?: unknown;
  readonly constraint?: unknown;
  readonly severity?: unknown;
}

/**
 * Classes of SQLSTATE (PostgreSQL manual, Appendix A). Longest prefix wins.
 * A message of the server may quote a row's values in its DETAIL, never in its primary message for these classes; the ones that
 * do (22P02 and the like) get a message of our own (invariant 12).
 */
const BY_STATE: Readonly<Record<string, ErrorCode>> = {
  '08': 'CONNECTION_LOST',
  '0A': 'INTERNAL',
  '22': 'ROW_REFUSED',
  '23': 'ROW_REFUSED',
  '28': 'LOGIN_FAILED',
  '3D000': 'DATABASE_MISSING',
  '40': 'DEADLOCK',
  '42501': 'PERMISSION_DENIED',
  '42P01': 'DESTINATION_TABLE_MISSING',
  '42703': 'SCHEMA_CHANGED',
  '42804': 'SCHEMA_CHANGED',
  '53': 'SERVER_FULL',
  '53300': 'SERVER_BUSY',
  '53400': 'CDC_SLOTS_EXHAUSTED',
  '54': 'ROW_REFUSED',
  '55006': 'CDC_IN_USE',
  '55P03': 'TIMEOUT',
  '57014': 'TIMEOUT',
  '57P01': 'CONNECTION_LOST',
  '57P02': 'CONNECTION_LOST',
  '57P03': 'SERVER_BUSY',
  '57P05': 'CONNECTION_LOST',
  '58': 'SERVER_FULL',
};

/** foreign_key_violation, unique_violation, exclusion_violation: all others are between a row and its table alone. */
const CONFLICTS: ReadonlySet<string> = new Set(['23503', '23505', '23P01']);

const HINTS: Partial<Record<ErrorCode, string>> = {
  LOGIN_FAILED: 'Check the user name and password of the connection string, and pg_hba.conf of the server.',
  SERVER_UNREACHABLE:
    'Check host and port of the connection string, that the server runs, and that a firewall lets us through.',
  DATABASE_MISSING: 'Check the database name, or create it.',
  TLS_FAILED:
    'Name the certificate authority with sslrootcert=/path/ca.pem, or use sslmode=require to encrypt without verifying.',
  SERVER_BUSY: 'Raise max_connections on the server, or lower parallel_scheduler_count.',
  SERVER_FULL: 'Free disk space or memory on the server.',
  CDC_IN_USE: 'Another process reads this replication slot; it is taken over when its lease has expired.',
};

/** SQLSTATE (or Node's error code) of a driver error, if it has one. */
export function sqlState(thrown: unknown): string | null {
  const cause = thrown instanceof SluiceError ? thrown.cause : thrown;
  const code = (cause as DriverError | undefined)?.code;
  return typeof code === 'string' ? code : null;
}

/** Turns whatever pg throws into a SluiceError. `doing` completes "could not …" for a reader of the log. */
export function classify(thrown: unknown, doing: string): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const error = thrown as DriverError;
  const text = typeof error.message === 'string' ? error.message : String(thrown);
  const state = sqlState(thrown);
  let code: ErrorCode = 'INTERNAL';
  if (state !== null) code = BY_STATE[state] ?? SOCKET_ERRORS[state] ?? BY_STATE[state.slice(0, 2)] ?? 'INTERNAL';
  else if (/terminated|Connection ended|not queryable|ended unexpectedly|closed the connection/i.test(text))
    code = 'CONNECTION_LOST';
  else if (/timeout/i.test(text)) code = 'SERVER_UNREACHABLE';
  else if (/SSL|certificate/i.test(text)) code = 'TLS_FAILED';
  else if (/password|SASL|SCRAM/i.test(text)) code = 'LOGIN_FAILED';
  // These two classes quote values in their primary message ("invalid input syntax for type integer: ...").
  const message =
    code === 'ROW_REFUSED'
      ? `could not ${doing}: SQLSTATE ${state ?? '?'}${typeof error.constraint === 'string' ? `, constraint ${error.constraint}` : ''}${typeof error.column === 'string' ? `, column ${error.column}` : ''}`
      : `could not ${doing}: ${text}`;
  return new SluiceError(code, message, { hint: HINTS[code], isConflict: CONFLICTS.has(state ?? ''), cause: thrown });
}
