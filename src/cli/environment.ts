/**
 * What the process is told by environment variables, checked once at the start. Older names are understood (CONFIG_SERVER,
 * CONFIG_USER, CONFIG_PASS). Values never appear in errors: only the variable's name does.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { SluiceError } from '../model/errors.ts';
import { isKeyValueString, quoteValue } from '../model/key-value-string.ts';
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from '../log/logger.ts';

export interface Environment {
  /** Where the control database lives; also the destination of mappings that name none. Null: not configured. */
  readonly destinationUrl: string | null;
  /** Name of the control database on that server. */
  readonly controlDatabase: string;
  /** Key of `enc:v1:` secrets; null when none is set. */
  readonly secretKey: string | null;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
}

export type Variables = Readonly<Record<string, string | undefined>>;

const isUrl = (text: string) => /^[a-z][a-z0-9+.-]*:\/\//i.test(text);

const flag = z.enum(['0', '1', 'true', 'false', 'yes', 'no']).transform((text) => ['1', 'true', 'yes'].includes(text));

const schema = z.object({
  DEST_URL: z
    .string()
    .refine(
      (text) => isUrl(text) || isKeyValueString(text),
      'must be a URL such as postgres://user@host:5432/ or mysql://user@host:3306/, or server=host;user id=…;password=… for SQL Server',
    )
    .optional(),
  DEST_SERVER: z
    .string()
    .regex(
      /^[^\s;=]+(,\s*\d+)?$/,
      'must be host, host,port or host\\instance (for another engine than SQL Server set DEST_URL)',
    )
    .optional(),
  DEST_USER: z.string().optional(),
  DEST_PASS: z.string().optional(),
  DEST_PORT: z.coerce.number('must be a port number').int().min(1).max(65535).optional(),
  DEST_ENCRYPT: z.union([flag, z.enum(['strict', 'mandatory', 'optional', 'disable'])]).optional(),
  DEST_TRUST_CERT: flag.optional(),
  DEST_CA: z.string().optional(),
  CONTROL_DATABASE: z.string().max(128).default('sluice'),
  SLUICE_SECRET_KEY: z.string().optional(),
  LOG_LEVEL: z.enum(LOG_LEVELS).default('info'),
  LOG_FORMAT: z.enum(LOG_FORMATS).default('text'),
});

/** Older names, each for the one that replaced it; the new name wins. */
const ALIASES = {
  CONFIG_SERVER: 'DEST_SERVER',
  CONFIG_USER: 'DEST_USER',
  CONFIG_PASS: 'DEST_PASS',
  CONFIG_PORT: 'DEST_PORT',
  CONFIG_DATABASE: 'CONTROL_DATABASE',
} as const;

/** Throws CONFIG_INVALID, naming the variable. */
export function readEnvironment(variables: Variables): Environment {
  const given = new Map<string, string>();
  // In .env files and compose files an empty value means "not set".
  for (const [name, value] of Object.entries(variables))
    if (value !== undefined && value !== '') given.set(name, value);
  for (const [old, name] of Object.entries(ALIASES)) {
    const value = given.get(old);
    if (value !== undefined && !given.has(name)) given.set(name, value);
  }
  const parsed = schema.safeParse(Object.fromEntries(given));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const name = String(issue?.path[0] ?? 'environment');
    throw new SluiceError('CONFIG_INVALID', `${name}: ${issue?.message ?? 'not understood'}`, {
      hint: `Correct the environment variable ${name}; .env.example describes each.`,
    });
  }
  const values = parsed.data;
  if (values.DEST_URL !== undefined && values.DEST_SERVER !== undefined) {
    throw new SluiceError('CONFIG_INVALID', 'DEST_URL and DEST_SERVER are both set', {
      hint: 'Keep one of them: DEST_URL for any engine, or DEST_SERVER, DEST_USER and DEST_PASS for SQL Server.',
    });
  }
  return {
    destinationUrl:
      values.DEST_URL ?? (values.DEST_SERVER === undefined ? null : keyValueString(values.DEST_SERVER, values)),
    controlDatabase: values.CONTROL_DATABASE,
    secretKey: values.SLUICE_SECRET_KEY ?? null,
    logLevel: values.LOG_LEVEL,
    logFormat: values.LOG_FORMAT,
  };
}

/** Adds what a `.env` file in the working directory says; variables that are set already win. */
export function loadEnvFile(directory: string): void {
  const file = path.join(directory, '.env');
  if (existsSync(file)) process.loadEnvFile(file);
}

const REFERENCE = /^(\$\{(env|file):[^}]+\}|enc:v1:[A-Za-z0-9+/]+={0,2})$/;

/** As a person would write it by hand; a secret's reference is resolved, and quoted, later. */
function keyValueString(server: string, values: z.infer<typeof schema>): string {
  const quoted = (text: string) => (REFERENCE.test(text) ? text : quoteValue(text));
  const pairs: readonly (readonly [name: string, value: string | number | boolean | undefined])[] = [
    ['server', quoted(server)],
    ['port', values.DEST_PORT],
    ['user id', quoted(values.DEST_USER ?? 'sa')],
    ['password', values.DEST_PASS === undefined ? undefined : quoted(values.DEST_PASS)],
    ['encrypt', values.DEST_ENCRYPT],
    ['TrustServerCertificate', values.DEST_TRUST_CERT],
    ['certificate', values.DEST_CA === undefined ? undefined : quoted(values.DEST_CA)],
  ];
  return pairs.flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`])).join(';');
}
