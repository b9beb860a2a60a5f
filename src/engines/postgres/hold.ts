/** Stopping to apply to a mapping's table, within a transaction that holds its group's position row. */
import { backlogTable } from '../home-tables.ts';
import type { Connection, Row, Session } from './connection.ts';
import { createBacklogSql } from './home.ts';
import { endCopier } from './locks.ts';
import { quoteTable } from './sql.ts';

/**
 * No longer live, a backlog to be folded into the table later. A copy that runs keeps its backlog, and what it will replace needs
 * none. Idempotent.
 */
export async function holdMapping(connection: Connection, session: Session, mappingUid: string): Promise<void> {
  const [row] = await session.query(
    'hold a mapping',
    `UPDATE sluice.generations SET is_live = false,
        last_generation = CASE WHEN backlog IS NULL THEN last_generation + 1 ELSE last_generation END,
        backlog_generation = CASE WHEN backlog IS NULL THEN last_generation + 1 ELSE backlog_generation END,
        folded_seq = CASE WHEN backlog IS NULL THEN 0 ELSE folded_seq END,
        backlog = coalesce(backlog, 'hold'), updated_at = now()
      WHERE mapping_uid = $1 AND is_live RETURNING stream, apply_group, backlog, backlog_generation`,
    [mappingUid],
  );
  if (!row) {
    // Not live: its first copy ends, and begins anew with another copier's epoch.
    const [ended] = await session.query(
      'end a copy that cannot go on',
      `WITH before AS (SELECT mapping_uid, backlog_generation FROM sluice.generations WHERE mapping_uid = $1 AND backlog = 'copy' FOR UPDATE)
       UPDATE sluice.generations g SET backlog = NULL, backlog_generation = NULL, copy_request = NULL, copy_epoch = copy_epoch + 1, updated_at = now()
         FROM before WHERE g.mapping_uid = before.mapping_uid RETURNING g.stream, g.apply_group, before.backlog_generation`,
      [mappingUid],
    );
    if (!ended) return;
    await endCopier(connection, session, mappingUid);
    await session.run('drop its backlog', [
      `DROP TABLE IF EXISTS ${quoteTable(backlogTable(mappingUid, Number(ended['backlog_generation'])))}`,
    ]);
    await announceRoute(session, ended);
    return;
  }
  if (row['backlog'] === 'hold')
    await session.run('open a backlog', createBacklogSql(backlogTable(mappingUid, Number(row['backlog_generation']))));
  await announceRoute(session, row);
}

async function announceRoute(session: Session, row: Row): Promise<void> {
  await session.query(
    'announce the new route',
    `UPDATE sluice.positions SET route_version = route_version + 1 WHERE stream = $1 AND apply_group = $2`,
    [row['stream'], row['apply_group']],
  );
}
