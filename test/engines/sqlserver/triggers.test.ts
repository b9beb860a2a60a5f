import { expect } from 'chai';
import { Connection } from '../../../src/engines/sqlserver/connection.ts';
import { triggerColumns } from '../../../src/engines/sqlserver/triggers.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';

const watch = (table: string, column = 'sync') => ({ name: { schema: 'dbo', table }, column });

describe('SQL Server trigger columns', () => {
  let database: SqlServerTestDatabase;
  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this), 'flip');
    await database.query(`CREATE TABLE b (id int, Sync bit); CREATE TABLE i (sync smallint); CREATE TABLE c (sync char(5));
      CREATE TABLE v (sync nvarchar(10)); CREATE TABLE n (other int)`);
  });
  after(() => database?.drop());

  it('are seen in every form, in one round trip once known; a missing table does not hide the others', async () => {
    let queries = 0;
    const { connection } = database;
    const counting = {
      query: (...args: Parameters<Connection['query']>) => {
        queries++;
        return connection.query(...args);
      },
    } as unknown as Connection;
    const source = triggerColumns(counting);
    const all = ['b', 'i', 'c', 'v', 'n', 'missing'].map((table) => watch(table));
    expect(await source.flipped(all)).to.deep.equal([false, false, false, false, false, false]);
    await database.query(`INSERT INTO b VALUES (1, 0), (2, NULL), (3, 1); INSERT INTO i VALUES (0), (1);
      INSERT INTO c VALUES ('1'); INSERT INTO v VALUES ('True')`);
    queries = 0;
    expect(await source.flipped(all)).to.deep.equal([true, true, true, true, false, false]);
    expect(queries).to.equal(1);
    for (const table of ['b', 'i', 'c', 'v']) await source.reset(watch(table).name, 'sync');
    expect(await source.flipped(all)).to.deep.equal([false, false, false, false, false, false]);
    expect(await database.query('SELECT sync FROM b ORDER BY id')).to.deep.equal([
      { sync: false },
      { sync: null },
      { sync: false },
    ]);
    await database.query('DROP TABLE i');
    await database.query('UPDATE v SET sync = 1');
    expect(await source.flipped(all)).to.deep.equal([false, false, false, true, false, false]);
  });

  it('F53: a denied reset says so, with the grant', async () => {
    await database.query('CREATE TABLE denied (sync int); INSERT INTO denied VALUES (1)');
    const login = `${database.name}_reader`;
    await database.query(`CREATE LOGIN ${login} WITH PASSWORD = 'Reader_pass1'`);
    await database.query(`CREATE USER ${login} FOR LOGIN ${login}`);
    await database.query(`GRANT SELECT ON denied TO ${login}`);
    const url = new URL(database.url);
    url.username = login;
    url.password = 'Reader_pass1';
    const reader = new Connection({
      connectionString: url.toString(),
      database: null,
      installation: { uid: 'test' },
      applicationName: 'sluice tests',
    });
    try {
      const source = triggerColumns(reader);
      expect(await source.flipped([watch('denied'), watch('b')])).to.deep.equal([true, false]);
      const error = await source
        .reset(watch('denied').name, 'sync')
        .catch((thrown: unknown) => thrown as { code: string; hint: string });
      expect(error?.code).to.equal('TRIGGER_RESET_DENIED');
      expect(error?.hint).to.include('GRANT SELECT, UPDATE ([sync]) ON [dbo].[denied]');
    } finally {
      await reader.close();
      await database.query(`REVOKE SELECT ON denied FROM ${login}`);
      await database.query(`DROP USER ${login}`);
      await database.query(`DROP LOGIN ${login}`);
    }
  });
});
