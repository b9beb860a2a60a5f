/**
 * Transactions of sessions that write. The server ends a whole transaction by itself when it breaks a deadlock, and commits one when it
 * meets a DDL statement; whatever followed would then be a transaction of its own, and a position could commit without its data
 * (invariant 2). So a transaction begins with a savepoint, and cannot be committed without releasing it: that fails when the
 * transaction is another one by then. Autocommit is off meanwhile, so that nothing that follows commits before.
 */
import { SluiceError, hasCode } from '../../model/errors.ts';
import type { Connection, Session } from './connection.ts';
import { errorNumber } from './errors.ts';
import type { Locker } from './locks.ts';

export const BEGIN: readonly string[] = ['SET autocommit = 0', 'START TRANSACTION', 'SAVEPOINT sluice_whole'];
const ROLLBACK: readonly string[] = ['ROLLBACK', 'SET autocommit = 1'];

const NO_SUCH_SAVEPOINT = 1305;

/**
 * A session of the caller's own for writing. READ COMMITTED: statements see what is committed by then, and lock no gaps between rows.
 * Foreign keys neither check nor cascade (rows arrive as the source has them). A client that freezes while the server waits
 * for its rows is given up: `patient` is who waits for a source meanwhile.
 */
export async function openWriter(connection: Connection, options: { readonly patient: boolean }): Promise<Session> {
  const session = await connection.open();
  try {
    await session.run('set up a session that writes', [
      'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED',
      `SET SESSION foreign_key_checks = 0, unique_checks = 1, max_error_count = 65535, sql_notes = 1,
         net_read_timeout = ${options.patient ? 3600 : 60}`,
    ]);
    return session;
  } catch (error) {
    await connection.release(session);
    throw error;
  }
}

/** Commits what began with BEGIN: `statements`, COMMIT, and the locks are let go, in one round trip. */
export async function commit(
  session: Session,
  doing: string,
  statements: readonly string[],
  locker?: Locker,
): Promise<void> {
  try {
    await session.run(doing, [
      'RELEASE SAVEPOINT sluice_whole',
      ...statements,
      'COMMIT',
      'SET autocommit = 1',
      ...(locker?.releasing() ?? []),
    ]);
    locker?.released();
  } catch (error) {
    if (errorNumber(error) !== NO_SUCH_SAVEPOINT) throw error;
    throw new SluiceError('DEADLOCK', `could not ${doing}: the server had ended the transaction`, { cause: error });
  }
}

export async function rollback(session: Session, locker?: Locker): Promise<void> {
  if (session.lost) return;
  await session.run('roll back', [...ROLLBACK, ...(locker?.releasing() ?? [])]).catch(() => session.destroy());
  locker?.released();
}

/** Runs `work` in a transaction; rolls back when it throws. The locker's locks are let go with its end, unless `keepLocks`. */
export async function inTransaction<T>(
  session: Session,
  work: () => Promise<T>,
  options: { readonly locker?: Locker; readonly keepLocks?: boolean } = {},
): Promise<T> {
  const { locker, keepLocks = false } = options;
  try {
    await session.run('begin a transaction', BEGIN);
    const result = await work();
    await commit(session, 'commit', [], keepLocks ? undefined : locker);
    return result;
  } catch (error) {
    await rollback(session, locker);
    throw error;
  }
}

/**
 * Within a transaction: what `work` did is undone when it throws, and the transaction goes on. Not after a deadlock, which took the
 * whole of it.
 */
export async function attempt<T>(session: Session, work: () => Promise<T>): Promise<T> {
  const depth = (depths.get(session) ?? 0) + 1;
  depths.set(session, depth);
  const savepoint = `sluice_attempt_${depth}`;
  try {
    await session.run('set a savepoint', [`SAVEPOINT ${savepoint}`]);
    const result = await work();
    await session.run('go on without savepoint', [`RELEASE SAVEPOINT ${savepoint}`]);
    return result;
  } catch (error) {
    if (!session.lost && !hasCode(error, 'DEADLOCK'))
      await session.run('go back to a savepoint', [`ROLLBACK TO SAVEPOINT ${savepoint}`]).catch((cause: unknown) => {
        throw errorNumber(cause) === NO_SUCH_SAVEPOINT
          ? new SluiceError('DEADLOCK', 'the server had ended the transaction', { cause: error })
          : cause;
      });
    throw error;
  } finally {
    depths.set(session, depth - 1);
  }
}

const depths = new WeakMap<Session, number>();
