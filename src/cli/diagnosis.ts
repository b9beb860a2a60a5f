import type { Finding } from '../model/findings.ts';

/** A finding and what it is about: `source shop, database orders`, `mapping 3 (shop: orders)`. */
export interface Diagnosis extends Finding {
  readonly about: string;
}

export function linesOf(one: Diagnosis): string[] {
  const head = `${one.severity.toUpperCase()} ${one.code}: ${one.about}: ${one.message}`;
  return [head, ...one.fixSql.flatMap((sql) => sql.split('\n')).map((line) => `    ${line}`), ''];
}
