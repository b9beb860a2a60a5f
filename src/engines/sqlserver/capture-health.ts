/** What the capture job does, as far as this login may see: everything in one round trip. */
import { SluiceError } from '../../model/errors.ts';
import type { Finding } from '../../model/findings.ts';
import { displayName, tableKey, type TableName } from '../../model/tables.ts';
import type { StreamHealth } from '../contract.ts';
import { capturedColumns, stateOf, STATE, type SourceState } from './capture-instances.ts';
import { chainOf } from './captures.ts';
import type { Connection, Row } from './connection.ts';
import { parseDisplayedLsn, type Lsn } from './position.ts';
import { disableTable } from './source-state.ts';

export interface CaptureHealth {
  readonly state: SourceState;
  /** The end of the log; null: the login may not see it. */
  readonly logEnd: Lsn | null;
  /** SQL Server Agent runs; null: not visible, or there is none (Azure SQL Database schedules capture itself). */
  readonly isAgentRunning: boolean | null;
  /** How long changes are kept; null: not visible. */
  readonly retentionSeconds: number | null;
  readonly stream: readonly Finding[];
  readonly tables: StreamHealth['tables'];
}

/** An idle capture job writes a row into cdc.lsn_time_mapping every five minutes: three were left out. */
const SILENCE_SECONDS = 15 * 60;

/** Each view is asked only where its permission is held: an error would end the batch. Agent: edition 5 is Azure SQL Database. */
const JOBS = `
IF HAS_PERMS_BY_NAME(NULL, NULL, N'VIEW SERVER STATE') = 1 AND CAST(SERVERPROPERTY('EngineEdition') AS int) <> 5
  SELECT TOP (1) N'agent' AS what, s.status AS status FROM sys.dm_server_services s WHERE s.servicename LIKE N'SQL Server Agent%';
IF HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') = 1
BEGIN
  SELECT N'log' AS what, l.log_end_lsn AS log_end FROM sys.dm_db_log_stats(DB_ID()) l;
  SELECT TOP (1) N'error' AS what, e.entry_time AS at, e.error_number AS number, e.error_message AS message FROM sys.dm_cdc_errors e ORDER BY e.entry_time DESC;
END
IF HAS_PERMS_BY_NAME(N'msdb.dbo.cdc_jobs', N'OBJECT', N'SELECT') = 1
  SELECT N'cleanup' AS what, j.retention AS retention FROM msdb.dbo.cdc_jobs j WHERE j.database_id = DB_ID() AND j.job_type = N'cleanup';`;

export async function readHealth(connection: Connection, tables: readonly TableName[]): Promise<CaptureHealth> {
  const rows = await connection.query('look at the capture job of the source', `SET NOCOUNT ON; ${STATE} ${JOBS}`);
  const state = stateOf(rows);
  const first = (what: string) => rows.find((row) => row['what'] === what);
  const agent = first('agent')?.['status'];
  const logEnd = first('log')?.['log_end'];
  const retention = first('cleanup')?.['retention'];
  const isAgentRunning = agent == null ? null : Number(agent) === 4;
  return {
    state,
    logEnd: typeof logEnd === 'string' ? parseDisplayedLsn(logEnd) : null,
    isAgentRunning,
    retentionSeconds: retention == null ? null : Number(retention) * 60,
    stream: streamFindings(state, isAgentRunning, first('error')),
    tables: await supersededInstances(connection, state, tables),
  };
}

/** Throws CDC_NOT_READY when nobody captures: whoever waits for a position would wait for ever (F16). */
export function requireAgent(health: CaptureHealth): void {
  const finding = health.stream.find(({ severity }) => severity === 'error');
  if (finding) throw new SluiceError(finding.code, finding.message, { hint: finding.fixSql.join(' ') || undefined });
}

function streamFindings(state: SourceState, isAgentRunning: boolean | null, error: Row | undefined): Finding[] {
  const findings: Finding[] = [];
  const silent = state.last === null ? 0 : (state.now - state.last.time) / 1000;
  if (isAgentRunning === false)
    findings.push({
      code: 'CDC_NOT_READY',
      severity: 'error',
      message: 'SQL Server Agent does not run: no changes are captured',
      fixSql: [
        "EXEC xp_servicecontrol N'START', N'SQLServerAGENT'; -- or start the service; then the capture job starts by itself",
      ],
    });
  else if (silent > SILENCE_SECONDS)
    findings.push({
      code: 'CDC_NOT_READY',
      severity: 'error',
      message: `the capture job has recorded nothing for ${Math.round(silent / 60)} minutes, idle rows neither: it does not run, or cannot read the log`,
      fixSql: ["EXEC sys.sp_cdc_start_job @job_type = N'capture'; SELECT * FROM sys.dm_cdc_errors;"],
    });
  const failedAt = error?.['at'] instanceof Date ? error['at'].getTime() : null;
  // What was captured since says that it is over.
  if (failedAt !== null && (state.last === null || failedAt > state.last.time))
    findings.push({
      code: 'CDC_NOT_READY',
      severity: 'error',
      message: `the capture job failed with error ${String(error?.['number'])}; see sys.dm_cdc_errors`,
      fixSql: ['SELECT * FROM sys.dm_cdc_errors ORDER BY entry_time DESC;'],
    });
  return findings;
}

/** F14: older capture instances of these tables, which a newer one has succeeded. */
async function supersededInstances(
  connection: Connection,
  state: SourceState,
  tables: readonly TableName[],
): Promise<StreamHealth['tables']> {
  const wanted = new Set(tables.map(tableKey));
  const asked = state.instances.filter(({ table }) => wanted.has(tableKey(table)));
  const pairs = asked.filter((one) => asked.some((other) => other.id !== one.id && other.sourceId === one.sourceId));
  if (pairs.length === 0) return [];
  const columns = await capturedColumns(
    connection,
    pairs.map(({ id }) => id),
  );
  return tables.flatMap((name) => {
    const own = pairs.filter(({ table }) => tableKey(table) === tableKey(name));
    const chain = chainOf(own, columns);
    const newest = chain.at(-1);
    if (!newest) return [];
    return chain.slice(0, -1).map((old) => ({
      name,
      finding: {
        code: 'CDC_NOT_READY' as const,
        severity: 'warning' as const,
        message: `capture instance ${old.name} of ${displayName(name)} can be dropped once ${newest.name}, which succeeds it, is read`,
        fixSql: [disableTable(name, old.name)],
      },
    }));
  });
}
