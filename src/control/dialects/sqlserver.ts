/**
 * The control database on SQL Server: the few statements that are this engine's own. Only what forks of T-SQL have as well: no MERGE,
 * no table hints, rows locked by an update of themselves.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Knex } from 'knex';
import { parseSqlServerAddress, SQLSERVER_SCHEMES } from '../../engines/sqlserver/address.ts';
import { sqlServerLogin } from '../../engines/sqlserver/login.ts';
import { isKeyValueString } from '../../model/key-value-string.ts';
import type { ControlDialect, ControlOptions, CounterRow, Queries } from '../context.ts';
import { openPool } from './pool.ts';
import { migrationIsTaken, missingRight, readAddress } from './problems.ts';
import { SqlServerClient, type SessionSettings } from './sqlserver-client.ts';
import { dataflowTables } from './sqlserver-dataflow.ts';
import { classifySqlServer, numberOf } from './sqlserver-errors.ts';

const SERVER_COLUMNS = 'server_id, server_name, connection_string, is_enabled';
/** Columns a person writes, and the two that say what a flag means, as the poll's fingerprint sees them. */
const MAPPING_COLUMNS =
  'mapping_id, mapping_uid, server_id, source_database, source_schema, source_table, dest_server_id, dest_database, dest_schema, dest_table, primary_key_column, full_sync_trigger_column, is_full_sync, full_sync_flips, is_enabled, cdc_enabled, apply_group, initial_sync, on_gap, max_failed_rows, keep_failed_values';

/**
 * One hash per table, computed where the rows are, so that an idle poll transfers a few dozen bytes each. Counters and lag
 * are not part of it; they change all the time and nobody acts upon them.
 */
const FINGERPRINTS = `
  SELECT ${hashOf(SERVER_COLUMNS, 'dbo.source_servers', 'server_id')} AS sources,
    ${hashOf(SERVER_COLUMNS, 'dbo.destination_servers', 'server_id')} AS destinations,
    ${hashOf(MAPPING_COLUMNS, 'dbo.table_mappings', 'mapping_id')} AS mappings,
    ${hashOf('request_id, status, is_confirmed, flag_flip, owner', `dbo.full_sync_requests WHERE status IN (N'queued', N'running')`, 'request_id')} AS requests,
    ${hashOf('mapping_uid, state, error_code, retry_at, attempts, person_hash, trigger_seen_zero, stream, apply_group', 'dbo.mapping_state', 'mapping_uid')} AS states,
    ${hashOf('config_key, config_value', 'dbo.config', 'config_key')} AS config,
    (SELECT min_reader_version FROM dbo.meta) AS min_reader_version`;

/** HASHBYTES takes more than 8,000 bytes since SQL Server 2016. */
function hashOf(columns: string, from: string, order: string): string {
  return `HASHBYTES('SHA2_256', (SELECT ${columns} FROM ${from} ORDER BY ${order} FOR JSON PATH, INCLUDE_NULL_VALUES))`;
}

const DAY_MS = 86_400_000;

/** A statement takes 2,100 parameters at most. */
const MOST_PARAMETERS = 2000;

const UNIQUE_VIOLATIONS = [2601, 2627];

export const sqlserverDialect: ControlDialect = {
  name: 'sqlserver',
  schemes: SQLSERVER_SCHEMES,
  understands: isKeyValueString,
  dataflow: dataflowTables,
  open,
  classify: classifySqlServer,
  isDuplicate: (thrown) => UNIQUE_VIOLATIONS.includes(numberOf(thrown) ?? 0),
  now: (queries) => queries.raw('SYSUTCDATETIME()'),
  // DATEADD takes an int: days and milliseconds apart, so that no span is too long.
  inSeconds: (queries, seconds) => {
    const days = Math.trunc((seconds * 1000) / DAY_MS);
    const rest = Math.round(seconds * 1000 - days * DAY_MS);
    return queries.raw('DATEADD(millisecond, ?, DATEADD(day, ?, SYSUTCDATETIME()))', [rest, days]);
  },

  migrateAlone: (queries, seconds, work) =>
    queries.transaction(async (transaction) => {
      await lockMigration(transaction, seconds);
      return work(transaction);
    }),

  async hasSchema(queries) {
    const rows = await rowsOf<{ found: number }>(
      queries.raw(`SELECT CASE WHEN OBJECT_ID(N'dbo.meta', N'U') IS NULL THEN 0 ELSE 1 END AS found`),
    );
    return rows[0]?.found === 1;
  },

  async fingerprints(queries) {
    const [row] = await rowsOf<Record<string, Buffer | number | null>>(queries.raw(FINGERPRINTS));
    const hash = (name: string) => {
      const value = row?.[name];
      return Buffer.isBuffer(value) ? value.toString('hex') : '';
    };
    const version = row?.['min_reader_version'];
    return {
      plan: ['sources', 'destinations', 'mappings', 'requests', 'states'].map(hash).join('/'),
      config: hash('config'),
      minReaderVersion: typeof version === 'number' ? version : 0,
    };
  },

  // One JSON text, whatever the number of rows. Bytes have no form in JSON, and a stand-in leaves the escapes of its texts as they
  // are: both travel end to end in parameters of their own, and each row says where its piece lies.
  async addCounters(queries, rows) {
    if (rows.length === 0) return;
    const lsns = rows.map((row) => row.displayLsn ?? null);
    const positions = rows.map((row) => row.position ?? null);
    const [lsnPlaces, positionPlaces] = [placesOf(lsns), placesOf(positions)];
    const json = rows.map((row, index) => counterJson(row, lsnPlaces[index], positionPlaces[index]));
    await queries.raw(
      `UPDATE s SET
         rows_inserted = s.rows_inserted + v.inserted, rows_updated = s.rows_updated + v.updated,
         rows_deleted = s.rows_deleted + v.deleted, rows_failed = s.rows_failed + v.failed,
         position = CASE WHEN v.position_at IS NULL THEN s.position ELSE SUBSTRING(?, v.position_at, v.position_length) END,
         display_lsn = CASE WHEN v.lsn_at IS NULL THEN s.display_lsn ELSE SUBSTRING(?, v.lsn_at, v.lsn_length) END,
         last_commit_at = COALESCE(CAST(v.commit_at AS datetime2(3)), s.last_commit_at),
         lag_seconds = COALESCE(v.lag, s.lag_seconds), updated_at = SYSUTCDATETIME()
       FROM dbo.mapping_state AS s
       JOIN OPENJSON(?) WITH (uid uniqueidentifier '$.uid', inserted bigint '$.inserted', updated bigint '$.updated',
         deleted bigint '$.deleted', failed bigint '$.failed', position_at int '$.position_at',
         position_length int '$.position_length', lsn_at int '$.lsn_at', lsn_length int '$.lsn_length',
         commit_at nvarchar(30) '$.commit_at', lag float '$.lag') AS v
         ON v.uid = s.mapping_uid`,
      [
        positions.join(''),
        // Not empty: a parameter of no bytes has no type everywhere.
        Buffer.concat([...lsns.filter((lsn) => lsn !== null), Buffer.of(0)]),
        JSON.stringify(json),
      ],
    );
  },

  async lockRows<T>(queries: Queries, query: Knex.QueryBuilder, column: string) {
    return (await query.update({ [column]: queries.ref(column) }).returning('*')) as T[];
  },

  updateRows: async (query, change, column) => ((await query.update(change).returning(column)) as unknown[]).length,

  async insertRows(queries, table, rows) {
    for (const part of inStatements(rows))
      await queries.raw(...(insertOf(table, part, '') as [string, Knex.RawBinding[]]));
  },

  async refreshDisplay(queries) {
    await queries.raw(
      `UPDATE m SET last_cdc_sync_at = s.last_commit_at, last_cdc_lsn = CAST(s.display_lsn AS binary(10))
       FROM dbo.table_mappings AS m
       JOIN dbo.mapping_state AS s ON s.mapping_uid = m.mapping_uid
       WHERE EXISTS (SELECT m.last_cdc_sync_at, m.last_cdc_lsn EXCEPT SELECT s.last_commit_at, CAST(s.display_lsn AS binary(10)))`,
    );
  },

  async insertMissing(queries, table, rows, unique) {
    const same = unique.map((column) => `o.${bracket(column)} = v.${bracket(column)}`).join(' AND ');
    const missing = `WHERE NOT EXISTS (SELECT 1 FROM ${bracket(table)} AS o WHERE ${same})`;
    let made = 0;
    for (const part of inStatements(rows))
      made += await insertRetrying(queries, insertOf(table, part, missing, unique[0]));
    return made;
  },
};

/** Until the end of the transaction. */
async function lockMigration(queries: Queries, seconds: number): Promise<void> {
  const wait = Math.round(seconds * 1000);
  await queries.raw(`SET LOCK_TIMEOUT ${wait}`);
  const rows = await rowsOf<{ result: number }>(
    queries.raw(
      `DECLARE @result int;
       EXEC @result = sp_getapplock @Resource = N'sluice migration', @LockMode = N'Exclusive', @LockOwner = N'Transaction', @LockTimeout = ${wait};
       SELECT @result AS result`,
    ),
  );
  // 0: granted; 1: granted after waiting; below: timeout, cancelled, deadlock victim.
  if ((rows[0]?.result ?? -1) < 0) throw migrationIsTaken(seconds);
}

async function insertRetrying(queries: Queries, [sql, bindings]: [string, Binding[]]): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    try {
      return (await rowsOf(queries.raw(sql, bindings as Knex.RawBinding[]))).length;
    } catch (error) {
      // Somebody else inserted one of them between our look and our write: look again.
      if (attempt === 5 || !UNIQUE_VIOLATIONS.includes(numberOf(error) ?? 0)) throw error;
    }
  }
}

/** Text, or an expression of the database's own such as its clock. */
type Binding = string | Knex.Raw | null;

function* inStatements<T extends Record<string, unknown>>(rows: readonly T[]): Generator<readonly T[]> {
  const size = Math.floor(MOST_PARAMETERS / Math.max(1, Object.keys(rows[0] ?? {}).length));
  for (let at = 0; at < rows.length; at += size) yield rows.slice(at, at + size);
}

/** Values are bound as text, which turns into the columns' types as a literal would: so all rows of a column are of one type. */
function insertOf(
  table: string,
  rows: readonly Record<string, unknown>[],
  where: string,
  output?: string,
): [sql: string, bindings: Binding[]] {
  const names = Object.keys(rows[0] ?? {});
  const columns = names.map(bracket).join(', ');
  const values = `(${names.map(() => '?').join(', ')})`;
  return [
    `INSERT INTO ${bracket(table)} (${columns}) ${output === undefined ? '' : `OUTPUT inserted.${bracket(output)}`}
     SELECT ${names.map((name) => `v.${bracket(name)}`).join(', ')}
     FROM (VALUES ${rows.map(() => values).join(', ')}) AS v (${columns}) ${where}`,
    rows.flatMap((row) => names.map((name) => bindingOf(row[name]))),
  ];
}

function bindingOf(value: unknown): Binding {
  if (value === null || value === undefined) return null;
  if (typeof value === 'string') return value;
  if (typeof value === 'number') return String(value);
  if (typeof value === 'object' && 'toSQL' in value) return value as Knex.Raw;
  throw new Error(`a value of type ${typeof value} cannot be bound`);
}

/** Of names of our own tables and columns only. */
function bracket(name: string): string {
  return `[${name}]`;
}

async function rowsOf<T>(answer: Knex.Raw): Promise<T[]> {
  return (await answer) as T[];
}

interface Place {
  readonly at: number;
  readonly length: number;
}

/** Where each piece begins when they lie end to end, counted from 1. */
function placesOf(pieces: readonly ({ readonly length: number } | null)[]): (Place | null)[] {
  let at = 1;
  return pieces.map((piece) => {
    if (piece === null) return null;
    const place = { at, length: piece.length };
    at += piece.length;
    return place;
  });
}

function counterJson(row: CounterRow, lsn?: Place | null, position?: Place | null): Record<string, unknown> {
  const commit = row.lastCommitAt ?? null;
  return {
    uid: row.mappingUid,
    inserted: row.inserted,
    updated: row.updated,
    deleted: row.deleted,
    failed: row.failed,
    position_at: position?.at,
    position_length: position?.length,
    lsn_at: lsn?.at,
    lsn_length: lsn?.length,
    commit_at: commit === null ? null : new Date(commit).toISOString().slice(0, 23),
    lag: row.lagSeconds ?? null,
  };
}

async function open(options: ControlOptions): Promise<Knex> {
  const doing = `open the control database ${options.database}`;
  try {
    return await connect(options, options.database);
  } catch (error) {
    const classified = classifySqlServer(error, doing);
    if (classified.code !== 'DATABASE_MISSING') throw classified;
  }
  await createDatabase(options);
  for (let attempt = 1; ; attempt++) {
    try {
      return await connect(options, options.database);
    } catch (error) {
      const classified = classifySqlServer(error, doing);
      // Another process is making it: it is there, and cannot be opened yet.
      if (classified.code !== 'DATABASE_MISSING' || attempt === 20) throw classified;
      await pause(100);
    }
  }
}

function connect(options: ControlOptions, database: string): Promise<Knex> {
  return openPool(options, SqlServerClient, loginOf(options, database));
}

function loginOf(options: ControlOptions, database: string): SessionSettings & Record<string, unknown> {
  const silenceMs = options.silenceMs ?? 60_000;
  const login = readAddress(() => sqlServerLogin(parseSqlServerAddress(options.url), database));
  return {
    ...login,
    options: {
      ...login.options,
      appName: options.applicationName ?? 'sluice control',
      ...(options.timeoutMs === undefined ? {} : { connectTimeout: options.timeoutMs }),
      requestTimeout: silenceMs,
      // No answer to the cancellation either: the connection is given up.
      cancelTimeout: Math.min(silenceMs || 5000, 5000),
      lowerCaseGuids: true,
      readOnlyIntent: false,
    },
    // What text and counts mean must not depend on the server's or the login's settings.
    sessionStart: `SET NOCOUNT OFF; SET LANGUAGE us_english; SET DATEFORMAT ymd; SET LOCK_TIMEOUT ${Math.round(options.lockWaitMs ?? 10_000)}`,
  };
}

async function createDatabase(options: ControlOptions): Promise<void> {
  const doing = `create the control database ${options.database}`;
  // From the database the URL names, else from the one every server has. It may take its time.
  const from = readAddress(() => parseSqlServerAddress(options.url)).database ?? 'master';
  let knex: Knex | null = null;
  try {
    knex = await connect({ ...options, maxConnections: 1, silenceMs: 0 }, from);
    await createOnce(knex, options.database);
  } catch (error) {
    const classified = classifySqlServer(error, doing);
    throw missingRight(
      classified,
      `CREATE DATABASE ${quote(options.database)}; and make the login a member of its db_owner.`,
    );
  } finally {
    await knex?.destroy().catch(() => undefined);
  }
}

/** Several processes may start at once: whose statement fails looks whether another's has made it. */
async function createOnce(knex: Knex, database: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await knex.raw(`CREATE DATABASE ${quote(database).replaceAll('?', '\\?')}`);
      break;
    } catch (error) {
      const [found] = await rowsOf(knex.raw('SELECT name FROM sys.databases WHERE name = ?', [database]));
      if (found) return;
      if (attempt === 5 || classifySqlServer(error, 'create it').code === 'PERMISSION_DENIED') throw error;
      await pause(200);
    }
  }
  const [made] = await rowsOf<{ versioned: number }>(
    knex.raw('SELECT is_read_committed_snapshot_on AS versioned FROM sys.databases WHERE name = ?', [database]),
  );
  // Readers of the views, and of our own tables, then wait for no writer. Nobody is in there yet.
  if (made?.versioned === 0)
    await knex.raw(`ALTER DATABASE ${quote(database).replaceAll('?', '\\?')} SET READ_COMMITTED_SNAPSHOT ON`);
}

function quote(name: string): string {
  return `[${name.replaceAll(']', ']]')}]`;
}
