/** Columns that a destination table gains or no longer gets (PROTOCOL, Changes): what is so whatever the engine. */
import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode, SluiceError } from '../model/errors.ts';
import { displayName, type Table, type TableName } from '../model/tables.ts';
import type { Remedies, RouteChange, TableDesign } from './contract.ts';
import type { StoredRoute } from './stored-route.ts';

const LOCK_ATTEMPTS = 30;
const LOCK_PAUSE_MS = 1000;

/**
 * May the route be changed, the table being as it is? False: it has a column that was to be added. SCHEMA_CHANGED: it needs one that
 * is no longer carried.
 */
export function canReshape(
  route: StoredRoute,
  table: Table,
  change: RouteChange,
  remedies: Pick<Remedies, 'allowNull'>,
): boolean {
  for (const { target } of route.columns)
    if (!change.columns.some((kept) => kept.target === target)) requireOptional(table, target, remedies);
  return !change.added.some((name) => table.columns.some((column) => column.name === name));
}

function requireOptional(table: Table, name: string, remedies: Pick<Remedies, 'allowNull'>): void {
  const column = table.columns.find((candidate) => candidate.name === name);
  if (!column || column.nullable || column.default !== null || column.identity !== null) return;
  throw new SluiceError(
    'SCHEMA_CHANGED',
    `the source no longer has column ${name}, which is NOT NULL without a default in ${displayName(table.name)}`,
    { hint: remedies.allowNull(table.name, column) },
  );
}

/** As `CopyDestination.addColumns`: `run` waits for the table a moment only, so that nobody queues behind it for long, and is tried again. */
export async function addPatiently(
  statements: readonly string[],
  run: () => Promise<unknown>,
  isLockFailure: (error: unknown) => boolean,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await run();
      return;
    } catch (error) {
      if (hasCode(error, 'PERMISSION_DENIED'))
        throw new SluiceError('PERMISSION_DENIED', error.message, { hint: statements.join('; '), cause: error });
      if (!isLockFailure(error) || attempt >= LOCK_ATTEMPTS) throw error;
      await sleep(LOCK_PAUSE_MS);
    }
  }
}

/** One column, as an engine's `design` would declare it; null: no type there holds it. */
export function designColumn<Design extends TableDesign>(
  design: (source: Table, target: TableName, key: readonly string[]) => Design,
  target: TableName,
  source: Table,
  name: string,
): Design | null {
  try {
    const columns = source.columns.filter((candidate) => candidate.name === name);
    return design({ ...source, columns, keys: [], indexes: [], foreignKeys: [], triggers: [] }, target, []);
  } catch (error) {
    if (hasCode(error, 'SCHEMA_MISMATCH')) return null;
    throw error;
  }
}
