/**
 * Connection strings of the form `key=value;…`, as SqlConnection.ConnectionString and ODBC have them: values may stand in '…' or
 * "…" with the quote doubled inside, or in {…} with } doubled; empty parts are skipped.
 */
import { SluiceError } from './errors.ts';

/** It has no scheme; that it names a server tells it from anything else. */
export function isKeyValueString(text: string): boolean {
  return (
    /^[\s;]*[a-z][a-z _]*=/i.test(text) &&
    /(^|;)\s*(server|data\s+source|addr|address|network\s+address|host)\s*=/i.test(text)
  );
}

/** Names and values in order, names as written. Throws MAPPING_INVALID; the message repeats nothing of the string. */
export function parseKeyValueString(text: string): [name: string, value: string][] {
  const pairs: [string, string][] = [];
  let at = 0;
  while (at < text.length) {
    if (text[at] === ';' || /\s/.test(text[at] ?? '')) {
      at++;
      continue;
    }
    const equals = text.indexOf('=', at);
    if (equals < 0)
      throw invalid(
        'the connection string does not have the form key=value;…',
        'Quote a password that holds ; or =: password="a;b".',
      );
    const name = text.slice(at, equals).trim();
    at = equals + 1;
    while (/\s/.test(text[at] ?? '')) at++;
    const closing = { "'": "'", '"': '"', '{': '}' }[text[at] ?? ''];
    if (closing === undefined) {
      const end = text.indexOf(';', at);
      pairs.push([name, text.slice(at, end < 0 ? text.length : end).trim()]);
      at = end < 0 ? text.length : end;
      continue;
    }
    let value = '';
    for (at++; ; at++) {
      if (at >= text.length)
        throw invalid(
          `a value of the connection string is not closed by ${closing}`,
          'Double the quote inside a quoted value.',
        );
      if (text[at] !== closing) value += text[at] ?? '';
      else if (text[at + 1] === closing) value += text[at++] ?? '';
      else break;
    }
    at++;
    if (!/^\s*(;|$)/.test(text.slice(at)))
      throw invalid(
        'something follows the closing quote of a value of the connection string',
        'Double the quote inside a quoted value.',
      );
    pairs.push([name, value]);
  }
  return pairs;
}

export function quoteValue(value: string): string {
  return `"${value.replaceAll('"', '""')}"`;
}

function invalid(message: string, hint: string): SluiceError {
  return new SluiceError('MAPPING_INVALID', message, { hint });
}
