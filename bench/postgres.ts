/**
 * PostgreSQL → PostgreSQL: speed against peers in the same run, and memory. `npm run bench -- postgres [options]`:
 *   --only copy,large,small,memory   parts to run (all)
 *   --rows 1500000    rows of the full copy       --rounds 3    rounds of every comparison
 *   --scale 1         of the large transactions   --small 100000   one-row transactions
 *   --copy-mb 300     size of the table copied for memory   --transaction-rows 200000
 *   --full            5 GB and 2,000,000 rows for memory
 *   --no-sling        leave Sling out
 */
import { parseArgs } from 'node:util';
import { Arena } from './postgres/arena.ts';
import { benchChanges, largeTransactions, smallTransactions } from './postgres/changes.ts';
import { benchFullCopy } from './postgres/full-copy.ts';
import { benchMemory } from './postgres/memory.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: 'copy,large,small,memory' },
    rows: { type: 'string', default: '1500000' },
    rounds: { type: 'string', default: '3' },
    scale: { type: 'string', default: '1' },
    small: { type: 'string', default: '100000' },
    'copy-mb': { type: 'string' },
    'transaction-rows': { type: 'string' },
    full: { type: 'boolean', default: false },
    'no-sling': { type: 'boolean', default: false },
  },
});
const parts = new Set(values.only.split(','));
const rounds = Number(values.rounds);
const arena = await Arena.open();
try {
  if (parts.has('copy')) await benchFullCopy(arena, { rows: Number(values.rows), rounds, sling: !values['no-sling'] });
  if (parts.has('large')) await benchChanges(arena, largeTransactions(Number(values.scale)), rounds);
  if (parts.has('small')) await benchChanges(arena, smallTransactions(Number(values.small)), rounds);
  if (parts.has('memory')) {
    await benchMemory(arena, {
      copyBytes: Number(values['copy-mb'] ?? (values.full ? 5120 : 300)) * 1024 ** 2,
      transactionRows: Number(values['transaction-rows'] ?? (values.full ? 2_000_000 : 200_000)),
    });
  }
} catch (error) {
  process.exitCode = 1;
  console.error(error instanceof Error ? error.message : error);
} finally {
  await arena.close();
}
