/**
 * Checksums of rows in the canonical form of all engines (row-md5.ts). No SQL Server prints a float's shortest digits, and HASHBYTES
 * sees text in the column's code page or UTF-16, so the rows are read as exact cells (what a copy reads, too) and hashed here, as
 * they come.
 *
 * Rows are ordered by the key with text and uniqueidentifier compared as text by code point: two servers' collations order
 * differently, and a GUID's own order here begins with its last group. That costs a sort of the keys.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column } from '../../model/tables.ts';
import type { Cell } from '../../model/changes.ts';
import type { ChecksumBlock, ChecksumRequest, Checksummer, RowChecksum } from '../contract.ts';
import { blocksOf, rowMd5 } from '../row-md5.ts';
import { SqlServerCatalog } from './catalog.ts';
import type { Connection, Parameters, Session } from './connection.ts';
import { keyStatements } from './fetch.ts';
import { compareTuples, keyExpression, keyParameter } from './key-values.ts';
import { readRows } from './rows.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { selectExpression } from './types.ts';

interface Described {
  readonly request: ChecksumRequest;
  readonly key: readonly Column[];
  readonly columns: readonly Column[];
}

type Bound = Record<string, string | Uint8Array | null>;

export class SqlServerChecksummer implements Checksummer {
  readonly #connection: Connection;
  readonly #catalog: SqlServerCatalog;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#catalog = new SqlServerCatalog(connection);
  }

  /** Blocks in key order; the last one may be short. */
  async recent(request: ChecksumRequest & { readonly below?: readonly Cell[] | null }): Promise<ChecksumBlock[]> {
    const described = await this.#describe(request);
    const { key } = described;
    const bound: Bound = {};
    const below = request.below ? ` WHERE ${compareKey(key, request.below, '<=', 'b', bound)}` : '';
    // Only keys are sorted to find the first of the last rows; then whole rows from there on.
    const orders = key.map((column) => ordered(column, `t.${quoteIdentifier(column.name)}`));
    const names = key.map((column) => quoteIdentifier(column.name));
    const last = `SELECT TOP (${integer(request.limit)}) ${names.map((name) => `t.${name}`).join(', ')}
      FROM ${quoteTable(request.table)} AS t${below} ORDER BY ${orders.map((order) => `${order} DESC`).join(', ')}`;
    const on = names.map((name) => `t.${name} = l.${name}`).join(' AND ');
    const sql = `SELECT ${list(described)} FROM (${last}) AS l JOIN ${quoteTable(request.table)} AS t ON ${on} ORDER BY ${orders.join(', ')}`;
    return this.#connection.use((session) =>
      blocksOf(read(session, described, sql, bound), integer(request.blockRows)),
    );
  }

  async rows(
    request: ChecksumRequest & { readonly from: readonly Cell[]; readonly to: readonly Cell[] },
  ): Promise<RowChecksum[]> {
    const described = await this.#describe(request);
    const { key } = described;
    const bound: Bound = {};
    const from = compareKey(key, request.from, '>=', 'f', bound);
    const to = compareKey(key, request.to, '<=', 'l', bound);
    const orders = key.map((column) => ordered(column, `t.${quoteIdentifier(column.name)}`));
    const sql = `SELECT ${list(described)} FROM ${quoteTable(request.table)} AS t WHERE ${from} AND ${to} ORDER BY ${orders.join(', ')}`;
    return this.#connection.use((session) => collect(read(session, described, sql, bound)));
  }

  /** Keys without a row are left out. */
  async rowsByKey(request: ChecksumRequest, keys: readonly (readonly Cell[])[]): Promise<RowChecksum[]> {
    if (keys.length === 0) return [];
    const described = await this.#describe(request);
    const { given, statements } = keyStatements(described.key, keys);
    const names = described.key.map((_, i) => `v${i}`).join(', ');
    const on = described.key.map((column, i) => `t.${quoteIdentifier(column.name)} = k.k${i}`).join(' AND ');
    return this.#connection.use(async (session) => {
      const found: RowChecksum[] = [];
      for (const { values, parameters } of statements) {
        const sql = `SELECT ${list(described)} FROM ${quoteTable(request.table)} AS t
          JOIN (SELECT DISTINCT ${given} FROM (VALUES ${values}) AS v(${names})) AS k ON ${on}`;
        found.push(...(await collect(read(session, described, sql, parameters))));
      }
      return found;
    });
  }

  /** The columns' types. Throws SCHEMA_CHANGED when one is gone. */
  async #describe(request: ChecksumRequest): Promise<Described> {
    const [table] = await this.#catalog.describe([request.table]);
    const find = (name: string): Column => {
      const column = table?.columns.find((candidate) => candidate.name === name);
      if (!column) throw new SluiceError('SCHEMA_CHANGED', `${displayName(request.table)} has no column ${name}`);
      return column;
    };
    return { request, key: request.key.map(find), columns: request.columns.map(find) };
  }
}

async function* read(
  session: Session,
  { request, key, columns }: Described,
  sql: string,
  parameters: Parameters,
): AsyncGenerator<RowChecksum, void, void> {
  const width = key.length + columns.length;
  const doing = `compute checksums of ${displayName(request.table)}`;
  for await (const { cells } of readRows(session, doing, sql, { parameters })) {
    for (let at = 0; at < cells.length; at += width)
      yield { key: cells.slice(at, at + key.length), md5: rowMd5(cells, at + key.length, columns.length) };
  }
}

/** Key, then columns. */
function list({ key, columns }: Described): string {
  const select = (prefix: string) => (column: Column, i: number) =>
    `${selectExpression(column.nativeType, `t.${quoteIdentifier(column.name)}`)} AS ${prefix}${i}`;
  return [...key.map(select('k')), ...columns.map(select('c'))].join(', ');
}

async function collect(rows: AsyncIterable<RowChecksum>): Promise<RowChecksum[]> {
  const all: RowChecksum[] = [];
  for await (const row of rows) all.push(row);
  return all;
}

/** A key column, or a value in its type, as it is ordered. */
function ordered(column: Column, expression: string): string {
  const { kind } = column.type;
  if (kind !== 'text' && kind !== 'uuid') return expression;
  const text = kind === 'uuid' ? `LOWER(CAST(${expression} AS nvarchar(36)))` : `CAST(${expression} AS nvarchar(4000))`;
  return `${text} COLLATE Latin1_General_BIN2`;
}

function compareKey(
  key: readonly Column[],
  cells: readonly Cell[],
  operator: '<=' | '>=',
  prefix: string,
  bound: Bound,
): string {
  const operands = key.map((column, i) => {
    bound[`${prefix}${i}`] = keyParameter(cells[i] ?? null, column);
    return {
      column: ordered(column, `t.${quoteIdentifier(column.name)}`),
      value: ordered(column, keyExpression(`@${prefix}${i}`, column)),
    };
  });
  return compareTuples(operands, operator);
}

function integer(value: number): number {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new SluiceError('INTERNAL', 'a count must be a positive integer');
  return value;
}
