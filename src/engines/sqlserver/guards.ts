/**
 * Triggers and foreign keys of destination tables. There is no session here for which they do not fire: a table that has
 * enabled ones is not written until its owner has disabled them (docs/decisions, triggers and foreign keys on SQL Server).
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

export function disableGuardsSql(target: Table): string[] {
  const table = quoteTable(target.name);
  return [
    ...target.triggers.map((name) => `ALTER TABLE ${table} DISABLE TRIGGER ${quoteIdentifier(name)}`),
    ...target.foreignKeys.map((name) => `ALTER TABLE ${table} NOCHECK CONSTRAINT ${quoteIdentifier(name)}`),
    ...target.referencedBy.map((path) => {
      const { table: other, constraint } = referring(path);
      return `ALTER TABLE ${quoteTable(other)} NOCHECK CONSTRAINT ${quoteIdentifier(constraint)}`;
    }),
  ];
}

/** `schema.table.constraint`, as the catalog says who refers to a table. */
function referring(path: string): { table: TableName; constraint: string } {
  const first = path.indexOf('.');
  const last = path.lastIndexOf('.');
  return {
    table: { schema: path.slice(0, first), table: path.slice(first + 1, last) },
    constraint: path.slice(last + 1),
  };
}

export function requireUnguarded(table: Table): void {
  const guards = [...table.triggers, ...table.foreignKeys, ...table.referencedBy];
  if (guards.length === 0) return;
  throw new SluiceError(
    'DESTINATION_GUARDED',
    `${displayName(table.name)} has enabled triggers or foreign keys (${guards.join(', ')}), which would act on what is written`,
    { hint: disableGuardsSql(table).join('; ') },
  );
}
