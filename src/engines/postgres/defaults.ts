/** Defaults that are constants: as the server prints them (pg_get_expr), and as they are written here. */
import type { Constant } from '../../model/tables.ts';
import { quoteLiteral } from './sql.ts';

/** Null: an expression, or none. */
export function constantOf(printed: string | null): Constant | null {
  if (printed === null) return null;
  const cast = String.raw`(?:::(?:[a-z_ ]+|"char")(?:\(\d+(?:,\d+)?\))?)*`;
  const number = new RegExp(String.raw`^\(?(-?\d+(?:\.\d+)?)\)?${cast}$`).exec(printed)?.[1];
  if (number !== undefined) return { kind: 'number', text: number };
  const text = new RegExp(`^'((?:[^']|'')*)'${cast}$`).exec(printed)?.[1];
  if (text !== undefined) return { kind: 'text', text: text.replaceAll("''", "'") };
  if (printed === 'true' || printed === 'false') return { kind: 'boolean', value: printed === 'true' };
  return /^(now\(\)|CURRENT_TIMESTAMP(\(\d\))?|LOCALTIMESTAMP(\(\d\))?)$/.test(printed) ? { kind: 'now' } : null;
}

export function constantSql(constant: Constant): string {
  switch (constant.kind) {
    case 'now':
      return 'CURRENT_TIMESTAMP';
    case 'boolean':
      return String(constant.value);
    case 'number':
      return constant.text;
    case 'text':
      return quoteLiteral(constant.text).trim();
  }
}
