/** Killed again and again while rows that the destination refuses go on changing, without the large value they have (F22 F36). */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChildServices, type Failpoints } from '../support/child-service.ts';
import { createWorld, equal, type World } from '../support/service.ts';

const KILLS: readonly Failpoints[] = [
  { 'copy.chunk-loaded': 'kill' },
  { 'copy.folded': 'kill' },
  ...(process.env['SLUICE_TEST_LONG']
    ? ([
        { 'copy.swapped': 'kill' },
        { 'stream.before-commit': 'kill:2' },
        { 'stream.before-commit': 'kill:7' },
      ] as const)
    : []),
  { 'stream.after-commit': 'kill:3' },
];

describe('killed while rows are refused', function () {
  this.timeout(120_000);
  let world: World;
  const services = new ChildServices();
  before(async () => {
    world = await createWorld();
  });
  after(async () => {
    await services.killAll();
    await world.close();
  });

  it('F01 F03 F22 F36: nothing else is lost, the copy ends, and every row is right once it fits', async () => {
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v int, n int, large text)`);
    await world.source.query(`ALTER TABLE t ALTER large SET STORAGE EXTERNAL`);
    await world.destination.query(
      `CREATE DOMAIN small AS int CHECK (VALUE < 100); CREATE TABLE t (id int PRIMARY KEY, v small, n int, large text)`,
    );
    await world.source.query(
      `INSERT INTO t SELECT i, CASE WHEN i % 200 = 7 THEN 1000 ELSE 1 END, 0, repeat('a', 3000) FROM generate_series(1, 1000) i`,
    );
    let stop = false;
    const writing = (async () => {
      for (let i = 0; !stop; i++) {
        await world.source.query(`UPDATE t SET n = n + 1 WHERE id % 100 = 7`);
        // Now and then a row that was good is not, and its large value is another.
        await world.source.query(
          `UPDATE t SET v = 1000 - v, large = repeat('${i % 10}', 3000) WHERE id = ${(i % 9) * 100 + 50}`,
        );
        await sleep(30);
      }
    })();
    const mapping = await world.map('t', { max_failed_rows: 50 });
    try {
      for (const failpoints of KILLS) {
        const service = await services.start(world, failpoints);
        const name = JSON.stringify(failpoints);
        expect(await service.endsWithin(60_000), `${name}\n${service.lastWords()}`).to.equal(true);
      }
      await services.start(world);
      await world.state(mapping, 'streaming', 30);
    } finally {
      stop = true;
      await writing;
    }
    await equal(world, '(SELECT * FROM t WHERE id % 100 NOT IN (7, 50))');
    await world.source.query(`UPDATE t SET v = 2 WHERE v >= 100`);
    await equal(world, 't');
    await world.state(mapping, 'streaming');
  });
});
