/**
 * Which capture instance records a table, and whether changes are missing (invariant 5). A table has two at most: the older one is
 * read up to where the newer begins (F14). What a route was made by is `<object id of the change table>:<low endpoint then>`: what
 * changed below that was there before the copy began to read.
 */
import type { CaptureSuccessor, TableCaptures } from '../../model/changes.ts';
import { SluiceError } from '../../model/errors.ts';
import { displayName, tableKey, type TableName } from '../../model/tables.ts';
import type { CapturedColumn, CapturedColumns, CaptureInstance } from './capture-instances.ts';
import { relationOf } from './change-rows.ts';
import { displayLsn, ZERO_LSN, type Lsn } from './position.ts';

export function captureOf(instance: CaptureInstance): string {
  return `${instance.id}:${instance.min ?? ''}`;
}

function parseCapture(capture: string | null): { readonly id: number; readonly since: Lsn } | null {
  const [id, since] = capture?.split(':') ?? [];
  return id === undefined || since === undefined ? null : { id: Number(id), since: since === '' ? ZERO_LSN : since };
}

/**
 * The instances that the stream reads one after another, of one table's: a newer one follows unless it holds less. Columns that are
 * not given are not compared.
 */
export function chainOf(instances: readonly CaptureInstance[], columns: CapturedColumns): CaptureInstance[] {
  const chain: CaptureInstance[] = [];
  const byAge = instances.filter(({ min }) => min !== null).sort((a, b) => a.createdAt - b.createdAt || a.id - b.id);
  for (const instance of byAge) {
    const before = chain.at(-1);
    if (!before || holds(columns.get(instance.id), columns.get(before.id))) chain.push(instance);
  }
  return chain;
}

function holds(newer: readonly CapturedColumn[] | undefined, older: readonly CapturedColumn[] | undefined): boolean {
  return !newer || !older || older.every(({ name }) => newer.some((column) => column.name === name));
}

export interface Segment {
  readonly instance: CaptureInstance;
  readonly low: Lsn;
  readonly high: Lsn;
}

/** What is read of one table between two positions, in order. */
export function segmentsOf(chain: readonly CaptureInstance[], from: Lsn, to: Lsn): Segment[] {
  return chain.flatMap((instance, i) => {
    const begins = i === 0 ? ZERO_LSN : (instance.min ?? ZERO_LSN);
    const ends = chain[i + 1]?.min ?? to;
    const low = begins > from ? begins : from;
    const high = ends < to ? ends : to;
    return low < high ? [{ instance, low, high }] : [];
  });
}

/** The source's instances as they were after the last page of a piece was read. */
export class Captures implements TableCaptures {
  readonly #byTable = new Map<string, CaptureInstance[]>();
  readonly #base: Lsn;
  readonly #columns: CapturedColumns;

  /** `base`: where the piece begins. */
  constructor(instances: readonly CaptureInstance[], base: Lsn, columns: CapturedColumns) {
    for (const instance of instances) {
      const key = tableKey(instance.table);
      this.#byTable.set(key, [...(this.#byTable.get(key) ?? []), instance]);
    }
    this.#base = base;
    this.#columns = columns;
  }

  gap(table: TableName, capture: string | null): SluiceError | null {
    const label = displayName(table);
    const instances = this.#byTable.get(tableKey(table)) ?? [];
    if (instances.length === 0)
      return gap(`${label} is no longer captured: its capture instance was dropped, and what changes now is lost`);
    const pin = parseCapture(capture);
    const pinned = pin ? instances.find(({ id }) => id === pin.id) : chainOf(instances, this.#columns).at(-1);
    if (!pinned) return gap(`the capture instance of ${label} was dropped, and another one made later`);
    const needed = pin && pin.since > this.#base ? pin.since : this.#base;
    if (pinned.min === null || pinned.min <= needed) return null;
    const isCovered = instances.some(
      ({ min, createdAt }) => min !== null && min <= needed && createdAt < pinned.createdAt,
    );
    if (isCovered) return null;
    return gap(
      `changes of ${label} were discarded before they were read: capture instance ${pinned.name} begins at ` +
        `${displayLsn(pinned.min)}, and ${displayLsn(this.#base)} was the last that was read`,
    );
  }

  successor(table: TableName, capture: string | null): CaptureSuccessor | null {
    const instances = this.#byTable.get(tableKey(table)) ?? [];
    const pin = parseCapture(capture);
    const newest = chainOf(instances, this.#columns).at(-1);
    if (!newest || !pin || newest.id === pin.id) return null;
    const columns = this.#columns.get(newest.id);
    // Told once its columns were looked at; what records the table before it is still needed until then.
    return columns ? { capture: `${newest.id}:${pin.since}`, relation: relationOf(newest, columns) } : null;
  }
}

export function gap(message: string, cause?: unknown): SluiceError {
  return new SluiceError('GAP', message, {
    hint: "The table must be copied again: set on_gap = 'resync', or is_full_sync = 1 on the mapping.",
    cause,
  });
}
