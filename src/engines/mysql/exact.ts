/** Comparing values byte for byte, NULL with NULL: `=` goes by the collation, ignores trailing blanks, and takes −0 for 0. */
import type { Column } from '../../model/tables.ts';
import { isCharacter, writtenType } from './ddl.ts';
import { quoteIdentifier } from './sql.ts';
import { parseNativeType } from './types.ts';

/** Expressions that are all equal exactly when the values are the same. */
function images(nativeType: string, value: string): string[] {
  const { name } = parseNativeType(nativeType);
  switch (name) {
    case 'float':
    case 'double':
      return [value, `CAST(${value} AS CHAR)`];
    case 'json':
      return [`CAST(CAST(${value} AS CHAR) AS BINARY)`];
    case 'geometry':
    case 'point':
    case 'linestring':
    case 'polygon':
    case 'multipoint':
    case 'multilinestring':
    case 'multipolygon':
    case 'geometrycollection':
    case 'geomcollection':
      return [`HEX(${value})`];
    default:
      return isCharacter(nativeType) ? [`CAST(${value} AS BINARY)`] : [value];
  }
}

/** True where a column of `left` is not the same as the column of `right` (names, quoted, by place). */
export function differsSql(
  columns: readonly Column[],
  left: (column: Column, at: number) => string,
  right: (column: Column, at: number) => string,
): string {
  const equal = columns.flatMap((column, at) => {
    const others = images(column.nativeType, right(column, at));
    return images(column.nativeType, left(column, at)).map((image, i) => `${image} <=> ${others[i] ?? 'NULL'}`);
  });
  return equal.length === 0 ? 'FALSE' : `NOT (${equal.join(' AND ')})`;
}

/** The column of a table under this alias. */
export function of(alias: string): (column: Column) => string {
  return (column) => `${alias}.${quoteIdentifier(column.name)}`;
}

/** Two values of the type that are equal to an index are the same value. */
export function isExact(column: Column): boolean {
  return images(column.nativeType, 'x').join() === 'x';
}

/** As a column of a staging or temporary table: same type and collation, nothing else of the column. */
export function stagedType(column: Column): string {
  const { nativeType, collation } = column;
  // MariaDB's: text with a check.
  if (nativeType === 'json' && collation !== null) return `longtext COLLATE ${collation}`;
  const collate = collation !== null && isCharacter(nativeType) ? ` COLLATE ${collation}` : '';
  return `${writtenType(nativeType)}${collate}`;
}
