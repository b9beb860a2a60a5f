/** Errors of mysql2 and knex on the control database, as ours. Messages carry no secret and no bound value (invariant 12). */
import { SluiceError, type ErrorCode } from '../../model/errors.ts';
import { SOCKET_ERRORS } from '../../model/socket-errors.ts';
import { serversWords } from './problems.ts';

/** MySQL Server Error Message Reference; MariaDB has the same numbers below 1900, and its own above. */
const BY_NUMBER: Readonly<Record<number, ErrorCode>> = {
  1020: 'DEADLOCK', // record has changed since last read (MariaDB, innodb_snapshot_isolation)
  1021: 'SERVER_FULL', // disk full
  1037: 'SERVER_FULL',
  1040: 'CONTROL_UNREACHABLE', // too many connections
  1041: 'SERVER_FULL',
  1044: 'PERMISSION_DENIED', // database
  1045: 'LOGIN_FAILED',
  1049: 'DATABASE_MISSING',
  1053: 'CONTROL_UNREACHABLE', // shutdown in progress
  1114: 'SERVER_FULL', // table is full
  1129: 'LOGIN_FAILED', // host is blocked
  1130: 'LOGIN_FAILED', // host is not allowed
  1142: 'PERMISSION_DENIED', // table
  1143: 'PERMISSION_DENIED', // column
  1146: 'CONFIG_INVALID', // no such table: not migrated, or another database
  1158: 'CONTROL_UNREACHABLE',
  1159: 'CONTROL_UNREACHABLE',
  1160: 'CONTROL_UNREACHABLE',
  1161: 'CONTROL_UNREACHABLE',
  1203: 'CONTROL_UNREACHABLE', // max_user_connections
  1205: 'TIMEOUT', // lock wait timeout
  1206: 'SERVER_FULL', // lock table full
  1213: 'DEADLOCK',
  1226: 'CONTROL_UNREACHABLE', // user resource limit
  1227: 'PERMISSION_DENIED',
  1290: 'CONTROL_UNREACHABLE', // --read-only: a failover
  1317: 'TIMEOUT', // query was interrupted
  1370: 'PERMISSION_DENIED',
  1419: 'PERMISSION_DENIED', // triggers, with the binary log on
  1615: 'DEADLOCK', // prepared statement needs to be re-prepared: nothing was done, and it may be run again
  1665: 'CONFIG_INVALID', // binlog_format = STATEMENT
  1698: 'LOGIN_FAILED',
  1792: 'CONTROL_UNREACHABLE', // read only transaction
  1820: 'LOGIN_FAILED', // password must be changed
  1836: 'CONTROL_UNREACHABLE', // read-only mode
  1862: 'LOGIN_FAILED', // password expired
  1927: 'CONTROL_UNREACHABLE', // connection was killed (MariaDB)
  1969: 'TIMEOUT', // max_statement_time (MariaDB)
  3024: 'TIMEOUT', // max_execution_time
  3118: 'LOGIN_FAILED', // account is locked
  3168: 'CONTROL_UNREACHABLE', // the server is not available
  4031: 'CONTROL_UNREACHABLE', // inactive too long
  4151: 'LOGIN_FAILED', // account is locked (MariaDB)
};

const BY_CODE: Readonly<Record<string, ErrorCode>> = {
  // A socket file that is not there.
  ENOENT: 'CONTROL_UNREACHABLE',
  PROTOCOL_CONNECTION_LOST: 'CONTROL_UNREACHABLE',
  PROTOCOL_ERROR: 'CONTROL_UNREACHABLE',
  PROTOCOL_UNEXPECTED_PACKET: 'CONTROL_UNREACHABLE',
  PROTOCOL_SEQUENCE_TIMEOUT: 'CONTROL_UNREACHABLE',
  HANDSHAKE_NO_SSL_SUPPORT: 'TLS_FAILED',
  HANDSHAKE_SSL_ERROR: 'TLS_FAILED',
  AUTH_SWITCH_PLUGIN_ERROR: 'LOGIN_FAILED',
};

/** Their messages quote values: duplicates, violated constraints, conversions, truncation. */
const QUOTING: ReadonlySet<number> = new Set([
  1048, 1062, 1216, 1217, 1264, 1265, 1292, 1300, 1366, 1406, 1451, 1452, 1690, 3140, 3819, 3988, 4025,
]);

const TLS_TEXT = /self.signed|certificate|\bSSL\b|\bTLS\b|unable to verify|altnames/i;
const CONNECTION_TEXT = /closed state|Connection lost|Connection terminated|Timeout acquiring|Unable to acquire/i;

const HINTS: Partial<Record<ErrorCode, string>> = {
  CONTROL_UNREACHABLE:
    'Check that the server of the control database runs, accepts writes and can be reached (bind-address, firewall); the service waits and goes on by itself.',
  LOGIN_FAILED: 'Check the user name and password of DEST_URL, and from which hosts the account may connect.',
  DATABASE_MISSING: 'Create the database, or name another with CONTROL_DATABASE.',
  PERMISSION_DENIED: 'Grant the account ALL on the control database.',
  CONFIG_INVALID: 'Run `sluice migrate`, or name the right database with CONTROL_DATABASE.',
  TIMEOUT: 'Another session holds the rows, perhaps an open transaction in a SQL client: commit it or roll it back.',
  SERVER_FULL: 'Free disk space or memory on the server of the control database.',
  TLS_FAILED:
    'Name the certificate authority with ssl-ca=/path/ca.pem, or use ssl-mode=REQUIRED to encrypt without verifying.',
};

const HINTS_BY_NUMBER: Readonly<Record<number, string>> = {
  1419: 'Ask a DBA to run: SET GLOBAL log_bin_trust_function_creators = 1; the control tables have triggers, and the binary log is on.',
  1665: "Ask a DBA to run: SET GLOBAL binlog_format = 'ROW'; Sluice reads what is committed, which the format STATEMENT cannot record.",
};

interface DriverError {
  readonly errno?: unknown;
  readonly code?: unknown;
  readonly message?: unknown;
}

/** The server's error number, else null: the driver has numbers of sockets' errors in the same place. */
export function numberOf(thrown: unknown): number | null {
  const errno = (thrown as DriverError | null | undefined)?.errno;
  return typeof errno === 'number' && errno >= 1000 ? errno : null;
}

export function classifyMysql(thrown: unknown, doing: string): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const error = (thrown ?? {}) as DriverError;
  const number = numberOf(thrown);
  const text = textOf(error);
  const code = (number === null ? byDriver(error, text) : BY_NUMBER[number]) ?? 'INTERNAL';
  const told = number !== null && QUOTING.has(number) ? nameOf(number, text) : text;
  return new SluiceError(code, `could not ${doing}: ${told}`, {
    hint: (number === null ? undefined : HINTS_BY_NUMBER[number]) ?? HINTS[code],
    // The original without its statement: a logger may print causes whole.
    cause: Object.assign(new Error(told), number === null ? {} : { errno: number }),
  });
}

function byDriver(error: DriverError, text: string): ErrorCode | undefined {
  const { code } = error;
  if (typeof code === 'string') {
    const socket = SOCKET_ERRORS[code];
    if (socket !== undefined) return socket === 'TLS_FAILED' ? socket : 'CONTROL_UNREACHABLE';
    const known = BY_CODE[code];
    if (known !== undefined) return known;
  }
  if (TLS_TEXT.test(text)) return 'TLS_FAILED';
  return CONNECTION_TEXT.test(text) ? 'CONTROL_UNREACHABLE' : undefined;
}

/** What may quote a value is told by its number and by the name of what was violated. */
function nameOf(number: number, text: string): string {
  const name = /(?:constraint|for key|for column|column) [`'"](?:[^`'"]*\.)?([^`'".]+)[`'"]/i.exec(text)?.[1];
  return `error ${number}${name === undefined ? '' : `, constraint ${name}`}`;
}

function textOf(error: DriverError): string {
  // Several addresses refused: the error that stands for them has no message of its own.
  if (error instanceof AggregateError && !error.message)
    return error.errors.map((each) => textOf((each ?? {}) as DriverError)).join('; ');
  return serversWords(typeof error.message === 'string' && error.message ? error.message : 'unknown error');
}
