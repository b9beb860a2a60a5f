/** What applying collapsed changes to one table needs to know, whatever the engine: which columns, which key, what cannot simply be updated. */
import { SluiceError } from '../model/errors.ts';
import type { Cell, ChangeCell } from '../model/changes.ts';
import type { KeyedChanges } from '../model/keyed-changes.ts';
import { displayName, type Column, type Table, type TableName } from '../model/tables.ts';
import type { ApplyCounts, Catalog, RouteColumn } from './contract.ts';

export class ApplyPlan {
  /** The target's, in the order of the cells. */
  readonly columns: readonly Column[];
  readonly key: readonly Column[];
  /** Places of the key's columns among `columns`. */
  readonly keyAt: readonly number[];
  /** Columns of unique indexes other than the key, and those that cannot be updated: rows that change them are deleted and inserted. */
  readonly unique: readonly number[];

  /**
   * `table`: the target as it is described now. `columns`: source and target names in the order of the cells.
   * `key`: the source names of the key columns. `canUpdate`: an identity column takes an UPDATE.
   */
  constructor(
    table: Table,
    columns: readonly RouteColumn[],
    key: readonly string[],
    canUpdate: (column: Column) => boolean,
  ) {
    this.columns = columns.map((column) => {
      const found = table.columns.find((candidate) => candidate.name === column.target);
      if (!found)
        throw new SluiceError(
          'SCHEMA_CHANGED',
          `column ${column.target} of ${displayName(table.name)} is gone at the destination`,
        );
      return found;
    });
    this.keyAt = key.map((name) => columns.findIndex((column) => column.source === name));
    this.key = this.keyAt.map((at) => {
      const column = this.columns[at];
      if (!column) throw new SluiceError('INTERNAL', 'the key is not among the carried columns');
      return column;
    });
    const keyNames = new Set(this.key.map((column) => column.name));
    const uniqueNames = new Set(
      [
        ...table.keys.map((other) => other.columns),
        ...table.indexes.filter((index) => index.unique).map((index) => index.columns),
      ]
        .filter((names) => names.length !== keyNames.size || names.some((name) => !keyNames.has(name)))
        .flat(),
    );
    this.unique = this.columns.flatMap((column, at) =>
      (uniqueNames.has(column.name) || !canUpdate(column)) && !keyNames.has(column.name) ? [at] : [],
    );
  }

  /** Every key that the changes name, flat: of deletes, of upserts, and those that upserts had before. */
  keysOf(changes: KeyedChanges): Cell[] {
    const cells: Cell[] = [];
    const width = changes.columns.length;
    for (let i = 0; i < changes.upsertCount; i++)
      for (const at of this.keyAt) cells.push(present(changes.upserts[i * width + at]));
    for (const cell of changes.deletes) cells.push(present(cell));
    for (const base of changes.bases.values()) for (const cell of base) cells.push(present(cell));
    return cells;
  }

  /** Upserts with absent cells: which (text of 0 and 1), their key, and the key under which the target has the values. */
  *absentOf(changes: KeyedChanges): Generator<{ row: number; absent: string; key: Cell[]; base: Cell[] }> {
    const width = this.columns.length;
    for (let row = 0; row < changes.upsertCount; row++) {
      let absent = '';
      for (let c = 0; c < width; c++) absent += changes.upserts[row * width + c] === undefined ? '1' : '0';
      if (!absent.includes('1')) continue;
      const key = this.keyAt.map((at) => present(changes.upserts[row * width + at]));
      yield { row, absent, key, base: changes.bases.get(row)?.map(present) ?? key };
    }
  }

  /** Places of the columns that some upsert lacks. */
  absentColumns(changes: KeyedChanges): number[] {
    const columns = new Set<number>();
    changes.upserts.forEach((cell, at) => {
      if (cell === undefined) columns.add(at % this.columns.length);
    });
    return [...columns];
  }
}

/** The table that changes are applied to, as it is now. */
export async function describeTarget(catalog: Catalog, target: TableName): Promise<Table> {
  const [table] = await catalog.describe([target]);
  if (table) return table;
  throw new SluiceError('DESTINATION_TABLE_MISSING', `the destination table ${displayName(target)} is gone`, {
    hint: 'Set is_full_sync = 1 to create and fill it again.',
  });
}

/** For upserts whose absent values the table should have, and has not. */
export function requireFilled(table: TableName, wanted: number, filled: number): void {
  if (filled === wanted) return;
  throw new SluiceError(
    'ROW_REFUSED',
    `${wanted - filled} updated rows are not in ${displayName(table)}, so their unchanged large values are unknown`,
    { hint: 'Rows were removed from the destination by someone else. Set is_full_sync = 1 to copy the table again.' },
  );
}

export function present(cell: ChangeCell): Cell {
  if (cell === undefined) throw new SluiceError('INTERNAL', 'a key cell is absent');
  return cell;
}

export function addCounts(sum: ApplyCounts, more: ApplyCounts): void {
  sum.inserted += more.inserted;
  sum.updated += more.updated;
  sum.deleted += more.deleted;
}

/** Rows that are there already, as the stream of batches that loaders take. */
export async function* oneBatch<T>(batch: T): AsyncGenerator<T> {
  yield batch;
}
