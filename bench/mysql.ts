/**
 * MySQL: speed against what one would do without Sluice, in the same run: pipes of the servers' own clients, pgloader, a native replica.
 * `npm run bench -- mysql [options]`, on MariaDB servers of its own (Debian: mariadb-server):
 *   --only copy,mixed,large,small   parts to run (these)
 *   --rounds 3                rounds of every comparison (pgloader: one)
 *   --rows 1500000            rows of a copy
 *   --pairs mariadb,postgres  destinations of changes
 *   --mixed 10000             transactions of all sizes
 *   --changes 200000          inserts of each round of large transactions, of --each 1000 rows
 *   --small 20000             one-row transactions
 *   --only transaction        one transaction of --transaction 1000000 rows, for the memory it takes
 */
import { parseArgs } from 'node:util';
import { isMariaDbInstalled } from '../test/support/mysql-servers.ts';
import {
  benchChanges,
  largeTransactions,
  mixedTransactions,
  oneTransaction,
  smallTransactions,
} from './mysql/changes.ts';
import { benchCopy } from './mysql/copy.ts';
import { sayLoad } from './report.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: 'copy,mixed,large,small' },
    rows: { type: 'string', default: '1500000' },
    changes: { type: 'string', default: '200000' },
    transaction: { type: 'string', default: '1000000' },
    each: { type: 'string', default: '1000' },
    small: { type: 'string', default: '20000' },
    mixed: { type: 'string', default: '10000' },
    pairs: { type: 'string', default: 'mariadb,postgres' },
    rounds: { type: 'string', default: '3' },
  },
});
if (!isMariaDbInstalled()) {
  console.error('no mariadbd is installed (Debian: mariadb-server)');
  process.exit(3);
}
const parts = new Set(values.only.split(','));
const rounds = Number(values.rounds);
try {
  sayLoad();
  if (parts.has('copy')) await benchCopy(Number(values.rows), rounds);
  const workloads = [
    ...(parts.has('mixed') ? [mixedTransactions(Number(values.mixed))] : []),
    ...(parts.has('large') ? [largeTransactions(Number(values.changes), Number(values.each))] : []),
    ...(parts.has('transaction') ? [oneTransaction(Number(values.transaction))] : []),
    ...(parts.has('small') ? [smallTransactions(Number(values.small))] : []),
  ];
  if (workloads.length > 0) await benchChanges({ workloads, rounds, pairs: values.pairs.split(',') });
} catch (error) {
  process.exitCode = 1;
  console.error(error instanceof Error ? error.stack : error);
}
