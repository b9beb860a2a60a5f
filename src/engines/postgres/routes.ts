/** Routes as they are stored in `sluice.generations`. */
import type { Route, RouteColumn } from '../contract.ts';
import type { TableName } from '../../model/tables.ts';
import type { Row } from './connection.ts';

/** One table's way from source to target: the live one's, or the copy's. */
export interface StoredRoute {
  readonly relationId: string;
  readonly source: TableName;
  readonly target: TableName;
  readonly columns: readonly RouteColumn[];
  readonly key: readonly string[];
  readonly storage?: string | null;
  /** The staging table was made like a live one that is there. */
  readonly likeLive?: boolean;
}

export const ROUTE_COLUMNS = `mapping_uid, live_route, is_live, copy_route, copy_generation, backlog, backlog_generation`;

/** Null: the row routes nothing (a finished copy without a stream). */
export function routeOf(row: Row): Route | null {
  const backlog = row['backlog'] === 'copy' || row['backlog'] === 'hold' ? row['backlog'] : null;
  const isLive = row['is_live'] === 't';
  if (!isLive && backlog === null) return null;
  // A copy may carry other columns than the table that is live meanwhile: apply by the live one's, fold by the copy's.
  const text = isLive || backlog === 'hold' ? row['live_route'] : row['copy_route'];
  if (text === null || text === undefined) return null;
  const stored = JSON.parse(text) as StoredRoute;
  return {
    mappingUid: row['mapping_uid'] ?? '',
    ...stored,
    live: isLive,
    backlog,
    generation: row['backlog_generation'] == null ? null : Number(row['backlog_generation']),
  };
}
