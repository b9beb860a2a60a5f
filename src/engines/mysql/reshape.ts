/** Columns that a destination table gains, and routes that follow (PROTOCOL, Changes). */
import { hasCode } from '../../model/errors.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import type { Remedies, RouteChange, TableDesign } from '../contract.ts';
import { addPatiently, canReshape, designColumn } from '../added-columns.ts';
import { textOf } from '../row-values.ts';
import { changedRoute, type StoredRoute } from '../stored-route.ts';
import { MysqlCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { addColumnSql, design, isCharacter, ownDesign, writtenType } from './ddl.ts';
import { dropTriggersSql, makeTransactionalSql } from './guards.ts';
import { announceRoute, lockGeneration } from './hold.ts';
import { isLockFailure, type Locker } from './locks.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

const LOCK_WAIT_SECONDS = 1;

/**
 * Within a transaction that holds the position; as `CopyDestination.reshape`. When false, roll back. The columns are added by another
 * session, because ALTER TABLE commits; killed in between, the route is as it was and the column stays, so that the next attempt finds
 * it there and asks for a copy.
 */
export async function reshapeRoute(
  connection: Connection,
  session: Session,
  locker: Locker,
  mappingUid: string,
  change: RouteChange,
): Promise<boolean> {
  const row = await lockGeneration(session, locker, mappingUid);
  const stored = textOf(row, 'live_route');
  if (stored === null) return false;
  const route = JSON.parse(stored) as StoredRoute;
  const [table] = await new MysqlCatalog(connection).describe([route.target]);
  if (!table || !canReshape(route, table, change, remediesFor(connection))) return false;
  if (change.added.length > 0) {
    try {
      await alter(connection, route.target, addColumnSql(ownDesign(change.design), route.target, change.added));
    } catch (error) {
      if (isLockFailure(error) || hasCode(error, 'PERMISSION_DENIED')) return false;
      throw error;
    }
  }
  await session.query(
    'change the route',
    'UPDATE sluice_generations SET live_route = ?, updated_at = NOW(3) WHERE mapping_uid = ?',
    [JSON.stringify(changedRoute(route, change)), mappingUid],
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
  const [table] = await new MysqlCatalog(connection).describe([target]);
  // One that an earlier, killed attempt has added.
  const missing = columns.filter((name) => !table?.columns.some((column) => column.name === name));
  const statements = addColumnSql(ownDesign(designed), target, missing);
  await addPatiently(statements, () => alter(connection, target, statements), isLockFailure);
}

/** Waits for whoever uses the table a moment only; everybody else waits behind. */
async function alter(connection: Connection, target: TableName, statements: readonly string[]): Promise<void> {
  if (statements.length === 0) return;
  const session = await connection.open();
  try {
    await session.run(`add columns to ${displayName(target)}`, [
      `SET SESSION lock_wait_timeout = ${LOCK_WAIT_SECONDS}`,
      ...statements,
    ]);
  } finally {
    await connection.release(session);
  }
}

export function remediesFor(connection: Connection): Remedies {
  const designed = (target: TableName, source: Parameters<Remedies['addColumn']>[1], as: string) =>
    designColumn((...of) => design(...of, connection.kind), target, source, as);
  return {
    suspendGuards: dropTriggersSql,
    makeTransactional: makeTransactionalSql,
    addColumn: (target, source, as) => {
      const found = designed(target, source, as);
      return found === null ? [] : addColumnSql(found, target, [as]);
    },
    // MODIFY says type and collation again; what is not said becomes the table's default.
    allowNull: (target, column) => {
      const collate = column.collation !== null && isCharacter(column.nativeType) ? ` COLLATE ${column.collation}` : '';
      return `ALTER TABLE ${quoteTable(target)} MODIFY ${quoteIdentifier(column.name)} ${writtenType(column.nativeType)}${collate} NULL`;
    },
    retype: (target, column, source, as) => {
      const declared = designed(target, source, as)?.declared[0];
      if (!declared) return [];
      const nullable = column.nullable ? 'NULL' : 'NOT NULL';
      return [
        `ALTER TABLE ${quoteTable(target)} MODIFY ${quoteIdentifier(column.name)} ${declared.nativeType}${declared.collate} ${nullable}`,
      ];
    },
  };
}
