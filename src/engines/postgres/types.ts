/**
 * Native types and logical types, both ways, as data; and which native types may travel in the binary format of COPY.
 * Native names are spelled as `format_type` prints them under an empty search path: built-in types bare, all others with
 * their schema.
 */
import { createHash } from 'node:crypto';
import type { Column } from '../../model/tables.ts';
import type { LogicalType } from '../../model/types.ts';

export const ENGINE = 'postgres';

/** A row of pg_type, as far as it matters. `array` is the type's own array type, by which true arrays are told. */
export interface PgType {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** b base, c composite, d domain, e enum, p pseudo, r range, m multirange. */
  readonly kind: string;
  readonly element: number;
  readonly array: number;
  readonly base: number;
  readonly baseModifier: number;
  readonly notNull: boolean;
  readonly labels: readonly string[] | null;
}

const text = (length: number | null, fixed = false): LogicalType => ({ kind: 'text', length, fixed, nul: false });
/** Modifiers of character types count a 4-byte header that is no longer there. */
const withoutHeader = (modifier: number) => (modifier < 4 ? null : modifier - 4);
const fraction = (modifier: number) => (modifier < 0 ? 6 : modifier);

/** pg_type.typname in pg_catalog → logical type, from the type modifier. What is not listed is opaque. */
const LOGICAL: Readonly<Record<string, (modifier: number) => LogicalType | null>> = {
  bool: () => ({ kind: 'boolean' }),
  int2: () => ({ kind: 'int', bits: 16, signed: true }),
  int4: () => ({ kind: 'int', bits: 32, signed: true }),
  int8: () => ({ kind: 'int', bits: 64, signed: true }),
  numeric: (modifier) =>
    modifier < 4
      ? { kind: 'decimal', precision: null, scale: null, special: true }
      : {
          kind: 'decimal',
          precision: ((modifier - 4) >> 16) & 0xffff,
          // Eleven bits, signed since PostgreSQL 15; earlier values never reach the sign.
          scale: (((modifier - 4) & 0x7ff) ^ 1024) - 1024,
          special: true,
        },
  float4: () => ({ kind: 'float', bits: 32, special: true }),
  float8: () => ({ kind: 'float', bits: 64, special: true }),
  text: () => text(null),
  varchar: (modifier) => text(withoutHeader(modifier)),
  bpchar: (modifier) => text(withoutHeader(modifier), withoutHeader(modifier) !== null),
  bytea: () => ({ kind: 'bytes', length: null, fixed: false }),
  date: () => ({ kind: 'date', infinity: true }),
  time: (modifier) => ({ kind: 'time', fraction: fraction(modifier) }),
  timetz: (modifier) => ({ kind: 'timetz', fraction: fraction(modifier) }),
  timestamp: (modifier) => ({ kind: 'timestamp', fraction: fraction(modifier), infinity: true }),
  timestamptz: (modifier) => ({ kind: 'timestamptz', fraction: fraction(modifier), infinity: true, offset: false }),
  // With a modifier (`interval day to second(0)`) it rounds, so that only the same type holds its values.
  interval: (modifier) => (modifier < 0 ? { kind: 'interval' } : null),
  uuid: () => ({ kind: 'uuid' }),
  json: () => ({ kind: 'json', binary: false }),
  jsonb: () => ({ kind: 'json', binary: true }),
  xml: () => ({ kind: 'xml' }),
};

/** Names of the native types that have an entry, for docs/types.md. */
export const NATIVE_NAMES: readonly string[] = Object.keys(LOGICAL);

/** Resolves a column's type through its domains. `native`: as `format_type` prints it, for what stays opaque. */
export function logicalType(
  types: ReadonlyMap<number, PgType>,
  oid: number,
  modifier: number,
  native: string,
): LogicalType {
  const opaque: LogicalType = { kind: 'opaque', engine: ENGINE, native };
  let type = types.get(oid);
  while (type?.kind === 'd') {
    modifier = type.baseModifier;
    type = types.get(type.base);
  }
  if (!type) return opaque;
  if (type.kind === 'e') return { kind: 'enum', labels: type.labels ?? [] };
  const element = types.get(type.element);
  if (element && element.array === type.oid) {
    const elementNative = native.endsWith('[]') ? native.slice(0, -2) : `${native}[element]`;
    return { kind: 'array', element: logicalType(types, element.oid, modifier, elementNative) };
  }
  if (type.schema === 'pg_catalog') return LOGICAL[type.name]?.(modifier) ?? opaque;
  if (type.name === 'citext') return text(null);
  return opaque;
}

/** Base types whose `=` holds for values that print differently; composites, ranges and foreign base types are judged with them. */
const LOOSE = new Set(['numeric', 'float4', 'float8', 'interval', 'jsonb', 'citext', 'numrange', 'nummultirange']);

/** Can two values that are equal under this type's `=` print differently? Collations are not looked at here. */
export function isLooseType(types: ReadonlyMap<number, PgType>, oid: number): boolean {
  let type = types.get(oid);
  while (type?.kind === 'd') type = types.get(type.base);
  if (!type) return true;
  if (type.kind === 'e') return false;
  const element = types.get(type.element);
  if (element && element.array === type.oid) return isLooseType(types, element.oid);
  if (type.schema !== 'pg_catalog' || type.kind === 'c') return true;
  // bpchar without a length keeps the blanks that its comparison ignores.
  return LOOSE.has(type.name) || type.name === 'bpchar';
}

/** The native type that holds every value of `type`, for tables made here; null: there is none. Enums and opaque types of others: null. */
export function declare(type: LogicalType): string | null {
  const digits = (name: string, limit: number, zone: string) => {
    if (limit > 6) return null;
    return limit === 6 ? `${name} ${zone}` : `${name}(${limit}) ${zone}`;
  };
  switch (type.kind) {
    case 'boolean':
      return 'boolean';
    case 'int': {
      const bits = type.signed ? type.bits : type.bits * 2;
      return bits <= 16 ? 'smallint' : bits <= 32 ? 'integer' : bits <= 64 ? 'bigint' : 'numeric(20,0)';
    }
    case 'decimal':
      if (type.precision === null) return 'numeric';
      return type.precision > 1000 ? null : `numeric(${type.precision},${type.scale ?? 0})`;
    case 'float':
      return type.bits === 32 ? 'real' : 'double precision';
    case 'text':
      if (type.length === null || type.length > 10_485_760 || type.length < 1) return 'text';
      // Blanks here are padded to so many characters.
      return `${type.fixed && type.units === undefined ? 'character' : 'character varying'}(${type.length})`;
    case 'bytes':
      return 'bytea';
    case 'date':
      return 'date';
    case 'time':
      return digits('time', type.fraction, 'without time zone');
    case 'timetz':
      return digits('time', type.fraction, 'with time zone');
    case 'timestamp':
      return digits('timestamp', type.fraction, 'without time zone');
    case 'timestamptz':
      return type.offset ? null : digits('timestamp', type.fraction, 'with time zone');
    case 'interval':
      return 'interval';
    case 'uuid':
      return 'uuid';
    case 'json':
      return type.binary ? 'jsonb' : 'json';
    case 'xml':
      return 'xml';
    case 'array': {
      const element = declare(type.element);
      return element === null ? null : `${element}[]`;
    }
    case 'opaque':
      return type.engine === ENGINE ? type.native : null;
    case 'enum':
    case 'geometry':
      return null;
  }
}

/** Opaque built-in types whose binary format is the same in PostgreSQL 14 to 18. Object identifiers (reg…) differ between databases. */
const STABLE_OPAQUE = new Set([
  'bit',
  'bit varying',
  'inet',
  'cidr',
  'macaddr',
  'macaddr8',
  'money',
  'point',
  'line',
  'lseg',
  'box',
  'path',
  'polygon',
  'circle',
  'tsvector',
  'tsquery',
  'pg_lsn',
  'oid',
  'interval',
  'name',
  '"char"',
  'jsonpath',
  'int4range',
  'int8range',
  'numrange',
  'daterange',
  'tsrange',
  'tstzrange',
  'int4multirange',
  'int8multirange',
  'nummultirange',
  'datemultirange',
  'tsmultirange',
  'tstzmultirange',
]);

/** `interval day to second(3)` → interval, `bit(8)` → bit, `timestamp(3) with time zone` → timestamp with time zone. */
function withoutModifier(native: string): string {
  const bare = native.replace(/\(\d[\d,-]*\)/g, '').trim();
  return bare.startsWith('interval') ? 'interval' : bare;
}

/**
 * What two columns must have in common for one to take the other's binary COPY: the format of the values, not the limits on
 * them, which the receiving server checks. Null: text only (composites carry object ids, foreign types promise nothing).
 */
export function binaryFormat(column: Pick<Column, 'type' | 'nativeType'>): string | null {
  const { type, nativeType } = column;
  switch (type.kind) {
    case 'int':
    case 'float':
      return `${type.kind}${type.bits}`;
    case 'enum': // sent as its label
    case 'text':
      return 'text';
    case 'json':
      return type.binary ? 'jsonb' : 'json';
    case 'array': {
      // The element's object id is part of the format, so it must be a built-in one under its own name.
      const element = withoutModifier(nativeType.replace(/(\[\])+$/, ''));
      const builtIn = /^[a-z][a-z0-9 ]*$/.test(element) || element === '"char"';
      return builtIn && type.element.kind !== 'array' && binaryElement(type.element) ? `${element}[]` : null;
    }
    case 'opaque': {
      const bare = withoutModifier(type.native);
      return STABLE_OPAQUE.has(bare) ? bare : null;
    }
    case 'geometry':
      return null;
    case 'boolean':
    case 'decimal':
    case 'bytes':
    case 'date':
    case 'time':
    case 'timetz':
    case 'timestamp':
    case 'timestamptz':
    case 'interval':
    case 'uuid':
    case 'xml':
      return type.kind;
  }
}

function binaryElement(type: LogicalType): boolean {
  return type.kind !== 'enum' && binaryFormat({ type, nativeType: type.kind === 'opaque' ? type.native : '' }) !== null;
}

export const TEXT_LANE = 'postgres-copy-text';
const BINARY_LANE = 'postgres-copy-binary';

/**
 * Byte lanes for these columns in this order, best first. The binary lane's name carries a fingerprint of the columns'
 * formats: the 8 bytes of a bigint would be accepted as a timestamp, so that only equal formats may meet.
 */
export function copyLanes(columns: readonly Pick<Column, 'type' | 'nativeType'>[]): string[] {
  const formats = columns.map(binaryFormat);
  if (formats.includes(null)) return [TEXT_LANE];
  const fingerprint = createHash('sha256').update(formats.join('\n')).digest('hex').slice(0, 16);
  return [`${BINARY_LANE}:${fingerprint}`, TEXT_LANE];
}

/** The FORMAT option of COPY for a lane; null: not a lane of ours. */
export function laneFormat(lane: string): 'binary' | 'text' | null {
  if (lane === TEXT_LANE) return 'text';
  return lane.startsWith(`${BINARY_LANE}:`) ? 'binary' : null;
}
