/** What goes wrong alike on every engine that may hold the control database. */
import { SluiceError } from '../../model/errors.ts';
import { redact } from '../../model/redact.ts';

/** What is wrong with an address is the environment's fault here, not a mapping's. */
export function readAddress<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    throw new SluiceError('CONFIG_INVALID', `DEST_URL cannot be used: ${error.message}`, {
      hint: error.hint ?? undefined,
    });
  }
}

export function migrationIsTaken(seconds: number): SluiceError {
  return new SluiceError('TIMEOUT', `another process has migrated the control database for ${seconds} s`, {
    hint: 'Wait for it, or end it; then run `sluice migrate` again.',
  });
}

/** The database is missing and could not be made; `sql`: what somebody who may would run. Other errors as they are. */
export function missingRight(error: SluiceError, sql: string): SluiceError {
  if (error.code !== 'PERMISSION_DENIED') return error;
  return new SluiceError(error.code, error.message, { hint: `Ask a DBA to run: ${sql}`, cause: error.cause });
}

/** The server's own words: knex puts the statement before them. */
export function serversWords(message: string): string {
  return redact(message.slice(message.lastIndexOf(' - ') + 1).replace(/^- /, ''));
}
