/** Columns that a destination table gains, and routes that follow (PROTOCOL, Changes). */
import { hasCode } from '../../model/errors.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import type { Remedies, RouteChange, TableDesign } from '../contract.ts';
import { addPatiently, canReshape } from '../added-columns.ts';
import { changedRoute, type StoredRoute } from '../stored-route.ts';
import { SqlServerCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { addColumnSql, ownDesign } from './ddl.ts';
import { disableGuardsSql } from './guards.ts';
import { announceRoute, MAPPING } from './hold.ts';
import { isLockFailure, mappingLock, type Locker } from './locks.ts';
import { columnRemedies } from './remedies.ts';
import { textOf } from '../row-values.ts';

const LOCK_WAIT_MS = 1000;

/** Within a transaction that holds the position; as `CopyDestination.reshape`. When false, roll back. */
export async function reshapeRoute(
  connection: Connection,
  session: Session,
  locker: Locker,
  mappingUid: string,
  change: RouteChange,
): Promise<boolean> {
  await locker.lock(mappingLock(mappingUid));
  const [row] = await session.query(
    'read the route',
    `SELECT live_route, stream, apply_group FROM sluice.generations WHERE ${MAPPING}`,
    { uid: mappingUid },
  );
  const stored = textOf(row, 'live_route');
  if (stored === null) return false;
  const route = JSON.parse(stored) as StoredRoute;
  const [table] = await new SqlServerCatalog(connection).describe([route.target]);
  if (!table) return false;
  if (!canReshape(route, table, change, remedies)) return false;
  if (change.added.length > 0) {
    try {
      await session.run(`add columns to ${displayName(route.target)}`, [
        `SET LOCK_TIMEOUT ${LOCK_WAIT_MS}`,
        ...addColumnSql(ownDesign(change.design), route.target, change.added),
      ]);
    } catch (error) {
      if (isLockFailure(error) || hasCode(error, 'PERMISSION_DENIED')) return false;
      throw error;
    } finally {
      if (!session.lost) await session.run('wait for tables again', ['SET LOCK_TIMEOUT -1']);
    }
  }
  const changed = changedRoute(route, change);
  await session.query(
    'change the route',
    `UPDATE sluice.generations SET live_route = @route, updated_at = SYSUTCDATETIME() WHERE ${MAPPING}`,
    { uid: mappingUid, route: JSON.stringify(changed) },
  );
  await announceRoute(session, { stream: textOf(row, 'stream'), group: textOf(row, 'apply_group') });
  return true;
}

export async function addColumns(
  connection: Connection,
  target: TableName,
  designed: TableDesign,
  columns: readonly string[],
): Promise<void> {
  const statements = addColumnSql(ownDesign(designed), target, columns);
  const run = async () => {
    const session = await connection.open();
    try {
      await session.transaction(
        () => session.run(`add columns to ${displayName(target)}`, statements),
        [`SET LOCK_TIMEOUT ${LOCK_WAIT_MS}`],
      );
    } finally {
      await connection.release(session);
    }
  };
  await addPatiently(statements, run, isLockFailure);
}

export const remedies: Remedies = { ...columnRemedies, suspendGuards: disableGuardsSql };
