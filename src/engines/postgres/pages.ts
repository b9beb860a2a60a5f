/**
 * Chunks by pages. A chunk is a range of ctids of one leaf (the table itself, or a partition that holds rows), which
 * PostgreSQL 14 and later reads as a TID range scan: no index, no sort, each page once. Page numbers mean something only for
 * one file, so the layout lists the leaves' filenodes (`pg_relation_filenode`), and a rewrite or TRUNCATE restarts the copy.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Table } from '../../model/tables.ts';
import type { Chunk, ChunkPlan } from '../contract.ts';
import type { Session } from './connection.ts';
import { quoteTable } from './sql.ts';

/** Pages `from` to `to` (exclusive; null: the end, wherever it is by then) of the relation `leaf`; `from` null: all of a relation without pages (view, foreign table). */
export interface Bounds {
  readonly leaf: string;
  readonly filenode: string;
  readonly from: number | null;
  readonly to: number | null;
}

const MAX_PAGE = 2 ** 32 - 1;

/** $1: the table's oid. Leaves in a fixed order; for a table without partitions itself. */
const LEAVES = `
  SELECT c.oid::text AS oid, coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::text AS filenode, c.relkind,
    (pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint)::text AS pages,
    pg_catalog.pg_table_size(c.oid)::text AS bytes, c.reltuples::text AS rows, root.nspname AS schema, root.relname AS name
  FROM (SELECT t.oid, t.relkind, t.relname, n.nspname FROM pg_catalog.pg_class t
        JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = $1::text::oid) AS root
  JOIN pg_catalog.pg_class c ON CASE WHEN root.relkind = 'p'
    THEN c.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(root.oid) p WHERE p.isleaf)
    ELSE c.oid = root.oid END
  WHERE c.relkind <> 'p'
  ORDER BY c.oid`;

/** Splits by the table's bytes per page, TOAST included. Waits at most five seconds for a table that is held exclusively. */
export async function planLeaves(session: Session, table: Table, targetBytes: number): Promise<ChunkPlan> {
  const doing = `plan the copy of ${displayName(table.name)}`;
  const rows = await session.transaction(`BEGIN READ ONLY; SET LOCAL lock_timeout = '5s'`, () =>
    session.query(doing, LEAVES, [table.id]),
  );
  if (rows.length === 0 && table.kind !== 'partitioned') throw missing(table);
  const chunks: Chunk[] = [];
  const layout: string[] = [];
  let estimatedRows: number | null = null;
  let estimatedBytes = 0;
  const add = (bounds: Omit<Bounds, 'filenode'>) => chunks.push({ id: chunks.length, bounds: JSON.stringify(bounds) });
  for (const row of rows) {
    const leaf = row['oid'] ?? '';
    const pages = Number(row['pages']);
    const bytes = Number(row['bytes']);
    const tuples = Number(row['rows']);
    layout.push(`${leaf}:${row['filenode'] ?? '0'}`);
    estimatedBytes += bytes;
    if (tuples >= 0) estimatedRows = (estimatedRows ?? 0) + Math.round(tuples);
    if (row['relkind'] !== 'r' && row['relkind'] !== 'm') {
      add({ leaf, from: null, to: null });
      continue;
    }
    const step = Math.max(1, Math.floor(targetBytes / Math.max(1, bytes / Math.max(1, pages))));
    for (let from = 0; from === 0 || from < pages; from += step)
      add({ leaf, from, to: from + step < pages ? from + step : null });
  }
  return { layout: layout.join(','), chunks, estimatedRows, estimatedBytes };
}

/** A chunk's bounds, checked: they were stored in a table that people can write to. Throws COPY_RESTARTED when they are not of this layout. */
export function readBounds(table: Table, layout: string, chunk: Chunk): Bounds {
  const bad = () =>
    new SluiceError('COPY_RESTARTED', `${displayName(table.name)}: chunk ${chunk.id} is not of this copy's plan`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(chunk.bounds);
  } catch {
    throw bad();
  }
  const { leaf, from, to } = (parsed ?? {}) as { leaf?: unknown; from?: unknown; to?: unknown };
  const page = (value: unknown): value is number | null =>
    value === null || (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MAX_PAGE);
  if (typeof leaf !== 'string' || !/^\d{1,10}$/.test(leaf) || !page(from) || !page(to)) throw bad();
  const filenode = parseLayout(layout).get(leaf);
  if (filenode === undefined || (from === null && to !== null)) throw bad();
  return { leaf, filenode, from, to };
}

/** ` WHERE ctid …`, or nothing. The bounds are numbers that `readBounds` checked. */
export function chunkCondition(bounds: Bounds): string {
  if (bounds.from === null) return '';
  const to = bounds.to === null ? '' : ` AND ctid < '(${bounds.to},0)'::tid`;
  return ` WHERE ctid >= '(${bounds.from},0)'::tid${to}`;
}

/** The leaf as it stands behind FROM, under the name that it has now. Throws COPY_RESTARTED when it is gone. */
export async function resolveLeaf(session: Session, table: Table, bounds: Bounds): Promise<string> {
  const rows = await session.query(
    `find a leaf of ${displayName(table.name)}`,
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1::text::oid`,
    [bounds.leaf],
  );
  const [row] = rows;
  if (!row) throw restarted(table);
  const name = quoteTable({ schema: row['schema'] ?? '', table: row['name'] ?? '' });
  return bounds.from === null ? name : `ONLY ${name}`;
}

/**
 * After the COPY, in its transaction: the leaf that was read is still this file, still part of the table, and the name that
 * was read still means it. Throws COPY_RESTARTED.
 */
export async function checkLayout(session: Session, table: Table, bounds: Bounds): Promise<void> {
  const rows = await session.query(
    `check the layout of ${displayName(table.name)}`,
    `SELECT coalesce(pg_catalog.pg_relation_filenode($1::text::oid), 0)::text AS filenode,
       $1::text::oid = $2::text::oid OR EXISTS (
         SELECT FROM pg_catalog.pg_partition_ancestors($1::text::oid) a WHERE a.relid = $2::text::oid) AS belongs,
       EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = $1::text::oid) AS there,
       EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() AND l.relation = $1::text::oid
         AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())) AS locked`,
    [bounds.leaf, table.id],
  );
  const [row] = rows;
  const same = row?.['filenode'] === bounds.filenode && row['belongs'] === 't' && row['there'] === 't';
  // Not locked by us: the COPY read another relation that had taken the name in between.
  if (!same || row['locked'] !== 't') throw restarted(table);
}

/** Locks all leaves of the layout (ACCESS SHARE) in an open transaction, then compares the layout. Takes no snapshot before the locks. */
export async function lockLayout(session: Session, table: Table, layout: string): Promise<void> {
  const doing = `lock ${displayName(table.name)}`;
  // Locking a partitioned table locks its partitions; a view or foreign table has no file to protect.
  if (table.kind !== 'other') await session.query(doing, `LOCK TABLE ${quoteTable(table.name)} IN ACCESS SHARE MODE`);
  const rows = await session.query(doing, LEAVES, [table.id]);
  const now = new Map(rows.map((row) => [row['oid'] ?? '', row['filenode'] ?? '0']));
  const planned = parseLayout(layout);
  // A partition that came since the plan has no chunk, so the whole must be planned again.
  if (now.size !== planned.size) throw restarted(table);
  for (const [leaf, filenode] of planned) if (now.get(leaf) !== filenode) throw restarted(table);
}

function parseLayout(layout: string): Map<string, string> {
  const leaves = new Map<string, string>();
  for (const part of layout.split(',')) {
    const found = /^(\d{1,10}):(\d{1,10})$/.exec(part);
    if (found?.[1] !== undefined && found[2] !== undefined) leaves.set(found[1], found[2]);
  }
  return leaves;
}

function restarted(table: Table): SluiceError {
  return new SluiceError(
    'COPY_RESTARTED',
    `${displayName(table.name)} was rewritten, truncated or repartitioned during the copy`,
  );
}

function missing(table: Table): SluiceError {
  return new SluiceError('SOURCE_TABLE_MISSING', `${displayName(table.name)} no longer exists`);
}
