import { expect } from 'chai';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/embedded/postgres.ts';
import { TEST_SETTINGS } from '../support/postgres.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

/** A destination that is away holds the source's log, within limits; the others never wait for it. */
describe('F46: a destination that is away', () => {
  let world: World;
  let directory: string;
  let remote: EmbeddedPostgres;
  let near: number;
  let far: number;

  const start = () =>
    startEmbeddedPostgres({
      directory: path.join(directory, 'data'),
      port: remote ? remote.port : 0,
      settings: TEST_SETTINGS,
    });
  const remoteIds = async () => {
    const client = new pg.Client({ connectionString: remote.url() });
    await client.connect();
    try {
      return (
        (await client.query<{ sum: string }>(`SELECT count(*) || ':' || coalesce(sum(id), 0) AS sum FROM far`)).rows[0]
          ?.sum ?? ''
      );
    } finally {
      await client.end();
    }
  };
  const sourceIds = async () =>
    (await world.source.query<{ sum: string }>(`SELECT count(*) || ':' || coalesce(sum(id), 0) AS sum FROM far`))[0]
      ?.sum ?? '';
  const remoteEqual = () =>
    eventually(async () => {
      const [left, right] = [await sourceIds(), await remoteIds()];
      if (left !== right) throw new Error(`source ${left}, destination ${right}`);
    }, 30_000);
  const retained = async () =>
    Number(
      (
        await world.source.query<{ bytes: string }>(
          'SELECT (pg_current_wal_insert_lsn() - confirmed_flush_lsn)::bigint AS bytes FROM pg_replication_slots WHERE database = current_database()',
        )
      )[0]?.bytes,
    );

  beforeEach(async function () {
    this.timeout(60_000);
    directory = mkdtempSync(path.join(tmpdir(), 'sluice-away-'));
    chmodSync(directory, 0o755);
    remote = await startEmbeddedPostgres({ directory: path.join(directory, 'data'), settings: TEST_SETTINGS });
    world = await createWorld({ cdc_check_interval_seconds: 1, max_retry_attempts: 1, batch_max_bytes: 65_536 });
    await world.control.query(`INSERT INTO destination_servers (server_name, connection_string) VALUES ('far', $1)`, [
      remote.url(),
    ]);
    await world.source.query(
      'CREATE TABLE near (id int PRIMARY KEY, v text); CREATE TABLE far (id int PRIMARY KEY, v text)',
    );
    await world.source.query('INSERT INTO far SELECT i FROM generate_series(1, 10) i');
    await world.start();
    near = await world.map('near');
    far = await world.map('far', { dest_server_id: 1, dest_database: 'postgres' });
    await world.state(near, 'streaming');
    await world.state(far, 'streaming');
  });
  afterEach(async () => {
    await world.close();
    await remote.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  it('loses nothing when it returns in time; the other destination never waited', async () => {
    await remote.kill();
    await world.source.query(
      'INSERT INTO far SELECT i FROM generate_series(11, 2000) i; UPDATE far SET id = -id WHERE id < 5',
    );
    await world.source.query(`INSERT INTO near SELECT i, 'x' FROM generate_series(1, 2000) i`);
    await equal(world, 'near');
    // What the far one has not stored is still the source's to keep (invariant 3).
    const before = await retained();
    // A transaction larger than a batch, and a later one that overwrites it: when the stream is read again for the far one,
    // the near one must take nothing of the large one twice.
    await world.source.query(`UPDATE near SET v = repeat('large', 20)`);
    await equal(world, 'near');
    await world.source.query(`UPDATE near SET v = 'y'`);
    await equal(world, 'near');
    expect(await retained()).to.be.greaterThan(before);
    remote = await start();
    await remoteEqual();
    await world.state(far, 'streaming');
    // And the one that was ahead has nothing twice, nor with the next change.
    await equal(world, 'near');
    await world.source.query(`INSERT INTO near VALUES (99999, 'next')`);
    await equal(world, 'near');
    await eventually(async () => {
      if ((await retained()) > 500_000) throw new Error('the slot is still held');
    });
  });

  it('past hold_max_bytes the source’s log is released, the mapping is in gap, and a full sync mends it on return', async () => {
    await world.control.query(`UPDATE config SET config_value = '1048576' WHERE config_key = 'hold_max_bytes'`);
    await remote.kill();
    await world.source.query('INSERT INTO far SELECT i FROM generate_series(11, 100) i');
    await world.source.query(`INSERT INTO near SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i`);
    await world.state(far, 'gap', 30);
    await equal(world, 'near');
    await eventually(async () => {
      if ((await retained()) > 500_000) throw new Error('the slot is still held');
    });
    await world.source.query('DELETE FROM far WHERE id = 3');
    remote = await start();
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [far]);
    await world.state(far, 'streaming', 40);
    await remoteEqual();
    await world.source.query('INSERT INTO far VALUES (77777)');
    await remoteEqual();
  });
});
