/** Present rows by key. */
import { displayName, type Column, type Table } from '../../model/tables.ts';
import type { Cell, RowBatch } from '../../model/changes.ts';
import type { Session } from './connection.ts';
import { keyExpression, keyParameter } from './key-values.ts';
import { readRows } from './rows.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { selectExpression } from './types.ts';

/** A request takes 2,100 parameters at most. */
const MAX_PARAMETERS = 2000;

export interface FetchRequest {
  readonly table: Table;
  readonly columns: readonly Column[];
  readonly key: readonly Column[];
  readonly keys: readonly (readonly Cell[])[];
}

/**
 * Under locks even where READ_COMMITTED_SNAPSHOT is on: a transaction is in the log, and may be captured, a moment before row versions
 * show it; its locks are let go after that.
 */
export async function fetchByKey(session: Session, request: FetchRequest): Promise<RowBatch> {
  const { table, columns, key, keys } = request;
  const cells: Cell[] = [];
  let rows = 0;
  const list = columns.map(
    (column, i) => `${selectExpression(column.nativeType, `t.${quoteIdentifier(column.name)}`)} AS c${i}`,
  );
  const { given, statements } = keyStatements(key, keys);
  for (const { values, parameters } of statements) {
    const sql = `SELECT ${list.join(', ')} FROM ${quoteTable(table.name)} AS t WITH (READCOMMITTEDLOCK)
      JOIN (SELECT DISTINCT ${given} FROM (VALUES ${values}) AS v(${key.map((_, i) => `v${i}`).join(', ')})) AS k
      ON ${key.map((column, i) => `t.${quoteIdentifier(column.name)} = k.k${i}`).join(' AND ')}`;
    for await (const batch of readRows(session, `fetch rows of ${displayName(table.name)} by key`, sql, {
      parameters,
    })) {
      for (const cell of batch.cells) cells.push(cell);
      rows += batch.rows;
    }
  }
  return { columns: columns.map((column) => column.name), rows, cells };
}

export interface KeyStatement {
  /** `(@k0, @k1), …` */
  readonly values: string;
  readonly parameters: Record<string, string | Uint8Array | null>;
}

/** Keys as lists of parameters, and what makes values of the columns' types of them (`… AS k0, …`, from a table v of columns v0, …). */
export function keyStatements(
  key: readonly Column[],
  keys: readonly (readonly Cell[])[],
): { given: string; statements: KeyStatement[] } {
  const given = key.map((column, i) => `${keyExpression(`v.v${i}`, column)} AS k${i}`).join(', ');
  const statements: KeyStatement[] = [];
  const atOnce = Math.max(1, Math.floor(MAX_PARAMETERS / Math.max(key.length, 1)));
  for (let from = 0; from < keys.length; from += atOnce) {
    const parameters: Record<string, string | Uint8Array | null> = {};
    const values = keys.slice(from, from + atOnce).map((cells, row) => {
      const names = key.map((column, i) => {
        const name = `k${row * key.length + i}`;
        parameters[name] = keyParameter(cells[i] ?? null, column);
        return `@${name}`;
      });
      return `(${names.join(', ')})`;
    });
    statements.push({ values: values.join(', '), parameters });
  }
  return { given, statements };
}
