/**
 * Putting a copy in the place of an absent table. RENAME commits by itself, so that the swap is two steps: the transaction of the last
 * fold says that the staging table is the live one and is to be renamed (`pending_rename`); then it is. Whoever takes the group's
 * lock, or asks for the mapping's state, first does what a killed process left undone; so nobody sees the one without the other, and
 * which of the two names exists says how far it came (PROTOCOL, The swap).
 */
import { failpoint } from '../../model/failpoint.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import { SluiceError } from '../../model/errors.ts';
import { numberOf, textOf } from '../row-values.ts';
import type { StoredRoute } from '../stored-route.ts';
import type { Connection, Row, Session } from './connection.ts';
import { sweep } from './generations.ts';
import { Locker } from './locks.ts';
import { quoteTable } from './sql.ts';
import { openWriter } from './transactions.ts';

interface Pending {
  readonly mappingUid: string;
  readonly stream: string | null;
  readonly group: string;
  readonly from: TableName;
  readonly to: TableName;
}

export function pendingOf(row: Row): Pending | null {
  const name = textOf(row, 'pending_rename');
  const route = textOf(row, 'live_route');
  if (name === null || route === null) return null;
  const { target } = JSON.parse(route) as StoredRoute;
  return {
    mappingUid: textOf(row, 'mapping_uid') ?? '',
    stream: textOf(row, 'stream'),
    group: textOf(row, 'apply_group') ?? '',
    from: { schema: target.schema, table: name },
    to: target,
  };
}

/** With the lock of the group (or, of a mapping without a stream, its own) held, outside a transaction. */
export async function settleGroup(session: Session, stream: string, group: string): Promise<void> {
  const rows = await session.query(
    'look for swaps that were not finished',
    'SELECT * FROM sluice_generations WHERE stream = ? AND apply_group = ? AND pending_rename IS NOT NULL ORDER BY mapping_uid',
    [stream, group],
  );
  for (const row of rows) await settle(session, row);
  await session.query(
    'note that swaps are finished',
    'UPDATE sluice_positions SET has_renames = 0 WHERE stream = ? AND apply_group = ?',
    [stream, group],
  );
}

/** As `settleGroup`, for one mapping; nothing when its swap is finished. */
export async function settle(session: Session, row: Row): Promise<void> {
  const pending = pendingOf(row);
  if (pending === null) return;
  const { from, to, mappingUid } = pending;
  const [isStaged, isThere] = [await exists(session, from), await exists(session, to)];
  if (isStaged && isThere) {
    // Somebody made a table of the name in this moment. What was decided is taken back, and the copy starts again onto that table.
    await session.query(
      'take back a swap',
      `UPDATE sluice_generations SET pending_rename = NULL, live_generation = NULL, live_route = NULL, is_live = 0, finished_request = NULL,
          updated_at = NOW(3) WHERE mapping_uid = ?`,
      [mappingUid],
    );
    throw new SluiceError(
      'FENCED',
      `${displayName(to)} was made by somebody else before the copy could take its place`,
    );
  }
  await failpoint('copy.renaming');
  if (isStaged)
    await session.run(`put ${displayName(to)} in place`, [`RENAME TABLE ${quoteTable(from)} TO ${quoteTable(to)}`]);
  await failpoint('copy.renamed');
  await session.query(
    'note that a swap is finished',
    'UPDATE sluice_generations SET pending_rename = NULL, updated_at = NOW(3) WHERE mapping_uid = ?',
    [mappingUid],
  );
  // Its backlog, which the former copier did not come to drop; nobody needs it, and whoever copies next would do it as well.
  await sweep(session, mappingUid, [to.schema]).catch(() => undefined);
}

/** Finishes what killed processes left of these rows' swaps. True: there was something, and the rows are to be read again. */
export async function settleAll(connection: Connection, rows: readonly Row[], lockWaitMs: number): Promise<boolean> {
  const all = rows.flatMap((row) => pendingOf(row) ?? []);
  for (const { mappingUid, stream, group } of all) {
    const session = await openWriter(connection, { patient: false });
    const locker = new Locker(connection, session, lockWaitMs);
    try {
      if (stream !== null) {
        await locker.group(stream, group);
        await settleGroup(session, stream, group);
      } else {
        await locker.mapping(mappingUid);
        const [row] = await session.query(
          'read the generation',
          'SELECT * FROM sluice_generations WHERE mapping_uid = ?',
          [mappingUid],
        );
        if (row) await settle(session, row);
      }
    } catch (error) {
      if (!(error instanceof SluiceError && error.code === 'FENCED')) throw error;
    } finally {
      await connection.release(session);
    }
  }
  return all.length > 0;
}

export async function exists(session: Session, { schema, table }: TableName): Promise<boolean> {
  const [row] = await session.query(
    'look for a table',
    'SELECT COUNT(*) AS n FROM information_schema.TABLES WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?',
    [schema === '' ? null : schema, table],
  );
  return (numberOf(row, 'n') ?? 0) > 0;
}
