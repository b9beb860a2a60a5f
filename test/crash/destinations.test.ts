/** MariaDB, MySQL and SQL Server as the destination of processes that are killed and frozen. */
import { expect } from 'chai';
import type { Failpoint } from '../../src/model/failpoint.ts';
import { ChildServices, type Failpoints } from '../support/child-service.ts';
import type { EngineName } from '../support/ends.ts';
import { findMysql, findMysqlItself } from '../support/mysql.ts';
import { eventually } from '../support/service.ts';
import { createWorldTo, type TargetWorld } from '../support/target-world.ts';

const LONG = Boolean(process.env['SLUICE_TEST_LONG']);

interface Destination {
  readonly name: string;
  readonly engine: EngineName;
  readonly mysql?: typeof findMysql;
  /** Killed every time there; else in the long run only. */
  readonly isQuick: boolean;
  /** Rows of the table, and how long each is. */
  readonly rows: readonly [count: number, length: number];
  readonly copyPoints: readonly Failpoint[];
  /** Steps of the swap: each ends a series of kills. */
  readonly lastPoints: readonly Failpoint[];
  /** Whether a commit is under way. */
  isCommitting(world: TargetWorld): Promise<boolean>;
  /** Tables of ours, of a copy or of a backlog. */
  readonly ownTables: string;
  /** The first copy replaces by a rename that commits by itself. */
  readonly renames: boolean;
}

const MYSQL = {
  engine: 'mysql',
  rows: [3000, 1000],
  copyPoints: ['copy.opened', 'copy.chunk-loaded', 'copy.key-built', 'copy.compared'],
  lastPoints: ['copy.swapped', 'copy.renaming', 'copy.renamed'],
  isCommitting: ({ target }) =>
    target.query('SELECT epoch FROM sluice_positions FOR UPDATE NOWAIT').then(
      () => false,
      () => true,
    ),
  ownTables: `SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME REGEXP '^sluice_(stage|backlog)'`,
  renames: true,
} satisfies Partial<Destination>;

const DESTINATIONS: readonly Destination[] = [
  { ...MYSQL, name: 'MariaDB', mysql: findMysql, isQuick: true },
  // What goes on in it is MariaDB's: one series, unless there is time.
  {
    ...MYSQL,
    name: 'MySQL',
    mysql: findMysqlItself,
    isQuick: false,
    ...(LONG ? {} : { copyPoints: ['copy.chunk-loaded'], lastPoints: ['copy.renamed'] }),
  },
  {
    name: 'SQL Server',
    engine: 'sqlserver',
    isQuick: false,
    // Each start of a service takes seconds on a stand-in.
    rows: [600, 500],
    copyPoints: someOf(['copy.opened', 'copy.chunk-loaded', 'copy.key-built']),
    lastPoints: ['copy.swapped'],
    isCommitting: async ({ target }) => {
      const open = await target.query(
        `SELECT session_id FROM sys.dm_exec_sessions WHERE open_transaction_count > 0 AND status = N'sleeping' OR status LIKE N'idle in transaction%'`,
      );
      return open.length > 0;
    },
    ownTables: `SELECT t.name AS name FROM sys.tables t WHERE t.name LIKE N'sluice[_]stage%' OR t.name LIKE N'backlog%'`,
    renames: false,
  },
];
const STREAM_POINTS: readonly Failpoint[] = ['stream.before-commit', 'stream.after-commit'];

/** One of the points every time, all of them in the long run. */
function someOf(points: readonly Failpoint[]): readonly Failpoint[] {
  const at = Math.floor(Math.random() * points.length);
  return LONG ? points : points.slice(at, at + 1);
}

for (const destination of DESTINATIONS)
  describe(`kills and frozen owners, PostgreSQL → ${destination.name}`, function () {
    this.timeout(240_000);
    let world: TargetWorld;
    const services = new ChildServices();
    const start = (failpoints?: Failpoints) => services.start(world, failpoints);
    beforeEach(async function () {
      world = await createWorldTo(this, destination.engine, { copy_chunk_bytes: 1_048_576 }, destination.mysql);
      await world.source.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
      const [count, length] = destination.rows;
      await world.source.query(`INSERT INTO t SELECT i, repeat('x', ${length}) FROM generate_series(1, ${count}) i`);
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
    const killAt = async (point: Failpoint, n: number) => {
      const service = await start({ [point]: 'kill' });
      // Changes are made while nobody runs; the last of them are enough for the first commit.
      if (point.startsWith('stream')) await change(n);
      expect(await service.endsWithin(45_000), `${point}\n${service.lastWords()}`).to.equal(true);
      if (!point.startsWith('stream')) await change(n);
    };
    const generations = async () => {
      const [row] = await world.target.query(`SELECT last_generation FROM ${world.target.home('generations')}`);
      return Number(row?.['last_generation']);
    };
    const leftNothing = () =>
      eventually(async () => void expect(await world.target.query(destination.ownTables)).to.deep.equal([]));

    for (const last of destination.lastPoints) {
      const isWhole = last === destination.lastPoints[0];
      const points = [...(isWhole ? destination.copyPoints : []), last];
      const streamPoints = !isWhole && !LONG ? [] : destination.isQuick ? STREAM_POINTS : someOf(STREAM_POINTS);
      it(`F01 F03 F08 F66: killed at steps of a first copy and of a commit (${[...points, ...streamPoints].join(', ')}): nothing is lost, nothing is done twice`, async () => {
        const mapping = await world.map('t');
        for (const [n, point] of points.entries()) await killAt(point, n);
        // The name says how far it came, and the copy is not made again.
        const there = await world.target.query('SELECT 1 AS found FROM t WHERE id = 1').catch(() => null);
        if (destination.renames) expect(there !== null).to.equal(last !== 'copy.renaming');
        expect(await generations()).to.equal(1);
        for (const [i, point] of streamPoints.entries()) await killAt(point, points.length + i);
        await start();
        await world.state(mapping, 'streaming', 45);
        await change(8);
        await world.equal('t', 45_000);
        expect(await generations()).to.equal(1);
        await leftNothing();
      });
    }

    if (destination.isQuick || LONG)
      it('F08: killed in the middle of a copy onto an empty table, and of one onto rows', async () => {
        await world.target.query(`CREATE TABLE t (id int NOT NULL PRIMARY KEY, v ${world.target.words.text} NULL)`);
        const mapping = await world.map('t');
        await killAt('copy.filled', 0);
        expect(await world.target.query('SELECT id FROM t WHERE id > 0')).to.deep.equal([]);
        const service = await start();
        await world.state(mapping, 'streaming', 45);
        await world.equal('t', 45_000);
        await service.kill();
        await world.target.query("UPDATE t SET v = 'changed here' WHERE id < 300");
        await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
        for (const [n, point] of someOf(['copy.chunk-loaded', 'copy.compared', 'copy.swapped']).entries())
          await killAt(point, n + 1);
        await start();
        await world.state(mapping, 'streaming', 45);
        await world.equal('t', 45_000);
        await leftNothing();
      });

    // In the contract suite always; here, with whole services, where they start quickly.
    if (destination.isQuick || LONG)
      it('F09 F63: an owner frozen in the middle of a commit: another takes over past its locks, its write is refused', async () => {
        const first = await start({ 'stream.before-commit': 'sleep:4000' });
        await world.state(await world.map('t'), 'streaming', 45);
        await change(0);
        await eventually(async () => {
          if (!(await destination.isCommitting(world))) throw new Error('no commit is under way');
        });
        first.signal('SIGSTOP');
        await start();
        await world.equal('t', 60_000);
        first.signal('SIGCONT');
        await first.says('newer owner', 30_000);
        await change(1);
        await world.equal('t', 45_000);
      });

    if (destination.renames && (destination.isQuick || LONG))
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
