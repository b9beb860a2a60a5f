/**
 * dbaops-dataflow keeps its tables on SQL Server: what becomes of each of them, and the statements that do it (../dataflow.ts).
 */
import type { DataflowTables, Queries } from '../context.ts';
import type { Columns, Copy, Layout, OldTable } from '../dataflow-layouts.ts';

/** Its views hold nothing, and ours have these names. */
const OLD_VIEWS = ['v_sync_summary', 'v_recent_errors', 'v_recent_logs'] as const;

function copiesOf(
  layout: Layout,
  columns: Columns,
  called: (table: OldTable) => string,
  settings: readonly string[],
): Copy[] {
  const place = (table: OldTable) => `dbo.${called(table)}`;
  const old = (table: OldTable, column: string, otherwise = 'NULL') =>
    columns.get(table)?.has(column) ? `o.${column}` : otherwise;
  const all = [
    ...serversOf(layout, place),
    mappingsOf(layout, place, old),
    ...logsOf(layout, old),
    {
      from: 'config' as const,
      to: 'config',
      values: same('config_key', 'config_value', 'description', 'updated_at'),
      where: `o.config_key IN (${settings.map((name) => `N'${name}'`).join(', ')})`,
      order: 'config_key',
    },
  ];
  return all.filter(({ from }) => columns.has(from));
}

function same(...names: string[]): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, `o.${name}`]));
}

const SERVER = same('is_enabled', 'created_at', 'updated_at', 'last_connected_at', 'notes');

function serversOf(layout: Layout, place: (table: OldTable) => string): Copy[] {
  if (layout === 'flows')
    return (['source', 'dest'] as const).map((role) => ({
      from: 'flows',
      to: role === 'source' ? 'source_servers' : 'destination_servers',
      values: { server_id: 'o.flow_id', server_name: 'o.flow_name', connection_string: flowString(role), ...SERVER },
      order: 'flow_id',
      keepsId: true,
    }));
  // The tool's driver takes ODBC strings with a prefix; without it they are key=value as any.
  const connection = `CASE WHEN o.connection_string LIKE N'odbc:%' THEN SUBSTRING(o.connection_string, 6, 1000) ELSE o.connection_string END`;
  const values = { ...same('server_id', 'server_name'), connection_string: connection, ...SERVER };
  if (layout === 'source_servers')
    return [{ from: 'source_servers', to: 'source_servers', values, order: 'server_id', keepsId: true }];
  return (['source', 'dest'] as const).map((role) => ({
    from: 'server_connections',
    to: role === 'source' ? 'source_servers' : 'destination_servers',
    values,
    where: `(o.server_type = N'${role.toUpperCase()}' OR EXISTS (SELECT 1 FROM ${place('table_mappings')} AS m WHERE m.${role}_server_id = o.server_id))`,
    order: 'server_id',
    keepsId: true,
  }));
}

/** As the tool put it together, but quoted; it never asked for encryption. */
function flowString(role: 'source' | 'dest'): string {
  const quoted = (column: string) => `N'"', REPLACE(o.${role}_${column}, N'"', N'""'), N'"'`;
  const port = `CASE WHEN CHARINDEX(N',', o.${role}_server) > 0 THEN N'' ELSE CONCAT(N';port=', o.${role}_port) END`;
  return `CONCAT(N'server=', ${quoted('server')}, ${port}, N';user id=', ${quoted('user')}, N';password=', ${quoted('password')}, N';encrypt=disable')`;
}

type Old = (table: OldTable, column: string, otherwise?: string) => string;

/**
 * A full sync is asked of every mapping: nobody knows what the tool's position stands for, and what happened since it last looked.
 * The destination's rows stay until the copy is complete.
 */
function mappingsOf(layout: Layout, place: (table: OldTable) => string, old: Old): Copy {
  const [server, dest, key] = {
    flows: ['flow_id', 'o.flow_id', 'flow_id'],
    server_connections: ['source_server_id', 'o.dest_server_id', 'server_id'],
    source_servers: ['server_id', 'NULL', 'server_id'],
  }[layout] as [string, string, string];
  return {
    from: 'table_mappings',
    to: 'table_mappings',
    values: {
      ...same('mapping_id', 'source_database', 'source_schema', 'source_table'),
      ...same('dest_database', 'dest_schema', 'dest_table', 'is_enabled', 'cdc_enabled', 'created_at', 'updated_at'),
      server_id: `o.${server}`,
      dest_server_id: dest,
      // One column's name there, a list of names here.
      primary_key_column: `CASE WHEN CHARINDEX(N',', o.primary_key_column) > 0 THEN CONCAT(N'"', REPLACE(o.primary_key_column, N'"', N'""'), N'"') ELSE NULLIF(o.primary_key_column, N'') END`,
      full_sync_trigger_column: old('table_mappings', 'full_sync_trigger_column'),
      is_full_sync: '1',
      last_cdc_lsn: old('table_mappings', 'last_cdc_lsn'),
      last_cdc_sync_at: old('table_mappings', 'last_cdc_sync_at'),
      last_full_sync_at: old('table_mappings', 'last_full_sync_at'),
    },
    // Later generations have no foreign keys: a mapping may name a server that is gone.
    where: [server, ...(layout === 'server_connections' ? ['dest_server_id'] : [])]
      .map((column) => `EXISTS (SELECT 1 FROM ${place(layout)} AS s WHERE s.${key} = o.${column})`)
      .join(' AND '),
    order: 'mapping_id',
    keepsId: true,
  };
}

/** Whoever ran is not running any more. */
const ENDED = `CASE WHEN o.status = N'RUNNING' THEN N'ERROR' ELSE o.status END`;
const OPEN_NOTE = N('not finished when the control database was upgraded');

function N(text: string): string {
  return `N'${text}'`;
}

function logsOf(layout: Layout, old: Old): Copy[] {
  const errors = (from: 'error_logs' | 'logs') => ({
    error_code: N('INTERNAL'),
    hint: N('Recorded by the tool that was used before.'),
    fingerprint: `CONCAT(N'dataflow ${from} ', o.${from === 'logs' ? 'log_id' : 'error_id'})`,
  });
  const level = `CASE WHEN o.status IN (N'ERROR', N'FAILED') THEN N'ERROR' WHEN o.status = N'WARNING' THEN N'WARNING' ELSE N'INFO' END`;
  return [
    {
      from: 'sync_status',
      to: 'sync_status',
      values: {
        ...same('mapping_id', 'sync_type', 'records_processed', 'records_failed', 'started_at'),
        status: ENDED,
        completed_at: `CASE WHEN o.status = N'RUNNING' THEN COALESCE(o.completed_at, SYSUTCDATETIME()) ELSE o.completed_at END`,
        error_message: `CASE WHEN o.status = N'RUNNING' THEN COALESCE(o.error_message, ${OPEN_NOTE}) ELSE o.error_message END`,
      },
      order: 'status_id',
    },
    {
      from: 'sync_logs',
      to: 'sync_logs',
      values: same(
        'mapping_id',
        'log_level',
        'log_message',
        'sync_type',
        'records_count',
        'execution_time_ms',
        'created_at',
      ),
      order: 'log_id',
    },
    {
      from: 'error_logs',
      to: 'error_logs',
      values: {
        ...same('mapping_id', 'error_type', 'error_message', 'retry_count', 'is_resolved', 'created_at', 'resolved_at'),
        server_id: layout === 'flows' ? old('error_logs', 'flow_id') : old('error_logs', 'server_id'),
        error_details: `CASE WHEN o.stack_trace IS NULL THEN o.error_details ELSE CONCAT(o.error_details, CHAR(10), o.stack_trace) END`,
        last_seen_at: 'COALESCE(o.resolved_at, o.created_at)',
        ...errors('error_logs'),
      },
      order: 'error_id',
    },
    {
      from: 'verification_logs',
      to: 'verification_logs',
      values: {
        ...same('mapping_id', 'verification_type', 'source_row_count', 'dest_row_count', 'records_compared'),
        ...same('mismatches_found', 'verification_status', 'verification_details', 'verified_at'),
        source_md5: old('verification_logs', 'source_md5'),
        dest_md5: old('verification_logs', 'dest_md5'),
      },
      order: 'verification_id',
    },
    {
      from: 'logs',
      to: 'sync_logs',
      values: {
        mapping_id: 'o.mapping_id',
        log_level: level,
        log_message: 'o.log_message',
        sync_type: `CASE WHEN o.log_type IN (N'CDC', N'FULL_SYNC', N'VERIFICATION') THEN o.log_type END`,
        records_count: 'o.records_count',
        execution_time_ms: 'o.duration_ms',
        created_at: 'o.created_at',
        details: `CONCAT(o.log_type, N' ', o.status, N', flow ', o.flow_id)`,
      },
      order: 'log_id',
    },
    {
      from: 'logs',
      to: 'error_logs',
      values: {
        mapping_id: 'o.mapping_id',
        server_id: 'o.flow_id',
        error_type: `CASE WHEN o.log_type IN (N'CDC', N'CONNECTION', N'VERIFICATION') THEN o.log_type ELSE N'SYNC' END`,
        error_message: 'o.log_message',
        // A mapping's are resolved once it runs; of the rest nobody would.
        is_resolved: 'CASE WHEN o.mapping_id IS NULL THEN 1 ELSE 0 END',
        resolved_at: 'CASE WHEN o.mapping_id IS NULL THEN o.created_at END',
        created_at: 'o.created_at',
        last_seen_at: 'o.created_at',
        ...errors('logs'),
      },
      where: `o.status IN (N'ERROR', N'FAILED') AND o.log_type <> N'VERIFICATION'`,
      order: 'log_id',
    },
    {
      from: 'logs',
      to: 'verification_logs',
      values: {
        mapping_id: 'o.mapping_id',
        verification_type: N('MD5_COMPARISON'),
        records_compared: 'COALESCE(o.records_count, 0)',
        verification_status: `CASE WHEN o.status = N'SUCCESS' THEN N'PASSED' ELSE N'FAILED' END`,
        verification_details: 'o.log_message',
        verified_at: 'o.created_at',
        duration_ms: 'o.duration_ms',
      },
      where: `o.log_type = N'VERIFICATION' AND o.status IN (N'SUCCESS', N'FAILED', N'ERROR') AND o.mapping_id IS NOT NULL`,
      order: 'log_id',
    },
  ];
}

async function readColumns(queries: Queries): Promise<Columns> {
  const rows = await queries.raw<{ table_name: string; column_name: string }[]>(
    `SELECT t.name AS table_name, c.name AS column_name FROM sys.tables AS t JOIN sys.columns AS c ON c.object_id = t.object_id
     WHERE t.schema_id = SCHEMA_ID(N'dbo')`,
  );
  const found = new Map<string, Set<string>>();
  for (const row of rows) {
    const name = row.table_name.toLowerCase();
    const columns = found.get(name) ?? new Set();
    found.set(name, columns.add(row.column_name.toLowerCase()));
  }
  return found;
}

async function carry(queries: Queries, { to, values, where, order, keepsId }: Copy, from: string): Promise<void> {
  const names = Object.keys(values);
  const insert =
    `INSERT INTO dbo.${to} (${names.join(', ')}) SELECT ${names.map((name) => values[name]).join(', ')} ` +
    `FROM dbo.${from} AS o ${where === undefined ? '' : `WHERE ${where}`} ORDER BY o.${order}`;
  // One batch: the setting is the session's, and holds for one table at a time.
  await queries.raw(
    keepsId ? `SET IDENTITY_INSERT dbo.${to} ON; ${insert}; SET IDENTITY_INSERT dbo.${to} OFF` : insert,
  );
}

async function count(queries: Queries, table: string, where = '1 = 1'): Promise<number> {
  const [row] = await queries.raw<{ n: unknown }[]>(`SELECT COUNT_BIG(*) AS n FROM dbo.${table} AS o WHERE ${where}`);
  return Number(row?.n);
}

function renameSql(from: string, to: string): string {
  return `EXEC sp_rename N'dbo.${from}', N'${to}', N'OBJECT'`;
}

export const dataflowTables: DataflowTables = {
  readColumns,
  renameSql,
  keep: async (queries, renamed) => {
    for (const view of OLD_VIEWS) await queries.raw(`DROP VIEW IF EXISTS dbo.${view}`);
    for (const { from, to } of renamed) await queries.raw(renameSql(from, to));
  },
  copies: copiesOf,
  carry,
  count,
};
