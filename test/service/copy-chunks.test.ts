/** A copy in several chunks that are read at once. */
import { expect } from 'chai';
import { createWorld, equal, type World } from '../support/service.ts';

describe('a full copy in parallel chunks', () => {
  let world: World;
  before(async () => {
    world = await createWorld({ copy_chunk_bytes: 1 << 20, copy_parallelism: 3 });
  });
  after(() => world.close());

  it('copies and counts every row', async () => {
    await world.source.query('CREATE TABLE wide (id int PRIMARY KEY, filling text NOT NULL)');
    await world.source.query(`INSERT INTO wide SELECT g, repeat(md5(g::text), 8) FROM generate_series(1, 30000) g`);
    await world.start();
    const id = await world.map('wide');
    await world.state(id, 'streaming');
    await equal(world, 'wide');
    const [run] = await world.control.query(
      `SELECT status, records_processed::int AS rows FROM sync_status WHERE mapping_id = $1 AND sync_type = 'FULL_SYNC'`,
      [id],
    );
    expect(run).to.deep.equal({ status: 'COMPLETED', rows: 30000 });
  });
});
