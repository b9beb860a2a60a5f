/**
 * The source's columns and a route's, when they are no longer the same: what of it can be followed in place (PROTOCOL,
 * Changes). Change events tell which columns a relation has; only the source's catalog can tell whether rows got values that
 * no event carries. Pure.
 */
import type { ChangeRelation } from '../model/changes.ts';
import { SluiceError } from '../model/errors.ts';
import { displayName, type Table } from '../model/tables.ts';
import type { Route, RouteColumn } from '../engines/contract.ts';

/** Columns in which a relation differs from what a route was made for; null: in none. Text, to be recognised again. */
export function driftOf(
  route: Pick<Route, 'columns' | 'mappingUid'>,
  relation: Pick<ChangeRelation, 'columns' | 'columnTypes'>,
): string | null {
  const { columns } = route;
  if (columns.length === relation.columns.length) {
    const same = columns.every(
      (column, i) =>
        column.source === relation.columns[i] && (column.type === undefined || column.type === relation.columnTypes[i]),
    );
    if (same) return null;
  }
  return JSON.stringify([
    route.mappingUid,
    columns.map(({ source, id, type }) => [source, id, type]),
    relation.columns,
    relation.columnTypes,
  ]);
}

export interface Decision {
  /** What the route carries from now on; null: what it carries already. */
  readonly columns: readonly RouteColumn[] | null;
  /** Names of columns among them that are new, and proven to be NULL in every row that has not changed since. */
  readonly added: readonly string[];
  /** Columns that the source no longer has. */
  readonly dropped: readonly string[];
  /** Columns in which rows may have values that no event told of: only a copy brings them. */
  readonly unproven: readonly string[];
  /** The route cannot go on: why, as the rest of "column x …". */
  readonly broken: { readonly column: string; readonly why: string } | null;
}

/** `source`: the source's table as it is now, which is later than the event that has `relation`; null: it is gone. */
export function decide(
  route: Route,
  relation: Pick<ChangeRelation, 'columns' | 'columnTypes'>,
  source: Table | null,
): Decision {
  const now = new Map((source?.columns ?? []).map((column) => [column.name, column]));
  // Rows were not rewritten since the route was made: what they hold, events have told.
  const isUntouched = source?.storage != null && source.storage === route.storage;
  const columns: RouteColumn[] = [];
  const added: string[] = [];
  const dropped: string[] = [];
  const unproven: string[] = [];
  let broken: Decision['broken'] = null;
  for (const column of route.columns) {
    const present = now.get(column.source);
    const at = relation.columns.indexOf(column.source);
    const isSame = present !== undefined && (column.id === undefined || present.id === column.id);
    if (!isSame && route.key.includes(column.source))
      broken ??= { column: column.source, why: 'of the key is gone at the source' };
    if (at < 0 && !isSame) {
      dropped.push(column.source);
      continue;
    }
    // Dropped and added again under the same name: other values in every row.
    if (present !== undefined && !isSame) unproven.push(column.source);
    const isRetyped = column.type !== undefined && present !== undefined && present.streamType !== column.type;
    if (isRetyped && isSame && !isUntouched)
      broken ??= { column: column.source, why: 'was given another type at the source, and its rows were rewritten' };
    columns.push(
      isRetyped && isSame && present.streamType !== undefined ? { ...column, type: present.streamType } : column,
    );
  }
  for (const name of relation.columns) {
    if (route.columns.some((column) => column.source === name)) continue;
    const present = now.get(name);
    // Dropped again since, or computed: nothing to carry.
    if (!present || present.generated !== null) continue;
    // Known under another name: its rows have had values all along.
    const isRenamed = route.columns.some((column) => column.id !== undefined && column.id === present.id);
    if (!isUntouched || isRenamed || present.filled !== false) unproven.push(name);
    else {
      added.push(name);
      columns.push(routeColumn(present, name));
    }
  }
  const isChanged =
    added.length > 0 || dropped.length > 0 || columns.some((column, i) => column.type !== route.columns[i]?.type);
  return { columns: isChanged ? columns : null, added, dropped, unproven, broken };
}

/** A column on its way to `target`, with what tells it from another of that name later. */
export function routeColumn(column: Table['columns'][number], target: string): RouteColumn {
  return {
    source: column.name,
    target,
    ...(column.id === undefined ? {} : { id: column.id }),
    ...(column.streamType === undefined ? {} : { type: column.streamType }),
  };
}

/**
 * Does an event with this relation belong to the table as `described` when a copy began, or to an earlier state of it?
 * `now`: the table as it is now. False: the table was changed since, and the copy must look at it again.
 */
export function isUnchanged(described: Table, now: Table | null): boolean {
  return (
    now?.id === described.id &&
    now.columns.length === described.columns.length &&
    now.columns.every((column, i) => {
      const before = described.columns[i];
      return (
        column.name === before?.name &&
        column.id === before.id &&
        column.streamType === before.streamType &&
        column.generated === before.generated
      );
    })
  );
}

/** Why a copy is needed: COLUMN_ADDED, or SCHEMA_CHANGED when changes cannot be applied until then. */
export function notFollowed(route: Route, decision: Decision): SluiceError {
  if (decision.broken) {
    const { column, why } = decision.broken;
    return new SluiceError('SCHEMA_CHANGED', `column ${column} of ${displayName(route.source)} ${why}`, {
      hint: 'A full sync was requested, which compares both tables again.',
    });
  }
  const names = [...decision.added, ...decision.unproven].join(', ');
  return new SluiceError('COLUMN_ADDED', `the source's table ${displayName(route.source)} has new columns: ${names}`);
}
