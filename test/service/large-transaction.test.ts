/** A transaction larger than a batch is staged in pieces and applied piece by piece: what a piece did, the next may undo. */
import { createWorld, equal, type World } from '../support/service.ts';

const LONG = process.env['SLUICE_TEST_LONG'] !== undefined;

describe('a transaction larger than a batch', () => {
  let world: World;
  before(async () => {
    world = await createWorld({ batch_max_bytes: 64 * 1024 });
    await world.source.query('CREATE TABLE pieces (id int PRIMARY KEY, v text, other int UNIQUE)');
    await world.source.query(`INSERT INTO pieces SELECT g, 'before', g FROM generate_series(1, 1000) g`);
    await world.start();
    await world.state(await world.map('pieces'), 'streaming');
  });
  after(() => world.close());

  it('F43: rows inserted, updated, deleted and inserted again in different pieces end as at the source', async () => {
    const rows = LONG ? 200_000 : 5000;
    await world.source.query(`DO $$ BEGIN
      INSERT INTO pieces SELECT g, 'inserted', g FROM generate_series(1001, ${rows}) g;
      UPDATE pieces SET v = 'first ' || id WHERE id % 2 = 0;
      UPDATE pieces SET v = 'second ' || id WHERE id % 3 = 0;
      DELETE FROM pieces WHERE id % 5 = 0;
      INSERT INTO pieces SELECT g, 'again', g FROM generate_series(10, ${rows}, 10) g;
      UPDATE pieces SET v = 'third' WHERE id % 7 = 0;
    END $$`);
    await equal(world, 'pieces', 'pieces', 60_000);
  });

  it('F43: keys and unique values move from piece to piece', async () => {
    await world.source.query(`DO $$ BEGIN
      UPDATE pieces SET id = -id;
      UPDATE pieces SET id = 1000000 - id WHERE id % 2 = 0;
      UPDATE pieces SET other = -other;
      UPDATE pieces SET other = 7 - other, v = 'moved';
      DELETE FROM pieces WHERE other % 4 = 0;
    END $$`);
    await equal(world, 'pieces', 'pieces', 60_000);
  });

  it('F43, F23: emptied in the middle', async () => {
    await world.source.query(`DO $$ BEGIN
      UPDATE pieces SET v = 'soon gone';
      TRUNCATE pieces;
      INSERT INTO pieces SELECT g, 'after', g FROM generate_series(1, 3000) g;
      UPDATE pieces SET v = 'later' WHERE id % 2 = 0;
    END $$`);
    await equal(world, 'pieces', 'pieces', 60_000);
  });
});
