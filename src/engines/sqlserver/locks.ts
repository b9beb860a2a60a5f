/**
 * Waiting for the rows that coordinate, and getting past holders that are frozen (PROTOCOL, Ownership).
 *
 * A position or generation is locked by updating a row of `sluice.locks` that stands for it: without READ_COMMITTED_SNAPSHOT
 * whoever reads a row waits for the one who has updated it, and positions and states are read by everybody, also while a long
 * fold holds the lock. By UPDATE, because UPDLOCK is a hint, which other servers of this dialect ignore.
 *
 * Who holds a lock cannot be asked of every server (sys.dm_exec_requests); so whoever is going to lock says so before, in
 * `sluice.lockers`.
 */
import { SluiceError, hasCode } from '../../model/errors.ts';
import type { Connection, Parameters, Session } from './connection.ts';
import { numberOf, textOf } from '../row-values.ts';
import { quoteLiteral } from './sql.ts';

export function groupLock(stream: string, group: string): string {
  return `group ${stream}/${group}`;
}

export function mappingLock(mappingUid: string): string {
  return `mapping ${mappingUid}`;
}

/** A session is stored by process id and login time, so that another one that got the same id later is not mistaken for it. */
const SESSION_ID = `CAST(s.session_id AS nvarchar(12)) + N'@' + CONVERT(nvarchar(33), s.login_time, 126)`;

const ANNOUNCE = `INSERT INTO sluice.lockers (name, session) SELECT @name, @session
  WHERE NOT EXISTS (SELECT 1 FROM sluice.lockers WHERE name = CAST(@name AS nvarchar(440)) AND session = CAST(@session AS nvarchar(60)))`;

/** Sessions but @me that may hold the lock @name. Uncommitted announcements will do: nothing is lost by a wrong one. */
const LOCKERS = `FROM sluice.lockers AS l WITH (READUNCOMMITTED) INNER JOIN sys.dm_exec_sessions AS s ON ${SESSION_ID} = l.session
  WHERE l.name = CAST(@name AS nvarchar(440)) AND l.session <> @me`;

/** Of one session that locks coordinating rows. */
export class Locker {
  readonly id: string;
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #lockWaitMs: number;
  readonly #announced = new Set<string>();

  private constructor(connection: Connection, session: Session, lockWaitMs: number, id: string) {
    this.#connection = connection;
    this.#session = session;
    this.#lockWaitMs = lockWaitMs;
    this.id = id;
  }

  static async of(connection: Connection, session: Session, lockWaitMs: number): Promise<Locker> {
    const [row] = await session.query(
      'identify the session',
      `SELECT ${SESSION_ID} AS id FROM sys.dm_exec_sessions AS s WHERE s.session_id = @@SPID`,
    );
    const id = textOf(row, 'id');
    if (id === null) throw new SluiceError('INTERNAL', 'the server does not know our session');
    return new Locker(connection, session, lockWaitMs, id);
  }

  /** Outside a transaction, waiting for nobody: makes the row that is locked where it is missing, forgets sessions that are gone, and announces this one. */
  async enter(name: string): Promise<void> {
    const enter = () =>
      this.#session.query(
        'make a row to lock',
        `INSERT INTO sluice.locks (name) SELECT @name WHERE NOT EXISTS (SELECT 1 FROM sluice.locks WITH (READUNCOMMITTED) WHERE name = CAST(@name AS nvarchar(440)));
         DELETE FROM sluice.lockers WHERE name = CAST(@name AS nvarchar(440)) AND HAS_PERMS_BY_NAME(NULL, NULL, N'VIEW SERVER STATE') = 1
           AND session NOT IN (SELECT ${SESSION_ID} FROM sys.dm_exec_sessions AS s);
         ${ANNOUNCE}`,
        { name, session: this.id },
      );
    await enter().catch((error: unknown) => {
      // Somebody else was faster.
      if (!hasCode(error, 'ROW_REFUSED')) throw error;
      return enter();
    });
    this.#announced.add(name);
  }

  /** The statement by which a name is locked until the transaction ends; its one row says that there is such a name. */
  static lockSql(name: string): string {
    return `UPDATE sluice.locks SET held = held OUTPUT inserted.held AS held WHERE name = ${quoteLiteral(name)}`;
  }

  /** Within a transaction. False: there is no such name (any more). */
  async lock(name: string): Promise<boolean> {
    const rows = await this.past(name, () => this.#session.query('lock a coordinating row', Locker.lockSql(name)));
    return rows.length > 0;
  }

  /**
   * Runs `attempt` (which waits for `name`); while it waits, those who may hold it and have been idle in their transaction for
   * `lockWaitMs` are ended, and with `formerOwner` that session at once when the wait grows that long.
   */
  async past<T>(name: string, attempt: () => Promise<T>, formerOwner: string | null = null): Promise<T> {
    await this.announce(name);
    let done = false;
    const watch = async () => {
      for (;;) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, this.#lockWaitMs);
          timer.unref();
        });
        if (done) return;
        if (formerOwner !== null) await this.#terminate(formerOwner).catch(() => undefined);
        await this.#terminateFrozen(name).catch(() => undefined);
      }
    };
    void watch();
    try {
      return await attempt();
    } finally {
      done = true;
    }
  }

  async announce(name: string): Promise<void> {
    if (this.#announced.has(name)) return;
    await this.#connection.query('say who may hold a lock', ANNOUNCE, { name, session: this.id });
    this.#announced.add(name);
  }

  /** This session copies to the mapping, and is to be ended when somebody else ends the copy. */
  async announceCopier(mappingUid: string): Promise<void> {
    const name = mappingLock(mappingUid);
    await this.announce(name);
    await this.#connection.query(
      'say who copies',
      `UPDATE sluice.lockers SET is_copier = 1 WHERE name = CAST(@name AS nvarchar(440)) AND session = CAST(@session AS nvarchar(60))`,
      { name, session: this.id },
    );
  }

  /** When the session is given up. What a killed process leaves is removed by those who lock the same names later. */
  async close(): Promise<void> {
    await this.#retract().catch(() => undefined);
  }

  /** When the session is done with, and may be used for something else: only if nobody takes it for a holder any more. */
  async leave(): Promise<void> {
    try {
      await this.#retract();
    } catch {
      await this.#connection.release(this.#session);
      return;
    }
    await this.#connection.giveBack(this.#session);
  }

  async #retract(): Promise<void> {
    if (this.#announced.size === 0) return;
    await this.#connection.query(
      'take back who may hold a lock',
      `DELETE FROM sluice.lockers WHERE session = CAST(@session AS nvarchar(60))`,
      { session: this.id },
    );
    this.#announced.clear();
  }

  /**
   * Ends the sessions of the mapping's copiers but this one. Their copy is over by what the caller does next, and a statement of
   * theirs may run for long and hold the tables that are to be dropped, under the position's lock. Without the right to it they are
   * waited for.
   */
  async endCopiers(mappingUid: string): Promise<void> {
    await killSessions(this.#connection, `${LOCKERS} AND l.is_copier = 1`, {
      name: mappingLock(mappingUid),
      me: this.id,
    }).catch(() => undefined);
  }

  #terminate(id: string): Promise<void> {
    return killSessions(this.#connection, `FROM sys.dm_exec_sessions AS s WHERE ${SESSION_ID} = @id`, { id });
  }

  /** An idle session inside a transaction does nothing; one at work is waited for. */
  #terminateFrozen(name: string): Promise<void> {
    return killSessions(
      this.#connection,
      `${LOCKERS} AND (s.status = N'sleeping' AND s.open_transaction_count > 0 OR s.status LIKE N'idle in transaction%')
        AND s.last_request_end_time < DATEADD(millisecond, -CAST(@idle AS int), GETDATE())`,
      { name, me: this.id, idle: this.#lockWaitMs },
    );
  }
}

/** A read of a position or state that takes this long waits for a row that somebody has written and not committed. */
const SLOW_READ_MS = 15_000;

/**
 * Runs `read`, which takes no lock of ours. Without row versions it waits for whoever has just written the row, for a moment;
 * when that goes on, those of our sessions that block somebody and are idle inside their transaction are ended. A server that is
 * not asked this way (no sys.dm_exec_requests) has row versions.
 */
export async function pastFrozenWriters<T>(connection: Connection, read: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => {
    void killSessions(
      connection,
      `FROM (SELECT DISTINCT blocking_session_id AS id FROM sys.dm_exec_requests) AS r
        INNER JOIN sys.dm_exec_sessions AS s ON s.session_id = r.id
        WHERE s.status = N'sleeping' AND s.open_transaction_count > 0
          AND s.last_request_end_time < DATEADD(millisecond, -CAST(@idle AS int), GETDATE())
          AND ${SESSION_ID} IN (SELECT l.session FROM sluice.lockers AS l WITH (READUNCOMMITTED))`,
      { idle: SLOW_READ_MS },
    ).catch(() => undefined);
  }, SLOW_READ_MS);
  timer.unref();
  try {
    return await read();
  } finally {
    clearInterval(timer);
  }
}

/** KILL needs ALTER ANY CONNECTION, and takes no parameter. One that fails (it is gone) keeps no other from being ended. */
async function killSessions(connection: Connection, sessions: string, parameters: Parameters): Promise<void> {
  const rows = await connection.query(
    'look for sessions that hold a lock',
    `SELECT DISTINCT s.session_id AS spid ${sessions}`,
    parameters,
  );
  for (const row of rows) {
    const spid = numberOf(row, 'spid');
    if (spid === null || !Number.isSafeInteger(spid)) continue;
    await connection
      .use((session) => session.run('end a session that holds a lock', [`KILL ${spid}`]))
      .catch(() => undefined);
  }
}

/** A lock on a table was not to be had in time (LOCK_TIMEOUT), or a deadlock was broken at our cost. */
export function isLockFailure(error: unknown): boolean {
  return hasCode(error, 'TIMEOUT', 'DEADLOCK');
}
