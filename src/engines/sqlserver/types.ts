/**
 * Native types and logical types, both ways, as data: what a column means, what is selected of it, how it is declared here,
 * and how its cells go into a bulk load. Native types are spelled as CREATE TABLE takes them, in lower case, with their
 * arguments (`decimal(10,2)`, `nvarchar(max)`, `datetime2(7)`); an alias type is its base type, which holds the same values.
 *
 * Text of the cells (the same in all engines): boolean `t`/`f`; date `YYYY-MM-DD`; a fraction of a second without trailing
 * zeros; timestamps with a blank; an offset as `+HH` or `+HH:MM`; floats by the shortest digits that read back
 * (float-text.ts); uuid in lower case; money as decimal with four digits.
 */
import type { Column } from '../../model/tables.ts';
import type { LogicalType } from '../../model/types.ts';

export const ENGINE = 'sqlserver';

/** `decimal(10,2)` → decimal, [10, 2]; `max` is −1 as in sys.columns. */
export interface NativeType {
  readonly name: string;
  readonly args: readonly number[];
}

/** A row of sys.columns joined with sys.types, as far as types go. `name`: the system type's, `timestamp` for rowversion. */
export interface SystemType {
  readonly name: string;
  /** Bytes; −1: max. */
  readonly maxLength: number;
  readonly precision: number;
  readonly scale: number;
}

/** Units are bytes in the catalog, characters (UTF-16 units) in declarations. */
export function nativeTypeOf({ name, maxLength, precision, scale }: SystemType): string {
  switch (name) {
    case 'char':
    case 'varchar':
    case 'binary':
    case 'varbinary':
      return `${name}(${maxLength < 0 ? 'max' : maxLength})`;
    case 'nchar':
    case 'nvarchar':
      return `${name}(${maxLength < 0 ? 'max' : maxLength / 2})`;
    case 'decimal':
    case 'numeric':
      return `${name}(${precision},${scale})`;
    case 'time':
    case 'datetime2':
    case 'datetimeoffset':
      return `${name}(${scale})`;
    case 'timestamp':
      return 'rowversion';
    case 'sysname':
      return 'nvarchar(128)';
    default:
      return name;
  }
}

export function parseNativeType(native: string): NativeType {
  const found = /^([a-z0-9_]+)(?:\(([^)]*)\))?$/.exec(native);
  if (!found?.[1]) return { name: native, args: [] };
  const args = found[2]?.split(',').map((arg) => (arg === 'max' ? -1 : Number(arg))) ?? [];
  return { name: found[1], args };
}

const int = (bits: 8 | 16 | 32 | 64, signed = true): LogicalType => ({ kind: 'int', bits, signed });
const decimal = (precision: number, scale: number): LogicalType => ({
  kind: 'decimal',
  precision,
  scale,
  special: false,
});
const unlimited = (length: number | undefined) => (length === undefined || length < 0 ? null : length);

interface Entry {
  readonly logical: (args: readonly number[], codePage: number | null) => LogicalType;
  /** Absent: the column itself. */
  readonly select?: (column: string, args: readonly number[]) => string;
  /** Null: cells of it are never written. */
  readonly load: LoadKind | null;
}

const text = (length: number | null, fixed: boolean, codePage: number | null = null): LogicalType =>
  codePage === null ? { kind: 'text', length, fixed, nul: true } : { kind: 'text', length, fixed, nul: true, codePage };
const opaque = (native: string, why?: string): LogicalType =>
  why === undefined
    ? { kind: 'opaque', engine: ENGINE, native }
    : { kind: 'opaque', engine: ENGINE, native, untransportable: why };

/** The server itself makes Unicode of it: it alone knows every code page's 256 characters. */
const asUnicode = (column: string, args: readonly number[]) => {
  const length = args[0] ?? -1;
  return `CAST(${column} AS nvarchar(${length < 0 || length > 4000 ? 'max' : length}))`;
};
const asBytes = (column: string) => `CAST(${column} AS varbinary(max))`;

const ENTRIES: Readonly<Record<string, Entry>> = {
  bit: { logical: () => ({ kind: 'boolean' }), load: 'bit' },
  tinyint: { logical: () => int(8, false), load: 'tinyint' },
  smallint: { logical: () => int(16), load: 'smallint' },
  int: { logical: () => int(32), load: 'int' },
  bigint: { logical: () => int(64), load: 'bigint' },
  decimal: { logical: ([p = 18, s = 0]) => decimal(p, s), load: 'decimal' },
  numeric: { logical: ([p = 18, s = 0]) => decimal(p, s), load: 'decimal' },
  money: { logical: () => decimal(19, 4), load: 'money' },
  smallmoney: { logical: () => decimal(10, 4), load: 'smallmoney' },
  real: { logical: () => ({ kind: 'float', bits: 32, special: false }), load: 'real' },
  float: { logical: () => ({ kind: 'float', bits: 64, special: false }), load: 'float' },
  date: { logical: () => ({ kind: 'date', infinity: false }), load: 'date' },
  time: { logical: ([s = 7]) => ({ kind: 'time', fraction: s }), load: 'time' },
  smalldatetime: { logical: () => ({ kind: 'timestamp', fraction: 0, infinity: false }), load: 'smalldatetime' },
  datetime: { logical: () => ({ kind: 'timestamp', fraction: 3, infinity: false }), load: 'datetime' },
  datetime2: { logical: ([s = 7]) => ({ kind: 'timestamp', fraction: s, infinity: false }), load: 'datetime2' },
  datetimeoffset: {
    logical: ([s = 7]) => ({ kind: 'timestamptz', fraction: s, infinity: false, offset: true }),
    load: 'datetimeoffset',
  },
  char: { logical: ([n], page) => text(unlimited(n ?? 1), true, page), select: asUnicode, load: 'char' },
  varchar: { logical: ([n], page) => text(unlimited(n ?? 1), false, page), select: asUnicode, load: 'char' },
  text: { logical: (_, page) => text(null, false, page), select: asUnicode, load: 'char' },
  nchar: { logical: ([n]) => text(unlimited(n ?? 1), true), load: 'nchar' },
  nvarchar: { logical: ([n]) => text(unlimited(n ?? 1), false), load: 'nchar' },
  ntext: { logical: () => text(null, false), select: asUnicode, load: 'nchar' },
  binary: { logical: ([n]) => ({ kind: 'bytes', length: unlimited(n ?? 1), fixed: true }), load: 'binary' },
  varbinary: { logical: ([n]) => ({ kind: 'bytes', length: unlimited(n ?? 1), fixed: false }), load: 'binary' },
  image: { logical: () => ({ kind: 'bytes', length: null, fixed: false }), select: asBytes, load: 'binary' },
  rowversion: { logical: () => ({ kind: 'bytes', length: 8, fixed: true }), load: null },
  uniqueidentifier: { logical: () => ({ kind: 'uuid' }), load: 'uniqueidentifier' },
  xml: { logical: () => ({ kind: 'xml' }), select: asUnicode, load: 'xml' },
  // SQL Server 2025 keeps a parsed form: the text that comes out is not the text that went in.
  json: { logical: () => ({ kind: 'json', binary: true }), select: asUnicode, load: 'nchar' },
  // Types of the CLR: their own serialization, byte for byte; WKB would lose the SRID, Z and M.
  hierarchyid: { logical: () => opaque('hierarchyid'), select: asBytes, load: 'clr' },
  geometry: { logical: () => opaque('geometry'), select: asBytes, load: 'clr' },
  geography: { logical: () => opaque('geography'), select: asBytes, load: 'clr' },
  sql_variant: {
    logical: () => opaque('sql_variant', 'every value has a type of its own, which nothing carries'),
    load: null,
  },
};

/** `codePage`: of a char, varchar or text column's collation; null: unknown, or Unicode. */
export function logicalType(native: string, codePage: number | null = null): LogicalType {
  const { name, args } = parseNativeType(native);
  return ENTRIES[name]?.logical(args, codePage) ?? opaque(native, `${native} is not a type that this engine knows`);
}

/**
 * What is selected of a column so that its exact value arrives; `column` is SQL (a quoted name, perhaps qualified). What
 * arrives becomes a cell by the type it arrives in (rows.ts), so these expressions and `readCells` belong together.
 */
export function selectExpression(nativeType: string, column: string): string {
  const { name, args } = parseNativeType(nativeType);
  return ENTRIES[name]?.select?.(column, args) ?? column;
}

/**
 * What a cell is in a bulk load, by the column it goes into. Cells are text (a string, or its UTF-8 bytes), but for `binary` and
 * `clr`, whose cells are the bytes themselves.
 *
 * What does not fit is refused (ROW_REFUSED), never rounded, cut or replaced (invariant 6); a trailing zero too many is no loss.
 * - bit: `t`/`f` (`1`/`0`, `true`/`false` are understood). tinyint: 0–255. int, bigint …: decimal digits; beyond 2^53 no number holds them.
 * - decimal: `scale` digits at most behind the point, `precision` at most in all. money, smallmoney: an integer of 1/10000.
 * - real, float: `Number(text)`, real by `Math.fround`; `-0` is −0; NaN and infinities are refused, and so is a finite text that overflows.
 * - date: 0001-01-01 to 9999-12-31; BC and infinity are refused. time: 00:00 to 23:59:59.9999999; 24:00 is refused.
 * - datetime: 1753 to 9999, and only what is on a tick of 1/300 s: milliseconds ending in 0, 3, 7. smalldatetime: 1900 to
 *   2079-06-06, whole minutes. datetime2(n), time(n): at most n digits.
 * - datetimeoffset(n): `2020-01-01 12:00:00.5+05:30` is local time and offset; on the wire it is UTC and minutes. `+00` without minutes.
 * - char: char, varchar, text. The column's code page (`codePage` of its logical type; absent: unknown, send Unicode) must hold
 *   every character, the server would put `?` or a likeness in silence; `length` counts bytes of it. nchar: nchar, nvarchar,
 *   ntext, json; `length` counts UTF-16 units. Values of fixed types arrive padded.
 * - binary: binary, varbinary, image. clr: the column's own serialization, announced as varbinary(max) (as SqlBulkCopy does).
 * - uniqueidentifier: text; its first three groups are little-endian on the wire.
 * - xml: text; `CONVERT(xml, …, 1)` keeps blanks that are only between elements.
 */
export type LoadKind =
  | 'bit'
  | 'tinyint'
  | 'smallint'
  | 'int'
  | 'bigint'
  | 'decimal'
  | 'money'
  | 'smallmoney'
  | 'real'
  | 'float'
  | 'date'
  | 'time'
  | 'datetime'
  | 'smalldatetime'
  | 'datetime2'
  | 'datetimeoffset'
  | 'char'
  | 'nchar'
  | 'binary'
  | 'clr'
  | 'uniqueidentifier'
  | 'xml';

export interface LoadType {
  readonly kind: LoadKind;
  /** As the statement that begins the load names it. */
  readonly declared: string;
  /** Of char, nchar and binary; null: max. */
  readonly length: number | null;
  /** Of decimal, money and smallmoney (19,4 and 10,4). */
  readonly precision: number;
  /** Of decimals, else the digits of a second. */
  readonly scale: number;
  /** Of char: the code page; null: unknown. */
  readonly codePage: number | null;
}

/** Null: cells of this type are never written. */
export function loadType(column: Pick<Column, 'nativeType' | 'type'>): LoadType | null {
  const { name, args } = parseNativeType(column.nativeType);
  const kind = ENTRIES[name]?.load ?? null;
  if (kind === null) return null;
  const { type } = column;
  const isDecimal = type.kind === 'decimal';
  return {
    kind,
    declared: kind === 'clr' ? 'varbinary(max)' : column.nativeType,
    length: type.kind === 'text' || type.kind === 'bytes' ? type.length : null,
    precision: isDecimal ? (type.precision ?? 38) : 0,
    scale: isDecimal ? (type.scale ?? 0) : (args[0] ?? (kind === 'datetime' ? 3 : 0)),
    codePage: type.kind === 'text' ? (type.codePage ?? null) : null,
  };
}

/** Tells apart whatever differs but for trailing blanks, which SQL Server never compares; for key columns of other engines' tables. */
export const STRICT_COLLATION = 'Latin1_General_BIN2';

/** The native type that holds every value of `type`, for tables made here; null: there is none. */
export function declare(type: LogicalType): string | null {
  const fraction = (name: string, digits: number) => (digits > 7 ? null : `${name}(${digits})`);
  switch (type.kind) {
    case 'boolean':
      return 'bit';
    case 'int':
      if (type.signed) return { 8: 'smallint', 16: 'smallint', 32: 'int', 64: 'bigint' }[type.bits];
      return { 8: 'tinyint', 16: 'int', 32: 'bigint', 64: 'decimal(20,0)' }[type.bits];
    case 'decimal':
      return declareDecimal(type.precision, type.scale ?? 0);
    case 'float':
      return type.bits === 32 ? 'real' : 'float';
    case 'text':
      return declareText(type.length);
    case 'bytes':
      if (type.length === null || type.length > 8000 || type.length < 1) return 'varbinary(max)';
      return `${type.fixed ? 'binary' : 'varbinary'}(${type.length})`;
    case 'date':
      return 'date';
    case 'time':
      return fraction('time', type.fraction);
    case 'timestamp':
      return fraction('datetime2', type.fraction);
    case 'timestamptz':
      return fraction('datetimeoffset', type.fraction);
    case 'uuid':
      return 'uniqueidentifier';
    // As text: xml and json columns here would normalize it.
    case 'json':
    case 'xml':
      return 'nvarchar(max)';
    case 'enum':
      return declareText(Math.max(1, ...type.labels.map((label) => [...label].length)));
    case 'opaque':
      return type.engine === ENGINE && type.untransportable === undefined ? type.native : null;
    case 'timetz':
    case 'interval':
    case 'array':
    case 'geometry':
      return null;
  }
}

/** Of other engines' decimals: scales may be negative, or larger than the precision. */
function declareDecimal(precision: number | null, scale: number): string | null {
  if (precision === null) return null;
  const whole = precision - scale;
  const behind = Math.max(scale, 0);
  const digits = Math.max(whole + behind, behind, 1);
  return digits > 38 ? null : `decimal(${digits},${behind})`;
}

/** Other engines count characters; here those beyond the first 65,536 take two units. */
function declareText(characters: number | null): string {
  return characters === null || characters > 2000 || characters < 1 ? 'nvarchar(max)' : `nvarchar(${characters * 2})`;
}
