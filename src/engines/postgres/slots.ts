/** The replication slot of a stream: its name, its making, its state (manual: "Logical Decoding", pg_replication_slots). */
import { createHash } from 'node:crypto';
import { SluiceError } from '../../model/errors.ts';
import type { Connection, Row, Session } from './connection.ts';
import { classify, sqlState } from './errors.ts';
import { parseLsn, type Place } from './position.ts';
import { quoteIdentifier, quoteLiteral } from './sql.ts';

/**
 * Name of a stream's slot and publication: `sluice_<installation>_<stream>`, both hashed, 48 characters of [a-z0-9_]. Slots
 * are the whole server's, so the database is part of the hash.
 */
export function streamObjectName(connection: Connection, stream: string): string {
  const hash = (...parts: string[]) => createHash('sha256').update(parts.join('\0')).digest('hex');
  const { uid } = connection.installation;
  return `sluice_${hash(uid).slice(0, 8)}_${hash(uid, connection.database, stream).slice(0, 32)}`;
}

/** A slot as the server shows it. */
export interface SlotState {
  readonly plugin: string | null;
  readonly database: string | null;
  readonly activePid: string | null;
  readonly confirmed: bigint | null;
  /** Bytes of log between `restart_lsn` and the end of the log. */
  readonly retainedBytes: number | null;
  /** `safe_wal_size`: bytes that may still be written before the slot is in danger; null: no limit. */
  readonly safeBytes: number | null;
  /** `reserved`, `extended`, `unreserved`, `lost`. */
  readonly walStatus: string | null;
  /** Why the server invalidated it; null: it did not. */
  readonly invalid: string | null;
}

/**
 * Columns about the source (`system_id`, `timeline`, `lsn`, …) and one slot (`slot_…`, NULL where there is none), as one row; $1
 * is the slot's name. The timeline is the one being written: pg_control_checkpoint() still shows the old one for a while after a
 * promotion. to_jsonb: several columns exist only in later versions.
 */
export const SOURCE_AND_SLOT = `
  SELECT s.system_identifier::text AS system_id, r.standby::text AS standby, current_setting('wal_level') AS wal_level,
    current_setting('server_version_num') AS version, current_user::text AS role, x.lsn::text AS lsn,
    CASE WHEN r.standby
      THEN (SELECT greatest(c.timeline_id, v.min_recovery_end_timeline) FROM pg_control_checkpoint() c, pg_control_recovery() v)
      ELSE ('x' || substr(pg_walfile_name(x.lsn), 1, 8))::bit(32)::int END::text AS timeline,
    (j.slot IS NOT NULL)::text AS slot_found, j.slot ->> 'plugin' AS slot_plugin, j.slot ->> 'database' AS slot_database,
    j.slot ->> 'active_pid' AS slot_pid, j.slot ->> 'confirmed_flush_lsn' AS slot_confirmed,
    pg_wal_lsn_diff(x.lsn, (j.slot ->> 'restart_lsn')::pg_lsn)::text AS slot_retained,
    j.slot ->> 'safe_wal_size' AS slot_safe, j.slot ->> 'wal_status' AS slot_status,
    coalesce(j.slot ->> 'invalidation_reason',
      CASE WHEN j.slot ->> 'wal_status' = 'lost' THEN 'wal_removed' WHEN j.slot ->> 'conflicting' = 'true' THEN 'conflicting' END)
      AS slot_invalid
  FROM pg_control_system() s, pg_is_in_recovery() r(standby),
    LATERAL (SELECT CASE WHEN r.standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END AS lsn) x,
    LATERAL (SELECT (SELECT to_jsonb(p) FROM pg_replication_slots p WHERE p.slot_name = $1) AS slot) j`;

/** The source now: its incarnation and the inserted (on a standby: replayed) end of its log. */
export interface SourceState {
  readonly now: Place;
  readonly standby: boolean;
  readonly walLevel: string;
  readonly version: number;
  readonly role: string;
  readonly slot: SlotState | null;
}

/** Reads the columns of SOURCE_AND_SLOT. */
export function sourceState(row: Row | undefined): SourceState {
  if (!row?.['system_id'] || !row['lsn']) throw new SluiceError('INTERNAL', 'the source did not tell its log position');
  const number = (text: string | null | undefined) => (text === null || text === undefined ? null : Number(text));
  const confirmed = row['slot_confirmed'] ?? null;
  return {
    now: { systemId: row['system_id'], timeline: Number(row['timeline']), lsn: parseLsn(row['lsn']) },
    standby: row['standby'] === 'true',
    walLevel: row['wal_level'] ?? '',
    version: Number(row['version']),
    role: row['role'] ?? '',
    slot:
      row['slot_found'] !== 'true'
        ? null
        : {
            plugin: row['slot_plugin'] ?? null,
            database: row['slot_database'] ?? null,
            activePid: row['slot_pid'] ?? null,
            confirmed: confirmed === null ? null : parseLsn(confirmed),
            retainedBytes: number(row['slot_retained']),
            safeBytes: number(row['slot_safe']),
            walStatus: row['slot_status'] ?? null,
            invalid: row['slot_invalid'] ?? null,
          },
  };
}

/** One round trip. */
export async function readSource(connection: Connection, slot: string): Promise<SourceState> {
  const rows = await connection.query('read the state of the source', SOURCE_AND_SLOT, [slot]);
  return sourceState(rows[0]);
}

export function dropSlotSql(slot: string): string {
  return (
    `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = ${quoteLiteral(slot)} AND active; ` +
    `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = ${quoteLiteral(slot)};`
  );
}

/** Throws CDC_NOT_READY when the server's log does not hold what logical decoding needs. */
export function requireLogicalWal(state: SourceState): void {
  // From 19 on the server raises the level by itself when the first logical slot is made.
  if (state.walLevel === 'logical' || (state.version >= 190_000 && state.walLevel === 'replica')) return;
  throw new SluiceError('CDC_NOT_READY', `wal_level is ${state.walLevel}, changes need logical`, {
    hint: 'ALTER SYSTEM SET wal_level = logical; then restart the server.',
  });
}

/**
 * Makes the slot. Waits for transactions that are older than it, at most `timeoutMs`: then TIMEOUT names them. Several
 * processes may call it at once: the one that comes second finds the slot made.
 */
export async function createSlot(
  connection: Connection,
  slot: string,
  source: SourceState,
  timeoutMs: number,
): Promise<void> {
  const doing = `create replication slot ${slot}`;
  // A standby that takes over goes on from a synchronized copy of the slot (17+); a standby cannot pass its own on.
  const failover = source.version >= 170_000 && !source.standby;
  const session = await connection.open();
  try {
    await session.query('bound the wait', `SET statement_timeout = ${Math.round(timeoutMs)}`);
    await session.query(
      doing,
      `SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, false${failover ? ', true' : ''})`,
      [slot],
    );
  } catch (error) {
    if (sqlState(error) === '42710') return; // somebody else was faster
    throw await explain(error, session, connection, doing, source);
  } finally {
    await connection.release(session);
  }
}

/** What refused the slot, in words that help. */
async function explain(
  error: unknown,
  session: Session,
  connection: Connection,
  doing: string,
  source: SourceState,
): Promise<SluiceError> {
  const classified = classify(error, doing);
  if (classified.code === 'PERMISSION_DENIED') {
    return new SluiceError('PERMISSION_DENIED', classified.message, {
      hint:
        `ALTER ROLE ${quoteIdentifier(source.role)} REPLICATION; ` +
        `(hosted servers have a role for it, for example GRANT rds_replication TO ${quoteIdentifier(source.role)})`,
      cause: error,
    });
  }
  if (classified.code === 'CDC_SLOTS_EXHAUSTED') {
    return new SluiceError('CDC_SLOTS_EXHAUSTED', classified.message, {
      hint:
        'Drop a slot that nobody uses (SELECT slot_name, active, restart_lsn FROM pg_replication_slots), or raise the limit: ' +
        'ALTER SYSTEM SET max_replication_slots = …; then restart the server.',
      cause: error,
    });
  }
  if (classified.code === 'TIMEOUT' && !session.lost) {
    const rows = await connection
      .query(
        'find the transactions that are waited for',
        `SELECT 'pid ' || pid || ' (' || coalesce(datname, '') || ', since ' || to_char(xact_start, 'HH24:MI:SS') || ' UTC)' AS who
         FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
         UNION ALL SELECT 'prepared transaction ' || quote_literal(gid) FROM pg_prepared_xacts`,
      )
      .catch(() => []);
    const who = rows.map((row) => row['who']).join(', ');
    return new SluiceError(
      'TIMEOUT',
      `could not ${doing}: transactions that write have been open all the while: ${who || 'they have just ended'}`,
      {
        hint: 'A slot begins once every transaction that was open has ended. End those sessions: SELECT pg_terminate_backend(pid).',
        cause: error,
      },
    );
  }
  return classified;
}

/** Drops the slot if it is there; a reader that still holds it is terminated and its end waited for. */
export async function dropSlot(connection: Connection, slot: string): Promise<void> {
  const doing = `drop replication slot ${slot}`;
  const until = performance.now() + 10_000;
  for (let pause = 5; ; pause = Math.min(pause * 2, 200)) {
    const rows = await connection.query(
      doing,
      `SELECT active_pid::text AS pid, CASE WHEN active_pid IS NOT NULL THEN pg_terminate_backend(active_pid) END::text AS asked
       FROM pg_replication_slots WHERE slot_name = $1`,
      [slot],
    );
    const found = rows[0];
    if (found === undefined) return;
    if (found['pid'] === null) {
      try {
        await connection.query(doing, 'SELECT pg_drop_replication_slot($1)', [slot]);
        return;
      } catch (error) {
        if (sqlState(error) === '42704') return;
        if (sqlState(error) !== '55006' || performance.now() > until) throw error;
      }
    } else if (performance.now() > until) {
      throw new SluiceError('CDC_IN_USE', `could not ${doing}: process ${found['pid']} still uses it`, {
        hint: dropSlotSql(slot),
      });
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
