/**
 * Native types and logical types, both ways, as data: what a column means, what is selected of it, how it is declared here, and what
 * a bound value of it is compared as. Native types are spelled as information_schema prints COLUMN_TYPE, but for MariaDB's JSON, which
 * is spelled `json` (the catalog recognises it by its check).
 *
 * Text of the cells is the same in all engines: boolean `t`/`f`; a fraction of a second without trailing zeros; timestamps with
 * zone in UTC as `… +00`; floats by the shortest digits that read back. Zero dates (`0000-00-00`) and times beyond a day are carried as they are:
 * a destination that cannot hold them refuses the row (invariant 6).
 */
import type { Column } from '../../model/tables.ts';
import type { LogicalType } from '../../model/types.ts';

export const ENGINE = 'mysql';

/** `decimal(10,2) unsigned zerofill` taken apart. */
export interface NativeType {
  readonly name: string;
  readonly args: readonly number[];
  readonly unsigned: boolean;
  readonly zerofill: boolean;
  /** Of enum and set. */
  readonly labels: readonly string[];
}

/** How the server's text of a value becomes a cell (cells.ts). */
export type CellForm =
  | 'plain'
  | 'zerofill'
  | 'bit'
  | 'boolean'
  | 'float32'
  | 'float64'
  | 'fraction'
  | 'instant'
  | 'text'
  | 'bytes'
  | 'geometry';

interface Entry {
  readonly logical: (type: NativeType) => LogicalType;
  readonly form: CellForm | ((type: NativeType) => CellForm);
  /** What a bound text is compared as; absent: this column orders and compares in a way that nothing bound does. */
  readonly bound?: (text: string, type: NativeType) => string;
}

const number = (type: NativeType): CellForm => (type.zerofill ? 'zerofill' : 'plain');
const integer = (bits: 8 | 16 | 32 | 64): Entry => ({
  logical: ({ unsigned }) => ({ kind: 'int', bits, signed: !unsigned }),
  form: number,
  bound: (text, { unsigned }) => `CAST(${text} AS ${unsigned ? 'UNSIGNED' : 'SIGNED'})`,
});
const text = (limit: number | null): Entry => ({
  logical: ({ args }) => ({ kind: 'text', length: args[0] ?? limit, fixed: false, nul: true }),
  form: 'text',
});
const bytes = (limit: number | null, fixed = false): Entry => ({
  logical: ({ args }) => ({ kind: 'bytes', length: args[0] ?? limit, fixed }),
  form: 'bytes',
  // Bound as hex: the driver would announce bytes as text.
  bound: (hex) => `UNHEX(${hex})`,
});
const temporal = (kind: 'date' | 'time' | 'datetime'): Pick<Entry, 'bound'> => ({
  bound: (value) => `CAST(${value} AS ${kind === 'date' ? 'DATE' : `${kind.toUpperCase()}(6)`})`,
});
const float = (bits: 32 | 64): Entry => ({
  logical: () => ({ kind: 'float', bits, special: false }),
  form: bits === 32 ? 'float32' : 'float64',
});
const decimal: Entry = {
  logical: ({ args: [precision = 10, scale = 0] }) => ({ kind: 'decimal', precision, scale, special: false }),
  form: number,
  bound: (value, { args: [precision = 10, scale = 0] }) => `CAST(${value} AS DECIMAL(${precision},${scale}))`,
};
const geometry: Entry = { logical: () => ({ kind: 'geometry' }), form: 'geometry' };
const textual = (length: number): Entry => ({
  logical: () => ({ kind: 'text', length, fixed: false, nul: false }),
  form: 'text',
});

const ENTRIES: Readonly<Record<string, Entry>> = {
  // tinyint(1) holds −128 to 127 like any other: what is called BOOLEAN here is an integer. Only bit(1) is two-valued.
  tinyint: integer(8),
  smallint: integer(16),
  mediumint: integer(32),
  int: integer(32),
  bigint: integer(64),
  year: {
    logical: () => ({ kind: 'int', bits: 16, signed: false }),
    form: 'zerofill',
    bound: (value) => `CAST(${value} AS UNSIGNED)`,
  },
  bit: {
    logical: ({ args: [n = 1] }) =>
      n === 1
        ? { kind: 'boolean' }
        : { kind: 'int', bits: n <= 8 ? 8 : n <= 16 ? 16 : n <= 32 ? 32 : 64, signed: false },
    form: ({ args: [n = 1] }) => (n === 1 ? 'boolean' : 'bit'),
    bound: (value) => `CAST(${value} AS UNSIGNED)`,
  },
  decimal,
  float: float(32),
  double: float(64),
  date: { logical: () => ({ kind: 'date', infinity: false }), form: 'plain', ...temporal('date') },
  time: { logical: ({ args: [f = 0] }) => ({ kind: 'time', fraction: f }), form: 'fraction', ...temporal('time') },
  datetime: {
    logical: ({ args: [f = 0] }) => ({ kind: 'timestamp', fraction: f, infinity: false }),
    form: 'fraction',
    ...temporal('datetime'),
  },
  timestamp: {
    logical: ({ args: [f = 0] }) => ({ kind: 'timestamptz', fraction: f, infinity: false, offset: false }),
    form: 'instant',
    ...temporal('datetime'),
  },
  // Blanks at the end of a CHAR are not part of the value here, so that it is not a padded type elsewhere.
  char: { ...text(1), logical: ({ args }) => ({ kind: 'text', length: args[0] ?? 1, fixed: false, nul: true }) },
  varchar: text(null),
  tinytext: text(255),
  text: text(65_535),
  mediumtext: text(16_777_215),
  longtext: text(null),
  binary: bytes(1, true),
  varbinary: bytes(null),
  tinyblob: bytes(255),
  blob: bytes(65_535),
  mediumblob: bytes(16_777_215),
  longblob: bytes(null),
  enum: { logical: ({ labels }) => ({ kind: 'enum', labels }), form: 'text' },
  set: {
    logical: ({ labels }) => ({
      kind: 'text',
      length: Math.max(1, [...labels.join(',')].length),
      fixed: false,
      nul: false,
    }),
    form: 'text',
  },
  // MySQL keeps a parsed form; MariaDB keeps the text (see `logicalType`).
  json: { logical: () => ({ kind: 'json', binary: true }), form: 'text' },
  geometry,
  point: geometry,
  linestring: geometry,
  polygon: geometry,
  multipoint: geometry,
  multilinestring: geometry,
  multipolygon: geometry,
  geometrycollection: geometry,
  geomcollection: geometry,
  // MariaDB's own.
  uuid: { logical: () => ({ kind: 'uuid' }), form: 'text', bound: (value) => `CAST(${value} AS UUID)` },
  inet4: textual(15),
  inet6: textual(45),
  // MySQL 9 and MariaDB 11.7, in different forms.
  vector: { logical: () => ({ kind: 'opaque', engine: ENGINE, native: 'vector' }), form: 'bytes' },
};

/** Names of the native types that have an entry, for docs/types.md. */
export const NATIVE_NAMES: readonly string[] = Object.keys(ENTRIES);

const cache = new Map<string, NativeType>();

export function parseNativeType(native: string): NativeType {
  const known = cache.get(native);
  if (known) return known;
  const [, name = native, inside = '', rest = ''] = /^([a-z0-9_]+)(?:\((.*)\))?([a-z ]*)$/is.exec(native) ?? [];
  const isLabelled = /^(enum|set)$/i.test(name);
  const parsed: NativeType = {
    name: name.toLowerCase() === 'real' ? 'double' : name.toLowerCase(),
    args: isLabelled || inside === '' ? [] : inside.split(',').map(Number),
    unsigned: /\bunsigned\b/i.test(rest),
    zerofill: /\bzerofill\b/i.test(rest),
    labels: isLabelled ? labelsOf(inside) : [],
  };
  if (cache.size > 10_000) cache.clear();
  cache.set(native, parsed);
  return parsed;
}

/** `'a','it''s','back\\slash'`: the server doubles quotes and writes a few characters with a backslash (append_unescaped). */
function labelsOf(list: string): string[] {
  const escapes: Readonly<Record<string, string>> = { '0': '\0', n: '\n', r: '\r' };
  return [...list.matchAll(/'((?:[^'\\]|''|\\.)*)'/gs)].map(([, label = '']) =>
    label.replace(/''|\\(.)/gs, (_whole, escaped: string | undefined) =>
      escaped === undefined ? "'" : (escapes[escaped] ?? escaped),
    ),
  );
}

/** `isText`: JSON is kept as the text that was written (MariaDB). */
export function logicalType(native: string, isText = false): LogicalType {
  const parsed = parseNativeType(native);
  if (parsed.name === 'json') return { kind: 'json', binary: !isText };
  return (
    ENTRIES[parsed.name]?.logical(parsed) ?? {
      kind: 'opaque',
      engine: ENGINE,
      native,
      untransportable: `${native} is not a type that this engine knows`,
    }
  );
}

export function cellForm(native: string): CellForm {
  const parsed = parseNativeType(native);
  const form = ENTRIES[parsed.name]?.form ?? 'bytes';
  return typeof form === 'string' ? form : form(parsed);
}

/** What is selected of a column so that its exact value arrives; `column` is SQL. */
export function selectExpression(native: string, column: string): string {
  // FLOAT is printed with six digits; as a double it is printed exactly (and times one keeps the sign of zero).
  return cellForm(native) === 'float32' ? `(${column} * 1e0)` : column;
}

/**
 * A bound text as a value that compares and orders as the column does, so that its index serves; null: there is none, because the
 * column's values do not order as their text or number does (enum, set, floats that are printed shorter). `value` is SQL.
 */
export function boundExpression(column: Pick<Column, 'nativeType' | 'collation'>, value: string): string | null {
  const parsed = parseNativeType(column.nativeType);
  const entry = ENTRIES[parsed.name];
  if (entry?.bound) return entry.bound(value, parsed);
  if (entry?.form !== 'text' || !column.collation || ['enum', 'set', 'json'].includes(parsed.name)) return null;
  if (!/^[a-z0-9_]+$/i.test(column.collation)) return null;
  const charset = /^[a-z0-9]+/i.exec(column.collation)?.[0] ?? 'utf8mb4';
  return `CONVERT(${value} USING ${charset}) COLLATE ${column.collation}`;
}

/** Tells apart whatever differs, trailing blanks included where the server has such a collation; for key columns made here. */
export const STRICT_COLLATION = { mysql: 'utf8mb4_0900_bin', mariadb: 'utf8mb4_nopad_bin' } as const;

/** Characters of the longest VARCHAR that is declared: a row holds 65,535 bytes, all columns together. */
const MAX_VARCHAR = 4000;

/** The native type that holds every value of `type`, for tables made here; null: there is none. */
export function declare(type: LogicalType): string | null {
  const fraction = (name: string, digits: number) => (digits > 6 ? null : digits === 0 ? name : `${name}(${digits})`);
  switch (type.kind) {
    case 'boolean':
      return 'bit(1)';
    case 'int':
      return `${{ 8: 'tinyint', 16: 'smallint', 32: 'int', 64: 'bigint' }[type.bits]}${type.signed ? '' : ' unsigned'}`;
    case 'decimal':
      return declareDecimal(type.precision, type.scale ?? 0);
    case 'float':
      return type.bits === 32 ? 'float' : 'double';
    case 'text':
      return declareText(type.length);
    case 'bytes':
      if (type.fixed && type.length !== null && type.length <= 255) return `binary(${type.length})`;
      return type.length === null || type.length > MAX_VARCHAR ? 'longblob' : `varbinary(${type.length})`;
    case 'date':
      return 'date';
    case 'time':
      return fraction('time', type.fraction);
    case 'timestamp':
      return fraction('datetime', type.fraction);
    // TIMESTAMP ends in 2038: what is later fails its row.
    case 'timestamptz':
      return type.offset ? null : fraction('timestamp', type.fraction);
    case 'uuid':
      return 'char(36)';
    // As text: a JSON column of MySQL would normalize it.
    case 'json':
    case 'xml':
      return 'longtext';
    case 'enum':
      return declareText(Math.max(1, ...type.labels.map((label) => [...label].length)));
    case 'geometry':
      return 'geometry';
    case 'opaque':
      return type.engine === ENGINE && type.untransportable === undefined ? type.native : null;
    case 'timetz':
    case 'interval':
    case 'array':
      return null;
  }
}

/** Of other engines' decimals: scales may be negative, or larger than the precision. */
function declareDecimal(precision: number | null, scale: number): string | null {
  if (precision === null) return null;
  const behind = Math.max(scale, 0);
  const digits = Math.max(precision - scale + behind, behind, 1);
  return digits > 65 || behind > 30 ? null : `decimal(${digits},${behind})`;
}

function declareText(characters: number | null): string {
  return characters === null || characters > MAX_VARCHAR || characters < 1 ? 'longtext' : `varchar(${characters})`;
}
