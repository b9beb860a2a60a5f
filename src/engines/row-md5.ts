/**
 * The MD5 of a row as PostgreSQL computes it (postgres/checksum.ts), from exact cells, for engines whose SQL cannot print every value
 * that way: each value quoted as a literal, so that one cannot look like two, or like NULL; bytes as `\x` and hex; joined by commas.
 */
import { createHash } from 'node:crypto';
import type { Cell } from '../model/changes.ts';

/** Of the `width` cells from `start`. */
export function rowMd5(cells: readonly Cell[], start: number, width: number): string {
  const hash = createHash('md5');
  let text = '';
  for (let i = start; i < start + width; i++) text += `${i === start ? '' : ','}${literal(cells[i] ?? null)}`;
  return hash.update(text, 'utf8').digest('hex');
}

export function md5Of(text: string): string {
  return createHash('md5').update(text, 'utf8').digest('hex');
}

/** quote_literal: quotes doubled; with a backslash in it also those, behind an E. */
function literal(cell: Cell): string {
  if (cell === null) return 'N';
  const text = typeof cell === 'string' ? cell : `\\x${Buffer.from(cell).toString('hex')}`;
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes('\\') ? `E${quoted.replaceAll('\\', '\\\\')}` : quoted;
}
