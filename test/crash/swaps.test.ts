/** Kills around the swap of a full sync, and what the control tables and the destination say afterwards. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChildServices, type Failpoints } from '../support/child-service.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

const FLIP_POINTS = ['stream.after-commit', 'request.created', 'trigger.reset'] as const;

describe('kills around the swap', function () {
  this.timeout(60_000);
  let world: World;
  let mapping: number;
  const services = new ChildServices();
  const start = (failpoints?: Failpoints) => services.start(world, failpoints);
  const ask = () => world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
  const generation = async () => {
    const [row] = await world.destination.query<{ last_generation: number }>(
      'SELECT last_generation FROM sluice.generations',
    );
    return row?.last_generation ?? 0;
  };
  const done = () =>
    eventually(async () => {
      const open = await world.control.query(
        `SELECT status FROM full_sync_requests WHERE status IN ('queued', 'running')
         UNION ALL SELECT 'flag' FROM table_mappings WHERE is_full_sync = 1`,
      );
      if (open.length > 0) throw new Error(`not done: ${JSON.stringify(open)}`);
    }, 20_000);

  beforeEach(async () => {
    world = await createWorld();
    await world.source.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
    await world.source.query(`INSERT INTO t SELECT i, 'right' FROM generate_series(1, 400) i`);
    const first = await start();
    mapping = await world.map('t');
    await world.state(mapping, 'streaming', 30);
    await first.kill();
  });
  afterEach(async () => {
    await services.killAll();
    await world.close();
  });

  it('F08: killed during the swap: readers see the old rows or the new ones, never none, never both', async () => {
    // Somebody wrote to the destination; what the copy corrects, it corrects slowly.
    await world.destination
      .query(`UPDATE t SET v = 'wrong'; DELETE FROM t WHERE id > 300; INSERT INTO t SELECT i, 'wrong' FROM generate_series(1001, 1100) i;
      CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.004); RETURN NULL; END $$;
      CREATE TRIGGER slow AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION slow();
      ALTER TABLE t ENABLE ALWAYS TRIGGER slow`);
    const seen = new Set<string>();
    let stop = false;
    const reader = await world.destination.connect();
    const reading = (async () => {
      while (!stop) {
        const { rows } = await reader.query<{ state: string }>(
          `SELECT count(*) FILTER (WHERE v = 'wrong') || ' wrong, ' || count(*) FILTER (WHERE v = 'right') || ' right' AS state FROM t`,
        );
        seen.add(rows[0]?.state ?? '');
        await sleep(5);
      }
    })();
    await ask();
    for (let kill = 0; kill < 4; kill++) {
      const service = await start();
      await eventually(async () => {
        const busy = await world.destination.query(
          `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '%DELETE FROM "public"."t" t USING%'`,
        );
        if (busy.length === 0) throw new Error(`no swap\n${service.lastWords()}`);
      }, 20_000);
      await sleep(200 * kill);
      await service.kill();
    }
    expect([...seen]).to.deep.equal(['400 wrong, 0 right']);
    await start();
    await equal(world, 't', 't', 30_000);
    await done();
    stop = true;
    await reading;
    expect([...seen]).to.deep.equal(['400 wrong, 0 right', '0 wrong, 400 right']);
  });

  it('F08: killed while an empty table is filled: it stays empty, and the copy goes on from there', async () => {
    await world.source.query('CREATE TABLE fresh (id int PRIMARY KEY, v text)');
    await world.source.query(`INSERT INTO fresh SELECT i, 'right' FROM generate_series(1, 400) i`);
    await world.destination.query('CREATE TABLE fresh (id int PRIMARY KEY, v text)');
    const service = await start({ 'copy.filled': 'kill' });
    await world.map('fresh');
    expect(await service.endsWithin(20_000), service.lastWords()).to.equal(true);
    expect(await world.destination.query('SELECT * FROM fresh')).to.deep.equal([]);
    await world.source.query(`UPDATE fresh SET v = 'changed' WHERE id <= 7; DELETE FROM fresh WHERE id > 390`);
    await start();
    await equal(world, 'fresh', 'fresh', 30_000);
    await done();
  });

  it('F66: killed between the swap and the end of the request: no second copy', async () => {
    const before = await generation();
    await ask();
    const service = await start({ 'copy.swapped': 'kill' });
    expect(await service.endsWithin(20_000), service.lastWords()).to.equal(true);
    expect(await generation()).to.equal(before + 1);
    await start();
    await done();
    expect(await generation()).to.equal(before + 1);
    const requests = await world.control.query(
      `SELECT status FROM full_sync_requests WHERE mapping_id = $1 AND reason = 'flag'`,
      [mapping],
    );
    expect(requests).to.deep.equal([{ status: 'completed' }]);
  });

  it('F66: a request made during a run, killed in between: exactly one more', async () => {
    const before = await generation();
    await ask();
    const service = await start({ 'copy.folded': 'sleep:700', 'copy.swapped': 'kill' });
    await service.says('full sync started');
    await world.control.query('UPDATE table_mappings SET is_full_sync = 0 WHERE mapping_id = $1', [mapping]);
    await ask();
    expect(await service.endsWithin(20_000), service.lastWords()).to.equal(true);
    await start();
    await done();
    expect(await generation()).to.equal(before + 2);
  });

  it('F53: the source’s trigger column is set and the process killed at once: the full sync happens all the same', async () => {
    await world.source.query('CREATE TABLE w (id int PRIMARY KEY, resync smallint NOT NULL DEFAULT 0)');
    await world.source.query('INSERT INTO w SELECT generate_series(1, 10)');
    const first = await start();
    await world.state(await world.map('w', { full_sync_trigger_column: 'resync' }), 'streaming', 30);
    await first.kill();
    for (const failpoint of FLIP_POINTS.slice(0, process.env['SLUICE_TEST_LONG'] ? 3 : 1)) {
      const [before] = await world.control.query(`SELECT count(*)::int AS n FROM full_sync_requests`);
      await world.source.query('UPDATE w SET resync = 1 WHERE id = 3');
      const service = await start({ [failpoint]: 'kill' });
      expect(await service.endsWithin(20_000), service.lastWords()).to.equal(true);
      const second = await start();
      await eventually(async () => {
        const [after] = await world.control.query(
          `SELECT count(*)::int AS n FROM full_sync_requests WHERE status = 'completed'`,
        );
        if (after?.['n'] === before?.['n']) throw new Error(`${failpoint}: no full sync\n${second.lastWords()}`);
        const set = await world.source.query('SELECT id FROM w WHERE resync = 1');
        if (set.length > 0) throw new Error(`${failpoint}: the column was not reset`);
      }, 15_000);
      await done();
      await second.kill();
    }
  });
});
