/** Several processes: frozen owners, successors, copies beside streams. Real processes, stopped and continued by signals. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChildService, expireLeases } from '../support/child-service.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';
import { audit, repeats } from './audit.ts';

describe('owners of a stream', function () {
  this.timeout(90_000);
  let world: World;
  const services: ChildService[] = [];
  const start = async (failpoints = {}) => {
    const service = await ChildService.start(world, failpoints);
    services.push(service);
    return service;
  };

  beforeEach(async () => {
    world = await createWorld();
    await world.source.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
    await world.source.query(`INSERT INTO t SELECT i, 'first' FROM generate_series(1, 100) i`);
  });
  afterEach(async () => {
    await Promise.all(services.splice(0).map((service) => service.kill()));
    await world.close();
  });

  it('F09: an owner frozen in the middle of a commit, past its lease: another takes over, its write is refused', async () => {
    // Each commit of the first owner waits, its transaction complete: long enough to be frozen there.
    const first = await start({ 'stream.before-commit': 'sleep:1500' });
    await world.state(await world.map('t'), 'streaming', 40);
    await audit(world.destination, 't');
    await world.source.query(`UPDATE t SET v = 'second' WHERE id <= 50`);
    await eventually(async () => {
      const open = await world.destination.query(
        `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'
          AND pid IN (SELECT pid FROM pg_locks WHERE relation = 't'::regclass AND mode = 'RowExclusiveLock')`,
      );
      if (open.length === 0) throw new Error('no commit is under way');
    });
    first.signal('SIGSTOP');
    await expireLeases(world, first);
    const second = await start();
    await equal(world, 't', 't', 40_000);
    first.signal('SIGCONT');
    await first.says('newer owner');
    await world.source.query(`UPDATE t SET v = 'third' WHERE id > 90`);
    await equal(world, 't');
    expect(await repeats(world.destination)).to.deep.equal([]);
    expect(second.isOver).to.equal(false);
  });

  it('F63: an owner frozen after it read its position, thawed after its successor read the same one: refused', async () => {
    const rest = 3000;
    const first = await start({ 'stream.after-commit': `sleep:${rest}` });
    await world.state(await world.map('t'), 'streaming', 40);
    await audit(world.destination, 't');
    await world.source.query(`UPDATE t SET v = 'second' WHERE id = 1`);
    await equal(world, 't');
    // It rests after its commit. These it has received, and will write as soon as it goes on.
    await world.source.query(`UPDATE t SET v = 'third', id = id + 1000 WHERE id <= 10`);
    await eventually(async () => {
      const [row] = await world.source.query(
        `SELECT 1 FROM pg_stat_replication WHERE application_name LIKE 'sluice%' AND sent_lsn >= pg_current_wal_flush_lsn()`,
      );
      if (!row) throw new Error('not sent yet');
    });
    await sleep(100);
    first.signal('SIGSTOP');
    const frozenAt = Date.now();
    await expireLeases(world, first);
    const second = await start({ 'stream.before-commit': 'sleep:300' });
    await second.says('change stream started');
    await eventually(async () => {
      const [row] = await world.destination.query<{ epoch: string }>('SELECT epoch FROM sluice.positions');
      if (Number(row?.epoch) < 2) throw new Error('not taken over yet');
    });
    // Its rest is over by then: the first thing it does is to write.
    await sleep(Math.max(0, frozenAt + rest - Date.now()));
    first.signal('SIGCONT');
    // The refusal, or its renewal that comes too late, whichever is answered first.
    await Promise.any([first.says('newer owner'), first.says('lost to another process')]);
    await equal(world, 't', 't', 40_000);
    await world.source.query(`UPDATE t SET id = id - 1000 WHERE id > 1000`);
    await equal(world, 't');
    expect(await repeats(world.destination)).to.deep.equal([]);
  });

  it('F65: a copy by one process while another owns the stream: nothing is lost between old and new route', async () => {
    await world.source.query(`CREATE TABLE u (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO u SELECT i, repeat('x', 500) FROM generate_series(1, 8000) i`);
    await world.control.query(`UPDATE config SET config_value = '1048576' WHERE config_key = 'copy_chunk_bytes'`);
    const owner = await start();
    await world.state(await world.map('t'), 'streaming', 40);
    // The copier cannot own the stream. Its lease on the mapping is taken while the owner cannot ask for it.
    const mapping = await world.map('u');
    owner.signal('SIGSTOP');
    const copier = await start({ 'copy.chunk-loaded': 'sleep:400' });
    await copier.says('full sync started', 15_000).catch(() => undefined);
    owner.signal('SIGCONT');
    let stop = false;
    const writer = (async () => {
      for (let i = 0; !stop; i++) {
        await world.source.query(`UPDATE u SET v = 'changed ${i}' WHERE id % 97 = ${i % 97}`);
        await world.source.query(`UPDATE u SET id = -id WHERE id = ${i}`);
      }
    })();
    await world.state(mapping, 'streaming', 40);
    stop = true;
    await writer;
    await equal(world, 'u');
    expect(copier.log.some((line) => line.includes('full sync completed'))).to.equal(true);
    expect(owner.log.some((line) => line.includes('full sync completed') && line.includes('(u)'))).to.equal(false);
  });
});
