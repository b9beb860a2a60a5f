/** MariaDB to MariaDB, and MySQL to MySQL: processes that die, and two that share the work. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChildService, expireLeases, type Failpoints } from '../support/child-service.ts';
import { requireMysql, requireMysqlItself } from '../support/mysql.ts';
import { skip } from '../support/skip.ts';
import { createMysqlPair, numbers, type MysqlPair } from '../support/mysql-pair.ts';

/** Between two transactions of a writer. */
const PACE_MS = 200;

for (const { name, require } of [
  { name: 'MariaDB', require: requireMysql },
  { name: 'MySQL', require: requireMysqlItself },
])
  describe(`${name} to ${name}: kills`, function () {
    this.timeout(180_000);
    let pair: MysqlPair;
    const services: ChildService[] = [];
    const start = async (failpoints: Failpoints = {}) => {
      await expireLeases(pair.world);
      const service = await ChildService.start(pair.world, failpoints);
      services.push(service);
      return service;
    };
    /** `service` dies by its failpoint once `change` was made. */
    const killed = async (service: ChildService, change: () => Promise<unknown>) => {
      await service.says('change stream started', 60_000);
      await change();
      expect(await service.endsWithin(90_000), service.lastWords()).to.equal(true);
      expect(await service.exited).to.equal('SIGKILL');
    };
    before(async function () {
      if (name === 'MySQL' && !process.env['SLUICE_TEST_LONG'])
        skip(this, 'MariaDB is killed in the same way: npm run test:long');
      pair = await createMysqlPair(await require(this), {
        batch_max_bytes: 64 * 1024,
        // Longer than an owner is frozen; those of the killed are let expire.
        lease_seconds: 90,
      });
    });
    afterEach(() => Promise.all(services.splice(0).map((service) => service.kill())));
    after(() => pair?.close());

    it('F01 F02 F04 F05 F06 F20 F21 F24: killed in the middle of a large transaction that moves keys and unique values, at its commit, and behind it', async () => {
      await pair.from.query('CREATE TABLE t (id int NOT NULL PRIMARY KEY, u int UNIQUE, v longtext)');
      await pair.from.query(`INSERT INTO t SELECT i, i, 'first' FROM ${numbers(200)}`);
      const first = await start({ 'stream.piece-staged': 'kill:4' });
      await pair.stream('t');
      // Every row moves twice, and its second key and unique value were another row's: pieces end between the moves.
      const large = () =>
        pair.from.connection.use((session) =>
          session.transaction('START TRANSACTION', async () => {
            await session.run('a large transaction', [
              `UPDATE t SET id = id + 1000000, u = u + 1000000, v = REPEAT('a', 1000)`,
              `INSERT INTO t SELECT 5000 + i, NULL, REPEAT('b', 1000) FROM ${numbers(200)}`,
              `UPDATE t SET id = 201 - (id - 1000000), u = 201 - (u - 1000000) WHERE id > 1000000`,
              'DELETE FROM t WHERE id > 5000 AND id % 2 = 0',
              "INSERT INTO t VALUES (5002, 77777, 'again')",
              'DELETE FROM t WHERE id = 5002',
              "INSERT INTO t VALUES (5002, 77778, 'and again')",
            ]);
          }),
        );
      await killed(first, large);
      const [pieces] = await pair.into.query('SELECT COUNT(*) AS n FROM sluice_pieces');
      expect(Number(pieces?.['n'])).to.be.greaterThan(0);
      await killed(await start({ 'stream.before-commit': 'kill:1' }), () =>
        pair.from.query("INSERT INTO t VALUES (0, 0, 'after it')"),
      );
      const [old] = await pair.into.query("SELECT COUNT(*) AS n FROM t WHERE v = 'first'");
      expect(Number(old?.['n']), 'rows of before, all of them').to.equal(200);
      await killed(await start({ 'stream.after-commit': 'kill:1' }), () => Promise.resolve());
      await pair.from.query("UPDATE t SET id = id + 20000, v = CONCAT(v, '!') WHERE id <= 20");
      await start();
      await pair.equal('t');
      expect(await pair.into.query('SELECT seq FROM sluice_pieces')).to.deep.equal([]);
    });

    it('F03 F65 F66: a copy by one process while another owns the stream, killed in its swap: nothing is lost between old and new route, and one copy is made', async function () {
      if (!process.env['SLUICE_TEST_LONG']) skip(this, 'takes long: npm run test:long');
      await pair.create('here', 1);
      await pair.create('u', 300, 'x'.repeat(500));
      const owner = await start();
      await pair.stream('here');
      // The lease of the stream stays with its owner; that of the mapping is taken while the owner cannot ask for it.
      owner.signal('SIGSTOP');
      const mapping = await pair.map('u');
      const copier = await ChildService.start(pair.world, {
        'copy.chunk-loaded': 'sleep:2000',
        'copy.swapped': 'kill:1',
      });
      services.push(copier);
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
      expect(await copier.endsWithin(90_000), copier.lastWords()).to.equal(true);
      await pair.world.control.query(
        "UPDATE leases SET expires_at = now() AT TIME ZONE 'UTC' - interval '1 second' WHERE pid = $1",
        [copier.pid],
      );
      await pair.state(mapping, 'streaming').finally(() => {
        stop = true;
      });
      await writer;
      await pair.equal('u');
      const [made] = await pair.into.query('SELECT MAX(last_generation) AS n FROM sluice_generations');
      expect(Number(made?.['n'])).to.equal(1);
      expect(
        owner.log.some((line) => line.includes('was lost to another')),
        owner.lastWords(),
      ).to.equal(false);
    });
  });
