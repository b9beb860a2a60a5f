import { expect } from 'chai';
import type pg from 'pg';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { compare } from '../../src/demo/compare.ts';
import { DATASET_NOTICE, DEMO_TABLES, readDataset, type DemoTable } from '../../src/demo/dataset.ts';
import { loadDataset } from '../../src/demo/load.ts';
import { changesOf, Writer } from '../../src/demo/writer.ts';

describe('demo data', function () {
  this.timeout(120_000);
  let tables: DemoTable[];
  let left: TestDatabase;
  let right: TestDatabase;

  before(async () => {
    tables = readDataset();
    left = await createDatabase('demo');
    right = await createDatabase('demo');
    for (const database of [left, right]) await loadDataset(await database.connect(), tables);
    for (const { name } of tables) {
      // Defaults fill updated_at by the clock; here both sides shall start equal.
      for (const database of [left, right]) await database.query(`UPDATE ${name} SET updated_at = '2026-01-01Z'`);
    }
  });

  after(async () => {
    await left.drop();
    await right.drop();
  });

  it('is at least 100,000 real rows in four tables, with source and licence', () => {
    expect(tables.map((table) => table.name)).to.deep.equal([...DEMO_TABLES]);
    expect(tables.reduce((sum, table) => sum + table.rows.length, 0)).to.be.greaterThan(200_000);
    expect(tables.find((table) => table.name === 'cities')?.rows.length).to.be.greaterThan(100_000);
    expect(DATASET_NOTICE).to.include('GeoNames').and.to.include('CC BY 4.0');
  });

  it('loads every row exactly', async () => {
    const [row] = await left.query(
      `SELECT name, country, admin1, latitude::text, longitude::text FROM cities WHERE id = 3`,
    );
    expect(row).to.deep.equal({
      name: 'Sant Julià de Lòria',
      country: 'AD',
      admin1: '06',
      latitude: '42.46372',
      longitude: '1.49129',
    });
    for (const result of await compare(await left.connect(), await right.connect(), tables)) {
      expect(result.sourceRows).to.equal(tables.find((table) => table.name === result.table)?.rows.length);
      expect(result.equal, result.table).to.equal(true);
    }
  });

  it('notices one changed byte, one missing and one extra row', async () => {
    const [source, destination] = [await left.connect(), await right.connect()];
    const differing = async (change: string) => {
      await destination.query('BEGIN');
      await destination.query(change);
      const result = await compare(source, destination, tables);
      await destination.query('ROLLBACK');
      return result.filter((table) => !table.equal).map((table) => table.table);
    };
    expect(await differing(`UPDATE cities SET name = name || ' ' WHERE id = 171075`)).to.deep.equal(['cities']);
    expect(
      await differing(`DELETE FROM districts WHERE country = 'AE' AND admin1 = '01' AND admin2 = '101'`),
    ).to.deep.equal(['districts']);
    expect(await differing(`INSERT INTO regions VALUES ('AD', 'XX', 'extra')`)).to.deep.equal(['regions']);
    expect(await differing('DROP TABLE cities')).to.deep.equal(['cities']);
  });

  it('is changed by the writer in every way, the same with the same seed', async () => {
    const writers = await Promise.all([left, right].map(async (database) => Writer.create(await open(database), 7)));
    for (const writer of writers) await writer.write(2000);
    const [first, second] = writers;
    expect(first?.counts).to.deep.equal(second?.counts);
    if (!first) throw new Error('no writer');
    expect(changesOf(first.counts)).to.equal(2000);
    for (const kind of ['inserted', 'updated', 'deleted', 'rekeyed'] as const) {
      expect(first.counts[kind], kind).to.be.greaterThan(100);
    }
    for (const database of [left, right]) {
      for (const { name } of tables) await database.query(`UPDATE ${name} SET updated_at = '2026-01-01Z'`);
    }
    const results = await compare(await left.connect(), await right.connect(), tables);
    expect(results.every((result) => result.equal)).to.equal(true);
  });

  const open = async (database: TestDatabase): Promise<pg.Client> => database.connect();
});
