/** The source's trigger column (`full_sync_trigger_column`): polled for many tables at once, set back to 0. */
import { SluiceError, hasCode } from '../../model/errors.ts';
import { displayName, type Column, type TableName } from '../../model/tables.ts';
import type { TriggerSource } from '../contract.ts';
import { SqlServerCatalog } from './catalog.ts';
import type { Connection } from './connection.ts';
import { errorNumber } from './errors.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

interface Watched {
  readonly name: TableName;
  readonly column: string;
}

/** "The database is read-only": a secondary replica, among others. */
const READ_ONLY = 3906;

/** The comparison is by the column's own type, so that an index can serve it. */
function condition(column: Column): string {
  const name = quoteIdentifier(column.name);
  return column.type.kind === 'text' ? `LOWER(LTRIM(RTRIM(${name}))) IN ('1', 't', 'true')` : `${name} = 1`;
}

/**
 * After the first look, one round trip for all tables. Which columns exist and may be read is remembered, and asked again only when
 * the statement fails (and every minute for what is missing): one table must not keep the others from being seen.
 */
export class SqlServerTriggerSource implements TriggerSource {
  readonly #connection: Connection;
  readonly #catalog: SqlServerCatalog;
  /** Null: no such column, or no right to read it. */
  readonly #known = new Map<string, { readonly column: Column | null; readonly at: number }>();

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#catalog = new SqlServerCatalog(connection);
  }

  /** False for a table or column that is missing or that we may not read. */
  async flipped(tables: readonly Watched[]): Promise<boolean[]> {
    if (tables.length === 0) return [];
    try {
      await this.#learn(tables, false);
      return await this.#ask(tables);
    } catch (error) {
      if (!isAboutOneTable(error)) throw error;
      await this.#learn(tables, true);
      return this.#ask(tables);
    }
  }

  /** Throws TRIGGER_RESET_DENIED when the login may not update the column or the database is read-only. */
  async reset(table: TableName, column: string): Promise<void> {
    const watched = { name: table, column };
    await this.#learn([watched], false);
    const known = this.#known.get(keyOf(watched))?.column ?? null;
    if (known === null)
      throw new SluiceError('SOURCE_TABLE_MISSING', `${displayName(table)} has no readable column ${column}`);
    const name = quoteIdentifier(known.name);
    try {
      await this.#connection.query(
        `reset ${column} of ${displayName(table)}`,
        `UPDATE ${quoteTable(table)} SET ${name} = 0 WHERE ${condition(known)}`,
      );
    } catch (cause) {
      const isReadOnly = errorNumber(cause) === READ_ONLY;
      if (!isReadOnly && !hasCode(cause, 'PERMISSION_DENIED')) throw cause;
      throw new SluiceError(
        'TRIGGER_RESET_DENIED',
        `${displayName(table)}: column ${column} could not be set back to 0`,
        {
          hint: isReadOnly
            ? 'The database is read-only (a secondary replica): reset the column on its primary.'
            : `GRANT SELECT, UPDATE (${name}) ON ${quoteTable(table)} TO the login's user.`,
          cause,
        },
      );
    }
  }

  async #ask(tables: readonly Watched[]): Promise<boolean[]> {
    const parts: string[] = [];
    for (const [i, watched] of tables.entries()) {
      const column = this.#known.get(keyOf(watched))?.column;
      // READPAST: a row that somebody holds is not waited for; what they commit is seen by the next look.
      if (column)
        parts.push(
          `SELECT ${i} AS i WHERE EXISTS (SELECT 1 FROM ${quoteTable(watched.name)} WITH (READPAST) WHERE ${condition(column)})`,
        );
    }
    const result = tables.map(() => false);
    if (parts.length === 0) return result;
    for (const row of await this.#connection.query('look at trigger columns', parts.join(' UNION ALL ')))
      result[Number(row['i'])] = true;
    return result;
  }

  /** `again`: also looks, table by table, which of them may be read. */
  async #learn(tables: readonly Watched[], again: boolean): Promise<void> {
    const now = performance.now();
    const asked = tables.filter((watched) => {
      const known = this.#known.get(keyOf(watched));
      return again || !known || (known.column === null && now - known.at > 60_000);
    });
    if (asked.length === 0) return;
    const found = await this.#catalog.describe(asked.map((one) => one.name));
    for (const [i, watched] of asked.entries()) {
      const columns = found[i]?.columns ?? [];
      let column =
        columns.find((each) => each.name === watched.column) ??
        columns.find((each) => each.name.toLowerCase() === watched.column.toLowerCase()) ??
        null;
      if (column && again)
        await this.#connection
          .query(
            'look at a trigger column',
            `SELECT TOP (0) ${quoteIdentifier(column.name)} AS flag FROM ${quoteTable(watched.name)}`,
          )
          .catch((error: unknown) => {
            if (!isAboutOneTable(error)) throw error;
            column = null;
          });
      this.#known.set(keyOf(watched), { column, at: now });
    }
  }
}

/** What a missing table or column, a missing right, or a column of another type now, leads to. */
function isAboutOneTable(error: unknown): boolean {
  return (
    hasCode(error, 'DESTINATION_TABLE_MISSING', 'SCHEMA_CHANGED', 'PERMISSION_DENIED', 'ROW_REFUSED') ||
    (hasCode(error, 'INTERNAL') && errorNumber(error) !== null)
  );
}

function keyOf(watched: Watched): string {
  return JSON.stringify([watched.name.schema, watched.name.table, watched.column]);
}
