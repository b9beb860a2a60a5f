/** Present rows by key: the keys travel as one bound JSON document, the rows come back as the server's text. */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table } from '../../model/tables.ts';
import type { Cell, RowBatch } from '../../model/changes.ts';
import type { Session } from './connection.ts';
import { boundText, forceKey } from './ranges.ts';
import { readColumns, readRows } from './rows.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { boundExpression, selectExpression } from './types.ts';

export interface FetchRequest {
  readonly table: Table;
  readonly columns: readonly Column[];
  readonly key: readonly Column[];
  readonly keys: readonly (readonly Cell[])[];
}

/** Keys of one statement: a variable's text is limited by max_allowed_packet (16 MiB by default). */
const KEYS_AT_ONCE = 2_000;

export async function fetchByKey(session: Session, request: FetchRequest): Promise<RowBatch> {
  const doing = `fetch rows of ${displayName(request.table.name)} by key`;
  const { columns, key, keys } = request;
  const names = columns.map((column) => column.name);
  const keyNames = key.map((column) => column.name);
  const target = `${quoteTable(request.table.name)} t${forceKey(request.table, keyNames)}`;
  const cells: Cell[] = [];
  let rows = 0;
  for (let at = 0; at < keys.length; at += KEYS_AT_ONCE) {
    await bindKeys(session, key, keys.slice(at, at + KEYS_AT_ONCE));
    const list = columns.map((column) => selectExpression(column.nativeType, `t.${quoteIdentifier(column.name)}`));
    const sql = `SELECT ${list.join(', ')} FROM ${keysTable(key)} STRAIGHT_JOIN ${target} ON ${matches(key)}`;
    for await (const batch of readRows(session, doing, sql, readColumns(columns))) {
      rows += batch.rows;
      for (const cell of batch.cells) cells.push(cell);
    }
  }
  return { columns: names, rows, cells };
}

/** Puts keys, each once, where `keysTable` reads them (invariant 11). */
export async function bindKeys(
  session: Session,
  key: readonly Column[],
  keys: readonly (readonly Cell[])[],
): Promise<void> {
  const texts = new Set(
    keys.map((cells) => JSON.stringify(key.map((column, i) => boundText(column, cells[i] ?? null)))),
  );
  await session.query('bind keys', 'SET @sluice_keys = ?', [`[${[...texts].join(',')}]`]);
}

/** The bound keys as a table `k` of texts. */
export function keysTable(key: readonly Column[]): string {
  const columns = key.map((_, i) => `k${i} LONGTEXT PATH '$[${i}]'`).join(', ');
  return `(SELECT DISTINCT ${key.map((_, i) => `k${i}`).join(', ')} FROM JSON_TABLE(@sluice_keys, '$[*]' COLUMNS (${columns})) AS j) AS k`;
}

/** `t` and `k` are joined by values of the columns' own types, so that the table's index is used. */
export function matches(key: readonly Column[]): string {
  return key
    .map((column, i) => {
      const value = boundExpression(column, `k.k${i}`) ?? (column.type.kind === 'enum' ? `k.k${i}` : null);
      if (value === null)
        throw new SluiceError('KEY_INVALID', `column ${column.name} (${column.nativeType}) cannot be matched by value`);
      return `t.${quoteIdentifier(column.name)} = ${value}`;
    })
    .join(' AND ');
}
