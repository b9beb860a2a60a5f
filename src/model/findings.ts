import type { ErrorCode } from './errors.ts';

/** Something a person should know or fix, found by preflight or the schema check. */
export interface Finding {
  readonly code: ErrorCode;
  readonly severity: 'error' | 'warning' | 'info';
  /** What was found, naming table and column. */
  readonly message: string;
  /** The exact statements that fix it, in order; may be empty. */
  readonly fixSql: readonly string[];
  /** What changes at the source until it is fixed is in no log. */
  readonly losesChanges?: boolean;
}
