/** Columns as the binary log describes them: their types' numbers, and how many bytes a value has (MySQL Internals, "Table Map Event"; field.h). */
import { decimalBytes } from './decimal.ts';

/** A column as the table map event describes it. */
export interface LogColumn {
  readonly name: string;
  /** MYSQL_TYPE_…, the real type of ENUM and SET columns. */
  readonly type: number;
  readonly meta: number;
  readonly unsigned: boolean;
  /** Character set; null: bytes. Of ENUM and SET null, or a set in which their labels could not be read. */
  readonly charset: string | null;
  readonly labels: readonly string[];
}

export const TYPE = {
  tiny: 1,
  short: 2,
  long: 3,
  float: 4,
  double: 5,
  timestamp: 7,
  longlong: 8,
  int24: 9,
  date: 10,
  time: 11,
  datetime: 12,
  year: 13,
  varchar: 15,
  bit: 16,
  timestamp2: 17,
  datetime2: 18,
  time2: 19,
  vector: 242,
  json: 245,
  newdecimal: 246,
  enum: 247,
  set: 248,
  blob: 252,
  varString: 253,
  string: 254,
  geometry: 255,
} as const;

export const NUMERIC_TYPES: ReadonlySet<number> = new Set([
  TYPE.tiny,
  TYPE.short,
  TYPE.int24,
  TYPE.long,
  TYPE.longlong,
  TYPE.newdecimal,
  TYPE.float,
  TYPE.double,
  TYPE.year,
]);
export const isCharacterType = (type: number) =>
  type === TYPE.varchar || type === TYPE.varString || type === TYPE.string || type === TYPE.blob;
export const ENUM_TYPE = TYPE.enum;
export const SET_TYPE = TYPE.set;

/** Bytes of metadata that a type has in the table map event. */
export function metadataLength(type: number): 0 | 1 | 2 {
  switch (type) {
    case TYPE.varchar:
    case TYPE.varString:
    case TYPE.string:
    case TYPE.enum:
    case TYPE.set:
    case TYPE.newdecimal:
    case TYPE.bit:
      return 2;
    case TYPE.float:
    case TYPE.double:
    case TYPE.blob:
    case TYPE.vector:
    case TYPE.json:
    case TYPE.geometry:
    case TYPE.timestamp2:
    case TYPE.datetime2:
    case TYPE.time2:
      return 1;
    default:
      return 0;
  }
}

/** Bytes of a value; of one that says its length itself, minus the bytes that hold it. */
export function valueSize({ type, meta }: LogColumn): number {
  switch (type) {
    case TYPE.tiny:
    case TYPE.year:
      return 1;
    case TYPE.short:
      return 2;
    case TYPE.int24:
    case TYPE.date:
    case TYPE.time:
      return 3;
    case TYPE.long:
    case TYPE.float:
    case TYPE.timestamp:
      return 4;
    case TYPE.longlong:
    case TYPE.double:
    case TYPE.datetime:
      return 8;
    case TYPE.newdecimal:
      return decimalBytes(meta & 0xff, meta >> 8);
    case TYPE.time2:
      return 3 + ((meta + 1) >> 1);
    case TYPE.timestamp2:
      return 4 + ((meta + 1) >> 1);
    case TYPE.datetime2:
      return 5 + ((meta + 1) >> 1);
    case TYPE.bit:
      return ((meta >> 8) * 8 + (meta & 0xff) + 7) >> 3;
    case TYPE.enum:
    case TYPE.set:
      return meta & 0xff;
    case TYPE.varchar:
    case TYPE.varString:
      return meta > 255 ? -2 : -1;
    case TYPE.string:
      return stringLength(meta) > 255 ? -2 : -1;
    // A blob, a document or a geometry says how many bytes its length has.
    default:
      return -meta;
  }
}

/** The length of a CHAR or BINARY in bytes: its upper bits hide, inverted, in the byte of the type (field.h, Field_string). */
export function stringLength(meta: number): number {
  const [low, high] = [meta & 0xff, meta >> 8];
  return low | (((high & 0x30) ^ 0x30) << 4);
}

/** Sets whose bytes are those of UTF-8. */
export const UTF8: ReadonlySet<string | null> = new Set(['utf8', 'utf8mb3', 'utf8mb4', 'ascii']);
