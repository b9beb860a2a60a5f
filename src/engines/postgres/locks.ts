/** Waiting for rows that coordinate, and getting past holders that are frozen (PROTOCOL, Ownership). */
import { hasCode } from '../../model/errors.ts';
import type { Connection, Session } from './connection.ts';

/**
 * A session as it is stored beside what it owns: process id and start time, so that another process that got the same id
 * later is not mistaken for it.
 */
export async function sessionId(session: Session): Promise<string> {
  const [row] = await session.query(
    'identify the session',
    `SELECT pid || '@' || extract(epoch FROM backend_start)::numeric(20, 6) AS id FROM pg_stat_activity WHERE pid = pg_backend_pid()`,
  );
  return row?.['id'] ?? `${session.pid}@`;
}

/** Terminates a stored session if it still lives. Needs pg_signal_backend, or the same role. */
export async function terminate(connection: Connection, id: string): Promise<void> {
  await connection.query(
    'end the former owner’s session',
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE pid || '@' || extract(epoch FROM backend_start)::numeric(20, 6) = $1`,
    [id],
  );
}

/**
 * Ends the session of the mapping's copier, if one is stored and it is not our own. Its copy is over by what the caller does
 * next, and a statement of it may run for long and hold the tables that are to be dropped, under the position row's lock. Without the
 * right to it they are waited for.
 */
export async function endCopier(connection: Connection, session: Session, mappingUid: string): Promise<void> {
  await connection
    .query(
      'end the former copier’s session',
      `SELECT pg_terminate_backend(a.pid) FROM sluice.generations g JOIN pg_stat_activity a
          ON a.pid || '@' || extract(epoch FROM a.backend_start)::numeric(20, 6) = g.copy_session
        WHERE g.mapping_uid = $1 AND a.pid <> $2::int`,
      [mappingUid, session.pid],
    )
    .catch(() => undefined);
}

/**
 * Ends whoever blocks `pid` and does nothing: idle inside a transaction for longer than `idleMs`. All of them are ours (only
 * Sluice locks these rows); an active one is at work and is waited for.
 */
async function terminateFrozen(connection: Connection, pid: number, idleMs: number): Promise<void> {
  await connection.query(
    'end a frozen session',
    `SELECT pg_terminate_backend(a.pid) FROM unnest(pg_blocking_pids($1::int)) AS b(pid) JOIN pg_stat_activity a ON a.pid = b.pid
      WHERE a.state LIKE 'idle in transaction%' AND a.state_change < clock_timestamp() - make_interval(secs => $2::float8 / 1000)`,
    [pid, idleMs],
  );
}

/**
 * Runs `attempt` (which waits for coordinating rows on `session`); while it waits, holders that have been idle in their
 * transaction for `lockWaitMs` are ended, and with `formerOwner` that session at once when the wait grows that long.
 */
export async function pastFrozenHolders<T>(
  connection: Connection,
  session: Session,
  lockWaitMs: number,
  attempt: () => Promise<T>,
  formerOwner: string | null = null,
): Promise<T> {
  let done = false;
  const watch = async () => {
    for (;;) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, lockWaitMs);
        timer.unref();
      });
      if (done) return;
      if (formerOwner !== null) await terminate(connection, formerOwner).catch(() => undefined);
      await terminateFrozen(connection, session.pid, lockWaitMs).catch(() => undefined);
    }
  };
  void watch();
  try {
    return await attempt();
  } finally {
    done = true;
  }
}

/** A lock on a table was not to be had in time (lock_timeout), or a deadlock was broken at our cost. */
export function isLockFailure(error: unknown): boolean {
  return hasCode(error, 'TIMEOUT', 'DEADLOCK');
}
