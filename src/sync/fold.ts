/** Folds a backlog: blocks → collapse → apply, the same way the live stream goes (PROTOCOL, A copy, 4–5). */
import type { Cell, ChangeCell, ChangeRelation } from '../model/changes.ts';
import { SluiceError } from '../model/errors.ts';
import type { KeyedChanges } from '../model/keyed-changes.ts';
import { displayName, type Table } from '../model/tables.ts';
import type { FoldSession, Route, SnapshotSource } from '../engines/contract.ts';
import { decodeBlock } from './change-block.ts';
import { Collapse, keyText } from './collapse.ts';
import { refusalOf } from '../engines/trial.ts';
import { spare, type Sparing } from './piece-router.ts';
import type { Trials } from './refused-rows.ts';
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

type Fold = Parameters<FoldSession['finish']>[0];

export interface Folder {
  readonly fold: Fold;
  /**
   * The fold has come past a position that the source reached after everything fetched so far: those values are right now. True: no
   * key is in doubt any more. False: some were fetched meanwhile; fold to the source's end once more.
   */
  settle(): boolean;
}

/** Looks at changes whose columns are not the route's, before they are folded; throws what stands in the way. */
export type Guard = (relation: ChangeRelation) => Promise<void>;

/** The source's table was altered while it was copied: what was loaded is of another shape. */
export class TableAltered extends SluiceError {
  constructor(table: Table) {
    super('COPY_RESTARTED', `the columns of ${displayName(table.name)} were changed at the source during the copy`);
  }
}

/** For a copy: changes made before the source's table became what the copy found are folded, later ones start it again. */
export function copyGuard(described: Table, describe: () => Promise<Table | null>): () => Promise<void> {
  return async () => {
    if (!isUnchanged(described, await describe())) throw new TableAltered(described);
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

/** Keys in doubt that are remembered one by one; beyond it every key is in doubt (invariant 7). */
const DOUBTFUL_KEYS = 100_000;

/**
 * Folds with absent values taken from the table that is folded into. With `absent`, while that table is not yet a state that
 * existed, two kinds of them are fetched from the source instead (PROTOCOL, A copy, 4): those of a row whose key changed, because the row
 * under its old key may be another one by now, and those of a row that is not there (it moved before it was read). A row that is there
 * and keeps its key has them right as soon as the fold is past the end: whatever set them since the copy began is in the backlog.
 */
export function folder(
  route: Route,
  absent: AbsentSource | null,
  guard: Guard | null = null,
  sparing: Sparing | null = null,
): Folder {
  const columns = route.columns.map((column) => column.source);
  const doubt = absent ? new Doubt() : null;
  const options = {
    types: absent && new Map(route.columns.flatMap(({ source, type }) => (type === undefined ? [] : [[source, type]]))),
  };
  const guarded = new Set<string>();
  const look = async (relation: ChangeRelation) => {
    const drift = driftOf(route, relation);
    if (drift === null || guarded.has(drift)) return;
    await guard?.(relation);
    guarded.add(drift);
  };
  return {
    settle: () => doubt?.settle() ?? true,
    fold: async (blocks, apply, missing, attempt) => {
      let collapse = new Collapse(columns, route.key, options);
      const flush = async () => {
        let changes = collapse.result();
        let fetched: readonly Cell[][] = [];
        if (changes.hasAbsent && absent && doubt)
          ({ changes, fetched } = await fetchAbsent(changes, collapse.visibility, absent, doubt, missing));
        if (changes.truncate || changes.deleteCount > 0 || changes.upsertCount > 0) {
          if (!sparing) await apply(changes);
          else if ((await applyOrSpare(changes, { apply, attempt }, sparing)) && doubt && fetched.length > 0)
            for (const i of await missing(fetched)) doubt.leaveOut(keyText(fetched[i] ?? []));
        }
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

/** Keys whose row may be ahead of the fold: all of them while chunks were read, later those whose values were fetched. */
class Doubt {
  #keys: Set<string> | null = null;
  #fetched: Set<string> | null = new Set();
  /**
   * Of rows that were fetched and refused. They are not in the table, so that nothing in it is ahead of the fold by them, and whoever waits
   * for all doubt to end does not wait for them: each change of theirs is fetched again.
   */
  readonly #leftOut = new Set<string>();

  includes(key: string): boolean {
    if (this.#keys === null || this.#keys.has(key) || this.#leftOut.has(key)) return true;
    return this.#fetched === null || this.#fetched.has(key);
  }

  leaveOut(key: string): void {
    if (this.#leftOut.size < DOUBTFUL_KEYS && this.#fetched?.delete(key)) this.#leftOut.add(key);
  }

  add(key: string): void {
    this.#fetched?.add(key);
    if (this.#fetched !== null && this.#fetched.size > DOUBTFUL_KEYS) this.#fetched = null;
  }

  settle(): boolean {
    this.#keys = this.#fetched;
    this.#fetched = new Set();
    return this.#keys?.size === 0;
  }
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

/** Fills absent cells from the source where the folded table cannot; rows that are no longer there are left out: a later event says why. */
async function fetchAbsent(
  changes: KeyedChanges,
  visibility: readonly string[],
  from: AbsentSource,
  doubt: Doubt,
  missing: Parameters<Fold>[2],
): Promise<{ readonly changes: KeyedChanges; readonly fetched: readonly Cell[][] }> {
  const width = changes.columns.length;
  const keyAt = changes.key.map((name) => changes.columns.indexOf(name));
  const stayed: Incomplete[] = [];
  const wanted: Incomplete[] = [];
  for (let row = 0; row < changes.upsertCount; row++) {
    const cells = changes.upserts.slice(row * width, (row + 1) * width);
    if (!cells.includes(undefined)) continue;
    const incomplete = { row, key: keyAt.map((at) => cells[at] ?? null) };
    const base = changes.bases.get(row);
    if (!base) stayed.push(incomplete);
    else if (doubt.includes(keyText(base))) wanted.push(incomplete);
  }
  if (stayed.length > 0) {
    for (const i of await missing(stayed.map(({ key }) => key))) {
      const incomplete = stayed[i];
      if (incomplete) wanted.push(incomplete);
    }
  }
  if (wanted.length === 0) return { changes, fetched: [] };
  const fetched = wanted.map(({ key }) => key);
  const rows = await from.snapshot.fetchRows(from.table, changes.columns, changes.key, fetched, visibility);
  const found = new Map<string, number>();
  for (let r = 0; r < rows.rows; r++) found.set(keyText(keyAt.map((at) => rows.cells[r * width + at])), r * width);
  const gone = new Set<number>();
  const upserts = [...changes.upserts];
  for (const { row, key } of wanted) {
    const text = keyText(key);
    doubt.add(text);
    const at = found.get(text);
    if (at === undefined) {
      gone.add(row);
      continue;
    }
    for (let c = 0; c < width; c++)
      if (upserts[row * width + c] === undefined) upserts[row * width + c] = rows.cells[at + c];
  }
  return { changes: without({ ...changes, upserts, images: null }, gone), fetched };
}

interface Incomplete {
  /** The upsert's number. */
  readonly row: number;
  readonly key: Cell[];
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
  // A fold meets rows that the copy has read already: none of them is known to be new.
  return { ...changes, newCount: 0, upserts, images: null, upsertCount: count, bases, hasAbsent };
}

/** A refused row is looked for only where there is one. True: there was. */
async function applyOrSpare(changes: KeyedChanges, trials: Trials, sparing: Sparing): Promise<boolean> {
  const refused = await refusalOf(() => trials.attempt(() => trials.apply(changes)));
  if (refused !== null) await spare(changes, trials, sparing);
  return refused !== null;
}
