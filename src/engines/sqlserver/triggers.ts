/** Statements for trigger columns (trigger-columns.ts). */
import { hasCode } from '../../model/errors.ts';
import { displayName, type Column } from '../../model/tables.ts';
import type { TriggerSource } from '../contract.ts';
import { TriggerColumns } from '../trigger-columns.ts';
import { SqlServerCatalog } from './catalog.ts';
import type { Connection } from './connection.ts';
import { errorNumber } from './errors.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** "The database is read-only": a secondary replica, among others. */
const READ_ONLY = 3906;

function isAboutOneTable(error: unknown): boolean {
  return (
    hasCode(error, 'DESTINATION_TABLE_MISSING', 'SCHEMA_CHANGED', 'PERMISSION_DENIED', 'ROW_REFUSED') ||
    (hasCode(error, 'INTERNAL') && errorNumber(error) !== null)
  );
}

function condition(column: Column): string {
  const name = quoteIdentifier(column.name);
  return column.type.kind === 'text' ? `LOWER(LTRIM(RTRIM(${name}))) IN ('1', 't', 'true')` : `${name} = 1`;
}

export function triggerColumns(connection: Connection): TriggerSource {
  const catalog = new SqlServerCatalog(connection);
  return new TriggerColumns<Column>({
    look: async (watched, again) => {
      const tables = await catalog.describe(watched.map((one) => one.name));
      const columns: (Column | null)[] = [];
      for (const [i, { name, column }] of watched.entries()) {
        const all = tables[i]?.columns ?? [];
        const found =
          all.find((each) => each.name === column) ??
          all.find((each) => each.name.toLowerCase() === column.toLowerCase()) ??
          null;
        const isLost = found && again && !(await isReadable(connection, quoteTable(name), found));
        columns.push(isLost ? null : found);
      }
      return columns;
    },
    // READPAST: a row that somebody holds is not waited for; what they commit is seen by the next look.
    flippedSql: (watched, column, place) =>
      `SELECT ${place} AS i WHERE EXISTS (SELECT 1 FROM ${quoteTable(watched.name)} WITH (READPAST) WHERE ${condition(column)})`,
    select: (sql) => connection.query('look at trigger columns', sql),
    isAboutOneTable,
    reset: async ({ name }, column) => {
      await connection.query(
        `reset ${column.name} of ${displayName(name)}`,
        `UPDATE ${quoteTable(name)} SET ${quoteIdentifier(column.name)} = 0 WHERE ${condition(column)}`,
      );
    },
    resetHint: (error, { name }, column) => {
      if (errorNumber(error) === READ_ONLY)
        return 'The database is read-only (a secondary replica): reset the column on its primary.';
      if (!hasCode(error, 'PERMISSION_DENIED')) return null;
      return `GRANT SELECT, UPDATE (${quoteIdentifier(column.name)}) ON ${quoteTable(name)} TO the login's user.`;
    },
  });
}

async function isReadable(connection: Connection, table: string, column: Column): Promise<boolean> {
  try {
    await connection.query(
      'look at a trigger column',
      `SELECT TOP (0) ${quoteIdentifier(column.name)} AS flag FROM ${table}`,
    );
    return true;
  } catch (error) {
    if (!isAboutOneTable(error)) throw error;
    return false;
  }
}
