/** Cells of key columns as values in SQL: bound as text or bytes, compared by the server in the column's own type and collation. */
import type { Cell } from '../../model/changes.ts';
import type { Column } from '../../model/tables.ts';

/** The value as a parameter: what `keyExpression` reads. */
export function keyParameter(cell: Cell, column: Column): string | Uint8Array | null {
  if (cell === null) return null;
  const { kind } = column.type;
  if (kind === 'bytes' || kind === 'opaque') return typeof cell === 'string' ? Buffer.from(cell) : cell;
  const text = typeof cell === 'string' ? cell : Buffer.from(cell).toString('utf8');
  if (kind === 'boolean') return /^(t|true|1)$/i.test(text) ? '1' : '0';
  // T-SQL reads +05:30, not +05.
  return kind === 'timestamptz' && /[+-]\d\d$/.test(text) ? `${text}:00` : text;
}

/**
 * A bound value in the column's type, so that an index on the column serves the comparison. The collation comes before the cast:
 * it decides the code page, and the database's own may lack the characters.
 */
export function keyExpression(bound: string, column: Column): string {
  const { nativeType } = column;
  const collated = column.collation === null ? bound : `${bound} COLLATE ${column.collation}`;
  switch (nativeType) {
    // The other forms depend on the login's language.
    case 'datetime':
      return `CONVERT(datetime, ${bound}, 121)`;
    case 'smalldatetime':
      return `CONVERT(smalldatetime, ${bound}, 120)`;
    default:
      return `CAST(${collated} AS ${nativeType})`;
  }
}

/** Types that have an order and can be keys of an index, and whose cells say exactly which value they are. */
export function isOrdered(column: Column): boolean {
  const { type, nativeType } = column;
  return (
    type.kind !== 'opaque' &&
    type.kind !== 'xml' &&
    type.kind !== 'json' &&
    !/\(max\)|^n?text$|^image$/.test(nativeType)
  );
}

/** A column and the value it is compared with, as SQL. */
export interface Operand {
  readonly column: string;
  readonly value: string;
}

/** `(a, b) > (@a, @b)`, which T-SQL has not: written out, with the first column's part in front so that an index is sought by it. */
export function compareTuples(operands: readonly Operand[], operator: '>' | '>=' | '<='): string {
  const direction = operator === '<=' ? '<' : '>';
  const last = operands.length - 1;
  const alternatives = operands.map(({ column, value }, i) => {
    const equal = operands.slice(0, i).map((one) => `${one.column} = ${one.value}`);
    return [...equal, `${column} ${i === last ? operator : direction} ${value}`].join(' AND ');
  });
  const first = operands[0];
  if (!first || last === 0) return alternatives[0] ?? '1 = 1';
  return `${first.column} ${direction}= ${first.value} AND (${alternatives.map((one) => `(${one})`).join(' OR ')})`;
}
