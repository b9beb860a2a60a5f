/** Servers and networks that misbehave while rows are on their way: everything arrives once they behave again, and nothing twice. */
import { expect } from 'chai';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.ts';
import { audit, repeats } from '../crash/audit.ts';
import { startProxy } from '../control/proxy.ts';
import { TEST_SETTINGS, type TestDatabase } from '../support/postgres.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

const LONG = Boolean(process.env['SLUICE_TEST_LONG']);

describe('trouble on the way', function () {
  this.timeout(60_000);
  let world: World;

  beforeEach(async () => {
    world = await createWorld({ batch_max_bytes: 64 * 1024, copy_chunk_bytes: 1024 * 1024, max_retry_attempts: 10 });
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (LIKE t INCLUDING ALL);
      INSERT INTO t SELECT i, 'first' FROM generate_series(1, 300) i`);
  });
  afterEach(() => world.close());

  /** Ends sessions of the service in that database; throws when there is none. */
  const end = async (database: TestDatabase, condition: string) => {
    const ended = await database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND application_name LIKE 'sluice%' AND ${condition}`,
    );
    if (ended.length === 0) throw new Error(`no session with ${condition}`);
  };
  const streaming = async () => {
    await world.start();
    const mappings = [await world.map('t'), await world.map('u')];
    for (const mapping of mappings) await world.state(mapping, 'streaming');
    return mappings;
  };
  const recopied = (mapping: number | undefined) =>
    eventually(async () => {
      const [row] = await world.control.query('SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1', [
        mapping,
      ]);
      if (row?.['is_full_sync'] !== 0) throw new Error('still copying');
    }, 30_000);

  it('F40: a deadlock at the destination, with us as its victim', async () => {
    await streaming();
    await audit(world.destination, 't');
    const other = await world.destination.connect();
    await other.query(`SET deadlock_timeout = '30s'; BEGIN; UPDATE t SET v = v WHERE id = 300`);
    await world.source.query(`UPDATE t SET v = 'second'`);
    await eventually(async () => {
      const waiting = await world.destination.query(
        `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name LIKE 'sluice%'`,
      );
      if (waiting.length === 0) throw new Error('nobody waits');
    });
    await other.query(`UPDATE t SET v = v WHERE id = 1; COMMIT`);
    await equal(world, 't');
    // What the other session wrote over itself is not ours.
    const ours = (await repeats(world.destination)).filter((row) => !/AGAIN.*first/.test(JSON.stringify(row)));
    expect(ours).to.deep.equal([]);
  });

  it('F41: a mapping that failed while the source was away goes on as soon as its stream runs again', async () => {
    const proxy = await startProxy(world.source.url);
    try {
      await world.control.query(
        `UPDATE config SET config_value = '1' WHERE config_key IN ('max_retry_attempts', 'retry_delay_seconds')`,
      );
      await world.control.query('UPDATE source_servers SET connection_string = $1 WHERE server_id = 1', [proxy.url]);
      await world.start();
      const first = await world.map('t');
      await world.state(first, 'streaming');
      proxy.cut();
      const second = await world.map('u');
      await world.state(second, 'failed');
      await world.source.query(`INSERT INTO u VALUES (1, 'meanwhile')`);
      // By its own clock it would be tried again in a quarter of an hour.
      await eventually(async () => {
        const [row] = await world.control.query(
          `SELECT retry_at > now() + interval '5 minutes' AS later FROM mapping_state JOIN table_mappings USING (mapping_uid) WHERE table_mappings.mapping_id = $1`,
          [second],
        );
        expect(row?.['later']).to.equal(true);
      });
      proxy.restore();
      await world.state(second, 'streaming', 40);
      await equal(world, 'u');
    } finally {
      await world.close();
      await proxy.close();
    }
  });

  it('F40: a report holds the table during a swap: the swap lets go, the stream of other tables does not wait', async () => {
    const [mapping] = await streaming();
    const report = await world.destination.connect();
    await report.query(`UPDATE t SET v = 'somebody else' WHERE id = 7`);
    await report.query(`BEGIN; LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE`);
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await eventually(async () => {
      const waiting = await world.destination.query(
        `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%"public"."t" t%'`,
      );
      if (waiting.length === 0) throw new Error('no swap waits');
    });
    for (let i = 0; i < 5; i++) {
      await world.source.query(`INSERT INTO u VALUES ($1, 'meanwhile')`, [i]);
      await equal(world, 'u', 'u', 5000);
    }
    await report.query('COMMIT');
    await recopied(mapping);
    await equal(world, 't');
  });

  it('F40: sessions at the destination are ended at any moment of a batch and of a copy', async () => {
    const [mapping] = await streaming();
    await audit(world.destination, 'u');
    // A commit lasts a moment only: lengthened, so that one is met.
    await world.destination.query(`
      CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
      CREATE CONSTRAINT TRIGGER linger AFTER UPDATE ON sluice.positions DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION linger();
      ALTER TABLE sluice.positions ENABLE ALWAYS TRIGGER linger;
    `);
    let stop = false;
    const writer = (async () => {
      for (let i = 1; !stop; i++) {
        await world.source.query(`INSERT INTO u SELECT ${i} * 100 + g, repeat('x', 200) FROM generate_series(1, 30) g`);
        await world.source.query(`UPDATE t SET id = id + 1000 WHERE id = ${i}`);
      }
    })();
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    for (const condition of [
      `state = 'idle in transaction'`,
      `state = 'active'`,
      `state = 'active' AND query LIKE 'COMMIT%'`,
      'true',
    ])
      await eventually(() => end(world.destination, condition), 20_000);
    stop = true;
    await writer;
    await world.destination.query('DROP TRIGGER linger ON sluice.positions');
    await equal(world, 'u', 'u', 30_000);
    await recopied(mapping);
    await equal(world, 't');
    expect(await repeats(world.destination)).to.deep.equal([]);
  });

  it('F40: the destination’s server is shut down and started again, then dies of a power failure', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'sluice-restart-'));
    chmodSync(directory, 0o755);
    const options = { directory: path.join(directory, 'data'), settings: { ...TEST_SETTINGS, fsync: 'on' } };
    let server = await startEmbeddedPostgres(options);
    try {
      await world.control.query(`INSERT INTO destination_servers (server_name, connection_string) VALUES ('far', $1)`, [
        server.url(),
      ]);
      await world.start();
      await world.state(await world.map('t', { dest_server_id: 1, dest_database: 'postgres' }), 'streaming', 30);
      const arrived = () =>
        eventually(async () => {
          const client = new pg.Client({ connectionString: server.url() });
          await client.connect();
          const sum = `SELECT count(*) || ':' || md5(string_agg(t::text, ',' ORDER BY id)) AS sum FROM t`;
          const { rows } = await client.query<{ sum: string }>(sum).finally(() => client.end());
          const [source] = await world.source.query<{ sum: string }>(sum);
          if (rows[0]?.sum !== source?.sum) throw new Error(`source ${source?.sum}, destination ${rows[0]?.sum}`);
        }, 30_000);
      for (const [i, stop] of [() => server.stop(), () => server.kill()].entries()) {
        const writing = world.source.query(`UPDATE t SET v = repeat('round ${i}', 100), id = id + 1000`);
        await stop();
        await writing;
        await world.source.query(`UPDATE t SET v = 'while away' WHERE id % 3 = 0`);
        server = await startEmbeddedPostgres({ ...options, port: server.port });
        await arrived();
      }
    } finally {
      await world.close();
      await server.stop();
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it('F41: sessions at the source are ended in the middle of a copy and of the stream', async () => {
    await world.source.query(`INSERT INTO t SELECT i, repeat('x', 1500) FROM generate_series(1000, 30000) i`);
    await world.start();
    const mapping = await world.map('t');
    await eventually(() => end(world.source, `query LIKE 'COPY%'`), 20_000);
    await world.state(mapping, 'streaming', 30);
    await equal(world, 't');
    for (let i = 0; i < (LONG ? 4 : 1); i++) {
      await world.source.query(`UPDATE t SET v = 'round ${i}', id = -id WHERE id % 3 = 0`);
      await eventually(() => end(world.source, `backend_type = 'walsender'`), 10_000);
      await world.source.query(`DELETE FROM t WHERE id % 11 = 0`);
    }
    await equal(world, 't', 't', 30_000);
  });

  it('F41: the source’s name does not resolve at the start; later its network is cut', async () => {
    const proxy = await startProxy(world.source.url);
    try {
      const unknown = new URL(world.source.url);
      unknown.hostname = 'no-such-host.invalid';
      const connect = (url: string) =>
        world.control.query('UPDATE source_servers SET connection_string = $1 WHERE server_id = 1', [url]);
      await connect(unknown.toString());
      await world.start();
      const mapping = await world.map('t');
      await eventually(async () => {
        const rows = await world.control.query(
          `SELECT 1 FROM error_logs WHERE error_message LIKE '%no-such-host.invalid%'`,
        );
        if (rows.length === 0) throw new Error('nothing said');
      });
      await connect(proxy.url);
      await world.state(mapping, 'streaming', 30);
      await equal(world, 't');
      proxy.cut();
      await world.source.query(`UPDATE t SET v = 'while cut off'`);
      proxy.restore();
      await equal(world, 't', 't', 30_000);
    } finally {
      await world.close();
      await proxy.close();
    }
  });

  it('F42: the databases’ own time limits do not end a copy or a batch', async () => {
    for (const database of [world.source, world.destination])
      await database.query(`ALTER DATABASE "${database.name}" SET statement_timeout = '20ms';
        ALTER DATABASE "${database.name}" SET idle_in_transaction_session_timeout = '20ms'; ALTER DATABASE "${database.name}" SET lock_timeout = '20ms'`);
    await world.source.query(`INSERT INTO t SELECT i, repeat('x', 900) FROM generate_series(1000, 12000) i`);
    await streaming();
    await world.source.query(`UPDATE t SET v = 'all of them'`);
    await equal(world, 't');
  });

  it('F42: no session is free at the source: it waits, says so, and goes on', async () => {
    const name = world.source.name;
    await world.source.query(`CREATE ROLE "${name}" LOGIN REPLICATION PASSWORD 'p' CONNECTION LIMIT 1;
      ALTER DATABASE "${name}" OWNER TO "${name}"; ALTER TABLE t OWNER TO "${name}"; ALTER TABLE u OWNER TO "${name}"`);
    try {
      const url = new URL(world.source.url);
      url.username = name;
      url.password = 'p';
      await world.control.query('UPDATE source_servers SET connection_string = $1', [url.toString()]);
      await world.start();
      const mapping = await world.map('t');
      await eventually(async () => {
        const rows = await world.control.query(`SELECT 1 FROM error_logs WHERE error_code = 'SERVER_BUSY'`);
        if (rows.length === 0) throw new Error('nothing said');
      });
      await world.source.query(`ALTER ROLE "${name}" CONNECTION LIMIT 20`);
      await world.state(mapping, 'streaming', 30);
      await equal(world, 't');
    } finally {
      await world.close();
    }
  });

  it('F40: somebody locks a table of the destination: its changes wait by themselves, the group’s other tables do not', async () => {
    const [t] = await streaming();
    const other = await world.destination.connect();
    await other.query('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
    await world.source.query(`UPDATE t SET v = 'second'; INSERT INTO u VALUES (1, 'beside it')`);
    await equal(world, 'u', 'u', 30_000);
    await world.source.query(`INSERT INTO u VALUES (2, 'at once'); UPDATE t SET v = 'third' WHERE id = 1`);
    await equal(world, 'u', 'u', 5_000);
    const [row] = await world.control.query(`SELECT error_code FROM mapping_state WHERE mapping_id = $1`, [t]);
    expect(row).to.deep.equal({ error_code: 'TIMEOUT' });
    await other.query('COMMIT');
    await world.state(t ?? 0, 'streaming', 20);
    await equal(world, 't');
  });
});
