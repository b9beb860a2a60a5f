/**
 * MySQL: speed against what one would do without Sluice, in the same run: pipes of the servers' own clients, pgloader, a native replica.
 * `npm run bench -- mysql [options]`, on MariaDB servers of its own (Debian: mariadb-server):
 *   --only copy,changes   parts to run (both)       --rounds 3   rounds of every comparison (pgloader: one)
 *   --rows 500000         rows of a copy            --changes 200000   inserts of each round of changes
 */
import { parseArgs } from 'node:util';
import { isMariaDbInstalled } from '../test/support/mysql-servers.ts';
import { benchChanges } from './mysql/changes.ts';
import { benchCopy } from './mysql/copy.ts';
import { sayLoad } from './report.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: 'copy,changes' },
    rows: { type: 'string', default: '500000' },
    changes: { type: 'string', default: '200000' },
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
  if (parts.has('changes')) await benchChanges(Number(values.changes), rounds);
} catch (error) {
  process.exitCode = 1;
  console.error(error instanceof Error ? error.stack : error);
}
