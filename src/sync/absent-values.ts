/** Values that a change does not carry because it left them as they were, fetched from the source where the table that is written cannot tell. */
import type { Cell, ChangeCell } from '../model/changes.ts';
import type { KeyedChanges } from '../model/keyed-changes.ts';
import { SluiceError, toSluiceError } from '../model/errors.ts';
import { displayName, type Table } from '../model/tables.ts';
import type { Catalog, Route, SnapshotSource } from '../engines/contract.ts';
import { keyText } from './collapse.ts';

/** The source, by the row's new key. */
export interface AbsentSource {
  readonly snapshot: Pick<SnapshotSource, 'fetchRows'>;
  readonly table: Table;
}

/** The route's. What fails there is the mapping's trouble, not the destination's: its changes wait in a backlog. */
export async function absentSource(
  { snapshot, catalog }: { readonly snapshot: SnapshotSource; readonly catalog: Catalog },
  route: Route,
): Promise<AbsentSource> {
  const asked = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      const { message } = toSluiceError(error);
      throw new SluiceError(
        'TIMEOUT',
        `values of ${displayName(route.source)} that a change left as they were could not be fetched: ${message}`,
        { cause: error },
      );
    }
  };
  const [table] = await asked(() => catalog.describe([route.source]));
  if (!table || table.id !== route.relationId)
    throw new SluiceError(
      'SOURCE_TABLE_REPLACED',
      `the source's table ${displayName(route.source)} is another one now`,
      {
        hint: 'Set is_full_sync = 1 to copy the new table.',
      },
    );
  return { table, snapshot: { fetchRows: (...wanted) => asked(() => snapshot.fetchRows(...wanted)) } };
}

/** What the written table says of the row that a change builds upon. */
export interface Doubtful {
  /** Its values may not be taken. `base`: the key it had before; null: the key it has. */
  isDoubtful(key: readonly Cell[], base: readonly ChangeCell[] | null): boolean;
  /** Asks, of a row that is in no doubt, whether it is there. */
  looksFor(base: readonly ChangeCell[] | null): boolean;
  readonly missing: (keys: readonly (readonly Cell[])[]) => Promise<readonly number[]>;
}

interface Incomplete {
  /** The upsert's number. */
  readonly row: number;
  readonly key: Cell[];
  /** Under which the written table would have it. */
  readonly at: Cell[];
}

/**
 * The changes with those values in them, and the keys of the rows they were fetched for. A row that the source no longer has is left out: a
 * later event says why.
 */
export async function fetchAbsent(
  changes: KeyedChanges,
  visibility: readonly string[],
  from: AbsentSource | (() => Promise<AbsentSource>),
  doubt: Doubtful,
): Promise<{ readonly changes: KeyedChanges; readonly fetched: readonly Cell[][] }> {
  const width = changes.columns.length;
  const keyAt = changes.key.map((name) => changes.columns.indexOf(name));
  const looked: Incomplete[] = [];
  const wanted: Incomplete[] = [];
  for (let row = 0; row < changes.upsertCount; row++) {
    const cells = changes.upserts.slice(row * width, (row + 1) * width);
    if (!cells.includes(undefined)) continue;
    const key = keyAt.map((at) => cells[at] ?? null);
    const base = changes.bases.get(row) ?? null;
    const incomplete = { row, key, at: base ? base.map((cell) => cell ?? null) : key };
    if (doubt.isDoubtful(key, base)) wanted.push(incomplete);
    else if (doubt.looksFor(base)) looked.push(incomplete);
  }
  if (looked.length > 0)
    for (const i of await doubt.missing(looked.map(({ at }) => at))) wanted.push(...looked.slice(i, i + 1));
  if (wanted.length === 0) return { changes, fetched: [] };
  const { snapshot, table } = typeof from === 'function' ? await from() : from;
  const fetched = wanted.map(({ key }) => key);
  const rows = await snapshot.fetchRows(table, changes.columns, changes.key, fetched, visibility);
  const found = new Map<string, number>();
  for (let r = 0; r < rows.rows; r++) found.set(keyText(keyAt.map((at) => rows.cells[r * width + at])), r * width);
  const gone = new Set<number>();
  const upserts = [...changes.upserts];
  for (const { row, key } of wanted) {
    const at = found.get(keyText(key));
    if (at === undefined) {
      gone.add(row);
      continue;
    }
    for (let c = 0; c < width; c++)
      if (upserts[row * width + c] === undefined) upserts[row * width + c] = rows.cells[at + c];
  }
  return { changes: without({ ...changes, upserts, images: null }, gone), fetched };
}

/** The changes without some upserts; what a row that was filled had as its base is no longer needed. */
function without(changes: KeyedChanges, gone: ReadonlySet<number>): KeyedChanges {
  const width = changes.columns.length;
  const upserts: ChangeCell[] = [];
  const bases = new Map<number, readonly ChangeCell[]>();
  let hasAbsent = false;
  let count = 0;
  for (let row = 0; row < changes.upsertCount; row++) {
    if (gone.has(row)) continue;
    const cells = changes.upserts.slice(row * width, (row + 1) * width);
    if (cells.includes(undefined)) {
      hasAbsent = true;
      const base = changes.bases.get(row);
      if (base) bases.set(count, base);
    }
    upserts.push(...cells);
    count++;
  }
  // Rows may be there already: none of them is known to be new.
  return { ...changes, newCount: 0, upserts, images: null, upsertCount: count, bases, hasAbsent };
}
