/** Defaults that are constants: as the server keeps them (sys.default_constraints, in parentheses), and as they are written here. */
import type { Constant } from '../../model/tables.ts';
import { quoteLiteral } from './sql.ts';

/** Null: an expression, or none. */
export function constantOf(kept: string | null): Constant | null {
  let text = kept?.trim() ?? '';
  for (let bare = unwrapped(text); bare !== null; bare = unwrapped(text)) text = bare;
  if (/^-?\d+(\.\d+)?$/.test(text)) return { kind: 'number', text };
  const literal = /^N?'((?:[^']|'')*)'$/i.exec(text)?.[1];
  if (literal !== undefined) return { kind: 'text', text: literal.replaceAll("''", "'") };
  return /^(getdate\(\)|sysdatetime\(\)|sysdatetimeoffset\(\)|current_timestamp)$/i.test(text) ? { kind: 'now' } : null;
}

/** Without the parentheses, or the conversion, around it; null: there are none around all of it. */
function unwrapped(text: string): string | null {
  const literal = String.raw`\(*(?:-?\d+(?:\.\d+)?|N?'(?:[^']|'')*'|[a-z_]+(?:\(\))?)\)*`;
  const cast = new RegExp(`^CAST\\((${literal}) AS [^']+\\)$`, 'i').exec(text)?.[1];
  if (cast !== undefined) return cast.trim();
  return new RegExp(`^\\((?:${literal}|CAST\\([^']*'(?:[^']|'')*'[^']*\\))\\)$`, 'i').test(text)
    ? text.slice(1, -1).trim()
    : null;
}

export function constantSql(constant: Constant, nativeType: string): string {
  switch (constant.kind) {
    case 'now':
      return nativeType.startsWith('datetimeoffset') ? 'SYSDATETIMEOFFSET()' : 'SYSDATETIME()';
    case 'boolean':
      return constant.value ? '1' : '0';
    case 'number':
      return constant.text;
    case 'text':
      return quoteLiteral(constant.text);
  }
}
