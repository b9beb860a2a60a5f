import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import pg from 'pg';
import { startEmbeddedPostgres } from '../../src/embedded/postgres.ts';
import { TEST_SETTINGS } from '../support/postgres.ts';
import { createWorld, eventually, type World } from '../support/service.ts';

/** The log reaches the disk when somebody waits for it, and hardly before. */
const UNWRITTEN = { wal_writer_delay: '10s', wal_writer_flush_after: '1GB', wal_buffers: '64MB' };

const LOSSES = process.env['SLUICE_TEST_LONG'] ? 5 : 1;

describe('a destination that loses power', function () {
  this.timeout(120_000);
  let world: World;
  before(async () => {
    world = await createWorld({ batch_rows: 50, max_retry_attempts: 10, retry_delay_seconds: 1 });
  });
  after(() => world.close());

  it('F02 F40: commits that had not reached its disk come again, and nothing else does', async () => {
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL); INSERT INTO t VALUES (0, 0)`);
    const directory = mkdtempSync(path.join(tmpdir(), 'sluice-power-'));
    chmodSync(directory, 0o755);
    const options = {
      directory: path.join(directory, 'data'),
      settings: { ...TEST_SETTINGS, ...UNWRITTEN, fsync: 'on', synchronous_commit: 'off' },
    };
    let server = await startEmbeddedPostgres(options);
    const there = async <T extends pg.QueryResultRow>(sql: string): Promise<T | undefined> => {
      const client = new pg.Client({ connectionString: server.url() });
      await client.connect();
      return (await client.query<T>(sql).finally(() => client.end())).rows[0];
    };
    const count = async () => Number((await there<{ n: string }>('SELECT count(*) AS n FROM t'))?.n);
    let stop = false;
    let writing = Promise.resolve();
    try {
      await world.control.query(`INSERT INTO destination_servers (server_name, connection_string) VALUES ('far', $1)`, [
        server.url(),
      ]);
      await world.start();
      await world.state(await world.map('t', { dest_server_id: 1, dest_database: 'postgres' }), 'streaming', 30);
      // More than once an insert of the same row, or an update of one that is not there, would show.
      writing = (async () => {
        for (let i = 1; !stop; i += 100)
          await world.source.query(`DO $$ BEGIN FOR i IN ${i}..${i + 99} LOOP
            INSERT INTO t VALUES (i, 0);
            UPDATE t SET v = v + 1 WHERE id > i - 20;
            COMMIT;
          END LOOP; END $$`);
      })();
      let lost = 0;
      for (let round = 0; lost < LOSSES && round < 5 * LOSSES; round++) {
        const before = await count();
        let seen = before;
        await eventually(async () => {
          const now = await there<{ n: number; unwritten: string }>(
            'SELECT count(*)::int AS n, pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn() AS unwritten FROM t',
          );
          seen = now?.n ?? 0;
          if (seen < before + 1000 || Number(now?.unwritten) < 50_000)
            throw new Error(`${seen} rows, ${before} at first`);
        }, 30_000);
        await server.kill();
        server = await startEmbeddedPostgres({ ...options, port: server.port });
        if ((await count()) < seen) lost++;
      }
      expect(lost, 'crashes that took commits back: without one, nothing is shown').to.be.above(0);
      stop = true;
      await writing;
      const sum = `SELECT count(*) || ':' || md5(string_agg(t::text, ',' ORDER BY id)) AS sum FROM t`;
      const [source] = await world.source.query<{ sum: string }>(sum);
      await eventually(async () => {
        const found = await there<{ sum: string }>(sum);
        if (found?.sum !== source?.sum) throw new Error(`source ${source?.sum}, destination ${found?.sum}`);
      }, 40_000);
      const [gaps] = await world.control.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM full_sync_requests WHERE reason <> 'initial'`,
      );
      expect(gaps?.n, 'nothing was mended by another copy').to.equal(0);
    } finally {
      stop = true;
      await writing;
      await world.close();
      await server.stop();
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
