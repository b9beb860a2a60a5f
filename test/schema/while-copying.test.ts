import { expect } from 'chai';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

const MIB = 1 << 20;

describe('the source’s columns change while its rows are copied', () => {
  let world: World;
  beforeEach(async () => {
    // About three seconds for the table below.
    world = await createWorld({ copy_chunk_bytes: MIB, copy_max_bytes_per_second: 4 * MIB, copy_parallelism: 1 });
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO t SELECT i, repeat('x', 2000) FROM generate_series(1, 6000) i`);
  });
  afterEach(() => world.close());

  async function copying(mapping: number): Promise<void> {
    await eventually(async () => {
      const rows = await world.control.query(
        `SELECT 1 FROM sync_status WHERE mapping_id = $1 AND phase LIKE 'copying%' AND records_processed > 0`,
        [mapping],
      );
      if (rows.length === 0) throw new Error('nothing is copied yet');
    });
  }

  for (const [name, ddl] of [
    ['added, nullable', `ALTER TABLE t ADD COLUMN n text`],
    ['added with a default, backfilled in the dark', `ALTER TABLE t ADD COLUMN n text DEFAULT 'd'`],
    ['retyped', `ALTER TABLE t ALTER v TYPE bytea USING decode('00ff', 'hex')`],
    ['dropped', `ALTER TABLE t ADD COLUMN n int; ALTER TABLE t DROP COLUMN v`],
  ] as const)
    it(`F26 F28: ${name}`, async () => {
      await world.start();
      const mapping = await world.map('t');
      await copying(mapping);
      await world.source.query(`INSERT INTO t (id) VALUES (10001)`);
      await world.source.query(ddl);
      await world.source.query(`INSERT INTO t (id) VALUES (10002)`);
      await world.source.query(`UPDATE t SET id = id + 20000 WHERE id % 100 = 1`);
      await world.state(mapping, 'streaming', 30);
      await equal(world, 't');
    });

  it('F28: changes older than a column are folded into a copy that already has it', async () => {
    const service = await world.start();
    const mapping = await world.map('t');
    await world.state(mapping, 'streaming', 30);
    await service.stop();
    // The stream has this to read before it comes to the new column; the copy begins at once.
    for (let i = 1; i <= 10; i++)
      await world.source.query(`INSERT INTO t SELECT ${i} * 100000 + i, 'older' FROM generate_series(1, 4000) i`);
    for (let i = 0; i < 50; i++) await world.source.query(`UPDATE t SET v = v || '.' WHERE id BETWEEN 1 AND 50`);
    await world.source.query(`UPDATE t SET id = -id WHERE id <= 20`);
    await world.source.query(
      `ALTER TABLE t ADD COLUMN n text NOT NULL DEFAULT 'd', ADD COLUMN c timestamptz DEFAULT clock_timestamp()`,
    );
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await world.start();
    await eventually(async () => {
      const [row] = await world.control.query('SELECT is_full_sync FROM table_mappings');
      expect(row?.['is_full_sync']).to.equal(0);
    }, 30_000);
    await equal(world, 't');
  });
});
