/**
 * The control database on MySQL and MariaDB: the few statements that are this engine's own, each as both have it (no RETURNING, no
 * LATERAL, no partial index). Rows are handed over as one JSON text, which JSON_TABLE (MySQL 8.0, MariaDB 10.6) gives types.
 */
import net from 'node:net';
import type { Knex } from 'knex';
import { MYSQL_SCHEMES, parseMysqlAddress } from '../../engines/mysql/address.ts';
import { mysqlLogin, tlsOptions } from '../../engines/mysql/login.ts';
import type { ControlDialect, ControlOptions, CounterRow, Queries } from '../context.ts';
import { MysqlClient, type MysqlSessionSettings } from './mysql-client.ts';
import { classifyMysql, numberOf } from './mysql-errors.ts';
import { impatient, openPool } from './pool.ts';
import { migrationIsTaken, missingRight, readAddress } from './problems.ts';

const DUPLICATE_ENTRY = 1062;
/** "Access denied … to database": it is not there, or the account has no rights in it; who has none is not told which. */
const DATABASE_DENIED = 1044;

/** A statement takes 65,535 parameters at most. */
const ROWS_PER_STATEMENT = 1000;

const SERVER_COLUMNS = 'server_id, server_name, connection_string, is_enabled';
/** Columns a person writes, and the two that say what a flag means, as the poll's fingerprint sees them. */
const MAPPING_COLUMNS =
  'mapping_id, mapping_uid, server_id, source_database, source_schema, source_table, dest_server_id, dest_database, dest_schema, dest_table, primary_key_column, full_sync_trigger_column, is_full_sync, full_sync_flips, is_enabled, cdc_enabled, apply_group, initial_sync, on_gap, max_failed_rows, keep_failed_values';

/**
 * Hashes of hashes: computed where the rows are, so that an idle poll transfers a few dozen bytes. Counters and lag are not part of
 * it; they change all the time and nobody acts upon them.
 */
const FINGERPRINTS = `
  SELECT ${hashOf(SERVER_COLUMNS, 'source_servers', 'server_id')} AS sources,
    ${hashOf(SERVER_COLUMNS, 'destination_servers', 'server_id')} AS destinations,
    ${hashOf(MAPPING_COLUMNS, 'table_mappings', 'mapping_id')} AS mappings,
    ${hashOf('request_id, status, is_confirmed, flag_flip, owner', `full_sync_requests WHERE status IN ('queued', 'running')`, 'request_id')} AS requests,
    ${hashOf('mapping_uid, state, error_code, retry_at, attempts, person_hash, trigger_seen_zero, stream, apply_group', 'mapping_state', 'mapping_uid')} AS states,
    ${hashOf('config_key, config_value', 'config', 'config_key')} AS config,
    (SELECT min_reader_version FROM meta) AS min_reader_version`;

/** JSON_ARRAY tells NULL from '' and one column's end from the next one's begin. */
function hashOf(columns: string, from: string, order: string): string {
  return `(SELECT SHA2(GROUP_CONCAT(SHA2(JSON_ARRAY(${columns}), 256) ORDER BY ${order} SEPARATOR ''), 256) FROM ${from})`;
}

type Fingerprints = Readonly<Record<string, string | number | null>>;

export const mysqlDialect: ControlDialect = {
  name: 'mysql',
  schemes: MYSQL_SCHEMES,
  open,
  classify: classifyMysql,
  isDuplicate: (thrown) => numberOf(thrown) === DUPLICATE_ENTRY,
  now: (queries) => queries.raw('UTC_TIMESTAMP(3)'),
  inSeconds: (queries, seconds) =>
    queries.raw('UTC_TIMESTAMP(3) + INTERVAL ? MICROSECOND', [Math.round(seconds * 1000) * 1000]),

  // The lock is the session's: a transaction keeps one, and DDL commits within it.
  migrateAlone: (queries, seconds, work) =>
    queries.transaction(async (session) => {
      const wait = Math.ceil(seconds);
      await session.raw(`SET SESSION lock_wait_timeout = ${wait}, innodb_lock_wait_timeout = ${wait}`);
      // A lock's name is the server's, and has 64 characters at most.
      const lock = `CONCAT('sluice migration ', LEFT(SHA2(LOWER(DATABASE()), 256), 40))`;
      const [answer] = await rowsOf<{ got: number | string | null }>(
        session.raw(`SELECT GET_LOCK(${lock}, ${wait}) AS got`),
      );
      if (Number(answer?.got ?? 0) !== 1) throw migrationIsTaken(seconds);
      try {
        return await work(session);
      } finally {
        await session.raw(`DO RELEASE_LOCK(${lock})`).catch(() => undefined);
      }
    }),

  async hasSchema(queries) {
    const rows = await rowsOf(
      queries.raw(
        `SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'meta'`,
      ),
    );
    return rows.length > 0;
  },

  async fingerprints(queries) {
    const [row = {}] = await rowsOf<Fingerprints>(queries.raw(FINGERPRINTS));
    return {
      plan: ['sources', 'destinations', 'mappings', 'requests', 'states'].map((name) => row[name] ?? '').join('/'),
      config: String(row['config'] ?? ''),
      minReaderVersion: Number(row['min_reader_version'] ?? 0),
    };
  },

  async addCounters(queries, rows) {
    if (rows.length === 0) return;
    await queries.raw(
      `UPDATE mapping_state AS s
       JOIN JSON_TABLE(?, '$[*]' COLUMNS (uid varchar(36) PATH '$.uid', inserted bigint PATH '$.inserted',
         updated bigint PATH '$.updated', deleted bigint PATH '$.deleted', failed bigint PATH '$.failed',
         position longtext PATH '$.position', lsn longtext PATH '$.lsn', commit_at varchar(30) PATH '$.commit_at',
         behind double PATH '$.behind')) AS v ON s.mapping_uid = v.uid COLLATE utf8mb4_bin
       SET s.rows_inserted = s.rows_inserted + v.inserted, s.rows_updated = s.rows_updated + v.updated,
         s.rows_deleted = s.rows_deleted + v.deleted, s.rows_failed = s.rows_failed + v.failed,
         s.position = COALESCE(v.position, s.position), s.display_lsn = COALESCE(UNHEX(v.lsn), s.display_lsn),
         s.last_commit_at = COALESCE(CAST(v.commit_at AS datetime(3)), s.last_commit_at),
         s.lag_seconds = COALESCE(v.behind, s.lag_seconds), s.updated_at = UTC_TIMESTAMP(3)`,
      [JSON.stringify(rows.map(counterJson))],
    );
  },

  lockRows: (_queries, query) => query.forUpdate() as Promise<never[]>,

  // Our sessions count the rows an update found, as the driver's FOUND_ROWS makes the server do.
  updateRows: (query, change) => query.update(change) as Promise<number>,

  async insertRows(queries, table, rows) {
    for (let at = 0; at < rows.length; at += ROWS_PER_STATEMENT)
      await queries(table).insert(rows.slice(at, at + ROWS_PER_STATEMENT));
  },

  async refreshDisplay(queries) {
    await queries.raw(
      `UPDATE table_mappings AS m
       JOIN mapping_state AS s ON s.mapping_uid = m.mapping_uid
       SET m.last_cdc_sync_at = s.last_commit_at, m.last_cdc_lsn = s.display_lsn
       WHERE NOT (m.last_cdc_sync_at <=> s.last_commit_at AND m.last_cdc_lsn <=> s.display_lsn)`,
    );
  },

  // IGNORE would ignore much else, and ON DUPLICATE KEY UPDATE counts what it found as well.
  async insertMissing(queries, table, rows, unique) {
    if (rows.length === 0) return 0;
    const names = Object.keys(rows[0] ?? {});
    const types = names.map((name) => typeOf(rows.map((row) => row[name])));
    const same = unique.map((name) => `o.${quote(name)} = ${compared(`v.${quote(name)}`, types[names.indexOf(name)])}`);
    const sql = `INSERT INTO ${quote(table)} (${names.map(quote).join(', ')})
      SELECT ${names.map((name) => `v.${quote(name)}`).join(', ')}
      FROM JSON_TABLE(?, '$[*]' COLUMNS (${names.map((name, at) => `${quote(name)} ${types[at] ?? ''} PATH '$.${name}'`).join(', ')})) AS v
      WHERE NOT EXISTS (SELECT 1 FROM ${quote(table)} AS o WHERE ${same.join(' AND ')})`;
    const json = JSON.stringify(rows.map(withoutNulls));
    for (let attempt = 1; ; attempt++) {
      try {
        const made = (await queries.raw(sql, [json])) as unknown as { affectedRows: number };
        return made.affectedRows;
      } catch (error) {
        // Somebody else inserted one of them between our look and our write: look again.
        if (attempt === 5 || numberOf(error) !== DUPLICATE_ENTRY) throw error;
      }
    }
  },
};

type JsonType = 'bigint' | 'longtext';

function typeOf(values: readonly unknown[]): JsonType {
  const known = values.find((value) => value !== null && value !== undefined);
  if (typeof known === 'number') return 'bigint';
  if (known === undefined || typeof known === 'string') return 'longtext';
  throw new Error(`a value of type ${typeof known} cannot be inserted in bulk`);
}

/** What JSON_TABLE gives is of the server's collation, our columns are of a binary one. */
function compared(column: string, type: JsonType | undefined): string {
  return type === 'longtext' ? `${column} COLLATE utf8mb4_bin` : column;
}

/** JSON's null is not SQL's everywhere; what is missing is. Half a surrogate pair is no JSON: UTF-8 replaces it. */
function withoutNulls(row: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(row))
    if (value !== null && value !== undefined)
      kept[name] = typeof value === 'string' ? Buffer.from(value, 'utf8').toString('utf8') : value;
  return kept;
}

function counterJson(row: CounterRow): Record<string, unknown> {
  const commit = row.lastCommitAt ?? null;
  return withoutNulls({
    uid: row.mappingUid,
    inserted: row.inserted,
    updated: row.updated,
    deleted: row.deleted,
    failed: row.failed,
    position: row.position,
    lsn: row.displayLsn ? Buffer.from(row.displayLsn).toString('hex') : null,
    commit_at: commit === null ? null : new Date(commit).toISOString().slice(0, 23).replace('T', ' '),
    behind: row.lagSeconds,
  });
}

async function rowsOf<T = unknown>(answer: Knex.Raw): Promise<T[]> {
  return (await answer) as T[];
}

/** Of names of our own tables and columns, and of the database's. */
function quote(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}

async function open(options: ControlOptions): Promise<Knex> {
  const doing = `open the control database ${options.database}`;
  try {
    return await connect(options, options.database);
  } catch (error) {
    const classified = classifyMysql(error, doing);
    if (classified.code !== 'DATABASE_MISSING' && numberOf(error) !== DATABASE_DENIED) throw classified;
  }
  await createDatabase(options);
  try {
    return await connect(options, options.database);
  } catch (error) {
    throw classifyMysql(error, doing);
  }
}

function connect(options: ControlOptions, database: string | null): Promise<Knex> {
  return openPool(options, MysqlClient, settingsOf(options, database));
}

function settingsOf(options: ControlOptions, database: string | null): MysqlSessionSettings {
  const silenceMs = options.silenceMs ?? 60_000;
  return readAddress(() => {
    const address = parseMysqlAddress(options.url);
    const place = address.socket === null ? { host: address.host, port: address.port } : { path: address.socket };
    return {
      login: {
        ...mysqlLogin(address, database, options.applicationName ?? 'sluice control'),
        ...(options.timeoutMs === undefined ? {} : { connectTimeout: options.timeoutMs }),
        // Statements differ in the length of their lists: a server holds 16,382 prepared ones for everybody.
        maxPreparedStatements: 100,
        stream: () => {
          const socket = net.connect({ ...place, keepAlive: true, keepAliveInitialDelay: 10_000, noDelay: true });
          return impatient(socket, silenceMs);
        },
      },
      tls: address.sslMode === 'disabled' ? null : tlsOptions(address),
      preferTls: address.sslMode === 'preferred',
      sessionStart: sessionStart(options.lockWaitMs ?? 10_000),
    };
  });
}

/**
 * What text, counts and reads mean must not depend on the server's or the account's settings. READ COMMITTED: in a repeatable read a
 * lease would be seen as it was. Locks are waited for in whole seconds here.
 */
function sessionStart(lockWaitMs: number): readonly string[] {
  const wait = Math.max(1, Math.ceil(lockWaitMs / 1000));
  return [
    'SET NAMES utf8mb4 COLLATE utf8mb4_bin',
    `SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO',
       autocommit = 1, foreign_key_checks = 1, unique_checks = 1, sql_auto_is_null = 0, sql_safe_updates = 0, sql_big_selects = 1,
       sql_select_limit = 18446744073709551615, group_concat_max_len = 1073741824, wait_timeout = 28800,
       lock_wait_timeout = ${wait}, innodb_lock_wait_timeout = ${wait}`,
    'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED',
  ];
}

async function createDatabase(options: ControlOptions): Promise<void> {
  const doing = `create the control database ${options.database}`;
  let knex: Knex | null = null;
  try {
    knex = await connect({ ...options, maxConnections: 1 }, null);
    await create(knex, options.database);
  } catch (error) {
    const database = quote(options.database);
    throw missingRight(
      classifyMysql(error, doing),
      `CREATE DATABASE ${database}; GRANT ALL ON ${database}.* TO the account of DEST_URL.`,
    );
  } finally {
    await knex?.destroy().catch(() => undefined);
  }
}

/** Several processes may start at once. */
async function create(queries: Queries, database: string): Promise<void> {
  await queries.raw(
    `CREATE DATABASE IF NOT EXISTS ${quote(database).replaceAll('?', '\\?')} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
  );
}
