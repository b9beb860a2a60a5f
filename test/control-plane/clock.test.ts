/** F56 at the level of the service: its machine's clock is set while it runs. */
import { expect } from 'chai';
import { createDatabase } from '../support/postgres.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';
import { startRecorded, type RecordedService } from './support.ts';

const HOUR = 3_600_000;

describe('F56: the clock of the machine is set', function () {
  this.timeout(60_000);
  const { now } = Date;
  let world: World;
  let service: RecordedService | null = null;

  beforeEach(async () => {
    world = await createWorld({ lease_seconds: 5, max_retry_attempts: 1000 });
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO t VALUES (1, 'a')`);
  });
  afterEach(async () => {
    Date.now = now;
    await service?.stop();
    await world.close();
  });

  const shift = (ms: number) => {
    Date.now = () => now.call(Date) + ms;
  };

  for (const [name, ms] of [
    ['back by a day', -24 * HOUR],
    ['forward by ten days', 240 * HOUR],
  ] as const) {
    it(`F56: ${name}: changes, leases, requests and retries go on`, async () => {
      service = await startRecorded(world.control.name);
      const served = await world.map('t');
      const failing = await world.map('later', { dest_table: 'later', dest_database: 'not_yet_there' });
      await world.state(served, 'streaming');
      await world.state(failing, 'failed');
      shift(ms);
      await world.source.query(`INSERT INTO t VALUES (2, 'after the clock was set')`);
      await equal(world, 't');
      await world.control.query(`UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1`, [served]);
      await eventually(async () => {
        const [row] = await world.control.query(`SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1`, [
          served,
        ]);
        expect(row?.['is_full_sync']).to.equal(0);
      });
      const attempts = async () => {
        const [row] = await world.control.query<{ attempts: number }>(
          `SELECT attempts FROM mapping_state WHERE mapping_id = $1`,
          [failing],
        );
        return row?.attempts ?? 0;
      };
      const before = await attempts();
      await eventually(async () => {
        expect(await attempts(), 'tried again meanwhile').to.be.greaterThan(before);
      }, 15_000);
      const [leases] = await world.control.query(
        `SELECT count(*) FILTER (WHERE expires_at > now()) AS valid, count(*) AS n FROM leases`,
      );
      expect(leases?.['valid']).to.equal(leases?.['n']);
    });
  }

  it('F56: forward by ten days while a destination is away for seconds: nothing is let go', async () => {
    const away = await createDatabase('away');
    service = await startRecorded(world.control.name);
    const id = await world.map('t', { dest_database: away.name });
    await world.state(id, 'streaming');
    await world.control.query(`ALTER DATABASE "${away.name}" ALLOW_CONNECTIONS false`);
    await world.control.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, [away.name]);
    await world.source.query(`INSERT INTO t VALUES (3, 'waits')`);
    await eventually(async () => {
      expect(service?.lines.some((line) => line.includes('a destination is away'))).to.equal(true);
    });
    shift(240 * HOUR);
    await world.source.query(`INSERT INTO t VALUES (4, 'waits as well')`);
    // The stream looks at what is away every five seconds: it has done so once more than after the jump.
    await new Promise((resolve) => setTimeout(resolve, 6000));
    await world.control.query(`ALTER DATABASE "${away.name}" ALLOW_CONNECTIONS true`);
    await eventually(async () => {
      const rows = await away.query(`SELECT id FROM t ORDER BY id`).catch(() => []);
      expect(rows.map((row) => row['id'])).to.deep.equal([1, 3, 4]);
    }, 20_000);
    await world.state(id, 'streaming');
    const gaps = await world.control.query(`SELECT * FROM error_logs WHERE error_code IN ('GAP', 'HOLD_EXCEEDED')`);
    expect(gaps).to.deep.equal([]);
    await service.stop();
    await away.drop();
  });
});
