/** MySQL and MariaDB in the contract suites. What is special to them is tested in test/engines/mysql. */
import { quoteIdentifier, quoteTable } from '../../src/engines/mysql/sql.ts';
import { createMysqlDatabase, requireMysql, requireMysqlItself } from '../support/mysql.ts';
import { type MysqlUnderTest } from '../support/mysql-servers.ts';
import { applySuite } from './apply.suite.ts';
import { changesSuite } from './changes.suite.ts';
import { checksumSuite } from './checksum.suite.ts';
import { handlesOf, type ContractDatabase, type EngineUnderTest } from './engine-under-test.ts';
import { snapshotSuite } from './snapshot.suite.ts';

for (const [name, require] of [
  ['MariaDB', requireMysql],
  ['MySQL', requireMysqlItself],
] as const)
  describe(`contract: ${name}`, () => {
    let server: MysqlUnderTest | null = null;
    before(async function () {
      server = await require(this);
    });

    const mysql: EngineUnderTest = {
      name: 'mysql',
      database: async (): Promise<ContractDatabase> => {
        if (!server) throw new Error('no server');
        const database = await createMysqlDatabase(server, 'contract');
        const { close, ...handles } = handlesOf(database.url);
        return {
          ...handles,
          schema: '',
          execute: async (sql) => void (await database.query(sql)),
          quote: quoteTable,
          rows: async (table, columns) => {
            const list = columns.map(
              (column) => `CAST(${quoteIdentifier(column)} AS CHAR) AS ${quoteIdentifier(column)}`,
            );
            const rows = await database.query(`SELECT ${list.join(', ')} FROM ${quoteTable(table)} t ORDER BY t.id`);
            return rows.map((row) => columns.map((column) => row[column]?.toString() ?? null));
          },
          drop: async () => {
            await close();
            await database.drop();
          },
        };
      },
      // Chunks are ranges of the key: what moves rows is a key that orders otherwise.
      rewrite: (database, table) => database.execute(`ALTER TABLE ${quoteTable(table)} MODIFY id varchar(20) NOT NULL`),
    };

    snapshotSuite(mysql);
    changesSuite(mysql);
    checksumSuite(mysql);
    // As a destination the two differ in little.
    if (name === 'MariaDB' || process.env['SLUICE_TEST_LONG']) applySuite(mysql);
  });
