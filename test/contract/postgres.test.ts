/** PostgreSQL in the contract suites. What is special to it is tested in test/engines/postgres. */
import { engineOf } from '../../src/engines/registry.ts';
import type { EngineDatabase } from '../../src/engines/contract.ts';
import { createDatabase } from '../support/postgres.ts';
import { applySuite } from './apply.suite.ts';
import { changesSuite } from './changes.suite.ts';
import { checksumSuite } from './checksum.suite.ts';
import type { ContractDatabase, EngineUnderTest } from './engine-under-test.ts';
import { snapshotSuite } from './snapshot.suite.ts';

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;

const postgres: EngineUnderTest = {
  name: 'postgres',
  database: async (): Promise<ContractDatabase> => {
    const database = await createDatabase('contract');
    const handles: EngineDatabase[] = [];
    const open = () => {
      const handle = engineOf(database.url).open({
        connectionString: database.url,
        database: null,
        installation: { uid: 'contract' },
        applicationName: 'contract',
      });
      handles.push(handle);
      return handle;
    };
    return {
      handle: open(),
      another: open,
      schema: 'public',
      execute: async (sql) => void (await database.query(sql)),
      quote: (table) => `${quote(table.schema)}.${quote(table.table)}`,
      rows: async (table, columns) => {
        const list = columns.map((column) => `${quote(column)}::text`).join(', ');
        const rows = await database.query<Record<string, string | null>>(
          `SELECT ${list} FROM ${quote(table.schema)}.${quote(table.table)} t ORDER BY t.id`,
        );
        return rows.map((row) => columns.map((column) => row[column] ?? null));
      },
      drop: async () => {
        await Promise.all(handles.map((handle) => handle.close()));
        await database.drop();
      },
    };
  },
  rewrite: (database, table) => database.execute(`VACUUM FULL ${quote(table.schema)}.${quote(table.table)}`),
};

describe(`contract: ${postgres.name}`, () => {
  snapshotSuite(postgres);
  changesSuite(postgres);
  applySuite(postgres);
  checksumSuite(postgres);
});
