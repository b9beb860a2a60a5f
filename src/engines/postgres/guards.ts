/** Triggers and foreign keys of destination tables: kept from firing for our sessions, or the table is not written. */
import { hasCode, SluiceError } from '../../model/errors.ts';
import { displayName, type Table } from '../../model/tables.ts';
import type { Session } from './connection.ts';

/** Triggers and foreign keys do not fire for us, where the login may say so (superuser, or SET on the parameter from 15 on). */
export async function suspendTriggers(session: Session): Promise<boolean> {
  try {
    await suspend(session);
    return true;
  } catch (error) {
    if (error instanceof SluiceError && error.code === 'PERMISSION_DENIED') return false;
    throw error;
  }
}

/**
 * A table with triggers or foreign keys is written only where they do not fire. The right may have been granted, or the trigger
 * made, since the session was opened.
 */
export async function requireUnguarded(table: Table, suspendNow: () => Promise<void>): Promise<void> {
  const guards = [...table.triggers, ...table.foreignKeys, ...table.referencedBy];
  if (guards.length === 0) return;
  try {
    await suspendNow();
  } catch (error) {
    if (!hasCode(error, 'PERMISSION_DENIED')) throw error;
    throw new SluiceError(
      'DESTINATION_GUARDED',
      `${displayName(table.name)} has triggers or foreign keys (${guards.join(', ')}), which this login cannot suspend`,
      {
        hint: 'From PostgreSQL 15 on: GRANT SET ON PARAMETER session_replication_role TO the login of the destination; before, it must be a superuser. Or drop them.',
      },
    );
  }
}

export async function suspend(session: Session): Promise<void> {
  await session.run('suspend triggers', [`SET session_replication_role = replica`]);
}
