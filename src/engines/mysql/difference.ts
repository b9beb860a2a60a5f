/** Replacing a live table's rows by a copy's: only what differs (PROTOCOL, The swap). */
import type { Column, Table, TableName } from '../../model/tables.ts';
import { differsSql, isExact, of, stagedType } from './exact.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** Keys in which staging and live table differ, or may by now: temporary, of the copier's session. */
export const DIFFERENCE: TableName = { schema: '', table: 'sluice_difference' };

export interface Swap {
  readonly live: TableName;
  readonly staging: TableName;
  readonly columns: readonly Column[];
  readonly key: readonly Column[];
  /** How rows are found by the key (`forceKey`). */
  readonly byKey: { readonly live: string; readonly staging: string };
}

const names = (columns: readonly Column[]) => columns.map((column) => quoteIdentifier(column.name));
const equal = (key: readonly Column[], left: string, right: string) =>
  names(key)
    .map((name) => `${left}.${name} = ${right}.${name}`)
    .join(' AND ');
const places = (key: readonly Column[]) => key.map((_, i) => `k${i + 1}`).join(', ');

/** Fills the table of differing keys; two statements, whose counts add up. Nothing is locked. */
export function compareSql({ live, staging, columns, key, byKey }: Swap): string[] {
  const list = (alias: string) => key.map(of(alias)).join(', ');
  const first = quoteIdentifier(key[0]?.name ?? '');
  const into = `INSERT INTO ${quoteTable(DIFFERENCE)} (${places(key)})`;
  return [
    `${into} SELECT ${list('s')} FROM ${quoteTable(staging)} AS s LEFT JOIN ${quoteTable(live)} AS l${byKey.live} ON ${equal(key, 'l', 's')}
      WHERE l.${first} IS NULL OR ${differsSql(columns, of('l'), of('s'))}`,
    `${into} SELECT ${list('l')} FROM ${quoteTable(live)} AS l LEFT JOIN ${quoteTable(staging)} AS s${byKey.staging} ON ${equal(key, 's', 'l')}
      WHERE s.${first} IS NULL`,
  ];
}

export function emptyDifferenceSql(key: readonly Column[]): string[] {
  const columns = key.map((column, i) => `k${i + 1} ${stagedType(column)} NULL`);
  return [
    `DROP TEMPORARY TABLE IF EXISTS ${quoteTable(DIFFERENCE)}`,
    `CREATE TEMPORARY TABLE ${quoteTable(DIFFERENCE)} (${columns.join(', ')}) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4`,
  ];
}

/** Rows of the staging table into the live one. `from`: FROM the staging table under the alias s … */
export function insertSql({ live, columns }: Swap, from: string): string {
  return `INSERT INTO ${quoteTable(live)} (${names(columns).join(', ')}) SELECT ${columns.map(of('s')).join(', ')} ${from}`;
}

/** Deletes, updates and inserts what still differs: grants, views, keys and readers never notice. */
export function replaceSql(swap: Swap, described: Table): string[] {
  const { columns, key, byKey } = swap;
  if (key.length === 0)
    return [`DELETE FROM ${quoteTable(swap.live)}`, insertSql(swap, `FROM ${quoteTable(swap.staging)} AS s`)];
  const live = `${quoteTable(swap.live)} AS t${byKey.live}`;
  const staging = `${quoteTable(swap.staging)} AS s${byKey.staging}`;
  const on = (alias: string) =>
    names(key)
      .map((name, i) => `${alias}.${name} = d.k${i + 1}`)
      .join(' AND ');
  const keys = `(SELECT DISTINCT ${places(key)} FROM ${quoteTable(DIFFERENCE)}) AS d`;
  const first = quoteIdentifier(key[0]?.name ?? '');
  const both = `${keys} STRAIGHT_JOIN ${staging} ON ${on('s')} STRAIGHT_JOIN ${live} ON ${on('t')}`;
  const differs = differsSql(columns, of('t'), of('s'));
  const isKey = (column: Column) => key.some((each) => each.name === column.name);
  // Rows may exchange the values of a unique column (F24).
  const isMoved = described.keys.length > 1 || described.indexes.some((index) => index.unique);
  const assigned = columns.filter((column) => !(isKey(column) && isExact(column)));
  const set = assigned.map((column) => `t.${quoteIdentifier(column.name)} = s.${quoteIdentifier(column.name)}`);
  return [
    `DELETE t FROM ${keys} STRAIGHT_JOIN ${live} ON ${on('t')} LEFT JOIN ${staging} ON ${on('s')} WHERE s.${first} IS NULL`,
    ...(isMoved ? [`DELETE t FROM ${both} WHERE ${differs}`] : []),
    ...(!isMoved && set.length > 0 ? [`UPDATE ${both} SET ${set.join(', ')} WHERE ${differs}`] : []),
    insertSql(
      swap,
      `FROM ${keys} STRAIGHT_JOIN ${staging} ON ${on('s')} LEFT JOIN ${live} ON ${on('t')} WHERE t.${first} IS NULL`,
    ),
  ];
}
