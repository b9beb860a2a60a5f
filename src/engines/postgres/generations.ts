/** A mapping's generation row: claimed by a copier, started, discarded. All but `nextGeneration` under the position row's lock. */
import type { TableName } from '../../model/tables.ts';
import type { GenerationRequest } from '../contract.ts';
import { hasNewerCopier } from '../backlog-fold.ts';
import { backlogTable, stagingTable } from '../home-tables.ts';
import { isSameShape, routeFor } from '../stored-route.ts';
import type { Connection, Session } from './connection.ts';
import { createTableSql, ownDesign } from './ddl.ts';
import { createBacklogSql } from './home.ts';
import { endCopier } from './locks.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** Tables were prepared for a generation that the copy does not begin. */
export class OtherGeneration extends Error {}

/**
 * The generation that a copy will probably begin; null: it goes on with one, or has one to discard. Without a lock, so it may be
 * another one by the time there is.
 */
export async function nextGeneration(
  session: Session,
  request: GenerationRequest,
): Promise<number | null | 'no position'> {
  const [row] = await session.query(
    'look for an unfinished copy',
    `SELECT g.last_generation, coalesce(g.copy_generation, g.backlog_generation) AS open,
            EXISTS (SELECT FROM sluice.positions p WHERE p.stream = $2 AND p.apply_group = $3) AS placed
       FROM (VALUES (1)) AS one LEFT JOIN sluice.generations g ON g.mapping_uid = $1`,
    [request.mappingUid, request.stream, request.group],
  );
  if (request.stream !== null && row?.['placed'] !== 't') return 'no position';
  return row?.['open'] == null ? Number(row?.['last_generation'] ?? 0) + 1 : null;
}

/** The mapping's generation row, made when there is none, now this copier's. Throws FENCED for an older copier. */
export async function claim(
  session: Session,
  request: GenerationRequest,
  sessionIdText: string | null,
): Promise<Readonly<Record<string, string | null>>> {
  const [row] = await session.query(
    'take the copy over',
    `INSERT INTO sluice.generations AS g (mapping_uid, copy_epoch, copy_session) VALUES ($1, $2, $3)
     ON CONFLICT (mapping_uid) DO UPDATE SET copy_epoch = excluded.copy_epoch, copy_session = excluded.copy_session
       WHERE g.copy_epoch < excluded.copy_epoch
     RETURNING last_generation, copy_generation, copy_route, copy_request, backlog, backlog_generation`,
    [request.mappingUid, request.copyEpoch, sessionIdText],
  );
  if (!row) throw hasNewerCopier(request.target);
  return row;
}

/**
 * Goes on with the generation that this request began, or begins one. `prepared`: the one whose tables this transaction has made;
 * throws OtherGeneration when it is another.
 */
export async function startGeneration(
  connection: Connection,
  session: Session,
  request: GenerationRequest,
  id: string,
  prepared: number | null,
): Promise<number> {
  const { mappingUid, stream, group } = request;
  const row = await claim(session, request, id);
  const generation = Number(row['last_generation']) + 1;
  const isFirst = row['copy_generation'] === null && row['backlog_generation'] === null;
  if (prepared !== null && (!isFirst || prepared !== generation)) throw new OtherGeneration();
  // A copier that is frozen with the table locked (fill.ts) would be waited for.
  if (row['copy_generation'] !== null) await endCopier(connection, session, mappingUid);
  const route = routeFor(request);
  const resumes =
    row['copy_generation'] !== null &&
    Number(row['copy_request']) === request.requestId &&
    isSameShape(row['copy_route'] ?? null, route);
  if (resumes) return Number(row['copy_generation']);
  if (prepared === null) {
    await discardCopy(connection, session, mappingUid, row);
    await createTables(session, request, generation);
  }
  await session.query(
    'start a generation',
    `WITH announced AS (UPDATE sluice.positions SET route_version = route_version + 1 WHERE stream = $2 AND apply_group = $3)
     UPDATE sluice.generations SET stream = $2, apply_group = $3, last_generation = $4, copy_generation = $4, copy_route = $5,
        copy_request = $6, copy_plan = NULL, is_key_built = false, is_indexed = false,
        backlog = $7, backlog_generation = CASE WHEN $7::text IS NULL THEN NULL ELSE $4::int END, folded_seq = 0, updated_at = now()
      WHERE mapping_uid = $1`,
    [mappingUid, stream, group, generation, JSON.stringify(route), request.requestId, stream === null ? null : 'copy'],
  );
  return generation;
}

export function createTables(session: Session, request: GenerationRequest, generation: number): Promise<unknown> {
  return session.run('create the staging table', [
    ...stagingSql(request, stagingTable(request.mappingUid, generation)),
    ...(request.stream === null ? [] : createBacklogSql(backlogTable(request.mappingUid, generation))),
  ]);
}

/**
 * Staging table, backlog and chunk marks of a copy (or the backlog of a hold that a new copy makes pointless). `row`: of the
 * mapping's generation.
 */
export async function discardCopy(
  connection: Connection,
  session: Session,
  mappingUid: string,
  row: Readonly<Record<string, string | null>>,
): Promise<void> {
  const statements: string[] = [];
  if (row['copy_generation'] != null)
    statements.push(`DROP TABLE IF EXISTS ${quoteTable(stagingTable(mappingUid, Number(row['copy_generation'])))}`);
  if (row['backlog'] != null && row['backlog_generation'] != null)
    statements.push(`DROP TABLE IF EXISTS ${quoteTable(backlogTable(mappingUid, Number(row['backlog_generation'])))}`);
  if (statements.length > 0) {
    await endCopier(connection, session, mappingUid);
    await session.run('discard an unfinished copy', statements);
  }
  await session.query('discard chunk marks', `DELETE FROM sluice.chunks WHERE mapping_uid = $1`, [mappingUid]);
}

/** The staging table: like the live one where there is one, so that rows go over without a cast; else as designed. */
function stagingSql(request: GenerationRequest, name: TableName): string[] {
  if (request.live) {
    const columns = request.columns.map((column) => quoteIdentifier(column.target)).join(', ');
    return [`CREATE TABLE ${quoteTable(name)} AS SELECT ${columns} FROM ${quoteTable(request.live.name)} WITH NO DATA`];
  }
  const designed = ownDesign(request.design);
  const schema =
    designed.types.length > 0 ? [`CREATE SCHEMA IF NOT EXISTS ${quoteIdentifier(request.target.schema)}`] : [];
  return [...schema, ...designed.types, createTableSql(designed, name)];
}
