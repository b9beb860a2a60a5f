/** Quoting (invariant 11): identifiers are quoted, values are bound; literals only where the grammar allows no parameter. */
import type { TableName } from '../../model/tables.ts';

export function quoteIdentifier(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}

/** A schema is a database here; none means the session's own. */
export function quoteTable(name: TableName): string {
  return name.schema === ''
    ? quoteIdentifier(name.table)
    : `${quoteIdentifier(name.schema)}.${quoteIdentifier(name.table)}`;
}

/** A string literal, for statements without parameters. Our sessions have NO_BACKSLASH_ESCAPES. Never for a row's value. */
export function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
