/** Replacing a live table's rows by a copy's: only what differs (PROTOCOL, The swap). */
import type { Column, Table, TableName } from '../../model/tables.ts';
import { differsSql, isExact, of, stagedType } from './exact.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** Keys in which staging and live table differ, or may by now: temporary, of the copier's session. */
export const DIFFERENCE = '#difference';

export interface Swap {
  readonly live: TableName;
  readonly staging: TableName;
  readonly columns: readonly Column[];
  readonly key: readonly Column[];
}

const names = (columns: readonly Column[]) => columns.map((column) => quoteIdentifier(column.name));
const equal = (key: readonly Column[], left: string, right: string) =>
  names(key)
    .map((name) => `${left}.${name} = ${right}.${name}`)
    .join(' AND ');

/** Fills the table of differing keys; two statements, whose counts add up. Nothing is locked. */
export function compareSql({ live, staging, columns, key }: Swap): string[] {
  const list = (alias: string) => key.map(of(alias)).join(', ');
  const first = quoteIdentifier(key[0]?.name ?? '');
  const into = `INSERT INTO ${DIFFERENCE} (${key.map((_, i) => `k${i + 1}`).join(', ')})`;
  return [
    `${into} SELECT ${list('s')} FROM ${quoteTable(staging)} AS s LEFT JOIN ${quoteTable(live)} AS l ON ${equal(key, 'l', 's')}
      WHERE l.${first} IS NULL OR ${differsSql(columns, of('l'), of('s'))}`,
    `${into} SELECT ${list('l')} FROM ${quoteTable(live)} AS l
      WHERE NOT EXISTS (SELECT 1 FROM ${quoteTable(staging)} AS s WHERE ${equal(key, 's', 'l')})`,
  ];
}

export function emptyDifferenceSql(key: readonly Column[]): string[] {
  return [
    `DROP TABLE IF EXISTS ${DIFFERENCE}`,
    `CREATE TABLE ${DIFFERENCE} (${key.map((column, i) => `k${i + 1} ${stagedType(column)} NULL`).join(', ')})`,
  ];
}

/** Rows of the staging table into the live one. `from`: FROM the staging table under the alias s … */
export function insertSql({ live, columns }: Swap, described: Table, from: string): string[] {
  const isIdentity = described.columns.some(
    (column) => column.identity !== null && columns.some((carried) => carried.name === column.name),
  );
  const table = quoteTable(live);
  return [
    ...(isIdentity ? [`SET IDENTITY_INSERT ${table} ON`] : []),
    `INSERT INTO ${table} (${names(columns).join(', ')}) SELECT ${columns.map(of('s')).join(', ')} ${from}`,
    ...(isIdentity ? [`SET IDENTITY_INSERT ${table} OFF`] : []),
  ];
}

/**
 * Deletes, updates and inserts what still differs: grants, views, keys and readers never notice. The whole table is locked first:
 * without row versions, whoever is reading it at that moment would see some of the old rows and some of the new.
 */
export function replaceSql(swap: Swap, described: Table): string[] {
  const live = quoteTable(swap.live);
  const staging = quoteTable(swap.staging);
  const { columns, key } = swap;
  const insert = (from: string) => insertSql(swap, described, from);
  if (key.length === 0) return [`DELETE FROM ${live} WITH (TABLOCKX)`, ...insert(`FROM ${staging} AS s`)];
  const on = (alias: string) =>
    names(key)
      .map((name, i) => `${alias}.${name} = d.k${i + 1}`)
      .join(' AND ');
  const keys = `(SELECT DISTINCT ${key.map((_, i) => `k${i + 1}`).join(', ')} FROM ${DIFFERENCE}) AS d`;
  const both = `FROM ${keys} INNER JOIN ${staging} AS s ON ${on('s')} INNER JOIN ${live} AS t ON ${on('t')}`;
  const differs = differsSql(columns, of('t'), of('s'));
  const isKey = (column: Column) => key.some((each) => each.name === column.name);
  // Rows may exchange the values of a unique column (F24), and an identity column takes no update.
  const hasOtherUnique = described.keys.length > 1 || described.indexes.some((index) => index.unique);
  const isMoved = hasOtherUnique || described.columns.some((column) => column.identity !== null && !isKey(column));
  const assigned = columns.filter((column) => column.identity === null && !(isKey(column) && isExact(column)));
  const set = assigned.map((column) => `${quoteIdentifier(column.name)} = s.${quoteIdentifier(column.name)}`);
  return [
    `DELETE t FROM ${live} AS t WITH (TABLOCKX) INNER JOIN ${keys} ON ${on('t')}
      WHERE NOT EXISTS (SELECT 1 FROM ${staging} AS s WHERE ${on('s')})`,
    ...(isMoved ? [`DELETE t ${both} WHERE ${differs}`] : []),
    ...(!isMoved && set.length > 0 ? [`UPDATE t SET ${set.join(', ')} ${both} WHERE ${differs}`] : []),
    ...insert(
      `FROM ${keys} INNER JOIN ${staging} AS s ON ${on('s')} WHERE NOT EXISTS (SELECT 1 FROM ${live} AS t WHERE ${on('t')})`,
    ),
  ];
}
