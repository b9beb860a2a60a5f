/** Rows that are new at the source are loaded into the table itself, unless something is there that should not be. */
import { expect } from 'chai';
import { createWorld, equal, type World } from '../support/service.ts';

describe('new rows', () => {
  let world: World;
  before(async () => {
    world = await createWorld();
    await world.source.query('CREATE TABLE fresh (id int PRIMARY KEY, v text, other int UNIQUE)');
    await world.source.query(`INSERT INTO fresh SELECT g, 'before', g FROM generate_series(1, 100) g`);
    await world.start();
    await world.state(await world.map('fresh'), 'streaming');
  });
  after(() => world.close());

  it('F21: a key deleted and inserted again in one batch is an update of what the destination has', async () => {
    await world.source.query(`BEGIN; DELETE FROM fresh WHERE id <= 50;
      INSERT INTO fresh SELECT g, 'again', g FROM generate_series(1, 60) g WHERE g <= 50;
      INSERT INTO fresh VALUES (101, 'new', 101); COMMIT`);
    await equal(world, 'fresh');
  });

  it('F24: a new row takes the unique value that an older one gave up in the same batch', async () => {
    await world.source.query(`BEGIN; UPDATE fresh SET other = 1000 WHERE id = 1; DELETE FROM fresh WHERE id = 2;
      INSERT INTO fresh VALUES (201, 'takes 1', 1), (202, 'takes 2', 2); COMMIT`);
    await equal(world, 'fresh');
  });

  it('a row that somebody else put at the destination is replaced, and the rest arrives', async () => {
    await world.destination.query(`INSERT INTO fresh VALUES (303, 'stray', 303)`);
    await world.source.query(`INSERT INTO fresh SELECT g, 'mine', g FROM generate_series(301, 310) g`);
    await equal(world, 'fresh');
    await world.source.query(`INSERT INTO fresh VALUES (311, 'after', 311)`);
    await equal(world, 'fresh');
    const errors = await world.control.query('SELECT * FROM error_logs');
    expect(errors).to.deep.equal([]);
  });
});
