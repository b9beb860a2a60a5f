/** The source's trigger column (`full_sync_trigger_column`): polled for many tables at once, set back to 0. */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import type { TriggerSource } from '../contract.ts';
import type { Connection } from './connection.ts';
import { sqlState } from './errors.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

interface Watched {
  readonly name: TableName;
  readonly column: string;
}

/** pg_type.typcategory: B boolean, N number, else text. The comparison is by the column's own type, so that an index can serve it. */
function flippedSql(watched: Watched, category: string): string {
  const column = quoteIdentifier(watched.column);
  const test =
    category === 'B'
      ? column
      : category === 'N'
        ? `${column} = 1`
        : `lower(btrim(${column}::text)) IN ('1', 't', 'true')`;
  return `${quoteTable(watched.name)} WHERE ${test}`;
}

/**
 * After the first look, one round trip for all tables. Which columns exist and may be read is remembered, and asked again
 * only when the statement fails: a missing table must not keep the others from being seen.
 */
export class PostgresTriggerSource implements TriggerSource {
  readonly #connection: Connection;
  /** Category of the column's type; null: no such column, or no right to read it. */
  readonly #known = new Map<string, { readonly category: string | null; readonly at: number }>();

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** False for a table or column that is missing or that we may not read; missing ones are looked for again every minute. */
  async flipped(tables: readonly Watched[]): Promise<boolean[]> {
    if (tables.length === 0) return [];
    try {
      await this.#learn(tables, false);
      return await this.#ask(tables);
    } catch (error) {
      const state = sqlState(error);
      if (state === null || !(state.startsWith('42') || state === '3F000')) throw error;
      await this.#learn(tables, true);
      return this.#ask(tables);
    }
  }

  /** Throws TRIGGER_RESET_DENIED when the login may not update the column or the server is read-only. */
  async reset(table: TableName, column: string): Promise<void> {
    const watched = { name: table, column };
    await this.#learn([watched], false);
    const category = this.#known.get(keyOf(watched))?.category ?? null;
    if (category === null)
      throw new SluiceError('SOURCE_TABLE_MISSING', `${displayName(table)} has no readable column ${column}`);
    const condition = flippedSql(watched, category).slice(quoteTable(table).length);
    try {
      // An unknown literal takes the column's type: false, 0 or '0'.
      await this.#connection.query(
        `reset ${column} of ${displayName(table)}`,
        `UPDATE ${quoteTable(table)} SET ${quoteIdentifier(column)} = '0'${condition}`,
      );
    } catch (cause) {
      const state = sqlState(cause);
      if (state !== '42501' && state !== '25006') throw cause;
      throw new SluiceError(
        'TRIGGER_RESET_DENIED',
        `${displayName(table)}: column ${column} could not be set back to 0`,
        {
          hint:
            state === '25006'
              ? 'The server is read-only (a standby): reset the column on its primary.'
              : `GRANT SELECT, UPDATE (${quoteIdentifier(column)}) ON ${quoteTable(table)} TO the login of the connection string.`,
          cause,
        },
      );
    }
  }

  async #ask(tables: readonly Watched[]): Promise<boolean[]> {
    const parts: string[] = [];
    for (const [i, watched] of tables.entries()) {
      const category = this.#known.get(keyOf(watched))?.category ?? null;
      if (category !== null) parts.push(`SELECT ${i} AS i WHERE EXISTS (SELECT FROM ${flippedSql(watched, category)})`);
    }
    const result = tables.map(() => false);
    if (parts.length === 0) return result;
    for (const row of await this.#connection.query('look at trigger columns', parts.join(' UNION ALL ')))
      result[Number(row['i'])] = true;
    return result;
  }

  async #learn(tables: readonly Watched[], again: boolean): Promise<void> {
    const now = performance.now();
    const asked = tables.filter((watched) => {
      const known = this.#known.get(keyOf(watched));
      return again || !known || (known.category === null && now - known.at > 60_000);
    });
    if (asked.length === 0) return;
    const rows = await this.#connection.query(
      'look for trigger columns',
      `SELECT (w.n - 1)::text AS i, t.typcategory AS category
       FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w(schema, name, col, n)
       JOIN pg_catalog.pg_namespace s ON s.nspname = w.schema
       JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = w.col AND a.attnum > 0 AND NOT a.attisdropped
       JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
       WHERE pg_catalog.has_schema_privilege(s.oid, 'USAGE')
         AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')`,
      [asked.map((one) => one.name.schema), asked.map((one) => one.name.table), asked.map((one) => one.column)],
    );
    const categories = new Map(rows.map((row) => [Number(row['i']), row['category'] ?? null]));
    for (const [i, watched] of asked.entries())
      this.#known.set(keyOf(watched), { category: categories.get(i) ?? null, at: now });
  }
}

function keyOf(watched: Watched): string {
  return JSON.stringify([watched.name.schema, watched.name.table, watched.column]);
}
