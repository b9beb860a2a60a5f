/** Stopping to apply to a mapping's table, within a transaction that holds its group's position. */
import { backlogTable } from '../home-tables.ts';
import type { Parameters, Session } from './connection.ts';
import { createBacklogSql } from './home.ts';
import { mappingLock, type Locker } from './locks.ts';
import { numberOf, textOf } from '../row-values.ts';
import { quoteTable } from './sql.ts';

/** Of a generation's row, by @uid. */
export const MAPPING = `mapping_uid = CAST(@uid AS nvarchar(64))`;
/** Of a position's row, by @stream and @group: cast, so that the key is sought and no other row is looked at. */
export const GROUP = `stream = CAST(@stream AS nvarchar(300)) AND apply_group = CAST(@group AS nvarchar(128))`;

/**
 * No longer live, a backlog to be folded into the table later. A copy that runs keeps its backlog, and what it will replace needs
 * none. Idempotent.
 */
export async function holdMapping(session: Session, locker: Locker, mappingUid: string): Promise<void> {
  await locker.lock(mappingLock(mappingUid));
  const uid = { uid: mappingUid };
  const [row] = await session.query(
    'hold a mapping',
    `UPDATE sluice.generations SET is_live = 0,
        last_generation = CASE WHEN backlog IS NULL THEN last_generation + 1 ELSE last_generation END,
        backlog_generation = CASE WHEN backlog IS NULL THEN last_generation + 1 ELSE backlog_generation END,
        folded_seq = CASE WHEN backlog IS NULL THEN 0 ELSE folded_seq END,
        backlog = COALESCE(backlog, N'hold'), updated_at = SYSUTCDATETIME()
      OUTPUT inserted.stream AS stream, inserted.apply_group AS apply_group, inserted.backlog AS backlog,
             inserted.backlog_generation AS backlog_generation
      WHERE ${MAPPING} AND is_live = 1`,
    uid,
  );
  if (row) {
    if (textOf(row, 'backlog') === 'hold')
      await session.run('open a backlog', [
        createBacklogSql(backlogTable(mappingUid, numberOf(row, 'backlog_generation') ?? 0)),
      ]);
    await announceRoute(session, { stream: textOf(row, 'stream'), group: textOf(row, 'apply_group') });
    return;
  }
  // Not live: its first copy ends, and begins anew with another copier's epoch.
  const [ended] = await session.query(
    'end a copy that cannot go on',
    `UPDATE sluice.generations SET backlog = NULL, backlog_generation = NULL, copy_request = NULL,
        copy_epoch = copy_epoch + 1, updated_at = SYSUTCDATETIME()
      OUTPUT inserted.stream AS stream, inserted.apply_group AS apply_group, deleted.backlog_generation AS backlog_generation
      WHERE ${MAPPING} AND backlog = N'copy'`,
    uid,
  );
  if (!ended) return;
  await locker.endCopiers(mappingUid);
  await session.run('drop its backlog', [
    `DROP TABLE IF EXISTS ${quoteTable(backlogTable(mappingUid, numberOf(ended, 'backlog_generation') ?? 0))}`,
  ]);
  await announceRoute(session, { stream: textOf(ended, 'stream'), group: textOf(ended, 'apply_group') });
}

export async function announceRoute(
  session: Session,
  of: { readonly stream: string | null; readonly group: string | null },
): Promise<void> {
  if (of.stream === null) return;
  const parameters: Parameters = { stream: of.stream, group: of.group };
  await session.query(
    'announce the new route',
    `UPDATE sluice.positions SET route_version = route_version + 1 WHERE ${GROUP}`,
    parameters,
  );
}
