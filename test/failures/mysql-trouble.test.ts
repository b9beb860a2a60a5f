/** MariaDB to MariaDB: servers that misbehave while rows are on their way. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { startProxy, type Proxy } from '../control/proxy.ts';
import { hasCode } from '../../src/model/errors.ts';
import { eventually } from '../support/service.ts';
import { requireMysql, type MysqlTestDatabase } from '../support/mysql.ts';
import { skip } from '../support/skip.ts';
import { createMysqlPair, numbers, type MysqlPair } from '../support/mysql-pair.ts';

/** Between two transactions of the writer: what matters is that there is always one on its way. */
const PACE_MS = 50;

describe('MariaDB to MariaDB: trouble on the way', function () {
  this.timeout(120_000);
  let pair: MysqlPair;
  let proxy: Proxy;
  before(async function () {
    pair = await createMysqlPair(await requireMysql(this), { batch_max_bytes: 64 * 1024, max_retry_attempts: 20 });
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

  /** Ends the service's sessions in that database; throws when there is none. Of the server: those that read its log. */
  const end = async (database: MysqlTestDatabase, of: 'database' | 'server' = 'database') => {
    const found = await database.query(
      "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE IF(?, DB = ?, COMMAND LIKE 'Binlog Dump%') AND ID <> CONNECTION_ID()",
      [of === 'database' ? 1 : 0, database.name],
    );
    if (found.length === 0) throw new Error('no session');
    // One that ended by itself meanwhile is as good.
    for (const { id } of found) await database.query(`KILL CONNECTION ${Number(id)}`).catch(() => undefined);
  };

  it('F40: a deadlock at the destination: whoever is its victim, everything arrives', async () => {
    await pair.into.connection.use(async (other) => {
      const work = other.transaction('START TRANSACTION', async () => {
        await other.run('hold a row', ['UPDATE t SET v = v WHERE id = 300']);
        await pair.from.query("UPDATE t SET v = 'second'");
        // The service has written the first row, and is not done: it waits for the last one.
        await eventually(async () => {
          const row = await pair.into
            .query('SELECT id FROM t WHERE id = 1 FOR UPDATE NOWAIT')
            .catch((error: unknown) => error);
          expect(hasCode(row, 'TIMEOUT'), String(row)).to.equal(true);
        }, 30_000);
        await other.run('close the circle', ['UPDATE t SET v = v WHERE id = 1']);
      });
      await work.catch((error: unknown) => expect(hasCode(error, 'DEADLOCK'), String(error)).to.equal(true));
    });
    await pair.equal('t');
  });

  it('F40 F42: sessions at the destination are ended, in the middle of batches and while they are idle', async () => {
    let stop = false;
    const writer = (async () => {
      for (let i = 1; !stop; i++) {
        await pair.from.query(`UPDATE t SET id = id + 1000, v = CONCAT(v, '!') WHERE id = ${i}`);
        await pair.from.query(`INSERT INTO t VALUES (${100_000 + i}, REPEAT('x', 1000))`);
        await sleep(PACE_MS);
      }
    })();
    for (let round = 0; round < 3; round++) {
      await sleep(500 * round);
      await eventually(() => end(pair.into), 60_000);
    }
    stop = true;
    await writer;
    await pair.equal('t');
    await eventually(() => end(pair.into), 60_000);
    await pair.from.query("UPDATE t SET v = CONCAT(v, '?') WHERE id > 1000");
    await pair.equal('t');
  });

  it('F41: sessions at the source are ended in the middle of the stream and of a copy', async () => {
    const copying = pair.copyAgain(1);
    for (let round = 0; round < 3; round++) {
      await pair.from.query(`UPDATE t SET v = 'round ${round}' WHERE id % 3 = ${round}`);
      await eventually(() => end(pair.from), 60_000);
      await eventually(() => end(pair.from, 'server'), 60_000);
    }
    await copying;
    await pair.equal('t');
  });

  it('F46: a destination that is away: the other one never waits; back in time, it has lost nothing', async function () {
    if (!process.env['SLUICE_TEST_LONG']) skip(this, 'takes long: npm run test:long');
    const { world, from } = pair;
    await pair.create('far', 10);
    await pair.create('near', 1);
    const far = await pair.stream('far');
    await pair.stream('near', { dest_server_id: null, dest_database: world.destination.name });
    const nearHas = (id: number) =>
      eventually(async () => {
        expect(await world.destination.query('SELECT id FROM near WHERE id = $1', [id])).to.have.length(1);
      }, 30_000);
    proxy.cut();
    await from.query("UPDATE far SET id = -id, v = 'away' WHERE id < 5");
    await from.query("INSERT INTO near VALUES (2, 'x')");
    await nearHas(2);
    await from.query("UPDATE far SET v = 'away still' WHERE id = -1");
    await from.query("INSERT INTO near VALUES (3, 'x')");
    await nearHas(3);
    proxy.restore();
    await pair.equal('far');
    await pair.state(far, 'streaming');
  });

  it('F44 F49: a reader of the destination never sees half of a transaction, and the source’s writers never wait for a copy', async function () {
    if (!process.env['SLUICE_TEST_LONG']) skip(this, 'takes long: npm run test:long');
    for (const table of ['left_side', 'right_side'])
      await pair.from.query(`CREATE TABLE ${table} (id int NOT NULL PRIMARY KEY, n int NOT NULL)`);
    for (const table of ['left_side', 'right_side'])
      await pair.from.query(`INSERT INTO ${table} SELECT i, 100 FROM ${numbers(50)}`);
    await pair.stream('left_side');
    await pair.stream('right_side');
    await pair.equal('left_side');
    await pair.equal('right_side');
    let stop = false;
    const writer = (async () => {
      for (let i = 0; !stop; i++)
        await pair.from.connection.use((session) =>
          session.transaction('START TRANSACTION', async () => {
            await session.run('move', [
              'SET SESSION innodb_lock_wait_timeout = 1',
              `UPDATE left_side SET n = n - 1 WHERE id = ${(i % 50) + 1}`,
              `UPDATE right_side SET n = n + 1 WHERE id = ${((i * 7) % 50) + 1}`,
            ]);
          }),
        );
    })();
    try {
      for (let look = 0; look < 100; look++) {
        const [row] = await pair.into.query(
          'SELECT (SELECT SUM(n) FROM left_side) + (SELECT SUM(n) FROM right_side) AS total',
        );
        expect(Number(row?.['total'])).to.equal(10_000);
        await sleep(10);
      }
      await pair.copyAgain(1);
    } finally {
      stop = true;
      await writer;
    }
    await pair.equal('left_side');
    await pair.equal('right_side');
  });
});
