/** Describes tables from information_schema: any number of them in one round trip, and MariaDB in a second one for its warnings. */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Index, type Key, type Table, type TableName } from '../../model/tables.ts';
import type { Catalog } from '../contract.ts';
import { numberOf } from '../row-values.ts';
import type { Connection, Session } from './connection.ts';
import { constantOf } from './defaults.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { ENGINE, logicalType } from './types.ts';

const LOCK_WAIT_TIMEOUT = 1205;

/** MariaDB prints defaults as SQL; MySQL prints text bare, and says when a default is an expression. */
const DEFAULT_AS_SQL = `IF(c.DATA_TYPE IN ('char', 'varchar', 'enum', 'set', 'date', 'time', 'datetime', 'timestamp')
    AND c.EXTRA NOT LIKE '%DEFAULT_GENERATED%', CONCAT('''', REPLACE(c.COLUMN_DEFAULT, '''', ''''''), ''''), c.COLUMN_DEFAULT)`;

/**
 * One row for each fact, a JSON document in it, so that all are one answer and nothing depends on the session's collations. `%s` is the
 * condition on the names. MariaDB's own facts (a column's JSON check) are asked of MariaDB only: MySQL's view lacks the table's name.
 * Who refers to a table is asked of MySQL only: MariaDB opens every table of every database for it, and waits for those that statements
 * have locked (MySQL 5.7 manual, "Optimizing INFORMATION_SCHEMA Queries", which is its way too). What refers to a row stays
 * as it is without: foreign keys are suspended while rows are written.
 */
const FACTS = (where: Where, isMariaDb: boolean) => `
SELECT 'table' AS kind, JSON_OBJECT('schema', t.TABLE_SCHEMA, 'table', t.TABLE_NAME, 'type', t.TABLE_TYPE, 'engine', t.ENGINE,
    'rows', t.TABLE_ROWS, 'bytes', t.DATA_LENGTH, 'options', t.CREATE_OPTIONS) AS fact
  FROM information_schema.TABLES t WHERE ${where('t.TABLE_SCHEMA', 't.TABLE_NAME')}
UNION ALL
SELECT 'column', JSON_OBJECT('schema', c.TABLE_SCHEMA, 'table', c.TABLE_NAME, 'name', c.COLUMN_NAME, 'number', c.ORDINAL_POSITION,
    'native', c.COLUMN_TYPE, 'nullable', c.IS_NULLABLE, 'default', ${isMariaDb ? 'c.COLUMN_DEFAULT' : DEFAULT_AS_SQL}, 'extra', c.EXTRA, 'collation', c.COLLATION_NAME,
    'expression', c.GENERATION_EXPRESSION)
  FROM information_schema.COLUMNS c WHERE ${where('c.TABLE_SCHEMA', 'c.TABLE_NAME')}
UNION ALL
SELECT 'index', JSON_OBJECT('schema', s.TABLE_SCHEMA, 'table', s.TABLE_NAME, 'name', s.INDEX_NAME, 'number', s.SEQ_IN_INDEX,
    'column', s.COLUMN_NAME, 'isUnique', s.NON_UNIQUE = 0, 'prefix', s.SUB_PART, 'kind', s.INDEX_TYPE, 'order', s.COLLATION,
    'isHidden', ${isMariaDb ? "s.IGNORED = 'YES'" : "s.IS_VISIBLE = 'NO'"})
  FROM information_schema.STATISTICS s WHERE ${where('s.TABLE_SCHEMA', 's.TABLE_NAME')}
UNION ALL
SELECT 'trigger', JSON_OBJECT('schema', g.EVENT_OBJECT_SCHEMA, 'table', g.EVENT_OBJECT_TABLE, 'name', g.TRIGGER_NAME)
  FROM information_schema.TRIGGERS g WHERE ${where('g.EVENT_OBJECT_SCHEMA', 'g.EVENT_OBJECT_TABLE')}
UNION ALL
SELECT 'foreign', JSON_OBJECT('schema', r.CONSTRAINT_SCHEMA, 'table', r.TABLE_NAME, 'name', r.CONSTRAINT_NAME)
  FROM information_schema.REFERENTIAL_CONSTRAINTS r WHERE ${where('r.CONSTRAINT_SCHEMA', 'r.TABLE_NAME')}
UNION ALL
${isMariaDb ? OF_MARIADB(where) : OF_MYSQL(where)}`;

type Where = (schema: string, table: string) => string;

const OF_MARIADB = (where: Where) => `
SELECT 'json', JSON_OBJECT('schema', k.CONSTRAINT_SCHEMA, 'table', k.TABLE_NAME, 'name', k.CONSTRAINT_NAME, 'clause', k.CHECK_CLAUSE)
  FROM information_schema.CHECK_CONSTRAINTS k WHERE ${where('k.CONSTRAINT_SCHEMA', 'k.TABLE_NAME')}`;

const OF_MYSQL = (where: Where) => `
SELECT 'referenced', JSON_OBJECT('schema', r.UNIQUE_CONSTRAINT_SCHEMA, 'table', r.REFERENCED_TABLE_NAME,
    'name', CONCAT(r.CONSTRAINT_SCHEMA, '.', r.TABLE_NAME, '.', r.CONSTRAINT_NAME))
  FROM information_schema.REFERENTIAL_CONSTRAINTS r WHERE ${where('r.UNIQUE_CONSTRAINT_SCHEMA', 'r.REFERENCED_TABLE_NAME')}`;

interface TableFact {
  readonly schema: string;
  readonly table: string;
  readonly type: string;
  readonly engine: string | null;
  readonly rows: number | null;
  readonly bytes: number | null;
  readonly options: string | null;
}

interface ColumnFact {
  readonly name: string;
  readonly number: number;
  readonly native: string;
  readonly nullable: string;
  readonly default: string | null;
  readonly extra: string;
  readonly collation: string | null;
  readonly expression: string | null;
}

interface IndexFact {
  readonly name: string;
  readonly number: number;
  /** Null: an expression (MySQL 8.0.13 and later). */
  readonly column: string | null;
  readonly isUnique: number | boolean;
  readonly prefix: number | null;
  readonly kind: string;
  readonly order: string | null;
  readonly isHidden: number | boolean;
}

interface Named {
  readonly name: string;
  readonly clause?: string;
}

/** What was said of one table. */
class Facts {
  table: TableFact | null = null;
  readonly columns: ColumnFact[] = [];
  readonly indexes: IndexFact[] = [];
  readonly triggers: Named[] = [];
  readonly foreign: Named[] = [];
  readonly referenced: Named[] = [];
  readonly json: Named[] = [];
}

export class MysqlCatalog implements Catalog {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async describe(names: readonly TableName[]): Promise<(Table | null)[]> {
    return this.#connection.use((session) => describeTables(session, names, this.#connection.database));
  }

  async isEmpty(name: TableName): Promise<boolean> {
    const rows = await this.#connection.query(
      `look whether ${displayName(name)} is empty`,
      `SELECT 1 AS found FROM ${quoteTable(name)} LIMIT 1`,
    );
    return rows.length === 0;
  }
}

/** `database`: what an empty schema means. */
export async function describeTables(
  session: Session,
  names: readonly TableName[],
  database: string | null,
): Promise<(Table | null)[]> {
  if (names.length === 0) return [];
  const schemaOf = (name: TableName) => (name.schema === '' ? (database ?? '') : name.schema);
  const fold = (name: string) => (session.kind.foldsNames ? name.toLowerCase() : name);
  const schemas = [...new Set(names.map(schemaOf))];
  const tables = [...new Set(names.map((name) => name.table))];
  const marks = (count: number) => Array(count).fill('?').join(', ');
  const where = (schema: string, table: string) =>
    `${schema} IN (${marks(schemas.length)}) AND ${table} IN (${marks(tables.length)})`;
  const sql = FACTS(where, session.kind.isMariaDb);
  const branches = sql.split('UNION ALL').length;
  const bound = Array.from({ length: branches }, () => [...schemas, ...tables]).flat();
  const all = new Map<string, Facts>();
  for (const row of await session.query('describe tables', sql, bound)) {
    const fact = JSON.parse(text(row['fact'])) as { schema: string; table: string };
    const id = tableId(fold(fact.schema), fold(fact.table));
    const facts = all.get(id) ?? new Facts();
    all.set(id, facts);
    add(facts, text(row['kind']), fact);
  }
  if (session.kind.isMariaDb) await requireAll(session);
  return names.map((name) => {
    const id = tableId(fold(schemaOf(name)), fold(name.table));
    const facts = all.get(id);
    // The database is called as it is wanted, the table as the log calls it.
    return facts?.table
      ? describe({ schema: name.schema, table: fold(facts.table.table) }, id, facts, facts.table)
      : null;
  });
}

/** MariaDB leaves out what a table that is locked all the while would have told, and says so in a warning. */
async function requireAll(session: Session): Promise<void> {
  const [warnings = []] = await session.batch('describe tables', ['SHOW WARNINGS']);
  if (warnings.some((warning) => numberOf(warning, 'Code') === LOCK_WAIT_TIMEOUT))
    throw new SluiceError(
      'TIMEOUT',
      'could not describe tables: a statement of another session keeps one of them locked',
      {
        hint: 'SHOW FULL PROCESSLIST tells which statement is at work or waits.',
      },
    );
}

/** The table's identity: its name. Another table under the same name is noticed by the DDL in the stream. */
export function tableId(schema: string, table: string): string {
  return `${quoteIdentifier(schema)}.${quoteIdentifier(table)}`;
}

function text(value: string | Buffer | null | undefined): string {
  return value === null || value === undefined ? '' : value.toString();
}

function add(facts: Facts, kind: string, fact: unknown): void {
  if (kind === 'table') facts.table = fact as TableFact;
  else if (kind === 'column') facts.columns.push(fact as ColumnFact);
  else if (kind === 'index') facts.indexes.push(fact as IndexFact);
  else if (kind === 'trigger') facts.triggers.push(fact as Named);
  else if (kind === 'foreign') facts.foreign.push(fact as Named);
  else if (kind === 'referenced') facts.referenced.push(fact as Named);
  else facts.json.push(fact as Named);
}

const byName = (a: Named, b: Named) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
const namesOf = (all: readonly Named[]) => [...all].sort(byName).map((each) => each.name);

/** Engines whose rows commit with those of InnoDB. */
const TRANSACTIONAL = /^(InnoDB|ROCKSDB)$/i;

function describe(name: TableName, id: string, facts: Facts, table: TableFact): Table {
  const json = new Set(facts.json.filter(isJsonCheck).map((check) => check.name));
  const columns = [...facts.columns]
    .sort((a, b) => a.number - b.number)
    .map((column) => describeColumn(column, json.has(column.name)));
  const indexes = indexesOf(facts.indexes);
  const keys = indexes.flatMap((index) => keyOf(index, columns));
  const usable = new Set(keys.filter((key) => key.usable).map((key) => key.name));
  const isTable = table.type === 'BASE TABLE' || table.type === 'SYSTEM VERSIONED';
  return {
    engine: ENGINE,
    name,
    id,
    kind: !isTable ? 'other' : /\bpartitioned\b/i.test(table.options ?? '') ? 'partitioned' : 'table',
    columns,
    keys,
    indexes: indexes
      .filter((index) => !usable.has(index.name))
      .map((index): Index => ({
        name: index.name,
        columns: index.parts.map((part) => part.column ?? ''),
        unique: index.unique,
        definition: definitionOf(index),
        plain: index.kind === 'BTREE' && index.parts.every((part) => part.column !== null && part.prefix === null),
      })),
    ...(isTable && !TRANSACTIONAL.test(table.engine ?? '') ? { isTransactional: false } : {}),
    triggers: namesOf(facts.triggers),
    foreignKeys: namesOf(facts.foreign),
    referencedBy: namesOf(facts.referenced),
    estimatedRows: table.rows,
    bytes: table.bytes ?? 0,
    storage: null,
  };
}

/** MariaDB's JSON is longtext with this check, named as the column. */
function isJsonCheck(check: Named): boolean {
  return check.clause?.toLowerCase() === `json_valid(${quoteIdentifier(check.name)})`.toLowerCase();
}

function describeColumn(column: ColumnFact, isJsonText: boolean): Column {
  const native = isJsonText && column.native === 'longtext' ? 'json' : column.native;
  const extra = column.extra.toUpperCase();
  const how = /\b(VIRTUAL|STORED|PERSISTENT)\b/.exec(extra)?.[1];
  const expression = column.expression ?? '';
  // The period columns of a system-versioned table are generated without an expression.
  const generated =
    expression !== '' ? `(${expression}) ${how === 'VIRTUAL' ? 'VIRTUAL' : 'STORED'}` : how ? `AS ROW (${how})` : null;
  // NULL as a word is MariaDB's.
  const isNone = column.default === null || column.default === 'NULL';
  const constant = generated !== null || isNone ? null : constantOf(column.default);
  return {
    name: column.name,
    nativeType: native,
    type: logicalType(native, isJsonText),
    nullable: column.nullable === 'YES',
    generated,
    identity: /\bAUTO_INCREMENT\b/.test(extra) ? 'by default' : null,
    default: generated !== null || isNone ? null : column.default,
    ...(constant === null ? {} : { constant }),
    collation: column.collation,
  };
}

interface IndexParts {
  readonly name: string;
  readonly unique: boolean;
  readonly kind: string;
  readonly parts: readonly IndexFact[];
}

/** The primary key first, then by name. */
function indexesOf(facts: readonly IndexFact[]): IndexParts[] {
  const all = new Map<string, IndexFact[]>();
  for (const fact of facts) all.set(fact.name, [...(all.get(fact.name) ?? []), fact]);
  const place = (name: string) => (name === 'PRIMARY' ? '' : name);
  return [...all.entries()]
    .sort(([a], [b]) => (place(a) < place(b) ? -1 : 1))
    .map(([name, parts]) => ({
      name,
      unique: Boolean(parts[0]?.isUnique),
      kind: parts[0]?.kind ?? '',
      parts: [...parts].sort((a, b) => a.number - b.number),
    }));
}

function keyOf(index: IndexParts, columns: readonly Column[]): Key[] {
  if (!index.unique || index.parts.some((part) => part.column === null)) return [];
  const parts = index.parts.flatMap((part) => columns.find((column) => column.name === part.column) ?? []);
  return [
    {
      name: index.name,
      columns: parts.map((column) => column.name),
      primary: index.name === 'PRIMARY',
      usable:
        parts.length === index.parts.length &&
        index.parts.every((part) => part.prefix === null) &&
        parts.every((column) => !column.nullable && column.generated === null),
      loose: parts.some(isLoose),
      ...(index.parts[0]?.isHidden ? { isHidden: true } : {}),
    },
  ];
}

/** Equal for the server although the text differs: case, accents, and with a PAD SPACE collation trailing blanks. */
function isLoose(column: Column): boolean {
  if (column.type.kind === 'float') return true;
  const { collation } = column;
  if (collation === null || column.type.kind === 'enum') return false;
  return !/(_0900_bin|_nopad_bin)$|^binary$/.test(collation);
}

function definitionOf(index: IndexParts): string {
  const kind = index.kind === 'FULLTEXT' || index.kind === 'SPATIAL' ? `${index.kind} ` : index.unique ? 'UNIQUE ' : '';
  const parts = index.parts.map((part) => {
    const length = part.prefix === null ? '' : `(${part.prefix})`;
    return part.column === null
      ? '(…)'
      : `${quoteIdentifier(part.column)}${length}${part.order === 'D' ? ' DESC' : ''}`;
  });
  return `${kind}KEY ${quoteIdentifier(index.name)} (${parts.join(', ')})`;
}
