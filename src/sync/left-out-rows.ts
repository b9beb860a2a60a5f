/**
 * Applies changes to a table some of whose rows were left out, or are to be (F36). What such a row holds is older than what the source
 * holds, so that a value which a later change does not carry is never taken from it (F22): it is fetched from the source, as the row is now.
 * Changes that are still to come find it ahead of them by those values, and bring them in the end.
 */
import type { Cell, ChangeCell } from '../model/changes.ts';
import type { KeyedChanges } from '../model/keyed-changes.ts';
import type { ApplyCounts, LeftOutRows } from '../engines/contract.ts';
import { fetchAbsent, type AbsentSource } from './absent-values.ts';
import { applySparing, keyHash, tooManyRefused, type RefusedRow, type Sparing, type Trials } from './refused-rows.ts';

export interface Target extends Trials {
  readonly missing: (keys: readonly (readonly Cell[])[]) => Promise<readonly number[]>;
  /** Null: a staging table, of which a refused row is deleted. */
  readonly leftOut: LeftOutRows | null;
  /** Null: what a change does not carry is taken from the table, or refused. */
  readonly source: (() => Promise<AbsentSource>) | null;
  /** Null: a refused row is thrown (ROW_REFUSED). */
  readonly sparing: Sparing | null;
}

/** Remembered besides those that the table remembers (invariant 7). */
const MOST_SUSPECTS = 10_000;
const NOTHING: ReadonlySet<string> = new Set();

export async function applyKnowing(
  changes: KeyedChanges,
  visibility: readonly string[],
  target: Target,
): Promise<{ readonly counts: ApplyCounts; readonly refused: readonly RefusedRow[] }> {
  const { leftOut, sparing } = target;
  const known = leftOut ? await leftOut.keys() : NOTHING;
  const ready = await complete(changes, visibility, target, known);
  const { counts, refused } = sparing
    ? await spare(ready, target, sparing, known)
    : { counts: await target.apply(ready), refused: [] };
  if (leftOut && (known.size > 0 || refused.length > 0)) await noteLeftOut(ready, refused, leftOut, known);
  return { counts, refused };
}

async function complete(
  changes: KeyedChanges,
  visibility: readonly string[],
  { source, sparing, missing }: Target,
  known: ReadonlySet<string>,
): Promise<KeyedChanges> {
  const { hasUnread = false } = changes;
  if (!source || !changes.hasAbsent || (!hasUnread && known.size === 0 && sparing === null)) return changes;
  const { changes: ready } = await fetchAbsent(changes, visibility, source, {
    isDoubtful: (key, base) => hasUnread || known.has(keyHash(base ?? key)),
    looksFor: () => sparing !== null,
    missing,
  });
  return ready;
}

/** Applies all but what is refused. Throws ROW_REFUSED when that is more than allowed. */
async function spare(
  changes: KeyedChanges,
  target: Target,
  sparing: Sparing,
  known: ReadonlySet<string>,
): Promise<{ counts: ApplyCounts; refused: readonly RefusedRow[] }> {
  const { limit } = sparing;
  const suspects = known.size > 0 ? new Set([...known, ...sparing.suspects]) : sparing.suspects;
  const options = { limit, suspects, drops: target.leftOut === null };
  const { refused, counts } = await applySparing(changes, target, options);
  for (const { key } of refused) if (sparing.suspects.size < MOST_SUSPECTS) sparing.suspects.add(keyHash(key));
  const [first] = refused;
  if (first && !((await sparing.record(refused)) && counts)) throw tooManyRefused(first.reason);
  return { counts: counts ?? { inserted: 0, updated: 0, deleted: 0 }, refused };
}

async function noteLeftOut(
  changes: KeyedChanges,
  refused: readonly RefusedRow[],
  leftOut: LeftOutRows,
  known: ReadonlySet<string>,
): Promise<void> {
  const added = new Set(refused.map(({ key }) => keyHash(key)));
  const removed = [...known].filter((key) => changes.truncate && !added.has(key));
  if (known.size > 0 && !changes.truncate)
    for (const key of keysOf(changes)) {
      const hash = keyHash(key);
      if (known.has(hash) && !added.has(hash)) removed.push(hash);
    }
  const fresh = [...added].filter((key) => !known.has(key));
  if (fresh.length + removed.length > 0) await leftOut.change(fresh, removed);
}

function* keysOf({ deletes, upserts, upsertCount, deleteCount, key, columns }: KeyedChanges): Generator<ChangeCell[]> {
  for (let i = 0; i < deleteCount; i++) yield deletes.slice(i * key.length, (i + 1) * key.length);
  const places = key.map((name) => columns.indexOf(name));
  for (let i = 0; i < upsertCount; i++) yield places.map((at) => upserts[i * columns.length + at]);
}
