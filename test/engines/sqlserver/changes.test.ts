import { expect } from 'chai';
import type { ChangePiece } from '../../../src/model/changes.ts';
import { SqlServerChanges } from '../../../src/engines/sqlserver/changes.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';
import { changesOf, follow, shown, STREAM, type Following } from './change-support.ts';

describe('SQL Server change stream', () => {
  let database: SqlServerTestDatabase;
  let changes: SqlServerChanges;
  let following: Following | null;

  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this));
    changes = changesOf(database);
    await database.enableCdc();
  });
  beforeEach(() => {
    following = null;
  });
  afterEach(async () => {
    await following?.reader.stop();
    // With their capture instances.
    for (const table of ['t', 'a', 'b']) await database.query(`DROP TABLE IF EXISTS dbo.${table}`);
  });
  after(() => database?.drop());

  const start = async () => (await changes.prepare(STREAM)).start;
  const ends = (pieces: readonly ChangePiece[]) => pieces.flatMap(({ end }) => end ?? []);

  it('inserts, updates and deletes, with exact values', async () => {
    await database.query('CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v nvarchar(20), d decimal(38,10), m money)');
    await database.captureTable('dbo', 't');
    const from = await start();
    await database.query(
      `INSERT INTO dbo.t VALUES (1, N'ä', 1234567890123456789012345678.0123456789, 1.5), (2, NULL, NULL, NULL)`,
    );
    await database.query(`UPDATE dbo.t SET v = N'b' WHERE id = 1`);
    await database.query('DELETE FROM dbo.t WHERE id = 2');
    following = await follow(changes, from);
    const seen = await following.changes(4);
    expect(shown(seen)).to.deep.equal([
      'I:1,ä,1234567890123456789012345678.0123456789,1.5000',
      'I:2,null,null,null',
      'U:1,b,1234567890123456789012345678.0123456789,1.5000',
      'D:2,~,~,~',
    ]);
    expect(seen.at(-1)?.committedAt).to.be.closeTo(Date.now(), 30_000);
    expect(changes.compare(ends(seen).at(-1) ?? from, from)).to.equal('after');
  });

  it('what is written in quick succession does not wait for an interval each time', async function () {
    this.timeout(120_000);
    await database.query('CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY)');
    await database.captureTable('dbo', 't');
    // Longer than the test may take.
    following = await follow(changes, await start(), { pollMs: () => 600_000 });
    for (const id of [1, 2]) {
      await database.query(`INSERT INTO dbo.t VALUES (${id})`);
      // Captured before the first look.
      if (id === 1) await database.query('EXEC sys.sp_cdc_scan');
      expect(shown(await following.changes(1))).to.deep.equal([`I:${id}`]);
    }
  });

  it('F20: keys that change, and two rows that swap keys, are deletes of the old keys and inserts of the new', async () => {
    await database.query('CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v nvarchar(20))');
    await database.captureTable('dbo', 't');
    const from = await start();
    await database.query(`INSERT INTO dbo.t VALUES (1, N'a'), (2, N'b')`);
    await database.query('UPDATE dbo.t SET id = id + 10');
    await database.query(
      'BEGIN TRANSACTION; UPDATE dbo.t SET id = 0 WHERE id = 11; UPDATE dbo.t SET id = 11 WHERE id = 12; UPDATE dbo.t SET id = 12 WHERE id = 0; COMMIT',
    );
    following = await follow(changes, from);
    const seen = await following.changes(12);
    expect(shown(seen)).to.deep.equal([
      ...['I:1,a', 'I:2,b'],
      ...['D:1,~', 'D:2,~', 'I:11,a', 'I:12,b'],
      ...['D:11,~', 'I:0,a', 'D:12,~', 'I:11,b', 'D:0,~', 'I:12,a'],
    ]);
  });

  it('F20: a change of another unique key than the primary one carries the old key', async () => {
    await database.query('CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, code nvarchar(20) NOT NULL UNIQUE, v int)');
    await database.captureTable('dbo', 't');
    const from = await start();
    await database.query(`INSERT INTO dbo.t VALUES (1, N'a', 1)`);
    await database.query(`UPDATE dbo.t SET code = N'b' WHERE id = 1`);
    following = await follow(changes, from);
    expect(shown(await following.changes(2))).to.deep.equal(['I:1,a,1', 'U:1,a,~>1,b,1']);
  });

  it('F21: insert, update, delete and insert of one key stay in order within a transaction', async () => {
    await database.query('CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v int)');
    await database.captureTable('dbo', 't');
    const from = await start();
    await database.query(
      'BEGIN TRANSACTION; INSERT INTO dbo.t VALUES (1, 1); UPDATE dbo.t SET v = 2; DELETE FROM dbo.t; INSERT INTO dbo.t VALUES (1, 3); COMMIT',
    );
    following = await follow(changes, from);
    const seen = await following.changes(4);
    expect(shown(seen)).to.deep.equal(['I:1,1', 'U:1,2', 'D:1,~', 'I:1,3']);
    expect(seen.filter((piece) => piece.changes > 0)).to.have.length(1);
  });

  it('F22: a large value that did not change is never NULL; one that became NULL is', async () => {
    await database.query(
      'CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v int, big nvarchar(max), old ntext, bin varbinary(max))',
    );
    await database.captureTable('dbo', 't');
    const from = await start();
    await database.query(`INSERT INTO dbo.t VALUES (1, 1, N'big', N'old', 0x61), (2, 1, NULL, NULL, NULL)`);
    await database.query('UPDATE dbo.t SET v = 2');
    await database.query('UPDATE dbo.t SET big = NULL WHERE id = 1');
    following = await follow(changes, from);
    const seen = shown(await following.changes(5)).slice(2);
    expect(seen).to.deep.equal(['U:1,2,big,old,a', 'U:2,2,~,~,~', 'U:1,2,null,old,a']);
  });

  it('pieces end where transactions end, across tables, and never reach across a break', async () => {
    await database.query(
      'CREATE TABLE dbo.a (id int NOT NULL PRIMARY KEY); CREATE TABLE dbo.b (id int NOT NULL PRIMARY KEY)',
    );
    await database.captureTable('dbo', 'a');
    await database.captureTable('dbo', 'b');
    const from = await start();
    const twice = (id: number) =>
      database.query(`BEGIN TRANSACTION; INSERT INTO dbo.a VALUES (${id}); INSERT INTO dbo.b VALUES (${id}); COMMIT`);
    for (const id of [1, 2, 3]) await twice(id);
    following = await follow(changes, from, { maxChanges: 1 });
    const single = (await following.changes(6)).filter((piece) => piece.changes > 0);
    for (const piece of single) expect(piece.tables.map(({ ops }) => ops.length)[0]).to.equal(piece.changes / 2);
    await following.reader.stop();
    const [first, second] = ends(single);
    if (!first || !second) throw new Error('all three came at once');
    following = await follow(changes, from, { breakAt: [second] });
    const broken = ends(await following.changes(6));
    expect(broken).to.include(second);
  });

  it('F43: a transaction larger than may be held comes in parts; the others around it stay whole', async () => {
    await database.query(
      'CREATE TABLE dbo.a (id int NOT NULL PRIMARY KEY, v nvarchar(2000)); CREATE TABLE dbo.b (id int NOT NULL PRIMARY KEY)',
    );
    await database.captureTable('dbo', 'a');
    await database.captureTable('dbo', 'b');
    const from = await start();
    await database.query(`INSERT INTO dbo.a VALUES (0, N'before')`);
    const rows = Array.from({ length: 300 }, (_, i) => `(${i + 1}, REPLICATE(N'x', 1000))`).join(', ');
    await database.query(`BEGIN TRANSACTION; INSERT INTO dbo.a VALUES ${rows}; INSERT INTO dbo.b VALUES (1); COMMIT`);
    await database.query('INSERT INTO dbo.b VALUES (2)');
    following = await follow(changes, from, { maxBytes: 64 * 1024 });
    const seen = await following.changes(303);
    const parts = seen.filter(({ end }) => end === null);
    expect(parts.length).to.be.greaterThan(2);
    for (const { bytes } of seen) expect(bytes).to.be.lessThan(64 * 1024);
    const all = shown(seen);
    expect(all[0]).to.equal('I:0,before');
    expect(all.slice(1, 301).map((each) => each.split(',')[0])).to.deep.equal(
      Array.from({ length: 300 }, (_, i) => `I:${i + 1}`),
    );
    expect(all.slice(301)).to.deep.equal(['I:1', 'I:2']);
    // Both of its tables come before its end.
    const finished = seen.findIndex(({ end, changes: count }, i) => i > 0 && end !== null && count > 0);
    expect(shown(seen.slice(0, finished + 1))).to.include('I:1');
  });

  it('F43: a transaction that may be held comes whole, also when it is the first after a pause', async () => {
    await database.query('CREATE TABLE dbo.a (id int NOT NULL PRIMARY KEY, v nvarchar(2000))');
    await database.captureTable('dbo', 'a');
    const from = await start();
    const rows = Array.from({ length: 22 }, (_, i) => `(${i + 1}, REPLICATE(N'x', 1000))`).join(', ');
    await database.query(`INSERT INTO dbo.a VALUES ${rows}`);
    following = await follow(changes, from, { maxBytes: 64 * 1024 });
    const seen = (await following.changes(22)).filter(({ changes: count }) => count > 0);
    expect(seen.map(({ end, changes: count }) => [end !== null, count])).to.deep.equal([[true, 22]]);
    expect(seen[0]?.bytes).to.be.greaterThan(16 * 1024);
  });

  it('F43: rows that are suddenly larger than those before take no more memory', async () => {
    await database.query('CREATE TABLE dbo.a (id int NOT NULL PRIMARY KEY, v nvarchar(max))');
    await database.captureTable('dbo', 'a');
    const from = await start();
    const insert = (first: number, count: number, characters: number) =>
      database.query(
        `INSERT INTO dbo.a VALUES ${Array.from({ length: count }, (_, i) => `(${first + i}, REPLICATE(CAST(N'x' AS nvarchar(max)), ${characters}))`).join(', ')}`,
      );
    // So that the size of a row is known, by which the next page is measured.
    await insert(0, 500, 1);
    following = await follow(changes, from, { maxBytes: 128 * 1024 });
    await following.changes(500);
    await insert(500, 300, 10_000);
    const seen = await following.changes(300);
    expect(Math.max(...seen.map(({ bytes }) => bytes))).to.be.lessThan(256 * 1024);
    expect(shown(seen).map((each) => each.split(',')[0])).to.deep.equal(
      Array.from({ length: 300 }, (_, i) => `I:${500 + i}`),
    );
  });

  it('F43: updates of rows larger than a page ask for few rows at once', async () => {
    await database.query('CREATE TABLE dbo.a (id int NOT NULL PRIMARY KEY, v nvarchar(max))');
    await database.captureTable('dbo', 'a');
    const rows = Array.from({ length: 20 }, (_, i) => `(${i}, REPLICATE(CAST(N'x' AS nvarchar(max)), 20000))`);
    const from = await start();
    await database.query(`INSERT INTO dbo.a VALUES ${rows.join(', ')}; UPDATE dbo.a SET v = v + N'y'`);
    // The connection's session is the reader's.
    const asked: number[] = [];
    const session = await database.connection.open();
    const extract = session.extract.bind(session);
    session.extract = (doing, text, parameters, extractor) => {
      asked.push(Number(parameters['rows']));
      return extract(doing, text, parameters, extractor);
    };
    const watched = new SqlServerChanges({
      open: () => Promise.resolve(session),
      release: () => database.connection.release(session),
    } as unknown as typeof database.connection);
    following = await follow(watched, from, { maxBytes: 32 * 1024 });
    expect(shown(await following.changes(40))).to.have.length(40);
    // The first page of all measures rows.
    expect(Math.max(...asked.slice(1))).to.be.lessThan(10);
  });

  it('F12: idle rows move the position on, up to the end that was named', async () => {
    await database.query('CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY)');
    await database.captureTable('dbo', 't');
    following = await follow(changes, await start());
    const end = await changes.end();
    const seen = await following.until((all) => ends(all).some((each) => changes.compare(each, end) !== 'before'));
    expect(shown(seen)).to.deep.equal([]);
  });
});
