/** Peak resident size of the service (VmHWM) while it copies a large table, and while it applies one large transaction. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Arena } from './arena.ts';
import { dropSlots } from './full-copy.ts';
import { mebibytes, say } from '../report.ts';
import { createTable, fill, fingerprint, values } from './tables.ts';

/** About what a row takes in the table. */
const ROW_BYTES = 200;
const LIMIT = 200 * 1024 ** 2;

export async function benchMemory(
  arena: Arena,
  options: { copyBytes: number; transactionRows: number },
): Promise<void> {
  say(`\nMemory: peak resident size of the service (limit ${mebibytes(LIMIT)})`);
  await copy(arena, Math.round(options.copyBytes / ROW_BYTES));
  await transaction(arena, options.transactionRows);
}

async function copy(arena: Arena, rows: number): Promise<void> {
  await arena.query('source', createTable('orders'));
  await arena.query('source', fill('orders', rows));
  const size = Number(await arena.value('source', `SELECT pg_table_size('orders')`));
  await start(arena);
  await arena.copy('orders', 'destination');
  await finish(arena, `copying ${rows} rows, ${mebibytes(size)}`);
}

async function transaction(arena: Arena, rows: number): Promise<void> {
  await arena.query('source', createTable('orders'));
  await arena.query('source', fill('orders', 1000));
  await start(arena);
  await arena.copy('orders', 'destination');
  await arena.query(
    'source',
    `INSERT INTO orders SELECT ${values('g')} FROM generate_series(1001::bigint, ${1000 + rows}) g`,
  );
  const started = performance.now();
  while ((await arena.value('destination', `SELECT count(*) FROM orders WHERE id = ${1000 + rows}`)) === '0') {
    arena.peakMemory(); // fails when the service has ended
    await sleep(100);
  }
  await finish(
    arena,
    `applying one transaction of ${rows} rows, ${((performance.now() - started) / 1000).toFixed(1)} s after its commit,`,
  );
}

async function start(arena: Arena): Promise<void> {
  await arena.createDatabase('destination');
  await arena.createControl();
  arena.startService();
}

async function finish(arena: Arena, doing: string): Promise<void> {
  const peak = await arena.stopService();
  const [there, here] = [
    await arena.value('source', fingerprint('orders')),
    await arena.value('destination', fingerprint('orders')),
  ];
  if (there !== here) throw new Error(`${doing}: the destination holds ${here}, the source ${there}`);
  say(`  ${doing}: ${mebibytes(peak)} ${peak < LIMIT ? 'ok' : 'OVER THE LIMIT'}`);
  await dropSlots(arena);
  await arena.query('source', 'DROP TABLE orders');
}
