/** A mapping's row of `sluice.generations`, within a transaction that holds its locks: who copies, and what an unfinished copy left. */
import type { TableName } from '../../model/tables.ts';
import { hasNewerCopier } from '../backlog-fold.ts';
import { backlogTable } from '../home-tables.ts';
import type { StoredRoute } from '../stored-route.ts';
import type { GenerationRequest } from '../contract.ts';
import type { Row, Session } from './connection.ts';
import { MAPPING } from './hold.ts';
import { stagingOf } from './home.ts';
import type { Locker } from './locks.ts';
import { numberOf, textOf } from '../row-values.ts';
import { quoteTable } from './sql.ts';

/** What a generation says of its unfinished copy and its backlog. */
export const UNFINISHED = 'copy_generation, copy_route, copy_request, backlog, backlog_generation, last_generation';

/** The mapping's generation row, made when there is none, now this copier's. Throws FENCED for an older copier. */
export async function claim(session: Session, request: GenerationRequest): Promise<Row> {
  const uid = request.mappingUid;
  await session.query(
    'make the mapping’s generation row',
    `INSERT INTO sluice.generations (mapping_uid) SELECT @uid WHERE NOT EXISTS (SELECT 1 FROM sluice.generations WHERE ${MAPPING})`,
    { uid },
  );
  const [row] = await session.query(
    'take the copy over',
    `UPDATE sluice.generations SET copy_epoch = @epoch OUTPUT ${inserted(UNFINISHED)} WHERE ${MAPPING} AND copy_epoch < @epoch`,
    { uid, epoch: request.copyEpoch },
  );
  if (!row) throw hasNewerCopier(request.target);
  return row;
}

/** Staging table, backlog and chunk marks of a copy (or the backlog of a hold that a new copy makes pointless). */
export async function discardCopy(session: Session, locker: Locker, mappingUid: string, row: Row): Promise<void> {
  const tables: TableName[] = [];
  const copyGeneration = numberOf(row, 'copy_generation');
  const copyRoute = textOf(row, 'copy_route');
  if (copyGeneration !== null && copyRoute !== null)
    tables.push(stagingOf(JSON.parse(copyRoute) as StoredRoute, mappingUid, copyGeneration));
  const backlogGeneration = numberOf(row, 'backlog_generation');
  if (backlogGeneration !== null) tables.push(backlogTable(mappingUid, backlogGeneration));
  if (tables.length > 0) {
    await locker.endCopiers(mappingUid);
    await session.run(
      'discard an unfinished copy',
      tables.map((table) => `DROP TABLE IF EXISTS ${quoteTable(table)}`),
    );
  }
  await session.query('discard chunk marks', `DELETE FROM sluice.chunks WHERE ${MAPPING}`, { uid: mappingUid });
}

export function inserted(columns: string): string {
  return columns
    .split(', ')
    .map((column) => `inserted.${column} AS ${column}`)
    .join(', ');
}
