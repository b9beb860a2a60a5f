/** Connections of our own to a test database, as `index.ts` makes them, and a copy from one table to another. */
import type { TestDatabase } from '../../support/postgres.ts';
import type { Table, TableName } from '../../../src/model/tables.ts';
import { carriedColumns } from '../../../src/model/tables.ts';
import type { RowStream } from '../../../src/engines/contract.ts';
import { Connection } from '../../../src/engines/postgres/connection.ts';
import { PostgresCatalog } from '../../../src/engines/postgres/catalog.ts';
import { PostgresSnapshot } from '../../../src/engines/postgres/snapshot.ts';
import { loadRows } from '../../../src/engines/postgres/loader.ts';

/** Stands in for the engine's registry entry, which a connection does not look at. */
const engine = {
  connectionString: '',
  database: null,
  installation: { uid: 'test' },
  applicationName: 'sluice-test',
};

export function connect(database: TestDatabase): Connection {
  return new Connection({ ...engine, connectionString: database.url });
}

export async function describeTable(connection: Connection, name: TableName): Promise<Table> {
  const [table] = await new PostgresCatalog(connection).describe([name]);
  if (!table) throw new Error(`no table ${name.schema}.${name.table}`);
  return table;
}

/** Reads all chunks and loads them, in a transaction each. Resolves to the number of rows. */
export async function copyTable(
  from: Connection,
  to: Connection,
  source: TableName,
  target: TableName,
  options: { lane: 'cells' | 'text' | 'binary'; targetBytes?: number; wrap?: (rows: RowStream) => RowStream },
): Promise<number> {
  const table = await describeTable(from, source);
  const dest = await describeTable(to, target);
  const snapshot = new PostgresSnapshot(from);
  const columns = carriedColumns(table).map((column) => column.name);
  const lane =
    options.lane === 'cells' ? 'cells' : snapshot.lanes(table, columns).find((name) => name.includes(options.lane));
  if (lane === undefined) throw new Error(`no ${options.lane} lane`);
  const plan = await snapshot.planChunks(table, { targetBytes: options.targetBytes ?? 64 * 1024 * 1024 });
  const into = columns.map((name) => {
    const column = dest.columns.find((candidate) => candidate.name === name);
    if (!column) throw new Error(`no column ${name}`);
    return column;
  });
  const session = await to.open();
  try {
    let rows = 0;
    for (const chunk of plan.chunks) {
      const stream = await snapshot.readChunk(table, plan.layout, chunk, columns, lane);
      const wrapped = options.wrap?.(stream) ?? stream;
      rows += await session.transaction('BEGIN', () => loadRows(session, target, into, wrapped));
    }
    return rows;
  } finally {
    await to.release(session);
  }
}
