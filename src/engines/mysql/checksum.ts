/**
 * Checksums of rows in the canonical form of all engines. The server's SQL cannot print a FLOAT's shortest digits, so the rows are
 * read as exact cells (what a copy reads, too) and hashed here.
 *
 * Rows are ordered by the key with text compared by bytes: two servers' collations order differently. Where the key's index has
 * another order, that costs a sort.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column } from '../../model/tables.ts';
import type { Cell } from '../../model/changes.ts';
import type { ChecksumBlock, ChecksumRequest, Checksummer, RowChecksum } from '../contract.ts';
import { md5Of, rowMd5 } from '../row-md5.ts';
import { columnsOf } from '../source-table.ts';
import { describeTables } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { bindKeys, keysTable, matches } from './fetch.ts';
import { boundText } from './ranges.ts';
import { readColumns, readRows } from './rows.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { boundExpression, selectExpression } from './types.ts';

interface Described {
  readonly session: Session;
  readonly columns: readonly Column[];
  readonly key: readonly Column[];
}

export class MysqlChecksummer implements Checksummer {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Blocks in key order; the last one may be short. */
  async recent(request: ChecksumRequest & { readonly below?: readonly Cell[] | null }): Promise<ChecksumBlock[]> {
    return this.#with(request, async (described) => {
      const where = request.below ? ` WHERE ${await rowCompare(described, [['<=', request.below]])}` : '';
      const rows = await this.#rows(
        request,
        described,
        `${where}${order(described.key, 'DESC')} LIMIT ${integer(request.limit)}`,
      );
      rows.reverse();
      const blocks: ChecksumBlock[] = [];
      for (let at = 0; at < rows.length; at += integer(request.blockRows)) {
        const block = rows.slice(at, at + request.blockRows);
        const [first, last] = [block[0], block.at(-1)];
        if (!first || !last) break;
        const md5 = md5Of(block.map((row) => row.md5).join(''));
        blocks.push({ first: first.key, last: last.key, rows: block.length, md5 });
      }
      return blocks;
    });
  }

  rows(request: ChecksumRequest & { from: readonly Cell[]; to: readonly Cell[] }): Promise<RowChecksum[]> {
    return this.#with(request, async (described) => {
      const where = await rowCompare(described, [
        ['>=', request.from],
        ['<=', request.to],
      ]);
      return this.#rows(request, described, ` WHERE ${where}${order(described.key, 'ASC')}`);
    });
  }

  /** Keys without a row are left out. */
  async rowsByKey(request: ChecksumRequest, keys: readonly (readonly Cell[])[]): Promise<RowChecksum[]> {
    if (keys.length === 0) return [];
    return this.#with(request, async (described) => {
      await bindKeys(described.session, described.key, keys);
      const joined = ` STRAIGHT_JOIN ${quoteTable(request.table)} t ON ${matches(described.key)}${order(described.key, 'ASC')}`;
      return this.#rows(request, described, joined, keysTable(described.key));
    });
  }

  /** `rest`: what follows FROM and the table `t`; with `from` the table is part of it. */
  async #rows(
    request: ChecksumRequest,
    { session, columns, key }: Described,
    rest: string,
    from?: string,
  ): Promise<RowChecksum[]> {
    const all = [...columns, ...key];
    const list = all
      .map((column) => selectExpression(column.nativeType, `t.${quoteIdentifier(column.name)}`))
      .join(', ');
    const sql = `SELECT ${list} FROM ${from ?? `${quoteTable(request.table)} t`}${rest}`;
    const found: RowChecksum[] = [];
    for await (const { cells, rows } of readRows(session, this.#doing(request), sql, readColumns(all)))
      for (let row = 0; row < rows; row++) {
        const start = row * all.length;
        const md5 = rowMd5(cells, start, columns.length);
        found.push({ key: cells.slice(start + columns.length, start + all.length), md5 });
      }
    return found;
  }

  /** One session throughout: bound values are variables of it. Throws SCHEMA_CHANGED when a column is gone. */
  #with<T>(request: ChecksumRequest, work: (described: Described) => Promise<T>): Promise<T> {
    return this.#connection.use(async (session) => {
      const [table] = await describeTables(session, [request.table], this.#connection.database);
      if (!table) throw new SluiceError('SCHEMA_CHANGED', `${displayName(request.table)} no longer exists`);
      return work({ session, columns: columnsOf(table, request.columns), key: columnsOf(table, request.key) });
    });
  }

  #doing(request: ChecksumRequest): string {
    return `compute checksums of ${displayName(request.table)}`;
  }
}

/** What is text is ordered by its bytes in UTF-8; `isValue`: `expression` is a bound text. */
function ordered(column: Column, expression: string, isValue: boolean): string {
  const isText = column.collation !== null || column.type.kind === 'uuid';
  if (isText) return `CAST(CONVERT(${expression} USING utf8mb4) AS BINARY)`;
  if (!isValue) return expression;
  const value = boundExpression(column, expression);
  if (value === null)
    throw new SluiceError('KEY_INVALID', `column ${column.name} (${column.nativeType}) cannot be compared by value`);
  return value;
}

function order(key: readonly Column[], direction: 'ASC' | 'DESC'): string {
  const by = key.map((column) => `${ordered(column, `t.${quoteIdentifier(column.name)}`, false)} ${direction}`);
  return ` ORDER BY ${by.join(', ')}`;
}

/** `(k0, k1) <= (v0, v1)` for each bound, joined by AND; binds the values. */
async function rowCompare(
  { session, key }: Described,
  bounds: readonly (readonly [operator: '<=' | '>=', cells: readonly Cell[]])[],
): Promise<string> {
  const values: (string | null)[] = [];
  const names: string[] = [];
  const parts = bounds.map(([operator, cells], b) => {
    const right = key.map((column, i) => {
      const name = `@sluice_bound_${b}_${i}`;
      names.push(name);
      values.push(boundText(column, cells[i] ?? null));
      return ordered(column, name, true);
    });
    const left = key.map((column) => ordered(column, `t.${quoteIdentifier(column.name)}`, false));
    return `(${left.join(', ')}) ${operator} (${right.join(', ')})`;
  });
  await session.query('bind a key', `SET ${names.map((name) => `${name} = ?`).join(', ')}`, values);
  return parts.join(' AND ');
}

function integer(value: number): number {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new SluiceError('INTERNAL', 'a count must be a positive integer');
  return value;
}
