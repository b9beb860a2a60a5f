/**
 * What an InnoDB index and row can have (manual, InnoDB Limits): 3,072 bytes of a key, 16 columns, 65,535 bytes of a row but for what
 * is kept apart (text and blob types).
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Table } from '../../model/tables.ts';
import { quoteIdentifier } from './sql.ts';
import { parseNativeType } from './types.ts';

const KEY_BYTES = 3072;
const KEY_COLUMNS = 16;
const ROW_BYTES = 65_535;
/** For NULL flags, and columns of which nobody knows the size exactly. */
const ROW_MARGIN = 1_500;

interface Declared {
  readonly name: string;
  nativeType: string;
}

/**
 * Gives key columns that have no limit one that an index can hold; a longer value fails its row. Throws where no index can be made.
 */
export function limitKey(source: Table, columns: readonly Declared[], key: readonly string[], leftOut: string[]): void {
  const no = (why: string): never => {
    throw new SluiceError('SCHEMA_MISMATCH', `${displayName(source.name)}: the key cannot be indexed here: ${why}`, {
      hint: 'Limit the column at the source, or name another unique key in primary_key_column.',
    });
  };
  if (key.length > KEY_COLUMNS) no(`an index has at most ${KEY_COLUMNS} columns`);
  const parts = columns.filter((column) => key.includes(column.name));
  let rest = KEY_BYTES;
  const open: { readonly column: Declared; readonly isText: boolean }[] = [];
  for (const column of parts) {
    const { name } = parseNativeType(column.nativeType);
    if (/^(tiny|medium|long)?(text|blob)$/.test(name)) open.push({ column, isText: name.endsWith('text') });
    else if (/^(json|geometry|point|linestring|polygon|multi|geom)/.test(name))
      no(`column ${column.name} would be ${column.nativeType}`);
    else rest -= bytesOf(column.nativeType);
  }
  if (rest < 0 || (open.length > 0 && rest / open.length < 4)) no(`it is longer than ${KEY_BYTES} bytes`);
  for (const { column, isText } of open) {
    const share = Math.floor(rest / open.length / (isText ? 4 : 1));
    column.nativeType = `${isText ? 'varchar' : 'varbinary'}(${share})`;
    leftOut.push(
      `${column.name}: values of more than ${share} ${isText ? 'characters' : 'bytes'} fit no index; their rows are refused`,
    );
  }
}

/** Characters, or bytes, of a long value that an index which is not unique holds. */
const PREFIX = 191;

/** Columns of a secondary index, long ones by their beginning (`isCut`); null: no index can be made of them. */
export function indexParts(columns: readonly Declared[]): { readonly sql: string[]; readonly isCut: boolean } | null {
  let bytes = 0;
  let isCut = false;
  const sql = columns.map(({ name, nativeType }) => {
    const isText = /char|text/.test(nativeType);
    const isLong = /^(tiny|medium|long)?(text|blob)/.test(nativeType) || bytesOf(nativeType) > KEY_BYTES / 3;
    bytes += isLong ? PREFIX * (isText ? 4 : 1) : bytesOf(nativeType);
    isCut ||= isLong;
    return `${quoteIdentifier(name)}${isLong ? `(${PREFIX})` : ''}`;
  });
  return columns.length > KEY_COLUMNS || bytes > KEY_BYTES ? null : { sql, isCut };
}

/** Keeps the row within its limit: the longest columns outside the key become types that are kept apart. */
export function limitRow(columns: readonly Declared[], key: readonly string[]): void {
  const size = () => columns.reduce((sum, column) => sum + bytesOf(column.nativeType), 0);
  const candidates = columns
    .filter((column) => !key.includes(column.name) && /^var(char|binary)\(/.test(column.nativeType))
    .sort((a, b) => bytesOf(b.nativeType) - bytesOf(a.nativeType));
  for (const column of candidates) {
    if (size() <= ROW_BYTES - ROW_MARGIN) return;
    column.nativeType = column.nativeType.startsWith('varchar') ? 'longtext' : 'longblob';
  }
}

/** Of the longest value in a row, or in an index. */
function bytesOf(nativeType: string): number {
  const { name, args } = parseNativeType(nativeType);
  const [length = 1] = args;
  switch (name) {
    case 'char':
      return length * 4;
    case 'varchar':
      return length * 4 + 2;
    case 'binary':
      return length;
    case 'varbinary':
      return length + 2;
    case 'decimal':
      return Math.ceil((args[0] ?? 10) / 9) * 4 + 4;
    case 'inet6':
    case 'uuid':
      return 16;
    default:
      return 12;
  }
}
