/** MySQL and MariaDB as the destination of processes that are killed and frozen. */
import { expect } from 'chai';
import type { Failpoint } from '../../src/model/failpoint.ts';
import { ChildServices, type Failpoints } from '../support/child-service.ts';
import { eventually } from '../support/service.ts';
import { createWorldTo, type TargetWorld } from '../support/target-world.ts';

const COPY_POINTS: readonly Failpoint[] = ['copy.opened', 'copy.chunk-loaded', 'copy.key-built', 'copy.compared'];
const STREAM_POINTS: readonly Failpoint[] = ['stream.before-commit', 'stream.after-commit'];

describe('kills and frozen owners, PostgreSQL → MariaDB', function () {
  this.timeout(240_000);
  let world: TargetWorld;
  const services = new ChildServices();
  const start = (failpoints?: Failpoints) => services.start(world, failpoints);
  beforeEach(async function () {
    world = await createWorldTo(this, 'mysql', { copy_chunk_bytes: 1_048_576 });
    await world.source.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
    await world.source.query(`INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) i`);
  });
  afterEach(async () => {
    await services.killAll();
    await world?.close();
  });
  /** What is not the same when it is applied twice: keys move on. */
  const change = (n: number) =>
    world.source
      .query(`BEGIN; UPDATE t SET id = id + 10000, v = v || ${n} WHERE id % 10 = ${n}; DELETE FROM t WHERE id = ${n * 7 + 8};
      INSERT INTO t VALUES (${-n - 1}, 'new'); COMMIT`);
  const killAt = async (point: Failpoint, n: number, times = 1) => {
    const service = await start({ [point]: `kill:${times}` });
    expect(await service.endsWithin(45_000), `${point}\n${service.lastWords()}`).to.equal(true);
    await change(n);
  };
  const generations = async () => {
    const [row] = await world.target.query('SELECT last_generation FROM sluice_generations');
    return Number(row?.['last_generation']);
  };
  /** Tables of ours that are of no use any more. */
  const leftovers = async () => {
    const rows = await world.target.query(
      `SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME REGEXP '^sluice_(stage|backlog)'`,
    );
    return rows.map((row) => row['name']);
  };

  for (const last of ['copy.renaming', 'copy.renamed', 'copy.swapped'] as const)
    it(`F01 F03 F08 F66: killed at each step of a first copy, at last at ${last}, and of a commit: nothing is lost, nothing is done twice`, async () => {
      const mapping = await world.map('t');
      const points = [...(last === 'copy.swapped' ? COPY_POINTS : []), last];
      for (const [n, point] of points.entries()) await killAt(point, n);
      // The name says how far it came, and the copy is not made again.
      const there = await world.target.query(`SHOW TABLES LIKE 't'`);
      expect(there).to.have.length(last === 'copy.renaming' ? 0 : 1);
      const before = await generations();
      // The changes made while nobody ran are enough for the first.
      const streamPoints = last === 'copy.swapped' || process.env['SLUICE_TEST_LONG'] ? STREAM_POINTS : [];
      for (const [i, point] of streamPoints.entries()) await killAt(point, points.length + i);
      await start();
      await world.state(mapping, 'streaming', 45);
      await change(8);
      await world.equal('t', 45_000);
      expect(await generations()).to.equal(before);
      expect(before).to.equal(1);
      await eventually(async () => void expect(await leftovers()).to.deep.equal([]));
    });

  it('F08: killed in the middle of a copy onto an empty table, and of one onto rows', async () => {
    await world.target.query('CREATE TABLE t (id int NOT NULL PRIMARY KEY, v longtext NULL)');
    const mapping = await world.map('t');
    await killAt('copy.filled', 0);
    expect(await world.target.query('SELECT id FROM t LIMIT 1')).to.deep.equal([]);
    const service = await start();
    await world.state(mapping, 'streaming', 45);
    await world.equal('t', 45_000);
    await service.kill();
    await world.target.query("UPDATE t SET v = 'changed here' WHERE id < 300");
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    for (const [n, point] of (['copy.chunk-loaded', 'copy.compared', 'copy.swapped'] as const).entries())
      await killAt(point, n + 1);
    await start();
    await world.state(mapping, 'streaming', 45);
    await world.equal('t', 45_000);
    await eventually(async () => void expect(await leftovers()).to.deep.equal([]));
  });

  it('F09 F63: an owner frozen in the middle of a commit: another takes over past its locks, its write is refused', async () => {
    const first = await start({ 'stream.before-commit': 'sleep:4000' });
    await world.state(await world.map('t'), 'streaming', 45);
    await change(0);
    await eventually(async () => {
      const isLocked = await world.target.query('SELECT epoch FROM sluice_positions FOR UPDATE NOWAIT').then(
        () => false,
        () => true,
      );
      if (!isLocked) throw new Error('no commit is under way');
    });
    first.signal('SIGSTOP');
    await start();
    await world.equal('t', 60_000);
    first.signal('SIGCONT');
    await first.says('newer owner', 30_000);
    await change(1);
    await world.equal('t', 45_000);
  });

  it('F08 F63: a copier frozen between the two steps of its swap: another finishes it', async () => {
    const first = await start({ 'copy.renaming': 'sleep:60000' });
    const mapping = await world.map('t');
    await eventually(async () => {
      const rows = await world.target.query(
        'SELECT 1 AS found FROM sluice_generations WHERE pending_rename IS NOT NULL',
      );
      if (rows.length === 0) throw new Error('no swap is under way');
    }, 45_000);
    first.signal('SIGSTOP');
    await change(0);
    await start();
    await world.state(mapping, 'streaming', 60);
    await world.equal('t', 60_000);
    expect(await generations()).to.equal(1);
    first.signal('SIGCONT');
    await change(1);
    await world.equal('t', 45_000);
  });
});
