/**
 * The swap onto a table that is there and empty: its rows are inserted in one transaction that nobody sees into and that holds
 * up no change stream, because the position is locked only for its last step (docs/decisions/2026-11-21-empty-tables). No lock keeps
 * other writers of the table out: LOCK TABLES would commit, and allow no other table; and under REPEATABLE READ, whose gap locks would,
 * the last fold would not see the backlog's newest rows. Their rows are noticed instead, and the difference is applied.
 */
import { failpoint } from '../../model/failpoint.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import { hasCode } from '../../model/errors.ts';
import { numberOf } from '../row-values.ts';
import type { Session } from './connection.ts';
import { quoteTable } from './sql.ts';
import { BEGIN, rollback } from './transactions.ts';

/** True: the transaction is open, and its end is the caller's. False: the table has rows; no transaction is open. */
export async function beginFill(session: Session, target: TableName, insert: string): Promise<boolean> {
  try {
    await session.run('begin a transaction', BEGIN);
    const rows = await session.query(
      'look whether the table is still empty',
      `SELECT 1 AS found FROM ${quoteTable(target)} LIMIT 1 FOR UPDATE`,
    );
    if (rows.length > 0) {
      await rollback(session);
      return false;
    }
    const [filled] = await session.run(`fill ${displayName(target)}`, [insert]);
    await failpoint('copy.filled');
    // Rows of others that came while ours went in, which took long, are seen as soon as they are committed.
    const [found] = await session.query('count the rows', `SELECT COUNT(*) AS n FROM ${quoteTable(target)}`);
    if (numberOf(found, 'n') === filled) return true;
    await rollback(session);
    return false;
  } catch (error) {
    await rollback(session);
    // Somebody has put rows there meanwhile.
    if (hasCode(error, 'ROW_REFUSED') && error.isConflict) return false;
    throw error;
  }
}
