/**
 * Statements of the binary log that change a table without a row event: TRUNCATE, which is a change like any other; those after which
 * only a copy says what the table holds; and, of a session whose binlog_format is not ROW, those that stand for the rows they changed.
 * Only names are read, and of ALTER TABLE whether it can leave rows and columns alone.
 */

export interface NamedTable {
  readonly schema: string;
  /** Null: every table of the schema. */
  readonly table: string | null;
}

export interface TableStatement {
  /** `TRUNCATE`, `ALTER TABLE` and so on. */
  readonly verb: string;
  readonly tables: readonly NamedTable[];
}

/** `quoted`: surely a name. */
interface Token {
  readonly text: string;
  readonly quoted: boolean;
}

/** Clauses of ALTER TABLE that change neither rows nor columns. */
const HARMLESS: readonly RegExp[] = [
  /^(ADD|DROP) (INDEX|KEY|FULLTEXT|SPATIAL|UNIQUE|CONSTRAINT|FOREIGN|CHECK)\b/,
  /^RENAME (INDEX|KEY)\b/,
  /^ALTER (INDEX|CONSTRAINT|CHECK)\b/,
  /^(AUTO_INCREMENT|COMMENT|ALGORITHM|LOCK|STATS_\w+|ROW_FORMAT|KEY_BLOCK_SIZE|FORCE|DISABLE KEYS|ENABLE KEYS|NOWAIT|WAIT)\b/,
];

function isHarmless(clause: string): boolean {
  return HARMLESS.some((each) => each.test(clause)) && !/\bPRIMARY\b/.test(clause);
}

/** Null: it changes no table. `schema`: the session's, for names without one. */
export function tableStatement(sql: string, schema: string): TableStatement | null {
  const reader = new Reader(tokensOf(sql), schema);
  const [first, second] = [reader.word(), reader.word(1)];
  switch (first) {
    case 'TRUNCATE':
      reader.skip('TRUNCATE', 'TABLE');
      return { verb: 'TRUNCATE', tables: [reader.name()] };
    case 'ALTER': {
      reader.skip('ALTER', 'ONLINE', 'IGNORE');
      if (reader.word() !== 'TABLE') return null;
      reader.skip('TABLE', 'IF', 'EXISTS');
      const table = reader.name();
      const clauses = reader.clauses();
      if (clauses.length > 0 && clauses.every(isHarmless)) return null;
      return { verb: 'ALTER TABLE', tables: [table, ...reader.others()] };
    }
    case 'RENAME':
      if (second !== 'TABLE' && second !== 'TABLES') return null;
      reader.skip('RENAME', 'TABLE', 'TABLES', 'IF', 'EXISTS');
      return { verb: 'RENAME TABLE', tables: reader.names() };
    case 'DROP':
      if (second === 'DATABASE' || second === 'SCHEMA') {
        reader.skip('DROP', 'DATABASE', 'SCHEMA', 'IF', 'EXISTS');
        return { verb: 'DROP DATABASE', tables: [{ schema: reader.name().table ?? '', table: null }] };
      }
      if (second !== 'TABLE' && second !== 'TABLES') return null;
      reader.skip('DROP', 'TABLE', 'TABLES', 'IF', 'EXISTS');
      return { verb: 'DROP TABLE', tables: reader.names() };
    case 'CREATE': {
      reader.skip('CREATE', 'OR', 'REPLACE');
      if (reader.word() !== 'TABLE') return null;
      reader.skip('TABLE');
      // Of a table that is there this does nothing; of one that is not, whoever dropped it was seen.
      return reader.word() === 'IF' ? null : { verb: 'CREATE TABLE', tables: [reader.name()] };
    }
    default:
      return null;
  }
}

/** A SELECT is logged for the functions that it calls. */
const ROW_VERBS: ReadonlySet<string> = new Set([
  ...['INSERT', 'REPLACE', 'UPDATE', 'DELETE', 'LOAD', 'WITH', 'SELECT', 'DO', 'CALL'],
]);

/**
 * Tables whose rows the statement may have changed: the one that it names, or every table of each schema that it may mean. Null: it
 * changes no rows. Which tables triggers changed besides is not in the statement.
 */
export function rowStatement(sql: string, schema: string): TableStatement | null {
  const reader = new Reader(tokensOf(sql), schema);
  const verb = reader.word();
  if (!ROW_VERBS.has(verb)) return null;
  const schemas = [schema, ...reader.qualifiers()];
  reader.skip(verb, 'LOW_PRIORITY', 'DELAYED', 'HIGH_PRIORITY', 'QUICK', 'IGNORE', 'FROM', 'INTO');
  const table = reader.name();
  const next = reader.word();
  const isOne =
    verb === 'INSERT' ||
    verb === 'REPLACE' ||
    (verb === 'UPDATE' && next === 'SET') ||
    (verb === 'DELETE' && ['', 'WHERE', 'ORDER', 'LIMIT'].includes(next) && reader.passed('FROM'));
  return { verb, tables: isOne ? [table] : schemas.map((each) => ({ schema: each, table: null })) };
}

class Reader {
  readonly #tokens: readonly Token[];
  readonly #schema: string;
  #at = 0;

  constructor(tokens: readonly Token[], schema: string) {
    this.#tokens = tokens;
    this.#schema = schema;
  }

  /** The keyword here, or behind it; '' for a name in quotes and for the end. */
  word(ahead = 0): string {
    const token = this.#tokens[this.#at + ahead];
    return token && !token.quoted ? token.text.toUpperCase() : '';
  }

  /** What stands before a dot: schemas, and names of tables before those of their columns. */
  qualifiers(): string[] {
    return this.#tokens.filter((_, at) => this.#tokens[at + 1]?.text === '.').map(({ text }) => text);
  }

  /** Some word before this place is `word`. */
  passed(word: string): boolean {
    return this.#tokens.slice(0, this.#at).some(({ text, quoted }) => !quoted && text.toUpperCase() === word);
  }

  /** Passes those of the words that stand here, in this order. */
  skip(...words: readonly string[]): void {
    for (const word of words) if (this.word() === word) this.#at++;
  }

  /** `t` or `s.t`. */
  name(): NamedTable {
    const first = this.#tokens[this.#at++]?.text ?? '';
    if (this.word() !== '.') return { schema: this.#schema, table: first };
    this.#at++;
    return { schema: first, table: this.#tokens[this.#at++]?.text ?? '' };
  }

  /** `a, b`, or `a TO b, c TO d`; what else stands behind a name (WAIT 5, CASCADE) is passed. */
  names(): NamedTable[] {
    const found = [this.name()];
    while (this.#at < this.#tokens.length) {
      const word = this.word();
      this.#at++;
      if (word === ',' || word === 'TO') found.push(this.name());
    }
    return found;
  }

  /** What is listed, by commas outside parentheses, from here on; the reader stays. Upper case. */
  clauses(): string[] {
    const clauses: string[] = [];
    let depth = 0;
    let words: string[] = [];
    for (const { text, quoted } of this.#tokens.slice(this.#at)) {
      if (!quoted && text === '(') depth++;
      if (!quoted && text === ')') depth--;
      if (!quoted && text === ',' && depth === 0) {
        clauses.push(words.join(' '));
        words = [];
      } else words.push(quoted ? '?' : text.toUpperCase());
    }
    if (words.length > 0) clauses.push(words.join(' '));
    return clauses;
  }

  /** `RENAME [TO | AS | =] t` and `EXCHANGE PARTITION p WITH TABLE t` among the clauses of an ALTER TABLE. */
  others(): NamedTable[] {
    const found: NamedTable[] = [];
    while (this.#at < this.#tokens.length) {
      const isRename = this.word() === 'RENAME' && !['COLUMN', 'INDEX', 'KEY'].includes(this.word(1));
      const isExchange = this.word() === 'WITH' && this.word(1) === 'TABLE';
      this.#at++;
      if (!isRename && !isExchange) continue;
      this.skip('TABLE', 'TO', 'AS', '=');
      found.push(this.name());
    }
    return found;
  }
}

/** Names, words, numbers and signs; comments are left out, but for those that the server runs; of strings only that they are there. */
function tokensOf(sql: string): Token[] {
  const tokens: Token[] = [];
  const form =
    /\/\*M?!\d*|\/\*[\s\S]*?\*\/|\*\/|(?:#|--\s)[^\n]*|`((?:[^`]|``)*)`|"((?:[^"]|"")*)"|'(?:[^'\\]|\\.|'')*'|[\p{L}\p{N}_$@]+|\S/gu;
  for (const [text, name, ansi] of sql.matchAll(form)) {
    if (/^(\/\*|\*\/|#|--\s)/.test(text)) continue;
    if (name !== undefined) tokens.push({ text: name.replaceAll('``', '`'), quoted: true });
    else if (ansi !== undefined) tokens.push({ text: ansi.replaceAll('""', '"'), quoted: true });
    else tokens.push({ text, quoted: text.startsWith("'") });
  }
  return tokens;
}
