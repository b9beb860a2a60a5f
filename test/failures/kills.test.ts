/** From an engine to itself: processes that die, and two that share the work. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChildServices, type ChildService, type Failpoints } from '../support/child-service.ts';
import {
  createSameEnginePair,
  MARIADB,
  MYSQL_ITSELF,
  SQL_SERVER,
  type SameEnginePair,
} from '../support/same-engine-pair.ts';
import { skip } from '../support/skip.ts';

const LONG = Boolean(process.env['SLUICE_TEST_LONG']);
/** Between two transactions of a writer. */
const PACE_MS = 200;

// MySQL is killed as MariaDB is.
for (const under of LONG ? [MARIADB, MYSQL_ITSELF, SQL_SERVER] : [MARIADB, SQL_SERVER])
  describe(`${under.name} to ${under.name}: kills`, function () {
    this.timeout(300_000);
    let pair: SameEnginePair;
    const services = new ChildServices();
    const start = (failpoints?: Failpoints) => services.start(pair.world, failpoints);
    /** `service` dies by its failpoint once `change` was made. */
    const killed = async (service: ChildService, change: () => Promise<unknown>) => {
      await service.says('change stream started', 60_000);
      await change();
      expect(await service.endsWithin(90_000), service.lastWords()).to.equal(true);
      expect(await service.exited).to.equal('SIGKILL');
    };
    before(async function () {
      pair = await createSameEnginePair(this, under, {
        batch_max_bytes: 64 * 1024,
        // Longer than an owner is frozen; those of the killed are let expire.
        lease_seconds: 90,
      });
    });
    afterEach(() => services.killAll());
    after(() => pair?.close());
    const count = async (condition: string) => {
      const [row] = await pair.into.query(`SELECT COUNT(*) AS n FROM ${condition}`);
      return Number(row?.['n']);
    };

    it('F01 F02 F04 F05 F06 F20 F21 F22 F24: killed in the middle of a large transaction that moves keys and unique values, applied and staged, at its commit, and behind it', async () => {
      const { from, into } = pair;
      await from.query(`CREATE TABLE t (id int NOT NULL PRIMARY KEY, u int NOT NULL UNIQUE, v ${from.words.text})`);
      await from.query(`INSERT INTO t SELECT i, i, 'first' FROM ${under.numbers(200)}`);
      await from.capture('t');
      const first = await start({ 'stream.part-applied': 'kill:4' });
      await pair.stream('t');
      // Every row moves twice, and its second key and unique value were another row's: pieces end between the moves.
      const large = () =>
        from.transaction(
          `UPDATE t SET id = id + 1000000, u = u + 1000000, v = ${under.repeat('a', 1000)}`,
          `INSERT INTO t SELECT 5000 + i, 5000 + i, ${under.repeat('b', 1000)} FROM ${under.numbers(200)}`,
          'UPDATE t SET id = 201 - (id - 1000000), u = 201 - (u - 1000000) WHERE id > 1000000',
          'DELETE FROM t WHERE id > 5000 AND id % 2 = 0',
          "INSERT INTO t VALUES (5002, 77777, 'again')",
          'DELETE FROM t WHERE id = 5002',
          "INSERT INTO t VALUES (5002, 77778, 'and again')",
        );
      await killed(first, large);
      const pieces = into.home('pieces');
      expect(await count(pieces)).to.equal(0);
      expect(await count("t WHERE v = 'first'"), 'rows of before, all of them').to.equal(200);
      const staged = { 'stream.part-applied': 'error:3', 'stream.piece-staged': 'kill:4' };
      await killed(await start(staged), () => Promise.resolve());
      expect(await count(pieces)).to.be.greaterThan(0);
      await killed(await start({ 'stream.before-commit': 'kill:1' }), () =>
        from.query("INSERT INTO t VALUES (0, 0, 'after it')"),
      );
      expect(await count("t WHERE v = 'first'"), 'rows of before, all of them').to.equal(200);
      await killed(await start({ 'stream.after-commit': 'kill:1' }), () => Promise.resolve());
      await from.query("UPDATE t SET id = id + 20000, v = CONCAT(v, '!') WHERE id <= 20");
      await start();
      await pair.equal('t');
      expect(await count(pieces)).to.equal(0);
    });

    it(`${LONG ? 'F03 F08 F65 F66' : 'F65'}: a copy by one process while another owns the stream${LONG ? ', killed in its swap' : ''}: nothing is lost between old and new route, and one copy is made`, async function () {
      if (!LONG && under === SQL_SERVER) skip(this, 'in the contract suite always: npm run test:long');
      await pair.create('here', 1);
      await pair.create('u', 300, 'x'.repeat(500));
      const owner = await start();
      await pair.stream('here');
      // The lease of the stream stays with its owner; that of the mapping is taken while the owner cannot ask for it.
      owner.signal('SIGSTOP');
      const mapping = await pair.map('u');
      const copier = await services.startBeside(pair.world, {
        'copy.chunk-loaded': 'sleep:2000',
        ...(LONG ? { 'copy.swapped': 'kill:1' } : {}),
      });
      await copier.says('full sync started', 30_000);
      owner.signal('SIGCONT');
      let stop = false;
      const writer = (async () => {
        for (let i = 1; !stop; i++) {
          await pair.from.query(`UPDATE u SET v = 'changed ${i}' WHERE id % 97 = ${i % 97}`);
          await pair.from.query(`UPDATE u SET id = -id WHERE id = ${i}`);
          await sleep(PACE_MS);
        }
      })();
      try {
        if (LONG) {
          expect(await copier.endsWithin(90_000), copier.lastWords()).to.equal(true);
          await pair.world.control.query(
            "UPDATE leases SET expires_at = now() AT TIME ZONE 'UTC' - interval '1 second' WHERE pid = $1",
            [copier.pid],
          );
        }
        await pair.state(mapping, 'streaming');
      } finally {
        stop = true;
        await writer;
      }
      await pair.equal('u');
      if (!LONG) expect(copier.count('full sync completed'), copier.lastWords()).to.equal(1);
      expect(copier.count('change stream started'), copier.lastWords()).to.equal(0);
      const [made] = await pair.into.query(`SELECT MAX(last_generation) AS n FROM ${pair.into.home('generations')}`);
      expect(Number(made?.['n'])).to.equal(1);
      expect(owner.count('was lost to another'), owner.lastWords()).to.equal(0);
    });
  });
