import { expect } from 'chai';
import type { Connection } from '../../../src/engines/mysql/connection.ts';
import { triggerColumns } from '../../../src/engines/mysql/triggers.ts';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect } from '../../support/mysql-servers.ts';

const watch = (table: string, column = 'sync') => ({ name: { schema: '', table }, column });

describe('MySQL trigger columns', () => {
  let database: MysqlTestDatabase;
  before(async function () {
    database = await createMysqlDatabase(await requireMysql(this), 'flip');
    for (const columns of [
      'b (id int, Sync boolean)',
      'i (sync bit)',
      'c (sync char(5))',
      `e (sync enum('0', '1'))`,
      'n (other int)',
    ])
      await database.query(`CREATE TABLE ${columns}`);
  });
  after(() => database?.drop());

  it('are seen in every form, in one round trip once known; a missing table does not hide the others', async () => {
    const { connection } = database;
    let queries = 0;
    const counting = {
      database: connection.database,
      use: (work: Parameters<Connection['use']>[0]) => connection.use(work),
      query: (...args: Parameters<Connection['query']>) => {
        queries++;
        return connection.query(...args);
      },
    } as unknown as Connection;
    const source = triggerColumns(counting);
    const all = ['b', 'i', 'c', 'e', 'n', 'missing'].map((table) => watch(table));
    expect(await source.flipped(all)).to.deep.equal([false, false, false, false, false, false]);
    await database.query('INSERT INTO b VALUES (1, 0), (2, NULL), (3, 1)');
    await database.query('INSERT INTO i VALUES (0), (1)');
    await database.query(`INSERT INTO c VALUES ('True')`);
    await database.query(`INSERT INTO e VALUES ('1')`);
    queries = 0;
    expect(await source.flipped(all)).to.deep.equal([true, true, true, true, false, false]);
    expect(queries).to.equal(1);
    for (const table of ['b', 'i', 'c', 'e']) await source.reset(watch(table).name, 'sync');
    expect(await source.flipped(all)).to.deep.equal([false, false, false, false, false, false]);
    const rows = await database.query('SELECT Sync FROM b ORDER BY id');
    expect(rows.map((row) => row['Sync'])).to.deep.equal(['0', null, '0']);
    await database.query('DROP TABLE i');
    await database.query(`UPDATE e SET sync = '1'`);
    expect(await source.flipped(all)).to.deep.equal([false, false, false, true, false, false]);
  });

  it('F53: a denied reset says so, with the grant', async () => {
    await database.query('CREATE TABLE denied (sync int)');
    await database.query('INSERT INTO denied VALUES (1)');
    const reader = `${database.name}_r`;
    await database.query(`CREATE USER ${reader} IDENTIFIED BY 'Reader_pass1'`);
    await database.query(`GRANT SELECT ON ${database.name}.denied TO ${reader}`);
    const url = new URL(database.url);
    url.username = reader;
    url.password = 'Reader_pass1';
    const connection = connect(url.toString(), null);
    try {
      const source = triggerColumns(connection);
      expect(await source.flipped([watch('denied'), watch('b')])).to.deep.equal([true, false]);
      const error = await source
        .reset(watch('denied').name, 'sync')
        .catch((thrown: unknown) => thrown as { code: string; hint: string });
      expect(error?.code).to.equal('TRIGGER_RESET_DENIED');
      expect(error?.hint).to.include('GRANT SELECT, UPDATE (`sync`) ON `denied`');
    } finally {
      await connection.close();
      await database.query(`DROP USER ${reader}`);
    }
  });
});
