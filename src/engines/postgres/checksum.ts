/**
 * Checksums by the database itself. A row's text is the server's output of each column, quoted (so that a value cannot look
 * like two, or like NULL), as UTF-8; sessions here have one set of output settings (connection.ts), so two servers write
 * the same text for the same values, whatever their own settings are.
 *
 * Rows are ordered by the key with text compared by bytes (COLLATE "C"): two servers' collations, and two versions of one
 * collation, order differently. Where the key's index has another collation, that costs a sort.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName } from '../../model/tables.ts';
import type { Cell } from '../../model/changes.ts';
import type { ChecksumBlock, ChecksumRequest, Checksummer, RowChecksum } from '../contract.ts';
import { bytesFromHex, bytesToHex } from './copy-format.ts';
import type { Connection, Row } from './connection.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** A key column, ready for SQL. */
interface KeyColumn {
  readonly name: string;
  /** As declared, to cast bound text to. */
  readonly nativeType: string;
  /** The column as it is ordered and compared; `%` stands for it. */
  readonly ordered: (expression: string) => string;
  readonly bytes: boolean;
}

export class PostgresChecksummer implements Checksummer {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Blocks in key order; the last one may be short. */
  async recent(request: ChecksumRequest & { readonly below?: readonly Cell[] | null }): Promise<ChecksumBlock[]> {
    const key = await this.#keyColumns(request);
    const bound: string[] = [];
    const where = request.below ? ` WHERE ${rowCompare(key, '<=', request.below, bound)}` : '';
    const rows = await this.#connection.query(
      `compute checksums of ${displayName(request.table)}`,
      // Numbered behind the LIMIT, so that only the last rows are kept while sorting, and only they are hashed.
      `WITH last AS MATERIALIZED (
         SELECT ${keyTexts(key)}, ${rowMd5(request.columns)} AS md5 FROM (
           SELECT * FROM ${quoteTable(request.table)} t${where} ORDER BY ${order(key, 'DESC')} LIMIT ${integer(request.limit)}
         ) AS t
       ), numbered AS (
         SELECT *, pg_catalog.row_number() OVER () AS n FROM last
       ), counted AS (
         SELECT *, pg_catalog.max(n) OVER () - n AS up FROM numbered
       )
       SELECT pg_catalog.count(*)::text AS rows, pg_catalog.md5(pg_catalog.string_agg(md5, '' ORDER BY up)) AS md5,
         ${key.map((_, i) => `(pg_catalog.array_agg(k${i} ORDER BY up))[1] AS f${i}, (pg_catalog.array_agg(k${i} ORDER BY up DESC))[1] AS l${i}`).join(', ')}
       FROM counted GROUP BY up / ${integer(request.blockRows)} ORDER BY up / ${integer(request.blockRows)}`,
      bound,
    );
    return rows.map((row) => ({
      first: keyCells(row, key, 'f'),
      last: keyCells(row, key, 'l'),
      rows: Number(row['rows']),
      md5: row['md5'] ?? '',
    }));
  }

  async rows(
    request: ChecksumRequest & { readonly from: readonly Cell[]; readonly to: readonly Cell[] },
  ): Promise<RowChecksum[]> {
    const key = await this.#keyColumns(request);
    const bound: string[] = [];
    const where = `${rowCompare(key, '>=', request.from, bound)} AND ${rowCompare(key, '<=', request.to, bound)}`;
    return this.#rowsWhere(request, key, where, bound);
  }

  /** Keys without a row are left out. */
  async rowsByKey(request: ChecksumRequest, keys: readonly (readonly Cell[])[]): Promise<RowChecksum[]> {
    if (keys.length === 0) return [];
    const key = await this.#keyColumns(request);
    const arrays = key.map((column, i) => keys.map((cells) => keyText(cells[i] ?? null, column)));
    const given = key.map((column, i) => `$${i + 1}::text[]::${column.nativeType}[]`).join(', ');
    const matches = key.map((column, i) => `t.${quoteIdentifier(column.name)} = given.k${i}`).join(' AND ');
    const where = `EXISTS (SELECT FROM unnest(${given}) AS given(${key.map((_, i) => `k${i}`).join(', ')}) WHERE ${matches})`;
    return this.#rowsWhere(request, key, where, arrays);
  }

  async #rowsWhere(
    request: ChecksumRequest,
    key: readonly KeyColumn[],
    where: string,
    bound: readonly unknown[],
  ): Promise<RowChecksum[]> {
    const rows = await this.#connection.query(
      `compute checksums of ${displayName(request.table)}`,
      `SELECT ${keyTexts(key)}, ${rowMd5(request.columns)} AS md5 FROM ${quoteTable(request.table)} t
       WHERE ${where} ORDER BY ${order(key, 'ASC')}`,
      bound,
    );
    return rows.map((row) => ({ key: keyCells(row, key, 'k'), md5: row['md5'] ?? '' }));
  }

  /** The key's types: what to cast bound values to, and how to order. Throws SCHEMA_CHANGED when a column is gone. */
  async #keyColumns(request: ChecksumRequest): Promise<KeyColumn[]> {
    const rows = await this.#connection.query(
      `describe the key of ${displayName(request.table)}`,
      `SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, (a.attcollation <> 0) AS collates,
         t.typtype = 'e' AS labels
       FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
       JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped AND a.attname::text = ANY ($3::text[])`,
      [request.table.schema, request.table.table, request.key],
    );
    const byName = new Map(rows.map((row) => [row['name'], row]));
    return request.key.map((name) => {
      const row = byName.get(name);
      if (!row) throw new SluiceError('SCHEMA_CHANGED', `${displayName(request.table)} has no column ${name}`);
      const ordered = (expression: string) => {
        if (row['collates'] === 't') return `${expression} COLLATE "C"`;
        // Two servers may have the labels of an enum in another order.
        return row['labels'] === 't' ? `${expression}::text COLLATE "C"` : expression;
      };
      return { name, nativeType: row['type'] ?? 'text', ordered, bytes: row['type'] === 'bytea' };
    });
  }
}

/** The MD5 of a row, as SQL. `concat` is the type's own output; a cast to text would strip char(n)'s blanks. */
function rowMd5(columns: readonly string[]): string {
  const parts = columns.map((name) => {
    const column = `t.${quoteIdentifier(name)}`;
    // IS NULL is also true for a composite whose fields are all NULL.
    return `CASE WHEN ${column} IS NOT DISTINCT FROM NULL THEN 'N' ELSE pg_catalog.quote_literal(pg_catalog.concat(${column})) END`;
  });
  return `pg_catalog.md5(pg_catalog.convert_to(pg_catalog.array_to_string(ARRAY[${parts.join(', ')}]::text[], ','), 'UTF8'))`;
}

function keyTexts(key: readonly KeyColumn[]): string {
  return key.map((column, i) => `pg_catalog.concat(t.${quoteIdentifier(column.name)}) AS k${i}`).join(', ');
}

function order(key: readonly KeyColumn[], direction: 'ASC' | 'DESC'): string {
  return key.map((column) => `${column.ordered(`t.${quoteIdentifier(column.name)}`)} ${direction}`).join(', ');
}

/** `(k0, k1) <= ($1, $2)`; adds the values to `bound`. */
function rowCompare(
  key: readonly KeyColumn[],
  operator: '<=' | '>=',
  cells: readonly Cell[],
  bound: unknown[],
): string {
  const left = key.map((column) => column.ordered(`t.${quoteIdentifier(column.name)}`)).join(', ');
  const right = key.map((column, i) => {
    bound.push(keyText(cells[i] ?? null, column));
    return column.ordered(`$${bound.length}::text::${column.nativeType}`);
  });
  return `ROW(${left}) ${operator} ROW(${right.join(', ')})`;
}

function keyCells(row: Row, key: readonly KeyColumn[], prefix: string): Cell[] {
  return key.map((column, i) => {
    const text = row[`${prefix}${i}`] ?? null;
    return text !== null && column.bytes ? bytesFromHex(text) : text;
  });
}

function keyText(cell: Cell, column: KeyColumn): string | null {
  if (cell === null || typeof cell === 'string') return cell;
  return column.bytes ? bytesToHex(cell) : Buffer.from(cell).toString('utf8');
}

function integer(value: number): number {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new SluiceError('INTERNAL', 'a count must be a positive integer');
  return value;
}
