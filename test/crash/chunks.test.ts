/** Rows that move while their table is copied: what one chunk has read and another has not. */
import { expect } from 'chai';
import { ChildService, expireLeases } from '../support/child-service.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

const LARGE = (seed: string) => `(SELECT string_agg(md5(concat(${seed}, '-', g)), '') FROM generate_series(1, 100) g)`;

describe('rows that move during a copy', function () {
  this.timeout(60_000);
  let world: World;
  let service: ChildService;

  beforeEach(async () => {
    world = await createWorld({ copy_chunk_bytes: 1024 * 1024, copy_parallelism: 1 });
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text, body text);
      ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
      INSERT INTO t SELECT 2, 'B', ${LARGE(`'b'`)};
      INSERT INTO t SELECT i, repeat('x', 900), '' FROM generate_series(1001, 4000) i;
      INSERT INTO t SELECT 1, 'A', ${LARGE(`'a'`)}; INSERT INTO t SELECT 5, 'C', ${LARGE(`'c'`)}`);
  });
  afterEach(async () => {
    await service.kill();
    await world.close();
  });

  /** Calls `move` when the first chunk is in and the last is not read. */
  const during = async (move: () => Promise<unknown>) => {
    service = await ChildService.start(world, { 'copy.chunk-loaded': 'sleep:1000' });
    const mapping = await world.map('t');
    const loaded = async () => (await world.destination.query('SELECT chunk FROM sluice.chunks')).length;
    await eventually(async () => {
      if ((await loaded()) === 0) throw new Error('no chunk yet');
    }, 20_000);
    await move();
    const [plan] = await world.destination.query<{ n: number }>(
      `SELECT jsonb_array_length(copy_plan -> 'chunks') AS n FROM sluice.generations`,
    );
    expect(await loaded(), 'chunks in when the rows had moved').to.be.lessThan(plan?.n ?? 0);
    await world.state(mapping, 'streaming', 30);
    await equal(world, 't');
  };

  it('F22: a key that moved behind a finished chunk does not bring another row’s large value', () =>
    during(async () => {
      // The last chunk reads B under A's old key, and the stream then says that A's row came from there.
      await world.source.query('UPDATE t SET id = 3 WHERE id = 1');
      await world.source.query('UPDATE t SET id = 1 WHERE id = 2');
    }));

  it('F22: a row that moved in front of the chunks that follow has its large value from the source', () =>
    during(async () => {
      await world.source.query('DELETE FROM t WHERE id BETWEEN 1001 AND 1100');
      await world.source.query('VACUUM t');
      // Its page is full, so the new version goes where there is room.
      await world.source.query(`INSERT INTO t SELECT i, repeat('y', 900), '' FROM generate_series(5000, 5007) i`);
      await world.source.query(`UPDATE t SET v = repeat('C', 1500) WHERE id = 5`);
      const [row] = await world.source.query<{ page: number }>(
        `SELECT split_part(trim('(' FROM ctid::text), ',', 1)::int AS page FROM t WHERE id = 5`,
      );
      expect(row?.page, 'its new page').to.be.lessThan(20);
    }));

  it('F03: killed in the middle: the run that goes on counts the rows of the chunks that were in', async () => {
    service = await ChildService.start(world, { 'copy.chunk-loaded': 'kill:2' });
    const mapping = await world.map('t');
    expect(await service.endsWithin(20_000), service.lastWords()).to.equal(true);
    await expireLeases(world);
    service = await ChildService.start(world);
    await world.state(mapping, 'streaming', 30);
    const [run] = await world.control.query(
      `SELECT records_processed::int AS rows FROM sync_status WHERE mapping_id = $1 AND sync_type = 'FULL_SYNC' AND status = 'COMPLETED'`,
      [mapping],
    );
    expect(run).to.deep.equal({ rows: 3003 });
  });
});
