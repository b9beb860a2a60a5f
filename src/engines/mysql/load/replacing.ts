/** Where a whole row may be loaded in place of the one under its key (LOAD DATA … REPLACE), and nothing else happens. */
import type { KeyedChanges } from '../../../model/keyed-changes.ts';
import type { Table } from '../../../model/tables.ts';
import type { ApplyPlan } from '../../apply-plan.ts';

/**
 * The key's index is the only unique one, every column of a row is among those that come, and no other table refers to its rows (they
 * would be deleted and inserted then, not updated).
 */
export function mayReplace(table: Table, { columns, key }: ApplyPlan): boolean {
  const isKey = (names: readonly string[]) =>
    names.length === key.length && key.every((column) => names.includes(column.name));
  const unique = [...table.keys, ...table.indexes.filter((index) => index.unique)];
  return (
    table.keys.some((each) => each.usable && isKey(each.columns)) &&
    unique.every((each) => isKey(each.columns)) &&
    table.referencedBy.length === 0 &&
    table.columns.every((column) => column.generated !== null || columns.includes(column))
  );
}

/** The upserts alone, all of which may have a row already. */
export function withoutDeletes(changes: KeyedChanges): KeyedChanges {
  return {
    columns: changes.columns,
    key: changes.key,
    truncate: false,
    deletes: [],
    upserts: changes.upserts,
    images: null,
    newCount: 0,
    bases: changes.bases,
    hasAbsent: changes.hasAbsent,
    deleteCount: 0,
    upsertCount: changes.upsertCount,
  };
}
