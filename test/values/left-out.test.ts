/** Rows that were left out because the destination refused them: what later changes make of them (F36 with F22). */
import { expect } from 'chai';
import { createWorld, equal, eventually, type TestService, type World } from '../support/service.ts';

describe('rows that were left out', () => {
  let world: World;
  let service: TestService;
  before(async () => {
    world = await createWorld();
    service = await world.start();
  });
  after(() => world.close());

  /** A table whose `large` no change of another column carries, and whose copy refuses `v` from 100 on. */
  async function table(name: string): Promise<void> {
    await world.source.query(`CREATE TABLE ${name} (id int PRIMARY KEY, v int, large text)`);
    await world.source.query(`ALTER TABLE ${name} ALTER large SET STORAGE EXTERNAL`);
    await world.destination.query(
      `CREATE DOMAIN ${name}_v AS int CHECK (VALUE < 100); CREATE TABLE ${name} (id int PRIMARY KEY, v ${name}_v, large text)`,
    );
  }

  async function leftOut(): Promise<number> {
    const rows = await world.destination.query(
      `SELECT key_hash FROM sluice.left_out l JOIN sluice.generations g USING (mapping_uid) WHERE g.live_generation = l.generation`,
    );
    return rows.length;
  }

  it('F22 F36: a large value that changed while its row was left out is right as soon as the row fits again', async () => {
    await table('stale');
    await world.source.query(`INSERT INTO stale SELECT i, i, repeat('a', 3000) FROM generate_series(1, 20) i`);
    const mapping = await world.map('stale', { max_failed_rows: 3 });
    await world.state(mapping, 'streaming');
    await world.source.query(`UPDATE stale SET v = 1000, large = repeat('b', 3000) WHERE id = 7`);
    await world.source.query(`UPDATE stale SET v = 20 WHERE id = 1`);
    await equal(world, `(SELECT * FROM stale WHERE id <> 7)`);
    await world.source.query(`UPDATE stale SET v = 50 WHERE id = 7`);
    await equal(world, `(SELECT * FROM stale WHERE id <> 7)`);
    await equal(world, 'stale');
  });

  it('F22 F36: a row that a copy left out comes with the change that makes it fit, whatever that carries', async () => {
    await table('absent');
    await world.source.query(
      `INSERT INTO absent SELECT i, CASE i WHEN 7 THEN 1000 ELSE i END, repeat('a', 3000) FROM generate_series(1, 20) i`,
    );
    const mapping = await world.map('absent', { max_failed_rows: 3 });
    await world.state(mapping, 'streaming');
    await equal(world, `(SELECT * FROM absent WHERE id <> 7)`);
    await world.source.query(`UPDATE absent SET v = 50 WHERE id = 7`);
    await equal(world, 'absent');
    await eventually(async () => void expect((await world.problem(mapping)).error_code).to.equal(null));
  });

  it('F22 F36: what was left out is remembered by the destination, also when its letters are gone and another process goes on', async () => {
    await table('kept');
    await world.source.query(`INSERT INTO kept SELECT i, i, repeat('a', 3000) FROM generate_series(1, 20) i`);
    const mapping = await world.map('kept', { max_failed_rows: 5 });
    await world.state(mapping, 'streaming');
    await world.source.query(`UPDATE kept SET v = 1000, large = repeat('b', 3000) WHERE id IN (7, 8, 9)`);
    await world.source.query(`UPDATE kept SET v = 20 WHERE id = 1`);
    await equal(world, `(SELECT * FROM kept WHERE id NOT IN (7, 8, 9))`);
    expect(await leftOut()).to.equal(3);
    await service.stop();
    await world.control.query('DELETE FROM dead_letters WHERE mapping_id = $1', [mapping]);
    service = await world.start();
    await world.source.query(`UPDATE kept SET v = 50 WHERE id = 7`);
    await world.source.query(
      `BEGIN; UPDATE kept SET id = 108 WHERE id = 8; UPDATE kept SET v = 50 WHERE id = 108; COMMIT`,
    );
    await world.source.query(`DELETE FROM kept WHERE id = 9`);
    await equal(world, 'kept');
    expect(await leftOut()).to.equal(0);
  });

  it('F22 F36: the same for what a mapping missed while it failed', async () => {
    await table('held');
    await world.source.query(`INSERT INTO held SELECT i, i, repeat('a', 3000) FROM generate_series(1, 20) i`);
    const mapping = await world.map('held');
    await world.state(mapping, 'streaming');
    await world.source.query(`UPDATE held SET v = 1000, large = repeat('b', 3000) WHERE id IN (7, 8)`);
    await world.state(mapping, 'failed');
    await world.control.query('UPDATE table_mappings SET max_failed_rows = 2 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming');
    await equal(world, `(SELECT * FROM held WHERE id NOT IN (7, 8))`);
    expect(await leftOut()).to.equal(2);
    await world.source.query(`UPDATE held SET v = 1001 WHERE id = 1`);
    await world.state(mapping, 'failed');
    await world.source.query(`UPDATE held SET v = 50 WHERE id = 7`);
    await world.control.query('UPDATE table_mappings SET max_failed_rows = 3 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming');
    await equal(world, `(SELECT * FROM held WHERE id NOT IN (1, 8))`);
    expect(await leftOut()).to.equal(2);
    await world.copyAgain(mapping);
    await world.source.query(`UPDATE held SET v = 50 WHERE id IN (1, 8)`);
    await equal(world, 'held');
  });
});
