/** Routes as they are stored in `sluice.generations`. */
import type { Route } from '../contract.ts';
import { routeOf as routeOfStored } from '../stored-route.ts';
import type { Row } from './connection.ts';

export const ROUTE_COLUMNS = `mapping_uid, live_route, is_live, copy_route, copy_generation, backlog, backlog_generation`;

/** Null: the row routes nothing (a finished copy without a stream). */
export function routeOf(row: Row): Route | null {
  return routeOfStored({
    mappingUid: row['mapping_uid'] ?? '',
    isLive: row['is_live'] === 't',
    liveRoute: row['live_route'] ?? null,
    copyRoute: row['copy_route'] ?? null,
    backlog: row['backlog'] ?? null,
    backlogGeneration: row['backlog_generation'] == null ? null : Number(row['backlog_generation']),
  });
}
