/** Makes the demo's tables in a PostgreSQL database and fills them. */
import type { Client } from 'pg';
import type { DemoTable } from './dataset.ts';

const ROWS_PER_STATEMENT = 10_000;

/** One transaction per table. `onRows` is told the rows of each step. Resolves to all rows. */
export async function loadDataset(
  client: Client,
  tables: readonly DemoTable[],
  onRows: (rows: number) => void = () => undefined,
): Promise<number> {
  let total = 0;
  for (const table of tables) {
    await client.query('BEGIN');
    await client.query(table.ddl);
    for (let from = 0; from < table.rows.length; from += ROWS_PER_STATEMENT) {
      const rows = table.rows.slice(from, from + ROWS_PER_STATEMENT);
      await client.query(insert(table), [JSON.stringify(rows.map((row) => objectOf(table.columns, row)))]);
      total += rows.length;
      onRows(rows.length);
    }
    await client.query('COMMIT');
    await client.query(`ANALYZE ${table.name}`);
  }
  return total;
}

/** Values travel as one bound JSON text; the server gives each its column's type. */
function insert(table: DemoTable): string {
  const columns = table.columns.join(', ');
  return `INSERT INTO ${table.name} (${columns}) SELECT ${columns} FROM json_populate_recordset(NULL::${table.name}, $1::json)`;
}

function objectOf(columns: readonly string[], row: readonly (string | null)[]): Record<string, string | null> {
  return Object.fromEntries(columns.map((column, at) => [column, row[at] ?? null]));
}
