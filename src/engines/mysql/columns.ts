/** Columns of a described table, by name, as they are read. */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Column, type Table } from '../../model/tables.ts';
import type { ReadColumn } from './rows.ts';
import { cellForm } from './types.ts';

export function columnsOf(table: Table, names: readonly string[]): Column[] {
  return names.map((name) => {
    const column = table.columns.find((candidate) => candidate.name === name);
    if (!column) throw new SluiceError('SCHEMA_CHANGED', `${displayName(table.name)} has no column ${name}`);
    return column;
  });
}

export function readColumns(columns: readonly Column[]): ReadColumn[] {
  return columns.map((column) => ({ name: column.name, form: cellForm(column.nativeType) }));
}
