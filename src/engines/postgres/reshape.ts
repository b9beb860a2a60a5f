/** Columns that a destination table gains, and routes that follow (PROTOCOL, Changes). */
import { hasCode } from '../../model/errors.ts';
import { displayName, type Column, type TableName } from '../../model/tables.ts';
import type { Remedies, RouteChange, TableDesign } from '../contract.ts';
import { addPatiently, canReshape, designColumn } from '../added-columns.ts';
import { PostgresCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { addColumnSql, design, ownDesign } from './ddl.ts';
import { isLockFailure } from './locks.ts';
import { changedRoute, type StoredRoute } from '../stored-route.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';

const LOCK_WAIT = '1s';

/** Within a transaction that holds the position row; as `CopyDestination.reshape`. When false, roll back. */
export async function reshapeRoute(
  connection: Connection,
  session: Session,
  mappingUid: string,
  change: RouteChange,
): Promise<boolean> {
  const [row] = await session.query(
    'lock the route',
    `SELECT live_route, stream, apply_group FROM sluice.generations WHERE mapping_uid = $1 FOR UPDATE`,
    [mappingUid],
  );
  if (row?.['live_route'] == null) return false;
  const route = JSON.parse(row['live_route']) as StoredRoute;
  const [table] = await new PostgresCatalog(connection).describe([route.target]);
  if (!table) return false;
  if (!canReshape(route, table, change, remedies)) return false;
  if (change.added.length > 0) {
    try {
      await session.run(`add columns to ${displayName(route.target)}`, [
        `SET LOCAL lock_timeout = '${LOCK_WAIT}'`,
        ...addColumnSql(ownDesign(change.design), route.target, change.added),
        `SET LOCAL lock_timeout = 0`,
      ]);
    } catch (error) {
      if (isLockFailure(error) || hasCode(error, 'PERMISSION_DENIED')) return false;
      throw error;
    }
  }
  await session.query(
    'change the route',
    `UPDATE sluice.generations SET live_route = $2, updated_at = now() WHERE mapping_uid = $1`,
    [mappingUid, JSON.stringify(changedRoute(route, change))],
  );
  await session.query(
    'announce the new route',
    `UPDATE sluice.positions SET route_version = route_version + 1 WHERE stream = $1 AND apply_group = $2`,
    [row['stream'], row['apply_group']],
  );
  return true;
}

export async function addColumns(
  connection: Connection,
  target: TableName,
  designed: TableDesign,
  columns: readonly string[],
): Promise<void> {
  const statements = addColumnSql(ownDesign(designed), target, columns);
  const run = () =>
    connection.use((session) =>
      session.transaction(`BEGIN; SET LOCAL lock_timeout = '${LOCK_WAIT}'`, () =>
        session.run(`add columns to ${displayName(target)}`, statements),
      ),
    );
  await addPatiently(statements, run, isLockFailure);
}

/**
 * `user`: as whom the destination is written. `version`: the server's number, null while no session has been opened. GRANT … ON
 * PARAMETER came with 15; before, only a superuser may.
 */
export function suspendGuardsSql(user: string | null, version: number | null): string {
  const login = user === null ? 'CURRENT_USER' : quoteIdentifier(user);
  return version !== null && version < 150_000
    ? `ALTER ROLE ${login} SUPERUSER`
    : `GRANT SET ON PARAMETER session_replication_role TO ${login}`;
}

export function remediesFor(connection: Pick<Connection, 'user' | 'serverVersion'>): Remedies {
  return { ...remedies, suspendGuards: () => [suspendGuardsSql(connection.user, connection.serverVersion)] };
}

const remedies: Omit<Remedies, 'suspendGuards'> = {
  addColumn: (target, source, column) => {
    const designed = designColumn(design, target, source, column);
    return designed === null ? [] : addColumnSql(designed, target, [column]);
  },
  allowNull: (target, column) =>
    `ALTER TABLE ${quoteTable(target)} ALTER COLUMN ${quoteIdentifier(column.name)} DROP NOT NULL`,
  retype: (target, column, source, as) => {
    const wanted = source.columns.find((candidate) => candidate.name === as);
    if (!wanted) return [];
    if (wanted.type.kind === 'enum' && column.type.kind === 'enum') return addLabels(column, wanted.type.labels);
    const declared = designColumn(design, target, source, as)?.declared[0];
    return declared
      ? [`ALTER TABLE ${quoteTable(target)} ALTER COLUMN ${quoteIdentifier(column.name)} TYPE ${declared.nativeType}`]
      : [];
  },
};

function addLabels(column: Column, wanted: readonly string[]): string[] {
  const present = column.type.kind === 'enum' ? column.type.labels : [];
  return wanted
    .filter((label) => !present.includes(label))
    .map((label) => `ALTER TYPE ${column.nativeType} ADD VALUE IF NOT EXISTS ${quoteLiteral(label).trim()}`);
}
