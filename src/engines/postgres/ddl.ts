/**
 * How a table would be declared in this database: from PostgreSQL with its defaults, generated columns and indexes as far as
 * they mean the same here, from other engines by logical type. Pure: nothing is asked or run.
 *
 * Not carried, and listed: foreign keys, triggers and check constraints of the source (its checks have held there; at the
 * destination they could only refuse rows), indexes and defaults that use objects outside pg_catalog, partitioning.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Index, type Table, type TableName } from '../../model/tables.ts';
import type { TableDesign } from '../contract.ts';
import { defaultFor, isCompared, plainIndexes, sameColumns } from '../carried-over.ts';
import { constantSql } from './defaults.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';
import { declare, ENGINE } from './types.ts';

/** A column's declaration behind its name and type: `COLLATE …`, `NOT NULL`, `DEFAULT …`, `GENERATED …`. */
interface DesignedColumn {
  readonly name: string;
  readonly nativeType: string;
  readonly clauses: string;
}

/** What `design` returns here: the contract's part, and what the statements below are made of. */
export interface PostgresDesign extends TableDesign {
  /** Statements for types that the table needs; they do nothing when the type exists. */
  readonly types: readonly string[];
  /** Every column in order, generated ones (which are not in `columns`) included. */
  readonly declared: readonly DesignedColumn[];
  /** The key is the source's primary key, not merely a unique index. */
  readonly primary: boolean;
  /** Secondary indexes, their text from `USING` on. */
  readonly indexes: readonly { readonly name: string; readonly unique: boolean; readonly using: string }[];
}

/** `key`: names of the key's columns; none: a table without a key. Throws SCHEMA_MISMATCH for columns that no type here can hold. */
export function design(source: Table, target: TableName, key: readonly string[]): PostgresDesign {
  const native = source.engine === ENGINE;
  const leftOut: string[] = [];
  const types = new Map<string, string>();
  const columns: { source: string; target: string; nativeType: string; type: Column['type'] }[] = [];
  const declared: DesignedColumn[] = [];
  const impossible: string[] = [];
  for (const column of source.columns) {
    if (column.generated !== null && (!native || usesOtherObjects(column.generated))) {
      leftOut.push(`generated column ${column.name}: its expression does not translate`);
      continue;
    }
    const nativeType = nativeTypeFor(column, target, native, types, leftOut);
    if (nativeType === null) {
      impossible.push(`${column.name} (${column.nativeType})`);
      continue;
    }
    if (column.generated === null)
      columns.push({ source: column.name, target: column.name, nativeType, type: column.type });
    declared.push({
      name: column.name,
      nativeType,
      clauses: clauses(column, native, key.includes(column.name), leftOut),
    });
  }
  if (impossible.length > 0)
    throw new SluiceError(
      'SCHEMA_MISMATCH',
      `${displayName(source.name)}: PostgreSQL has no type that holds every value of ${impossible.join(', ')}`,
      {
        hint: 'Create the destination table yourself, with types that you choose for these columns; or change their type at the source.',
      },
    );
  const indexes = native ? carriedIndexes(source, key, leftOut) : translatedIndexes(source, key, leftOut);
  for (const name of source.foreignKeys) leftOut.push(`foreign key ${name}: not carried`);
  for (const name of source.triggers) leftOut.push(`trigger ${name}: not carried`);
  if (native) leftOut.push('check constraints: not carried; the source has checked the rows');
  if (source.kind === 'partitioned') leftOut.push('partitioning: the table is made in one piece');
  const sourceKey = source.keys.find((found) => sameColumns(found.columns, key));
  const made = { target, columns, key, leftOut, types: [...types.values()], declared, indexes };
  const complete = { ...made, primary: sourceKey?.primary ?? false, ddl: [] };
  return {
    ...complete,
    ddl: [
      ...complete.types,
      createTableSql(complete, target),
      ...keySql(complete, target),
      ...indexSql(complete, target),
    ],
  };
}

/** A design made by this engine, which is the only one that its copies are given. */
export function ownDesign(made: TableDesign): PostgresDesign {
  if (!('declared' in made)) throw new SluiceError('INTERNAL', 'the table was designed by another engine');
  return made as PostgresDesign;
}

/** `withKey`: with the key in it (default: bare, the key is built after the load). */
export function createTableSql(designed: PostgresDesign, name: TableName, options: { withKey?: boolean } = {}): string {
  const lines = designed.declared.map(
    (column) => `${quoteIdentifier(column.name)} ${column.nativeType}${column.clauses}`,
  );
  if (options.withKey && designed.key.length > 0)
    lines.push(`${designed.primary ? 'PRIMARY KEY' : 'UNIQUE'} (${designed.key.map(quoteIdentifier).join(', ')})`);
  return `CREATE TABLE ${quoteTable(name)} (\n  ${lines.join(',\n  ')}\n)`;
}

const COLLATE = /^ COLLATE pg_catalog\.(?:"(?:[^"]|"")*"|\S+)/;

/** Columns of the design for a table that is there: NULL allowed and without a default, so that no row is rewritten. */
export function addColumnSql(designed: PostgresDesign, name: TableName, columns: readonly string[]): string[] {
  const added = designed.declared.filter((column) => columns.includes(column.name));
  return [
    ...(added.length > 0 ? designed.types : []),
    ...added.map((column) => {
      const collation = COLLATE.exec(column.clauses)?.[0] ?? '';
      return `ALTER TABLE ${quoteTable(name)} ADD COLUMN IF NOT EXISTS ${quoteIdentifier(column.name)} ${column.nativeType}${collation}`;
    }),
  ];
}

/** The key as a constraint or unique index; no statement for a table without one. The server chooses the names. */
export function keySql(designed: PostgresDesign, name: TableName): string[] {
  if (designed.key.length === 0) return [];
  const columns = designed.key.map(quoteIdentifier).join(', ');
  return [
    designed.primary
      ? `ALTER TABLE ${quoteTable(name)} ADD PRIMARY KEY (${columns})`
      : `CREATE UNIQUE INDEX ON ${quoteTable(name)} (${columns})`,
  ];
}

/** Secondary indexes of the table `name`. The server chooses their names: those of the source may be taken in this schema. */
export function indexSql(designed: PostgresDesign, name: TableName): string[] {
  return designed.indexes.map(
    (index) => `CREATE ${index.unique ? 'UNIQUE ' : ''}INDEX ON ${quoteTable(name)} ${index.using}`,
  );
}

/**
 * Indexes were named after the staging table by the server: named after the table that it becomes, where that name is free.
 * `table`: the staging table, in its new schema already. One statement, because it runs while a change stream waits.
 */
export function renameIndexesSql(table: TableName, becomes: string): string {
  const literal = (text: string) => quoteLiteral(text).trim();
  const body = `DECLARE one record; BEGIN
    FOR one IN SELECT old.name, old.new FROM (
        SELECT c.relname AS name, pg_catalog.left(pg_catalog.replace(c.relname, ${literal(table.table)}, ${literal(becomes)}), 63) AS new,
               pg_catalog.row_number() OVER (PARTITION BY pg_catalog.left(pg_catalog.replace(c.relname, ${literal(table.table)}, ${literal(becomes)}), 63)) AS n
          FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
         WHERE i.indrelid = ${literal(quoteTable(table))}::pg_catalog.regclass) old
      WHERE old.n = 1 AND NOT EXISTS (SELECT FROM pg_catalog.pg_class taken JOIN pg_catalog.pg_namespace s ON s.oid = taken.relnamespace
        WHERE s.nspname = ${literal(table.schema)} AND taken.relname = old.new)
    LOOP
      EXECUTE pg_catalog.format('ALTER INDEX %I.%I RENAME TO %I', ${literal(table.schema)}, one.name, one.new);
    END LOOP;
  END`;
  return `DO ${literal(body)}`;
}

function nativeTypeFor(
  column: Column,
  target: TableName,
  native: boolean,
  types: Map<string, string>,
  leftOut: string[],
): string | null {
  const { type } = column;
  if (type.kind === 'enum' || (type.kind === 'array' && type.element.kind === 'enum')) {
    const labels = type.kind === 'enum' ? type.labels : type.element.kind === 'enum' ? type.element.labels : [];
    const own = native ? unqualified(column.nativeType.replace(/\[\]$/, '')) : null;
    if (own === null) return type.kind === 'enum' ? 'text' : null;
    const name = `${quoteIdentifier(target.schema)}.${own}`;
    types.set(name, createEnum(name, labels));
    return type.kind === 'enum' ? name : `${name}[]`;
  }
  if (!native) return declare(type);
  if (type.kind === 'opaque') return type.native;
  if (/(^|\.)citext$/.test(column.nativeType)) return column.nativeType;
  // A qualified name is a domain here: its base type holds the same values, and the domain may not exist at the destination.
  if (usesOtherObjects(column.nativeType)) {
    const base = declare(type);
    if (base !== null) leftOut.push(`domain ${column.nativeType} of column ${column.name}: declared as ${base}`);
    return base;
  }
  return column.nativeType;
}

/** There is no CREATE TYPE IF NOT EXISTS: an existing type is left as it is, and the schema check compares its labels. */
function createEnum(name: string, labels: readonly string[]): string {
  const create = `CREATE TYPE ${name} AS ENUM (${labels.map((label) => quoteLiteral(label).trim()).join(', ')})`;
  const body = `BEGIN ${create}; EXCEPTION WHEN duplicate_object THEN NULL; END`;
  return `DO ${quoteLiteral(body).trim()}`;
}

function clauses(column: Column, native: boolean, inKey: boolean, leftOut: string[]): string {
  let sql = '';
  if (native && column.collation !== null) {
    if (column.collation.startsWith('pg_catalog.')) sql += ` COLLATE ${column.collation}`;
    else leftOut.push(`collation ${column.collation} of column ${column.name}: made by hand at the source`);
  }
  if (column.generated !== null)
    return `${sql} GENERATED ALWAYS AS ${column.generated}${column.nullable ? '' : ' NOT NULL'}`;
  const serial = native && column.default !== null && /^nextval\(/.test(column.default);
  // What is unsigned elsewhere is declared twice as long here.
  const { type } = column;
  const integer = type.kind === 'int' && (type.signed ? type.bits >= 16 : type.bits <= 32);
  if ((column.identity !== null || serial) && integer) {
    // BY DEFAULT: rows arrive with their values. NOT NULL comes with it.
    return `${sql} GENERATED BY DEFAULT AS IDENTITY`;
  }
  if (column.identity !== null) leftOut.push(`numbering of column ${column.name}: not of its type here`);
  if (column.default !== null) {
    const constant = native ? null : defaultFor(column);
    const translated = native ? translatedDefault(column.default) : constant && constantSql(constant);
    if (translated === null) leftOut.push(`default of column ${column.name}: ${column.default}`);
    else sql += ` DEFAULT ${translated}`;
  }
  return !column.nullable || inKey ? `${sql} NOT NULL` : sql;
}

/** An expression of built-in functions and constants means the same here; anything with a schema in it may not exist. */
function translatedDefault(expression: string): string | null {
  return /\bnextval\(/.test(expression) || usesOtherObjects(expression) ? null : expression;
}

/** Built-in objects are printed bare under an empty search path, so a dot between names is somebody's own object. */
function usesOtherObjects(expression: string): boolean {
  const bare = expression.replace(/E?'(?:[^']|'')*'/g, "''").replace(/"(?:[^"]|"")*"/g, '"q"');
  return /[\p{L}\p{N}_$"]\.[\p{L}_"]/u.test(bare);
}

/** `"my schema".mood` → `mood`, still quoted where it was. Null: not a name (another engine's `enum('a')`). */
function unqualified(native: string): string | null {
  const name = /^(?:(?:"(?:[^"]|"")*"|[^\s".()]+)\.)?("(?:[^"]|"")*"|[^\s".()]+)$/.exec(native);
  return name?.[1] ?? null;
}

const NAME = '(?:"(?:[^"]|"")*"|[^\\s".]+)';
const INDEX_DEFINITION = new RegExp(
  `^CREATE (?:UNIQUE )?INDEX ${NAME} ON (?:ONLY )?${NAME}\\.${NAME} (USING .*)$`,
  's',
);

function carriedIndexes(source: Table, key: readonly string[], leftOut: string[]): PostgresDesign['indexes'] {
  const carried: { name: string; unique: boolean; using: string }[] = [];
  const add = (index: Index) => {
    const using = INDEX_DEFINITION.exec(index.definition)?.[1];
    if (using === undefined || usesOtherObjects(using))
      leftOut.push(`index ${index.name}: uses objects that may not exist at the destination`);
    else carried.push({ name: index.name, unique: index.unique, using });
  };
  for (const index of source.indexes) add(index);
  for (const other of source.keys) {
    if (!other.usable || sameColumns(other.columns, key)) continue;
    carried.push({
      name: other.name,
      unique: true,
      using: `USING btree (${other.columns.map(quoteIdentifier).join(', ')})`,
    });
  }
  return carried;
}

/** Bytes of an entry in a B-tree (manual, B-Tree Indexes: a third of a page), less what belongs to the entry itself. */
const ENTRY_BYTES = 2600;

/** Of another engine's table. Text differs here as soon as its bytes do, so that what is unique there is unique here. */
function translatedIndexes(source: Table, key: readonly string[], leftOut: string[]): PostgresDesign['indexes'] {
  return plainIndexes(source, key, leftOut).flatMap(({ name, columns, unique }) => {
    const bytes = columns.reduce((sum, column) => sum + (isCompared(column) ? longest(column) : 16), 0);
    if (bytes > ENTRY_BYTES) {
      leftOut.push(`index ${name}: its values may be longer than ${ENTRY_BYTES} bytes`);
      return [];
    }
    return [{ name, unique, using: `USING btree (${columns.map((one) => quoteIdentifier(one.name)).join(', ')})` }];
  });
}

function longest({ type }: Column): number {
  if (type.kind === 'enum') return 1020;
  if (type.kind !== 'text' || type.length === null) return Infinity;
  return type.length * (type.units === 'bytes' ? 3 : type.units === 'utf-16' ? 3 : 4);
}
