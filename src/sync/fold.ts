/** Folds a backlog: blocks → collapse → apply, the same way the live stream goes (PROTOCOL, A copy, 4–5). */
import type { KeyedChanges } from '../model/keyed-changes.ts';
import { SluiceError } from '../model/errors.ts';
import type { ChangeCell, ChangeRelation } from '../model/changes.ts';
import { displayName, type Table } from '../model/tables.ts';
import type { ApplyCounts, FoldSession, Route, SnapshotSource, StoredBlock } from '../engines/contract.ts';
import { decodeBlock } from './change-block.ts';
import { Collapse, keyText } from './collapse.ts';
import { decide, driftOf, isUnchanged, type Decision } from './drift.ts';

/** What one round reads from the backlog at most; its blocks are read one by one. */
export const ROUND_BYTES = 64 << 20;
/** What a collapse holds before it is applied. */
const COLLAPSE_BYTES = 16 << 20;
/** A backlog this small is folded under the position row's lock. */
const SMALL_BACKLOG_BYTES = 1 << 20;

/** Where absent values come from while the copy is not yet a state that existed: the source, by the new key. */
export interface AbsentSource {
  readonly snapshot: SnapshotSource;
  readonly table: Table;
}

export interface Folder {
  readonly fold: (
    blocks: AsyncIterable<StoredBlock>,
    apply: (changes: KeyedChanges) => Promise<ApplyCounts>,
  ) => Promise<void>;
  /** Values were fetched from the source since the last call of this. */
  takeFetched(): boolean;
}

/** Looks at changes whose columns are not the route's, before they are folded; throws what stands in the way. */
export type Guard = (relation: ChangeRelation) => Promise<void>;

/** For a copy: changes made before the source's table became what the copy found are folded, later ones start it again. */
export function copyGuard(described: Table, describe: () => Promise<Table | null>): () => Promise<void> {
  return async () => {
    if (isUnchanged(described, await describe())) return;
    throw new SluiceError(
      'COPY_RESTARTED',
      `the columns of ${displayName(described.name)} were changed at the source during the copy`,
    );
  };
}

/** The held route does not carry what the source's table has become. */
export class RouteOutdated extends Error {
  readonly decision: Decision;
  constructor(decision: Decision) {
    super('the route is outdated');
    this.decision = decision;
  }
}

/** For a held mapping: columns that were dropped stay as they are, anything else changes the route first. */
export function heldGuard(route: Route, describe: () => Promise<Table | null>): Guard {
  return async (relation) => {
    const decision = decide(route, relation, await describe());
    if (decision.added.length > 0 || decision.unproven.length > 0 || decision.broken) throw new RouteOutdated(decision);
  };
}

/** `absent` null: absent values are those of the table that is folded into. */
export function folder(route: Route, absent: AbsentSource | null, guard: Guard): Folder {
  const columns = route.columns.map((column) => column.source);
  const options = {
    types: absent && new Map(route.columns.flatMap(({ source, type }) => (type === undefined ? [] : [[source, type]]))),
  };
  const guarded = new Set<string>();
  const look = async (relation: ChangeRelation) => {
    const drift = driftOf(route, relation);
    if (drift === null || guarded.has(drift)) return;
    await guard(relation);
    guarded.add(drift);
  };
  let fetched = false;
  return {
    takeFetched: () => {
      const was = fetched;
      fetched = false;
      return was;
    },
    fold: async (blocks, apply) => {
      let collapse = new Collapse(columns, route.key, options);
      const flush = async () => {
        let changes = collapse.result();
        if (changes.hasAbsent && absent) {
          changes = await fetchAbsent(changes, collapse.visibility, absent);
          fetched = true;
        }
        if (changes.truncate || changes.deleteCount > 0 || changes.upsertCount > 0) await apply(changes);
        collapse = new Collapse(columns, route.key, options);
      };
      for await (const block of blocks) {
        const changes = decodeBlock(block.bytes);
        await look(changes.relation);
        collapse.add(changes);
        if (collapse.bytes >= COLLAPSE_BYTES) await flush();
      }
      await flush();
    },
  };
}

/** Folds until little is left, or until two rounds in a row do not shrink what waits: the rest is for `finish`. */
export async function foldDown(session: FoldSession, fold: Folder['fold'], check: () => void): Promise<void> {
  let before = Number.POSITIVE_INFINITY;
  let stuck = 0;
  for (;;) {
    check();
    const waiting = await session.backlogBytes();
    if (waiting <= SMALL_BACKLOG_BYTES) return;
    stuck = waiting >= before ? stuck + 1 : 0;
    if (stuck >= 2) return;
    before = waiting;
    await session.round(ROUND_BYTES, fold);
  }
}

/** Fills absent cells from the source; rows that are no longer there are left out: a later event says why. */
async function fetchAbsent(
  changes: KeyedChanges,
  visibility: readonly string[],
  from: AbsentSource,
): Promise<KeyedChanges> {
  const width = changes.columns.length;
  const keyAt = changes.key.map((name) => changes.columns.indexOf(name));
  const incomplete: { row: number; key: ChangeCell[] }[] = [];
  for (let row = 0; row < changes.upsertCount; row++) {
    const cells = changes.upserts.slice(row * width, (row + 1) * width);
    if (cells.includes(undefined)) incomplete.push({ row, key: keyAt.map((at) => cells[at]) });
  }
  const rows = await from.snapshot.fetchRows(
    from.table,
    changes.columns,
    changes.key,
    incomplete.map(({ key }) => key.map((cell) => cell ?? null)),
    visibility,
  );
  const found = new Map<string, number>();
  for (let r = 0; r < rows.rows; r++) found.set(keyText(keyAt.map((at) => rows.cells[r * width + at])), r * width);
  const missing = new Set<number>();
  const upserts = [...changes.upserts];
  for (const { row, key } of incomplete) {
    const at = found.get(keyText(key));
    if (at === undefined) {
      missing.add(row);
      continue;
    }
    for (let c = 0; c < width; c++)
      if (upserts[row * width + c] === undefined) upserts[row * width + c] = rows.cells[at + c];
  }
  return {
    ...changes,
    upserts: missing.size === 0 ? upserts : upserts.filter((_, i) => !missing.has(Math.floor(i / width))),
    upsertCount: changes.upsertCount - missing.size,
    bases: new Map(),
    hasAbsent: false,
  };
}
