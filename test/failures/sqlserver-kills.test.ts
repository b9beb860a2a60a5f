/** SQL Server to SQL Server: processes that die, and two that share the work. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChildService, expireLeases, type Failpoints } from '../support/child-service.ts';
import { requireSqlServer } from '../support/sqlserver.ts';
import { createSqlServerPair, numbers, type SqlServerPair } from '../support/sqlserver-pair.ts';

/** Between two transactions of a writer. */
const PACE_MS = 200;

describe('SQL Server to SQL Server: kills', function () {
  this.timeout(300_000);
  let pair: SqlServerPair;
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
    pair = await createSqlServerPair(await requireSqlServer(this), {
      batch_max_bytes: 64 * 1024,
      // Longer than an owner is frozen; those of the killed are let expire.
      lease_seconds: 90,
    });
  });
  afterEach(() => Promise.all(services.splice(0).map((service) => service.kill())));
  after(() => pair?.close());

  it('F01 F02 F04 F05 F06 F20 F22: killed in the middle of a large transaction with key changes, at its commit, and behind it', async () => {
    await pair.create('t', 200);
    const first = await start({ 'stream.piece-staged': 'kill:4' });
    await pair.stream('t');
    // Every row moves twice, and its second key was another row's: pieces end between the moves.
    const large = () =>
      pair.from.connection.use((session) =>
        session.transaction(async () => {
          await session.run('a large transaction', [
            `UPDATE dbo.t SET id = id + 1000000, v = REPLICATE(N'a', 1000)`,
            `INSERT INTO dbo.t SELECT 5000 + i, REPLICATE(N'b', 1000) FROM ${numbers(200)} n`,
            `UPDATE dbo.t SET id = 201 - (id - 1000000) WHERE id > 1000000`,
            `DELETE FROM dbo.t WHERE id > 5000 AND id % 2 = 0`,
          ]);
        }),
      );
    await killed(first, large);
    const [pieces] = await pair.into.query('SELECT COUNT(*) AS n FROM sluice.pieces');
    expect(pieces?.['n']).to.be.greaterThan(0);
    await killed(await start({ 'stream.before-commit': 'kill:1' }), () =>
      pair.from.query(`INSERT INTO dbo.t VALUES (0, N'after it')`),
    );
    const [old] = await pair.into.query(`SELECT COUNT(*) AS n FROM dbo.t WHERE v = N'first'`);
    expect(old?.['n'], 'rows of before, all of them').to.equal(200);
    await killed(await start({ 'stream.after-commit': 'kill:1' }), () => Promise.resolve());
    await pair.from.query(`UPDATE dbo.t SET id = id + 20000, v = v + N'!' WHERE id <= 20`);
    await start();
    await pair.equal('t');
    expect(await pair.into.query('SELECT seq FROM sluice.pieces')).to.deep.equal([]);
  });

  it('F65: a copy by one process while another owns the stream: nothing is lost between old and new route', async () => {
    await pair.create('here', 1);
    await pair.create('u', 300, 'x'.repeat(500));
    const owner = await start();
    await pair.stream('here');
    // The lease of the stream stays with its owner; that of the mapping is taken while the owner cannot ask for it.
    owner.signal('SIGSTOP');
    const mapping = await pair.map('u');
    const copier = await ChildService.start(pair.world, { 'copy.chunk-loaded': 'sleep:2000' });
    services.push(copier);
    await copier.says('full sync started', 30_000);
    owner.signal('SIGCONT');
    let stop = false;
    const writer = (async () => {
      for (let i = 1; !stop; i++) {
        await pair.from.query(
          `UPDATE dbo.u SET v = N'changed ${i}' WHERE id % 97 = ${i % 97}; UPDATE dbo.u SET id = -id WHERE id = ${i}`,
        );
        await sleep(PACE_MS);
      }
    })();
    await pair.state(mapping, 'streaming').finally(() => {
      stop = true;
    });
    await writer;
    await pair.equal('u');
    const said = (service: ChildService, what: string) => service.log.some((line) => line.includes(what));
    expect(said(copier, 'full sync completed'), copier.lastWords()).to.equal(true);
    expect(said(copier, 'change stream started'), copier.lastWords()).to.equal(false);
    expect(said(owner, 'was lost to another'), owner.lastWords()).to.equal(false);
  });
});
