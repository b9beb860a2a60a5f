/** What every command answers with `--json`, and the exit codes. Both are an interface: scripts rely on them. */
import type { ErrorCode, RetryClass, SluiceError } from '../model/errors.ts';
import { redact } from '../model/redact.ts';

export interface Envelope {
  readonly command: string;
  readonly ok: boolean;
  /** One sentence, the same that the plain output ends with. */
  readonly summary: string;
  readonly result: unknown;
  readonly error: EnvelopeError | null;
}

export interface EnvelopeError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string | null;
  readonly retry: RetryClass;
}

/** What a command hands back. `error` set: the command did its work and found that all is not well (verify, doctor). */
export interface Outcome {
  readonly summary: string;
  readonly result: unknown;
  /** The plain output, printed before the summary. */
  readonly lines?: readonly string[];
  readonly error?: SluiceError;
  /** The summary is an encrypted value, which the net against secrets in outputs would tear. */
  readonly verbatim?: boolean;
}

/** 0 ok · 1 something failed while running · 2 what a person configured is wrong · 3 the surroundings are (servers, rights, secrets). */
export type ExitCode = 0 | 1 | 2 | 3;

const CONFIGURATION: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'CONFIG_INVALID',
  'MAPPING_INVALID',
  'DESTINATION_MISSING',
  'ENGINE_UNKNOWN',
  'CAPABILITY_MISSING',
  'SOURCE_TABLE_MISSING',
  'KEY_REQUIRED',
  'KEY_INVALID',
  'SCHEMA_MISMATCH',
  'DESTINATION_TAKEN',
  'DESTINATION_NOT_EMPTY',
  'DESTINATION_GUARDED',
]);

const ENVIRONMENT: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'SECRET_UNREADABLE',
  'LOGIN_FAILED',
  'SERVER_UNREACHABLE',
  'DATABASE_MISSING',
  'TLS_FAILED',
  'SERVER_BUSY',
  'SERVER_FULL',
  'PERMISSION_DENIED',
  'CDC_NOT_READY',
  'CDC_SLOTS_EXHAUSTED',
  'CONTROL_TOO_NEW',
  'CONTROL_UNREACHABLE',
]);

export function exitCodeOf(error: Pick<SluiceError, 'code'> | null | undefined): ExitCode {
  if (!error) return 0;
  if (CONFIGURATION.has(error.code)) return 2;
  return ENVIRONMENT.has(error.code) ? 3 : 1;
}

export function envelopeOf(command: string, outcome: Outcome): Envelope {
  return {
    command,
    ok: outcome.error === undefined,
    summary: outcome.verbatim ? outcome.summary : redact(outcome.summary),
    result: outcome.result,
    error: outcome.error === undefined ? null : errorOf(outcome.error),
  };
}

export function failureOf(command: string, error: SluiceError): Envelope {
  return { command, ok: false, summary: redact(oneLine(error.message)), result: null, error: errorOf(error) };
}

function errorOf(error: SluiceError): EnvelopeError {
  return {
    code: error.code,
    message: redact(oneLine(error.message)),
    hint: error.hint === null ? null : redact(error.hint),
    retry: error.retry,
  };
}

function oneLine(text: string): string {
  return text.replace(/\s*\r?\n\s*/g, ' ');
}
