/**
 * Hides what looks like a password, wherever it stands in a line (invariant 12). It would rather hide too much: this is the
 * last net, below messages that should not hold secrets in the first place. Repetitions are bounded, so that the time is
 * proportional to the text whatever is in it.
 */
const HIDDEN = '***';

/** `scheme://user:secret@host`: up to the last @ of the word, because passwords may hold @ and / themselves. */
const IN_URL = /([a-z][a-z0-9+.-]{0,30}:\/\/[^\s:/@"']{0,300}):[^\s"']{0,2000}@/gi;

/** `password=secret`, `Pwd = {a;b}`, `"token": "x"`, `?sslpassword=x&`. */
const IN_PAIR =
  /(\b[\w-]*(?:password|passwd|passphrase|passwort|pwd|pass|secret|token|api[_-]?key|secret[_-]?key|access[_-]?key)["']?\s*[=:]\s*)("(?:[^"\\]|\\.|"")*"|'(?:[^'\\]|\\.|'')*'|\{(?:[^}]|\}\})*\}|[^\s;,&)\]}]+)/gi;

/** `IDENTIFIED BY 'x'` (MySQL), `PASSWORD 'x'` (PostgreSQL). */
const IN_SQL = /\b(password|identified\s+by)\s+('(?:[^']|'')*'|"[^"]*")/gi;

/** Our own stored form; useless without the key, but no reader needs it. */
const ENCRYPTED = /\benc:v1:[A-Za-z0-9+/=_:.-]+/g;

export function redact(text: string): string {
  return text
    .replace(IN_URL, `$1:${HIDDEN}@`)
    .replace(IN_PAIR, (whole, before: string, value: string) => (isReference(value) ? whole : `${before}${HIDDEN}`))
    .replace(IN_SQL, `$1 ${HIDDEN}`)
    .replace(ENCRYPTED, `enc:v1:${HIDDEN}`);
}

/** `${env:NAME}` and `${file:/path}` name a secret without being one; an operator needs to see which. */
function isReference(value: string): boolean {
  return /^["']?\$\{(env|file):[^}]*\}?["']?$/.test(value);
}
