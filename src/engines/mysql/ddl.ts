/**
 * How a table would be declared in this database: from MySQL or MariaDB with its defaults, generated columns and indexes as far as
 * they mean the same here, from other engines by logical type. Pure: nothing is asked or run.
 *
 * Not carried, and listed: foreign keys, triggers and check constraints of the source (its checks have held there; at the
 * destination they could only refuse rows), what is written in another engine's language, partitioning.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table, type TableName } from '../../model/tables.ts';
import type { TableDesign } from '../contract.ts';
import { defaultFor, isCompared, plainIndexes, sameColumns } from '../carried-over.ts';
import type { ServerKind } from './connection.ts';
import { constantSql } from './defaults.ts';
import { indexParts, limitKey, limitRow } from './index-limits.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';
import { declare, ENGINE, parseNativeType, STRICT_COLLATION } from './types.ts';

interface DesignedColumn {
  readonly name: string;
  nativeType: string;
  /** ` CHARACTER SET … COLLATE …`, or nothing. */
  readonly collate: string;
  /** What follows: ` NOT NULL`, ` DEFAULT …`, ` GENERATED …`. */
  readonly clauses: string;
  readonly isGenerated: boolean;
}

/** What `design` returns here: the contract's part, and what the statements below are made of. */
export interface MysqlDesign extends TableDesign {
  /** Every column in order, generated ones (which are not in `columns`) included. */
  readonly declared: readonly DesignedColumn[];
  /** The key is the source's primary key, not merely a unique index. */
  readonly primary: boolean;
  /** Secondary indexes, as ALTER TABLE … ADD takes them. */
  readonly indexes: readonly { readonly name: string; readonly definition: string }[];
}

/**
 * `key`: names of the key's columns; none: a table without a key. `kind`: null when no server was asked yet. Throws SCHEMA_MISMATCH for
 * columns that no type here can hold, and for keys that no index here can have.
 */
export function design(source: Table, target: TableName, key: readonly string[], kind: ServerKind | null): MysqlDesign {
  const native = source.engine === ENGINE;
  const leftOut: string[] = [];
  const declared: DesignedColumn[] = [];
  const carried: { column: Column; as: DesignedColumn }[] = [];
  const impossible: string[] = [];
  for (const column of source.columns) {
    const { name } = column;
    if (column.generated !== null) {
      const generated = native ? generatedColumn(column) : null;
      if (generated === null) leftOut.push(`generated column ${name}: its expression does not translate`);
      else declared.push(generated);
      continue;
    }
    const nativeType = nativeTypeFor(column, native);
    if (nativeType === null) {
      impossible.push(`${name} (${column.nativeType})`);
      continue;
    }
    const inKey = key.includes(name);
    const isNumbered = column.identity !== null && key[0] === name && column.type.kind === 'int';
    if (column.identity !== null && !isNumbered)
      leftOut.push(`numbering of column ${name}: only what leads the key is numbered here`);
    const as: DesignedColumn = {
      name,
      nativeType,
      collate: collation(column, nativeType, { native, inKey, kind, leftOut }),
      clauses: `${nullability(column, nativeType, inKey)}${isNumbered ? ' AUTO_INCREMENT' : defaultClause(column, nativeType, native, leftOut)}`,
      isGenerated: false,
    };
    declared.push(as);
    carried.push({ column, as });
  }
  if (impossible.length > 0)
    throw new SluiceError(
      'SCHEMA_MISMATCH',
      `${displayName(source.name)}: MySQL and MariaDB have no type that holds every value of ${impossible.join(', ')}`,
      {
        hint: 'Create the destination table yourself, with types that you choose for these columns; or change their type at the source.',
      },
    );
  if (!native) {
    limitKey(source, declared, key, leftOut);
    limitRow(declared, key);
  }
  const indexes = native
    ? carriedIndexes(source, key, leftOut)
    : translatedIndexes(source, key, new Map(declared.map((column) => [column.name, column.nativeType])), leftOut);
  for (const name of source.foreignKeys) leftOut.push(`foreign key ${name}: not carried`);
  for (const name of source.triggers) leftOut.push(`trigger ${name}: not carried`);
  if (native) leftOut.push('check constraints: not carried; the source has checked the rows');
  if (source.kind === 'partitioned') leftOut.push('partitioning: the table is made in one piece');
  const complete: MysqlDesign = {
    target,
    columns: carried.map(({ column, as }) => ({
      source: column.name,
      target: column.name,
      nativeType: as.nativeType,
      type: column.type,
    })),
    key,
    leftOut,
    declared,
    indexes,
    primary: source.keys.find((found) => sameColumns(found.columns, key))?.primary ?? false,
    ddl: [],
  };
  return { ...complete, ddl: [createTableSql(complete, target), ...indexSql(complete, target)] };
}

/** A design made by this engine, which is the only one that its copies are given. */
export function ownDesign(made: TableDesign): MysqlDesign {
  if (!('declared' in made)) throw new SluiceError('INTERNAL', 'the table was designed by another engine');
  return made as MysqlDesign;
}

/** With its key: rows are kept in the key's order, which could only be made later by writing all of them again. */
export function createTableSql(designed: MysqlDesign, name: TableName): string {
  const lines = designed.declared.map(
    (column) => `${quoteIdentifier(column.name)} ${column.nativeType}${column.collate}${column.clauses}`,
  );
  if (designed.key.length > 0)
    lines.push(
      `${designed.primary ? 'PRIMARY KEY' : 'UNIQUE KEY `sluice_key`'} (${designed.key.map(quoteIdentifier).join(', ')})`,
    );
  return `CREATE TABLE ${quoteTable(name)} (\n  ${lines.join(',\n  ')}\n) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4`;
}

/** Columns of the design for a table that is there: NULL allowed and without a default, so that no row is rewritten. */
export function addColumnSql(designed: MysqlDesign, name: TableName, columns: readonly string[]): string[] {
  return designed.declared
    .filter((column) => !column.isGenerated && columns.includes(column.name))
    .map(
      (column) =>
        `ALTER TABLE ${quoteTable(name)} ADD COLUMN ${quoteIdentifier(column.name)} ${column.nativeType}${column.collate} NULL`,
    );
}

/** Secondary indexes of the table `name`, under the source's names: names of indexes belong to their table. */
export function indexSql(designed: MysqlDesign, name: TableName): string[] {
  if (designed.indexes.length === 0) return [];
  return [`ALTER TABLE ${quoteTable(name)} ${designed.indexes.map((index) => `ADD ${index.definition}`).join(', ')}`];
}

function nativeTypeFor(column: Column, native: boolean): string | null {
  const { type, nativeType } = column;
  if (!native) return declare(type);
  if (type.kind === 'opaque' && type.untransportable !== undefined) return null;
  return writtenType(nativeType);
}

/** A type as it is written in a statement of ours: labels of enums and sets in our sessions' own quoting. */
export function writtenType(nativeType: string): string {
  const { name, labels } = parseNativeType(nativeType);
  return name === 'enum' || name === 'set' ? `${name}(${labels.map(quoteLiteral).join(', ')})` : nativeType;
}

export function isCharacter(nativeType: string): boolean {
  return /^((var)?char|(tiny|medium|long)?text|enum|set)\b/.test(nativeType);
}

/**
 * Other engines tell apart what this database's collation may not: their keys are compared by code points, trailing blanks
 * included. Other columns take what is usual here. Each kind of server reads the version comment that is meant for it.
 */
function collation(
  column: Column,
  nativeType: string,
  { native, inKey, kind, leftOut }: { native: boolean; inKey: boolean; kind: ServerKind | null; leftOut: string[] },
): string {
  if (!isCharacter(nativeType)) return '';
  if (native && column.collation !== null) {
    const isKnown = kind === null || !(kind.isMariaDb ? /_0900_/ : /_nopad_|_uca1400_/).test(column.collation);
    if (isKnown) return ` COLLATE ${column.collation}`;
    leftOut.push(`collation ${column.collation} of column ${column.name}: this server has none of that name`);
  }
  if (!inKey) return ' CHARACTER SET utf8mb4';
  if (kind !== null) return ` CHARACTER SET utf8mb4 COLLATE ${STRICT_COLLATION[kind.isMariaDb ? 'mariadb' : 'mysql']}`;
  return ` CHARACTER SET utf8mb4 /*!80017 COLLATE ${STRICT_COLLATION.mysql} */ /*M!100203 COLLATE ${STRICT_COLLATION.mariadb} */`;
}

function nullability(column: Column, nativeType: string, inKey: boolean): string {
  if (column.nullable && !inKey) return ' NULL';
  return ` NOT NULL${column.default === null ? ownTimestamp(nativeType) : ''}`;
}

/** A TIMESTAMP of which nothing is said would fill itself with the time at every update (explicit_defaults_for_timestamp). */
function ownTimestamp(nativeType: string): string {
  const found = /^timestamp(\(\d\))?/.exec(nativeType);
  return found ? ` DEFAULT CURRENT_TIMESTAMP${found[1] ?? ''}` : '';
}

function generatedColumn(column: Column): DesignedColumn | null {
  const words = /^(\(.*\)) (VIRTUAL|STORED)$/s.exec(column.generated ?? '');
  // MySQL prints the expression with backslashes, which our sessions do not read.
  if (!words || column.generated?.includes('\\')) return null;
  return {
    name: column.name,
    nativeType: writtenType(column.nativeType),
    collate: column.collation !== null && isCharacter(column.nativeType) ? ` COLLATE ${column.collation}` : '',
    clauses: ` GENERATED ALWAYS AS ${words[1] ?? ''} ${words[2] ?? ''}`,
    isGenerated: true,
  };
}

/** Defaults as the catalog has them, of those that are the same in every version. */
const DEFAULT = /^(?:'(?:[^'\\]|'')*'|b'[01]+'|-?\d+(?:\.\d+)?|current_timestamp(?:\(\d?\))?)$/i;

function defaultClause(column: Column, nativeType: string, native: boolean, leftOut: string[]): string {
  if (column.default === null) return '';
  const takesOne = !/^(tiny|medium|long)?(text|blob)|^json|^geom/.test(nativeType);
  if (native && takesOne && DEFAULT.test(column.default)) return ` DEFAULT ${column.default}`;
  const constant = native ? null : defaultFor(column);
  const translated = constant && constantSql(constant, nativeType);
  if (translated !== null) return ` DEFAULT ${translated}`;
  leftOut.push(`default of column ${column.name}: ${column.default}`);
  return column.nullable ? '' : ownTimestamp(nativeType);
}

function carriedIndexes(source: Table, key: readonly string[], leftOut: string[]): MysqlDesign['indexes'] {
  const carried: { name: string; definition: string }[] = [];
  const columns = new Set(source.columns.filter((column) => column.generated === null).map((column) => column.name));
  for (const index of source.indexes) {
    if (index.columns.every((name) => columns.has(name)))
      carried.push({ name: index.name, definition: index.definition });
    else leftOut.push(`index ${index.name}: of expressions or generated columns`);
  }
  for (const other of source.keys) {
    if (!other.usable || sameColumns(other.columns, key)) continue;
    const list = other.columns.map(quoteIdentifier).join(', ');
    // The primary key's name is no other index's.
    const kind = other.primary ? 'PRIMARY KEY' : `UNIQUE KEY ${quoteIdentifier(other.name)}`;
    carried.push({ name: other.name, definition: `${kind} (${list})` });
  }
  return carried;
}

/** Of another engine's table: text is not unique here as it is there, and of long text an index holds the beginning. */
function translatedIndexes(
  source: Table,
  key: readonly string[],
  types: ReadonlyMap<string, string>,
  leftOut: string[],
): MysqlDesign['indexes'] {
  return plainIndexes(source, key, leftOut).flatMap(({ name, columns, unique }) => {
    const parts = indexParts(
      columns.map((column) => ({ name: column.name, nativeType: types.get(column.name) ?? '' })),
    );
    if (parts === null) {
      leftOut.push(`index ${name}: longer than an index can be here`);
      return [];
    }
    const isUnique = unique && !parts.isCut && !columns.some(isCompared);
    if (unique && !isUnique) leftOut.push(`uniqueness of index ${name}: text is compared otherwise here`);
    const shown = name.slice(0, 64);
    return [
      {
        name: shown,
        definition: `${isUnique ? 'UNIQUE ' : ''}KEY ${quoteIdentifier(shown)} (${parts.sql.join(', ')})`,
      },
    ];
  });
}
