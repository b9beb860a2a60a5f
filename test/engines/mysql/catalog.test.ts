/** What tables are, asked of servers on which others are at work. */
import { expect } from 'chai';
import { describeTables } from '../../../src/engines/mysql/catalog.ts';
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

    it('F40: a statement that waits for tables of another database, and has some, is not waited for', async () => {
      await database.query('CREATE TABLE t (id int PRIMARY KEY)');
      await database.query(
        'CREATE TABLE child (id int PRIMARY KEY, t int, CONSTRAINT of_t FOREIGN KEY (t) REFERENCES t (id))',
      );
      for (const table of ['a', 'b']) await other.query(`CREATE TABLE ${table} (id int PRIMARY KEY)`);
      const [reader, dropper] = [connect(other.url, other.name), connect(other.url, other.name)];
      try {
        await reader.use(async (reading) => {
          await reading.run('read', ['START TRANSACTION', 'INSERT INTO b VALUES (1)']);
          const dropped = dropper.query('drop', 'DROP TABLE a, b');
          await eventually(async () => {
            const waiting = await other.query(
              "SELECT INFO FROM information_schema.PROCESSLIST WHERE STATE = 'Waiting for table metadata lock'",
            );
            expect(waiting.map((row) => row['INFO'])).to.include('DROP TABLE a, b');
          });
          const described = await database.connection.use(async (session) => {
            // What is not had in this time is left out of the answer.
            await session.run('wait briefly', [`SET SESSION lock_wait_timeout = ${LOCK_SECONDS}`]);
            const tables = ['t', 'child', 'missing'].map((table) => ({ schema: '', table }));
            const began = performance.now();
            const found = await describeTables(session, tables, database.name);
            expect(performance.now() - began, 'ms').to.be.lessThan(LOCK_SECONDS * 1000);
            return found;
          });
          expect(described.map((table) => table?.referencedBy)).to.deep.equal([
            [`${database.name}.child.of_t`],
            [],
            undefined,
          ]);
          await reading.run('end', ['COMMIT']);
          await dropped;
        });
      } finally {
        await reader.close();
        await dropper.close();
      }
    });
  });
