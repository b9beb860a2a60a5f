import { expect } from 'chai';
import { thisProcess, type ControlDatabase } from '../../src/control/index.ts';
import { onControlServers } from './servers.ts';
import { createControl, type TestControl } from './support.ts';

onControlServers('control: leases and epochs', (server) => {
  let test: TestControl;
  const realNow = Date.now;
  beforeEach(async () => {
    test = await createControl(server);
  });
  afterEach(async () => {
    Date.now = realNow;
    await test.drop();
  });
  /** As if that much time had passed for the database. */
  const age = (seconds: number) =>
    test.query(`UPDATE leases SET expires_at = ${server.sql.shift('expires_at', -seconds)}`);

  it('F50 ten processes ask at once: one gets it, every time', async () => {
    const processes: ControlDatabase[] = await Promise.all(Array.from({ length: 10 }, () => test.second()));
    for (let round = 0; round < 3; round++) {
      // The first time the row is made, later an expired one is taken over.
      const answers = await Promise.all(processes.map((each) => each.leases.acquire('stream:1', thisProcess(), 15)));
      expect(answers.filter((lease) => lease !== null)).to.have.length(1);
      await age(60);
    }
  });

  it('is held against others until it expires, by the database’s clock, then taken over', async () => {
    const [first, second] = [thisProcess(), thisProcess()];
    const { leases } = test.control;
    expect(await leases.acquire('k', first, 15)).to.have.property('key', 'k');
    expect(await leases.acquire('k', second, 15)).to.equal(null);
    expect(await leases.acquire('k', first, 15), 'again by its holder').to.not.equal(null);
    await age(14);
    expect(await leases.acquire('k', second, 15)).to.equal(null);
    await age(2);
    expect((await leases.list())[0]).to.deep.include({ key: 'k', owner: first, expired: true });
    expect(await leases.acquire('k', second, 15)).to.not.equal(null);
    expect((await leases.list())[0]).to.deep.include({ owner: second, expired: false });
    expect(await leases.renew(['k'], first, 15), 'the first one has lost it').to.deep.equal([]);
    await leases.release('k', first);
    expect(await leases.acquire('k', first, 15), 'its release frees nothing of the second’s').to.equal(null);
  });

  it('renews many at once and names those that are lost', async () => {
    const owner = thisProcess();
    const { leases } = test.control;
    for (const key of ['a', 'b', 'c']) await leases.acquire(key, owner, 15);
    await test.query(`UPDATE leases SET expires_at = ${server.sql.shift('expires_at', -60)} WHERE lease_key = 'b'`);
    const kept = await leases.renew(['a', 'b', 'c', 'never'], owner, 30);
    expect(kept.map((lease) => lease.key).sort()).to.deep.equal(['a', 'c']);
    const [row] = await test.query<{ seconds_left: string | number }>(
      `SELECT ${server.sql.secondsUntil('expires_at')} AS seconds_left FROM leases WHERE lease_key = 'a'`,
    );
    expect(Number(row?.seconds_left)).to.be.within(25, 30);
    await leases.releaseAll(owner);
    expect(await leases.list()).to.deep.equal([]);
  });

  it('F56 the process’s clock may jump a day back or forward: nothing changes', async () => {
    const [first, second] = [thisProcess(), thisProcess()];
    const { leases } = test.control;
    for (const day of [-86_400_000, 86_400_000]) {
      Date.now = () => realNow() + day;
      const key = `k${day}`;
      const lease = await leases.acquire(key, first, 15);
      const left = (lease?.validUntil ?? 0) - performance.now();
      expect(left).to.be.within(10_000, 15_000);
      expect(await leases.acquire(key, second, 15)).to.equal(null);
      expect(await leases.renew([key], first, 15)).to.have.length(1);
    }
    Date.now = realNow;
    expect((await leases.list()).map((each) => each.expired)).to.deep.equal([false, false]);
  });

  it('what the holder may believe ends before the database lets others in', async () => {
    const asked = performance.now();
    const lease = await test.control.leases.acquire('k', thisProcess(), 15);
    expect(lease?.validUntil).to.be.within(asked + 15_000, performance.now() + 15_000);
    const [row] = await test.query<{ seconds_left: string | number }>(
      `SELECT ${server.sql.secondsUntil('expires_at')} AS seconds_left FROM leases`,
    );
    const believed = (lease?.validUntil ?? Infinity) - performance.now();
    expect(believed).to.be.below(Number(row?.seconds_left) * 1000 + 1);
  });

  it('draws every epoch once, above the one stored at the destination, from many processes', async () => {
    const others = await Promise.all(Array.from({ length: 4 }, () => test.second()));
    const drawn = await Promise.all(
      Array.from({ length: 40 }, (_, index) => others[index % 4]?.leases.drawEpoch(index % 7) ?? Promise.resolve(-1)),
    );
    expect(new Set(drawn).size).to.equal(40);
    expect(Math.min(...drawn)).to.be.greaterThan(0);
    // The control database was restored to an earlier day; the destination has seen more.
    expect(await test.control.leases.drawEpoch(1_000_000)).to.equal(1_000_001);
    expect(await test.control.leases.drawEpoch(5)).to.equal(1_000_002);
  });

  it('records the epoch with the lease, and forgets it when another takes over', async () => {
    const [first, second] = [thisProcess(), thisProcess()];
    const { leases } = test.control;
    await leases.acquire('k', first, 15);
    const epoch = await leases.drawEpoch(0, { key: 'k', owner: first });
    expect((await leases.list())[0]?.epoch).to.equal(epoch);
    await age(60);
    await leases.acquire('k', second, 15);
    expect((await leases.list())[0]?.epoch).to.equal(null);
    // F09: the first was frozen and goes on; an epoch above its successor's would take the stream away again.
    const refused = await leases.drawEpoch(0, { key: 'k', owner: first }).catch((error: unknown) => error);
    expect(refused).to.have.property('code', 'FENCED');
  });
});
