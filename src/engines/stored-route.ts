/** Routes as destinations store them with a mapping's generation: JSON, the same in every engine. */
import type { GenerationRequest, Route, RouteChange, RouteColumn } from './contract.ts';
import type { TableName } from '../model/tables.ts';
import { flagOf, numberOf, textOf, type StoredRow } from './row-values.ts';

/** One table's way from source to target: the live one's, or the copy's. */
export interface StoredRoute {
  readonly relationId: string;
  readonly source: TableName;
  readonly target: TableName;
  readonly columns: readonly RouteColumn[];
  readonly key: readonly string[];
  readonly storage?: string | null;
  readonly capture?: string | null;
  /** The staging table was made like a live one that is there. */
  readonly likeLive?: boolean;
}

/** What `routeOf` reads of a row of the generations. */
export const ROUTE_COLUMNS =
  'mapping_uid, live_route, is_live, live_generation, copy_route, copy_generation, backlog, backlog_generation';

/** Null: the row routes nothing (a finished copy without a stream). */
export function routeOf(row: StoredRow): Route | null {
  const isLive = flagOf(row, 'is_live');
  const kind = textOf(row, 'backlog');
  const backlog = kind === 'copy' || kind === 'hold' ? kind : null;
  if (!isLive && backlog === null) return null;
  // A copy may carry other columns than the table that is live meanwhile: apply by the live one's, fold by the copy's.
  const text = textOf(row, isLive || backlog === 'hold' ? 'live_route' : 'copy_route');
  if (text === null) return null;
  const stored = JSON.parse(text) as StoredRoute;
  return {
    mappingUid: textOf(row, 'mapping_uid') ?? '',
    ...stored,
    live: isLive,
    liveGeneration: numberOf(row, 'live_generation'),
    backlog,
    generation: numberOf(row, 'backlog_generation'),
  };
}

export function routeFor(request: GenerationRequest): StoredRoute {
  return {
    relationId: request.source.id,
    source: request.source.name,
    target: request.target,
    columns: request.columns,
    key: request.key,
    storage: request.source.storage ?? null,
    ...(request.source.capture === undefined ? {} : { capture: request.source.capture }),
  };
}

/** The route after a change of the source's columns, or of what records them. */
export function changedRoute(route: StoredRoute, change: RouteChange): StoredRoute {
  const { columns, capture } = change;
  return { ...route, columns, ...(capture === undefined ? {} : { capture }) };
}

/** The route by which a copy is folded into its staging table. */
export function copyRouteOf(request: GenerationRequest, generation: number): Route {
  return {
    mappingUid: request.mappingUid,
    relationId: request.source.id,
    source: request.source.name,
    target: request.target,
    columns: request.columns,
    key: request.key,
    live: false,
    backlog: request.stream === null ? null : 'copy',
    generation,
  };
}

/** A copier that died may be succeeded: its staging table is what the new copy would make. */
export function isSameShape(stored: string | null, route: StoredRoute): boolean {
  return (
    stored !== null &&
    JSON.stringify(normalized(JSON.parse(stored) as StoredRoute)) === JSON.stringify(normalized(route))
  );
}

function normalized(route: StoredRoute): unknown {
  return [
    route.relationId,
    route.source.schema,
    route.source.table,
    route.target.schema,
    route.target.table,
    route.columns.map((column) => [column.source, column.target]),
    route.key,
    route.likeLive ?? false,
  ];
}
