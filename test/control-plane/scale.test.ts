/** Done when 5: thousands of mappings, idle, changing and new. Counted where it costs: in the servers. */
import { expect } from 'chai';
import { createWorld, eventually, startService, type TestService, type World } from '../support/service.ts';
import { testServer } from '../support/postgres.ts';

const isLong = process.env['SLUICE_TEST_LONG'] !== undefined;
const IDLE = isLong ? 2000 : 100;
const CHANGING = isLong ? 500 : 100;
/** How long nothing happens while costs are counted, seconds. */
const QUIET = 10;

describe(`${IDLE} mappings in one process`, function () {
  this.timeout(isLong ? 900_000 : 180_000);
  let world: World;
  let service: TestService;

  before(async () => {
    world = await createWorld({
      cdc_check_interval_seconds: 2,
      // Comparing is work that was asked for, and writes what it found: not part of being idle.
      verification_interval_minutes: 0,
      lease_seconds: 15,
      server_parallel_count: 8,
      parallel_scheduler_count: 8,
    });
    await world.source.query(
      `DO $$ BEGIN FOR i IN 1..${IDLE} LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', i); IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$`,
    );
    await world.control.query(
      `INSERT INTO table_mappings (server_id, source_table, dest_database) SELECT 1, 't' || i, $1 FROM generate_series(1, ${IDLE}) i`,
      [world.destination.name],
    );
    service = await startService((await testServer()).url(), world.control.name);
  });
  after(async () => {
    if (world) await autovacuum('on');
    await service?.stop();
    await world?.close();
  });

  /** For the whole server; workers that are at work are waited for. */
  const autovacuum = async (state: 'on' | 'off') => {
    await world.control.query(`ALTER SYSTEM SET autovacuum = ${state}`);
    await world.control.query('SELECT pg_reload_conf()');
    if (state === 'off')
      await eventually(async () => {
        const rows = await world.control.query(
          `SELECT 1 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'`,
        );
        if (rows.length > 0) throw new Error(`${rows.length} autovacuum workers are at work`);
      }, 120_000);
  };

  const one = async (database: keyof Pick<World, 'source' | 'destination' | 'control'>, sql: string) =>
    Object.values((await world[database].query(sql))[0] ?? {})[0];

  it('new at once: all are copied by one reader of the log, which is read once', async () => {
    const begun = performance.now();
    const [from] = await world.source.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn() AS lsn');
    await eventually(
      async () => {
        const left = await one('control', `SELECT count(*) FROM mapping_state WHERE state <> 'streaming'`);
        const all = await one('control', `SELECT count(*) FROM mapping_state`);
        if (left !== '0' || all !== String(IDLE))
          throw new Error(`${String(left)} of ${String(all)} are not streaming`);
      },
      170_000 * (isLong ? 5 : 1),
    );
    if (isLong) process.stderr.write(`${IDLE} new mappings took ${Math.round((performance.now() - begun) / 1000)} s\n`);
    const slots = await world.source.query<{ slot_name: string; active: boolean }>(
      `SELECT slot_name, active FROM pg_replication_slots WHERE database = current_database()`,
    );
    const all = await world.source.query(
      `SELECT slot_name, database, active, invalidation_reason FROM pg_replication_slots`,
    );
    expect(slots, `of ${JSON.stringify(all)}`).to.have.length(1);
    expect(slots[0]?.active).to.equal(true);
    const readers = await world.source.query(
      `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'walsender'`,
    );
    expect(readers).to.have.length(1);
    // What the slot decoded is what was written, not that times the mappings. (The statistics are the server's own.)
    const [stats] = await world.source.query<{ decoded: string; written: string }>(
      `SELECT pg_stat_clear_snapshot(), total_bytes AS decoded, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1) AS written
         FROM pg_stat_replication_slots WHERE slot_name = $2`,
      [from?.lsn, slots[0]?.slot_name],
    );
    expect(Number(stats?.decoded ?? 0)).to.be.at.most(Number(stats?.written) * 2);
  });

  it('idle: little CPU, no log rows, round trips by stream and not by table, at most a position write per cycle', async () => {
    // What the server does by itself after so many new rows is not ours to count.
    await autovacuum('off');
    // An idle session of the server hands its statistics over after ten seconds.
    await new Promise((resolve) => setTimeout(resolve, 12_000));
    const read = async () => {
      const stats = async (database: 'source' | 'destination' | 'control') =>
        Number(
          await one(
            database,
            `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()`,
          ),
        );
      const logRows = Number(
        await one(
          'control',
          `SELECT (SELECT count(*) FROM sync_logs) + (SELECT count(*) FROM error_logs) + (SELECT count(*) FROM verification_logs) + (SELECT count(*) FROM sync_status) + (SELECT count(*) FROM full_sync_requests)`,
        ),
      );
      const positions = Number(
        await one('destination', `SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'positions'`),
      );
      const written = Number(
        await one(
          'destination',
          `SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE relname <> 'positions'`,
        ),
      );
      return {
        source: await stats('source'),
        destination: await stats('destination'),
        control: await stats('control'),
        logRows,
        positions,
        written,
      };
    };
    const before = await read();
    const cpu = process.cpuUsage();
    const since = performance.now();
    await new Promise((resolve) => setTimeout(resolve, QUIET * 1000));
    const used = process.cpuUsage(cpu);
    const seconds = (performance.now() - since) / 1000;
    await new Promise((resolve) => setTimeout(resolve, 1200)); // the servers' statistics come a second late
    const after = await read();
    const cycles = QUIET / 2;
    const costs = Object.fromEntries(
      Object.entries(after).map(([name, value]) => [name, value - before[name as keyof typeof before]]),
    ) as typeof before;
    const share = (used.user + used.system) / 1e6 / seconds;
    const text = `${(share * 100).toFixed(1)} % CPU; in ${cycles} cycles ${JSON.stringify(costs)}`;
    if (isLong) process.stderr.write(`${text}\n`);
    expect(costs.logRows, text).to.equal(0);
    expect(costs.written, text).to.equal(0);
    expect(costs.positions, text).to.be.at.most(cycles + 2);
    // A handful for each cycle and database, the readings of this test included; never one per mapping.
    for (const database of ['source', 'destination', 'control'] as const)
      expect(costs[database], text).to.be.at.most(cycles * 12 + 12);
    // What is asked is asked at full size; with few mappings on a slow machine this only shows that nothing spins.
    expect(share, text).to.be.lessThan(isLong ? 0.02 : 0.2);
  });

  it(`${CHANGING} tables that change at once all arrive`, async () => {
    await world.source.query(
      `DO $$ BEGIN FOR i IN 1..${CHANGING} LOOP EXECUTE format('INSERT INTO t%s SELECT n, ''v'' FROM generate_series(1, 20) n', i); END LOOP; END $$`,
    );
    for (let i = 1; i <= CHANGING; i += 5)
      await world.source.query(`UPDATE t${i} SET v = 'changed'; DELETE FROM t${i} WHERE id = 3`);
    const counts = `SELECT string_agg(s, ';' ORDER BY i) FROM (${Array.from(
      { length: CHANGING },
      (_, i) => `SELECT ${i} AS i, count(*) || '/' || count(*) FILTER (WHERE v = 'changed') AS s FROM t${i + 1}`,
    ).join(' UNION ALL ')}) q`;
    const expected = await one('source', counts);
    await eventually(async () => {
      const found = await one('destination', counts);
      expect(found).to.equal(expected);
    }, 60_000);
  });
});
