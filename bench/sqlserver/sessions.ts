/**
 * What a statement costs on a session that has just begun, and the second time: some servers fill their caches anew for each session.
 * Beside it, the share of a copy that is not rows can be judged.
 */
import type { Session } from '../../src/engines/sqlserver/connection.ts';
import type { SqlServerTestDatabase } from '../../test/support/sqlserver.ts';
import { say } from '../report.ts';

const STATEMENTS: Readonly<Record<string, (round: number) => string>> = {
  'create a table': (round) => `CREATE TABLE dbo.session_cost_${round} (id int NOT NULL)`,
  'look up the own session': () =>
    'SELECT s.login_time AS at FROM sys.dm_exec_sessions AS s WHERE s.session_id = @@SPID',
  'look up the database': () =>
    'SELECT snapshot_isolation_state AS state FROM sys.databases WHERE database_id = DB_ID()',
  'rename the table': (round) =>
    `EXEC sp_rename @objname = N'[dbo].[session_cost_${round}]', @newname = N'session_cost_was_${round}', @objtype = N'OBJECT'`,
  'drop the table': (round) => `DROP TABLE dbo.session_cost_was_${round}`,
  'select 1': () => 'SELECT 1 AS one',
};

export async function saySessionCosts(database: SqlServerTestDatabase): Promise<void> {
  const opening = performance.now();
  const session = await database.connection.open();
  const opened = performance.now() - opening;
  const [first, second] = [await costs(session, 1), await costs(session, 2)];
  await database.connection.release(session);
  say(`What statements cost here on a new session, and again: login ${opened.toFixed(0)} ms`);
  for (const [name, taken] of Object.entries(first))
    say(`  ${name.padEnd(24)} ${taken.toFixed(0).padStart(5)} ms, then ${(second[name] ?? NaN).toFixed(1)} ms`);
}

async function costs(session: Session, round: number): Promise<Record<string, number>> {
  const taken: Record<string, number> = {};
  for (const [name, sql] of Object.entries(STATEMENTS)) {
    const started = performance.now();
    await session.query(name, sql(round));
    taken[name] = performance.now() - started;
  }
  return taken;
}
