/** A source's table as it was described, against what its server says when it is read. */
import { hasCode, SluiceError } from '../model/errors.ts';
import { displayName, type Column, type Table } from '../model/tables.ts';

/** In the order of `names`. */
export function columnsOf(table: Table, names: readonly string[]): Column[] {
  return names.map((name) => {
    const column = table.columns.find((candidate) => candidate.name === name);
    if (!column) throw new SluiceError('SCHEMA_CHANGED', `${displayName(table.name)} has no column ${name}`);
    return column;
  });
}

/** Engines classify an unknown table for destinations; here it is the source's. */
export function atSource(error: unknown, table: Table): unknown {
  if (!hasCode(error, 'DESTINATION_TABLE_MISSING')) return error;
  return new SluiceError('SOURCE_TABLE_MISSING', `${displayName(table.name)} no longer exists`, { cause: error });
}
