/** SQL Server in the contract suites. What is special to it is tested in test/engines/sqlserver. */
import { createSqlServerDatabase, requireSqlServer, type SqlServerUnderTest } from '../support/sqlserver.ts';
import { applySuite } from './apply.suite.ts';
import { changesSuite } from './changes.suite.ts';
import { checksumSuite } from './checksum.suite.ts';
import { handlesOf, type ContractDatabase, type EngineUnderTest } from './engine-under-test.ts';
import { snapshotSuite } from './snapshot.suite.ts';

const quote = (name: string) => `[${name.replaceAll(']', ']]')}]`;

/** Drops all tables but those that Sluice keeps in a destination (their names have no underscore), and empties these. */
const EMPTY = `
DECLARE @sql nvarchar(max);
SELECT @sql = STRING_AGG(CAST(CASE WHEN s.name = N'sluice' AND CHARINDEX(N'_', t.name) = 0
    THEN N'DELETE FROM ' ELSE N'DROP TABLE ' END + QUOTENAME(s.name) + N'.' + QUOTENAME(t.name) AS nvarchar(max)), N'; ')
  FROM sys.tables AS t INNER JOIN sys.schemas AS s ON s.schema_id = t.schema_id WHERE s.name IN (N'dbo', N'sluice');
EXEC (@sql)`;

describe('contract: SQL Server', () => {
  let server: SqlServerUnderTest;
  before(async function () {
    server = await requireSqlServer(this);
  });

  /** Sessions that have just begun are slow on a stand-in: tests take turns on one database and its open handle. */
  let free: ContractDatabase | null = null;
  let dropFree: (() => Promise<void>) | null = null;
  after(() => dropFree?.());

  const sqlserver: EngineUnderTest = {
    name: 'sqlserver',
    database: async (): Promise<ContractDatabase> => {
      const kept = free;
      free = null;
      if (kept) return kept;
      const database = await createSqlServerDatabase(server, 'contract');
      const { close, closeOthers, ...handles } = handlesOf(database.url);
      let isCdcEnabled = false;
      const drop = async () => {
        await close();
        await database.drop();
      };
      const made: ContractDatabase = {
        ...handles,
        schema: 'dbo',
        capture: async ({ schema, table }) => {
          if (!isCdcEnabled) await database.enableCdc();
          isCdcEnabled = true;
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
          await closeOthers();
          if (free !== null) return drop();
          await database.query(EMPTY);
          free = made;
          dropFree = drop;
        },
      };
      return made;
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
