/** Statements for trigger columns (trigger-columns.ts). */
import { displayName, type Column } from '../../model/tables.ts';
import type { TriggerSource } from '../contract.ts';
import { TriggerColumns } from '../trigger-columns.ts';
import { describeTables } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { errorNumber } from './errors.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** Missing tables and columns, and rights that are missing. */
const MISSING: ReadonlySet<number> = new Set([1044, 1049, 1054, 1142, 1143, 1146, 1356]);
/** Rights that are missing. */
const DENIED: ReadonlySet<number> = new Set([1044, 1142, 1143, 1227]);
/** A server that takes no writes. */
const READ_ONLY: ReadonlySet<number> = new Set([1290, 1792, 1836]);

function isAboutOneTable(error: unknown): boolean {
  return MISSING.has(errorNumber(error) ?? 0);
}

function isText(column: Column): boolean {
  return column.type.kind === 'text' || column.type.kind === 'enum';
}

function condition(column: Column): string {
  const name = quoteIdentifier(column.name);
  return isText(column) ? `LOWER(TRIM(${name})) IN ('1', 't', 'true')` : `${name} = 1`;
}

export function triggerColumns(connection: Connection): TriggerSource {
  return new TriggerColumns<Column>({
    look: (watched, again) =>
      connection.use(async (session) => {
        const names = watched.map((one) => one.name);
        const tables = await describeTables(session, names, connection.database);
        const columns: (Column | null)[] = [];
        for (const [i, { name, column }] of watched.entries()) {
          const found = tables[i]?.columns.find((each) => each.name.toLowerCase() === column.toLowerCase()) ?? null;
          const isLost = found && again && !(await isReadable(session, quoteTable(name), found));
          columns.push(isLost ? null : found);
        }
        return columns;
      }),
    flippedSql: (watched, column, place) =>
      `SELECT ${place} AS i FROM DUAL WHERE EXISTS (SELECT 1 FROM ${quoteTable(watched.name)} WHERE ${condition(column)})`,
    select: (sql) => connection.query('look at trigger columns', sql),
    isAboutOneTable,
    reset: async ({ name }, column) => {
      // A number that goes into an ENUM is the place of a label, and 0 the place of none; text that goes into a BIT is its bytes.
      const zero = isText(column) ? `'0'` : '0';
      await connection.query(
        `reset ${column.name} of ${displayName(name)}`,
        `UPDATE ${quoteTable(name)} SET ${quoteIdentifier(column.name)} = ${zero} WHERE ${condition(column)}`,
      );
    },
    resetHint: (error, { name }, column) => {
      const number = errorNumber(error) ?? 0;
      if (READ_ONLY.has(number)) return 'The server is read-only (a replica): reset the column on its primary.';
      if (!DENIED.has(number)) return null;
      return `GRANT SELECT, UPDATE (${quoteIdentifier(column.name)}) ON ${quoteTable(name)} TO the login of the connection string.`;
    },
  });
}

async function isReadable(session: Session, table: string, column: Column): Promise<boolean> {
  try {
    await session.query('look at a trigger column', `SELECT ${quoteIdentifier(column.name)} FROM ${table} LIMIT 0`);
    return true;
  } catch (error) {
    if (!isAboutOneTable(error)) throw error;
    return false;
  }
}
