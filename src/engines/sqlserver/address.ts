/**
 * Where a SQL Server is and how to log in, as people write it: ADO connection strings (`server=…;user id=…`), as the Go, .NET and
 * ODBC tools take them, or URLs. Pure: the engine and the control database both read their strings here.
 */
import { SluiceError } from '../../model/errors.ts';
import { isKeyValueString, parseKeyValueString } from '../../model/key-value-string.ts';

export interface SqlServerAddress {
  readonly host: string;
  /** Null: 1433, or what the SQL Server Browser says of `instance`. */
  readonly port: number | null;
  readonly instance: string | null;
  readonly user: string | null;
  readonly password: string | null;
  readonly domain: string | null;
  readonly database: string | null;
  /** 'strict': TDS 8.0. On by default. */
  readonly encrypt: boolean | 'strict';
  readonly trustServerCertificate: boolean;
  /** Path of a PEM file that is trusted besides the system's. */
  readonly caFile: string | null;
  /** The name the certificate must have, where it is not the host's. */
  readonly certificateHost: string | null;
  readonly readOnlyIntent: boolean;
  readonly multiSubnetFailover: boolean;
  readonly connectTimeoutMs: number;
  readonly applicationName: string | null;
}

export const SQLSERVER_SCHEMES = ['sqlserver', 'mssql'] as const;

/** The first name of each list is ours; the rest are synonyms (SqlConnection.ConnectionString, go-mssqldb, msodbcsql). */
const SYNONYMS: Readonly<Record<string, readonly string[]>> = {
  server: ['server', 'data source', 'addr', 'address', 'network address', 'host'],
  port: ['port'],
  instance: ['instance', 'instance name', 'instancename'],
  user: ['user id', 'uid', 'user', 'username', 'userid'],
  password: ['password', 'pwd'],
  domain: ['domain'],
  database: ['database', 'initial catalog'],
  encrypt: ['encrypt'],
  trust: ['trustservercertificate', 'trust server certificate'],
  ca: ['certificate', 'ca', 'servercertificate', 'server certificate'],
  certificateHost: ['hostnameincertificate', 'host name in certificate'],
  intent: ['applicationintent', 'application intent'],
  multiSubnet: ['multisubnetfailover', 'multi subnet failover'],
  timeout: ['connection timeout', 'connect timeout', 'dial timeout', 'timeout'],
  application: ['application name', 'app name', 'app'],
  integrated: ['integrated security', 'trusted_connection'],
};

const BY_SYNONYM = new Map(Object.entries(SYNONYMS).flatMap(([ours, all]) => all.map((name) => [name, ours])));

/** Throws MAPPING_INVALID; the message repeats nothing of the string but names of settings. */
export function parseSqlServerAddress(text: string): SqlServerAddress {
  const settings = isKeyValueString(text) ? settingsOfKeyValues(text) : settingsOfUrl(text);
  const server = settings.get('server') ?? '';
  const place = /^(?:tcp:|admin:|np:)?([^\\,]*)(?:\\([^,]*))?(?:,\s*(.*))?$/i.exec(server.trim());
  // [::1] is how a URL writes an IPv6 address; sockets take it bare.
  const host = (place?.[1] ?? '').trim().replace(/^\[(.*)\]$/, '$1');
  if (!place || host === '')
    throw invalid(
      'the connection string names no server',
      'Write server=host, server=host\\instance or server=host,port.',
    );
  const port = place[3] ?? settings.get('port') ?? null;
  if (port !== null && !(/^\d{1,5}$/.test(port.trim()) && Number(port) > 0 && Number(port) < 65_536))
    throw invalid('the port of the connection string is not a number from 1 to 65535', 'Write server=host,1433.');
  if (isTrue(settings.get('integrated') ?? 'false') === true || /^sspi$/i.test(settings.get('integrated') ?? ''))
    throw invalid(
      'integrated security is not supported',
      'Name a login: user id=…;password=… (with domain=… for NTLM).',
    );
  const encrypt = encryptOf(settings.get('encrypt'));
  return {
    host: host === '.' || host.toLowerCase() === '(local)' ? 'localhost' : host,
    port: port === null ? null : Number(port),
    instance: place[2]?.trim() || settings.get('instance') || null,
    user: settings.get('user') ?? null,
    password: settings.get('password') ?? null,
    domain: settings.get('domain') || null,
    database: settings.get('database') || null,
    encrypt,
    trustServerCertificate: flag(settings, 'trust', 'TrustServerCertificate', false),
    caFile: settings.get('ca') || null,
    certificateHost: settings.get('certificateHost') || null,
    readOnlyIntent: intentOf(settings.get('intent')),
    multiSubnetFailover: flag(settings, 'multiSubnet', 'MultiSubnetFailover', false),
    connectTimeoutMs: timeoutOf(settings.get('timeout')),
    applicationName: settings.get('application') || null,
  };
}

function settingsOfUrl(text: string): Map<string, string> {
  let url: URL;
  try {
    // The parser knows special schemes only: hosts of others are not checked, backslashes not allowed.
    url = new URL(text.trim());
  } catch {
    throw invalid(
      'the connection string is neither a URL nor of the form server=…;user id=…',
      'Write sqlserver://user:password@host:1433/database, or server=host;user id=…;password=…; percent-encode special characters in a URL.',
    );
  }
  const settings = new Map<string, string>();
  try {
    // sqlserver://user:pw@host/instance?database=db is go-mssqldb's form, sqlserver://…/db everyone else's: the path is the
    // instance only where the database is named besides.
    for (const [name, value] of url.searchParams) put(settings, name, value);
    settings.set('server', decodeURIComponent(url.hostname));
    if (url.port) settings.set('port', url.port);
    const path = decodeURIComponent(url.pathname.replace(/^\//, ''));
    if (path !== '') {
      if (!settings.has('database')) settings.set('database', path);
      else if (!settings.has('instance')) settings.set('instance', path);
    }
    if (url.username) settings.set('user', decodeURIComponent(url.username));
    if (url.password) settings.set('password', decodeURIComponent(url.password));
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    throw invalid('the connection string has a percent sign that is not an encoded character', 'Write % as %25.');
  }
  return settings;
}

/** The last of two equal keys wins. */
function settingsOfKeyValues(text: string): Map<string, string> {
  const settings = new Map<string, string>();
  for (const [name, value] of parseKeyValueString(text)) put(settings, name, value);
  return settings;
}

/** What we do not know is left alone: strings are shared with tools that know more. */
function put(settings: Map<string, string>, name: string, value: string): void {
  const ours = BY_SYNONYM.get(name.trim().toLowerCase().replace(/\s+/g, ' '));
  if (ours !== undefined) settings.set(ours, value);
}

function isTrue(text: string): boolean | null {
  if (/^(true|yes|1)$/i.test(text.trim())) return true;
  return /^(false|no|0)$/i.test(text.trim()) ? false : null;
}

function flag(settings: Map<string, string>, ours: string, shown: string, otherwise: boolean): boolean {
  const text = settings.get(ours);
  if (text === undefined || text === '') return otherwise;
  const value = isTrue(text);
  if (value === null)
    throw invalid(
      `${shown} of the connection string is neither true nor false`,
      `Write ${shown}=true or ${shown}=false.`,
    );
  return value;
}

/** go-mssqldb has disable, false, true and strict; SqlClient optional, mandatory and strict. */
function encryptOf(text: string | undefined): boolean | 'strict' {
  if (text === undefined || text === '') return true;
  const word = text.trim().toLowerCase();
  if (word === 'strict') return 'strict';
  if (word === 'disable' || word === 'optional') return false;
  if (word === 'mandatory') return true;
  const value = isTrue(word);
  if (value === null)
    throw invalid(
      'Encrypt of the connection string is not known',
      'Use one of true, false, disable, optional, mandatory, strict.',
    );
  return value;
}

function intentOf(text: string | undefined): boolean {
  if (text === undefined || text === '' || /^readwrite$/i.test(text)) return false;
  if (/^readonly$/i.test(text)) return true;
  throw invalid('ApplicationIntent of the connection string is not known', 'Use ReadOnly or ReadWrite.');
}

function timeoutOf(text: string | undefined): number {
  const seconds = text === undefined || text === '' ? 15 : Number(text);
  if (!Number.isFinite(seconds) || seconds < 0)
    throw invalid(
      'Connection Timeout of the connection string is not a number of seconds',
      'Write Connection Timeout=15.',
    );
  return Math.round((seconds === 0 ? 15 : seconds) * 1000);
}

function invalid(message: string, hint: string): SluiceError {
  return new SluiceError('MAPPING_INVALID', message, { hint });
}
