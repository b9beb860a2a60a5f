/** F54, F58, F64, F44: who writes where, what is kept, and what a copy holds at its source. */
import { expect } from 'chai';
import { testServer } from '../support/postgres.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';
import { errorOf, startRecorded, type RecordedService } from './support.ts';

describe('places', function () {
  this.timeout(60_000);
  let world: World;
  const services: RecordedService[] = [];

  beforeEach(async () => {
    world = await createWorld({ copy_chunk_bytes: 1024 * 1024, copy_parallelism: 1 });
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 6000) n; ANALYZE t`);
  });
  afterEach(async () => {
    await Promise.all(services.splice(0).map((service) => service.stop()));
    await world.close();
  });
  const start = async (control = world.control.name) => {
    const service = await startRecorded(control);
    services.push(service);
    return service;
  };

  it('F54: a mapping from a table to itself, under whatever name of the server, writes nothing', async () => {
    await start();
    // dest_server_id NULL: the control server's URL names another database than the source's, on the same server.
    const plain = await world.map('t', { dest_database: world.source.name, is_full_sync: 1 });
    const server = await testServer();
    await world.control.query(`INSERT INTO destination_servers (server_name, connection_string) VALUES ('d', $1)`, [
      server.url(world.source.name).replace('127.0.0.1', 'localhost'),
    ]);
    await world.source.query(`CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u VALUES (1, 'a')`);
    const disguised = await world.map('u', { dest_server_id: 1, dest_database: world.source.name, is_full_sync: 1 });
    const adopted = await world.map('u', { dest_database: world.source.name, initial_sync: 'none' });
    for (const id of [plain, disguised, adopted]) {
      const error = await errorOf(world, id, 'MAPPING_INVALID');
      expect(error.error_message).to.match(/same table/);
      expect(error.hint).to.match(/dest_table/);
    }
    const before = await world.source.query(`SELECT xmin::text FROM u`);
    await world.source.query(`UPDATE t SET v = 'once' WHERE id = 1`);
    await new Promise((resolve) => setTimeout(resolve, 1500)); // a loop would turn many times
    const [changed] = await world.source.query(`SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 't'`);
    expect(Number(changed?.['n_tup_upd'])).to.be.at.most(1);
    expect(await world.source.query(`SELECT xmin::text FROM u`)).to.deep.equal(before);
  });

  it('F54: a destination table that two rows reach under two names of its server belongs to the first', async () => {
    await start();
    const first = await world.map('t', { dest_table: 'one' });
    await world.state(first, 'streaming');
    await world.source.query(`CREATE TABLE u (id int PRIMARY KEY, v text)`);
    const server = await testServer();
    await world.control.query(`INSERT INTO destination_servers (server_name, connection_string) VALUES ('d', $1)`, [
      server.url(world.destination.name).replace('127.0.0.1', 'localhost'),
    ]);
    const second = await world.map('u', { dest_server_id: 1, dest_table: 'one', is_full_sync: 1 });
    const error = await errorOf(world, second, 'DESTINATION_TAKEN');
    expect(error.hint).to.match(/dest_table/);
    await equal(world, 't', 'one');
  });

  it('F64: two control databases, the same mapping numbers, one source, one destination: nothing mixes', async () => {
    const other = await createWorld();
    // The same numbers in both; other tables of the same two databases.
    await other.control.query(`UPDATE source_servers SET connection_string = $1`, [world.source.url]);
    await world.source.query(`CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u VALUES (1, 'a')`);
    const [mine, theirs] = [
      await world.map('t', { dest_table: 'mine' }),
      await other.map('u', { dest_database: world.destination.name, dest_table: 'theirs' }),
    ];
    expect(mine).to.equal(theirs);
    await Promise.all([start(), start(other.control.name)]);
    await world.state(mine, 'streaming', 30);
    await other.state(theirs, 'streaming', 30);
    await world.source.query(
      `UPDATE t SET v = 'a' WHERE id < 100; UPDATE u SET v = 'b'; INSERT INTO u VALUES (2, 'c')`,
    );
    await equal(world, 't', 'mine');
    await equal(world, 'u', 'theirs');
    const [kept] = await world.destination.query(
      `SELECT (SELECT count(*) FROM sluice.positions) AS positions, (SELECT count(DISTINCT stream) FROM sluice.generations) AS streams`,
    );
    expect(kept).to.deep.equal({ positions: '2', streams: '2' });
    const slots = await world.source.query(`SELECT 1 FROM pg_replication_slots WHERE database = current_database()`);
    expect(slots).to.have.length(2);
    // The one leaves: the other's slot, position and rows stay.
    await other.control.query(`DELETE FROM table_mappings`);
    await eventually(async () => {
      expect(
        await world.source.query(`SELECT 1 FROM pg_replication_slots WHERE database = current_database()`),
      ).to.have.length(1);
    }, 15_000);
    await world.source.query(`DELETE FROM t WHERE id = 5`);
    await equal(world, 't', 'mine');
    await world.state(mine, 'streaming');
    await services.pop()?.stop();
    await other.close();
  });

  it('F64: the same table from two control databases: the second is refused, the first goes on', async () => {
    const other = await createWorld();
    await other.control.query(`UPDATE source_servers SET connection_string = $1`, [world.source.url]);
    await start();
    const mine = await world.map('t');
    await world.state(mine, 'streaming', 30);
    await start(other.control.name);
    const theirs = await other.map('t', { dest_database: world.destination.name });
    const error = await errorOf(other, theirs, 'DESTINATION_NOT_EMPTY');
    expect(error.hint).to.match(/initial_sync = 'none'/);
    await world.source.query(`UPDATE t SET v = 'a' WHERE id < 100`);
    await equal(world, 't');
    await services.pop()?.stop();
    await other.close();
  });

  it('F64: a control database made anew with the same numbers: refused with both ways out, and adopted on request', async () => {
    const first = await start();
    const id = await world.map('t');
    await world.state(id, 'streaming', 30);
    await first.stop();
    const again = await createWorld();
    await again.control.query(`UPDATE source_servers SET connection_string = $1`, [world.source.url]);
    await start(again.control.name);
    const same = await again.map('t', { dest_database: world.destination.name });
    expect(same).to.equal(id);
    const error = await errorOf(again, same, 'DESTINATION_NOT_EMPTY');
    expect(error.hint).to.match(/is_full_sync = 1/);
    await again.control.query(`UPDATE table_mappings SET is_full_sync = 1`);
    await again.state(same, 'streaming', 30);
    await world.source.query(`UPDATE t SET v = 'by the new one' WHERE id < 100`);
    await equal(world, 't');
    await services.pop()?.stop();
    await again.close();
  });

  it('F58: old rows go when the service runs, what is young or open stays', async () => {
    await world.control.query(
      `INSERT INTO sync_logs (mapping_id, log_level, log_message, created_at) SELECT 1, 'INFO', 'old', now() - interval '400 days' FROM generate_series(1, 12000)`,
    );
    await world.control.query(
      `INSERT INTO error_logs (mapping_id, error_type, error_message, error_code, fingerprint, created_at, last_seen_at, is_resolved)
       SELECT 1, 'OTHER', 'old', 'INTERNAL', 'f' || n, now() - interval '400 days', now() - interval '400 days', 1 FROM generate_series(1, 3000) n`,
    );
    await world.control.query(
      `INSERT INTO sync_status (mapping_id, sync_type, status, started_at, completed_at)
       SELECT 1, 'CDC', 'COMPLETED', now() - interval '400 days', now() - interval '400 days' FROM generate_series(1, 3000)`,
    );
    await world.control.query(`INSERT INTO sync_logs (mapping_id, log_level, log_message) VALUES (1, 'INFO', 'young')`);
    await start();
    await eventually(async () => {
      const [row] = await world.control.query(
        `SELECT (SELECT count(*) FROM sync_logs WHERE log_message = 'old') AS logs, (SELECT count(*) FROM error_logs) AS errors,
                (SELECT count(*) FROM sync_status) AS runs, (SELECT count(*) FROM sync_logs WHERE log_message = 'young') AS young`,
      );
      // The latest run is what v_sync_summary shows.
      expect(row).to.deep.equal({ logs: '0', errors: '0', runs: '1', young: '1' });
    }, 15_000);
  });

  it('F44: while a table is copied, writers are not blocked and no transaction of ours is older than a chunk', async () => {
    await world.control.query(
      `UPDATE config SET config_value = '1500000' WHERE config_key = 'copy_max_bytes_per_second'`,
    );
    await start();
    const id = await world.map('t');
    await eventually(async () => {
      const rows = await world.control.query(`SELECT 1 FROM sync_status WHERE phase ~ '^copying [1-9]'`);
      expect(rows).to.have.length(1);
    }, 15_000);
    let [oldest, slowest, samples] = [0, 0, 0];
    for (;;) {
      const running = await world.control.query(
        `SELECT 1 FROM sync_status WHERE phase ~ '^copying' AND status = 'RUNNING'`,
      );
      if (running.length === 0) break;
      const at = performance.now();
      await world.source.query(`UPDATE t SET v = 'during' WHERE id = ${1 + (samples % 6000)}`);
      slowest = Math.max(slowest, performance.now() - at);
      const [row] = await world.source.query<{ age: string }>(
        `SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) AS age FROM pg_stat_activity
          WHERE datname = current_database() AND backend_type = 'client backend' AND application_name LIKE 'sluice%' AND backend_xmin IS NOT NULL`,
      );
      oldest = Math.max(oldest, Number(row?.age));
      samples++;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(samples, 'the copy was seen').to.be.greaterThan(20);
    expect(slowest, 'the slowest UPDATE, ms').to.be.lessThan(1000);
    expect(oldest, 'the oldest snapshot of ours, s').to.be.lessThan(1);
    await world.state(id, 'streaming', 20);
    await equal(world, 't');
  });
});
