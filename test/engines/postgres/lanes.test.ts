import { expect } from 'chai';
import type { Connection } from '../../../src/engines/postgres/connection.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { connect, copyTable, describeTable } from './support.ts';
import { PostgresSnapshot } from '../../../src/engines/postgres/snapshot.ts';
import { design, createTableSql } from '../../../src/engines/postgres/ddl.ts';
import { matrixSql, USER_TYPE_MATRIX, USER_TYPES, VALUE_MATRIX } from './values.ts';

const LONG = process.env['SLUICE_TEST_LONG'] === '1';

describe('PostgreSQL copy lanes', () => {
  let source: TestDatabase;
  let target: TestDatabase;
  let from: Connection;
  let to: Connection;
  before(async () => {
    source = await createDatabase('lanes_from');
    target = await createDatabase('lanes_to');
    from = connect(source);
    to = connect(target);
  });
  after(async () => {
    await from.close();
    await to.close();
    await source.drop();
    await target.drop();
  });

  const publicTable = (table: string) => ({ schema: 'public', table });
  /** Every value as the server prints it, by a connection that is not ours. */
  const printed = async (database: TestDatabase, table: string) => {
    await database.query(`SET extra_float_digits = 1; SET timezone = 'UTC'`);
    const rows = await database.query<{ row: string }>(
      `SELECT md5(t::text) || ' ' || left(t::text, 200) AS row FROM public."${table}" t ORDER BY id`,
    );
    return rows.map((row) => row.row);
  };

  for (const lane of ['binary', 'text', 'cells'] as const) {
    it(`F30 F31 F32 F33 F34: every value arrives as it was by the ${lane} lane`, async () => {
      for (const sql of matrixSql(VALUE_MATRIX, `matrix ${lane}`, true)) await source.query(sql);
      for (const sql of matrixSql(VALUE_MATRIX, `matrix ${lane}`, false)) await target.query(sql);
      const name = publicTable(`matrix ${lane}`);
      await copyTable(from, to, name, name, { lane });
      expect(await printed(target, name.table)).to.deep.equal(await printed(source, name.table));
    });
  }

  for (const lane of ['text', 'cells'] as const) {
    it(`F34: enums, domains, composites and ranges of one's own arrive by the ${lane} lane`, async () => {
      for (const database of [source, target]) await database.query(lane === 'text' ? USER_TYPES : 'SELECT 1');
      for (const sql of matrixSql(USER_TYPE_MATRIX, `own ${lane}`, true)) await source.query(sql);
      for (const sql of matrixSql(USER_TYPE_MATRIX, `own ${lane}`, false)) await target.query(sql);
      const name = publicTable(`own ${lane}`);
      const table = await describeTable(from, name);
      const snapshot = new PostgresSnapshot(from);
      for (const column of table.columns.filter((one) => one.name !== 'c0' && one.name !== 'c4' && one.name !== 'id'))
        expect(snapshot.lanes(table, [column.name]), column.nativeType).to.deep.equal(['postgres-copy-text']);
      await copyTable(from, to, name, name, { lane });
      expect(await printed(target, name.table)).to.deep.equal(await printed(source, name.table));
    });
  }

  it('names the binary lane by formats: equal widths of other types do not meet', async () => {
    await source.query(`CREATE TABLE a1 (x bigint, y varchar(5)); CREATE TABLE a2 (x timestamp, y text);
      CREATE TABLE a3 (x bigint, y text)`);
    const snapshot = new PostgresSnapshot(from);
    const lanes = async (table: string) => snapshot.lanes(await describeTable(from, publicTable(table)), ['x', 'y']);
    const [one, two, three] = [await lanes('a1'), await lanes('a2'), await lanes('a3')];
    expect(one).to.deep.equal(three);
    expect(one[0]).to.not.equal(two[0]);
    expect(one[1]).to.equal('postgres-copy-text');
  });

  for (const lane of ['binary', 'text', 'cells'] as const) {
    it(`F33: a row of 1,000 columns by the ${lane} lane`, async () => {
      const name = publicTable(`wide ${lane}`);
      const columns = Array.from({ length: 1000 }, (_, i) => `c${i} smallint`).join(', ');
      for (const database of [source, target]) await database.query(`CREATE TABLE "wide ${lane}" (${columns})`);
      const values = Array.from({ length: 1000 }, (_, i) => (i % 7 === 0 ? 'NULL' : String(i - 500))).join(', ');
      await source.query(`INSERT INTO "wide ${lane}" SELECT ${values} FROM generate_series(1, 50)`);
      expect(await copyTable(from, to, name, name, { lane })).to.equal(50);
      const rows = (database: TestDatabase) => database.query(`SELECT * FROM "wide ${lane}"`);
      expect(await rows(target)).to.deep.equal(await rows(source));
    });

    it(`F33: values of ${LONG ? 64 : 8} MB by the ${lane} lane, between small rows`, async () => {
      const size = (LONG ? 64 : 8) * 1024 * 1024;
      const name = publicTable(`large ${lane}`);
      for (const database of [source, target])
        await database.query(`CREATE TABLE "large ${lane}" (id int PRIMARY KEY, t text, b bytea);
          ALTER TABLE "large ${lane}" ALTER t SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL`);
      await source.query(`INSERT INTO "large ${lane}" VALUES (1, 'small', '\\x01'),
        (2, repeat(E'ab\\\\\\tü', ${Math.floor(size / 6)}), '\\x02'),
        (3, 'small', decode(repeat('00ff5c0a', ${Math.floor(size / 4)}), 'hex')), (4, 'last', NULL)`);
      expect(await copyTable(from, to, name, name, { lane })).to.equal(4);
      const sums = (database: TestDatabase) =>
        database.query(
          `SELECT id, md5(t) AS t, md5(b) AS b, length(t) AS lt, length(b) AS lb FROM "large ${lane}" ORDER BY id`,
        );
      expect(await sums(target)).to.deep.equal(await sums(source));
    }).timeout(LONG ? 300_000 : 60_000);
  }

  it('F27: names with spaces, quotes, dots, emoji and reserved words', async () => {
    const schema = 'sch "q" . ü';
    const table = 'select from "t".x 😀';
    const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;
    const full = `${quoted(schema)}.${quoted(table)}`;
    await source.query(`CREATE SCHEMA ${quoted(schema)};
      CREATE TABLE ${full} ("user" int PRIMARY KEY, "a.b ""c""" text, "😀" text, "[x]" text, "back\\slash" text);
      INSERT INTO ${full} VALUES (1, 'a', 'b', 'c', 'd'), (2, NULL, '', 'e', 'f')`);
    await target.query(`CREATE SCHEMA ${quoted(schema)}`);
    const name = { schema, table };
    const designed = design(await describeTable(from, name), name, ['user']);
    await target.query(createTableSql(designed, name, { withKey: true }));
    for (const lane of ['binary', 'text', 'cells'] as const) {
      await target.query(`TRUNCATE ${full}`);
      await copyTable(from, to, name, name, { lane });
      expect(await target.query(`SELECT * FROM ${full} ORDER BY 1`)).to.deep.equal(
        await source.query(`SELECT * FROM ${full} ORDER BY 1`),
      );
    }
  });
});
