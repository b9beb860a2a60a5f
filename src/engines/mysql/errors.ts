import { SluiceError, type ErrorCode } from '../../model/errors.ts';
import { SOCKET_ERRORS } from '../../model/socket-errors.ts';

interface DriverError {
  readonly code?: unknown;
  readonly errno?: unknown;
  readonly sqlState?: unknown;
  readonly message?: unknown;
}

/**
 * Error numbers of the server (MySQL Server Error Message Reference; MariaDB has the same below 1900 and its own above). The
 * messages of those that become ROW_REFUSED quote values ("Duplicate entry '…'"): they get a message of our own (invariant 12).
 */
const BY_NUMBER: Readonly<Record<number, ErrorCode>> = {
  1020: 'DEADLOCK', // record has changed since last read (innodb_snapshot_isolation)
  1021: 'SERVER_FULL', // disk full
  1037: 'SERVER_FULL',
  1038: 'SERVER_FULL', // out of sort memory
  1040: 'SERVER_BUSY', // too many connections
  1041: 'SERVER_FULL',
  1044: 'PERMISSION_DENIED', // database
  1045: 'LOGIN_FAILED',
  1046: 'MAPPING_INVALID', // no database selected
  1048: 'ROW_REFUSED', // cannot be null
  1049: 'DATABASE_MISSING',
  1051: 'DESTINATION_TABLE_MISSING',
  1053: 'CONNECTION_LOST', // shutdown in progress
  1054: 'SCHEMA_CHANGED', // unknown column
  1062: 'ROW_REFUSED', // duplicate entry
  1072: 'SCHEMA_CHANGED',
  1091: 'SCHEMA_CHANGED',
  1105: 'INTERNAL',
  1114: 'SERVER_FULL', // table is full
  1129: 'LOGIN_FAILED', // host is blocked
  1130: 'LOGIN_FAILED', // host is not allowed
  1136: 'SCHEMA_CHANGED', // column count
  1142: 'PERMISSION_DENIED', // table
  1143: 'PERMISSION_DENIED', // column
  1146: 'DESTINATION_TABLE_MISSING',
  1153: 'ROW_REFUSED', // packet larger than max_allowed_packet
  1159: 'CONNECTION_LOST',
  1161: 'CONNECTION_LOST',
  1180: 'SERVER_FULL',
  1197: 'SERVER_FULL', // max_binlog_cache_size
  1203: 'SERVER_BUSY', // max_user_connections
  1205: 'TIMEOUT', // lock wait timeout
  1206: 'SERVER_FULL', // lock table full
  1213: 'DEADLOCK',
  1216: 'ROW_REFUSED', // foreign key
  1217: 'ROW_REFUSED',
  1226: 'SERVER_BUSY', // user resource limit
  1227: 'PERMISSION_DENIED', // needs privilege
  1236: 'GAP', // the source's log is not there any more
  1264: 'ROW_REFUSED', // out of range
  1265: 'ROW_REFUSED', // truncated
  1290: 'PERMISSION_DENIED', // --read-only and the like
  1292: 'ROW_REFUSED', // incorrect value
  1300: 'ROW_REFUSED', // invalid character string
  1317: 'TIMEOUT', // query was interrupted
  1364: 'ROW_REFUSED', // no default
  1366: 'ROW_REFUSED', // incorrect value
  1370: 'PERMISSION_DENIED',
  1406: 'ROW_REFUSED', // data too long
  1411: 'ROW_REFUSED',
  1412: 'COPY_RESTARTED', // table definition has changed, please retry transaction
  1416: 'ROW_REFUSED', // geometry
  1451: 'ROW_REFUSED', // foreign key
  1452: 'ROW_REFUSED',
  1526: 'ROW_REFUSED', // no partition for the value
  1665: 'CONFIG_INVALID', // binlog_format = STATEMENT, which cannot log what READ COMMITTED writes
  1690: 'ROW_REFUSED', // out of range
  1698: 'LOGIN_FAILED',
  1748: 'ROW_REFUSED', // not in the given partitions
  1785: 'CONFIG_INVALID', // GTID consistency
  1792: 'PERMISSION_DENIED', // read only transaction
  1820: 'LOGIN_FAILED', // password must be changed
  1836: 'PERMISSION_DENIED', // read-only mode
  1862: 'LOGIN_FAILED', // password expired
  1880: 'SERVER_FULL',
  1927: 'CONNECTION_LOST', // connection was killed (MariaDB)
  1969: 'TIMEOUT', // max_statement_time (MariaDB)
  3024: 'TIMEOUT', // max_execution_time
  3032: 'SERVER_BUSY',
  3118: 'LOGIN_FAILED', // account is locked
  3140: 'ROW_REFUSED', // invalid JSON
  3572: 'TIMEOUT', // NOWAIT
  3819: 'ROW_REFUSED', // check constraint
  3948: 'PERMISSION_DENIED', // local data loading is off
  3988: 'ROW_REFUSED', // no such character in the column's character set
  4025: 'ROW_REFUSED', // check constraint (MariaDB)
  4031: 'CONNECTION_LOST', // inactive too long
  4151: 'LOGIN_FAILED', // account is locked (MariaDB)
  4166: 'PERMISSION_DENIED', // local data loading is off (MariaDB)
};

/** Another row or table is why: unique indexes and foreign keys. */
const CONFLICTS: ReadonlySet<number> = new Set([1062, 1216, 1217, 1451, 1452]);

/** Codes of the driver and of Node's sockets. */
const BY_CODE: Readonly<Record<string, ErrorCode>> = {
  ...SOCKET_ERRORS,
  // A socket file that is not there.
  ENOENT: 'SERVER_UNREACHABLE',
  PROTOCOL_CONNECTION_LOST: 'CONNECTION_LOST',
  PROTOCOL_ERROR: 'CONNECTION_LOST',
  PROTOCOL_UNEXPECTED_PACKET: 'CONNECTION_LOST',
  PROTOCOL_SEQUENCE_TIMEOUT: 'TIMEOUT',
  HANDSHAKE_NO_SSL_SUPPORT: 'TLS_FAILED',
  HANDSHAKE_SSL_ERROR: 'TLS_FAILED',
  AUTH_SWITCH_PLUGIN_ERROR: 'LOGIN_FAILED',
};

const HINTS: Partial<Record<ErrorCode, string>> = {
  LOGIN_FAILED: 'Check user name and password of the connection string, and from which hosts the account may connect.',
  SERVER_UNREACHABLE:
    'Check host and port of the connection string, that the server runs and listens there (bind-address), and that a firewall lets us through.',
  DATABASE_MISSING: 'Check the database name, or create it.',
  TLS_FAILED:
    'Name the certificate authority with ssl-ca=/path/ca.pem, or use ssl-mode=REQUIRED to encrypt without verifying.',
  SERVER_BUSY: 'Raise max_connections on the server, or lower parallel_scheduler_count.',
  SERVER_FULL: 'Free disk space or memory on the server.',
};

/** The server's error number, else null. */
export function errorNumber(thrown: unknown): number | null {
  const error = (thrown instanceof SluiceError ? thrown.cause : thrown) as DriverError | undefined;
  return typeof error?.errno === 'number' && error.errno >= 1000 ? error.errno : null;
}

/** Turns whatever the driver throws into a SluiceError. `doing` completes "could not …" for a reader of the log. */
export function classify(thrown: unknown, doing: string): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const error = thrown as DriverError;
  const text = typeof error.message === 'string' ? error.message : String(thrown);
  const number = errorNumber(thrown);
  const code = number === null ? byDriver(error, text) : (BY_NUMBER[number] ?? 'INTERNAL');
  const message = code === 'ROW_REFUSED' ? `could not ${doing}: error ${number ?? '?'}` : `could not ${doing}: ${text}`;
  return new SluiceError(code, message, {
    hint: HINTS[code],
    isConflict: CONFLICTS.has(number ?? 0),
    cause: thrown,
  });
}

function byDriver(error: DriverError, text: string): ErrorCode {
  if (/self.signed|certificate|SSL|TLS|unable to verify|altnames/i.test(text)) return 'TLS_FAILED';
  const known = typeof error.code === 'string' ? BY_CODE[error.code] : undefined;
  return known ?? (/closed state|Connection lost/i.test(text) ? 'CONNECTION_LOST' : 'INTERNAL');
}
