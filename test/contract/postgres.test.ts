/** PostgreSQL in the contract suites. What is special to it is tested in test/engines/postgres. */
import { createDatabase } from '../support/postgres.ts';
import { applySuite } from './apply.suite.ts';
import { changesSuite } from './changes.suite.ts';
import { checksumSuite } from './checksum.suite.ts';
import { handlesOf, type ContractDatabase, type EngineUnderTest } from './engine-under-test.ts';
import { snapshotSuite } from './snapshot.suite.ts';

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;

const postgres: EngineUnderTest = {
  name: 'postgres',
  database: async (): Promise<ContractDatabase> => {
    const database = await createDatabase('contract');
    const { close, ...handles } = handlesOf(database.url);
    return {
      ...handles,
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
        await close();
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
