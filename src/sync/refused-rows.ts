/**
 * Finds the rows of a batch that the destination refuses (constraint, range, encoding), and applies the others. Rows are only
 * ever left out of the whole batch, never applied in parts of it: two rows that exchange their values succeed together only.
 */
import { createHash } from 'node:crypto';
import { isUtf8 } from 'node:buffer';
import type { Cell, ChangeCell } from '../model/changes.ts';
import { hasCode, SluiceError } from '../model/errors.ts';
import type { KeyedChanges } from '../model/keyed-changes.ts';
import type { ApplyCounts } from '../engines/contract.ts';
import { refusalOf } from '../engines/trial.ts';
import { halve } from './halving.ts';

export interface RefusedRow {
  readonly operation: 'upsert' | 'delete';
  /** Legible: text, or bytes in hex after `\\x`; the same for text that comes as its bytes. */
  readonly key: readonly Cell[];
  readonly reason: SluiceError;
  /** By source column; what the change did not carry is left out. */
  readonly values: Readonly<Record<string, Cell>>;
}

/** What a mapping whose rows were refused may leave out. */
export interface Sparing {
  /** How many rows at most. */
  readonly limit: number;
  /** `keyHash` of those that were refused before, as far as is known; those that are refused are added. */
  readonly suspects: Set<string>;
  /** Keeps them, durably, before the commit; false: the mapping must stop. */
  record(rows: readonly RefusedRow[]): Promise<boolean>;
}

/** More rows were refused than the mapping may leave out. */
export function tooManyRefused(reason: SluiceError): SluiceError {
  return new SluiceError('ROW_REFUSED', reason.message, {
    hint: reason.hint ?? 'The keys are in dead_letters. Mend the destination or the rows, or raise max_failed_rows.',
    cause: reason,
  });
}

export interface Trials {
  apply(changes: KeyedChanges): Promise<ApplyCounts>;
  /** Undoes what `work` did when it throws. */
  attempt<T>(work: () => Promise<T>): Promise<T>;
}

export interface Spared {
  readonly refused: readonly RefusedRow[];
  /** Null: more rows are refused than were looked for, and nothing was applied. */
  readonly counts: ApplyCounts | null;
}

/** Rows refused because of other rows are told from those others by trying; with more of them than this it is given up. */
const MOST_CONFLICTS = 20;
/** With more of them in a batch it is first asked whether they were all mended, as by one statement at the source. */
const FEW_SUSPECTS = 10;

export interface SparingOptions {
  /** With more refused rows than these, nothing is applied. */
  readonly limit: number;
  /** `keyHash` of rows that were refused before: they are tried by themselves, so that the search need not find them again. */
  readonly suspects: ReadonlySet<string>;
  /** A refused row does not keep its older state, but is deleted: what is not there is never taken for what the source has. */
  readonly drops: boolean;
}

/** Applies all but the refused rows; throws what is not the rows' fault. */
export async function applySparing(changes: KeyedChanges, trials: Trials, options: SparingOptions): Promise<Spared> {
  const { limit, suspects, drops } = options;
  const search = new Search(changes, trials);
  const applied = () => trials.apply(drops ? search.dropping() : search.part());
  let counts: ApplyCounts | null = null;
  const succeeds = async () => (await refusalOf(async () => (counts = await trials.attempt(applied)))) === null;
  const known = search.among(suspects);
  if (known.length > FEW_SUSPECTS && (await succeeds())) return { refused: [], counts };
  if ((await search.excludeUnfitOf(known, limit)) && (await succeeds())) return { refused: search.refused(), counts };
  if (!(await search.excludeUnfit(limit))) return { refused: search.refused(), counts: null };
  let from = 0;
  const unfit = search.excluded.size;
  for (let failure = await search.fails(); failure !== null; failure = await search.fails()) {
    if (!failure.isConflict || search.excluded.size - unfit >= MOST_CONFLICTS) throw failure;
    from = await search.excludeNextConflict(from, failure);
  }
  await search.readmit();
  if (search.excluded.size > limit) return { refused: search.refused(), counts: null };
  return { refused: search.refused(), counts: await applied() };
}

class Undo extends Error {}

class Search {
  readonly #changes: KeyedChanges;
  readonly #trials: Trials;
  readonly #size: number;
  /** Numbers of changes left out: deletes first, then upserts, as in the batch. */
  readonly excluded = new Map<number, SluiceError>();

  constructor(changes: KeyedChanges, trials: Trials) {
    this.#changes = changes;
    this.#trials = trials;
    this.#size = changes.deleteCount + changes.upsertCount;
  }

  /** Why the changes without the excluded ones cannot be applied; null: they can. Nothing is changed. */
  async fails(first = 0, end = this.#size): Promise<SluiceError | null> {
    try {
      await this.#trials.attempt(async () => {
        await this.#trials.apply(this.part(first, end));
        throw new Undo();
      });
    } catch (error) {
      if (error instanceof Undo) return null;
      if (hasCode(error, 'ROW_REFUSED')) return error;
      throw error;
    }
    return null;
  }

  /** Numbers of the changes of these rows (`keyHash`). */
  among(hashes: ReadonlySet<string>): number[] {
    const found: number[] = [];
    if (hashes.size === 0) return found;
    for (let number = 0; number < this.#size; number++)
      if (hashes.has(keyHash(this.#keyOf(number)))) found.push(number);
    return found;
  }

  /** Leaves out those that are refused for themselves. False: there is more than `limit` of it. */
  async excludeUnfitOf(numbers: readonly number[], limit: number): Promise<boolean> {
    for (const number of numbers) {
      const failure = await this.fails(number, number + 1);
      if (failure !== null && !failure.isConflict) this.excluded.set(number, failure);
      if (this.excluded.size > limit) return false;
    }
    return true;
  }

  /**
   * Leaves out what is refused for itself, whatever other rows say. False: there is more than `limit` of it, and some more was not
   * looked for.
   */
  async excludeUnfit(limit: number): Promise<boolean> {
    if (this.excluded.size > limit) return false;
    return halve(
      0,
      this.#size,
      async (first, end) => (this.#isLeft(first, end) ? this.fails(first, end) : null),
      (number, failure) => {
        if (!failure.isConflict) this.excluded.set(number, failure);
        return this.excluded.size <= limit;
      },
    );
  }

  /** Some of them are not excluded. */
  #isLeft(first: number, end: number): boolean {
    for (let number = first; number < end; number++) if (!this.excluded.has(number)) return true;
    return false;
  }

  /** Leaves out the change that ends the shortest beginning that fails; the first `from` changes do not. Returns its number. */
  async excludeNextConflict(from: number, failure: SluiceError): Promise<number> {
    let good = from;
    let bad = this.#size;
    let reason = failure;
    while (bad - good > 1) {
      const middle = (good + bad) >> 1;
      const found = await this.fails(0, middle);
      if (found) {
        bad = middle;
        reason = found;
      } else good = middle;
    }
    this.excluded.set(bad - 1, reason);
    return bad - 1;
  }

  /** Takes back what was left out only because another was: rows that exchange unique values with one that came later. */
  async readmit(): Promise<void> {
    const numbers = [...this.excluded].filter(([, reason]) => reason.isConflict).map(([number]) => number);
    const groups = [...numbers.map((a) => [a]), ...numbers.flatMap((a, i) => numbers.slice(i + 1).map((b) => [a, b]))];
    for (const group of groups) {
      const kept = group.map((number) => this.excluded.get(number));
      if (kept.includes(undefined) || numbers.length < 2) continue;
      for (const number of group) this.excluded.delete(number);
      if ((await this.fails()) === null) continue;
      group.forEach((number, i) => {
        const reason = kept[i];
        if (reason) this.excluded.set(number, reason);
      });
    }
  }

  /** The changes numbered from `first` to before `end`, without the excluded ones. */
  part(first = 0, end = this.#size): KeyedChanges {
    const { deletes, upserts, deleteCount, upsertCount, bases, key, columns, newCount, truncate } = this.#changes;
    const isWhole = first === 0 && end === this.#size;
    if (isWhole && this.excluded.size === 0) return this.#changes;
    const isIn = (number: number) => number >= first && number < end && !this.excluded.has(number);
    const keptDeletes: ChangeCell[] = [];
    let deletesIn = 0;
    for (let i = 0; i < deleteCount; i++) {
      if (!isIn(i)) continue;
      keptDeletes.push(...deletes.slice(i * key.length, (i + 1) * key.length));
      deletesIn++;
    }
    const keptUpserts: ChangeCell[] = [];
    const keptBases = new Map<number, readonly ChangeCell[]>();
    let upsertsIn = 0;
    let newIn = 0;
    for (let i = 0; i < upsertCount; i++) {
      if (!isIn(deleteCount + i)) continue;
      const base = bases.get(i);
      if (base) keptBases.set(upsertsIn, base);
      for (let c = i * columns.length; c < (i + 1) * columns.length; c++) keptUpserts.push(upserts[c]);
      upsertsIn++;
      if (i < newCount) newIn++;
    }
    return {
      ...this.#changes,
      // A part is only tried: what it is refused for alone does not depend on the rows that were there.
      truncate: truncate && isWhole,
      deletes: keptDeletes,
      deleteCount: deletesIn,
      upserts: keptUpserts,
      images: null,
      upsertCount: upsertsIn,
      newCount: newIn,
      bases: keptBases,
      hasAbsent: keptUpserts.includes(undefined),
    };
  }

  /** As `part`, and of the excluded upserts nothing remains. */
  dropping(): KeyedChanges {
    const part = this.part();
    const { deleteCount } = this.#changes;
    const gone = [...this.excluded.keys()].filter((number) => number >= deleteCount);
    if (gone.length === 0) return part;
    return {
      ...part,
      deletes: [...part.deletes, ...gone.flatMap((number) => this.#keyOf(number))],
      deleteCount: part.deleteCount + gone.length,
      upserts: part.upserts,
      images: null,
    };
  }

  #keyOf(number: number): readonly ChangeCell[] {
    const { deletes, upserts, deleteCount, key, columns } = this.#changes;
    if (number < deleteCount) return deletes.slice(number * key.length, (number + 1) * key.length);
    const at = (number - deleteCount) * columns.length;
    return key.map((name) => upserts[at + columns.indexOf(name)]);
  }

  refused(): RefusedRow[] {
    const { deletes, upserts, deleteCount, key, columns } = this.#changes;
    return [...this.excluded].map(([number, reason]) => {
      if (number < deleteCount) {
        const cells = deletes.slice(number * key.length, (number + 1) * key.length).map(legible);
        return {
          operation: 'delete',
          key: cells,
          reason,
          values: Object.fromEntries(key.map((name, i) => [name, cells[i] ?? null])),
        };
      }
      const at = (number - deleteCount) * columns.length;
      const values: Record<string, Cell> = {};
      columns.forEach((name, i) => {
        const cell = upserts[at + i];
        if (cell !== undefined) values[name] = legible(cell);
      });
      return { operation: 'upsert', key: key.map((name) => values[name] ?? null), reason, values };
    });
  }
}

/** Names a row where its key must not be kept (invariant 12). */
export function keyHash(key: readonly ChangeCell[]): string {
  return createHash('sha256')
    .update(JSON.stringify(key.map(legible)))
    .digest('hex');
}

/** A cell as a person reads it. */
export function legible(cell: ChangeCell): string | null {
  if (cell === undefined || cell === null || typeof cell === 'string') return cell ?? null;
  const bytes = Buffer.from(cell.buffer, cell.byteOffset, cell.byteLength);
  return isUtf8(bytes) && !bytes.includes(0) ? bytes.toString('utf8') : `\\x${bytes.toString('hex')}`;
}
