/** Columns of a table as its server logs them (field.cc, `Field::save_field_metadata`; MySQL Internals, "Table Map Event"). */
import type { Column } from '../../../model/tables.ts';
import { TYPE, type LogColumn } from '../binlog/columns.ts';
import { parseNativeType } from '../types.ts';

/** Bytes of the longest character (SHOW CHARACTER SET). */
const CHARACTER_BYTES: Readonly<Record<string, number>> = {
  ...{ utf8mb4: 4, utf8mb3: 3, utf16: 4, utf16le: 4, utf32: 4, ucs2: 2 },
  ...{ ascii: 1, latin1: 1, latin2: 1, latin5: 1, latin7: 1, cp1250: 1, cp1251: 1, cp1256: 1, cp1257: 1, koi8r: 1 },
  ...{ gbk: 2, big5: 2, sjis: 2, cp932: 2, euckr: 2 },
};
const INTEGERS: Readonly<Record<string, number>> = {
  tinyint: TYPE.tiny,
  smallint: TYPE.short,
  mediumint: TYPE.int24,
  int: TYPE.long,
  bigint: TYPE.longlong,
};
const FRACTIONS: Readonly<Record<string, number>> = {
  time: TYPE.time2,
  datetime: TYPE.datetime2,
  timestamp: TYPE.timestamp2,
};
/** By name: how many bytes a value's length has. */
const BLOBS: Readonly<Record<string, number>> = {
  tinytext: 1,
  text: 2,
  mediumtext: 3,
  longtext: 4,
  tinyblob: 1,
  blob: 2,
  mediumblob: 3,
  longblob: 4,
};

/**
 * The bytes that the log has of a value of `logged` are those that `column` holds of the same value. Not said of every type: of what is
 * missing here rows go another way.
 */
export function holdsBytesOf(column: Pick<Column, 'nativeType' | 'collation'>, logged: LogColumn): boolean {
  const native = parseNativeType(column.nativeType);
  const charset = charsetOf(column.collation);
  const is = (type: number, meta: number) =>
    logged.type === type &&
    logged.meta === meta &&
    logged.unsigned === native.unsigned &&
    (logged.charset === 'utf8' ? 'utf8mb3' : logged.charset) === charset;
  const integer = INTEGERS[native.name];
  if (integer !== undefined) return is(integer, 0);
  const [first = 0, second = 0] = native.args;
  const fraction = FRACTIONS[native.name];
  if (fraction !== undefined) return is(fraction, first);
  const blob = BLOBS[native.name];
  if (blob !== undefined) return is(TYPE.blob, blob);
  const characterBytes = charset === null ? 1 : CHARACTER_BYTES[charset];
  if (characterBytes === undefined) return false;
  switch (native.name) {
    case 'decimal':
      return is(TYPE.newdecimal, first | (second << 8));
    case 'float':
      return is(TYPE.float, 4);
    case 'double':
      return is(TYPE.double, 8);
    case 'date':
      return is(TYPE.date, 0);
    case 'varchar':
    case 'varbinary':
      return is(TYPE.varchar, first * characterBytes);
    case 'char':
      return charset !== null && is(TYPE.string, stringMeta((native.args[0] ?? 1) * characterBytes));
    // A label's place, whatever its characters.
    case 'enum':
    case 'set':
      return (
        logged.type === (native.name === 'enum' ? TYPE.enum : TYPE.set) &&
        logged.labels.length === native.labels.length &&
        logged.labels.every((label, i) => label === native.labels[i])
      );
    default:
      return false;
  }
}

/** The upper bits of the length hide, inverted, in those of the type. */
function stringMeta(bytes: number): number {
  return ((TYPE.string ^ ((bytes & 0x300) >> 4)) << 8) | (bytes & 0xff);
}

function charsetOf(collation: string | null): string | null {
  if (collation === null) return null;
  const [charset = ''] = collation.split('_');
  return charset === 'utf8' ? 'utf8mb3' : charset;
}
