/** Defaults that are constants: as MariaDB prints them (MySQL prints text bare, which says nothing of what it is), and as they are written here. */
import type { Constant } from '../../model/tables.ts';
import { quoteLiteral } from './sql.ts';

/** Null: an expression, or none. */
export function constantOf(printed: string | null): Constant | null {
  if (printed === null) return null;
  if (/^-?\d+(\.\d+)?$/.test(printed)) return { kind: 'number', text: printed };
  const text = /^'((?:[^'\\]|'')*)'$/.exec(printed)?.[1];
  if (text !== undefined) return { kind: 'text', text: text.replaceAll("''", "'") };
  const bit = /^b'([01])'$/i.exec(printed)?.[1];
  if (bit !== undefined) return { kind: 'boolean', value: bit === '1' };
  return /^(current_timestamp|now)(\(\d?\))?$/i.test(printed) ? { kind: 'now' } : null;
}

/** Null: a column of this type has no default (MySQL: of text and blob types only expressions). */
export function constantSql(constant: Constant, nativeType: string): string | null {
  if (/^(tiny|medium|long)?(text|blob)|^json|^geom/.test(nativeType)) return null;
  switch (constant.kind) {
    case 'now':
      return `CURRENT_TIMESTAMP${/^(?:datetime|timestamp)(\(\d\))/.exec(nativeType)?.[1] ?? ''}`;
    case 'boolean':
      return constant.value ? "b'1'" : "b'0'";
    case 'number':
      return constant.text;
    case 'text':
      return quoteLiteral(constant.text);
  }
}
