/** F50, F55, F57: several processes on one control database; the control database away; being told to stop. */
import { expect } from 'chai';
import { startProxy, type Proxy } from '../control/proxy.ts';
import { ChildService } from '../support/child-service.ts';
import { testServer } from '../support/postgres.ts';
import { createWorld, equal, eventually, startService, type TestService, type World } from '../support/service.ts';
import { startRecorded, type RecordedService } from './support.ts';

const isLong = process.env['SLUICE_TEST_LONG'] !== undefined;

describe('F50: processes that share a control database', function () {
  this.timeout(120_000);
  let world: World;
  const services: (TestService | ChildService)[] = [];

  beforeEach(async () => {
    world = await createWorld({ lease_seconds: 5, parallel_scheduler_count: 2, max_retry_attempts: 10 });
  });
  afterEach(async () => {
    await Promise.all(services.splice(0).map((service) => service.stop()));
    await world.close();
  });

  const tables = async (count: number) => {
    const ids: number[] = [];
    for (let i = 0; i < count; i++) {
      await world.source.query(`CREATE TABLE t${i} (id int PRIMARY KEY, v text)`);
      await world.source.query(`INSERT INTO t${i} SELECT n, 'v' || n FROM generate_series(1, 200) n`);
      ids.push(await world.map(`t${i}`, { apply_group: i % 3 === 0 ? 'heavy' : null }));
    }
    return ids;
  };
  const allEqual = async (count: number, ms = 30_000) => {
    for (let i = 0; i < count; i++) await equal(world, `t${i}`, `t${i}`, ms);
  };
  /** Each table was copied once, however many wanted to. */
  const copiedOnce = async (count: number) => {
    const [row] = await world.control.query(
      `SELECT count(*) AS requests, count(*) FILTER (WHERE status = 'completed') AS completed FROM full_sync_requests`,
    );
    expect(row).to.deep.equal({ requests: String(count), completed: String(count) });
    const [generations] = await world.destination.query(`SELECT max(last_generation) AS most FROM sluice.generations`);
    expect(generations?.['most']).to.equal(1);
  };

  it('F50: two processes: one reader of the log, each table copied once, both do copies', async () => {
    const count = 12;
    const ids = await tables(count);
    const url = (await testServer()).url();
    services.push(
      ...(await Promise.all([startService(url, world.control.name), startService(url, world.control.name)])),
    );
    for (const id of ids) await world.state(id, 'streaming', 40);
    await allEqual(count);
    await copiedOnce(count);
    const readers = await world.source.query(
      `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'walsender'`,
    );
    expect(readers).to.have.length(1);
    const [owners] = await world.control.query(`SELECT count(DISTINCT owner) AS n FROM full_sync_requests`);
    expect(owners?.['n']).to.equal('2');
    for (let i = 0; i < count; i++) await world.source.query(`UPDATE t${i} SET v = 'changed' WHERE id % 7 = 0`);
    await allEqual(count);
  });

  it('F50: a process that has nothing to do because another does it all asks no more often than it polls', async () => {
    await world.source.query(`CREATE TABLE big (id int PRIMARY KEY, v text)`);
    await world.source.query(
      `INSERT INTO big SELECT n, repeat('x', 1000) FROM generate_series(1, 6000) n; ANALYZE big`,
    );
    await world.control.query(
      `UPDATE config SET config_value = CASE config_key WHEN 'copy_max_bytes_per_second' THEN '1100000' WHEN 'copy_chunk_bytes' THEN '1048576' ELSE '1' END
        WHERE config_key IN ('copy_max_bytes_per_second', 'copy_chunk_bytes', 'copy_parallelism')`,
    );
    await world.map('big');
    const url = (await testServer()).url();
    services.push(
      ...(await Promise.all([startService(url, world.control.name), startService(url, world.control.name)])),
    );
    await eventually(async () => {
      const rows = await world.control.query(`SELECT 1 FROM sync_status WHERE phase LIKE 'copying %'`);
      expect(rows).to.have.length(1);
    });
    const transactions = async () => {
      const [row] = await world.control.query<{ n: string }>(
        `SELECT pg_stat_clear_snapshot(), xact_commit AS n FROM pg_stat_database WHERE datname = current_database()`,
      );
      return Number(row?.n);
    };
    const before = await transactions();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const perSecond = ((await transactions()) - before) / 3;
    // A poll, leases, a cancellation check and the progress of the copy: about a dozen a second. Spinning makes hundreds.
    expect(perSecond).to.be.lessThan(40);
  });

  it(`F50: ten processes, some of them killed and frozen meanwhile`, async () => {
    const [processes, count] = isLong ? [10, 40] : [4, 10];
    const ids = await tables(count);
    const children = await Promise.all(Array.from({ length: processes }, () => ChildService.start(world)));
    services.push(...children);
    // Six more in this process: their number counts, not whose memory they are in.
    const url = (await testServer()).url();
    for (let i = processes; i < 10; i++) services.push(await startService(url, world.control.name));
    await eventually(async () => {
      const rows = await world.control.query(`SELECT 1 FROM full_sync_requests WHERE status = 'completed'`);
      expect(rows.length).to.be.greaterThan(1);
    }, 40_000);
    const [killed, frozen] = children;
    killed?.signal('SIGKILL');
    frozen?.signal('SIGSTOP');
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < count; i++)
        await world.source.query(`UPDATE t${i} SET v = v || ${round} WHERE id % 5 = ${round}`);
    }
    for (const id of ids) await world.state(id, 'streaming', 60);
    await allEqual(count, 60_000);
    frozen?.signal('SIGCONT');
    for (let i = 0; i < count; i++) await world.source.query(`DELETE FROM t${i} WHERE id % 9 = 0`);
    await allEqual(count, 60_000);
    const [generations] = await world.destination.query(`SELECT count(*) AS n FROM sluice.generations WHERE is_live`);
    expect(generations?.['n']).to.equal(String(count));
  });
});

describe('F55: the control database away', function () {
  this.timeout(90_000);
  let world: World;
  let proxy: Proxy;
  const services: (RecordedService | ChildService)[] = [];

  beforeEach(async () => {
    world = await createWorld({ lease_seconds: 5 });
    proxy = await startProxy((await testServer()).url());
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO t SELECT n, 'v' FROM generate_series(1, 500) n`);
    // Only the control database is behind the proxy.
    await world.control.query(
      `INSERT INTO destination_servers (server_name, connection_string) VALUES ('d', '${(await testServer()).url()}')`,
    );
  });
  afterEach(async () => {
    proxy.restore();
    await Promise.all(services.splice(0).map((service) => service.stop()));
    await proxy.close();
    await world.close();
  });

  const said = (lines: readonly string[], what: RegExp) => lines.filter((line) => what.test(line)).length;

  it('F55: away at the start: waits, says so once, and begins when it is there', async () => {
    proxy.cut();
    const id = await world.map('t', { dest_server_id: 1 });
    const child = await ChildService.start(world, {}, { DEST_URL: proxy.url });
    services.push(child);
    await child.says('control database does not answer');
    await new Promise((resolve) => setTimeout(resolve, 5000)); // two more attempts
    expect(child.count('control database does not answer')).to.equal(1);
    expect(child.count('CONTROL_UNREACHABLE')).to.be.greaterThan(0);
    proxy.restore();
    await world.state(id, 'streaming', 30);
    await equal(world, 't');
    expect(await child.stop()).to.equal(0);
  });

  for (const [name, take] of [
    ['cut', (each: Proxy) => each.cut()],
    ['swallowing everything', (each: Proxy) => each.swallow()],
  ] as const) {
    it(`F55: ${name} while it runs: changes go on, it is said once, nothing is lost`, async () => {
      const service = await startRecorded(world.control.name, { controlServerUrl: proxy.url });
      services.push(service);
      const id = await world.map('t', { dest_server_id: 1 });
      await world.state(id, 'streaming', 30);
      await equal(world, 't');
      take(proxy);
      await world.source.query(`INSERT INTO t VALUES (1001, 'while it is away')`);
      await equal(world, 't');
      // Past the lease: nobody could take it, so nothing needs to stop.
      await new Promise((resolve) => setTimeout(resolve, 7000));
      await world.source.query(`UPDATE t SET v = 'later' WHERE id = 1`);
      await equal(world, 't');
      await world.control.query(`UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1`, [id]);
      proxy.restore();
      await eventually(async () => {
        const [row] = await world.control.query(`SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1`, [id]);
        expect(row?.['is_full_sync'], 'what was asked for meanwhile is done').to.equal(0);
      }, 30_000);
      await world.source.query(`DELETE FROM t WHERE id = 2`);
      await equal(world, 't');
      await world.state(id, 'streaming');
      if (name === 'cut') expect(said(service.lines, /control database does not answer/)).to.equal(1);
      expect(said(service.lines, /control database is back/)).to.be.lessThan(2);
      const [counted] = await world.control.query(
        `SELECT rows_inserted, rows_updated, rows_deleted FROM v_mapping_health WHERE mapping_id = $1`,
        [id],
      );
      await eventually(async () => {
        const [row] = await world.control.query(
          `SELECT rows_inserted, rows_updated, rows_deleted FROM v_mapping_health WHERE mapping_id = $1`,
          [id],
        );
        expect(row, JSON.stringify(counted)).to.deep.equal({
          rows_inserted: '1',
          rows_updated: '1',
          rows_deleted: '1',
        });
      });
    });
  }
});

describe('F57: being told to stop', function () {
  this.timeout(60_000);
  let world: World;
  const children: ChildService[] = [];

  beforeEach(async () => {
    world = await createWorld({ lease_seconds: 10, copy_chunk_bytes: 1024 * 1024, copy_parallelism: 1 });
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 6000) n; ANALYZE t`);
  });
  afterEach(async () => {
    await Promise.all(children.splice(0).map((child) => child.stop()));
    await world.close();
  });

  for (const signal of isLong ? (['SIGTERM', 'SIGINT'] as const) : (['SIGTERM'] as const)) {
    it(`F57: ${signal} in the middle of a copy and under changes: drained in its limit, exit code 0, the next goes on at once`, async () => {
      await world.control.query(
        `UPDATE config SET config_value = '1100000' WHERE config_key = 'copy_max_bytes_per_second'`,
      );
      const child = await ChildService.start(world);
      children.push(child);
      const id = await world.map('t');
      await eventually(async () => {
        const rows = await world.control.query(`SELECT 1 FROM sync_status WHERE phase ~ '^copying [1-9]'`);
        expect(rows).to.have.length(1);
      }, 20_000);
      await world.source.query(`UPDATE t SET v = 'changed' WHERE id % 10 = 0`);
      const at = performance.now();
      child.signal(signal);
      expect(await child.exited).to.equal(0);
      expect(performance.now() - at, 'within the limit of 20 s').to.be.lessThan(20_000);
      const leases = await world.control.query(`SELECT lease_key FROM leases`);
      expect(leases, 'no lease is left to wait for').to.deep.equal([]);
      const sessions = await world.source.query(
        `SELECT application_name FROM pg_stat_activity WHERE datname IN ($1, $2) AND application_name LIKE 'sluice%'`,
        [world.source.name, world.destination.name],
      );
      expect(sessions).to.deep.equal([]);
      const [run] = await world.control.query(`SELECT status FROM sync_status WHERE sync_type = 'FULL_SYNC'`);
      expect(run?.['status']).to.equal('PAUSED');
      await world.control.query(`UPDATE config SET config_value = '0' WHERE config_key = 'copy_max_bytes_per_second'`);
      const next = await ChildService.start(world);
      children.push(next);
      await world.state(id, 'streaming', 20);
      await equal(world, 't');
      expect(next.count('resumed=true')).to.be.greaterThan(0);
    });
  }

  it('F57: stopped while the control database is away, and while a table is locked: ends in its limit all the same', async () => {
    const proxy = await startProxy((await testServer()).url());
    const child = await ChildService.start(world, {}, { DEST_URL: proxy.url });
    children.push(child);
    const id = await world.map('t');
    await world.state(id, 'streaming', 30);
    const blocker = await world.destination.connect();
    await blocker.query(`BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE`);
    await world.source.query(`UPDATE t SET v = 'waits' WHERE id = 1`);
    proxy.cut();
    const at = performance.now();
    child.signal('SIGTERM');
    expect(await child.exited).to.equal(0);
    expect(performance.now() - at).to.be.lessThan(25_000);
    await blocker.query('ROLLBACK');
    await proxy.close();
    const next = await ChildService.start(world);
    children.push(next);
    await equal(world, 't', 't', 30_000);
  });
});
