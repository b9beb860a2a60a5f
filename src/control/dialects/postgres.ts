/** The control database on PostgreSQL: the few statements that are this engine's own. */
import { Socket } from 'node:net';
import type { Knex } from 'knex';
import { parse } from 'pg-connection-string';
import { SluiceError } from '../../model/errors.ts';
import type { ControlDialect, ControlOptions, CounterRow } from '../context.ts';
import { impatient, openPool } from './pool.ts';
import { classifyPostgres, stateOf } from './postgres-errors.ts';
import { missingRight } from './problems.ts';

/** Any number nobody else uses: "Sluice" in ASCII, cut to what a bigint key takes. */
const MIGRATION_LOCK = 0x536c75696365;

/** Columns a person writes, and the two that say what a flag means, as the poll's fingerprint sees them. */
const MAPPING_COLUMNS =
  'm.mapping_id, m.mapping_uid, m.server_id, m.source_database, m.source_schema, m.source_table, m.dest_server_id, m.dest_database, m.dest_schema, m.dest_table, m.primary_key_column, m.full_sync_trigger_column, m.is_full_sync, m.full_sync_flips, m.is_enabled, m.cdc_enabled, m.apply_group, m.initial_sync, m.on_gap, m.max_failed_rows, m.keep_failed_values';

/**
 * Hashes of hashes: computed where the rows are, so that an idle poll transfers two of them. Counters and lag are not
 * part of it; they change all the time and nobody acts upon them.
 */
const FINGERPRINTS = `
  SELECT md5(concat_ws('|',
      (SELECT md5(string_agg(md5(row(server_id, server_name, connection_string, is_enabled)::text), '' ORDER BY server_id)) FROM source_servers),
      '/', (SELECT md5(string_agg(md5(row(server_id, server_name, connection_string, is_enabled)::text), '' ORDER BY server_id)) FROM destination_servers),
      '/', (SELECT md5(string_agg(md5(row(${MAPPING_COLUMNS})::text), '' ORDER BY m.mapping_id)) FROM table_mappings m),
      '/', (SELECT md5(string_agg(md5(row(request_id, status, is_confirmed, flag_flip, owner)::text), '' ORDER BY request_id))
            FROM full_sync_requests WHERE status IN ('queued', 'running')),
      '/', (SELECT md5(string_agg(md5(row(mapping_uid, state, error_code, retry_at, attempts, person_hash, trigger_seen_zero, stream, apply_group)::text), '' ORDER BY mapping_uid))
            FROM mapping_state))) AS plan,
    (SELECT md5(string_agg(md5(row(config_key, config_value)::text), '' ORDER BY config_key)) FROM config) AS config,
    (SELECT min_reader_version FROM meta) AS min_reader_version`;

export const postgresDialect: ControlDialect = {
  name: 'postgres',
  schemes: ['postgres', 'postgresql'],
  open,
  classify: classifyPostgres,
  isDuplicate: (thrown) => stateOf(thrown) === '23505',
  // clock_timestamp, not now(): within a transaction now() stands still.
  now: (queries) => queries.raw('clock_timestamp()'),
  inSeconds: (queries, seconds) => queries.raw(`clock_timestamp() + ? * interval '1 second'`, [seconds]),

  migrateAlone: (queries, seconds, work) =>
    queries.transaction(async (transaction) => {
      await transaction.raw(`SET LOCAL lock_timeout = ${Math.round(seconds * 1000)}`);
      await transaction.raw('SELECT pg_advisory_xact_lock(?)', [MIGRATION_LOCK]);
      return work(transaction);
    }),

  async hasSchema(queries) {
    const result = await queries.raw<{ rows: { found: boolean }[] }>(`SELECT to_regclass('meta') IS NOT NULL AS found`);
    return result.rows[0]?.found === true;
  },

  async fingerprints(queries) {
    const result = await queries.raw<{ rows: { plan: string; config: string | null; min_reader_version: number }[] }>(
      FINGERPRINTS,
    );
    const row = result.rows[0];
    return { plan: row?.plan ?? '', config: row?.config ?? '', minReaderVersion: row?.min_reader_version ?? 0 };
  },

  async addCounters(queries, rows) {
    await queries.raw(
      `UPDATE mapping_state s SET
         rows_inserted = s.rows_inserted + v.inserted, rows_updated = s.rows_updated + v.updated,
         rows_deleted = s.rows_deleted + v.deleted, rows_failed = s.rows_failed + v.failed,
         position = coalesce(v.position, s.position),
         display_lsn = coalesce(decode(v.lsn, 'hex'), s.display_lsn),
         last_commit_at = coalesce(to_timestamp(v.commit_ms / 1000.0), s.last_commit_at),
         lag_seconds = coalesce(v.lag, s.lag_seconds), updated_at = clock_timestamp()
       FROM json_to_recordset(CAST(? AS json)) AS v (uid uuid, inserted bigint, updated bigint, deleted bigint, failed bigint,
         position text, lsn text, commit_ms double precision, lag double precision)
       WHERE s.mapping_uid = v.uid`,
      [JSON.stringify(rows.map(counterJson))],
    );
  },

  lockRows: (_queries, query) => query.forUpdate() as Promise<never[]>,

  updateRows: async (query, change, column) => ((await query.update(change).returning(column)) as unknown[]).length,

  // A statement takes 65,535 parameters at most.
  async insertRows(queries, table, rows) {
    for (let at = 0; at < rows.length; at += 1000) await queries(table).insert(rows.slice(at, at + 1000));
  },

  async refreshDisplay(queries) {
    await queries.raw(
      `UPDATE table_mappings m SET last_cdc_sync_at = s.last_commit_at, last_cdc_lsn = s.display_lsn
       FROM mapping_state s
       WHERE s.mapping_uid = m.mapping_uid
         AND (m.last_cdc_sync_at, m.last_cdc_lsn) IS DISTINCT FROM (s.last_commit_at, s.display_lsn)`,
    );
  },

  async insertMissing(queries, table, rows, unique) {
    if (rows.length === 0) return 0;
    const made = (await queries(table)
      .insert(rows)
      .onConflict(unique as string[])
      .ignore()
      .returning(unique[0] ?? '*')) as unknown[];
    return made.length;
  },
};

function counterJson(row: CounterRow): Record<string, unknown> {
  return {
    uid: row.mappingUid,
    inserted: row.inserted,
    updated: row.updated,
    deleted: row.deleted,
    failed: row.failed,
    position: row.position ?? null,
    lsn: row.displayLsn ? Buffer.from(row.displayLsn).toString('hex') : null,
    commit_ms: row.lastCommitAt ?? null,
    lag: row.lagSeconds ?? null,
  };
}

async function open(options: ControlOptions): Promise<Knex> {
  const doing = `open the control database ${options.database}`;
  const connection = connectionOf(options, options.database, doing);
  try {
    return await connect(options, connection);
  } catch (error) {
    if (stateOf(error) !== '3D000') throw classifyPostgres(error, doing);
  }
  await createDatabase(options);
  try {
    return await connect(options, connection);
  } catch (error) {
    throw classifyPostgres(error, doing);
  }
}

interface Target {
  readonly settings: Record<string, unknown>;
  /** No sslmode was asked for: TLS is tried first, as libpq does. */
  readonly preferTls: boolean;
}

function connectionOf(options: ControlOptions, database: string | null, doing: string): Target {
  try {
    const url = new URL(options.url);
    const mode = url.searchParams.get('sslmode');
    const preferTls = mode === null || mode === 'prefer' || mode === 'allow';
    if (preferTls) url.searchParams.delete('sslmode');
    const parsed = parse(url.toString(), { useLibpqCompat: true });
    const settings: Record<string, unknown> = {
      ...parsed,
      port: parsed.port ? Number(parsed.port) : 5432,
      database: database ?? (parsed.database || 'postgres'),
      application_name: options.applicationName ?? 'sluice control',
      connectionTimeoutMillis: options.timeoutMs ?? 15_000,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      stream: () => impatient(new Socket(), options.silenceMs ?? 60_000),
    };
    return { settings, preferTls };
  } catch (error) {
    const reason = stateOf(error);
    throw new SluiceError('CONFIG_INVALID', `could not ${doing}: DEST_URL cannot be used (${reason ?? 'not a URL'})`, {
      hint: 'Write postgres://user:password@host:5432/; percent-encode special characters of the password.',
    });
  }
}

async function connect(options: ControlOptions, target: Target): Promise<Knex> {
  const attempt = (ssl: Record<string, unknown>) =>
    openPool(
      options,
      'pg',
      { ...target.settings, ...ssl },
      (session: RawSession, done: (error: unknown, session: RawSession) => void) =>
        session.query(sessionSettings(options), (error) => done(error, session)),
    );
  if (!target.preferTls) return attempt({});
  try {
    return await attempt({ ssl: { rejectUnauthorized: false } });
  } catch (error) {
    if (!(error instanceof Error) || !/does not support SSL/i.test(error.message)) throw error;
    return attempt({ ssl: false });
  }
}

interface RawSession {
  query(sql: string, done: (error: unknown) => void): void;
}

/**
 * What text means must not depend on the server's or the login's settings: the driver reads ISO dates, and the fingerprints
 * print times. Sent as statements, not as start-up options, which poolers refuse.
 */
function sessionSettings(options: ControlOptions): string {
  const lockWaitMs = Math.round(options.lockWaitMs ?? 10_000);
  return `SET datestyle = 'ISO, MDY'; SET timezone = 'UTC'; SET lock_timeout = ${lockWaitMs}`;
}

async function createDatabase(options: ControlOptions): Promise<void> {
  const doing = `create the control database ${options.database}`;
  const named = new URL(options.url).pathname.length > 1;
  // From the database the URL names, else from the one every server has.
  const from = connectionOf(options, null, doing);
  let knex: Knex | null = null;
  try {
    knex = await connect(
      { ...options, maxConnections: 1 },
      named ? from : { ...from, settings: { ...from.settings, database: 'postgres' } },
    );
    await knex.raw('CREATE DATABASE ??', [options.database]);
  } catch (error) {
    // Another process made it between our look and our statement.
    if (['42P04', '23505'].includes(stateOf(error) ?? '')) return;
    const classified = classifyPostgres(error, doing);
    throw missingRight(classified, `CREATE DATABASE ${quote(options.database)} OWNER <the login>;`);
  } finally {
    await knex?.destroy().catch(() => undefined);
  }
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
