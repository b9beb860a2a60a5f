/**
 * The service is killed again and again under a mixed write load, at named failpoints and at random times, with full syncs in
 * between. SLUICE_TEST_SEED repeats a run's choices, SLUICE_TEST_KILLS sets their number.
 */
import { expect } from 'chai';
import { Random } from '../../src/demo/random.ts';
import { FAILPOINTS, type Failpoint } from '../../src/model/failpoint.ts';
import { ChildService, expireLeases } from '../support/child-service.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';
import { Watcher } from './watcher.ts';
import { createTables, TABLES, Workload } from './workload.ts';

const LONG = Boolean(process.env['SLUICE_TEST_LONG']);
const KILLS = Number(process.env['SLUICE_TEST_KILLS'] ?? (LONG ? 220 : 15));
const WRITERS = 4;
/** A failpoint that is not reached in this time is given up: the service is killed where it is. */
const PATIENCE_MS = 5000;

describe('killed again and again', function () {
  this.timeout(60_000 + KILLS * 20_000);
  const seed = Number(process.env['SLUICE_TEST_SEED'] ?? Math.floor(Math.random() * 1e9));
  let world: World;
  let workload: Workload | null = null;
  let watcher: Watcher | null = null;
  let service: ChildService | null = null;

  before(async () => {
    world = await createWorld({ batch_max_bytes: 256 * 1024, copy_chunk_bytes: 1024 * 1024 });
    await createTables(world.source, WRITERS);
  });
  after(async () => {
    await workload?.stop();
    await watcher?.stop();
    await service?.kill();
    await world.close();
  });

  it(`F01 F03 F04 F06 F08 F49 F66: ${KILLS} kills, and no reader noticed (seed ${seed})`, async () => {
    const random = new Random(seed);
    const mappings: number[] = [];
    for (const table of TABLES)
      mappings.push(await world.map(table, table === 'flags' ? { full_sync_trigger_column: 'resync' } : {}));
    workload = new Workload(world.source, seed, WRITERS, 250);
    service = await ChildService.start(world);
    for (const mapping of mappings) await world.state(mapping, 'streaming', 60);
    await service.kill();
    watcher = new Watcher(world.destination);

    const reached = new Map<string, number>();
    // Those of the control database's own making are never met here.
    const met = FAILPOINTS.filter((name) => !name.startsWith('control.'));
    const order = shuffled(met, random);
    for (let kill = 0; kill < KILLS; kill++) {
      // Two of three at a failpoint, each of them in turn; the others whenever it comes.
      const name: Failpoint | undefined = kill % 3 === 2 ? undefined : order[kill % order.length];
      const times = name?.startsWith('stream') ? 1 + random.below(12) : 1;
      const point = name ? { [name]: `kill:${times}` } : {};
      await expireLeases(world);
      service = await ChildService.start(world, point);
      await ask(world, mappings, random, name === 'request.created' || name === 'trigger.reset');
      const patience = name ? PATIENCE_MS : 1200 + random.below(3500);
      const byItself = await service.endsWithin(patience);
      if (byItself && (await service.exited) !== 'SIGKILL')
        throw new Error(`seed ${seed}, kill ${kill}: the service ended by itself\n${service.lastWords()}`);
      await service.kill();
      const where = byItself && name ? name : name ? `not at ${name}` : 'random';
      reached.set(where, (reached.get(where) ?? 0) + 1);
      workload.slowness = 1 + Math.floor((await behind(world)) / 300);
      if (watcher.findings.length > 0)
        throw new Error(
          `seed ${seed}, kill ${kill} (${where}):\n${watcher.findings.join('\n')}\n${service.lastWords()}`,
        );
    }

    await expireLeases(world);
    service = await ChildService.start(world);
    // Copies end under load, too.
    await eventually(() => nothingOpen(world), 180_000).catch((error: unknown) => fail(seed, error, service));
    await workload.stop();
    for (const table of TABLES)
      await equal(world, table, table, 60_000).catch((error: unknown) => fail(seed, error, service));
    await watcher.stop();
    expect(watcher.findings).to.deep.equal([]);
    for (const mapping of mappings) await world.state(mapping, 'streaming');
    const points = [...reached].map(([where, times]) => `${where} ${times}`).join(', ');
    console.log(`      seed ${seed}: ${workload.transactions} transactions, ${watcher.polls} polls, ${points}`);
  });
});

/** Full syncs of one or two tables, by flag or by the source's trigger column. */
async function ask(world: World, mappings: readonly number[], random: Random, byColumn: boolean): Promise<void> {
  for (let i = 1 + random.below(2); i > 0; i--) {
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [
      random.pick(mappings),
    ]);
  }
  if (random.below(3) === 0 || byColumn)
    await world.source.query('UPDATE flags SET resync = 1 WHERE id = $1', [1 + random.below(20)]);
}

/** Transactions that the source has and the destination has not. */
async function behind(world: World): Promise<number> {
  const sum = 'SELECT sum(n)::int AS n FROM clock_a';
  const [source, destination] = [await world.source.query(sum), await world.destination.query(sum)];
  return Number(source[0]?.['n']) - Number(destination[0]?.['n']);
}

async function nothingOpen(world: World): Promise<void> {
  const open = await world.control.query(
    `SELECT r.mapping_id, r.status, r.reason, r.is_confirmed, s.state, s.error_code, s.error_message FROM full_sync_requests r
      JOIN mapping_state s USING (mapping_uid) WHERE r.status IN ('queued', 'running')`,
  );
  const flags = await world.control.query('SELECT mapping_id FROM table_mappings WHERE is_full_sync = 1');
  const columns = await world.source.query('SELECT id FROM flags WHERE resync = 1');
  if (open.length + flags.length + columns.length > 0)
    throw new Error(`still wanted: ${JSON.stringify({ open, flags, columns })}`);
}

function fail(seed: number, error: unknown, service: ChildService | null): never {
  throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}\n${service?.lastWords(80)}`);
}

function shuffled<T>(items: T[], random: Random): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const [a, b] = [items[i], items[j]];
    if (a !== undefined && b !== undefined) [items[i], items[j]] = [b, a];
  }
  return items;
}
