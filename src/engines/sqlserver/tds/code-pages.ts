/**
 * Text as the bytes of a varchar's code page. Tables are the inverse of the decoder, so that every character that is written
 * is read back as itself; one that the page lacks is told, never replaced.
 */
import iconv from 'iconv-lite';

/** For each UTF-16 unit its bytes as a number (two bytes: first × 256 + second); −1: none. */
export type CodePage = Int32Array;

const SINGLE = /^CP(?:874|125\d|437|850)$/;
/** Of East Asia: a character takes one byte or two. */
export const DOUBLE_BYTE_PAGES = [932, 936, 949, 950] as const;
const DOUBLE = new RegExp(`^CP(?:${DOUBLE_BYTE_PAGES.join('|')})$`);
const REPLACEMENT = 0xfffd;

const pages = new Map<string, CodePage | null>();

/** `page` as the driver names it (`CP1252`). Null: not known here. */
export function codePage(page: string): CodePage | null {
  let table = pages.get(page);
  if (table === undefined) {
    table = SINGLE.test(page) ? invert(page, []) : DOUBLE.test(page) ? invert(page, range(0x81, 0xfe)) : null;
    pages.set(page, table);
  }
  return table;
}

function invert(page: string, leads: readonly number[]): CodePage {
  const table = new Int32Array(65_536).fill(-1);
  const put = (bytes: number[], code: number) => {
    const text = iconv.decode(Buffer.from(bytes), page, { stripBOM: false });
    const unit = text.length === 1 ? text.charCodeAt(0) : REPLACEMENT;
    // The first of several encodings of one character: all of them decode to it.
    if (unit !== REPLACEMENT && table[unit] === -1) table[unit] = code;
    // Windows has control characters where its single-byte pages are empty.
    if (unit === REPLACEMENT && leads.length === 0 && code < 0xa0) table[code] = code;
  };
  for (let byte = 0; byte < 256; byte++) put([byte], byte);
  for (const lead of leads) for (const trail of range(0x40, 0xfe)) put([lead, trail], lead * 256 + trail);
  return table;
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}
