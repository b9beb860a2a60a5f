/**
 * SQL Server: speed against the driver's own ceilings in the same run. `npm run bench -- sqlserver [options]`, on the server of the
 * tests (TEST_SQLSERVER_URL, or an installed stand-in):
 *   --only load,copy,changes  parts to run (all)
 *   --rows 200000     rows of a load        --copy-rows 1000000   rows of a copy, whose some forty other statements weigh on small ones
 *        --changes 500000  changes of each round      --rounds 3   rounds of every comparison
 */
import { parseArgs } from 'node:util';
import { createSqlServerDatabase, findSqlServer, stopSqlServer } from '../test/support/sqlserver.ts';
import { say, sayLoad } from './report.ts';
import { benchChanges } from './sqlserver/changes.ts';
import { benchCopy } from './sqlserver/copy.ts';
import { benchLoad } from './sqlserver/load.ts';
import { saySessionCosts } from './sqlserver/sessions.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: 'load,copy,changes' },
    rows: { type: 'string', default: '200000' },
    'copy-rows': { type: 'string', default: '1000000' },
    changes: { type: 'string', default: '500000' },
    rounds: { type: 'string', default: '3' },
  },
});
const parts = new Set(values.only.split(','));
const rows = Number(values.rows);
const rounds = Number(values.rounds);
const server = await findSqlServer();
if (typeof server === 'string') {
  console.error(server);
  process.exit(3);
}
say(`Server: ${server.kind}`);
const database = await createSqlServerDatabase(server, 'bench');
try {
  sayLoad();
  await saySessionCosts(database);
  if (parts.has('load')) await benchLoad(database, rows, rounds);
  if (parts.has('copy')) await benchCopy(database, Number(values['copy-rows']), rounds);
  if (parts.has('changes')) await benchChanges(server, Number(values.changes), rounds);
} catch (error) {
  process.exitCode = 1;
  console.error(error instanceof Error ? error.stack : error);
} finally {
  await database.drop();
  await stopSqlServer();
}
