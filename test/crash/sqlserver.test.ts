/** SQL Server as the destination of processes that are killed and frozen. */
import { expect } from 'chai';
import type { Failpoint } from '../../src/model/failpoint.ts';
import { ChildServices, type Failpoints } from '../support/child-service.ts';
import { eventually } from '../support/service.ts';
import { createWorldTo, type TargetWorld } from '../support/target-world.ts';

const LONG = Boolean(process.env['SLUICE_TEST_LONG']);
const COPY_POINTS: readonly Failpoint[] = ['copy.opened', 'copy.chunk-loaded', 'copy.key-built', 'copy.swapped'];
const STREAM_POINTS: readonly Failpoint[] = ['stream.before-commit', 'stream.after-commit'];

/** Each start of a service takes seconds on a stand-in: one of the points every time, all of them in the long run. */
function someOf(points: readonly Failpoint[]): readonly Failpoint[] {
  const at = Math.floor(Math.random() * points.length);
  return LONG ? points : points.slice(at, at + 1);
}

describe('kills and frozen owners, PostgreSQL → SQL Server', function () {
  this.timeout(240_000);
  let world: TargetWorld;
  const services = new ChildServices();
  const start = (failpoints?: Failpoints) => services.start(world, failpoints);
  beforeEach(async function () {
    world = await createWorldTo(this, 'sqlserver', { copy_chunk_bytes: 1_048_576 });
    await world.source.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
    await world.source.query(`INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 600) i`);
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

  const copyPoints = [...someOf(COPY_POINTS.slice(0, -1)), ...COPY_POINTS.slice(-1)];
  const streamPoints = someOf(STREAM_POINTS);
  it(`F01 F03 F08 F66: killed at steps of a copy and of a commit (${[...copyPoints, ...streamPoints].join(', ')}): nothing is lost, nothing is done twice`, async () => {
    const mapping = await world.map('t');
    for (const [n, point] of copyPoints.entries()) {
      const service = await start({ [point]: 'kill' });
      expect(await service.endsWithin(45_000), `${point}\n${service.lastWords()}`).to.equal(true);
      await change(n);
    }
    const [copied] = await world.target.query('SELECT last_generation FROM sluice.generations');
    expect(copied?.['last_generation']).to.equal(1);
    for (const [i, point] of streamPoints.entries()) {
      const service = await start({ [point]: 'kill' });
      // The changes made while nobody ran are enough for the first.
      await change(copyPoints.length + i);
      expect(await service.endsWithin(45_000), `${point}\n${service.lastWords()}`).to.equal(true);
    }
    await start();
    await world.state(mapping, 'streaming', 45);
    await change(8);
    await world.equal('t', 45_000);
    const [after] = await world.target.query('SELECT last_generation FROM sluice.generations');
    expect(after?.['last_generation']).to.equal(1);
  });

  // In the contract suite always; here, with whole services on cold sessions of a stand-in, in the long run.
  if (LONG)
    it('F09 F63: an owner frozen in the middle of a commit: another takes over past its locks, its write is refused', async () => {
      const first = await start({ 'stream.before-commit': 'sleep:4000' });
      await world.state(await world.map('t'), 'streaming', 45);
      await change(0);
      await eventually(async () => {
        const open = await world.target.query(
          `SELECT session_id FROM sys.dm_exec_sessions WHERE open_transaction_count > 0 AND status = N'sleeping' OR status LIKE N'idle in transaction%'`,
        );
        if (open.length === 0) throw new Error('no commit is under way');
      });
      first.signal('SIGSTOP');
      await start();
      await world.equal('t', 60_000);
      first.signal('SIGCONT');
      await first.says('newer owner', 30_000);
      await change(1);
      await world.equal('t', 45_000);
    });
});
