/**
 * The swap onto a table that is there and empty: its rows are inserted in one transaction that nobody sees into and that holds
 * up no change stream, because the position is locked only for its last step (docs/decisions/2026-11-21-empty-tables).
 */
import { failpoint } from '../../model/failpoint.ts';
import type { Session } from './connection.ts';
import { isLockFailure } from './locks.ts';

const ATTEMPTS = 5;
const PAUSE_MS = 200;
const LOCK_WAIT_MS = 1000;

/**
 * Begins the transaction and runs `insert` (from the staging table); true: it is open, and its end is the caller's. False: the
 * table has rows, or somebody has been writing to it for seconds; no transaction is open.
 *
 * The table is locked until the end, so that it holds the copy and nothing else. Taken before the position, against the lock
 * order: the change stream never locks the table of a mapping that is not live, so nobody who holds the position waits for it.
 */
export async function beginFill(session: Session, target: string, insert: readonly string[]): Promise<boolean> {
  if (!(await lockEmpty(session, target))) return false;
  try {
    await session.run(`fill ${target}`, insert);
    await failpoint('copy.filled');
    return true;
  } catch (error) {
    await session.rollback();
    throw error;
  }
}

async function lockEmpty(session: Session, target: string): Promise<boolean> {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    try {
      const rows = await session.query(
        'lock the empty table against writers',
        `SET LOCK_TIMEOUT ${LOCK_WAIT_MS}; BEGIN TRANSACTION;
         SELECT TOP (1) 1 AS found FROM ${target} WITH (TABLOCKX, HOLDLOCK); SET LOCK_TIMEOUT -1`,
      );
      if (rows.length === 0) return true;
      await session.rollback();
      return false;
    } catch (error) {
      await session.rollback();
      await session.run('wait for tables again', ['SET LOCK_TIMEOUT -1']);
      if (!isLockFailure(error)) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * attempt));
    }
  }
  return false;
}
