/** A world (service.ts) whose mappings go from PostgreSQL to a MySQL or MariaDB database. */
import type { EngineDatabase } from '../../src/engines/contract.ts';
import { readColumns, readRows } from '../../src/engines/mysql/rows.ts';
import { quoteIdentifier } from '../../src/engines/mysql/sql.ts';
import { selectExpression } from '../../src/engines/mysql/types.ts';
import { engineOf } from '../../src/engines/registry.ts';
import type { Cell } from '../../src/model/changes.ts';
import { createMysqlDatabase, type MysqlTestDatabase } from './mysql.ts';
import type { MysqlUnderTest } from './mysql-servers.ts';
import { createWorld } from './service.ts';
import { worldTo, type TargetWorld } from './target-world.ts';

export interface WorldToMysql extends TargetWorld {
  readonly target: MysqlTestDatabase;
}

export async function createWorldToMysql(
  server: MysqlUnderTest,
  settings: Readonly<Record<string, number>> = {},
): Promise<WorldToMysql> {
  const world = await createWorld(settings);
  const target = await createMysqlDatabase(server, 'dst');
  const handle: EngineDatabase = engineOf(target.url).open({
    connectionString: target.url,
    database: target.name,
    installation: { uid: 'test' },
    applicationName: 'sluice tests',
  });
  const rows = async (table: string): Promise<{ columns: string[]; rows: Cell[][] }> => {
    const [described] = await handle.catalog.describe([{ schema: '', table }]);
    if (!described) throw new Error(`${table} is not there`);
    const columns = described.columns.map((column) => column.name);
    const list = described.columns.map((column) => selectExpression(column.nativeType, quoteIdentifier(column.name)));
    const sql = `SELECT ${list.join(', ')} FROM ${quoteIdentifier(table)}`;
    const all: Cell[][] = [];
    await target.connection.use(async (session) => {
      for await (const batch of readRows(session, 'read rows', sql, readColumns(described.columns)))
        for (let row = 0; row < batch.rows; row++)
          all.push(batch.cells.slice(row * columns.length, (row + 1) * columns.length));
    });
    return { columns, rows: all };
  };
  return {
    ...(await worldTo(world, { url: target.url, place: { dest_database: target.name }, rows })),
    target,
    close: async () => {
      await world.close();
      await handle.close();
      await target.drop();
    },
  };
}
