/** Are two databases equal? Asked of both in SQL, by a checksum over every row of every table of the demo. */
import type { Client } from 'pg';
import type { DemoTable } from './dataset.ts';

export interface TableComparison {
  readonly table: string;
  readonly sourceRows: number;
  readonly destinationRows: number;
  /** MD5 over the MD5s of all rows in key order. */
  readonly sourceChecksum: string;
  readonly destinationChecksum: string;
  readonly equal: boolean;
}

type Comparable = Pick<DemoTable, 'name' | 'key' | 'columns'>;

export async function compare(
  source: Client,
  destination: Client,
  tables: readonly Comparable[],
): Promise<TableComparison[]> {
  const comparisons: TableComparison[] = [];
  for (const table of tables) {
    const [left, right] = await Promise.all([checksum(source, table), checksum(destination, table)]);
    comparisons.push({
      table: table.name,
      sourceRows: left.rows,
      destinationRows: right.rows,
      sourceChecksum: left.md5,
      destinationChecksum: right.md5,
      equal: left.rows === right.rows && left.md5 === right.md5,
    });
  }
  return comparisons;
}

/** A table that is not there yet has no rows and no checksum, so it equals nothing. */
async function checksum(client: Client, table: Comparable): Promise<{ rows: number; md5: string }> {
  const found = await client.query<{ found: boolean }>('SELECT to_regclass($1) IS NOT NULL AS found', [table.name]);
  if (!found.rows[0]?.found) return { rows: 0, md5: 'missing' };
  const columns = [...table.columns, 'updated_at'].join(', ');
  // COLLATE "C": both sides order alike whatever their databases' collations are. Numbers order as text; any fixed order does.
  const order = table.key.map((column) => `${column}::text COLLATE "C"`).join(', ');
  const result = await client.query<{ rows: string; md5: string }>(
    `SELECT count(*)::text AS rows, md5(coalesce(string_agg(md5(ROW(${columns})::text), '' ORDER BY ${order}), '')) AS md5 FROM ${table.name}`,
  );
  const row = result.rows[0];
  return { rows: Number(row?.rows ?? 0), md5: row?.md5 ?? '' };
}
