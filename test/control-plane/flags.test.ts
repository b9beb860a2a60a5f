/** F53: the flag, and the source's trigger column, flipped at every wrong moment. */
import { expect } from 'chai';
import { createWorld, equal, eventually, startService, type TestService, type World } from '../support/service.ts';
import { ChildService, type Failpoints } from '../support/child-service.ts';
import { testServer } from '../support/postgres.ts';

describe('F53: full sync requests', function () {
  this.timeout(60_000);
  let world: World;
  let id: number;
  const services: (TestService | ChildService)[] = [];

  beforeEach(async () => {
    world = await createWorld({ copy_chunk_bytes: 1024 * 1024, copy_parallelism: 1 });
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text, go smallint NOT NULL DEFAULT 0)`);
    await world.source.query(`INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 4000) i; ANALYZE t`);
    id = await world.map('t', { full_sync_trigger_column: 'go' });
  });
  afterEach(async () => {
    for (const service of services.splice(0)) await service.stop();
    await world.close();
  });

  const start = async () => {
    const service = await startService((await testServer()).url(), world.control.name);
    services.push(service);
    return service;
  };
  const flip = (value: 0 | 1) =>
    world.control.query(`UPDATE table_mappings SET is_full_sync = $2 WHERE mapping_id = $1`, [id, value]);
  const flag = async () =>
    (await world.control.query(`SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1`, [id]))[0]?.[
      'is_full_sync'
    ];
  /** Statuses of the mapping's requests but for the first copy's, oldest first. */
  const requests = async () =>
    (
      await world.control.query<{ text: string }>(
        `SELECT reason || ' ' || status AS text FROM full_sync_requests WHERE mapping_id = $1 AND reason <> 'initial' ORDER BY request_id`,
        [id],
      )
    ).map((row) => row.text);
  const settled = (wanted: readonly string[]) =>
    eventually(async () => {
      expect(await requests()).to.deep.equal(wanted);
      expect(await flag()).to.equal(0);
    }, 20_000);
  const slow = async () => {
    await world.control.query(
      `UPDATE config SET config_value = '2500000' WHERE config_key = 'copy_max_bytes_per_second'`,
    );
    await new Promise((resolve) => setTimeout(resolve, 1200)); // read with the next poll
  };
  const running = () =>
    eventually(async () => {
      const rows = await world.control.query<{ phase: string }>(
        `SELECT phase FROM sync_status WHERE mapping_id = $1 AND status = 'RUNNING' AND sync_type = 'FULL_SYNC'`,
        [id],
      );
      if (!/^copying [1-9]/.test(rows[0]?.phase ?? '')) throw new Error('does not run yet');
    }, 15_000);

  it('F53: flipped twice before anybody looked: one copy', async () => {
    await start();
    await world.state(id, 'streaming');
    await world.control.query(`BEGIN`);
    await flip(1);
    await flip(0);
    await flip(1);
    await world.control.query(`COMMIT`);
    await settled(['flag completed']);
    await equal(world, 't');
  });

  it('F53, F66: flipped to 0 and 1 again during the run: the run ends, and exactly one more follows', async () => {
    await start();
    await world.state(id, 'streaming');
    await slow();
    await flip(1);
    await running();
    await world.control.query(`BEGIN`);
    await flip(0);
    await flip(1);
    await world.control.query(`COMMIT`);
    await settled(['flag completed', 'flag completed']);
  });

  it('F53: 1 written over 1 during the run is no second request', async () => {
    await start();
    await world.state(id, 'streaming');
    await slow();
    await flip(1);
    await running();
    await flip(1);
    await settled(['flag completed']);
  });

  it('F53: set to 0 during the run: it is cancelled, the live table goes on, nothing is left behind', async () => {
    await start();
    await world.state(id, 'streaming');
    await slow();
    await flip(1);
    await running();
    await flip(0);
    await settled(['flag cancelled']);
    await world.source.query(`UPDATE t SET v = 'after the cancellation' WHERE id = 1`);
    await equal(world, 't');
    await world.state(id, 'streaming');
    await eventually(async () => {
      const rows = await world.destination.query(
        `SELECT relname FROM pg_class WHERE relnamespace = 'sluice'::regnamespace AND relkind = 'r' AND relname ~ '^(stage|backlog)_'`,
      );
      expect(rows).to.deep.equal([]);
    });
  });

  it('F53: flipped while the service is down: done once when it is back', async () => {
    const first = await start();
    await world.state(id, 'streaming');
    await first.stop();
    await flip(1);
    await flip(0);
    await flip(1);
    await start();
    await settled(['flag completed']);
  });

  it('F53: the trigger column set by several rows and transactions at once: reset, and at most one copy beside another', async () => {
    await start();
    await world.state(id, 'streaming');
    await world.source.query(`UPDATE t SET go = 1 WHERE id < 50`);
    await world.source.query(`UPDATE t SET go = 1 WHERE id = 60`);
    await eventually(async () => {
      const made = await requests();
      expect(made.length).to.be.within(1, 2);
      expect(new Set(made)).to.deep.equal(new Set(['trigger completed']));
      const [left] = await world.source.query(`SELECT count(*) AS n FROM t WHERE go <> 0`);
      expect(left?.['n']).to.equal('0');
    }, 20_000);
    await equal(world, 't');
    const before = await requests();
    await new Promise((resolve) => setTimeout(resolve, 2500)); // two polls: its own reset asks for nothing
    expect(await requests()).to.deep.equal(before);
  });

  const kills: [name: string, failpoints: Failpoints, reason: 'trigger' | 'flag'][] = [
    ['the request was made, the trigger column is not reset', { 'request.created': 'kill' }, 'trigger'],
    ['the trigger column is reset, the request is not confirmed', { 'trigger.reset': 'kill' }, 'trigger'],
    ['the rows are in place, the request is not finished', { 'copy.swapped': 'kill' }, 'flag'],
    ['the copy was opened', { 'copy.opened': 'kill' }, 'flag'],
  ];
  for (const [name, failpoints, reason] of kills) {
    if ('copy.opened' in failpoints && process.env['SLUICE_TEST_LONG'] === undefined) continue;
    it(`F53, F66: killed when ${name}: exactly one copy`, async () => {
      const first = await start();
      await world.state(id, 'streaming');
      await first.stop();
      const child = await ChildService.start(world, failpoints);
      services.push(child);
      await child.says('change stream started');
      if (reason === 'flag') await flip(1);
      else await world.source.query(`UPDATE t SET go = 1 WHERE id = 7`);
      expect(await child.exited).to.equal('SIGKILL');
      const swapped =
        'copy.swapped' in failpoints
          ? await world.destination.query(`SELECT last_generation FROM sluice.generations`)
          : null;
      await start();
      await settled([`${reason} completed`]);
      const [left] = await world.source.query(`SELECT count(*) AS n FROM t WHERE go <> 0`);
      expect(left?.['n']).to.equal('0');
      await equal(world, 't');
      if (swapped)
        expect(
          await world.destination.query(`SELECT last_generation FROM sluice.generations`),
          'no second copy',
        ).to.deep.equal(swapped);
    });
  }
});
