/** Folds a backlog: blocks → collapse → apply, the same way the live stream goes (PROTOCOL, A copy, 4–5). */
import type { Cell, ChangeRelation } from '../model/changes.ts';
import { SluiceError } from '../model/errors.ts';
import { displayName, type Table } from '../model/tables.ts';
import type { FoldSession, Route } from '../engines/contract.ts';
import { decodeBlock } from './change-block.ts';
import { Collapse, keyText } from './collapse.ts';
import { fetchAbsent, type AbsentSource } from './absent-values.ts';
import { applyKnowing } from './left-out-rows.ts';
import type { Sparing } from './refused-rows.ts';
import { decide, driftOf, isUnchanged, type Decision } from './drift.ts';

/** What one round reads from the backlog at most; its blocks are read one by one. */
export const ROUND_BYTES = 64 << 20;
/** What a collapse holds before it is applied. */
const COLLAPSE_BYTES = 16 << 20;
/** A backlog this small is folded under the position row's lock. */
const SMALL_BACKLOG_BYTES = 1 << 20;

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

export interface FolderOptions {
  readonly guard?: Guard | null;
  /** For rows that the table refuses; null: it is thrown. */
  readonly sparing?: Sparing | null;
  /** Where the values come from that the table should have, and has not because of a row that was left out. */
  readonly mend?: (() => Promise<AbsentSource>) | null;
}

/** Keys in doubt that are remembered one by one; beyond it every key is in doubt (invariant 7). */
const DOUBTFUL_KEYS = 100_000;

/**
 * Folds with absent values taken from the table that is folded into. With `absent`, while that table is not yet a state that
 * existed, two kinds of them are fetched from the source instead (PROTOCOL, A copy, 4): those of a row whose key changed, because the row
 * under its old key may be another one by now, and those of a row that is not there (it moved before it was read). A row that is there
 * and keeps its key has them right as soon as the fold is past the end: whatever set them since the copy began is in the backlog.
 */
export function folder(route: Route, absent: AbsentSource | null, options: FolderOptions = {}): Folder {
  const { guard = null, sparing = null, mend = null } = options;
  const columns = route.columns.map((column) => column.source);
  const doubt = absent ? new Doubt() : null;
  const known = {
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
    fold: async (blocks, apply, missing, attempt, leftOut) => {
      let collapse = new Collapse(columns, route.key, known);
      const flush = async () => {
        let changes = collapse.result();
        let fetched: readonly Cell[][] = [];
        if (changes.hasAbsent && absent && doubt) {
          const { hasUnread = false } = changes;
          ({ changes, fetched } = await fetchAbsent(changes, collapse.visibility, absent, {
            isDoubtful: (_key, base) => hasUnread || (base !== null && doubt.includes(keyText(base))),
            looksFor: (base) => base === null,
            missing,
          }));
          // What is fetched with every change of its row is never taken from this one.
          if (!hasUnread) for (const key of fetched) doubt.add(keyText(key));
        }
        if (changes.truncate || changes.deleteCount > 0 || changes.upsertCount > 0) {
          const target = { apply, attempt, missing, leftOut, source: doubt ? null : mend, sparing };
          const { refused } = await applyKnowing(changes, collapse.visibility, target);
          if (refused.length > 0 && doubt && fetched.length > 0)
            for (const i of await missing(fetched)) doubt.leaveOut(keyText(fetched[i] ?? []));
        }
        collapse = new Collapse(columns, route.key, known);
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
