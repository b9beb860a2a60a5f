import { SluiceError, type ErrorCode } from '../../model/errors.ts';
import { SOCKET_ERRORS } from '../../model/socket-errors.ts';

interface DriverError {
  readonly code?: unknown;
  readonly number?: unknown;
  readonly message?: unknown;
  readonly cause?: unknown;
  readonly errors?: readonly unknown[];
}

/**
 * Error numbers of the engine (SQL Server manual, Database engine events and errors). The messages of those that become
 * ROW_REFUSED quote values ("The duplicate key value is (…)"): they get a message of our own (invariant 12).
 */
const BY_NUMBER: Readonly<Record<number, ErrorCode>> = {
  207: 'SCHEMA_CHANGED', // invalid column name
  208: 'DESTINATION_TABLE_MISSING', // invalid object name
  213: 'SCHEMA_CHANGED', // column count does not match the table definition
  220: 'ROW_REFUSED', // arithmetic overflow for data type
  229: 'PERMISSION_DENIED',
  230: 'PERMISSION_DENIED',
  232: 'ROW_REFUSED',
  241: 'ROW_REFUSED', // conversion of date and time
  242: 'ROW_REFUSED',
  244: 'ROW_REFUSED',
  245: 'ROW_REFUSED', // conversion failed
  248: 'ROW_REFUSED',
  262: 'PERMISSION_DENIED',
  297: 'PERMISSION_DENIED',
  300: 'PERMISSION_DENIED', // VIEW SERVER STATE was denied
  515: 'ROW_REFUSED', // cannot insert NULL
  544: 'ROW_REFUSED', // IDENTITY_INSERT is off
  547: 'ROW_REFUSED', // constraint
  601: 'COPY_RESTARTED', // NOLOCK scan could not continue
  701: 'SERVER_FULL',
  802: 'SERVER_FULL',
  824: 'SERVER_FULL',
  911: 'DATABASE_MISSING',
  916: 'PERMISSION_DENIED',
  921: 'SERVER_BUSY', // database not recovered yet
  922: 'SERVER_BUSY',
  924: 'SERVER_BUSY', // single user
  927: 'SERVER_BUSY', // restoring
  942: 'SERVER_BUSY', // offline
  945: 'SERVER_FULL',
  976: 'SERVER_BUSY', // availability group replica not readable
  978: 'SERVER_BUSY',
  983: 'SERVER_BUSY',
  1101: 'SERVER_FULL',
  1105: 'SERVER_FULL',
  1204: 'SERVER_FULL', // out of locks
  1205: 'DEADLOCK',
  1222: 'TIMEOUT', // lock request time out
  1505: 'ROW_REFUSED', // duplicate keys while a unique index is built
  1946: 'ROW_REFUSED', // longer than an index key can be
  2601: 'ROW_REFUSED', // unique index
  2627: 'ROW_REFUSED', // unique constraint
  2628: 'ROW_REFUSED', // would be truncated
  3952: 'CONFIG_INVALID', // snapshot isolation is not allowed
  3960: 'DEADLOCK', // snapshot update conflict
  3961: 'SCHEMA_CHANGED', // DDL under snapshot isolation
  4060: 'DATABASE_MISSING',
  4064: 'DATABASE_MISSING',
  4815: 'ROW_REFUSED', // bulk: invalid column length
  4819: 'CONNECTION_LOST', // bulk: malformed stream
  4834: 'PERMISSION_DENIED', // bulk load: without CHECK_CONSTRAINTS and FIRE_TRIGGERS it takes ALTER on the table
  4863: 'ROW_REFUSED',
  4891: 'SCHEMA_CHANGED', // bulk load: the table changed meanwhile
  5074: 'SCHEMA_CHANGED',
  8115: 'ROW_REFUSED', // arithmetic overflow
  8114: 'ROW_REFUSED', // error converting
  8152: 'ROW_REFUSED', // would be truncated
  8645: 'SERVER_BUSY',
  8651: 'SERVER_BUSY',
  9002: 'SERVER_FULL', // transaction log full
  10054: 'CONNECTION_LOST',
  10928: 'SERVER_BUSY',
  10929: 'SERVER_BUSY',
  15247: 'PERMISSION_DENIED',
  17142: 'SERVER_BUSY', // paused
  17187: 'SERVER_BUSY', // starting
  17809: 'SERVER_BUSY', // too many connections
  18452: 'LOGIN_FAILED',
  18456: 'LOGIN_FAILED',
  18461: 'SERVER_BUSY',
  18470: 'LOGIN_FAILED',
  18486: 'LOGIN_FAILED',
  18487: 'LOGIN_FAILED',
  18488: 'LOGIN_FAILED',
  21050: 'PERMISSION_DENIED',
  22925: 'CDC_NOT_READY',
  22981: 'PERMISSION_DENIED',
  40143: 'CONNECTION_LOST',
  40197: 'CONNECTION_LOST',
  40501: 'SERVER_BUSY',
  40613: 'SERVER_BUSY',
};

/**
 * Servers that speak T-SQL on top of another engine (Babelfish) pass on that engine's errors under one number, 33557097, where no
 * number of SQL Server's is assigned: told by their words. Those that quote values become ROW_REFUSED, like their numbered kin.
 */
const BY_WORDS: readonly (readonly [RegExp, ErrorCode])[] = [
  [/^canceling statement due to lock timeout/, 'TIMEOUT'],
  [/^deadlock detected/, 'DEADLOCK'],
  [/^terminating connection due to/, 'CONNECTION_LOST'],
  [/^relation ".*" does not exist/, 'DESTINATION_TABLE_MISSING'],
  [/^column ".*" (of relation ".*" )?does not exist/, 'SCHEMA_CHANGED'],
  [/^permission denied|^must be owner of/, 'PERMISSION_DENIED'],
  [/^could not create unique index/, 'ROW_REFUSED'],
  [/^invalid input syntax|out of range|^value too long/, 'ROW_REFUSED'],
];

/** Another row or table is why: unique indexes and constraints, foreign keys among them. */
const CONFLICTS: ReadonlySet<number> = new Set([547, 2601, 2627]);

/** Codes of the driver. */
const BY_CODE: Readonly<Record<string, ErrorCode>> = {
  ...SOCKET_ERRORS,
  ELOGIN: 'LOGIN_FAILED',
  ETIMEOUT: 'TIMEOUT',
  ESOCKET: 'CONNECTION_LOST',
  ECONNCLOSED: 'CONNECTION_LOST',
  ECLOSE: 'CONNECTION_LOST',
  EINSTLOOKUP: 'SERVER_UNREACHABLE',
  EENCRYPT: 'TLS_FAILED',
};

const HINTS: Partial<Record<ErrorCode, string>> = {
  LOGIN_FAILED:
    'Check user id and password of the connection string; SQL Server authentication must be enabled on the server.',
  SERVER_UNREACHABLE:
    'Check host and port (or that the SQL Server Browser answers for a named instance), that TCP/IP is enabled, and that a firewall lets us through.',
  DATABASE_MISSING: 'Check the database name, that it is online, and that the login has a user in it.',
  TLS_FAILED:
    'Name the certificate authority with certificate=/path/ca.pem, trust any certificate with TrustServerCertificate=true, or use encrypt=disable on a network you trust.',
  SERVER_BUSY: 'The database is starting, restoring, not readable here, or out of workers; it is tried again.',
  SERVER_FULL: 'Free disk or log space on the server (error 9002: back up or grow the log).',
};

/** The server's error number, else null. */
export function errorNumber(thrown: unknown): number | null {
  const error = (thrown instanceof SluiceError ? thrown.cause : thrown) as DriverError | undefined;
  return typeof error?.number === 'number' ? error.number : null;
}

/** Turns whatever the driver throws into a SluiceError. `doing` completes "could not …" for a reader of the log. */
export function classify(thrown: unknown, doing: string): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  // The driver wraps several errors of one request; the first says why, the rest that a batch ended.
  const nested = (thrown as DriverError).errors;
  const error = ((Array.isArray(nested) ? nested[0] : null) ?? thrown) as DriverError;
  const text = typeof error.message === 'string' ? error.message : String(thrown);
  const number = errorNumber(error);
  const code = (number === null ? null : BY_NUMBER[number]) ?? byDriver(error, text, number);
  const message = code === 'ROW_REFUSED' ? `could not ${doing}: error ${number ?? '?'}` : `could not ${doing}: ${text}`;
  return new SluiceError(code, message, {
    hint: HINTS[code],
    isConflict: CONFLICTS.has(number ?? 0),
    cause: error,
  });
}

function byDriver(error: DriverError, text: string, number: number | null): ErrorCode {
  // What follows is about the connection, and not to be found in the words of a server's message.
  if (number !== null)
    return BY_WORDS.find(([words]) => words.test(text))?.[1] ?? (error.code === 'ELOGIN' ? 'LOGIN_FAILED' : 'INTERNAL');
  const inner = (error.cause as DriverError | undefined)?.code;
  if (/self.signed|certificate|SSL|TLS|unable to verify|altnames/i.test(text)) return 'TLS_FAILED';
  if (typeof inner === 'string' && BY_CODE[inner]) return BY_CODE[inner];
  if (/Failed to connect|getaddrinfo|Could not connect/i.test(text)) return 'SERVER_UNREACHABLE';
  return (typeof error.code === 'string' ? BY_CODE[error.code] : null) ?? 'INTERNAL';
}
