/** Errors of pg and knex on the control database, as ours. Messages carry no secret and no bound value (invariant 12). */
import { SluiceError, type ErrorCode } from '../../model/errors.ts';
import { SOCKET_ERRORS } from '../../model/socket-errors.ts';
import { serversWords } from './problems.ts';

const BY_STATE: Readonly<Record<string, ErrorCode>> = {
  '08': 'CONTROL_UNREACHABLE',
  '28': 'LOGIN_FAILED',
  '3D000': 'DATABASE_MISSING',
  '40': 'DEADLOCK',
  '42501': 'PERMISSION_DENIED',
  '42P01': 'CONFIG_INVALID',
  '53': 'SERVER_FULL',
  '53300': 'CONTROL_UNREACHABLE',
  '55P03': 'TIMEOUT',
  '57014': 'TIMEOUT',
  '57P01': 'CONTROL_UNREACHABLE',
  '57P02': 'CONTROL_UNREACHABLE',
  '57P03': 'CONTROL_UNREACHABLE',
  '57P05': 'CONTROL_UNREACHABLE',
};

const CONNECTION_TEXT =
  /timeout|terminated|Connection ended|not queryable|ended unexpectedly|closed the connection|Unable to acquire/i;

const HINTS: Partial<Record<ErrorCode, string>> = {
  CONTROL_UNREACHABLE:
    'Check that the server of the control database runs and can be reached; the service waits and goes on by itself.',
  LOGIN_FAILED: 'Check the user name and password of DEST_URL, and pg_hba.conf of the server.',
  DATABASE_MISSING: 'Create the database, or name another with CONTROL_DATABASE.',
  PERMISSION_DENIED: 'Grant the login CREATE on the database, and all rights on its tables.',
  CONFIG_INVALID: 'Run `sluice migrate`, or name the right database with CONTROL_DATABASE.',
  TIMEOUT: 'Another session holds the rows, perhaps an open transaction in a SQL client: commit it or roll it back.',
  SERVER_FULL: 'Free disk space or memory on the server of the control database.',
  TLS_FAILED: 'Name the certificate authority with sslrootcert=/path/ca.pem, or use sslmode=require.',
};

export function stateOf(thrown: unknown): string | null {
  const code = (thrown as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : null;
}

export function classifyPostgres(thrown: unknown, doing: string): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const code = codeOf(thrown);
  const message = `could not ${doing}: ${describe(thrown, code)}`;
  return new SluiceError(code, message, { hint: HINTS[code], cause: harmless(thrown) });
}

function codeOf(thrown: unknown): ErrorCode {
  const state = stateOf(thrown);
  if (state !== null) {
    const socket = SOCKET_ERRORS[state];
    if (socket !== undefined) return socket === 'TLS_FAILED' ? socket : 'CONTROL_UNREACHABLE';
    const found = BY_STATE[state] ?? BY_STATE[state.slice(0, 2)];
    if (found) return found;
  }
  const text = textOf(thrown);
  if (/SSL|certificate/i.test(text)) return 'TLS_FAILED';
  if (/password|SASL|SCRAM/i.test(text)) return 'LOGIN_FAILED';
  return CONNECTION_TEXT.test(text) ? 'CONTROL_UNREACHABLE' : 'INTERNAL';
}

function describe(thrown: unknown, code: ErrorCode): string {
  const state = stateOf(thrown) ?? '';
  const { constraint, table, column } = thrown as { constraint?: unknown; table?: unknown; column?: unknown };
  // Data exceptions and constraint violations may quote a value, so they are told by their names.
  if (code === 'INTERNAL' && /^2[23]/.test(state)) {
    const names = Object.entries({ constraint, table, column })
      .filter((entry): entry is [string, string] => typeof entry[1] === 'string')
      .map(([kind, name]) => `, ${kind} ${name}`);
    return `SQLSTATE ${state}${names.join('')}`;
  }
  return textOf(thrown);
}

function textOf(thrown: unknown): string {
  const message = thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
  // An AggregateError (several addresses refused) has no message of its own.
  const text =
    thrown instanceof AggregateError && !thrown.message
      ? thrown.errors.map((each) => textOf(each)).join('; ')
      : message;
  return serversWords(text);
}

/** The original without its detail, statement and connection: a logger may print causes whole. */
function harmless(thrown: unknown): Error {
  const cause = new Error(describe(thrown, codeOf(thrown)));
  const state = stateOf(thrown);
  return Object.assign(cause, { name: thrown instanceof Error ? thrown.name : 'Error', ...(state && { code: state }) });
}
