/** What must be known of both tables before rows move: the schema check of one mapping. */
import { SluiceError, type ErrorCode } from '../model/errors.ts';
import type { Finding } from '../model/findings.ts';
import { displayName, type Table, type TableName } from '../model/tables.ts';
import type { EngineDatabase } from '../engines/contract.ts';
import { checkSchema, type SchemaCheck } from './schema-check.ts';

export interface CheckOptions {
  readonly source: EngineDatabase;
  readonly destination: EngineDatabase;
  readonly sourceTable: TableName;
  readonly target: TableName;
  /** From `primary_key_column`; null: from the catalog. */
  readonly keyColumns: readonly string[] | null;
  /** Null: no changes are followed (`cdc_enabled = 0`). */
  readonly stream: string | null;
  readonly findings: (findings: readonly Finding[]) => Promise<void>;
}

export interface CheckedMapping {
  readonly table: Table;
  /** The destination's table; null: there is none yet. */
  readonly live: Table | null;
  readonly check: SchemaCheck;
}

/** For findings that no statement of ours can mend by itself. */
const FIXES: Partial<Record<ErrorCode, string>> = {
  KEY_REQUIRED: 'ALTER TABLE … ADD PRIMARY KEY (…) at the source, or set cdc_enabled = 0: full syncs need no key.',
  KEY_INVALID:
    'Name in primary_key_column the columns of a unique index whose columns are all NOT NULL, or create one on both sides; NULL means the primary key.',
  SCHEMA_MISMATCH:
    'sync_logs has a line per column. ALTER TABLE the destination, or drop its table: then it is made from the source.',
};

/** Looks at both tables and decides how one would be carried to the other. Throws when it cannot be. */
export async function checkMapping(options: CheckOptions & { readonly mayAdd?: boolean }): Promise<CheckedMapping> {
  const { source, destination } = options;
  const [[table], [live = null], suspends] = await Promise.all([
    source.catalog.describe([options.sourceTable]),
    destination.catalog.describe([options.target]),
    destination.destination?.suspends(),
  ]);
  if (!table) {
    throw new SluiceError(
      'SOURCE_TABLE_MISSING',
      `the source has no table ${displayName(options.sourceTable)}, or the login cannot see it`,
      {
        hint: 'Check source_database, source_schema and source_table (names are exact), and GRANT SELECT on it.',
      },
    );
  }
  const made = destination.destination;
  const check = checkSchema({
    source: table,
    target: live,
    key: options.keyColumns,
    cdc: options.stream !== null,
    suspends: suspends ?? { triggers: false, foreignKeys: false },
    mayAdd: options.mayAdd ?? false,
    design: made === null ? null : (key) => made.design(table, options.target, key),
    remedies: destination.destination?.remedies ?? null,
  });
  const errors = check.findings.filter((finding) => finding.severity === 'error');
  const leftOut = live || !made || errors.length > 0 ? [] : made.design(table, options.target, check.key).leftOut;
  await options.findings([
    ...check.findings,
    ...leftOut.map((what): Finding => ({
      code: 'SCHEMA_MISMATCH',
      severity: 'info',
      message: `${displayName(options.target)} is made without what does not translate: ${what}`,
      fixSql: [],
    })),
  ]);
  const [first, ...others] = errors;
  if (first) {
    throw new SluiceError(
      first.code,
      first.message + (others.length > 0 ? ` (and ${others.length} more, see sync_logs)` : ''),
      {
        hint: first.fixSql.join('; ') || FIXES[first.code],
      },
    );
  }
  return { table, live, check };
}
