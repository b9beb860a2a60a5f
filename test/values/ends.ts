/** The ends of value matrices: how each engine's databases are written to, and what they print of a table. */
import type { Cell } from '../../src/model/changes.ts';
import * as mysql from '../engines/mysql/values.ts';
import { cellPrinted, comparable, printedSql } from '../engines/sqlserver/values.ts';
import { NULL, type MatrixEnd } from './matrix.ts';

export interface Queried {
  query(sql: string): Promise<Readonly<Record<string, unknown>>[]>;
}

/** What two PostgreSQL databases must agree on to print the same text. */
const SETTINGS = `SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'`;

/** `shown`: of a column's text, by its place; absent: the text. `image`: the row's binary image is the last column. */
export function postgresEnd(
  database: Queried,
  columns: number,
  options: { shown?: (column: number, text: string) => string; image?: boolean } = {},
): MatrixEnd {
  const quote = (table: string) => `public."${table}"`;
  return {
    quote,
    execute: (sql) => database.query(sql),
    print: async (table) => {
      await database.query(SETTINGS);
      // format() asks the type's own output function: a cast of character(n) would take its blanks.
      const texts = Array.from(
        { length: columns },
        (_, i) => `CASE WHEN c${i}::text IS NULL THEN NULL ELSE format('%s', c${i}) END`,
      );
      const image = options.image === true ? [`encode(record_send(t), 'hex')`] : [];
      const rows = (await database.query(
        `SELECT id, ARRAY[${[...texts, ...image].join(', ')}] AS cells FROM ${quote(table)} t`,
      )) as { id: number; cells: (string | null)[] }[];
      const shown = options.shown ?? ((_, text) => JSON.stringify(text));
      return new Map(
        rows.map(({ id, cells }) => [
          Number(id),
          cells.map((text, i) => (text === null ? NULL : i < columns ? shown(i, text) : text)),
        ]),
      );
    },
  };
}

/** PostgreSQL's text of a value, as SQL Server's column of the type would be compared. */
export function asSqlServer(type: string, text: string): string {
  return comparable(type, cellOf(/^(var)?binary|^image/.test(type), text));
}

/** … and as MySQL's. */
export function asMysql(type: string, text: string): string {
  return mysql.comparable(type, cellOf(/^(var)?binary|blob$/.test(type), text));
}

function cellOf(isBytes: boolean, text: string): Cell {
  return isBytes ? new Uint8Array(Buffer.from(text.slice(2), 'hex')) : text;
}

/** `types`: of the columns c0, c1, …, as they are declared in this database. */
export function sqlServerEnd(database: Queried, types: readonly string[]): MatrixEnd {
  const quote = (table: string) => `dbo.[${table}]`;
  const list = types.map((type, i) => `${printedSql(type, `c${i}`)} AS c${i}`).join(', ');
  return {
    quote,
    execute: (sql) => database.query(sql),
    print: async (table) => {
      const rows = await database.query(`SELECT id, ${list} FROM ${quote(table)}`);
      return new Map(
        rows.map((row) => [
          Number(row['id']),
          types.map((type, i) => comparable(type, cellPrinted(type, row[`c${i}`] ?? null))),
        ]),
      );
    },
  };
}

/** The same of MySQL and MariaDB. */
export function mysqlEnd(database: Queried, types: readonly string[]): MatrixEnd {
  const quote = (table: string) => `\`${table}\``;
  const list = types.map((type, i) => `${mysql.printedSql(type, `c${i}`)} AS c${i}`).join(', ');
  return {
    quote,
    execute: (sql) => database.query(sql),
    print: async (table) => {
      const rows = await database.query(`SELECT id, ${list} FROM ${quote(table)}`);
      return new Map(
        rows.map((row) => [
          Number(row['id']),
          types.map((type, i) => mysql.comparable(type, mysql.cellPrinted(type, row[`c${i}`] ?? null))),
        ]),
      );
    },
  };
}
