/**
 * How a table is cut into chunks: ranges of its clustered key (else of a usable one), whose bounds the server chooses. A bound is the
 * exact text of a row's key, and is compared by the server in the column's own type and collation, so that any order of keys will do
 * (uniqueidentifier, text) and bounds can be stored. Ranges are (from, to]; the first has no beginning, the last no end.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table } from '../../model/tables.ts';
import type { Cell } from '../../model/changes.ts';
import type { Chunk, ChunkPlan } from '../contract.ts';
import type { Parameters, Session } from './connection.ts';
import { compareTuples, isOrdered, keyExpression, keyParameter } from './key-values.ts';
import { readRows } from './rows.ts';
import { numberOf } from '../row-values.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';
import { selectExpression } from './types.ts';

const MAX_CHUNKS = 5000;
/** Rows up to which bounds are found by numbering all keys; beyond, by numbering those of sampled pages. */
const NUMBERED_ROWS = 2_000_000;
/** Sampled rows for each chunk: its size is right within some tenths. */
const SAMPLES_PER_CHUNK = 100;

/** Bytes as hex behind `0x`; all other cells are text. */
type BoundValue = string | { readonly hex: string };

interface Bounds {
  readonly from: readonly BoundValue[] | null;
  readonly to: readonly BoundValue[] | null;
}

/** What bounds depend on: the table itself, and the columns they are values of. */
interface Layout {
  readonly id: string;
  readonly key: readonly string[];
}

export interface Range {
  /** Object id the rows must be of. */
  readonly id: string;
  /** ` WHERE …`, or nothing. */
  readonly condition: string;
  readonly parameters: Parameters;
}

export async function planRanges(session: Session, table: Table, targetBytes: number): Promise<ChunkPlan> {
  const doing = `plan the copy of ${displayName(table.name)}`;
  const key = table.kind === 'other' ? [] : await rangeColumns(session, table, doing);
  const size = await sizeOf(session, table, doing);
  const wanted = Math.min(MAX_CHUNKS, Math.ceil(size.bytes / targetBytes));
  const layout: Layout = { id: table.id, key: key.map((column) => column.name) };
  const found = key.length === 0 || wanted < 2 ? [] : await boundsOf(session, table, key, size.rows, wanted, doing);
  const chunks: Chunk[] = [null, ...found].map((from, id) => {
    const bounds: Bounds = { from, to: found[id] ?? null };
    return { id, bounds: JSON.stringify(bounds) };
  });
  return { layout: JSON.stringify(layout), chunks, estimatedRows: size.rows, estimatedBytes: size.bytes };
}

/** The columns of the clustered index as far as they are not null, else those of the first usable key. */
async function rangeColumns(session: Session, table: Table, doing: string): Promise<Column[]> {
  const rows = await session.query(
    doing,
    `SELECT k.column_id AS column_id FROM sys.indexes i
     JOIN sys.index_columns k ON k.object_id = i.object_id AND k.index_id = i.index_id
     WHERE i.object_id = @id AND i.type = 1 AND i.is_disabled = 0 AND k.key_ordinal > 0 ORDER BY k.key_ordinal`,
    { id: Number(table.id) },
  );
  const clustered = rows.map((row) => table.columns.find((column) => column.id === String(row['column_id'])));
  const named = table.keys.find((key) => key.usable)?.columns ?? [];
  const candidates = rows.length > 0 ? clustered : named.map((name) => table.columns.find((one) => one.name === name));
  const columns: Column[] = [];
  for (const column of candidates) {
    if (!column || column.nullable || !isOrdered(column)) break;
    columns.push(column);
  }
  return columns;
}

/**
 * Of a table, by its catalog; dynamic, because a stand-in lacks one of its views. Data and overflowing rows (types 1 and 3) belong to
 * `hobt_id`, large values (2) to `partition_id`.
 */
const SIZE = `IF OBJECT_ID('sys.allocation_units') IS NOT NULL
  EXEC sp_executesql N'SELECT (SELECT SUM(p.rows) FROM sys.partitions p WHERE p.object_id = @id AND p.index_id IN (0, 1)) AS row_count,
    8192 * SUM(u.pages) AS bytes FROM (
      SELECT a.used_pages AS pages FROM sys.partitions p JOIN sys.allocation_units a ON a.container_id = p.hobt_id AND a.type IN (1, 3)
        WHERE p.object_id = @id AND p.index_id IN (0, 1)
      UNION ALL
      SELECT a.used_pages FROM sys.partitions p JOIN sys.allocation_units a ON a.container_id = p.partition_id AND a.type = 2
        WHERE p.object_id = @id AND p.index_id IN (0, 1)
    ) AS u', N'@id int', @id = @table`;

/** Rows and bytes; counted and measured where the catalog does not say (views, a stand-in). */
async function sizeOf(session: Session, table: Table, doing: string): Promise<{ rows: number; bytes: number }> {
  const [said] = await session.query(doing, SIZE, { table: Number(table.id) });
  const known = { rows: numberOf(said, 'row_count') ?? 0, bytes: numberOf(said, 'bytes') ?? 0 };
  if (known.bytes > 0) return known;
  const widths = table.columns.map((column) => `COALESCE(DATALENGTH(${quoteIdentifier(column.name)}), 0)`);
  const from = quoteTable(table.name);
  const [row] = await session.query(
    doing,
    `SELECT (SELECT COUNT_BIG(*) FROM ${from}) AS row_count,
       (SELECT AVG(CAST(w.bytes AS float)) FROM (SELECT TOP (1000) ${widths.join(' + ')} + 10 AS bytes FROM ${from}) AS w) AS width`,
  );
  const rows = Number(row?.['row_count'] ?? 0);
  return { rows, bytes: Math.ceil(rows * Number(row?.['width'] ?? 0)) };
}

async function boundsOf(
  session: Session,
  table: Table,
  key: readonly Column[],
  rows: number,
  wanted: number,
  doing: string,
): Promise<BoundValue[][]> {
  const names = key.map((column) => quoteIdentifier(column.name));
  const sampled = rows > NUMBERED_ROWS;
  const percent = Math.min(100, (wanted * SAMPLES_PER_CHUNK * 100) / Math.max(rows, 1));
  const sample = sampled ? ` TABLESAMPLE SYSTEM (${percent.toFixed(6)} PERCENT)` : '';
  const every = Math.max(1, Math.floor((sampled ? wanted * SAMPLES_PER_CHUNK : rows) / wanted));
  const select = key.map((column, i) => `${selectExpression(column.nativeType, `n.k${i}`)} AS k${i}`).join(', ');
  const sql = `SELECT ${select} FROM (
      SELECT ${names.map((name, i) => `${name} AS k${i}`).join(', ')}, ROW_NUMBER() OVER (ORDER BY ${names.join(', ')}) AS place
      FROM ${quoteTable(table.name)}${sample}
    ) AS n WHERE n.place % ${every} = 0 ORDER BY n.place`;
  const bounds: BoundValue[][] = [];
  for await (const batch of readRows(session, doing, sql)) {
    for (let row = 0; row < batch.rows; row++) {
      const bound = batch.cells.slice(row * key.length, (row + 1) * key.length).map(boundValue);
      // A key that is not unique may come twice.
      if (JSON.stringify(bounds.at(-1)) !== JSON.stringify(bound)) bounds.push(bound);
    }
  }
  return bounds;
}

function boundValue(cell: Cell): BoundValue {
  return typeof cell === 'string' ? cell : { hex: Buffer.from(cell ?? []).toString('hex') };
}

/** Of stored text. Throws COPY_RESTARTED when the table is another one now, or has lost a column that the bounds are of. */
export function rangeOf(table: Table, layoutText: string, chunk: Chunk | null): Range {
  const layout = JSON.parse(layoutText) as Layout;
  const key = layout.key.map((name) => table.columns.find((column) => column.name === name));
  if (layout.id !== table.id || key.some((column) => column === undefined)) throw moved(table);
  const columns = key.filter((column) => column !== undefined);
  const bounds = chunk === null ? { from: null, to: null } : (JSON.parse(chunk.bounds) as Bounds);
  const parameters: Record<string, string | Uint8Array | null> = {};
  const parts: string[] = [];
  if (bounds.from) parts.push(compare(columns, bounds.from, 'f', '>', parameters));
  if (bounds.to) parts.push(compare(columns, bounds.to, 't', '<=', parameters));
  return { id: layout.id, condition: parts.length === 0 ? '' : ` WHERE ${parts.join(' AND ')}`, parameters };
}

function compare(
  key: readonly Column[],
  bound: readonly BoundValue[],
  prefix: string,
  operator: '>' | '<=',
  parameters: Record<string, string | Uint8Array | null>,
): string {
  const operands = key.map((column, i) => {
    const value = bound[i] ?? '';
    const name = `${prefix}${i}`;
    parameters[name] = keyParameter(typeof value === 'string' ? value : Buffer.from(value.hex, 'hex'), column);
    return { column: quoteIdentifier(column.name), value: keyExpression(`@${name}`, column) };
  });
  return compareTuples(operands, operator);
}

/** The table's object id now, as SQL. */
export function objectIdSql(table: Table): string {
  return `OBJECT_ID(${quoteLiteral(quoteTable(table.name))})`;
}

export function moved(table: Table): SluiceError {
  return new SluiceError(
    'COPY_RESTARTED',
    `${displayName(table.name)} was replaced while it was copied: the copy starts again`,
  );
}
