/** Quoting (invariant 11): identifiers are quoted, values are bound; literals only where the grammar allows no parameter. */
import type { TableName } from '../../model/tables.ts';

/** QUOTENAME's rule: a closing bracket is doubled, nothing else is special. */
export function quoteIdentifier(name: string): string {
  return `[${name.replaceAll(']', ']]')}]`;
}

export function quoteTable(name: TableName): string {
  return `${quoteIdentifier(name.schema)}.${quoteIdentifier(name.table)}`;
}

/** A string literal, for statements without parameters (DDL, procedures' names in hints). Never for a row's value. */
export function quoteLiteral(text: string): string {
  return `N'${text.replaceAll("'", "''")}'`;
}
