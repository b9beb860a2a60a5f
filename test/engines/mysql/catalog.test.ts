/** What tables are, asked of servers on which others are at work. */
import { expect } from 'chai';
import { describeTables } from '../../../src/engines/mysql/catalog.ts';
import { SluiceError } from '../../../src/model/errors.ts';
import { createMysqlDatabase, requireMysql, requireMysqlItself, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect } from '../../support/mysql-servers.ts';
import { eventually } from '../../support/service.ts';

const LOCK_SECONDS = 5;

for (const { name, require } of [
  { name: 'MariaDB', require: requireMysql },
  { name: 'MySQL', require: requireMysqlItself },
])
  describe(`${name}: its catalog`, () => {
    let database: MysqlTestDatabase;
    let other: MysqlTestDatabase;
    before(async function () {
      const server = await require(this);
      database = await createMysqlDatabase(server);
      other = await createMysqlDatabase(server, 'other');
    });
    after(async () => {
      await other?.drop();
      await database?.drop();
    });

    /** Where a statement has locked `held`, and waits for another table. */
    const whileLocked = async (where: MysqlTestDatabase, work: () => Promise<void>) => {
      for (const table of ['held', 'wanted']) await where.query(`CREATE TABLE ${table} (id int PRIMARY KEY)`);
      const [reader, renamer] = [connect(where.url, where.name), connect(where.url, where.name)];
      const rename = 'RENAME TABLE held TO held_before, wanted TO wanted_before';
      try {
        await reader.use(async (reading) => {
          await reading.run('read', ['START TRANSACTION', 'INSERT INTO wanted VALUES (1)']);
          const renamed = renamer.query('rename', rename);
          await eventually(async () => {
            const waiting = await where.query(
              "SELECT INFO FROM information_schema.PROCESSLIST WHERE STATE = 'Waiting for table metadata lock'",
            );
            expect(waiting.map((row) => row['INFO'])).to.include(rename);
          });
          try {
            await work();
          } finally {
            await reading.run('end', ['COMMIT']);
            await renamed;
          }
        });
      } finally {
        await reader.close();
        await renamer.close();
      }
    };
    const described = (lockSeconds: number, ...tables: string[]) =>
      database.connection.use(async (session) => {
        await session.run('wait briefly', [`SET SESSION lock_wait_timeout = ${lockSeconds}`]);
        const names = tables.map((table) => ({ schema: '', table }));
        return describeTables(session, names, database.name);
      });

    it('F40: tables that a statement has locked, here and in another database, are not waited for by others', async () => {
      await database.query('CREATE TABLE t (id int PRIMARY KEY)');
      const check = async () => {
        const began = performance.now();
        const found = await described(LOCK_SECONDS, 't', 'missing');
        expect(performance.now() - began, 'ms').to.be.lessThan(LOCK_SECONDS * 1000);
        expect(found.map((table) => table?.columns.length)).to.deep.equal([1, undefined]);
      };
      await whileLocked(other, check);
      await whileLocked(database, check);
      for (const table of ['held_before', 'wanted_before']) await database.query(`DROP TABLE ${table}`);
    });

    it('F40: one that is locked longer than is waited for is an error, not a table without columns', async () => {
      const { isMariaDb } = database.server;
      await whileLocked(database, async () => {
        // Each question waits by itself; MySQL knows no shorter time than a second.
        const found = await described(isMariaDb ? 0 : 1, 'held').catch((error: unknown) => error);
        if (found instanceof SluiceError) expect(found.code).to.equal('TIMEOUT');
        // MySQL looks it up in its dictionary.
        else expect(found).to.have.nested.property('[0].columns[0].name', 'id');
        expect(found instanceof SluiceError).to.equal(isMariaDb);
      });
      expect(await described(1, 'held')).to.deep.equal([null]);
    });
  });
