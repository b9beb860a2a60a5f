/** Whether a source can be followed, and is still what a position was read from: with the statements that mend what is missing. */
import { SluiceError } from '../../model/errors.ts';
import type { TableName } from '../../model/tables.ts';
import type { SourceState } from './capture-instances.ts';
import { gap } from './captures.ts';
import { displayLsn, isSameHistory, ZERO_LSN, type Place } from './position.ts';
import { quoteIdentifier, quoteLiteral } from './sql.ts';

export const ENABLE_DATABASE = 'EXEC sys.sp_cdc_enable_db;';

/** `user`: the database user of our login. */
export function grantCapture(user: string): string {
  return `GRANT SELECT ON SCHEMA::[cdc] TO ${quoteIdentifier(user)};`;
}

/** Captures every column of the table, without a gating role (we read schema cdc itself). */
export function enableTable(table: TableName, instance: string | null = null): string {
  const named = instance === null ? '' : `, @capture_instance = ${quoteLiteral(instance)}`;
  return (
    `EXEC sys.sp_cdc_enable_table @source_schema = ${quoteLiteral(table.schema)}, @source_name = ${quoteLiteral(table.table)}, ` +
    `@role_name = NULL, @supports_net_changes = 0${named};`
  );
}

/** A table has two capture instances at most. */
export function anotherName(table: TableName, instances: readonly { readonly name: string }[]): string {
  const base = `${table.schema}_${table.table}`;
  for (let n = 2; ; n++) if (!instances.some(({ name }) => name === `${base}_${n}`)) return `${base}_${n}`;
}

export function disableTable(table: TableName, instance: string): string {
  return (
    `EXEC sys.sp_cdc_disable_table @source_schema = ${quoteLiteral(table.schema)}, @source_name = ${quoteLiteral(table.table)}, ` +
    `@capture_instance = ${quoteLiteral(instance)};`
  );
}

/** Throws CDC_NOT_READY or PERMISSION_DENIED. */
export function requireReady(state: SourceState, database: string): void {
  if (!state.isCdcEnabled)
    throw new SluiceError('CDC_NOT_READY', `change data capture is not enabled for database ${database}`, {
      hint: `USE ${quoteIdentifier(database)}; ${ENABLE_DATABASE} Then enable each table; sluice doctor prints the statements.`,
    });
  if (state.isHidden) throw hidden(state);
}

function hidden(state: SourceState): SluiceError {
  return new SluiceError(
    'PERMISSION_DENIED',
    `user ${state.user} may not read schema cdc, where changes are recorded`,
    {
      hint: grantCapture(state.user),
    },
  );
}

/** invariant 5: is the source what `place` was read from, and has it come as far? Throws GAP. */
export function requireHistory(state: SourceState, place: Place): void {
  if (!state.isCdcEnabled)
    throw gap(
      'change data capture was disabled for the database: what was recorded is gone, and what changes now is lost',
    );
  if (state.isHidden) throw hidden(state);
  if (!isSameHistory(state, place))
    throw gap('the source is not the database it was: it was restored, or made anew under the same name');
  if (place.lsn === ZERO_LSN) return;
  if (state.last === null)
    throw gap('the source has recorded nothing, and had before: change data capture was disabled and enabled again');
  // A replica on the same recovery fork may only be behind another one that was read before.
  const isReplica = state.fork !== null && place.fork !== null;
  if (state.last.lsn < place.lsn && !isReplica)
    throw gap(
      `the stored position ${displayLsn(place.lsn)} lies beyond what the source has recorded, ${displayLsn(state.last.lsn)}: ` +
        'it was restored to an earlier point',
    );
}
