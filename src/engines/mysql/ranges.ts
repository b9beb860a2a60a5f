/**
 * Chunks by ranges of a key. A chunk is a range of one column of the key, below equal values of the columns before it, which the
 * index answers by itself. Integers are halved by the server's own estimate of the rows between (an index dive, no read); other
 * types are walked through the index. Ranges depend on how the key orders, not on where rows lie: the layout is the key's definition.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table } from '../../model/tables.ts';
import type { Cell } from '../../model/changes.ts';
import { sameColumns } from '../carried-over.ts';
import type { Chunk, ChunkPlan } from '../contract.ts';
import { cellReader } from './cells.ts';
import { describeTables } from './catalog.ts';
import type { Parameter, Session } from './connection.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { boundExpression, cellForm, selectExpression } from './types.ts';

/** Rows whose value is in (`above`, `to`]; null: no end. `equal`: values of the key's columns before that one. */
export interface Bounds {
  readonly equal: readonly string[];
  readonly above: string | null;
  readonly to: string | null;
}

/** The index that chunks follow, as far as values of its columns can be bound; none: the table is one chunk. */
interface RangeKey {
  readonly index: string;
  readonly columns: readonly Column[];
}

const ALL: Bounds = { equal: [], above: null, to: null };
/** Rows looked at for their size where the server has no statistics yet. */
const SAMPLE = 100;

function rangeKey(table: Table): RangeKey | null {
  for (const key of table.keys.filter((candidate) => candidate.usable && !candidate.isHidden)) {
    const columns: Column[] = [];
    for (const name of key.columns) {
      const column = table.columns.find((candidate) => candidate.name === name);
      if (!column || boundExpression(column, '?') === null) break;
      columns.push(column);
    }
    if (columns.length > 0) return { index: key.name, columns };
  }
  return null;
}

export function layoutOf(table: Table): string {
  const key = rangeKey(table);
  if (key === null) return 'whole';
  return JSON.stringify(key.columns.map((column) => [column.name, column.nativeType, column.collation]));
}

export async function planRanges(
  session: Session,
  table: Table,
  database: string | null,
  targetBytes: number,
): Promise<ChunkPlan> {
  const [now] = await describeTables(session, [table.name], database);
  if (!now) throw new SluiceError('SOURCE_TABLE_MISSING', `${displayName(table.name)} no longer exists`);
  const key = rangeKey(now);
  const planner = new Planner(session, now, key);
  const total = key === null ? (now.estimatedRows ?? 0) : await planner.estimate(ALL);
  const rowBytes = await planner.rowBytes();
  const rows = Math.max(1, Math.floor(targetBytes / rowBytes));
  const bounds = key === null || total <= rows * 1.5 ? [ALL] : await planner.split(ALL, total, rows);
  return {
    layout: layoutOf(now),
    chunks: bounds.map((each, id) => ({ id, bounds: JSON.stringify(each) })),
    estimatedRows: total,
    estimatedBytes: Math.max(now.bytes, total * rowBytes),
  };
}

/** A chunk's bounds, checked: they were stored in a table that people can write to. Throws COPY_RESTARTED when they are not of this key. */
export function readBounds(table: Table, layout: string, chunk: Chunk): Bounds {
  const isText = (value: unknown): value is string | null => value === null || typeof value === 'string';
  try {
    const { equal, above, to } = JSON.parse(chunk.bounds) as Partial<Bounds>;
    const columns = layout === 'whole' ? 0 : (JSON.parse(layout) as unknown[]).length;
    const isKnown = Array.isArray(equal) && equal.every((value) => typeof value === 'string');
    if (
      isKnown &&
      isText(above) &&
      isText(to) &&
      (equal.length < columns || (columns === 0 && above === null && to === null))
    )
      return { equal, above, to };
  } catch {
    // Not JSON: the same as another plan's.
  }
  throw new SluiceError('COPY_RESTARTED', `${displayName(table.name)}: chunk ${chunk.id} is not of this copy's plan`);
}

/** ` WHERE …` over variables of the session that `bindBounds` sets, or nothing. */
export function boundsCondition(table: Table, bounds: Bounds): string {
  const key = rangeKey(table);
  const parts: string[] = [];
  const compare = (column: Column | undefined, operator: string, variable: string) => {
    const value = column === undefined ? null : boundExpression(column, variable);
    if (column === undefined || value === null)
      throw new SluiceError('COPY_RESTARTED', `${displayName(table.name)}: the key of the copy's plan is gone`);
    parts.push(`${quoteIdentifier(column.name)} ${operator} ${value}`);
  };
  bounds.equal.forEach((_, i) => compare(key?.columns[i], '=', `@sluice_equal_${i}`));
  const column = key?.columns[bounds.equal.length];
  if (bounds.above !== null) compare(column, '>', '@sluice_above');
  if (bounds.to !== null) compare(column, '<=', '@sluice_to');
  return parts.length === 0 ? '' : ` WHERE ${parts.join(' AND ')}`;
}

/** Binds the bounds (invariant 11): the SELECT itself goes as text, because only then the server answers in text. */
export async function bindBounds(session: Session, bounds: Bounds): Promise<void> {
  const variables: [string, Parameter][] = bounds.equal.map((value, i) => [`@sluice_equal_${i}`, value]);
  if (bounds.above !== null) variables.push(['@sluice_above', bounds.above]);
  if (bounds.to !== null) variables.push(['@sluice_to', bounds.to]);
  if (variables.length === 0) return;
  const sql = `SET ${variables.map(([name]) => `${name} = ?`).join(', ')}`;
  await session.query(
    'bind the bounds of a chunk',
    sql,
    variables.map(([, value]) => value),
  );
}

/** ` FORCE INDEX (…)`, for estimates and reads by the key; nothing for a table without one. */
export function forceIndex(table: Table): string {
  const key = rangeKey(table);
  return key === null ? '' : ` FORCE INDEX (${quoteIdentifier(key.index)})`;
}

/**
 * For joins that find rows of the table by these columns: of one that was filled a moment ago the server still believes that it is small, and
 * would look through all of it for each row (dev.mysql.com, "Index Hints": a scan is then used only where no index can be).
 */
export function forceKey(table: Table, columns: readonly string[]): string {
  const key = table.keys.find((each) => !each.isHidden && sameColumns(each.columns, columns));
  return key === undefined ? '' : ` FORCE INDEX (${quoteIdentifier(key.name)})`;
}

/**
 * A cell of a key column as it is bound: bytes as hex, a timestamp without its zone, a boolean as a number.
 */
export function boundText(column: Column, cell: Cell): string | null {
  if (cell === null) return null;
  if (column.type.kind === 'bytes') return Buffer.from(cell as Uint8Array).toString('hex');
  const text = typeof cell === 'string' ? cell : Buffer.from(cell).toString('utf8');
  if (column.type.kind === 'timestamptz') return text.replace(/\+00$/, '');
  if (column.type.kind === 'boolean') return text === 't' ? '1' : '0';
  return text;
}

class Planner {
  readonly #session: Session;
  readonly #table: Table;
  readonly #key: RangeKey | null;
  readonly #doing: string;

  constructor(session: Session, table: Table, key: RangeKey | null) {
    this.#session = session;
    this.#table = table;
    this.#key = key;
    this.#doing = `plan the copy of ${displayName(table.name)}`;
  }

  /** Rows within the bounds, as the server estimates them. */
  async estimate(bounds: Bounds): Promise<number> {
    await bindBounds(this.#session, bounds);
    const [column] = this.#key?.columns ?? [];
    // Newer servers print a tree unless asked; and MySQL does not look into an index that it is forced to use ("Optimizing SELECT
    // Statements", range optimization: the dive is skipped), so that every range would have one row.
    const index = forceIndex(this.#table).replace('FORCE', 'USE');
    const rows = await this.#session.query(
      this.#doing,
      `EXPLAIN FORMAT = TRADITIONAL SELECT ${column ? quoteIdentifier(column.name) : '1'} FROM ${quoteTable(this.#table.name)}${index}${boundsCondition(this.#table, bounds)}`,
    );
    return Number(rows[0]?.['rows'] ?? 0);
  }

  /** Bytes of a row: by statistics, or by some rows where they are more. */
  async rowBytes(): Promise<number> {
    const { bytes, estimatedRows, name, columns } = this.#table;
    const average = estimatedRows ? bytes / estimatedRows : 0;
    // Statistics come seconds after the rows. What varies is measured; of very wide tables a part of it (the sum is a deep expression).
    const varying = columns
      .filter(({ type }) => ['text', 'bytes', 'json', 'geometry'].includes(type.kind))
      .slice(0, 50);
    const fixed = 8 * (columns.length - varying.length);
    if (varying.length === 0) return Math.max(fixed, average);
    const names = varying.map((column) => quoteIdentifier(column.name));
    const [row] = await this.#session.query(
      this.#doing,
      `SELECT CAST(AVG(${names.map((column) => `COALESCE(OCTET_LENGTH(${column}), 0)`).join(' + ')}) AS CHAR) AS bytes
       FROM (SELECT ${names.join(', ')} FROM ${quoteTable(name)} LIMIT ${SAMPLE}) AS t`,
    );
    return Math.max(fixed + Number(row?.['bytes'] ?? 0), average);
  }

  /** Ranges of about `rows` rows each, in order; the first and the last without an end. */
  async split(within: Bounds, total: number, rows: number): Promise<Bounds[]> {
    const column = this.#key?.columns[within.equal.length];
    if (column === undefined) return [within];
    if (column.type.kind !== 'int') return this.#walk(within, column, rows);
    const ends = await this.#ends(within, column);
    if (ends === null) return [within];
    const inner = { ...within, above: String(ends.min - 1n), to: String(ends.max) };
    const found = await this.#halve(inner, ends.min - 1n, ends.max, total, rows);
    // What comes before the first or behind the last by then belongs to them.
    return found.map((bounds, i) => {
      if (bounds.equal.length !== within.equal.length) return bounds;
      return {
        equal: bounds.equal,
        above: i === 0 ? within.above : bounds.above,
        to: i === found.length - 1 ? within.to : bounds.to,
      };
    });
  }

  async #ends(within: Bounds, column: Column): Promise<{ min: bigint; max: bigint } | null> {
    await bindBounds(this.#session, within);
    const name = quoteIdentifier(column.name);
    const [row] = await this.#session.query(
      this.#doing,
      `SELECT CAST(MIN(${name}) AS CHAR) AS low, CAST(MAX(${name}) AS CHAR) AS high
       FROM ${quoteTable(this.#table.name)}${forceIndex(this.#table)}${boundsCondition(this.#table, within)}`,
    );
    const [low, high] = [row?.['low'], row?.['high']];
    return typeof low === 'string' && typeof high === 'string' ? { min: BigInt(low), max: BigInt(high) } : null;
  }

  async #halve(bounds: Bounds, above: bigint, to: bigint, estimate: number, rows: number): Promise<Bounds[]> {
    if (estimate <= rows * 1.5) return [bounds];
    if (to - above <= 1n) {
      // One value with many rows: the next column of the key tells them apart.
      if (this.#key?.columns[bounds.equal.length + 1] === undefined) return [bounds];
      return this.split({ equal: [...bounds.equal, String(to)], above: null, to: null }, estimate, rows);
    }
    const middle = above + (to - above) / 2n;
    const left = { ...bounds, to: String(middle) };
    const right = { ...bounds, above: String(middle) };
    return [
      ...(await this.#halve(left, above, middle, await this.estimate(left), rows)),
      ...(await this.#halve(right, middle, to, await this.estimate(right), rows)),
    ];
  }

  async #walk(within: Bounds, column: Column, rows: number): Promise<Bounds[]> {
    const name = quoteIdentifier(column.name);
    const form = cellForm(column.nativeType);
    const found: Bounds[] = [];
    let { above } = within;
    for (;;) {
      await bindBounds(this.#session, { ...within, above });
      const list = column.type.kind === 'bytes' ? `HEX(${name})` : selectExpression(column.nativeType, name);
      const [row] = await this.#session.query(
        this.#doing,
        `SELECT ${list} AS bound FROM ${quoteTable(this.#table.name)}${forceIndex(this.#table)}${boundsCondition(this.#table, { ...within, above })}
         ORDER BY ${name} LIMIT 1 OFFSET ${rows - 1}`,
      );
      const value = row?.['bound'];
      if (value === undefined || value === null) break;
      const next = Buffer.isBuffer(value)
        ? boundText(column, cellReader(form)(value.toString('latin1'), 0, value.length, value, 0))
        : value;
      found.push({ ...within, above, to: next });
      above = next;
    }
    found.push({ ...within, above, to: within.to });
    return found;
  }
}
