/** Quoting (invariant 11): identifiers are quoted, values are bound; literals only where the grammar allows no parameter. */
import type { TableName } from '../../model/tables.ts';

export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

export function quoteTable(name: TableName): string {
  return `${quoteIdentifier(name.schema)}.${quoteIdentifier(name.table)}`;
}

/** A string literal, for commands without parameters (replication commands, DDL). Never for a row's value. */
export function quoteLiteral(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes('\\') ? ` E${quoted.replaceAll('\\', '\\\\')}` : quoted;
}
