/**
 * What of a table's declaration means the same in every engine: constants as defaults, and secondary indexes of whole columns. A
 * destination declares them in its own language; what is not of this kind is listed as left out, never dropped in silence.
 */
import type { Column, Constant, Table } from '../model/tables.ts';
import type { LogicalType } from '../model/types.ts';

const NUMBER = /^-?\d+(?:\.\d+)?$/;
const MOMENT = /^\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d(?:\.\d+)?)?$/;

/** The constant as a default of a column of the type; null: it is none. */
export function defaultFor(column: Pick<Column, 'type' | 'constant'>): Constant | null {
  const { type, constant } = column;
  if (!constant) return null;
  if (type.kind === 'boolean') {
    if (constant.kind === 'boolean') return constant;
    const isFlag = constant.kind !== 'now' && (constant.text === '0' || constant.text === '1');
    return isFlag ? { kind: 'boolean', value: constant.text === '1' } : null;
  }
  switch (constant.kind) {
    case 'now':
      return type.kind === 'timestamp' || type.kind === 'timestamptz' ? constant : null;
    case 'boolean':
      return null;
    case 'number':
    case 'text':
      return literalFor(type, constant.text);
  }
}

function literalFor(type: LogicalType, text: string): Constant | null {
  switch (type.kind) {
    case 'int':
    case 'decimal':
    case 'float':
      return NUMBER.test(text) ? { kind: 'number', text } : null;
    case 'text':
    case 'enum':
      return { kind: 'text', text };
    case 'date':
    case 'timestamp':
      return MOMENT.test(text) ? { kind: 'text', text } : null;
    default:
      return null;
  }
}

export interface PlainIndex {
  readonly name: string;
  readonly columns: readonly Column[];
  readonly unique: boolean;
}

/** Secondary indexes that another engine can have too: those of carried columns that order by their values. The rest is listed. */
export function plainIndexes(source: Table, key: readonly string[], leftOut: string[]): PlainIndex[] {
  const found: PlainIndex[] = [];
  const add = (name: string, names: readonly string[], unique: boolean) => {
    const columns = names.flatMap((each) => source.columns.find((one) => one.name === each) ?? []);
    const odd = columns.find((column) => column.generated !== null || !hasOrder(column.type));
    if (columns.length < names.length || odd !== undefined)
      leftOut.push(`index ${name}: ${odd === undefined ? 'of expressions' : `of column ${odd.name}`}`);
    else found.push({ name, columns, unique });
  };
  for (const index of source.indexes)
    if (index.plain) add(index.name, index.columns, index.unique);
    else leftOut.push(`index ${index.name}: written in another engine's language`);
  for (const other of source.keys)
    if (other.usable && !sameColumns(other.columns, key)) add(other.name, other.columns, true);
  return found;
}

/** The names of columns by which two indexes are the same, in whatever order. */
export function sameColumns(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name) => b.includes(name));
}

/** Text that is equal here may differ there, and the other way: by collation, case, blanks. */
export function isCompared(column: Column): boolean {
  return column.type.kind === 'text' || column.type.kind === 'enum';
}

function hasOrder({ kind }: LogicalType): boolean {
  return !['json', 'xml', 'geometry', 'array', 'opaque'].includes(kind);
}
