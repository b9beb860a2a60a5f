/** Routes as destinations store them with a mapping's generation: JSON, the same in every engine. */
import type { GenerationRequest, Route, RouteChange, RouteColumn } from './contract.ts';
import type { TableName } from '../model/tables.ts';

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

export interface StoredGeneration {
  readonly mappingUid: string;
  readonly isLive: boolean;
  readonly liveRoute: string | null;
  readonly copyRoute: string | null;
  readonly backlog: string | null;
  readonly backlogGeneration: number | null;
}

/** Null: the row routes nothing (a finished copy without a stream). */
export function routeOf(row: StoredGeneration): Route | null {
  const backlog = row.backlog === 'copy' || row.backlog === 'hold' ? row.backlog : null;
  if (!row.isLive && backlog === null) return null;
  // A copy may carry other columns than the table that is live meanwhile: apply by the live one's, fold by the copy's.
  const text = row.isLive || backlog === 'hold' ? row.liveRoute : row.copyRoute;
  if (text === null) return null;
  const stored = JSON.parse(text) as StoredRoute;
  return {
    mappingUid: row.mappingUid,
    ...stored,
    live: row.isLive,
    backlog,
    generation: row.backlogGeneration,
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
