/**
 * A copy's beginning and its remains. DDL commits by itself, so that tables are made before the row that names them and dropped
 * after it: what a process leaves that was killed in between is a table that no row names, and is dropped by whoever comes next.
 */
import type { TableName } from '../../model/tables.ts';
import { hasNewerCopier } from '../backlog-fold.ts';
import { backlogTable, stagingTable } from '../home-tables.ts';
import { numberOf, textOf } from '../row-values.ts';
import { isSameShape, type StoredRoute } from '../stored-route.ts';
import type { GenerationRequest } from '../contract.ts';
import type { Row, Session } from './connection.ts';
import { lockGeneration } from './hold.ts';
import { own } from './home.ts';
import type { Locker } from './locks.ts';
import { quoteLiteral, quoteTable } from './sql.ts';
import { inTransaction } from './transactions.ts';

/** A copy's staging table: in the schema of the table that it may become, so that a rename is all there is to do. */
export function stagingOf(target: TableName, mappingUid: string, number: number): TableName {
  return { schema: target.schema, table: own(stagingTable(mappingUid, number)).table };
}

/**
 * Makes this copier the mapping's. Throws FENCED for an older one. `resumes`: the generation that a copier of the same request
 * has begun; else `reserved` is the number of a new one, of which nothing is there yet.
 */
export async function claim(
  session: Session,
  locker: Locker,
  request: GenerationRequest,
  route: StoredRoute,
): Promise<{ readonly resumes: Row | null; readonly reserved: number }> {
  const uid = request.mappingUid;
  await session.query(
    'make the mapping’s generation row',
    'INSERT IGNORE INTO sluice_generations (mapping_uid) VALUES (?)',
    [uid],
  );
  const [before] = await session.query(
    'look who copies',
    'SELECT copy_epoch FROM sluice_generations WHERE mapping_uid = ?',
    [uid],
  );
  if ((numberOf(before, 'copy_epoch') ?? 0) >= request.copyEpoch) throw hasNewerCopier(request.target);
  // A copier that is frozen in the middle of a chunk or a fill would be waited for.
  await locker.endCopiers(uid);
  return inTransaction(
    session,
    async () => {
      const row = await lockGeneration(session, locker, uid);
      if (!row || (numberOf(row, 'copy_epoch') ?? 0) >= request.copyEpoch) throw hasNewerCopier(request.target);
      const resumes =
        numberOf(row, 'copy_generation') !== null &&
        numberOf(row, 'copy_request') === request.requestId &&
        isSameShape(textOf(row, 'copy_route'), route);
      const reserved = (numberOf(row, 'last_generation') ?? 0) + 1;
      await session.query(
        'take the copy over',
        'UPDATE sluice_generations SET copy_epoch = ?, last_generation = ?, reserved = ? WHERE mapping_uid = ?',
        [request.copyEpoch, resumes ? reserved - 1 : reserved, resumes ? null : reserved, uid],
      );
      return { resumes: resumes ? row : null, reserved };
    },
    { locker },
  );
}

/** Reserves the number of another staging table for a copy that goes on with it. */
export async function reserve(session: Session, mappingUid: string): Promise<number> {
  const where = `WHERE mapping_uid = ${quoteLiteral(mappingUid)}`;
  const [, rows] = await session.batch('reserve a number', [
    `UPDATE sluice_generations SET last_generation = last_generation + 1, reserved = last_generation ${where}`,
    `SELECT reserved FROM sluice_generations ${where}`,
  ]);
  return numberOf(rows?.[0], 'reserved') ?? 0;
}

/** Drops staging tables and backlogs of the mapping that its row (if any) does not name. `schemas`: where such tables may be. */
export async function sweep(session: Session, mappingUid: string, schemas: readonly string[]): Promise<void> {
  const [row] = await session.query('read the generation', 'SELECT * FROM sluice_generations WHERE mapping_uid = ?', [
    mappingUid,
  ]);
  const kept = new Set<string>();
  const keep = (name: TableName) => kept.add(own(name).table);
  for (const column of ['copy_table', 'reserved']) {
    const number = numberOf(row, column);
    if (number === null) continue;
    keep(stagingTable(mappingUid, number));
    if (column === 'reserved') keep(backlogTable(mappingUid, number));
  }
  const backlog = numberOf(row, 'backlog_generation');
  if (backlog !== null) keep(backlogTable(mappingUid, backlog));
  const pending = textOf(row, 'pending_rename');
  if (pending !== null) kept.add(pending);
  // A held mapping's backlog is made before its number is known to be taken (hold.ts).
  keep(backlogTable(mappingUid, (numberOf(row, 'last_generation') ?? 0) + 1));
  const places = [...new Set(schemas.filter(Boolean))];
  const prefixes = [stagingTable(mappingUid, 0), backlogTable(mappingUid, 0)].map((name) =>
    own(name).table.slice(0, -1),
  );
  const found = await session.query(
    'look for tables of copies that are over',
    `SELECT TABLE_SCHEMA AS s, TABLE_NAME AS t FROM information_schema.TABLES WHERE TABLE_SCHEMA IN (${['DATABASE()', ...places.map(() => '?')].join(', ')})
      AND (${prefixes.map((prefix) => `LEFT(TABLE_NAME, ${prefix.length}) = ?`).join(' OR ')})`,
    [...places, ...prefixes],
  );
  const over = found
    .map((each) => ({ schema: textOf(each, 's') ?? '', table: textOf(each, 't') ?? '' }))
    .filter(({ table }) => !kept.has(table));
  if (over.length > 0)
    await session.run(
      'drop tables of copies that are over',
      over.map((table) => `DROP TABLE IF EXISTS ${quoteTable(table)}`),
    );
}
