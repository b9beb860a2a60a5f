/** SQL Server to SQL Server: servers that misbehave while rows are on their way. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '../../src/model/errors.ts';
import { startProxy, type Proxy } from '../control/proxy.ts';
import { eventually } from '../support/service.ts';
import { skip } from '../support/skip.ts';
import { requireSqlServer, type SqlServerTestDatabase } from '../support/sqlserver.ts';
import { createSqlServerPair, numbers, type SqlServerPair } from '../support/sqlserver-pair.ts';

/** Between two transactions of the writer: what matters is that there is always one on its way. */
const PACE_MS = 50;

describe('SQL Server to SQL Server: trouble on the way', function () {
  this.timeout(300_000);
  let pair: SqlServerPair;
  let proxy: Proxy;
  before(async function () {
    pair = await createSqlServerPair(await requireSqlServer(this), {
      batch_max_bytes: 64 * 1024,
      max_retry_attempts: 20,
    });
    proxy = await startProxy(pair.into.url);
    await pair.world.control.query('UPDATE destination_servers SET connection_string = $1', [proxy.url]);
    await pair.world.start();
    await pair.create('t', 300);
    await pair.stream('t');
  });
  after(async () => {
    await pair?.close();
    await proxy?.close();
  });

  /** Ends the service's sessions in that database; throws when there is none. */
  const end = async (database: SqlServerTestDatabase) => {
    const found = await database.query(
      `SELECT session_id AS id FROM sys.dm_exec_sessions WHERE program_name LIKE N'sluice%' AND program_name <> N'sluice tests'
         AND database_id = DB_ID()`,
    );
    if (found.length === 0) throw new Error('no session');
    for (const { id } of found)
      // One that ended by itself meanwhile is as good.
      await database.query(`KILL ${Number(id)}`).catch(() => undefined);
  };

  it('F40: a deadlock at the destination: whoever is its victim, everything arrives', async () => {
    await pair.into.connection.use(async (other) => {
      const work = other.transaction(async () => {
        await other.run('hold a row', [
          ...(pair.into.server.kind === 'sqlserver' ? ['SET DEADLOCK_PRIORITY HIGH'] : []),
          `UPDATE dbo.t SET v = v WHERE id = 300`,
        ]);
        await pair.from.query(`UPDATE dbo.t SET v = N'second'`);
        // The service has written the first row, and is not done: it waits for the last one. (Taken back, because rows may be written in
        // the order in which they lie.)
        await eventually(async () => {
          const row = await pair.into
            .query(
              'SET LOCK_TIMEOUT 200; BEGIN TRANSACTION; UPDATE dbo.t SET v = v WHERE id = 1; ROLLBACK TRANSACTION; SET LOCK_TIMEOUT -1',
            )
            .catch((error: unknown) => error);
          expect(hasCode(row, 'TIMEOUT'), String(row)).to.equal(true);
        }, 30_000);
        await other.run('close the circle', [`UPDATE dbo.t SET v = v WHERE id = 1`]);
      });
      await work.catch((error: unknown) => expect(hasCode(error, 'DEADLOCK'), String(error)).to.equal(true));
    });
    await pair.equal('t');
  });

  it('F40 F42: sessions at the destination are ended, in the middle of batches and while they are idle', async () => {
    let stop = false;
    const writer = (async () => {
      for (let i = 1; !stop; i++) {
        await pair.from.query(
          `UPDATE dbo.t SET id = id + 1000, v = v + N'!' WHERE id = ${i}; INSERT INTO dbo.t VALUES (${100_000 + i}, REPLICATE(N'x', 1000))`,
        );
        await sleep(PACE_MS);
      }
    })();
    for (let round = 0; round < 4; round++) {
      await sleep(700 * round);
      await eventually(() => end(pair.into), 60_000);
    }
    stop = true;
    await writer;
    await pair.equal('t');
    await eventually(() => end(pair.into), 60_000);
    await pair.from.query(`UPDATE dbo.t SET v = v + N'?' WHERE id > 1000`);
    await pair.equal('t');
  });

  it('F41: sessions at the source are ended in the middle of the stream and of a copy', async () => {
    const copying = pair.copyAgain(1);
    for (let round = 0; round < 3; round++) {
      await pair.from.query(`UPDATE dbo.t SET v = N'round ${round}' WHERE id % 3 = ${round}`);
      await eventually(() => end(pair.from), 60_000);
    }
    await copying;
    await pair.equal('t');
  });

  it('F46: a destination that is away: the other one never waits; back in time, it has lost nothing; back when the source has discarded its changes, it is in gap', async () => {
    const { world, from } = pair;
    await pair.create('far', 10);
    await pair.create('near', 1);
    const far = await pair.stream('far');
    const near = { dest_server_id: null, dest_database: world.destination.name, dest_schema: 'public' };
    await pair.stream('near', near);
    const nearHas = (id: number) =>
      eventually(async () => {
        expect(await world.destination.query('SELECT id FROM near WHERE id = $1', [id])).to.have.length(1);
      }, 30_000);

    proxy.cut();
    await from.query(`UPDATE dbo.far SET id = -id, v = N'away' WHERE id < 5; INSERT INTO dbo.near VALUES (2, N'x')`);
    await nearHas(2);
    await from.query(`UPDATE dbo.far SET v = N'away still' WHERE id = -1; INSERT INTO dbo.near VALUES (3, N'x')`);
    await nearHas(3);
    proxy.restore();
    await pair.equal('far');
    await pair.state(far, 'streaming');

    proxy.cut();
    await from.query(`DELETE FROM dbo.far WHERE id = 7; INSERT INTO dbo.near VALUES (4, N'x')`);
    await nearHas(4);
    // The cleanup job, once the retention is over.
    await from.query(
      `DECLARE @low binary(10) = sys.fn_cdc_get_max_lsn();
       EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_far', @low_water_mark = @low`,
    );
    await from.query(`INSERT INTO dbo.near VALUES (5, N'x')`);
    await nearHas(5);
    proxy.restore();
    await pair.state(far, 'gap');
    await from.query(`INSERT INTO dbo.near VALUES (6, N'x')`);
    await nearHas(6);
    await pair.copyAgain(far);
    await pair.state(far, 'streaming');
    await pair.equal('far');
  });

  it('F40: the destination’s log is full: said, and everything arrives once it has room', async function () {
    if (pair.into.server.kind === 'babelfish') skip(this, 'Babelfish has no log of a limited size');
    const [log] = await pair.into.query(`SELECT name FROM sys.database_files WHERE type_desc = N'LOG'`);
    const limit = (size: string) =>
      pair.into.query(`ALTER DATABASE CURRENT MODIFY FILE (NAME = N'${String(log?.['name'])}', MAXSIZE = ${size})`);
    await limit('16MB');
    await pair.from.query(
      `INSERT INTO dbo.t SELECT 200000 + i, REPLICATE(CONVERT(nvarchar(max), NEWID()), 60) FROM ${numbers(10_000)} n`,
    );
    await eventually(async () => {
      expect(await pair.errorCode(1)).to.equal('SERVER_FULL');
    }, 90_000);
    await limit('UNLIMITED');
    await pair.equal('t');
  });
});
