/** Full copy, ending with the same primary key: Sluice, psql COPY | psql COPY twice (A/A: the noise), and Sling beside them. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Arena } from './arena.ts';
import { alternate, mebibytes, ratio, say, seconds } from '../report.ts';
import { createTable, fill, fingerprint } from './tables.ts';

export async function benchFullCopy(
  arena: Arena,
  options: { rows: number; rounds: number; sling: boolean },
): Promise<void> {
  await arena.query('source', createTable('orders'));
  await arena.query('source', fill('orders', options.rows));
  await arena.query('source', 'VACUUM (FREEZE, ANALYZE) orders');
  const size = Number(await arena.value('source', `SELECT pg_table_size('orders')`));
  const truth = await arena.value('source', fingerprint('orders'));
  say(`\nFull copy: ${options.rows} rows, ${mebibytes(size)} (${Math.round(size / options.rows)} bytes a row)`);

  const sling = options.sling ? findSling(arena.folder) : null;
  const arms = new Map<string, { run: (database: string) => Promise<number>; times: number[] }>([
    ['psql', { run: (database) => copyWithPsql(arena, database), times: [] }],
    ['sluice', { run: (database) => copyWithSluice(arena, database, options.rows), times: [] }],
    ['psql again', { run: (database) => copyWithPsql(arena, database), times: [] }],
  ]);
  if (sling !== null) arms.set('sling', { run: (database) => copyWithSling(arena, database, sling), times: [] });
  for (let round = 0; round < options.rounds; round++) {
    for (const [name, arm] of alternate([...arms], round)) {
      await arena.createDatabase('destination');
      await arena.settle();
      const time = await arm.run('destination');
      const found = await arena.value('destination', fingerprint('orders'));
      if (found !== truth) throw new Error(`${name}: the copy holds ${found}, the source ${truth}`);
      const key = await arena.value(
        'destination',
        `SELECT count(*) FROM pg_constraint WHERE conrelid = 'orders'::regclass AND contype = 'p'`,
      );
      if (key !== '1') throw new Error(`${name}: the copy has no primary key`);
      arm.times.push(time);
    }
  }
  const times = (name: string) => arms.get(name)?.times ?? [];
  for (const [name, arm] of arms) say(`  ${name.padEnd(12)} ${seconds(arm.times)} s`);
  say(`  psql / psql again (noise) = ${ratio(times('psql'), times('psql again'))}`);
  say(`  psql / sluice = ${ratio(times('psql'), times('sluice'))}  (target ≥ 1.0)`);
  if (sling === null) say('  sling was left out');
  else say(`  sling / sluice = ${ratio(times('sling'), times('sluice'))}  (expected ≥ 5)`);
  await arena.query('source', 'DROP TABLE orders');
}

async function copyWithPsql(arena: Arena, database: string): Promise<number> {
  await arena.query(database, createTable('orders'));
  const started = performance.now();
  run('bash', [
    '-c',
    `set -o pipefail; psql -XqAt '${arena.url('source')}' -c 'COPY orders TO STDOUT (FORMAT binary)' | psql -XqAt '${arena.url(database)}' -c 'COPY orders FROM STDIN (FORMAT binary)'`,
  ]);
  return (performance.now() - started) / 1000;
}

/** From the start of the run to its end, as the service itself records it: polling for new mappings is not copying. */
async function copyWithSluice(arena: Arena, database: string, rows: number): Promise<number> {
  await arena.createControl();
  arena.startService();
  const result = await arena.copy('orders', database);
  if (result.rows !== rows) throw new Error(`sluice reports ${result.rows} rows:\n${arena.lastWords()}`);
  await arena.stopService();
  await dropSlots(arena);
  return result.seconds;
}

export async function dropSlots(arena: Arena): Promise<void> {
  await arena.query(
    'source',
    `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'source'`,
  );
  for (const row of await arena.query<{ pubname: string }>('source', 'SELECT pubname FROM pg_publication'))
    await arena.query('source', `DROP PUBLICATION ${row.pubname}`);
}

/** Sling makes no primary key by itself: it is added, and counted. */
async function copyWithSling(arena: Arena, database: string, binary: string): Promise<number> {
  const started = performance.now();
  run(
    binary,
    [
      'run',
      '--src-conn',
      'SLING_FROM',
      '--src-stream',
      'public.orders',
      '--tgt-conn',
      'SLING_TO',
      '--tgt-object',
      'public.orders',
      '--mode',
      'full-refresh',
    ],
    {
      SLING_FROM: `${arena.url('source')}?sslmode=disable`,
      SLING_TO: `${arena.url(database)}?sslmode=disable`,
      SLING_HOME_DIR: path.join(arena.folder, 'sling-home'),
      SLING_DISABLE_TELEMETRY: 'TRUE',
    },
  );
  await arena.query(database, 'ALTER TABLE orders ADD PRIMARY KEY (id)');
  return (performance.now() - started) / 1000;
}

/** SLUICE_BENCH_SLING names the program; else it is installed from PyPI into the bench's own folder. Null: said why. */
function findSling(folder: string): string | null {
  const given = process.env['SLUICE_BENCH_SLING'];
  if (given !== undefined) return given;
  const target = path.join(folder, 'sling');
  const result = spawnSync('python3', ['-m', 'pip', 'install', '--quiet', '--target', target, 'sling-linux-amd64'], {
    encoding: 'utf8',
  });
  const binary = path.join(target, 'sling_linux_amd64/bin/sling-linux-amd64');
  if (result.status === 0 && existsSync(binary)) return binary;
  say(
    `  SLING IS NOT MEASURED: it could not be installed (${String(result.error ?? result.stderr)
      .trim()
      .split('\n')
      .at(-1)})`,
  );
  return null;
}

function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): void {
  const result = spawnSync(program, args, { env: { ...process.env, ...env }, encoding: 'utf8' });
  if (result.status !== 0)
    throw new Error(`${program} failed: ${result.stderr || result.stdout || String(result.error)}`);
}
