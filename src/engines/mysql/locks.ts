/**
 * Waiting for the rows that coordinate, and getting past holders that are frozen (PROTOCOL, Ownership).
 *
 * Every row that is locked for longer than a round trip is doubled by a lock of the session's own (GET_LOCK), taken before it: such
 * a lock outlives the commits that DDL makes by itself, and the server says who holds it (IS_USED_LOCK), so that a holder who
 * does nothing can be ended without a right: a login may always end its own sessions.
 */
import { randomBytes } from 'node:crypto';
import { hasCode } from '../../model/errors.ts';
import { numberOf, textOf } from '../row-values.ts';
import type { Connection, Session } from './connection.ts';
import { lockName } from './home.ts';
import { quoteLiteral } from './sql.ts';

/** Locks that one session takes, always the group's before a mapping's (PROTOCOL, lock order). */
export class Locker {
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #lockWaitMs: number;
  readonly #held = new Set<string>();
  #ownLock: { readonly mappingUid: string; readonly name: string } | null = null;

  constructor(connection: Connection, session: Session, lockWaitMs: number) {
    this.#connection = connection;
    this.#session = session;
    this.#lockWaitMs = lockWaitMs;
  }

  group(stream: string, group: string, formerOwner: number | null = null): Promise<void> {
    return this.take(lockName(this.#connection, 'group', `${stream}/${group}`), formerOwner);
  }

  mapping(mappingUid: string): Promise<void> {
    return this.take(lockName(this.#connection, 'mapping', mappingUid));
  }

  /** While it waits, the holder is ended when it has been idle for `lockWaitMs`, and at once when it is `formerOwner`. */
  async take(name: string, formerOwner: number | null = null): Promise<void> {
    if (this.#held.has(name)) return;
    const seconds = Math.max(1, Math.ceil(this.#lockWaitMs / 1000));
    for (;;) {
      const [row] = await this.#session.query(
        'wait for a lock',
        `SELECT GET_LOCK(${quoteLiteral(name)}, ${seconds}) AS got`,
      );
      if (numberOf(row, 'got') === 1) break;
      await this.#endFrozen(name, formerOwner).catch(() => undefined);
    }
    this.#held.add(name);
  }

  /** Statements that let go of every lock, to be sent with the end of the transaction; then `released`. */
  releasing(): string[] {
    return [...this.#held].map((name) => `DO RELEASE_LOCK(${quoteLiteral(name)})`);
  }

  released(): void {
    this.#held.clear();
  }

  async release(): Promise<void> {
    const statements = this.releasing();
    if (statements.length > 0 && !this.#session.lost) await this.#session.run('let go of locks', statements);
    this.released();
  }

  /** This session copies to the mapping, and is to be ended when somebody else ends the copy. */
  async announceCopier(mappingUid: string): Promise<void> {
    const name = `sluice.copier.${randomBytes(16).toString('hex')}`;
    await this.#session.query('mark the session', `SELECT GET_LOCK(${quoteLiteral(name)}, 0) AS got`);
    await this.#connection.query(
      'say who copies',
      'INSERT INTO sluice_copiers (mapping_uid, session_lock) VALUES (?, ?)',
      [mappingUid, name],
    );
    this.#ownLock = { mappingUid, name };
  }

  /** When the session is given up. What a killed process leaves is removed by whoever ends its copy. */
  async retract(): Promise<void> {
    if (this.#ownLock === null) return;
    const { mappingUid, name } = this.#ownLock;
    this.#ownLock = null;
    await this.#connection
      .query('no longer copy', 'DELETE FROM sluice_copiers WHERE mapping_uid = ? AND session_lock = ?', [
        mappingUid,
        name,
      ])
      .catch(() => undefined);
  }

  /**
   * Ends the sessions of the mapping's copiers but this one. Their copy is over by what the caller does, and a statement of theirs may
   * run for long and hold the tables that are to be dropped.
   */
  async endCopiers(mappingUid: string): Promise<void> {
    const rows = await this.#connection.query(
      'look who copies',
      'SELECT session_lock, IS_USED_LOCK(session_lock) AS holder FROM sluice_copiers WHERE mapping_uid = ?',
      [mappingUid],
    );
    for (const row of rows) {
      const name = textOf(row, 'session_lock') ?? '';
      if (name === this.#ownLock?.name) continue;
      const holder = numberOf(row, 'holder');
      if (holder !== null && holder !== this.#session.id) await kill(this.#connection, holder);
      await this.#connection.query(
        'forget a former copier',
        'DELETE FROM sluice_copiers WHERE mapping_uid = ? AND session_lock = ?',
        [mappingUid, name],
      );
    }
  }

  /** An idle session that holds a lock does nothing; one at work is waited for. */
  async #endFrozen(name: string, formerOwner: number | null): Promise<void> {
    const [row] = await this.#connection.query(
      'look who holds a lock',
      `SELECT ID AS id, COMMAND AS command, TIME AS seconds FROM information_schema.PROCESSLIST WHERE ID = IS_USED_LOCK(${quoteLiteral(name)})`,
    );
    const holder = numberOf(row, 'id');
    if (holder === null || holder === this.#session.id) return;
    const isIdle = textOf(row, 'command') === 'Sleep' && (numberOf(row, 'seconds') ?? 0) * 1000 >= this.#lockWaitMs;
    if (isIdle || holder === formerOwner) await kill(this.#connection, holder);
  }
}

/** KILL takes no parameter. A session that is gone by now is as good as ended. */
async function kill(connection: Connection, id: number): Promise<void> {
  if (!Number.isSafeInteger(id)) return;
  await connection
    .use((session) => session.run('end a session that holds a lock', [`KILL ${id}`]))
    .catch(() => undefined);
}

/** A lock on a table was not to be had in time (lock_wait_timeout), or a deadlock was broken at our cost. */
export function isLockFailure(error: unknown): boolean {
  return hasCode(error, 'TIMEOUT', 'DEADLOCK');
}
