/**
 * Comparing values byte for byte, NULL with NULL: `=` goes by the collation, ignores trailing blanks and trailing zero bytes, takes
 * one instant under two offsets for equal, and −0 for 0.
 */
import type { Column } from '../../model/tables.ts';
import { quoteIdentifier } from './sql.ts';

/** Expressions that are all equal exactly when the values are the same. */
function images(nativeType: string, value: string): string[] {
  const bytes = (of: string) => [`CAST(${of} AS varbinary(max))`, `DATALENGTH(${value})`];
  switch (/^[a-z0-9_]+/i.exec(nativeType)?.[0].toLowerCase()) {
    case 'bit':
    case 'tinyint':
    case 'smallint':
    case 'int':
    case 'bigint':
    case 'decimal':
    case 'numeric':
    case 'money':
    case 'smallmoney':
    case 'date':
    case 'time':
    case 'datetime':
    case 'datetime2':
    case 'smalldatetime':
    case 'uniqueidentifier':
      return [value];
    case 'float':
      return [`CAST(${value} AS varbinary(8))`];
    case 'real':
      return [`CAST(${value} AS varbinary(4))`];
    case 'datetimeoffset':
      return [`CONVERT(nvarchar(40), ${value}, 121)`];
    case 'text':
      return bytes(`CAST(${value} AS varchar(max))`);
    case 'ntext':
    case 'xml':
    case 'json':
      return bytes(`CAST(${value} AS nvarchar(max))`);
    default:
      return bytes(value);
  }
}

/** True where a column of `left` is not the same as the column of `right` (names, quoted, by place). */
export function differsSql(
  columns: readonly Column[],
  left: (column: Column, at: number) => string,
  right: (column: Column, at: number) => string,
): string {
  const list = (side: typeof left) => columns.flatMap((column, at) => images(column.nativeType, side(column, at)));
  // INTERSECT takes NULL for the same as NULL.
  return `NOT EXISTS (SELECT ${list(left).join(', ')} INTERSECT SELECT ${list(right).join(', ')})`;
}

/** The column of a table under this alias. */
export function of(alias: string): (column: Column) => string {
  return (column) => `${alias}.${quoteIdentifier(column.name)}`;
}

/** Two values of the type that are equal to an index are the same value. */
export function isExact(column: Column): boolean {
  return images(column.nativeType, 'x').join() === 'x';
}

/** As a column of a staging or temporary table: same type and collation; temporary tables would take tempdb's. */
export function stagedType(column: Column): string {
  const { nativeType, collation, type } = column;
  switch (nativeType) {
    // Cannot be compared or computed with.
    case 'text':
      return `varchar(max) COLLATE ${collation ?? 'DATABASE_DEFAULT'}`;
    case 'ntext':
      return `nvarchar(max) COLLATE ${collation ?? 'DATABASE_DEFAULT'}`;
    case 'image':
      return 'varbinary(max)';
    default:
      return /^n?(var)?char\(/.test(nativeType) && type.kind !== 'bytes'
        ? `${nativeType} COLLATE ${collation ?? 'DATABASE_DEFAULT'}`
        : nativeType;
  }
}
