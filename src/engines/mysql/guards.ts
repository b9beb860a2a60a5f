/**
 * What keeps a destination table from being written. Foreign keys neither check nor cascade for our sessions; triggers fire for everyone,
 * so that a table with triggers is not written until they are dropped. Rows of a table outside transactions could not commit with
 * the position (invariant 2).
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type Table } from '../../model/tables.ts';
import { quoteTable } from './sql.ts';

export function dropTriggersSql(target: Table): string[] {
  const { schema } = target.name;
  return target.triggers.map((name) => `DROP TRIGGER ${quoteTable({ schema, table: name })}`);
}

export function makeTransactionalSql(target: Table): string[] {
  return [`ALTER TABLE ${quoteTable(target.name)} ENGINE = InnoDB`];
}

export function requireWritable(table: Table): void {
  if (table.isTransactional === false)
    throw new SluiceError(
      'CAPABILITY_MISSING',
      `${displayName(table.name)} takes no part in transactions, so that its rows cannot commit with the position`,
      { hint: makeTransactionalSql(table).join('; ') },
    );
  if (table.triggers.length > 0)
    throw new SluiceError(
      'DESTINATION_GUARDED',
      `${displayName(table.name)} has triggers (${table.triggers.join(', ')}), which would act on what is written`,
      { hint: dropTriggersSql(table).join('; ') },
    );
}
