/** From an engine to itself: servers that misbehave while rows are on their way. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { startProxy, type Proxy } from '../control/proxy.ts';
import { hasCode } from '../../src/model/errors.ts';
import type { End } from '../support/ends.ts';
import { createSameEnginePair, type EngineOfPairs, type SameEnginePair } from '../support/same-engine-pair.ts';
import { eventually } from '../support/service.ts';
import { skip } from '../support/skip.ts';

const LONG = Boolean(process.env['SLUICE_TEST_LONG']);
/** Between two transactions of the writer: what matters is that there is always one on its way. */
const PACE_MS = 50;

export function troubleSuite(under: EngineOfPairs, more?: (pairOf: () => SameEnginePair) => void): void {
  describe(`${under.name} to ${under.name}: trouble on the way`, function () {
    this.timeout(300_000);
    let pair: SameEnginePair;
    let proxy: Proxy;
    before(async function () {
      pair = await createSameEnginePair(this, under, { batch_max_bytes: 64 * 1024, max_retry_attempts: 20 });
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

    /** Ends the service's sessions; throws when there is none. */
    const end = async (database: End, listed = under.sessions(database.name)) => {
      const found = await database.query(listed);
      if (found.length === 0) throw new Error('no session');
      // One that ended by itself meanwhile is as good.
      for (const { id } of found) await database.query(under.kill(Number(id))).catch(() => undefined);
    };

    it('F40: a deadlock at the destination: whoever is its victim, everything arrives', async () => {
      const work = pair.into.held(async (run) => {
        if (pair.into.sqlServer?.server.kind === 'sqlserver') await run('SET DEADLOCK_PRIORITY HIGH');
        await run('UPDATE t SET v = v WHERE id = 300');
        await pair.from.query("UPDATE t SET v = 'second'");
        // The service has written the first row, and is not done: it waits for the last one.
        await eventually(async () => {
          const row = await pair.into.query(under.probeRow('t', 1)).catch((error: unknown) => error);
          expect(hasCode(row, 'TIMEOUT'), String(row)).to.equal(true);
        }, 30_000);
        await run('UPDATE t SET v = v WHERE id = 1');
      });
      await work.catch((error: unknown) => expect(hasCode(error, 'DEADLOCK'), String(error)).to.equal(true));
      await pair.equal('t');
    });

    it('F40 F42: sessions at the destination are ended, in the middle of batches and while they are idle', async () => {
      let stop = false;
      const writer = (async () => {
        for (let i = 1; !stop; i++) {
          await pair.from.query(`UPDATE t SET id = id + 1000, v = CONCAT(v, '!') WHERE id = ${i}`);
          await pair.from.query(`INSERT INTO t VALUES (${100_000 + i}, ${under.repeat('x', 1000)})`);
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
        const { logReaders } = under;
        if (logReaders !== undefined) await eventually(() => end(pair.from, logReaders), 60_000);
      }
      await copying;
      await pair.equal('t');
    });

    it('F46: a destination that is away: the other one never waits; back in time, it has lost nothing; back when the source has discarded its changes, it is in gap', async function () {
      if (!LONG && !under.discard) skip(this, 'takes long: npm run test:long');
      const { world, from } = pair;
      await pair.create('far', 10);
      await pair.create('near', 1);
      const far = await pair.stream('far');
      await pair.stream('near', {
        dest_server_id: null,
        dest_database: world.destination.name,
        ...(pair.into.asDestination['dest_schema'] === undefined ? {} : { dest_schema: 'public' }),
      });
      const nearGets = async (id: number) => {
        await from.query(`INSERT INTO near VALUES (${id}, 'x')`);
        await eventually(async () => {
          expect(await world.destination.query('SELECT id FROM near WHERE id = $1', [id])).to.have.length(1);
        }, 30_000);
      };
      proxy.cut();
      await from.query("UPDATE far SET id = -id, v = 'away' WHERE id < 5");
      await nearGets(2);
      await from.query("UPDATE far SET v = 'away still' WHERE id = -1");
      await nearGets(3);
      proxy.restore();
      await pair.equal('far');
      await pair.state(far, 'streaming');
      if (!under.discard) return;

      proxy.cut();
      await from.query('DELETE FROM far WHERE id = 7');
      await nearGets(4);
      await from.query(under.discard('far'));
      await nearGets(5);
      proxy.restore();
      await pair.state(far, 'gap');
      await nearGets(6);
      await pair.copyAgain(far);
      await pair.state(far, 'streaming');
      await pair.equal('far');
    });

    const { shortLockWait } = under;
    if (shortLockWait !== undefined)
      it('F44 F49: a reader of the destination never sees half of a transaction, and the source’s writers never wait for a copy', async function () {
        if (!LONG) skip(this, 'takes long: npm run test:long');
        const sides = ['left_side', 'right_side'];
        for (const table of sides) {
          await pair.from.query(`CREATE TABLE ${table} (id int NOT NULL PRIMARY KEY, n int NOT NULL)`);
          await pair.from.query(`INSERT INTO ${table} SELECT i, 100 FROM ${under.numbers(50)}`);
          await pair.from.capture(table);
        }
        for (const table of sides) await pair.stream(table);
        for (const table of sides) await pair.equal(table);
        let stop = false;
        const writer = (async () => {
          for (let i = 0; !stop; i++)
            await pair.from.transaction(
              shortLockWait,
              `UPDATE left_side SET n = n - 1 WHERE id = ${(i % 50) + 1}`,
              `UPDATE right_side SET n = n + 1 WHERE id = ${((i * 7) % 50) + 1}`,
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
        for (const table of sides) await pair.equal(table);
      });

    more?.(() => pair);
  });
}
