/**
 * The swap onto a table that is there and empty: its rows are inserted in one transaction that nobody sees into and that holds
 * up no change stream, because the position row is locked only for its last step (docs/decisions/2026-11-21-empty-tables).
 */
import { failpoint } from '../../model/failpoint.ts';
import type { TableName } from '../../model/tables.ts';
import type { Session } from './connection.ts';
import { isLockFailure } from './locks.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

const ATTEMPTS = 5;
const PAUSE_MS = 200;

/**
 * Begins the transaction and inserts the staging table's rows; true: it is open, and its end is the caller's. False: the table
 * has rows, or somebody has been writing to it for seconds; no transaction is open.
 *
 * SHARE ROW EXCLUSIVE keeps every other writer out until the end, so that the table holds the copy and nothing else; readers are not
 * kept out (manual, "Explicit Locking"). Taken before the position row, against the lock order: the change stream never locks
 * the table of a mapping that is not live, so nobody who holds the position row waits for it.
 */
export async function beginFill(
  session: Session,
  target: TableName,
  staging: TableName,
  columns: readonly string[],
): Promise<boolean> {
  if (!(await lockEmpty(session, target))) return false;
  const names = columns.map(quoteIdentifier).join(', ');
  try {
    await session.run(`fill ${target.schema}.${target.table}`, [
      `INSERT INTO ${quoteTable(target)} (${names}) OVERRIDING SYSTEM VALUE SELECT ${names} FROM ${quoteTable(staging)}`,
    ]);
    await failpoint('copy.filled');
    return true;
  } catch (error) {
    await rollBack(session);
    throw error;
  }
}

async function lockEmpty(session: Session, target: TableName): Promise<boolean> {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    try {
      await session.run('lock the empty table against writers', [
        'BEGIN',
        `SET LOCAL lock_timeout = '1s'`,
        `LOCK TABLE ${quoteTable(target)} IN SHARE ROW EXCLUSIVE MODE`,
        'SET LOCAL lock_timeout = 0',
      ]);
      // A statement of its own: its snapshot is younger than the lock.
      const [row] = await session.query(
        'look whether the table is still empty',
        `SELECT 1 AS found FROM ${quoteTable(target)} LIMIT 1`,
      );
      if (!row) return true;
      await rollBack(session);
      return false;
    } catch (error) {
      await rollBack(session);
      if (!isLockFailure(error)) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * attempt));
    }
  }
  return false;
}

async function rollBack(session: Session): Promise<void> {
  if (!session.lost) await session.run('roll back', ['ROLLBACK']).catch(() => undefined);
}
