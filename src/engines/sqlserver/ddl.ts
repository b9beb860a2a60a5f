/**
 * How a table would be declared in this database: from SQL Server with its defaults, identity, computed columns and indexes as
 * far as they mean the same here, from other engines by logical type. Pure: nothing is asked or run.
 *
 * Not carried, and listed: foreign keys, triggers and check constraints of the source (its checks have held there; at the
 * destination they could only refuse rows), what refers to other objects of the source's database, columnstore and the like, partitioning.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Index, type Key, type Table, type TableName } from '../../model/tables.ts';
import type { TableDesign } from '../contract.ts';
import { defaultFor, isCompared, plainIndexes, sameColumns } from '../carried-over.ts';
import { constantSql } from './defaults.ts';
import { CLUSTERED_KEY_BYTES, indexFits, keyBytes } from './index-limits.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';
import { declare, ENGINE, STRICT_COLLATION } from './types.ts';

interface DesignedColumn {
  readonly name: string;
  /** Null: computed. */
  readonly nativeType: string | null;
  /** ` COLLATE …`, or nothing. */
  readonly collate: string;
  /** What follows: ` IDENTITY …`, ` NOT NULL`, ` DEFAULT …`; of a computed column all of it, ` AS …`. */
  readonly clauses: string;
}

/** What `design` returns here: the contract's part, and what the statements below are made of. */
export interface SqlServerDesign extends TableDesign {
  /** Every column in order, computed ones (which are not in `columns`) included. */
  readonly declared: readonly DesignedColumn[];
  /** The key is the source's primary key, not merely a unique index. */
  readonly primary: boolean;
  /** The rows are kept in the key's order. */
  readonly clustered: boolean;
  /** Of the key's index, when it is not primary. */
  readonly keyName: string;
  /** Secondary indexes: their text after `CREATE [UNIQUE] [CLUSTERED] INDEX name ON table`. */
  readonly indexes: readonly {
    readonly name: string;
    readonly unique: boolean;
    readonly clustered: boolean;
    readonly rest: string;
  }[];
}

/** Manual, Maximum capacity specifications. */
const TABLE_COLUMNS = 1024;

/**
 * `key`: names of the key's columns; none: a table without a key. Throws SCHEMA_MISMATCH for columns that no type here can hold,
 * and for keys that no index here can have.
 */
export function design(source: Table, target: TableName, key: readonly string[]): SqlServerDesign {
  const native = source.engine === ENGINE;
  const leftOut: string[] = [];
  const columns: { source: string; target: string; nativeType: string; type: Column['type']; default?: string }[] = [];
  const declared: DesignedColumn[] = [];
  const impossible: string[] = [];
  let hasIdentity = false;
  for (const column of source.columns) {
    const { name } = column;
    if (column.generated !== null) {
      const computed = native ? computedColumn(column) : null;
      if (computed === null) leftOut.push(`generated column ${name}: its expression does not translate`);
      else declared.push(computed);
      continue;
    }
    const nativeType = nativeTypeFor(column, native);
    if (nativeType === null) {
      impossible.push(`${name} (${column.nativeType})`);
      continue;
    }
    const inKey = key.includes(name);
    const identity: boolean = isIdentity(column, native) && !hasIdentity;
    if (column.identity !== null && !identity)
      leftOut.push(`numbering of column ${name}: one column of a table has it`);
    hasIdentity ||= identity;
    const byDefault = identity ? '' : defaultClause(column, nativeType, native, leftOut);
    columns.push({
      source: name,
      target: name,
      nativeType,
      type: column.type,
      ...(byDefault === '' ? {} : { default: byDefault }),
    });
    declared.push({
      name,
      nativeType,
      collate: collation(column, nativeType, native, inKey),
      clauses: `${identity ? ' IDENTITY(1,1)' : ''}${column.nullable && !inKey ? ' NULL' : ' NOT NULL'}${byDefault}`,
    });
  }
  if (impossible.length > 0)
    throw new SluiceError(
      'SCHEMA_MISMATCH',
      `${displayName(source.name)}: SQL Server has no type that holds every value of ${impossible.join(', ')}`,
      {
        hint: 'Create the destination table yourself, with types that you choose for these columns; or change their type at the source.',
      },
    );
  if (declared.length > TABLE_COLUMNS)
    throw new SluiceError(
      'SCHEMA_MISMATCH',
      `${displayName(source.name)} has ${declared.length} columns; a table of SQL Server has at most ${TABLE_COLUMNS}`,
    );
  const indexes = native
    ? carriedIndexes(source, key, leftOut)
    : translatedIndexes(source, key, new Map(columns.map((column) => [column.source, column.nativeType])), leftOut);
  for (const name of source.foreignKeys) leftOut.push(`foreign key ${name}: not carried`);
  for (const name of source.triggers) leftOut.push(`trigger ${name}: not carried`);
  if (native) leftOut.push('check constraints: not carried; the source has checked the rows');
  if (source.kind === 'partitioned') leftOut.push('partitioning: the table is made in one piece');
  const bytes = keyBytes(source, key, columns, leftOut);
  const sourceKey = source.keys.find((found) => sameColumns(found.columns, key));
  const made = { target, columns, key, leftOut, declared, indexes };
  const complete: SqlServerDesign = {
    ...made,
    primary: sourceKey?.primary ?? false,
    clustered: bytes <= CLUSTERED_KEY_BYTES && !indexes.some((index) => index.clustered),
    keyName: keyName(sourceKey, indexes),
    ddl: [],
  };
  return {
    ...complete,
    ddl: [createTableSql(complete, target), ...keySql(complete, target), ...indexSql(complete, target)],
  };
}

/** A design made by this engine, which is the only one that its copies are given. */
export function ownDesign(made: TableDesign): SqlServerDesign {
  if (!('declared' in made)) throw new SluiceError('INTERNAL', 'the table was designed by another engine');
  return made as SqlServerDesign;
}

/** `withKey`: with the key in it (default: bare, the key is built after the load). */
export function createTableSql(
  designed: SqlServerDesign,
  name: TableName,
  options: { withKey?: boolean } = {},
): string {
  const lines = designed.declared.map(
    (column) =>
      `${quoteIdentifier(column.name)}${column.nativeType === null ? '' : ` ${column.nativeType}`}${column.collate}${column.clauses}`,
  );
  if (options.withKey && designed.key.length > 0)
    lines.push(`${designed.primary ? 'PRIMARY KEY' : 'UNIQUE'} ${clustering(designed)} (${keyList(designed)})`);
  return `CREATE TABLE ${quoteTable(name)} (\n  ${lines.join(',\n  ')}\n)`;
}

/** Columns of the design for a table that is there: NULL allowed and without a default, so that no row is rewritten. */
export function addColumnSql(designed: SqlServerDesign, name: TableName, columns: readonly string[]): string[] {
  const table = quoteTable(name);
  return designed.declared.flatMap((column) => {
    if (column.nativeType === null || !columns.includes(column.name)) return [];
    const add = `ALTER TABLE ${table} ADD ${quoteIdentifier(column.name)} ${column.nativeType}${column.collate} NULL`;
    return [`IF COL_LENGTH(${quoteLiteral(table)}, ${quoteLiteral(column.name)}) IS NULL ${add}`];
  });
}

/** The key as a constraint or unique index; no statement for a table without one. */
export function keySql(designed: SqlServerDesign, name: TableName): string[] {
  if (designed.key.length === 0) return [];
  return [
    designed.primary
      ? `ALTER TABLE ${quoteTable(name)} ADD PRIMARY KEY ${clustering(designed)} (${keyList(designed)})`
      : `CREATE UNIQUE ${clustering(designed)} INDEX ${quoteIdentifier(designed.keyName)} ON ${quoteTable(name)} (${keyList(designed)})`,
  ];
}

/** Secondary indexes of the table `name`, under the source's names: names of indexes belong to their table. */
export function indexSql(designed: SqlServerDesign, name: TableName): string[] {
  return designed.indexes.map(
    (index) =>
      `CREATE ${index.unique ? 'UNIQUE ' : ''}${index.clustered ? 'CLUSTERED ' : ''}INDEX ${quoteIdentifier(index.name)} ON ${quoteTable(name)} ${index.rest}`,
  );
}

function clustering(designed: SqlServerDesign): string {
  return designed.clustered ? 'CLUSTERED' : 'NONCLUSTERED';
}

function keyList(designed: SqlServerDesign): string {
  return designed.key.map(quoteIdentifier).join(', ');
}

function nativeTypeFor(column: Column, native: boolean): string | null {
  const { type, nativeType } = column;
  if (!native) return declare(type);
  if (type.kind === 'opaque' && type.untransportable !== undefined) return null;
  // Nobody can write a rowversion; here it is the source's number.
  return nativeType === 'rowversion' ? 'binary(8)' : nativeType;
}

function isCharacter(nativeType: string): boolean {
  return /^n?(?:var)?char\(|^n?text$/.test(nativeType);
}

/**
 * Other engines tell apart what this database's collation may not: their keys are compared by code points. Other columns take
 * what is usual here.
 */
function collation(column: Column, nativeType: string, native: boolean, inKey: boolean): string {
  if (!isCharacter(nativeType)) return '';
  if (native) return column.collation === null ? '' : ` COLLATE ${column.collation}`;
  return inKey ? ` COLLATE ${STRICT_COLLATION}` : '';
}

function isIdentity(column: Column, native: boolean): boolean {
  if (column.identity === null) return false;
  if (native) return true;
  return column.type.kind === 'int';
}

function computedColumn(column: Column): DesignedColumn | null {
  const words = column.generated;
  if (words === null || !/^\(.*\)$/s.test(words) || words === '(not visible)' || usesOtherObjects(words)) return null;
  return { name: column.name, nativeType: null, collate: '', clauses: ` AS ${words}` };
}

function defaultClause(column: Column, nativeType: string, native: boolean, leftOut: string[]): string {
  if (column.default === null || column.selfWritten) return '';
  if (native && !usesOtherObjects(column.default)) return ` DEFAULT ${column.default}`;
  const constant = native ? null : defaultFor(column);
  if (constant !== null) return ` DEFAULT ${constantSql(constant, nativeType)}`;
  leftOut.push(`default of column ${column.name}: ${column.default}`);
  return '';
}

/** Functions of users are always called with their schema; sequences by NEXT VALUE FOR. */
function usesOtherObjects(expression: string): boolean {
  const bare = expression.replace(/N?'(?:[^']|'')*'/g, "''").replace(/\[(?:[^\]]|\]\])*\]/g, '[q]');
  return /[\p{L}_\]]\s*\.\s*[\p{L}_[]/u.test(bare) || /\bNEXT\s+VALUE\s+FOR\b/i.test(bare);
}

function keyName(key: Key | undefined, indexes: SqlServerDesign['indexes']): string {
  const taken = new Set(indexes.map((index) => index.name));
  return key !== undefined && !taken.has(key.name) ? key.name : 'sluice_key';
}

const INDEX_DEFINITION =
  /^CREATE (?:UNIQUE )?(CLUSTERED |NONCLUSTERED )?INDEX \[(?:[^\]]|\]\])+\] ON \[(?:[^\]]|\]\])+\]\.\[(?:[^\]]|\]\])+\] (\(.*)$/s;

function carriedIndexes(source: Table, key: readonly string[], leftOut: string[]): SqlServerDesign['indexes'] {
  const carried: { name: string; unique: boolean; clustered: boolean; rest: string }[] = [];
  const add = (index: Index) => {
    const found = INDEX_DEFINITION.exec(index.definition);
    if (found?.[2] === undefined) leftOut.push(`index ${index.name}: of a kind that is not carried`);
    else
      carried.push({
        name: index.name,
        unique: index.unique,
        clustered: found[1] === 'CLUSTERED ',
        rest: found[2],
      });
  };
  for (const index of source.indexes) add(index);
  for (const other of source.keys) {
    if (!other.usable || sameColumns(other.columns, key)) continue;
    const list = other.columns.map(quoteIdentifier).join(', ');
    carried.push({ name: other.name, unique: true, clustered: false, rest: `(${list})` });
  }
  return carried;
}

/** Of another engine's table: to an index here all NULLs are one value, and text is equal otherwise than there. */
function translatedIndexes(
  source: Table,
  key: readonly string[],
  types: ReadonlyMap<string, string>,
  leftOut: string[],
): SqlServerDesign['indexes'] {
  return plainIndexes(source, key, leftOut).flatMap(({ name, columns, unique }) => {
    if (!indexFits(columns.map((column) => types.get(column.name) ?? ''))) {
      leftOut.push(`index ${name}: longer than an index can be here`);
      return [];
    }
    const isUnique = unique && !columns.some((column) => column.nullable || isCompared(column));
    if (unique && !isUnique) leftOut.push(`uniqueness of index ${name}: NULL and text are compared otherwise here`);
    const rest = `(${columns.map((column) => quoteIdentifier(column.name)).join(', ')})`;
    return [{ name, unique: isUnique, clustered: false, rest }];
  });
}
