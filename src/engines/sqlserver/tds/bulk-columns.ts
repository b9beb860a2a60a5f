/**
 * What the server says of the columns of a table, and how values are written to them: a row's wire format follows from the
 * table alone, so that nothing is converted on the server, where a value that does not fit would be rounded or replaced.
 *
 * What does not fit is refused, never rounded, cut or replaced (invariant 6); a trailing zero too many is no loss. Text in a code
 * page: every character must be in it. Lengths count bytes (char, varchar) or UTF-16 units (nchar, nvarchar). datetime: only what lies
 * on a tick of 1/300 s. A value shorter than binary(n) would be padded with zeros, so it is refused; text of fixed types arrives padded.
 */
import { SluiceError } from '../../../model/errors.ts';
import type { RowBuffer } from './bulk-buffer.ts';
import {
  DECIMAL_SIZE,
  decimalWriter,
  floatWriter,
  integerWriter,
  moneyWriter,
  writeBit,
  type NumberWriter,
} from './bulk-numbers.ts';
import {
  binaryWriter,
  singleByteMaxWriter,
  singleByteTextWriter,
  singleByteWriter,
  textOf,
  unicodeTextWriter,
  unicodeWriter,
  writeBinaryMax,
  writeGuid,
  writeImage,
  writeUnicodeMax,
  type CellWriter,
  type Encoding,
} from './bulk-text.ts';
import {
  datetime2Writer,
  datetimeoffsetWriter,
  timeWriter,
  writeDate,
  writeDatetime,
  writeSmallDatetime,
} from './bulk-times.ts';
import { codePage } from './code-pages.ts';

/** As the driver describes a column of a result. */
export interface WireColumn {
  readonly colName: string;
  readonly flags: number;
  readonly type: { readonly id: number };
  readonly collation?: { readonly codepage?: string | undefined; toBuffer(): Buffer } | undefined;
  readonly precision?: number | undefined;
  readonly scale?: number | undefined;
  readonly dataLength?: number | undefined;
}

export interface BulkColumn {
  readonly name: string;
  readonly nullable: boolean;
  /** The type's name in INSERT BULK. */
  readonly declaration: string;
  /** Has a collation that is not the database's: to be named behind the declaration. */
  readonly collated: boolean;
  /** TYPE_INFO of MS-TDS 2.2.5.6. */
  readonly typeInfo: Buffer;
  /** text, ntext and image: the table's name follows TYPE_INFO. */
  readonly named: boolean;
  /** The bytes that say NULL. */
  readonly null: Buffer;
  readonly write: CellWriter;
}

type Shape = Omit<BulkColumn, 'name' | 'nullable' | 'collated'>;

const ZERO = Buffer.from([0]);
const NO_LENGTH = Buffer.from([0xff, 0xff]);
const NO_PLP = Buffer.alloc(8, 0xff);
const MAX = 0xffff;
const COLLATION_BYTES = 5;

/** Types whose values have a length byte; `info` follows the type's id. */
function byteLength(id: number, info: readonly number[], declaration: string, write: NumberWriter): Shape {
  return {
    declaration,
    typeInfo: Buffer.from([id, ...info]),
    named: false,
    null: ZERO,
    write: (out: RowBuffer, cell) => write(out, typeof cell === 'string' ? cell : textOf(cell)),
  };
}

function shortLength(
  id: number,
  size: number,
  collation: Buffer | null,
  declaration: string,
  write: CellWriter,
): Shape {
  const info = Buffer.from([id, size & 0xff, size >> 8]);
  return {
    declaration,
    typeInfo: collation === null ? info : Buffer.concat([info, collation]),
    named: false,
    null: size === MAX ? NO_PLP : NO_LENGTH,
    write,
  };
}

function longText(id: number, collation: Buffer | null, declaration: string, write: CellWriter): Shape {
  const info = Buffer.from([id, 0xff, 0xff, 0xff, 0x7f]);
  return {
    declaration,
    typeInfo: collation === null ? info : Buffer.concat([info, collation]),
    named: true,
    null: ZERO,
    write,
  };
}

/** `databaseCollation`: the five bytes of it, null when not known. Throws SCHEMA_MISMATCH for a type that cannot be loaded. */
export function bulkColumn(metadata: WireColumn, databaseCollation: Buffer | null): BulkColumn {
  const collation = metadata.collation?.toBuffer() ?? null;
  const shape = shapeOf(metadata, collation ?? databaseCollation ?? Buffer.alloc(COLLATION_BYTES));
  return {
    ...shape,
    name: metadata.colName,
    nullable: (metadata.flags & 1) === 1,
    collated: collation !== null && databaseCollation !== null && !collation.equals(databaseCollation),
  };
}

function shapeOf(metadata: WireColumn, collation: Buffer): Shape {
  const size = metadata.dataLength ?? 0;
  const precision = metadata.precision ?? 38;
  const scale = metadata.scale ?? 0;
  const max = size === MAX;
  const { id } = metadata.type;
  switch (id) {
    case 0x30:
      return integer(1, 'tinyint');
    case 0x34:
      return integer(2, 'smallint');
    case 0x38:
      return integer(4, 'int');
    case 0x7f:
      return integer(8, 'bigint');
    case 0x26:
      return size === 1
        ? integer(1, 'tinyint')
        : size === 2
          ? integer(2, 'smallint')
          : size === 4
            ? integer(4, 'int')
            : integer(8, 'bigint');
    case 0x32:
    case 0x68:
      return byteLength(0x68, [1], 'bit', writeBit);
    case 0x6a:
    case 0x6c:
    case 0x37:
    case 0x3f:
      return byteLength(
        0x6a,
        [DECIMAL_SIZE, precision, scale],
        `decimal(${precision}, ${scale})`,
        decimalWriter(precision, scale),
      );
    case 0x3c:
    case 0x7a:
    case 0x6e:
      return byteLength(0x6e, [8], 'money', moneyWriter(id === 0x7a || size === 4 ? 'smallmoney' : 'money'));
    case 0x3b:
    case 0x3e:
    case 0x6d: {
      const bytes = id === 0x3b || size === 4 ? 4 : 8;
      return byteLength(0x6d, [bytes], bytes === 4 ? 'real' : 'float', floatWriter(bytes));
    }
    case 0x3a:
    case 0x3d:
    case 0x6f:
      return id === 0x3a || size === 4
        ? byteLength(0x6f, [4], 'smalldatetime', writeSmallDatetime)
        : byteLength(0x6f, [8], 'datetime', writeDatetime);
    case 0x28:
      return byteLength(0x28, [], 'date', writeDate);
    case 0x29:
      return byteLength(0x29, [scale], `time(${scale})`, timeWriter(scale));
    case 0x2a:
      return byteLength(0x2a, [scale], `datetime2(${scale})`, datetime2Writer(scale));
    case 0x2b:
      return byteLength(0x2b, [scale], `datetimeoffset(${scale})`, datetimeoffsetWriter(scale));
    case 0x24:
      return { ...byteLength(0x24, [16], 'uniqueidentifier', () => undefined), write: writeGuid };
    case 0xe7:
    case 0xef: {
      if (max) return shortLength(0xe7, MAX, collation, 'nvarchar(max)', writeUnicodeMax);
      const type = `${id === 0xe7 ? 'nvarchar' : 'nchar'}(${size / 2})`;
      return shortLength(id, size, collation, type, unicodeWriter(size / 2, type));
    }
    case 0xa7:
    case 0xaf: {
      const encoding = encodingOf(metadata);
      if (max) return shortLength(0xa7, MAX, collation, 'varchar(max)', singleByteMaxWriter(encoding));
      const type = `${id === 0xa7 ? 'varchar' : 'char'}(${size})`;
      return shortLength(id, size, collation, type, singleByteWriter(size, type, encoding));
    }
    case 0xa5:
    case 0xad: {
      if (max) return shortLength(0xa5, MAX, null, 'varbinary(max)', writeBinaryMax);
      const type = `${id === 0xa5 ? 'varbinary' : 'binary'}(${size})`;
      return shortLength(id, size, null, type, binaryWriter(size, type, id === 0xad));
    }
    case 0x63:
      return longText(0x63, collation, 'ntext', unicodeTextWriter());
    case 0x23:
      return longText(0x23, collation, 'text', singleByteTextWriter(encodingOf(metadata)));
    case 0x22:
      return longText(0x22, null, 'image', writeImage);
    case 0xf1:
      // As Microsoft's own client does it: declared xml, sent as nvarchar(max).
      return shortLength(0xe7, MAX, Buffer.alloc(COLLATION_BYTES), 'xml', writeUnicodeMax);
    case 0xf0:
      // CLR types (geometry, geography, hierarchyid): their own serialization, sent as bytes.
      return shortLength(0xa5, MAX, null, 'varbinary(max)', writeBinaryMax);
    default:
      throw new SluiceError('SCHEMA_MISMATCH', `column ${metadata.colName}: its type cannot be bulk loaded`, {
        hint: 'Leave the column out, or give it another type (sql_variant: nvarchar).',
      });
  }
}

function integer(size: 1 | 2 | 4 | 8, type: string): Shape {
  return byteLength(0x26, [size], type, integerWriter(size, type));
}

function encodingOf(metadata: WireColumn): Encoding {
  const page = metadata.collation?.codepage ?? 'CP1252';
  if (page === 'utf-8') return null;
  const table = codePage(page);
  if (table !== null) return table;
  throw new SluiceError('SCHEMA_MISMATCH', `column ${metadata.colName}: its collation’s code page is not known`, {
    hint: 'Declare it nvarchar.',
  });
}
