/** Statements for trigger columns (trigger-columns.ts). */
import { displayName } from '../../model/tables.ts';
import type { TriggerSource } from '../contract.ts';
import { TriggerColumns, type Watched } from '../trigger-columns.ts';
import type { Connection } from './connection.ts';
import { sqlState } from './errors.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

const DENIED = '42501';
const READ_ONLY = '25006';

/** Classes of missing objects and missing rights: 42…, and an unknown schema. */
function isAboutOneTable(error: unknown): boolean {
  const state = sqlState(error);
  return state !== null && (state.startsWith('42') || state === '3F000');
}

/** `category`: pg_type.typcategory, B boolean, N number, else text. */
function condition(watched: Watched, category: string): string {
  const column = quoteIdentifier(watched.column);
  if (category === 'B') return column;
  return category === 'N' ? `${column} = 1` : `lower(btrim(${column}::text)) IN ('1', 't', 'true')`;
}

export function triggerColumns(connection: Connection): TriggerSource {
  return new TriggerColumns<string>({
    // The catalog tells what may be read, so `again` is no other question.
    look: async (watched) => {
      const rows = await connection.query(
        'look for trigger columns',
        `SELECT (w.n - 1)::text AS i, t.typcategory AS category
       FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w(schema, name, col, n)
       JOIN pg_catalog.pg_namespace s ON s.nspname = w.schema
       JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = w.col AND a.attnum > 0 AND NOT a.attisdropped
       JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
       WHERE pg_catalog.has_schema_privilege(s.oid, 'USAGE')
         AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')`,
        [watched.map((one) => one.name.schema), watched.map((one) => one.name.table), watched.map((one) => one.column)],
      );
      const categories = new Map(rows.map((row) => [Number(row['i']), row['category'] ?? null]));
      return watched.map((_, i) => categories.get(i) ?? null);
    },
    flippedSql: (watched, category, place) =>
      `SELECT ${place} AS i WHERE EXISTS (SELECT FROM ${quoteTable(watched.name)} WHERE ${condition(watched, category)})`,
    select: (sql) => connection.query('look at trigger columns', sql),
    isAboutOneTable,
    reset: async (watched, category) => {
      // An unknown literal takes the column's type: false, 0 or '0'.
      await connection.query(
        `reset ${watched.column} of ${displayName(watched.name)}`,
        `UPDATE ${quoteTable(watched.name)} SET ${quoteIdentifier(watched.column)} = '0' WHERE ${condition(watched, category)}`,
      );
    },
    resetHint: (error, { name, column }) => {
      const state = sqlState(error);
      if (state === READ_ONLY) return 'The server is read-only (a standby): reset the column on its primary.';
      if (state !== DENIED) return null;
      return `GRANT SELECT, UPDATE (${quoteIdentifier(column)}) ON ${quoteTable(name)} TO the login of the connection string.`;
    },
  });
}
