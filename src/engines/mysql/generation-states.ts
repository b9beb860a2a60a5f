/** What the destination says of mappings: who fills a table, and how far each copy is. */
import type { TableName } from '../../model/tables.ts';
import { backlogTable } from '../home-tables.ts';
import { numberOf, textOf } from '../row-values.ts';
import type { StoredRoute } from '../stored-route.ts';
import type { GenerationState } from '../contract.ts';
import { routeOf } from '../stored-route.ts';
import type { Connection, Row } from './connection.ts';
import { own } from './home.ts';
import { quoteLiteral, quoteTable } from './sql.ts';
import { settleAll } from './swaps.ts';

/** Mappings that one statement names. */
const UIDS_AT_ONCE = 1000;
/** How long a swap that nobody finishes may take before its holder is ended. */
const SETTLE_WAIT_MS = 5_000;

export async function writersOf(connection: Connection, target: TableName): Promise<string[]> {
  const rows = await connection.query(
    'look who writes to the table',
    'SELECT mapping_uid, live_generation, live_route, copy_generation, copy_route FROM sluice_generations',
  );
  const isOf = (row: Row, kind: 'live' | 'copy') => {
    const route = textOf(row, `${kind}_route`);
    if (route === null || numberOf(row, `${kind}_generation`) === null) return false;
    const { schema, table } = (JSON.parse(route) as StoredRoute).target;
    const same = (a: string, b: string) => a.toLowerCase() === b.toLowerCase();
    const { database } = connection;
    return same(table, target.table) && same(schema || (database ?? ''), target.schema || (database ?? ''));
  };
  return rows.filter((row) => isOf(row, 'live') || isOf(row, 'copy')).map((row) => textOf(row, 'mapping_uid') ?? '');
}

/** A second round trip where there are backlogs. */
export async function readStates(connection: Connection, mappingUids: readonly string[]): Promise<GenerationState[]> {
  const read = async () => {
    const rows: Row[] = [];
    for (let at = 0; at < mappingUids.length; at += UIDS_AT_ONCE) {
      const uids = mappingUids.slice(at, at + UIDS_AT_ONCE).map(quoteLiteral);
      rows.push(
        ...(await connection.query(
          'read the state of copies',
          `SELECT * FROM sluice_generations WHERE mapping_uid IN (${uids.join(', ')})`,
        )),
      );
    }
    return rows;
  };
  let rows = await read();
  // What a killed process left between the two steps of a swap (swaps.ts).
  if (await settleAll(connection, rows, SETTLE_WAIT_MS)) rows = await read();
  const states: GenerationState[] = [];
  for (const row of rows)
    states.push({
      mappingUid: textOf(row, 'mapping_uid') ?? '',
      liveGeneration: numberOf(row, 'live_generation'),
      copyGeneration: numberOf(row, 'copy_generation'),
      route: routeOf(row),
      finishedRequest: numberOf(row, 'finished_request'),
      copyRequest: numberOf(row, 'copy_request'),
      copyEpoch: numberOf(row, 'copy_epoch') ?? 0,
      backlogBytes: await backlogBytes(connection, row),
    });
  return states;
}

async function backlogBytes(connection: Connection, row: Row): Promise<number> {
  const generation = numberOf(row, 'backlog_generation');
  if (textOf(row, 'backlog') === null || generation === null) return 0;
  const table = quoteTable(own(backlogTable(textOf(row, 'mapping_uid') ?? '', generation)));
  // One that is gone by now: its copy has finished.
  const [sum] = await connection
    .query('measure a backlog', `SELECT COALESCE(SUM(bytes), 0) AS bytes FROM ${table}`)
    .catch(() => []);
  return numberOf(sum, 'bytes') ?? 0;
}
