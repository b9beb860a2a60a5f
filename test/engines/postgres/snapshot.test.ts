import { expect } from 'chai';
import type { Connection } from '../../../src/engines/postgres/connection.ts';
import { seesAll } from '../../../src/engines/postgres/fetch.ts';
import { loadRows } from '../../../src/engines/postgres/loader.ts';
import { chunkCondition, readBounds } from '../../../src/engines/postgres/pages.ts';
import { PostgresSnapshot } from '../../../src/engines/postgres/snapshot.ts';
import type { ChunkPlan, RowStream } from '../../../src/engines/contract.ts';
import type { RowBatch } from '../../../src/model/changes.ts';
import type { Table } from '../../../src/model/tables.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { connect, describeTable } from './support.ts';

const inPublic = (table: string) => ({ schema: 'public', table });

async function cells(rows: RowStream): Promise<RowBatch['cells'][number][]> {
  if (!('batches' in rows)) throw new Error('not cells');
  const all = [];
  for await (const batch of rows.batches) all.push(...batch.cells);
  return all;
}

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'no error',
    (error: { code?: string; message?: string }) => error.code ?? error.message,
  );

describe('PostgreSQL snapshots', () => {
  let database: TestDatabase;
  let connection: Connection;
  let snapshot: PostgresSnapshot;
  before(async () => {
    database = await createDatabase('snapshot');
    connection = connect(database);
    snapshot = new PostgresSnapshot(connection);
    await database.query(`CREATE TABLE big (id int PRIMARY KEY, t text);
      INSERT INTO big SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g; ANALYZE big`);
  });
  after(async () => {
    await connection.close();
    await database.drop();
  });

  const plan = (table: Table, targetBytes = 100_000) => snapshot.planChunks(table, { targetBytes });
  const sessions = async () =>
    Number(
      (
        await database.query<{ n: string }>(
          `SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()
           AND application_name = 'sluice-test' AND state <> 'idle'`,
        )
      )[0]?.n,
    );
  const readAll = async (table: Table, made: ChunkPlan) => {
    const ids: number[] = [];
    for (const chunk of made.chunks)
      ids.push(...(await cells(await snapshot.readChunk(table, made.layout, chunk, ['id'], 'cells'))).map(Number));
    return ids.sort((a, b) => a - b);
  };

  it('reads every row once, by page ranges that are TID range scans', async () => {
    const table = await describeTable(connection, inPublic('big'));
    const made = await plan(table);
    expect(made.chunks.length).to.be.greaterThan(20);
    expect(made.estimatedRows).to.equal(20000);
    expect(await readAll(table, made)).to.deep.equal(Array.from({ length: 20000 }, (_, i) => i + 1));
    for (const chunk of [made.chunks[0], made.chunks[3], made.chunks.at(-1)]) {
      if (!chunk) throw new Error('no chunk');
      const condition = chunkCondition(readBounds(table, made.layout, chunk));
      const lines = await database.query<{ 'QUERY PLAN': string }>(
        `EXPLAIN SELECT id FROM ONLY public.big${condition}`,
      );
      expect(lines[0]?.['QUERY PLAN']).to.match(/^Tid Range Scan/);
    }
  });

  it('rows added behind the plan are in the last chunk; an empty table has one chunk', async () => {
    await database.query('CREATE TABLE grows (id int)');
    const table = await describeTable(connection, inPublic('grows'));
    const made = await plan(table);
    expect(made.chunks).to.have.length(1);
    await database.query('INSERT INTO grows SELECT generate_series(1, 5000)');
    expect(await readAll(table, made)).to.have.length(5000);
  });

  it('reads the leaves of a partitioned table', async () => {
    await database.query(`CREATE TABLE parted (id int) PARTITION BY RANGE (id);
      CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (3000);
      CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (3000) TO (9000) PARTITION BY HASH (id);
      CREATE TABLE parted_2a PARTITION OF parted_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
      CREATE TABLE parted_2b PARTITION OF parted_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
      INSERT INTO parted SELECT generate_series(1, 8000)`);
    const table = await describeTable(connection, inPublic('parted'));
    expect(await readAll(table, await plan(table, 20_000))).to.deep.equal(
      Array.from({ length: 8000 }, (_, i) => i + 1),
    );
  });

  it('a table that was rewritten, truncated or replaced restarts the copy', async () => {
    for (const change of [
      'VACUUM FULL moving',
      'TRUNCATE moving',
      'ALTER TABLE moving RENAME TO moved; CREATE TABLE moving (id int)',
    ]) {
      await database.query('DROP TABLE IF EXISTS moving; CREATE TABLE moving (id int); INSERT INTO moving VALUES (1)');
      const table = await describeTable(connection, inPublic('moving'));
      const made = await plan(table);
      await database.query(change);
      const [chunk] = made.chunks;
      if (!chunk) throw new Error('no chunk');
      const read = snapshot.readChunk(table, made.layout, chunk, ['id'], 'cells').then(cells);
      // A renamed table is still the same rows; its new name is found by its object id.
      expect(await codeOf(read), change).to.equal(change.startsWith('ALTER') ? 'no error' : 'COPY_RESTARTED');
      await database.query('DROP TABLE IF EXISTS moved');
    }
  });

  it('refuses bounds that are not of its plan', async () => {
    const table = await describeTable(connection, inPublic('big'));
    const made = await plan(table);
    const leaf = table.id;
    for (const bounds of [
      'x',
      '{}',
      `{"leaf":"1","from":0,"to":1}`,
      `{"leaf":"${leaf}","from":"0); DROP TABLE big; --","to":null}`,
      `{"leaf":"${leaf}","from":-1,"to":null}`,
      `{"leaf":"${leaf}","from":null,"to":4}`,
      `{"leaf":"${leaf}","from":0.5,"to":4}`,
    ])
      expect(() => readBounds(table, made.layout, { id: 0, bounds }), bounds).to.throw(/not of this copy's plan/);
  });

  it('F44: a chunk being read does not block writers, and ends its transaction', async () => {
    const table = await describeTable(connection, inPublic('big'));
    const made = await plan(table, 100_000_000);
    const [chunk] = made.chunks;
    if (!chunk) throw new Error('no chunk');
    const rows = await snapshot.readChunk(table, made.layout, chunk, ['id', 't'], 'postgres-copy-text');
    if (!('bytes' in rows)) throw new Error('not bytes');
    const iterator = rows.bytes[Symbol.asyncIterator]();
    await iterator.next();
    await database.query(`SET statement_timeout = '2s'; UPDATE big SET t = t WHERE id = 1; DELETE FROM big WHERE id = 20000;
      INSERT INTO big VALUES (20000, 'y'); RESET statement_timeout`);
    while (!(await iterator.next()).done);
    expect(await sessions()).to.equal(0);
  });

  it('not iterating to the end closes the session, also before the first row', async () => {
    const table = await describeTable(connection, inPublic('big'));
    const made = await plan(table, 100_000_000);
    const [chunk] = made.chunks;
    if (!chunk) throw new Error('no chunk');
    for (const lane of ['cells', 'postgres-copy-text'])
      for (const first of [true, false]) {
        const rows = await snapshot.readChunk(table, made.layout, chunk, ['id', 't'], lane);
        const iterator = ('batches' in rows ? rows.batches : rows.bytes)[Symbol.asyncIterator]();
        if (first) await iterator.next();
        await iterator.return?.();
        await new Promise((resolve) => setTimeout(resolve, 100));
        expect(await sessions(), `${lane} ${first}`).to.equal(0);
      }
  });

  it('a load that cannot begin lets go of the rows it was given', async () => {
    const table = await describeTable(connection, inPublic('big'));
    const made = await plan(table);
    const [chunk] = made.chunks;
    if (!chunk) throw new Error('no chunk');
    const rows = await snapshot.readChunk(table, made.layout, chunk, ['id'], 'cells');
    const session = await connection.open();
    const load = loadRows(session, inPublic('nowhere'), table.columns.slice(0, 1), rows);
    expect(await codeOf(load)).to.equal('DESTINATION_TABLE_MISSING');
    await connection.release(session);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await sessions()).to.equal(0);
  });

  it('F41: a source connection killed in mid-copy is CONNECTION_LOST, at the end of what came', async () => {
    const table = await describeTable(connection, inPublic('big'));
    const made = await plan(table, 100_000_000);
    const [chunk] = made.chunks;
    if (!chunk) throw new Error('no chunk');
    const rows = await snapshot.readChunk(table, made.layout, chunk, ['id', 't'], 'postgres-copy-text');
    if (!('bytes' in rows)) throw new Error('not bytes');
    const iterator = rows.bytes[Symbol.asyncIterator]();
    await iterator.next();
    await new Promise((resolve) => setTimeout(resolve, 100));
    await database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%' AND datname = current_database()`,
    );
    const drain = async () => {
      while (!(await iterator.next()).done);
    };
    expect(await codeOf(drain())).to.equal('CONNECTION_LOST');
  });

  it('an error in the middle of a COPY is reported and leaves no session behind', async () => {
    await database.query(`CREATE TABLE bomb_base (id int); INSERT INTO bomb_base SELECT generate_series(1, 50000);
      CREATE VIEW bomb AS SELECT 1 / (40000 - id) AS id FROM bomb_base`);
    const table = await describeTable(connection, inPublic('bomb'));
    const made = await plan(table);
    const [chunk] = made.chunks;
    if (!chunk) throw new Error('no chunk');
    expect(await codeOf(snapshot.readChunk(table, made.layout, chunk, ['id'], 'cells').then(cells))).to.equal(
      'ROW_REFUSED',
    );
    expect(await sessions()).to.equal(0);
  });

  it('waits for an exclusive lock in short attempts', async () => {
    await database.query('CREATE TABLE locked (id int); INSERT INTO locked VALUES (1)');
    const table = await describeTable(connection, inPublic('locked'));
    const made = await plan(table);
    const holder = await database.connect();
    await holder.query('BEGIN; LOCK TABLE locked');
    setTimeout(() => void holder.query('ROLLBACK'), 4500);
    expect(await readAll(table, made)).to.deep.equal([1]);
  }).timeout(20_000);

  it('readWhole sees one moment of all chunks', async () => {
    await database.query('CREATE TABLE whole (id int); INSERT INTO whole SELECT generate_series(1, 5000)');
    const table = await describeTable(connection, inPublic('whole'));
    const made = await plan(table, 30_000);
    const ids: number[] = [];
    for await (const { rows } of snapshot.readWhole(table, made, ['id'], 'cells')) {
      if (ids.length === 0) await database.query('DELETE FROM whole WHERE id > 4000; INSERT INTO whole VALUES (9999)');
      ids.push(...(await cells(rows)).map(Number));
    }
    expect(ids.sort((a, b) => a - b)).to.deep.equal(Array.from({ length: 5000 }, (_, i) => i + 1));
    expect(await sessions()).to.equal(0);
    await database.query('TRUNCATE whole');
    const again = snapshot.readWhole(table, made, ['id'], 'cells');
    expect(await codeOf(again.next())).to.equal('COPY_RESTARTED');
  });

  describe('rows by key', () => {
    it('each at most once, missing ones left out, any key type', async () => {
      await database.query(`CREATE TYPE kind AS ENUM ('a', 'B');
        CREATE TABLE fetched (a bytea, b kind, c numeric(10,2), t text, PRIMARY KEY (a, b, c));
        INSERT INTO fetched VALUES ('\\x00ff', 'a', 1.5, E'tab\\t'), ('\\x01', 'B', 2, NULL), ('', 'a', 3, '')`);
      const table = await describeTable(connection, inPublic('fetched'));
      const keys = [
        [Buffer.from([0, 255]), 'a', '1.50'],
        [Buffer.from([0, 255]), 'a', '1.5'],
        [Buffer.from([1]), 'B', '2.00'],
        [Buffer.alloc(0), 'a', '3.00'],
        [Buffer.from([9]), 'a', '1'],
      ];
      const batch = await snapshot.fetchRows(table, ['t', 'a'], ['a', 'b', 'c'], keys, []);
      expect(batch.rows).to.equal(3);
      expect(batch.cells).to.have.deep.members([
        'tab\t',
        Buffer.from([0, 255]),
        null,
        Buffer.from([1]),
        '',
        Buffer.alloc(0),
      ]);
    });

    it('says that the table is gone at the source', async () => {
      await database.query('CREATE TABLE gone (id int PRIMARY KEY)');
      const table = await describeTable(connection, inPublic('gone'));
      await database.query('DROP TABLE gone');
      expect(await codeOf(snapshot.fetchRows(table, ['id'], ['id'], [['1']], []))).to.equal('SOURCE_TABLE_MISSING');
      expect(await codeOf(plan(table))).to.equal('SOURCE_TABLE_MISSING');
    });

    it('thousands of keys by index', async () => {
      const table = await describeTable(connection, inPublic('big'));
      const keys = Array.from({ length: 8000 }, (_, i) => [String(i * 2 + 1)]);
      const batch = await snapshot.fetchRows(table, ['id'], ['id'], keys, []);
      expect(batch.rows).to.equal(8000);
    });

    it('waits until the transactions it must see are over', async () => {
      const table = await describeTable(connection, inPublic('big'));
      const writer = await database.connect();
      await writer.query(`BEGIN; UPDATE big SET t = 'new' WHERE id = 7`);
      const [row] = (
        await writer.query<{ xid: string }>('SELECT (pg_current_xact_id()::text::bigint % 4294967296)::text AS xid')
      ).rows;
      setTimeout(() => void writer.query('COMMIT'), 300);
      const batch = await snapshot.fetchRows(table, ['t'], ['id'], [['7']], [row?.xid ?? '']);
      expect(batch.cells).to.deep.equal(['new']);
    });

    it('compares transaction ids on the circle of 2^32', () => {
      expect(seesAll('100:105:101,103', ['99', '100', '102', '104'])).to.equal(true);
      expect(seesAll('100:105:101,103', ['101'])).to.equal(false);
      expect(seesAll('100:105:', ['105'])).to.equal(false);
      expect(seesAll(`${2n ** 32n + 3n}:${2n ** 32n + 5n}:${2n ** 32n + 4n}`, ['4294967295', '3'])).to.equal(true);
      expect(seesAll(`${2n ** 32n + 3n}:${2n ** 32n + 5n}:${2n ** 32n + 4n}`, ['4'])).to.equal(false);
    });
  });
});
