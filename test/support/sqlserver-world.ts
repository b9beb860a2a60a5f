/** A world (service.ts) whose mappings go from PostgreSQL to a SQL Server database. */
import type { EngineDatabase } from '../../src/engines/contract.ts';
import { engineOf } from '../../src/engines/registry.ts';
import { readCells } from '../../src/engines/sqlserver/rows.ts';
import { quoteIdentifier, quoteTable } from '../../src/engines/sqlserver/sql.ts';
import { selectExpression } from '../../src/engines/sqlserver/types.ts';
import type { Cell } from '../../src/model/changes.ts';
import { createWorld } from './service.ts';
import { createSqlServerDatabase, type SqlServerTestDatabase, type SqlServerUnderTest } from './sqlserver.ts';
import { worldTo, type TargetWorld } from './target-world.ts';

export interface WorldToSqlServer extends TargetWorld {
  readonly target: SqlServerTestDatabase;
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
  const rows = async (table: string): Promise<{ columns: string[]; rows: Cell[][] }> => {
    const name = { schema: 'dbo', table };
    const [described] = await handle.catalog.describe([name]);
    if (!described) throw new Error(`${table} is not there`);
    const columns = described.columns.map((column) => column.name);
    const list = described.columns.map((column) => selectExpression(column.nativeType, quoteIdentifier(column.name)));
    const sql = `SELECT ${list.join(', ')} FROM ${quoteTable(name)}`;
    const all: Cell[][] = [];
    await target.connection.use(async (session) => {
      for await (const batch of readCells(session, 'read rows', sql, columns))
        for (let row = 0; row < batch.rows; row++)
          all.push(batch.cells.slice(row * columns.length, (row + 1) * columns.length));
    });
    return { columns, rows: all };
  };
  const place = { dest_database: target.name, dest_schema: 'dbo' };
  return {
    ...(await worldTo(world, { url: target.url, place, rows })),
    target,
    close: async () => {
      await world.close();
      await handle.close();
      await target.drop();
    },
  };
}
