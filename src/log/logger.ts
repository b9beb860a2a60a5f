/**
 * The service's log: one line per event that matters, none per row, none when nothing happened. Plain text, or JSON with
 * LOG_FORMAT=json. It goes to stderr, so that a command's result has stdout for itself.
 */
import winston from 'winston';
import { SluiceError } from '../model/errors.ts';
import { redact } from '../model/redact.ts';

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const LOG_FORMATS = ['text', 'json'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** What an event is about. `mapping` is its display name (`server: schema.table`), `stream` the change stream's. */
export interface LogScope {
  readonly mapping?: string;
  readonly stream?: string;
  /** A part of the service: `poller`, `queue`. */
  readonly part?: string;
}

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  /** `fields.error` may be anything thrown: code, message and hint are written, for INTERNAL the stack as well. */
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  /** The same log with more scope. */
  child(scope: LogScope): Logger;
}

export interface LoggerOptions {
  readonly level?: LogLevel;
  readonly format?: LogFormat;
  readonly stream?: NodeJS.WritableStream;
}

export function createLogger(options: LoggerOptions = {}): Logger {
  const { level = 'info', format = 'text', stream = process.stderr } = options;
  const logger = winston.createLogger({
    level,
    levels: { error: 0, warn: 1, info: 2, debug: 3 },
    format: winston.format.combine(
      winston.format.timestamp(),
      winston.format.printf((entry) => (format === 'json' ? jsonLine(entry) : redact(textLine(entry)))),
    ),
    transports: [new winston.transports.Stream({ stream })],
  });
  return wrap(logger, {});
}

/** A log that says nothing, for tests and for commands that answer on stdout only. */
export const silentLogger: Logger = {
  error: () => undefined,
  warn: () => undefined,
  info: () => undefined,
  debug: () => undefined,
  child: () => silentLogger,
};

function wrap(logger: winston.Logger, scope: LogScope): Logger {
  const at = (level: LogLevel) => (message: string, fields?: LogFields) => {
    // winston would merge a field called `message` into the line's own.
    logger.log(level, message, { scope, fields: fields ?? {} });
  };
  return {
    error: at('error'),
    warn: at('warn'),
    info: at('info'),
    debug: at('debug'),
    child: (more) => wrap(logger, { ...scope, ...more }),
  };
}

type Entry = winston.Logform.TransformableInfo;

function textLine(entry: Entry): string {
  const scope = scopeOf(entry);
  const where = [scope.part, scope.stream, scope.mapping].filter((name) => name !== undefined).join(' · ');
  const pairs = Object.entries(flatten(fieldsOf(entry))).map(([name, value]) => `${name}=${textValue(value)}`);
  return oneLine(
    [String(entry['timestamp']), entry.level.toUpperCase().padEnd(5), where && `[${where}]`, entry.message, ...pairs]
      .filter((part) => part !== '')
      .join(' '),
  );
}

const SECRET_NAME = /(password|passphrase|secret|token|pwd)$/i;

function jsonLine(entry: Entry): string {
  const own = { time: entry['timestamp'], level: entry.level, ...scopeOf(entry), message: entry.message };
  return JSON.stringify(
    { ...own, ...flatten(fieldsOf(entry)), ...own },
    // Hidden before JSON escapes quotes: afterwards a pattern could run past the end of a text. Row counts may be bigint.
    (name, value: unknown) => {
      if (typeof value === 'string') return SECRET_NAME.test(name) ? '***' : redact(value);
      return typeof value === 'bigint' ? String(value) : value;
    },
  );
}

function scopeOf(entry: Entry): LogScope {
  return (entry['scope'] as LogScope | undefined) ?? {};
}

function fieldsOf(entry: Entry): LogFields {
  return (entry['fields'] as LogFields | undefined) ?? {};
}

function flatten(fields: LogFields): Record<string, unknown> {
  const { error, ...rest } = fields;
  if (error === undefined) return rest;
  if (error instanceof SluiceError) {
    return {
      ...rest,
      code: error.code,
      error: error.message,
      ...(error.hint === null ? {} : { hint: error.hint }),
      ...(error.code === 'INTERNAL' && error.cause instanceof Error ? { stack: error.cause.stack } : {}),
    };
  }
  return error instanceof Error ? { ...rest, error: error.message, stack: error.stack } : { ...rest, error };
}

function textValue(value: unknown): string {
  if (typeof value === 'string') return /[\s="]/.test(value) || value === '' ? JSON.stringify(value) : value;
  if (typeof value === 'object' && value !== null) return JSON.stringify(value);
  return String(value);
}

/** One event, one line, whatever a server wrote into its message. */
function oneLine(text: string): string {
  return text.replace(/\r?\n/g, '\\n');
}
