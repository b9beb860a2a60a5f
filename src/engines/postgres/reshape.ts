/** Columns that a destination table gains, and routes that follow (PROTOCOL, Changes). */
import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode, SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table, type TableName } from '../../model/tables.ts';
import type { Remedies, RouteChange, TableDesign } from '../contract.ts';
import { PostgresCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { addColumnSql, design, ownDesign } from './ddl.ts';
import { isLockFailure } from './locks.ts';
import { changedRoute, type StoredRoute } from '../stored-route.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';

const LOCK_WAIT = '1s';
const LOCK_ATTEMPTS = 30;

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
  for (const { target } of route.columns.filter(
    (column) => !change.columns.some((kept) => kept.target === column.target),
  ))
    requireOptional(table, target);
  if (change.added.some((name) => table.columns.some((column) => column.name === name))) return false;
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

/** As `CopyDestination.addColumns`: each attempt waits for the table a moment only, so that nobody queues behind it for long. */
export async function addColumns(
  connection: Connection,
  target: TableName,
  designed: TableDesign,
  columns: readonly string[],
): Promise<void> {
  const statements = addColumnSql(ownDesign(designed), target, columns);
  for (let attempt = 1; ; attempt++) {
    try {
      await connection.use((session) =>
        session.transaction(`BEGIN; SET LOCAL lock_timeout = '${LOCK_WAIT}'`, () =>
          session.run(`add columns to ${displayName(target)}`, statements),
        ),
      );
      return;
    } catch (error) {
      if (hasCode(error, 'PERMISSION_DENIED')) {
        throw new SluiceError('PERMISSION_DENIED', error.message, { hint: statements.join('; '), cause: error });
      }
      if (!isLockFailure(error) || attempt >= LOCK_ATTEMPTS) throw error;
      await sleep(1000);
    }
  }
}

function requireOptional(table: Table, name: string): void {
  const column = table.columns.find((candidate) => candidate.name === name);
  if (!column || column.nullable || column.default !== null || column.identity !== null) return;
  throw new SluiceError(
    'SCHEMA_CHANGED',
    `the source no longer has column ${name}, which is NOT NULL without a default in ${displayName(table.name)}`,
    { hint: remedies.allowNull(table.name, column) },
  );
}

/** `user`: as whom the destination is written. */
/** `version`: the server's number, null while no session has been opened. GRANT … ON PARAMETER came with 15; before, only a superuser may. */
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
    const designed = designOf(target, source, column);
    return designed === null ? [] : addColumnSql(designed, target, [column]);
  },
  allowNull: (target, column) =>
    `ALTER TABLE ${quoteTable(target)} ALTER COLUMN ${quoteIdentifier(column.name)} DROP NOT NULL`,
  retype: (target, column, source, as) => {
    const wanted = source.columns.find((candidate) => candidate.name === as);
    if (!wanted) return [];
    if (wanted.type.kind === 'enum' && column.type.kind === 'enum') return addLabels(column, wanted.type.labels);
    const declared = designOf(target, source, as)?.declared[0];
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

/** One column, as it would be declared; null: no type here holds it. */
function designOf(target: TableName, source: Table, column: string): ReturnType<typeof design> | null {
  try {
    const columns = source.columns.filter((candidate) => candidate.name === column);
    return design({ ...source, columns, keys: [], indexes: [], foreignKeys: [], triggers: [] }, target, []);
  } catch (error) {
    if (hasCode(error, 'SCHEMA_MISMATCH')) return null;
    throw error;
  }
}
