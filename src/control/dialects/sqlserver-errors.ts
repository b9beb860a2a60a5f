/** Errors of tedious and knex on the control database, as ours. Messages carry no secret and no bound value (invariant 12). */
import { SluiceError, type ErrorCode } from '../../model/errors.ts';
import { SOCKET_ERRORS } from '../../model/socket-errors.ts';
import { serversWords } from './problems.ts';

/** SQL Server manual, Database engine events and errors. */
const BY_NUMBER: Readonly<Record<number, ErrorCode>> = {
  208: 'CONFIG_INVALID', // invalid object name: not migrated, or another database
  229: 'PERMISSION_DENIED',
  230: 'PERMISSION_DENIED',
  262: 'PERMISSION_DENIED', // CREATE DATABASE, CREATE TABLE denied
  297: 'PERMISSION_DENIED',
  300: 'PERMISSION_DENIED',
  596: 'CONTROL_UNREACHABLE', // the session was killed
  701: 'SERVER_FULL',
  802: 'SERVER_FULL',
  904: 'CONTROL_UNREACHABLE',
  911: 'DATABASE_MISSING',
  916: 'PERMISSION_DENIED',
  921: 'CONTROL_UNREACHABLE', // not recovered yet
  922: 'CONTROL_UNREACHABLE',
  924: 'CONTROL_UNREACHABLE', // single user
  927: 'CONTROL_UNREACHABLE', // restoring
  942: 'CONTROL_UNREACHABLE', // offline
  976: 'CONTROL_UNREACHABLE', // secondary replica
  978: 'CONTROL_UNREACHABLE',
  983: 'CONTROL_UNREACHABLE',
  1101: 'SERVER_FULL',
  1105: 'SERVER_FULL',
  1204: 'SERVER_FULL',
  1205: 'DEADLOCK',
  1222: 'TIMEOUT', // lock request time out
  1807: 'DEADLOCK', // exclusive lock on model: another CREATE DATABASE is under way
  2760: 'PERMISSION_DENIED',
  3702: 'CONTROL_UNREACHABLE',
  3906: 'CONTROL_UNREACHABLE', // the database is read-only: a failover
  3960: 'DEADLOCK',
  4060: 'DATABASE_MISSING',
  6005: 'CONTROL_UNREACHABLE', // shutdown is in progress
  9001: 'CONTROL_UNREACHABLE',
  9002: 'SERVER_FULL',
  10928: 'CONTROL_UNREACHABLE',
  10929: 'CONTROL_UNREACHABLE',
  15247: 'PERMISSION_DENIED',
  17142: 'CONTROL_UNREACHABLE', // the service is paused
  18401: 'CONTROL_UNREACHABLE', // upgrading scripts
  18451: 'CONTROL_UNREACHABLE',
  18452: 'LOGIN_FAILED',
  18456: 'LOGIN_FAILED',
  18470: 'LOGIN_FAILED', // disabled
  18486: 'LOGIN_FAILED', // locked out
  18487: 'LOGIN_FAILED', // expired
  18488: 'LOGIN_FAILED',
  40613: 'CONTROL_UNREACHABLE',
};

/** Their messages quote values: conversions, overflows, violated constraints, truncation. */
const QUOTING: ReadonlySet<number> = new Set([
  220, 232, 241, 242, 244, 245, 248, 515, 547, 2601, 2627, 2628, 8114, 8115, 8152, 8169,
]);

/**
 * Servers that speak T-SQL on top of another engine pass on that engine's errors under one number where SQL Server has none of
 * its own: told by their words.
 */
const BY_WORDS: readonly (readonly [RegExp, ErrorCode])[] = [
  [/^canceling statement due to lock timeout/, 'TIMEOUT'],
  [/^deadlock detected/, 'DEADLOCK'],
  [/^terminating connection due to/, 'CONTROL_UNREACHABLE'],
  [/^relation ".*" does not exist/, 'CONFIG_INVALID'],
  [/^permission denied|^must be owner of/, 'PERMISSION_DENIED'],
];

const DRIVER_CODES = /^(ESOCKET|ECONNCLOSED|ETIMEOUT|EINSTLOOKUP|EINVALIDSTATE|ENOTOPEN)$/;
const CONNECTION_TEXT =
  /Failed to connect|Could not connect|getaddrinfo|Connection lost|connection ended|socket hang up|Timeout acquiring|LoggedIn state|Connection is closed/i;
const TLS_TEXT = /self.signed|certificate|\bSSL\b|\bTLS\b|unable to verify|altnames|EPROTO/i;

const HINTS: Partial<Record<ErrorCode, string>> = {
  CONTROL_UNREACHABLE:
    'Check that the server of the control database runs and can be reached (TCP/IP enabled, firewall, SQL Server Browser for a named instance); the service waits and goes on by itself.',
  LOGIN_FAILED: 'Check DEST_USER and DEST_PASS (or DEST_URL); SQL Server authentication must be enabled on the server.',
  DATABASE_MISSING: 'Create the database, or name another with CONTROL_DATABASE.',
  PERMISSION_DENIED: 'Make the login a member of db_owner in the control database.',
  CONFIG_INVALID: 'Run `sluice migrate`, or name the right database with CONTROL_DATABASE.',
  TIMEOUT: 'Another session holds the rows, perhaps an open transaction in a SQL client: commit it or roll it back.',
  SERVER_FULL: 'Free disk, log space or memory on the server of the control database.',
  TLS_FAILED:
    'Name the certificate authority with DEST_CA=/path/ca.pem, or set DEST_TRUST_CERT=1, or DEST_ENCRYPT=0 on a network you trust.',
};

interface DriverError {
  readonly number?: unknown;
  readonly code?: unknown;
  readonly message?: unknown;
  readonly cause?: unknown;
  readonly errors?: readonly unknown[];
}

/** The first of a request's errors says why; those behind it say that the batch ended. */
function firstOf(thrown: unknown): DriverError {
  const error = (thrown ?? {}) as DriverError;
  const first = Array.isArray(error.errors) ? (error.errors as readonly unknown[])[0] : undefined;
  return first ?? error;
}

export function numberOf(thrown: unknown): number | null {
  const { number } = firstOf(thrown);
  return typeof number === 'number' ? number : null;
}

export function classifySqlServer(thrown: unknown, doing: string): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const error = firstOf(thrown);
  const code = codeOf(error);
  return new SluiceError(code, `could not ${doing}: ${describe(error, code)}`, {
    hint: HINTS[code],
    cause: harmless(error, code),
  });
}

function codeOf(error: DriverError): ErrorCode {
  const number = typeof error.number === 'number' ? error.number : null;
  const found = number === null ? undefined : BY_NUMBER[number];
  if (found) return found;
  const text = textOf(error);
  if (TLS_TEXT.test(text)) return 'TLS_FAILED';
  if (error.code === 'ELOGIN') return 'LOGIN_FAILED';
  if (error.code === 'EENCRYPT') return 'TLS_FAILED';
  for (const code of [error.code, (error.cause as DriverError | undefined)?.code]) {
    if (typeof code === 'string' && (SOCKET_ERRORS[code] !== undefined || DRIVER_CODES.test(code)))
      return 'CONTROL_UNREACHABLE';
  }
  const words = BY_WORDS.find(([pattern]) => pattern.test(text));
  if (words) return words[1];
  return CONNECTION_TEXT.test(text) ? 'CONTROL_UNREACHABLE' : 'INTERNAL';
}

/** What may quote a value is told by its number, and so is what the engine's manual does not list (above 50,000). */
function describe(error: DriverError, code: ErrorCode): string {
  const text = textOf(error);
  if (code !== 'INTERNAL' || typeof error.number !== 'number') return text;
  if (!QUOTING.has(error.number) && error.number < 50_000) return text;
  const name = /(?:constraint|unique index) ["']([^"']+)["']/i.exec(text)?.[1];
  return `error ${error.number}${name === undefined ? '' : `, constraint ${name}`}`;
}

function textOf(error: DriverError): string {
  return serversWords(typeof error.message === 'string' ? error.message : 'unknown error');
}

/** The original without statement and connection: a logger may print causes whole. */
function harmless(error: DriverError, code: ErrorCode): Error {
  const cause = new Error(describe(error, code));
  return Object.assign(cause, typeof error.number === 'number' ? { number: error.number } : {});
}
