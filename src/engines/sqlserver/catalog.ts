/**
 * Describes tables from sys.*: any number of them in one round trip. Identifiers are compared by the database's own collation, because
 * the catalog does; what comes back is the catalog's spelling.
 */
import { displayName, type Column, type Index, type Key, type Table, type TableName } from '../../model/tables.ts';
import type { Catalog } from '../contract.ts';
import type { Connection, Row } from './connection.ts';
import { constantOf } from './defaults.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';
import { ENGINE, logicalType, nativeTypeOf } from './types.ts';

/**
 * One batch; `part` tells its result sets apart. A table that somebody holds exclusively (Sch-M) would be waited for: five seconds
 * at most. Names are cast because a stand-in has them in a code page. Without VIEW DEFINITION, expressions are NULL. Every catalog view named here costs a
 * session's first description a tenth of a second and more on a stand-in, which plans and parses for each session: few are.
 */
function describeSql(ids: readonly string[]): string {
  const t = `(VALUES ${ids.map((_, n) => `(${n}, @o${n})`).join(', ')}) AS t(n, object_id)`;
  return `
SET NOCOUNT ON; SET LOCK_TIMEOUT 5000;
DECLARE ${ids.map((id, n) => `@o${n} int = ${id}`).join(', ')};
SELECT 't' AS part, t.n AS n, t.object_id AS object_id, CAST(OBJECT_SCHEMA_NAME(t.object_id) AS nvarchar(128)) AS schema_name,
  CAST(OBJECT_NAME(t.object_id) AS nvarchar(128)) AS table_name, OBJECTPROPERTY(t.object_id, 'IsUserTable') AS is_table,
  OBJECTPROPERTY(t.object_id, 'IsView') AS is_view FROM ${t};
SELECT 'p' AS part, t.n AS n, COUNT(*) AS partitions
  FROM ${t} JOIN sys.partitions p ON p.object_id = t.object_id AND p.index_id IN (0, 1) GROUP BY t.n;
SELECT 'c' AS part, t.n AS n, c.column_id AS column_id, CAST(c.name AS nvarchar(128)) AS name,
  COALESCE(TYPE_NAME(c.system_type_id), TYPE_NAME(c.user_type_id)) AS type, c.max_length AS max_length, c.precision AS precision,
  c.scale AS scale, c.is_nullable AS is_nullable, c.is_identity AS is_identity, c.is_computed AS is_computed,
  c.generated_always_type AS always, c.is_column_set AS column_set, CAST(cc.definition AS nvarchar(max)) AS computed, CAST(d.definition AS nvarchar(max)) AS default_text,
  c.collation_name AS collation, COLLATIONPROPERTY(c.collation_name, 'CodePage') AS code_page
  FROM ${t} JOIN sys.columns c ON c.object_id = t.object_id
  LEFT JOIN sys.computed_columns cc ON cc.object_id = c.object_id AND cc.column_id = c.column_id
  LEFT JOIN sys.default_constraints d ON d.object_id = c.default_object_id
  ORDER BY t.n, c.column_id;
SELECT 'i' AS part, t.n AS n, i.index_id AS index_id, CAST(i.name AS nvarchar(128)) AS name, i.type AS type, i.is_unique AS is_unique, i.is_primary_key AS is_primary,
  i.is_disabled AS is_disabled, i.is_hypothetical AS is_hypothetical, i.has_filter AS has_filter, CAST(i.filter_definition AS nvarchar(max)) AS filter,
  k.column_id AS column_id, k.key_ordinal AS ordinal, k.is_descending_key AS is_descending, k.is_included_column AS is_included
  FROM ${t} JOIN sys.indexes i ON i.object_id = t.object_id
  JOIN sys.index_columns k ON k.object_id = i.object_id AND k.index_id = i.index_id
  WHERE i.type > 0 ORDER BY t.n, i.name, k.key_ordinal, k.index_column_id;
SELECT 'g' AS part, t.n AS n, CAST(g.name AS nvarchar(128)) AS name FROM ${t} JOIN sys.triggers g ON g.parent_id = t.object_id WHERE g.is_disabled = 0;
SELECT 'f' AS part, t.n AS n, CAST(f.name AS nvarchar(128)) AS name FROM ${t} JOIN sys.foreign_keys f ON f.parent_object_id = t.object_id WHERE f.is_disabled = 0;
SELECT 'r' AS part, t.n AS n, CAST(OBJECT_SCHEMA_NAME(f.parent_object_id) AS nvarchar(128)) AS schema_name, CAST(OBJECT_NAME(f.parent_object_id) AS nvarchar(128)) AS table_name, CAST(f.name AS nvarchar(128)) AS name
  FROM ${t} JOIN sys.foreign_keys f ON f.referenced_object_id = t.object_id WHERE f.is_disabled = 0;
SET LOCK_TIMEOUT -1; SET NOCOUNT OFF`;
}

/** More would make the statement's list of values too large for its parser. */
const NAMES_AT_ONCE = 500;

export class SqlServerCatalog implements Catalog {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async describe(names: readonly TableName[]): Promise<(Table | null)[]> {
    const tables: (Table | null)[] = [];
    for (let from = 0; from < names.length; from += NAMES_AT_ONCE) {
      const some = names.slice(from, from + NAMES_AT_ONCE);
      const found = await this.#describe(some.map((name) => `OBJECT_ID(${quoteLiteral(quoteTable(name))})`));
      const missing = some.flatMap((name, n) => (found[n] ? [] : [{ name, n }]));
      if (missing.length > 0) for (const [n, table] of await this.#lookAgain(missing)) found[n] = table;
      tables.push(...found);
    }
    return tables;
  }

  /** `ids`: expressions. */
  async #describe(ids: readonly string[]): Promise<(Table | null)[]> {
    const parts = new Map<string, Row[]>();
    for (const row of await this.#connection.query('describe tables', describeSql(ids))) {
      const place = `${String(row['part'])}${String(row['n'])}`;
      const part = parts.get(place);
      if (part) part.push(row);
      else parts.set(place, [row]);
    }
    return ids.map((_, n) => tableOf((part) => parts.get(`${part}${n}`) ?? []));
  }

  /** OBJECT_ID is NULL not only where there is nothing but also "on error" (manual), a lock that is not given for example. */
  async #lookAgain(
    missing: readonly { readonly name: TableName; readonly n: number }[],
  ): Promise<(readonly [number, Table | null])[]> {
    const wanted = missing.map(({ name, n }) => `(${n}, ${quoteLiteral(name.schema)}, ${quoteLiteral(name.table)})`);
    const there = await this.#connection.query(
      'look for tables',
      `SET LOCK_TIMEOUT 5000;
       SELECT w.n AS n, o.object_id AS object_id FROM (VALUES ${wanted.join(', ')}) AS w(n, s, t)
         JOIN sys.schemas s ON s.name = w.s JOIN sys.objects o ON o.schema_id = s.schema_id AND o.name = w.t WHERE o.type IN ('U', 'V');
       SET LOCK_TIMEOUT -1`,
    );
    if (there.length === 0) return [];
    const tables = await this.#describe(there.map((row) => String(row['object_id'])));
    return there.map((row, i) => [Number(row['n']), tables[i] ?? null] as const);
  }

  async isEmpty(name: TableName): Promise<boolean> {
    const rows = await this.#connection.query(
      `look for a row of ${displayName(name)}`,
      `SELECT TOP (1) 1 AS found FROM ${quoteTable(name)}`,
    );
    return rows.length === 0;
  }
}

const text = (row: Row, name: string): string => String(row[name] ?? '');
const orNull = (row: Row, name: string): string | null => (row[name] == null ? null : String(row[name]));
const byName = <T extends { readonly name: string }>(a: T, b: T): number => (a.name < b.name ? -1 : 1);

function tableOf(part: (name: string) => readonly Row[]): Table | null {
  const [about] = part('t');
  // Dropped between two statements: without a name.
  if (!about || about['schema_name'] == null) return null;
  const name = { schema: text(about, 'schema_name'), table: text(about, 'table_name') };
  const isTable = Number(about['is_table']) === 1;
  if (!isTable && Number(about['is_view']) !== 1) return null;
  const columns = part('c').map(columnOf);
  const indexes = indexesOf(part('i'), new Map(columns.map((column) => [column.id, column])));
  const keys = indexes.filter((index) => index.unique && index.type <= 2);
  const names = (of: string) =>
    part(of)
      .map((row) => text(row, 'name'))
      .sort();
  return {
    engine: ENGINE,
    name,
    id: text(about, 'object_id'),
    kind: !isTable ? 'other' : Number(part('p')[0]?.['partitions'] ?? 0) > 1 ? 'partitioned' : 'table',
    columns,
    keys: [
      ...keys.filter((index) => index.primary),
      ...keys.filter((index) => !index.primary && index.complete).sort(byName),
    ].map(keyOf),
    indexes: indexes
      .filter((index) => !index.primary && !(index.unique && index.complete))
      .sort(byName)
      .map((index) => indexOf(index, name)),
    triggers: names('g'),
    foreignKeys: names('f'),
    referencedBy: part('r')
      .map((row) => `${text(row, 'schema_name')}.${text(row, 'table_name')}.${text(row, 'name')}`)
      .sort(),
    // Asked for by who plans a copy (ranges.ts).
    estimatedRows: null,
    bytes: 0,
  };
}

function columnOf(row: Row): Column & { readonly id: string } {
  const nativeType = nativeTypeOf({
    name: text(row, 'type'),
    maxLength: Number(row['max_length']),
    precision: Number(row['precision']),
    scale: Number(row['scale']),
  });
  const codePage = Number(row['code_page'] ?? 0);
  const constant = constantOf(orNull(row, 'default_text'));
  return {
    name: String(row['name']),
    nativeType,
    type: logicalType(nativeType, codePage > 0 ? codePage : null),
    nullable: row['is_nullable'] === true,
    generated: generatedBy(row),
    identity: row['is_identity'] === true ? 'always' : null,
    default: orNull(row, 'default_text'),
    ...(constant === null ? {} : { constant }),
    // Always named: databases' own collations differ, and a key's decides what is equal.
    collation: orNull(row, 'collation'),
    selfWritten: nativeType === 'rowversion' || Number(row['always'] ?? 0) > 0,
    id: String(row['column_id']),
    streamType: nativeType,
  };
}

function generatedBy(row: Row): string | null {
  if (row['is_computed'] === true) return orNull(row, 'computed') ?? '(not visible)';
  return row['column_set'] === true ? 'COLUMN_SET FOR ALL_SPARSE_COLUMNS' : null;
}

interface FoundIndex {
  readonly name: string;
  readonly type: number;
  readonly unique: boolean;
  readonly primary: boolean;
  readonly enabled: boolean;
  readonly filter: string | null;
  readonly columns: { readonly column: Column; readonly descending: boolean; readonly included: boolean }[];
  /** Every row is in it, and no column of it may be NULL: it can be a key. */
  readonly complete: boolean;
}

function indexesOf(rows: readonly Row[], columns: ReadonlyMap<string, Column>): FoundIndex[] {
  const found = new Map<string, FoundIndex & { complete: boolean }>();
  for (const row of rows) {
    const column = columns.get(String(row['column_id']));
    if (!column || row['is_hypothetical'] === true) continue;
    const id = String(row['index_id']);
    let index = found.get(id);
    if (!index) {
      const enabled = row['is_disabled'] !== true;
      index = {
        name: String(row['name']),
        type: Number(row['type']),
        unique: row['is_unique'] === true,
        primary: row['is_primary'] === true,
        enabled,
        filter: row['has_filter'] === true ? orNull(row, 'filter') : null,
        columns: [],
        complete: enabled && row['has_filter'] !== true,
      };
      found.set(id, index);
    }
    const included = row['is_included'] === true;
    // Columns of a columnstore, and those that a partitioned index has gained, have no place in its order.
    if (!included && Number(row['ordinal']) === 0 && index.type <= 2) continue;
    index.columns.push({ column, descending: row['is_descending'] === true, included });
    if (!included && column.nullable) index.complete = false;
  }
  return [...found.values()];
}

function keyOf(index: FoundIndex): Key {
  const columns = index.columns.filter((one) => !one.included).map((one) => one.column);
  return {
    name: index.name,
    columns: columns.map((column) => column.name),
    primary: index.primary,
    usable: index.complete,
    loose: columns.some(isLoose),
  };
}

/**
 * Can two values that are equal here have different text? Text under any collation but a binary one; −0 and 0; one instant at
 * two offsets. Blanks behind text (and zeros behind varbinary), which no comparison here sees, are not counted: under one collation
 * both sides agree, and a row that differs from another in them alone is refused by the index, not lost.
 */
function isLoose(column: Column): boolean {
  switch (column.type.kind) {
    case 'text':
      return !/_BIN2?(_UTF8)?$/i.test(column.collation ?? '');
    case 'float':
    case 'timestamptz':
      return true;
    default:
      return false;
  }
}

/** CREATE INDEX as one would write it; none for XML, spatial and hash indexes, nor for disabled ones. */
function indexOf(index: FoundIndex, table: TableName): Index {
  const keyed = index.columns.filter((one) => !one.included);
  return {
    name: index.name,
    columns: keyed.map((one) => one.column.name),
    unique: index.unique,
    definition: index.enabled ? definitionOf(index, table) : '',
    plain: index.enabled && index.type <= 2 && index.filter === null,
  };
}

function definitionOf(index: FoundIndex, table: TableName): string {
  const kind = { 1: 'CLUSTERED', 2: 'NONCLUSTERED', 5: 'CLUSTERED COLUMNSTORE', 6: 'NONCLUSTERED COLUMNSTORE' }[
    index.type
  ];
  if (kind === undefined) return '';
  const list = (included: boolean) =>
    index.columns
      .filter((one) => one.included === included)
      .map((one) => `${quoteIdentifier(one.column.name)}${one.descending ? ' DESC' : ''}`)
      .join(', ');
  const columnstore = index.type > 2;
  // Of a columnstore all columns are "included"; the clustered one has every column there is.
  const keyed = columnstore ? [list(false), list(true)].filter(Boolean).join(', ') : list(false);
  const columns = index.type === 5 ? '' : ` (${keyed})`;
  const include = columnstore || list(true) === '' ? '' : ` INCLUDE (${list(true)})`;
  const where = index.filter === null ? '' : ` WHERE ${index.filter}`;
  return `CREATE ${index.unique ? 'UNIQUE ' : ''}${kind} INDEX ${quoteIdentifier(index.name)} ON ${quoteTable(table)}${columns}${include}${where}`;
}
