/**
 * Logical types: what a value means, whatever engine holds it. Each engine's `types.ts` maps its native types to these
 * and back; the schema check compares them (DESIGN §5).
 */
export type LogicalType =
  | { kind: 'boolean' }
  | { kind: 'int'; bits: 8 | 16 | 32 | 64; signed: boolean }
  /** `precision` null: unbounded (PostgreSQL's bare numeric). `special`: the column can hold NaN or infinity. */
  | { kind: 'decimal'; precision: number | null; scale: number | null; special: boolean }
  /** `special`: the engine can hold NaN, infinities. */
  | { kind: 'float'; bits: 32 | 64; special: boolean }
  /**
   * `length` in characters, null: unbounded. `fixed`: blank-padded to `length`. `nul`: can hold U+0000. `codePage`: holds that
   * Windows code page's characters only; others do not fit and fail their rows. Absent: Unicode. `units`: what `length` counts, and
   * blanks are padded to, where characters can be several of them.
   */
  | {
      kind: 'text';
      length: number | null;
      fixed: boolean;
      nul: boolean;
      codePage?: number;
      units?: 'bytes' | 'utf-16';
    }
  /** `length` in bytes, null: unbounded. */
  | { kind: 'bytes'; length: number | null; fixed: boolean }
  | { kind: 'date'; infinity: boolean }
  /** `fraction`: digits of a second, 0–9. */
  | { kind: 'time'; fraction: number }
  | { kind: 'timetz'; fraction: number }
  | { kind: 'timestamp'; fraction: number; infinity: boolean }
  /** An instant. `offset`: the engine keeps the zone offset it was given (datetimeoffset); else only the instant. */
  | { kind: 'timestamptz'; fraction: number; infinity: boolean; offset: boolean }
  | { kind: 'interval' }
  | { kind: 'uuid' }
  | { kind: 'json'; binary: boolean }
  | { kind: 'xml' }
  | { kind: 'enum'; labels: readonly string[] }
  | { kind: 'array'; element: LogicalType }
  | { kind: 'geometry' }
  /** Only to the same engine, under the same native name; `untransportable`: not even there, and why. */
  | { kind: 'opaque'; engine: string; native: string; untransportable?: string };

/** Can every value of `from` be held by `to` exactly? null: yes; otherwise the reason, without the column's name. */
export function cannotHold(from: LogicalType, to: LogicalType): string | null {
  const no = (why: string) => why;
  switch (from.kind) {
    case 'int': {
      if (to.kind === 'int') {
        const min = from.signed && !to.signed;
        const fromBits = from.signed ? from.bits - 1 : from.bits;
        const toBits = to.signed ? to.bits - 1 : to.bits;
        if (min) return no('negative numbers do not fit an unsigned type');
        return fromBits <= toBits ? null : no(`${from.bits}-bit integers do not fit ${to.bits} bits`);
      }
      if (to.kind === 'decimal') {
        const digits = { 8: 3, 16: 5, 32: 10, 64: from.signed ? 19 : 20 }[from.bits];
        return to.precision === null || to.precision - (to.scale ?? 0) >= digits
          ? null
          : no(`needs ${digits} digits before the decimal point`);
      }
      return no('an integer needs an integer or decimal type');
    }
    case 'decimal': {
      if (to.kind !== 'decimal') return no('a decimal needs a decimal type');
      // NaN and infinity are values, not types: where they do not fit, they fail their rows (invariant 6).
      if (to.precision === null) return null;
      if (from.precision === null) return no('the source has no limit of digits');
      const fs = from.scale ?? 0;
      const ts = to.scale ?? 0;
      if (fs > ts) return no(`${fs} digits after the decimal point do not fit ${ts}`);
      return from.precision - fs <= to.precision - ts ? null : no('too few digits before the decimal point');
    }
    case 'float':
      if (to.kind !== 'float') return no('a float needs a float type');
      if (from.bits > to.bits) return no('a double does not fit a single-precision float');
      return null;
    case 'text':
      if (to.kind !== 'text') return no('text needs a text type');
      if (to.length !== null && (from.length === null || from.length > to.length))
        return no(`up to ${from.length ?? 'any number of'} characters do not fit ${to.length}`);
      if (to.fixed && !(from.fixed && from.length === to.length)) return no('a blank-padded type changes the value');
      return null;
    case 'bytes':
      if (to.kind !== 'bytes') return no('bytes need a binary type');
      if (to.length !== null && (from.length === null || from.length > to.length))
        return no(`up to ${from.length ?? 'any number of'} bytes do not fit ${to.length}`);
      if (to.fixed && !(from.fixed && from.length === to.length)) return no('a padded type changes the value');
      return null;
    case 'date':
      if (to.kind !== 'date') return no('a date needs a date type');
      return null;
    case 'time':
    case 'timetz':
      if (to.kind !== from.kind) return no(`${from.kind} needs ${from.kind}`);
      return from.fraction <= to.fraction ? null : no(`${from.fraction} digits of a second do not fit ${to.fraction}`);
    case 'timestamp':
      if (to.kind !== 'timestamp') return no('a timestamp without zone needs the same');
      return from.fraction <= to.fraction ? null : no(`${from.fraction} digits of a second do not fit ${to.fraction}`);
    case 'timestamptz':
      if (to.kind !== 'timestamptz') return no('a timestamp with zone needs the same');
      if (from.offset && !to.offset) return no('the zone offset would be lost');
      return from.fraction <= to.fraction ? null : no(`${from.fraction} digits of a second do not fit ${to.fraction}`);
    case 'enum': {
      if (to.kind === 'text') {
        const longest = Math.max(0, ...from.labels.map((label) => [...label].length));
        return to.length === null || longest <= to.length ? null : no('the longest label does not fit');
      }
      if (to.kind !== 'enum') return no('an enum needs an enum or text type');
      const missing = from.labels.filter((label) => !to.labels.includes(label));
      return missing.length === 0 ? null : no(`the destination's enum lacks ${missing.length} of the labels`);
    }
    case 'array':
      if (to.kind !== 'array') return no('an array needs an array type');
      return cannotHold(from.element, to.element);
    case 'json':
      if (to.kind === 'json') return to.binary && !from.binary ? no('a binary json type changes the text') : null;
      return to.kind === 'text' && to.length === null ? null : no('json needs a json or unlimited text type');
    case 'xml':
      if (to.kind === 'text' && to.length === null) return null;
      return to.kind === 'xml' ? null : no('xml needs an xml or unlimited text type');
    case 'opaque':
      if (from.untransportable !== undefined) return no(from.untransportable);
      return to.kind === 'opaque' && to.engine === from.engine && to.native === from.native
        ? null
        : no(`${from.native} only goes to the same type of the same engine`);
    case 'boolean':
    case 'interval':
    case 'uuid':
    case 'geometry':
      return to.kind === from.kind ? null : no(`${from.kind} needs ${from.kind}`);
  }
}
