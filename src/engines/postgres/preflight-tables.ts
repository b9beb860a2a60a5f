/** Preflight of single source tables: rights, row security, and whether their changes can be followed. Pure. */
import type { Finding } from '../../model/findings.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** Every fact as the server's text; booleans are `t` and `f`. */
export type TableFacts = Readonly<
  Record<
    | 'kind'
    | 'persistence'
    | 'identity'
    | 'owned'
    | 'usage'
    | 'readable'
    | 'filtered'
    | 'published'
    | 'primary_key'
    | 'unique_index'
    | 'identity_index'
    | 'key_outside'
    | 'leaf_fixes',
    string | null
  >
>;

interface Context {
  readonly role: string;
  /** A publication of the user's own; null: Sluice manages one, which needs the table's ownership. */
  readonly publication: string | null;
  readonly cdc: boolean;
}

export function tableFindings(name: TableName, facts: TableFacts, context: Context): Finding[] {
  const findings: Finding[] = [];
  const table = quoteTable(name);
  const role = quoteIdentifier(context.role);
  const error = (code: Finding['code'], message: string, ...fixSql: string[]) =>
    findings.push({ code, severity: 'error', message: `${displayName(name)}: ${message}`, fixSql });
  if (facts.usage !== 't')
    error(
      'PERMISSION_DENIED',
      `role ${role} may not use its schema`,
      `GRANT USAGE ON SCHEMA ${quoteIdentifier(name.schema)} TO ${role};`,
    );
  if (facts.readable !== 't')
    error('PERMISSION_DENIED', `role ${role} may not read it`, `GRANT SELECT ON ${table} TO ${role};`);
  if (facts.filtered === 't')
    error(
      'PERMISSION_DENIED',
      `row security hides rows from role ${role}, so a copy would lack them`,
      `ALTER ROLE ${role} BYPASSRLS;`,
    );
  if (!context.cdc) return findings;
  if (facts.kind !== 'r' && facts.kind !== 'p') {
    error('CAPABILITY_MISSING', 'only tables can be followed; this is a view or a foreign table');
    return findings;
  }
  if (facts.persistence !== 'p')
    error('CDC_NOT_READY', 'it is not logged, so its changes cannot be followed', `ALTER TABLE ${table} SET LOGGED;`);
  if (context.publication === null) {
    if (facts.owned !== 't')
      error(
        'PERMISSION_DENIED',
        `role ${role} does not own it, so it cannot add it to a publication`,
        `ALTER TABLE ${table} OWNER TO ${role};`,
        '-- or make a publication yourself and name it in the connection string (?publication=…)',
      );
  } else if (facts.published !== 't')
    error(
      'CDC_NOT_READY',
      `publication ${context.publication} does not contain it`,
      `ALTER PUBLICATION ${quoteIdentifier(context.publication)} ADD TABLE ${table};`,
    );
  identityFindings(table, facts, error);
  return findings;
}

/** pg_class.relreplident: d default (primary key), n nothing, f full, i index. */
function identityFindings(
  table: string,
  facts: TableFacts,
  error: (code: Finding['code'], message: string, ...fixSql: string[]) => void,
): void {
  const repair =
    facts.primary_key !== null
      ? `ALTER TABLE ${table} REPLICA IDENTITY DEFAULT;`
      : facts.unique_index !== null
        ? `ALTER TABLE ${table} REPLICA IDENTITY USING INDEX ${quoteIdentifier(facts.unique_index)};`
        : null;
  if (facts.primary_key === null && facts.unique_index === null) {
    error(
      'KEY_REQUIRED',
      'it has no primary key and no unique index on columns that are all NOT NULL',
      `ALTER TABLE ${table} ADD PRIMARY KEY (…);`,
    );
    return;
  }
  // A row's old version is written by its partition's identity, not by the table's.
  if (facts.leaf_fixes !== null)
    error('CDC_NOT_READY', 'partitions of it have no replica identity', ...facts.leaf_fixes.split('\n'));
  const fix = repair === null ? [] : [repair];
  if (facts.identity === 'n') error('CDC_NOT_READY', 'its replica identity is NOTHING', ...fix);
  else if (facts.identity === 'd' && facts.primary_key === null)
    // The source itself would refuse updates and deletes of a published table without an identity.
    error('CDC_NOT_READY', 'it has no primary key, so its replica identity is empty', ...fix);
  else if (facts.identity === 'i' && facts.identity_index === null)
    error('CDC_NOT_READY', 'the index of its replica identity was dropped', ...fix);
  else if (facts.identity === 'i' && facts.key_outside === 't')
    error('CDC_NOT_READY', 'its primary key is not within its replica identity', ...fix);
}
