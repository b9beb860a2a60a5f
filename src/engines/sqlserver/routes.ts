/** Routes as they are stored in `sluice.generations`. */
import type { Route } from '../contract.ts';
import { routeOf as routeOfStored } from '../stored-route.ts';
import type { Row } from './connection.ts';
import { flagOf, numberOf, textOf } from '../row-values.ts';

export const ROUTE_COLUMNS = `mapping_uid, live_route, is_live, copy_route, copy_generation, backlog, backlog_generation`;

/** Null: the row routes nothing (a finished copy without a stream). */
export function routeOf(row: Row): Route | null {
  return routeOfStored({
    mappingUid: textOf(row, 'mapping_uid') ?? '',
    isLive: flagOf(row, 'is_live'),
    liveRoute: textOf(row, 'live_route'),
    copyRoute: textOf(row, 'copy_route'),
    backlog: textOf(row, 'backlog'),
    backlogGeneration: numberOf(row, 'backlog_generation'),
  });
}
