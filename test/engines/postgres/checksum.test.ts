import { expect } from 'chai';
import { PostgresChecksummer } from '../../../src/engines/postgres/checksum.ts';
import type { Connection } from '../../../src/engines/postgres/connection.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { connect, copyTable } from './support.ts';
import { matrixSql, VALUE_MATRIX } from './values.ts';

const inPublic = (table: string) => ({ schema: 'public', table });

describe('PostgreSQL checksums', () => {
  let one: TestDatabase;
  let two: TestDatabase;
  let first: Connection;
  let second: Connection;
  before(async () => {
    one = await createDatabase('sum_one');
    two = await createDatabase('sum_two');
    // Settings that change how values print must not change a checksum.
    await two.query(`ALTER DATABASE "${two.name}" SET datestyle = 'SQL, DMY'; ALTER DATABASE "${two.name}" SET timezone = 'Asia/Tokyo';
      ALTER DATABASE "${two.name}" SET extra_float_digits = -5; ALTER DATABASE "${two.name}" SET bytea_output = 'escape';
      ALTER DATABASE "${two.name}" SET intervalstyle = 'iso_8601'`);
    first = connect(one);
    second = connect(two);
  });
  after(async () => {
    await first.close();
    await second.close();
    await one.drop();
    await two.drop();
  });

  it('are equal for equal values on servers with other settings', async () => {
    for (const sql of matrixSql(VALUE_MATRIX, 'matrix', true)) await one.query(sql);
    for (const sql of matrixSql(VALUE_MATRIX, 'matrix', false)) await two.query(sql);
    await copyTable(first, second, inPublic('matrix'), inPublic('matrix'), { lane: 'binary' });
    const columns = ['id', ...VALUE_MATRIX.map((_, i) => `c${i}`)];
    const request = { table: inPublic('matrix'), columns, key: ['id'], limit: 1000, blockRows: 5 };
    const left = await new PostgresChecksummer(first).recent(request);
    expect(left.length).to.be.greaterThan(2);
    expect(await new PostgresChecksummer(second).recent(request)).to.deep.equal(left);
  });

  it('tell NULL from empty from text that looks like it, and where one column ends', async () => {
    await one.query(`CREATE TABLE tricky (id int PRIMARY KEY, a text, b text, c char(5));
      INSERT INTO tricky VALUES (1, NULL, ''), (2, '', NULL), (3, 'N', ''), (4, '', 'N'), (5, 'a'',''b', ''), (6, 'a', 'b'','''),
        (7, E'a\\\\', ''), (8, 'NULL', NULL), (9, ',', ''), (10, '', ','), (11, 'a', 'b'), (12, 'ab', ''), (13, '', 'ab')`);
    const columns = ['a', 'b', 'c'];
    const rows = await new PostgresChecksummer(first).rowsByKey(
      { table: inPublic('tricky'), columns, key: ['id'], limit: 1, blockRows: 1 },
      Array.from({ length: 20 }, (_, i) => [String(i + 1)]),
    );
    expect(rows).to.have.length(13);
    expect(new Set(rows.map((row) => row.md5)).size).to.equal(13);
  });

  it('F61: a changed byte, a missing and an extra row show, in the last rows by key', async () => {
    const create = `CREATE TABLE diff (g text, n numeric, v text, PRIMARY KEY (g, n));
      INSERT INTO diff SELECT CASE WHEN i % 2 = 0 THEN 'a' ELSE 'B' END, i, 'v' || i FROM generate_series(1, 1000) i`;
    await one.query(create);
    await two.query(create);
    await two.query(`UPDATE diff SET v = 'V998' WHERE n = 998`);
    const request = { table: inPublic('diff'), columns: ['g', 'n', 'v'], key: ['g', 'n'], limit: 300, blockRows: 100 };
    const [left, right] = [new PostgresChecksummer(first), new PostgresChecksummer(second)];
    const blocks = [await left.recent(request), await right.recent(request)] as const;
    expect(blocks[0].map((block) => [block.first, block.last, block.rows])).to.deep.equal([
      [['a', '402'], ['a', '600'], 100],
      [['a', '602'], ['a', '800'], 100],
      [['a', '802'], ['a', '1000'], 100],
    ]);
    expect(blocks[0].map((block, i) => block.md5 === blocks[1][i]?.md5)).to.deep.equal([true, true, false]);
    const range = { ...request, from: ['a', '802'], to: ['a', '1000'] };
    const rows = [await left.rows(range), await right.rows(range)] as const;
    expect(rows[0].filter((row, i) => row.md5 !== rows[1][i]?.md5).map((row) => row.key)).to.deep.equal([['a', '998']]);
    const below = await left.recent({ ...request, below: ['B', '7'], limit: 2 });
    expect(below).to.have.length(1);
    expect([below[0]?.first, below[0]?.last]).to.deep.equal([
      ['B', '5'],
      ['B', '7'],
    ]);
  });

  it('binary keys and a table of 1,000 columns', async () => {
    const names = Array.from({ length: 1000 }, (_, i) => `c${i}`);
    await one.query(`CREATE TABLE wide (k bytea PRIMARY KEY, ${names.map((name) => `${name} smallint`).join(', ')});
      INSERT INTO wide (k, c1) VALUES ('\\x00', 1), ('\\xff', 2)`);
    const blocks = await new PostgresChecksummer(first).recent({
      table: inPublic('wide'),
      columns: ['k', ...names],
      key: ['k'],
      limit: 10,
      blockRows: 10,
    });
    expect([blocks[0]?.first, blocks[0]?.last]).to.deep.equal([[Buffer.from([0])], [Buffer.from([255])]]);
  });
});
