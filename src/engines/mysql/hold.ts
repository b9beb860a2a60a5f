/** Stopping to apply to a mapping's table, within a transaction that holds its group's position. */
import { backlogTable } from '../home-tables.ts';
import { flagOf, numberOf, textOf } from '../row-values.ts';
import type { Connection, Row, Session } from './connection.ts';
import { createBacklogSql, own } from './home.ts';
import type { Locker } from './locks.ts';
import { quoteTable } from './sql.ts';

/** The mapping's generation row, locked; undefined: there is none. */
export async function lockGeneration(session: Session, locker: Locker, mappingUid: string): Promise<Row | undefined> {
  await locker.mapping(mappingUid);
  const [row] = await session.query(
    'lock the generation',
    'SELECT * FROM sluice_generations WHERE mapping_uid = ? FOR UPDATE',
    [mappingUid],
  );
  return row;
}

/**
 * No longer live, a backlog to be folded into the table later. A copy that runs keeps its backlog, and what it will replace needs
 * none. Idempotent. Tables that nobody needs any more are dropped by whoever copies next (generations.ts): DDL would commit here.
 */
export async function holdMapping(
  connection: Connection,
  session: Session,
  locker: Locker,
  mappingUid: string,
): Promise<void> {
  const row = await lockGeneration(session, locker, mappingUid);
  if (flagOf(row, 'is_live')) {
    if (textOf(row, 'backlog') === null) {
      const generation = (numberOf(row, 'last_generation') ?? 0) + 1;
      await openBacklog(connection, mappingUid, generation);
      await session.query(
        'hold a mapping',
        `UPDATE sluice_generations SET is_live = 0, last_generation = ?, backlog_generation = ?, folded_seq = 0, backlog = 'hold',
            updated_at = NOW(3) WHERE mapping_uid = ?`,
        [generation, generation, mappingUid],
      );
    } else
      await session.query(
        'hold a mapping',
        'UPDATE sluice_generations SET is_live = 0, updated_at = NOW(3) WHERE mapping_uid = ?',
        [mappingUid],
      );
  } else if (textOf(row, 'backlog') === 'copy') {
    // Not live: its first copy ends, and begins anew with another copier's epoch.
    await session.query(
      'end a copy that cannot go on',
      `UPDATE sluice_generations SET backlog = NULL, backlog_generation = NULL, copy_request = NULL, copy_epoch = copy_epoch + 1,
          updated_at = NOW(3) WHERE mapping_uid = ?`,
      [mappingUid],
    );
    await locker.endCopiers(mappingUid);
  } else return;
  await announceRoute(session, { stream: textOf(row, 'stream'), group: textOf(row, 'apply_group') });
}

/**
 * By a session of its own: CREATE TABLE would commit the transaction. One that is there already is of a transaction that was rolled
 * back, or killed, before anybody knew its number: nothing is in it.
 */
async function openBacklog(connection: Connection, mappingUid: string, generation: number): Promise<void> {
  const table = own(backlogTable(mappingUid, generation));
  await connection.use((other) =>
    other.run('open a backlog', [`DROP TABLE IF EXISTS ${quoteTable(table)}`, createBacklogSql(table)]),
  );
}

export async function announceRoute(
  session: Session,
  of: { readonly stream: string | null; readonly group: string | null },
): Promise<void> {
  if (of.stream === null) return;
  await session.query(
    'announce the new route',
    'UPDATE sluice_positions SET route_version = route_version + 1 WHERE stream = ? AND apply_group = ?',
    [of.stream, of.group],
  );
}
