/** SQL Server in the contract suites. What is special to it is tested in test/engines/sqlserver. */
import { createSqlServerDatabase, requireSqlServer, type SqlServerUnderTest } from '../support/sqlserver.ts';
import { applySuite } from './apply.suite.ts';
import { changesSuite } from './changes.suite.ts';
import { checksumSuite } from './checksum.suite.ts';
import { handlesOf, type ContractDatabase, type EngineUnderTest } from './engine-under-test.ts';
import { snapshotSuite } from './snapshot.suite.ts';

const quote = (name: string) => `[${name.replaceAll(']', ']]')}]`;

describe('contract: sqlserver', () => {
  let server: SqlServerUnderTest;
  before(async function () {
    server = await requireSqlServer(this);
  });

  const sqlserver: EngineUnderTest = {
    name: 'sqlserver',
    database: async (): Promise<ContractDatabase> => {
      const database = await createSqlServerDatabase(server, 'contract');
      const { close, ...handles } = handlesOf(database.url);
      return {
        ...handles,
        schema: 'dbo',
        capture: async ({ schema, table }) => {
          await database.enableCdc();
          await database.captureTable(schema, table);
        },
        execute: async (sql) => void (await database.query(sql)),
        quote: (table) => `${quote(table.schema)}.${quote(table.table)}`,
        rows: async (table, columns) => {
          const list = columns.map((column, i) => `CAST(${quote(column)} AS nvarchar(max)) AS c${i}`).join(', ');
          const rows = await database.query(
            `SELECT ${list} FROM ${quote(table.schema)}.${quote(table.table)} AS t ORDER BY t.id`,
          );
          return rows.map((row) => columns.map((_, i) => (row[`c${i}`] ?? null) as string | null));
        },
        drop: async () => {
          await close();
          await database.drop();
        },
      };
    },
    // Ranges of keys survive a rebuild; another table under the name they do not.
    rewrite: (database, table) =>
      database.execute(
        `SELECT * INTO ${quote(table.schema)}.rewritten FROM ${quote(table.schema)}.${quote(table.table)};
         DROP TABLE ${quote(table.schema)}.${quote(table.table)}; EXEC sp_rename '${table.schema}.rewritten', '${table.table}', 'OBJECT'`,
      ),
  };

  snapshotSuite(sqlserver);
  checksumSuite(sqlserver);
  changesSuite(sqlserver);
  applySuite(sqlserver);
});
