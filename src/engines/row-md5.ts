/**
 * The MD5 of a row as PostgreSQL computes it (postgres/checksum.ts), from exact cells, for engines whose SQL cannot print every value
 * that way: each value quoted as a literal, so that one cannot look like two, or like NULL; bytes as `\x` and hex; joined by commas.
 */
import { createHash } from 'node:crypto';
import type { Cell } from '../model/changes.ts';
import type { ChecksumBlock, RowChecksum } from './contract.ts';

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

/** Blocks of rows that come in key order, the last one perhaps short. A block's MD5 is that of its rows', one behind the other. */
export async function blocksOf(rows: AsyncIterable<RowChecksum>, blockRows: number): Promise<ChecksumBlock[]> {
  const blocks: ChecksumBlock[] = [];
  let hash = createHash('md5');
  let first: readonly Cell[] = [];
  let last: readonly Cell[] = [];
  let count = 0;
  const close = () => {
    if (count > 0) blocks.push({ first, last, rows: count, md5: hash.digest('hex') });
    hash = createHash('md5');
    count = 0;
  };
  for await (const row of rows) {
    if (count === 0) first = row.key;
    last = row.key;
    hash.update(row.md5);
    if (++count === blockRows) close();
  }
  close();
  return blocks;
}
