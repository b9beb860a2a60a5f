/**
 * Native types and logical types, both ways, as data: what a column means, what is selected of it, and how it is declared here
 * (how its cells go into a bulk load: tds/bulk-columns.ts). Native types are spelled as CREATE TABLE takes them, in lower case, with their
 * arguments (`decimal(10,2)`, `nvarchar(max)`, `datetime2(7)`); an alias type is its base type, which holds the same values.
 *
 * Text of the cells (the same in all engines): boolean `t`/`f`; date `YYYY-MM-DD`; a fraction of a second without trailing
 * zeros; timestamps with a blank; an offset as `+HH` or `+HH:MM`; floats by the shortest digits that read back
 * (float-text.ts); uuid in lower case; money as decimal with four digits.
 */
import type { LogicalType } from '../../model/types.ts';
import { DOUBLE_BYTE_PAGES } from './tds/code-pages.ts';

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
}

const UTF_8 = 65001;
/** A character takes one byte or several. */
const MULTI_BYTE_PAGES: ReadonlySet<number> = new Set([...DOUBLE_BYTE_PAGES, UTF_8]);
const text = (length: number | null, fixed: boolean, codePage: number | null = null): LogicalType => {
  const type = { kind: 'text', length, fixed, nul: true } as const;
  if (codePage === null) return type;
  return MULTI_BYTE_PAGES.has(codePage) ? { ...type, codePage, units: 'bytes' } : { ...type, codePage };
};
const utf16 = (length: number | null, fixed: boolean): LogicalType => ({
  kind: 'text',
  length,
  fixed,
  nul: true,
  units: 'utf-16',
});
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
  bit: { logical: () => ({ kind: 'boolean' }) },
  tinyint: { logical: () => int(8, false) },
  smallint: { logical: () => int(16) },
  int: { logical: () => int(32) },
  bigint: { logical: () => int(64) },
  decimal: { logical: ([p = 18, s = 0]) => decimal(p, s) },
  numeric: { logical: ([p = 18, s = 0]) => decimal(p, s) },
  money: { logical: () => decimal(19, 4) },
  smallmoney: { logical: () => decimal(10, 4) },
  real: { logical: () => ({ kind: 'float', bits: 32, special: false }) },
  float: { logical: () => ({ kind: 'float', bits: 64, special: false }) },
  date: { logical: () => ({ kind: 'date', infinity: false }) },
  time: { logical: ([s = 7]) => ({ kind: 'time', fraction: s }) },
  smalldatetime: { logical: () => ({ kind: 'timestamp', fraction: 0, infinity: false }) },
  datetime: { logical: () => ({ kind: 'timestamp', fraction: 3, infinity: false }) },
  datetime2: { logical: ([s = 7]) => ({ kind: 'timestamp', fraction: s, infinity: false }) },
  datetimeoffset: {
    logical: ([s = 7]) => ({ kind: 'timestamptz', fraction: s, infinity: false, offset: true }),
  },
  char: { logical: ([n], page) => text(unlimited(n ?? 1), true, page), select: asUnicode },
  varchar: { logical: ([n], page) => text(unlimited(n ?? 1), false, page), select: asUnicode },
  text: { logical: (_, page) => text(null, false, page), select: asUnicode },
  nchar: { logical: ([n]) => utf16(unlimited(n ?? 1), true) },
  nvarchar: { logical: ([n]) => utf16(unlimited(n ?? 1), false) },
  ntext: { logical: () => text(null, false), select: asUnicode },
  binary: { logical: ([n]) => ({ kind: 'bytes', length: unlimited(n ?? 1), fixed: true }) },
  varbinary: { logical: ([n]) => ({ kind: 'bytes', length: unlimited(n ?? 1), fixed: false }) },
  image: { logical: () => ({ kind: 'bytes', length: null, fixed: false }), select: asBytes },
  rowversion: { logical: () => ({ kind: 'bytes', length: 8, fixed: true }) },
  uniqueidentifier: { logical: () => ({ kind: 'uuid' }) },
  xml: { logical: () => ({ kind: 'xml' }), select: asUnicode },
  // SQL Server 2025 keeps a parsed form: the text that comes out is not the text that went in.
  json: { logical: () => ({ kind: 'json', binary: true }), select: asUnicode },
  // Types of the CLR: their own serialization, byte for byte; WKB would lose the SRID, Z and M.
  hierarchyid: { logical: () => opaque('hierarchyid'), select: asBytes },
  geometry: { logical: () => opaque('geometry'), select: asBytes },
  geography: { logical: () => opaque('geography'), select: asBytes },
  sql_variant: {
    logical: () => opaque('sql_variant', 'every value has a type of its own, which nothing carries'),
  },
};

/** Names of the native types that have an entry, for docs/types.md. */
export const NATIVE_NAMES: readonly string[] = Object.keys(ENTRIES);

/** `codePage`: of a char, varchar or text column's collation; null: unknown, or Unicode. */
export function logicalType(native: string, codePage: number | null = null): LogicalType {
  const { name, args } = parseNativeType(native);
  return ENTRIES[name]?.logical(args, codePage) ?? opaque(native, `${native} is not a type that this engine knows`);
}

/** False: no value of the type can be read, and a mapping with such a column fails its schema check. */
export function isTransportable(nativeType: string): boolean {
  const type = logicalType(nativeType);
  return type.kind !== 'opaque' || type.untransportable === undefined;
}

/**
 * What is selected of a column so that its exact value arrives; `column` is SQL (a quoted name, perhaps qualified). What
 * arrives becomes a cell by the type it arrives in (rows.ts), so these expressions and `readCells` belong together.
 */
export function selectExpression(nativeType: string, column: string): string {
  const { name, args } = parseNativeType(nativeType);
  return ENTRIES[name]?.select?.(column, args) ?? column;
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
