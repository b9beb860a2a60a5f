/** The source's trigger column (`full_sync_trigger_column`): polled for many tables at once, set back to 0. */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type TableName } from '../../model/tables.ts';
import type { TriggerSource } from '../contract.ts';
import { describeTables } from './catalog.ts';
import type { Connection } from './connection.ts';
import { errorNumber } from './errors.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

interface Watched {
  readonly name: TableName;
  readonly column: string;
}

/** Missing tables and columns, and rights that are missing: one of many must not keep the others from being seen. */
const MISSING: ReadonlySet<number> = new Set([1044, 1049, 1054, 1142, 1143, 1146, 1356]);
/** Denied, or a server that takes no writes. */
const DENIED: ReadonlySet<number> = new Set([1044, 1142, 1143, 1227, 1290, 1792, 1836]);

/** The comparison is by the column's own type, so that an index can serve it. */
function condition(column: Column): string {
  const name = quoteIdentifier(column.name);
  const { kind } = column.type;
  return kind === 'text' || kind === 'enum' ? `LOWER(TRIM(${name})) IN ('1', 't', 'true')` : `${name} = 1`;
}

/**
 * After the first look, one round trip for all tables. Which columns exist is remembered, and asked again when the statement fails
 * and every minute for those that are missing.
 */
export class MysqlTriggerSource implements TriggerSource {
  readonly #connection: Connection;
  readonly #known = new Map<string, { readonly column: Column | null; readonly at: number }>();

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** False for a table or column that is missing or that we may not read. */
  async flipped(tables: readonly Watched[]): Promise<boolean[]> {
    if (tables.length === 0) return [];
    try {
      await this.#learn(tables, false);
      return await this.#ask(tables);
    } catch (error) {
      if (!MISSING.has(errorNumber(error) ?? 0)) throw error;
      await this.#learn(tables, true);
      return this.#ask(tables);
    }
  }

  /** Throws TRIGGER_RESET_DENIED when the login may not update the column or the server is read-only. */
  async reset(table: TableName, column: string): Promise<void> {
    const watched = { name: table, column };
    await this.#learn([watched], false);
    const known = this.#known.get(keyOf(watched))?.column ?? null;
    if (known === null)
      throw new SluiceError('SOURCE_TABLE_MISSING', `${displayName(table)} has no readable column ${column}`);
    const name = quoteIdentifier(column);
    try {
      await this.#connection.query(
        `reset ${column} of ${displayName(table)}`,
        `UPDATE ${quoteTable(table)} SET ${name} = 0 WHERE ${condition(known)}`,
      );
    } catch (cause) {
      const number = errorNumber(cause) ?? 0;
      if (!DENIED.has(number)) throw cause;
      const isReadOnly = number === 1290 || number === 1792 || number === 1836;
      throw new SluiceError(
        'TRIGGER_RESET_DENIED',
        `${displayName(table)}: column ${column} could not be set back to 0`,
        {
          hint: isReadOnly
            ? 'The server is read-only (a replica): reset the column on its primary.'
            : `GRANT SELECT, UPDATE (${name}) ON ${quoteTable(table)} TO the login of the connection string.`,
          cause,
        },
      );
    }
  }

  async #ask(tables: readonly Watched[]): Promise<boolean[]> {
    const parts: string[] = [];
    for (const [i, watched] of tables.entries()) {
      const column = this.#known.get(keyOf(watched))?.column;
      if (column)
        parts.push(
          `SELECT ${i} AS i FROM DUAL WHERE EXISTS (SELECT 1 FROM ${quoteTable(watched.name)} WHERE ${condition(column)})`,
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
    await this.#connection.use(async (session) => {
      const found = await describeTables(
        session,
        asked.map((one) => one.name),
        this.#connection.database,
      );
      for (const [i, watched] of asked.entries()) {
        let column = found[i]?.columns.find((each) => each.name.toLowerCase() === watched.column.toLowerCase()) ?? null;
        if (column && again)
          await session
            .query(
              'look at a trigger column',
              `SELECT ${quoteIdentifier(column.name)} FROM ${quoteTable(watched.name)} LIMIT 0`,
            )
            .catch((error: unknown) => {
              if (!MISSING.has(errorNumber(error) ?? 0)) throw error;
              column = null;
            });
        this.#known.set(keyOf(watched), { column, at: now });
      }
    });
  }
}

function keyOf(watched: Watched): string {
  return JSON.stringify([watched.name.schema, watched.name.table, watched.column]);
}
