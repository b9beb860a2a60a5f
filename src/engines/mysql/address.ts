/**
 * Where a MySQL or MariaDB is and how to log in, as a URL: `mysql://user:password@host:3306/database?ssl-mode=VERIFY_CA`. The
 * parameters are spelled as the mysql client's options. Pure: the engine and the control database both read their strings here.
 */
import { SluiceError } from '../../model/errors.ts';

export type MysqlSslMode = 'disabled' | 'preferred' | 'required' | 'verify_ca' | 'verify_identity';

export interface MysqlAddress {
  readonly host: string;
  readonly port: number;
  /** A Unix socket instead of host and port. */
  readonly socket: string | null;
  readonly user: string | null;
  readonly password: string | null;
  readonly database: string | null;
  readonly sslMode: MysqlSslMode;
  /** Paths of PEM files. */
  readonly caFile: string | null;
  readonly certificateFile: string | null;
  readonly keyFile: string | null;
  readonly connectTimeoutMs: number;
}

export const MYSQL_SCHEMES = ['mysql', 'mariadb'] as const;

const MODES: readonly MysqlSslMode[] = ['disabled', 'preferred', 'required', 'verify_ca', 'verify_identity'];

/** The first of each is the mysql client's option; the rest are what its connectors and MariaDB's call it. */
const SYNONYMS: Readonly<Record<string, readonly string[]>> = {
  mode: ['ssl-mode', 'sslmode', 'ssl_mode', 'tls'],
  ca: ['ssl-ca', 'sslca', 'ssl_ca', 'sslrootcert', 'servercertificatefile'],
  certificate: ['ssl-cert', 'sslcert', 'ssl_cert'],
  key: ['ssl-key', 'sslkey', 'ssl_key'],
  socket: ['socket', 'unix-socket'],
  timeout: ['connect-timeout', 'connect_timeout', 'connecttimeout'],
};
const BY_SYNONYM = new Map(Object.entries(SYNONYMS).flatMap(([ours, all]) => all.map((name) => [name, ours])));

/** Throws MAPPING_INVALID; the message repeats nothing of the string but names of parameters. */
export function parseMysqlAddress(text: string): MysqlAddress {
  let url: URL;
  try {
    url = new URL(text.trim());
  } catch {
    throw invalid(
      'the connection string is not a URL',
      'Write mysql://user:password@host:3306/database; percent-encode special characters of the password.',
    );
  }
  const given = new Map<string, string>();
  for (const [name, value] of url.searchParams) {
    const known = BY_SYNONYM.get(name.toLowerCase());
    if (known === undefined)
      throw invalid(
        `parameter ${name} is not known`,
        `Known are ${Object.values(SYNONYMS)
          .map(([first]) => first)
          .join(', ')}.`,
      );
    given.set(known, value);
  }
  const socket = given.get('socket') ?? null;
  const host = decode(url.hostname.replace(/^\[(.*)\]$/, '$1'));
  if (host === '' && socket === null)
    throw invalid('the connection string names no host', 'Write mysql://user:password@host:3306/database.');
  const timeout = Number(given.get('timeout') ?? '15');
  if (!Number.isFinite(timeout) || timeout <= 0)
    throw invalid('connect-timeout is not a number of seconds', 'Write connect-timeout=15.');
  const path = decode(url.pathname.replace(/^\//, ''));
  const caFile = given.get('ca') ?? null;
  return {
    host: host === '' ? 'localhost' : host,
    port: url.port === '' ? 3306 : Number(url.port),
    socket,
    user: url.username === '' ? null : decode(url.username),
    password: url.password === '' ? null : decode(url.password),
    database: path === '' ? null : path,
    sslMode: modeOf(given.get('mode'), caFile !== null),
    caFile,
    certificateFile: given.get('certificate') ?? null,
    keyFile: given.get('key') ?? null,
    connectTimeoutMs: timeout * 1000,
  };
}

/** A certificate authority without a mode is there to be checked. libpq's words (`verify-full`, `require`) are understood. */
function modeOf(text: string | undefined, hasAuthority: boolean): MysqlSslMode {
  if (text === undefined) return hasAuthority ? 'verify_ca' : 'preferred';
  const word = text.toLowerCase().replaceAll('-', '_');
  const alias: Readonly<Record<string, MysqlSslMode>> = {
    true: 'required',
    false: 'disabled',
    disable: 'disabled',
    prefer: 'preferred',
    require: 'required',
    verify_full: 'verify_identity',
  };
  const mode = alias[word] ?? MODES.find((known) => known === word);
  if (mode === undefined)
    throw invalid('the ssl-mode is not known', `Use one of ${MODES.map((known) => known.toUpperCase()).join(', ')}.`);
  return mode;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid('the connection string has a stray %', 'Write a percent sign of the password as %25.');
  }
}

function invalid(message: string, hint: string): SluiceError {
  return new SluiceError('MAPPING_INVALID', message, { hint });
}
