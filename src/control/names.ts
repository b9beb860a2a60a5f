/** `primary_key_column` as a person types it: a comma list whose names may be quoted as "a,b", [a] or `a`. */

const CLOSING: Readonly<Record<string, string>> = { '"': '"', '[': ']', '`': '`' };

/** The names in order, or a sentence that says what is wrong. A doubled closing quote stands for itself. */
export function parseNameList(text: string): string[] | { problem: string } {
  const names: string[] = [];
  let at = 0;
  for (;;) {
    while (text[at] === ' ' || text[at] === '\t') at++;
    const closing = CLOSING[text[at] ?? ''];
    let name = '';
    if (closing === undefined) {
      const comma = text.indexOf(',', at);
      const end = comma < 0 ? text.length : comma;
      name = text.slice(at, end).trim();
      at = end;
    } else {
      for (at++; ; at++) {
        if (at >= text.length) return { problem: `a name is not closed by ${closing}` };
        if (text[at] !== closing) name += text[at] ?? '';
        else if (text[at + 1] === closing) name += text[at++] ?? '';
        else break;
      }
      at++;
      while (text[at] === ' ' || text[at] === '\t') at++;
    }
    if (name === '') return { problem: 'a name is empty' };
    if (names.includes(name)) return { problem: `${name} is named twice` };
    names.push(name);
    if (at >= text.length) return names;
    if (text[at] !== ',') return { problem: `a comma is missing after ${name}` };
    at++;
  }
}
