import { expect } from 'chai';
import { Connection } from '../../../src/engines/postgres/connection.ts';
import { triggerColumns } from '../../../src/engines/postgres/triggers.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { connect } from './support.ts';

const watch = (table: string, column = 'sync') => ({ name: { schema: 'public', table }, column });

describe('PostgreSQL trigger columns', () => {
  let database: TestDatabase;
  let connection: Connection;
  before(async () => {
    database = await createDatabase('flip');
    connection = connect(database);
    await database.query(`CREATE TABLE b (id int, sync boolean); CREATE TABLE i (sync smallint); CREATE TABLE c (sync char(3));
      CREATE TABLE v (sync varchar); CREATE TABLE n (other int)`);
  });
  after(async () => {
    await connection.close();
    await database.drop();
  });

  it('are seen in every form, in one round trip once known; a missing table does not hide the others', async () => {
    let queries = 0;
    const counting = {
      query: (...args: Parameters<Connection['query']>) => {
        queries++;
        return connection.query(...args);
      },
    } as unknown as Connection;
    const source = triggerColumns(counting);
    const all = ['b', 'i', 'c', 'v', 'n', 'missing'].map((table) => watch(table));
    expect(await source.flipped(all)).to.deep.equal([false, false, false, false, false, false]);
    await database.query(`INSERT INTO b VALUES (1, false), (2, NULL), (3, true); INSERT INTO i VALUES (0), (1);
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
    await database.query('DROP TABLE i; ALTER TABLE v ALTER sync TYPE int USING 1');
    await database.query(`UPDATE v SET sync = 1; INSERT INTO v VALUES (1)`);
    expect(await source.flipped(all)).to.deep.equal([false, false, false, true, false, false]);
  });

  it('F53: a denied reset says so, with the grant', async () => {
    await database.query(`CREATE TABLE denied (sync int); INSERT INTO denied VALUES (1);
      DROP ROLE IF EXISTS flip_reader; CREATE ROLE flip_reader LOGIN; GRANT SELECT ON denied TO flip_reader`);
    const reader = new Connection({
      connectionString: database.url.replace('postgres@', 'flip_reader@'),
      database: null,
      installation: { uid: 'test' },
      applicationName: 'sluice-test',
    });
    const source = triggerColumns(reader);
    expect(await source.flipped([watch('denied'), watch('b')])).to.deep.equal([true, false]);
    const error = await source
      .reset(watch('denied').name, 'sync')
      .catch((thrown: unknown) => thrown as { code: string; hint: string });
    expect(error?.code).to.equal('TRIGGER_RESET_DENIED');
    expect(error?.hint).to.include('GRANT SELECT, UPDATE ("sync") ON "public"."denied"');
    await reader.close();
    await database.query('DROP OWNED BY flip_reader; DROP ROLE flip_reader');
  });
});
