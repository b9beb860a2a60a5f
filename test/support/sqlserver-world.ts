/** A world (service.ts) whose mappings go from PostgreSQL to a SQL Server database. */
import type { EngineDatabase } from '../../src/engines/contract.ts';
import { engineOf } from '../../src/engines/registry.ts';
import { readCells } from '../../src/engines/sqlserver/rows.ts';
import { quoteIdentifier, quoteTable } from '../../src/engines/sqlserver/sql.ts';
import { selectExpression } from '../../src/engines/sqlserver/types.ts';
import { createWorld, eventually, type World } from './service.ts';
import { createSqlServerDatabase, type SqlServerTestDatabase, type SqlServerUnderTest } from './sqlserver.ts';

export interface WorldToSqlServer extends World {
  readonly target: SqlServerTestDatabase;
  /** Waits until `public.table` of the source and `dbo.table` of the target hold the same rows, cell by cell. */
  equal(table: string, ms?: number): Promise<void>;
  /** The mapping of a source table. */
  idOf(table: string): Promise<number>;
  /** Asks for a full sync and waits until it is done. */
  copyAgain(mappingId: number): Promise<void>;
}

export async function createWorldToSqlServer(
  server: SqlServerUnderTest,
  settings: Readonly<Record<string, number>> = {},
): Promise<WorldToSqlServer> {
  const world = await createWorld(settings);
  const target = await createSqlServerDatabase(server, 'dst');
  const handle: EngineDatabase = engineOf(target.url).open({
    connectionString: target.url,
    database: target.name,
    installation: { uid: 'test' },
    applicationName: 'sluice tests',
  });
  await world.control.query(`INSERT INTO destination_servers (server_name, connection_string) VALUES ('target', $1)`, [
    target.url,
  ]);
  const rows = async (table: string): Promise<{ columns: string[]; rows: string[] }> => {
    const name = { schema: 'dbo', table };
    const [described] = await handle.catalog.describe([name]);
    if (!described) throw new Error(`${table} is not there`);
    const columns = described.columns.map((column) => column.name);
    const list = described.columns.map((column) => selectExpression(column.nativeType, quoteIdentifier(column.name)));
    const all: string[] = [];
    await target.connection.use(async (session) => {
      for await (const batch of readCells(
        session,
        'read rows',
        `SELECT ${list.join(', ')} FROM ${quoteTable(name)}`,
        columns,
      ))
        for (let row = 0; row < batch.rows; row++)
          all.push(
            JSON.stringify(
              batch.cells
                .slice(row * columns.length, (row + 1) * columns.length)
                .map((cell) => (cell instanceof Uint8Array ? Buffer.from(cell).toString() : cell)),
            ),
          );
    });
    return { columns, rows: all.sort() };
  };
  return {
    ...world,
    target,
    map: (table, columns = {}) =>
      world.map(table, { dest_server_id: 1, dest_database: target.name, dest_schema: 'dbo', ...columns }),
    equal: (table, ms = 20_000) =>
      eventually(async () => {
        const there = await rows(table);
        const here = await world.source.query(
          `SELECT ${there.columns.map((column, i) => `"${column}"::text AS c${i}`).join(', ')} FROM public."${table}"`,
        );
        const ours = here.map((row) => JSON.stringify(there.columns.map((_, i) => row[`c${i}`]))).sort();
        const missing = ours.filter((row) => !there.rows.includes(row)).slice(0, 3);
        const extra = there.rows.filter((row) => !ours.includes(row)).slice(0, 3);
        if (ours.length !== there.rows.length || missing.length + extra.length > 0)
          throw new Error(
            `${table}: ${ours.length} rows at the source, ${there.rows.length} here; missing ${missing.join()}; extra ${extra.join()}`,
          );
      }, ms),
    idOf: async (table) => {
      const [row] = await world.control.query<{ mapping_id: number }>(
        'SELECT mapping_id FROM table_mappings WHERE source_table = $1',
        [table],
      );
      return row?.mapping_id ?? 0;
    },
    copyAgain: async (mappingId) => {
      await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mappingId]);
      await eventually(async () => {
        const [row] = await world.control.query('SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1', [
          mappingId,
        ]);
        if (row?.['is_full_sync'] !== 0) throw new Error('the full sync is not done');
      }, 30_000);
    },
    close: async () => {
      await world.close();
      await handle.close();
      await target.drop();
    },
  };
}
