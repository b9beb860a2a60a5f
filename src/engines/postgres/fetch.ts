/** Present rows by key, read in a snapshot that is known to see what the change stream has already told of. */
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table } from '../../model/tables.ts';
import type { Cell, RowBatch } from '../../model/changes.ts';
import { bytesFromHex, bytesToHex } from './copy-format.ts';
import type { Session } from './connection.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

const VISIBLE_WITHIN_MS = 60_000;
const MAX_PAUSE_MS = 100;

export interface FetchRequest {
  readonly table: Table;
  readonly columns: readonly Column[];
  readonly key: readonly Column[];
  readonly keys: readonly (readonly Cell[])[];
  /** 32-bit ids of top-level transactions. */
  readonly visibility: readonly string[];
}

/**
 * A commit is decoded from the log before it is visible to snapshots (ProcArrayEndTransaction comes after the commit record,
 * and waits for synchronous standbys in between), so the snapshot that reads must itself be the one that was checked.
 * Throws TIMEOUT when a transaction stays in progress for a minute.
 */
export async function fetchByKey(session: Session, request: FetchRequest): Promise<RowBatch> {
  const doing = `fetch rows of ${displayName(request.table.name)} by key`;
  const columns = request.columns.map((column) => column.name);
  if (request.keys.length === 0) return { columns, rows: 0, cells: [] };
  const deadline = performance.now() + VISIBLE_WITHIN_MS;
  for (let pause = 1; ; pause = Math.min(pause * 2, MAX_PAUSE_MS)) {
    const batch = await session.transaction('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY', async () => {
      const [row] = await session.query(doing, 'SELECT pg_catalog.pg_current_snapshot()::text AS snapshot');
      return seesAll(row?.['snapshot'] ?? '', request.visibility) ? select(session, request, doing) : null;
    });
    if (batch) return batch;
    if (performance.now() > deadline)
      throw new SluiceError('TIMEOUT', `could not ${doing}: a decoded transaction is still not visible`, {
        hint: 'A synchronous standby may be away, so that commits wait for it.',
      });
    await sleep(pause);
  }
}

/**
 * Is each of these transactions over as `snapshot` (`xmin:xmax:xip,…`, manual: pg_snapshot) sees it? Ids in the stream have 32
 * bits, those of the snapshot an epoch besides, so they are compared on the circle of 2³²: less than half of it apart.
 */
export function seesAll(snapshot: string, visibility: readonly string[]): boolean {
  const [, xmax = '0', running = ''] = snapshot.split(':');
  const low = (xid: string) => Number(BigInt(xid) & 0xffffffffn);
  const end = low(xmax);
  const inProgress = new Set(running.split(',').filter(Boolean).map(low));
  return visibility.every((xid) => {
    const id = low(xid);
    return ((id - end) | 0) < 0 && !inProgress.has(id);
  });
}

async function select(session: Session, { table, columns, key, keys }: FetchRequest, doing: string): Promise<RowBatch> {
  const names = columns.map((column) => column.name);
  // One array a key column: the statement stays the same however many keys there are (invariant 11).
  const arrays = key.map((column, i) => keys.map((cells) => keyText(cells[i] ?? null, column)));
  const given = key.map((column, i) => `$${i + 1}::text[]::${column.nativeType}[]`).join(', ');
  const aliases = key.map((_, i) => `k${i}`).join(', ');
  const matches = key.map((column, i) => `t.${quoteIdentifier(column.name)} = k.k${i}`).join(' AND ');
  const only = table.kind === 'table' ? 'ONLY ' : '';
  const list = columns.map((column, i) => `t.${quoteIdentifier(column.name)} AS c${i}`).join(', ');
  const rows = await session.query(
    doing,
    // ctid and tableoid make "each row once" cheap even when a key is asked for twice.
    `SELECT ${list} FROM ${only}${quoteTable(table.name)} t
     WHERE EXISTS (SELECT FROM unnest(${given}) AS k(${aliases}) WHERE ${matches})`,
    arrays,
  );
  const cells: Cell[] = [];
  for (const row of rows)
    for (const [i, column] of columns.entries()) {
      const value = row[`c${i}`] ?? null;
      cells.push(value !== null && column.type.kind === 'bytes' ? bytesFromHex(value) : value);
    }
  return { columns: names, rows: rows.length, cells };
}

/** A key's cell as the text that its type reads. */
export function keyText(cell: Cell, column: Column): string | null {
  if (cell === null || typeof cell === 'string') return cell;
  return column.type.kind === 'bytes' ? bytesToHex(cell) : Buffer.from(cell).toString('utf8');
}
