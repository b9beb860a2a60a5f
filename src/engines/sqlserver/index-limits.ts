/** What an index can have as its key (manual, Maximum capacity specifications). */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Table } from '../../model/tables.ts';
import { parseNativeType } from './types.ts';

export const CLUSTERED_KEY_BYTES = 900;
const KEY_BYTES = 1700;
const KEY_COLUMNS = 32;

/** The longest key in bytes. Throws where no index can be made; a longer value than fits is refused with its row. */
export function keyBytes(
  source: Table,
  key: readonly string[],
  columns: readonly { target: string; nativeType: string }[],
  leftOut: string[],
): number {
  const no = (why: string): never => {
    throw new SluiceError('SCHEMA_MISMATCH', `${displayName(source.name)}: the key cannot be indexed here: ${why}`, {
      hint: 'Limit the column at the source, or name another unique key in primary_key_column.',
    });
  };
  if (key.length > KEY_COLUMNS) no(`an index has at most ${KEY_COLUMNS} columns`);
  let least = 0;
  let most = 0;
  for (const column of columns) {
    if (!key.includes(column.target)) continue;
    const size = keySize(column.nativeType);
    if (size === null) return no(`column ${column.target} would be ${column.nativeType}`);
    least += size.fixed ? size.bytes : 0;
    most += size.bytes;
  }
  if (least > KEY_BYTES) no(`it is longer than ${KEY_BYTES} bytes`);
  if (most > KEY_BYTES)
    leftOut.push(`keys of more than ${KEY_BYTES} bytes: no index takes them, their rows are refused`);
  return most;
}

/** Every value of these types has a place in one secondary index. */
export function indexFits(nativeTypes: readonly string[]): boolean {
  const sizes = nativeTypes.map((type) => keySize(type)?.bytes ?? Infinity);
  return sizes.length <= KEY_COLUMNS && sizes.reduce((sum, bytes) => sum + bytes, 0) <= KEY_BYTES;
}

/** Of the longest value in an index key; null: the type cannot be in one. */
function keySize(nativeType: string): { readonly bytes: number; readonly fixed: boolean } | null {
  const { name, args } = parseNativeType(nativeType);
  const length = args[0] ?? 1;
  switch (name) {
    case 'char':
    case 'binary':
      return { bytes: length, fixed: true };
    case 'nchar':
      return { bytes: length * 2, fixed: true };
    case 'varchar':
    case 'varbinary':
      return length < 0 ? null : { bytes: length, fixed: false };
    case 'nvarchar':
      return length < 0 ? null : { bytes: length * 2, fixed: false };
    case 'hierarchyid':
      return { bytes: 892, fixed: false };
    case 'decimal':
    case 'numeric':
      return { bytes: 17, fixed: true };
    case 'uniqueidentifier':
      return { bytes: 16, fixed: true };
    case 'text':
    case 'ntext':
    case 'image':
    case 'xml':
    case 'json':
    case 'geometry':
    case 'geography':
      return null;
    default:
      return { bytes: 10, fixed: true };
  }
}
