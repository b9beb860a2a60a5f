/** What ends the writing of a piece besides errors: why it is to be read again, or what comes first. */
import type { SluiceError } from '../model/errors.ts';
import type { Route } from '../engines/contract.ts';

/** A crash of the destination took back what was committed lazily: it is to be read again from `GroupWriter.position`. */
export class Rewound extends Error {
  constructor() {
    super('the destination lost commits that had not reached its disk');
  }
}

/**
 * A transaction was being applied while it was read, which met with something: nothing of it is there. It is to be read again from
 * `GroupWriter.position`, and staged (docs/decisions/2026-11-22-large-transactions.md).
 */
export class Undone extends Error {
  readonly reason: string;
  constructor(cause: unknown) {
    super('a transaction was not applied as it was read', { cause });
    this.reason = cause instanceof Error ? cause.message : String(cause);
  }
}

/**
 * A route leads from a table whose changes the reader left out, because it began before anybody wanted them: they are to be read from
 * `GroupWriter.position` again, with them (PROTOCOL, Rows that coordinate).
 */
export class NotRead extends Error {
  readonly schema: string;
  constructor(schema: string) {
    super(`changes in ${schema} were left out of what was read`);
    this.schema = schema;
  }
}

/** Changes of the route’s table are missing. Thrown before anything of the piece is applied. */
export class TableGap extends Error {
  readonly route: Route;
  readonly error: SluiceError;
  constructor(route: Route, error: SluiceError) {
    super(error.message);
    this.route = route;
    this.error = error;
  }
}
