/**
 * Changes against PostgreSQL's own logical replication. Both read the same prepared backlog of WAL, each from its own slot into its
 * own database, one after the other; timed from the moment its slot is in use to the moment the last row is there. The service has
 * followed another table for a while by then, as a service has that was not started a second ago; its source is disabled in between.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Arena } from './arena.ts';
import { cpuSeconds } from './cpu.ts';
import { dropSlots } from './full-copy.ts';
import { alternate, median, ratio, say, seconds } from '../report.ts';
import { createTable, fill, fingerprint, values } from './tables.ts';

export interface Workload {
  readonly name: string;
  readonly base: number;
  /** Changes `orders` of the source; a procedure's body that may COMMIT. */
  readonly sql: string;
  /** A smaller one of the same kind. */
  readonly warmUp: () => Workload;
}

/** (a): 500 transactions of 1,000 inserts, after every fifth two updates of 1,000 older rows each. */
export function largeTransactions(scale: number): Workload {
  const inserts = Math.round(500 * scale);
  const base = inserts * 400;
  return {
    name: `(a) ${inserts} transactions of 1,000 inserts, ${Math.floor(inserts / 5) * 2} updates of 1,000 rows`,
    base,
    sql: `FOR n IN 1..${inserts} LOOP
        INSERT INTO orders SELECT ${values('g')} FROM generate_series(${base}::bigint + n * 1000, ${base}::bigint + n * 1000 + 999) g;
        COMMIT;
        IF n % 5 = 0 THEN
          FOR half IN 0..1 LOOP
            UPDATE orders SET (id, customer, amount, ordered_at, details, note) = (SELECT ${values('id', 5)})
             WHERE id > (n / 5 - 1) * 2000 + half * 1000 AND id <= (n / 5 - 1) * 2000 + half * 1000 + 1000;
            COMMIT;
          END LOOP;
        END IF;
      END LOOP;`,
    warmUp: () => largeTransactions(scale / 10),
  };
}

/** (b): one-row transactions: six inserts, three updates and a delete of ten. */
export function smallTransactions(count: number): Workload {
  const base = 50_000;
  return {
    name: `(b) ${count} one-row transactions`,
    base,
    sql: `FOR n IN 1..${count} LOOP
        IF n % 10 < 6 THEN INSERT INTO orders SELECT ${values('g')} FROM (SELECT ${base}::bigint + n AS g) one;
        ELSIF n % 10 < 9 THEN UPDATE orders SET amount = amount + 1, note = 'changed ' || n WHERE id = 1 + (n * 7919) % ${base / 2};
        ELSE DELETE FROM orders WHERE id = ${base / 2} + n / 10;
        END IF;
        COMMIT;
      END LOOP;`,
    warmUp: () => smallTransactions(count / 5),
  };
}

const MARK = -1;
const NATIVE = ['native_one', 'native_two'] as const;

export async function benchChanges(arena: Arena, workload: Workload, rounds: number): Promise<void> {
  say(`\nChanges: ${workload.name}`);
  const runs = { sluice: [] as Run[], native_one: [] as Run[], native_two: [] as Run[] };
  for (let round = 0; round < rounds; round++) {
    await prepare(arena, workload);
    const truth = await arena.value('source', fingerprint('orders'));
    for (const arm of alternate(['native_one', 'sluice', 'native_two'] as const, round)) {
      await arena.settle();
      const database = arm === 'sluice' ? 'destination' : arm;
      runs[arm].push(await (arm === 'sluice' ? applyWithSluice(arena) : applyNatively(arena, arm)));
      const found = await arena.value(database, fingerprint('orders'));
      if (found !== truth) throw new Error(`${arm}: ${database} holds ${found}, the source ${truth}`);
    }
    await clear(arena);
  }
  const times = (arm: keyof typeof runs) => runs[arm].map((run) => run.seconds);
  for (const [name, arm] of [
    ['sluice', 'sluice'],
    ['native', 'native_one'],
    ['native again', 'native_two'],
  ] as const) {
    const cpu = Object.keys(runs[arm][0]?.cpu ?? {})
      .map((process) => `${process} ${median(runs[arm].map((run) => run.cpu[process] ?? 0)).toFixed(2)}`)
      .join(', ');
    say(`  ${name.padEnd(12)} ${seconds(times(arm))} s   processor seconds: ${cpu}`);
  }
  say(`  native / native again (noise) = ${ratio(times('native_one'), times('native_two'))}`);
  say(`  native / sluice = ${ratio(times('native_one'), times('sluice'))}  (target ≥ 1.0)`);
}

interface Run {
  readonly seconds: number;
  /** By process. */
  readonly cpu: Readonly<Record<string, number>>;
}

/** Every destination holds the base rows and a slot holds what follows; then the work is done at the source. */
async function prepare(arena: Arena, workload: Workload): Promise<void> {
  await arena.query('source', createTable('orders'));
  await arena.query('source', fill('orders', workload.base));
  await arena.query('source', 'CREATE PUBLICATION native FOR TABLE orders');
  for (const name of NATIVE) {
    await arena.createDatabase(name);
    await arena.query(name, createTable('orders'));
    await arena.query(name, fill('orders', workload.base));
    await arena.query('source', `SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`);
    // Made beforehand: within one cluster CREATE SUBSCRIPTION would wait for itself.
    await arena.query(
      name,
      `CREATE SUBSCRIPTION ${name} CONNECTION '${arena.url('source')}' PUBLICATION native
         WITH (create_slot = false, slot_name = '${name}', copy_data = false, enabled = false)`,
    );
  }
  await arena.createDatabase('destination');
  await arena.createControl();
  arena.startService();
  await arena.copy('orders', 'destination');
  const { base, sql } = workload.warmUp();
  await arena.query('source', createTable('warm_up'));
  await arena.query('source', fill('warm_up', base));
  await arena.copy('warm_up', 'destination');
  await change(arena, 'warm_up', sql);
  while (!(await hasArrived(arena, 'destination', 'warm_up'))) await sleep(50);
  await pauseService(arena);
  await change(arena, 'orders', workload.sql);
}

async function change(arena: Arena, table: string, sql: string): Promise<void> {
  await arena.query('source', 'SET synchronous_commit = off');
  await arena.query('source', `DO $$ BEGIN ${sql.replaceAll('orders', table)} END $$`);
  await arena.query('source', `INSERT INTO ${table} SELECT ${values(`${MARK}::bigint`)}`);
  await arena.query('source', 'RESET synchronous_commit');
}

async function hasArrived(arena: Arena, database: string, table: string): Promise<boolean> {
  return (await arena.value(database, `SELECT count(*) FROM ${table} WHERE id = ${MARK}`)) !== '0';
}

const OUR_SLOT = `slot_name NOT IN ('${NATIVE.join(`', '`)}')`;

async function pauseService(arena: Arena): Promise<void> {
  await arena.control('UPDATE source_servers SET is_enabled = 0');
  await idle(arena, OUR_SLOT);
}

/** Nobody reads the slot. */
async function idle(arena: Arena, slot: string): Promise<void> {
  while (Number(await arena.value('source', `SELECT count(*) FROM pg_replication_slots WHERE ${slot} AND active`)) > 0)
    await sleep(20);
}

async function applyWithSluice(arena: Arena): Promise<Run> {
  const run = timed(arena, 'destination', OUR_SLOT, async () => ({
    service: arena.servicePid,
    destination: Number(
      await arena.value(
        'postgres',
        `SELECT coalesce(max(pid), 0) FROM pg_stat_activity
          WHERE datname = 'destination' AND application_name <> 'sluice bench'
            AND query LIKE ANY (ARRAY['%sluice.positions%', '%sluice.generations%', 'COPY%', '%COPY%', 'UPDATE%', '%pg_temp%'])`,
      ),
    ),
  }));
  await arena.control('UPDATE source_servers SET is_enabled = 1');
  const result = await run;
  await pauseService(arena);
  return result;
}

async function applyNatively(arena: Arena, name: string): Promise<Run> {
  const run = timed(arena, name, `slot_name = '${name}'`, async () => ({
    worker: Number(
      await arena.value('postgres', `SELECT coalesce(max(pid), 0) FROM pg_stat_subscription WHERE subname = '${name}'`),
    ),
  }));
  await arena.query(name, `ALTER SUBSCRIPTION ${name} ENABLE`);
  const result = await run;
  await arena.query(name, `ALTER SUBSCRIPTION ${name} DISABLE`);
  await idle(arena, `slot_name = '${name}'`);
  return result;
}

/** `processes`: whose work counts besides the walsender's, asked for once the mark is there. */
async function timed(
  arena: Arena,
  database: string,
  slot: string,
  processes: () => Promise<Record<string, number>>,
): Promise<Run> {
  let walsender = 0;
  while (walsender === 0) {
    walsender = Number(
      await arena.value(
        'source',
        `SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE ${slot} AND active`,
      ),
    );
    await sleep(5);
  }
  const started = performance.now();
  // What it did before is not applying.
  const before = cpuSeconds(arena.servicePid);
  while (!(await hasArrived(arena, database, 'orders'))) await sleep(10);
  const elapsed = (performance.now() - started) / 1000;
  const pids: Record<string, number> = { walsender, ...(await processes()) };
  const cpu = Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, cpuSeconds(pid)]));
  if (cpu['service'] !== undefined) cpu['service'] -= before;
  return { seconds: elapsed, cpu: { ...cpu, sum: Object.values(cpu).reduce((sum, each) => sum + each, 0) } };
}

async function clear(arena: Arena): Promise<void> {
  await arena.stopService();
  for (const name of NATIVE) {
    await arena.query(name, `ALTER SUBSCRIPTION ${name} SET (slot_name = NONE)`);
    await arena.query(name, `DROP SUBSCRIPTION ${name}`);
  }
  await dropSlots(arena);
  await arena.query('source', 'DROP TABLE orders, warm_up');
}
