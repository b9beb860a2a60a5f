import { SluiceError } from '../model/errors.ts';

/** `orders`, `sales.orders`, `"my schema"."a.b"`: names are exact, quotes only keep dots together. CONFIG_INVALID otherwise. */
export function parseTableName(text: string): { schema: string | null; table: string } {
  const parts: string[] = [];
  const part = /\s*(?:"((?:[^"]|"")*)"|([^."]+))\s*(\.|$)/y;
  let ended = false;
  while (!ended) {
    const match = part.exec(text);
    const name = match?.[1]?.replaceAll('""', '"') ?? match?.[2]?.trim();
    if (!match || name === undefined || name === '') throw notUnderstood(text);
    parts.push(name);
    ended = match[3] === '';
  }
  const [first, second, third] = parts;
  if (first === undefined || third !== undefined) throw notUnderstood(text);
  return second === undefined ? { schema: null, table: first } : { schema: first, table: second };
}

function notUnderstood(text: string): SluiceError {
  return new SluiceError('CONFIG_INVALID', `${text} is not a table name`, {
    hint: 'Write table or schema.table; put names that hold a dot in double quotes. For another database use --source-database or --dest-database.',
  });
}
