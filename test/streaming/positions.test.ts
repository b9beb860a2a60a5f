/** Where the stream stands after a kill: nothing lost, nothing done twice, nothing forgotten by the source too early. */
import { expect } from 'chai';
import { audit, repeats } from '../crash/audit.ts';
import { ChildServices, type Failpoints } from '../support/child-service.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

describe('positions and kills', function () {
  this.timeout(60_000);
  let world: World;
  const services = new ChildServices();

  const start = (failpoints?: Failpoints) => services.start(world, failpoints);
  /** Table t, streamed and audited; the process that copied it is gone. */
  const streamed = async () => {
    await world.source.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
    await world.source.query(`INSERT INTO t SELECT i, 'first' FROM generate_series(1, 200) i`);
    const first = await start();
    await world.state(await world.map('t'), 'streaming', 30);
    await first.kill();
    await audit(world.destination, 't');
  };
  const killed = async (failpoints: Failpoints, change: () => Promise<unknown>) => {
    const service = await start(failpoints);
    await service.says('change stream started');
    await change();
    expect(await service.endsWithin(15_000), service.lastWords()).to.equal(true);
    expect(await service.exited).to.equal('SIGKILL');
  };

  beforeEach(async () => {
    world = await createWorld({ batch_max_bytes: 64 * 1024 });
  });
  afterEach(async () => {
    await services.killAll();
    await world.close();
  });

  it('F01: killed after the destination’s commit, before anybody else knows: no loss, no repeat', async () => {
    await streamed();
    await killed({ 'stream.after-commit': 'kill:1' }, () =>
      world.source.query(`UPDATE t SET v = 'second', id = id + 1000 WHERE id <= 20`),
    );
    await world.source.query(`UPDATE t SET id = id - 1000, v = 'third' WHERE id > 1000`);
    await start();
    await equal(world, 't');
    expect(await repeats(world.destination)).to.deep.equal([]);
  });

  it('F04 F05 F06: killed in the middle of a large transaction with key changes, then at its commit', async () => {
    await streamed();
    const large = async () => {
      const client = await world.source.connect();
      await client.query('BEGIN');
      // Every row moves twice, and its second key was another row's: pieces end between the moves.
      await client.query(`UPDATE t SET id = id + 1000000, v = repeat('a', 2000)`);
      await client.query(`INSERT INTO t SELECT 5000 + i, repeat('b', 2000) FROM generate_series(1, 200) i`);
      await client.query(`UPDATE t SET id = 201 - (id - 1000000) WHERE id > 1000000`);
      await client.query(`DELETE FROM t WHERE id > 5000 AND id % 2 = 0`);
      await client.query('COMMIT');
    };
    // Applied as it is read, which is undone, then staged.
    await killed({ 'stream.part-applied': 'error:2', 'stream.piece-staged': 'kill:4' }, large);
    const [pieces] = await world.destination.query<{ n: number }>('SELECT count(*)::int AS n FROM sluice.pieces');
    expect(pieces?.n).to.be.greaterThan(0);
    await killed({ 'stream.before-commit': 'kill:1' }, () =>
      world.source.query(`INSERT INTO t VALUES (0, 'after it')`),
    );
    const [row] = await world.destination.query<{ n: number }>(`SELECT count(*)::int AS n FROM t WHERE v = 'first'`);
    expect(row?.n, 'rows of before, all of them').to.equal(200);
    await start();
    await equal(world, 't');
    expect(await repeats(world.destination)).to.deep.equal([]);
    const left = await world.destination.query('SELECT seq FROM sluice.pieces');
    expect(left).to.deep.equal([]);
  });

  it('F02: the source is never told a position that the destination has not stored', async () => {
    await streamed();
    let stop = false;
    let checks = 0;
    const wrong: string[] = [];
    const source = await world.source.connect();
    const destination = await world.destination.connect();
    const watch = (async () => {
      while (!stop) {
        // The slot first: what it was told must have been stored before.
        const { rows: slots } = await source.query<{ lsn: string }>(
          `SELECT (confirmed_flush_lsn - '0/0')::text AS lsn FROM pg_replication_slots WHERE database = current_database()`,
        );
        const { rows: stored } = await destination.query<{ position: string }>('SELECT position FROM sluice.positions');
        const told = BigInt(slots[0]?.lsn ?? '0');
        const has = BigInt(`0x${stored[0]?.position.split(':')[3] ?? '0'}`);
        if (told > has) wrong.push(`told ${told}, stored ${has}`);
        checks++;
      }
    })();
    let n = 0;
    for (const failpoint of ['stream.before-commit', 'stream.after-acknowledge'] as const) {
      await killed({ [failpoint]: 'kill:3' }, async () => {
        for (let i = 0; i < 15; i++) await world.source.query(`INSERT INTO t VALUES ($1, 'x')`, [1000 + n++]);
      });
    }
    await start();
    await equal(world, 't');
    stop = true;
    await watch;
    expect(wrong).to.deep.equal([]);
    expect(checks).to.be.greaterThan(50);
  });

  it('F03: killed in a full copy: the position was stored before the first row, the copy goes on, nothing is lost', async () => {
    await world.control.query(`UPDATE config SET config_value = '1048576' WHERE config_key = 'copy_chunk_bytes'`);
    await world.source.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
    await world.source.query(`INSERT INTO t SELECT i, repeat('x', 900) FROM generate_series(1, 6000) i`);
    await world.map('t');
    await killed({ 'copy.opened': 'kill' }, async () => undefined);
    const [stored] = await world.destination.query('SELECT position FROM sluice.positions');
    expect(stored, 'a position').to.not.equal(undefined);
    // What happens while nobody reads belongs to the copy: behind chunks that are in and before others.
    const change = async (round: number) => {
      await world.source.query(`UPDATE t SET v = 'changed in round ${round}' WHERE id % 10 = ${round}`);
      await world.source.query(`UPDATE t SET id = id + 100000 WHERE id % 10 = ${round} AND id < 3000`);
      await world.source.query(`DELETE FROM t WHERE id % 100 = ${50 + round}`);
    };
    await change(1);
    await killed({ 'copy.chunk-loaded': 'kill:2' }, async () => undefined);
    const chunks = await world.destination.query('SELECT chunk FROM sluice.chunks');
    expect(chunks.length).to.be.greaterThan(0);
    await change(2);
    await killed({ 'copy.key-built': 'kill' }, async () => undefined);
    await change(3);
    await killed({ 'copy.folded': 'kill' }, async () => undefined);
    await change(4);
    const last = await start();
    await eventually(() => equal(world, 't', 't', 100), 30_000);
    expect(last.log.some((line) => line.includes('resumed=true'))).to.equal(true);
  });
});
