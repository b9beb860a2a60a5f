/** MySQL and MariaDB as the destination of a process of its own: what it says of the server, and others that write to the same table. */
import { expect } from 'chai';
import { ChildServices } from '../support/child-service.ts';
import { eventually } from '../support/service.ts';
import { createWorldTo, type TargetWorld } from '../support/target-world.ts';

describe('MariaDB as destination, of a process of its own', function () {
  this.timeout(120_000);
  let world: TargetWorld;
  const services = new ChildServices();
  beforeEach(async function () {
    world = await createWorldTo(this, 'mysql');
  });
  afterEach(async () => {
    await services.killAll();
    await world?.close();
  });

  it('F36: without LOAD DATA LOCAL (local_infile) rows are inserted, exactly, and it is said once', async () => {
    for (const table of ['first', 'second']) {
      await world.source.query(`CREATE TABLE ${table} (id int PRIMARY KEY, n numeric(20,5), v text, b bytea)`);
      await world.source.query(
        `INSERT INTO ${table} SELECT i, i / 7.0, E'tab\\t \\\\N 😀 ' || i, decode('00ff5c', 'hex') FROM generate_series(1, 2500) i`,
      );
      await world.source.query(`INSERT INTO ${table} VALUES (0, NULL, '', '')`);
    }
    await world.target.query('SET GLOBAL local_infile = 0');
    try {
      const service = await services.start(world);
      for (const table of ['first', 'second']) {
        await world.state(await world.map(table), 'streaming', 40);
        await world.source.query(`UPDATE ${table} SET v = v || '!' WHERE id % 3 = 0`);
      }
      const lines = (from: string) =>
        `SELECT CONCAT_WS('|', id, COALESCE(CAST(n AS char(30)), '-'), v, ${from}) AS line`;
      for (const table of ['first', 'second'])
        await eventually(async () => {
          const there = await world.target.query(`${lines('LOWER(HEX(b))')} FROM ${table} ORDER BY id`);
          const here = await world.source.query(`${lines(`encode(b, 'hex')`)} FROM ${table} ORDER BY id`);
          expect(there.map((row) => row['line'])).to.deep.equal(
            here.map((row) => (row['line'] as string).replaceAll(/ +\|/g, '|')),
          );
        }, 20_000);
      expect(service.count('LOAD DATA LOCAL is not allowed')).to.equal(1);
    } finally {
      await world.target.query('SET GLOBAL local_infile = 1');
    }
  });

  it('F45: rows that somebody puts into an empty table while it is filled are noticed, and replaced', async () => {
    await world.source.query('CREATE TABLE raced (id int PRIMARY KEY, v text)');
    await world.source.query(`INSERT INTO raced SELECT i, 'right' FROM generate_series(1, 2000) i`);
    await world.target.query('CREATE TABLE raced (id int NOT NULL PRIMARY KEY, v longtext NULL)');
    const mapping = await world.map('raced');
    await services.start(world, { 'copy.filled': 'sleep:4000' });
    await eventually(async () => {
      const isFilling = await world.target.query('SELECT id FROM raced LIMIT 1 FOR UPDATE NOWAIT').then(
        () => false,
        () => true,
      );
      expect(isFilling).to.equal(true);
    }, 40_000);
    await world.target.insert('raced', ['id', 'v'], [[9999, 'stray']]);
    await world.state(mapping, 'streaming', 40);
    await world.equal('raced');
  });
});
