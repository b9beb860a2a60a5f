/** Rows that destinations refused: kept by key, counted, and judged against what the mapping allows (DESIGN §7). */
import type { ControlDatabase } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import type { RefusedRow, Sparing } from '../sync/refused-rows.ts';
import type { PlannedMapping } from './planner.ts';

interface Keeper {
  readonly control: ControlDatabase;
  readonly logger: Logger;
}

/**
 * What a copy of the mapping may leave out (`requestId`), or a fold of its changes; `place`: the position that its rows are kept under.
 * Letters that the copy will close when it is through do not count for it.
 */
export function sparingAt(
  keeper: Keeper,
  mapping: PlannedMapping,
  place: string,
  requestId: number | null = null,
): Sparing {
  return {
    limit: mapping.row.maxFailedRows,
    suspects: new Set(),
    record: (rows) => keepRefused(keeper, mapping, place, rows, requestId),
  };
}

/** Durable when it resolves, the same row at the same position once. False: the mapping has more failed rows than it may have. */
export async function keepRefused(
  { control, logger }: Keeper,
  mapping: PlannedMapping,
  position: string,
  rows: readonly RefusedRow[],
  requestId: number | null = null,
): Promise<boolean> {
  const { mappingId, mappingUid, maxFailedRows, keepFailedValues } = mapping.row;
  const made = await control.journal.deadLetters(
    rows.map((row) => ({
      mappingId,
      mappingUid,
      position,
      operation: row.operation,
      key: row.key,
      errorCode: row.reason.code,
      reason: row.reason.message,
      ...(keepFailedValues ? { values: row.values } : {}),
    })),
  );
  if (made > 0) {
    const none = { inserted: 0, updated: 0, deleted: 0, position: null, lastCommitAt: null, lagSeconds: null };
    await control.states.addCounters([{ mappingUid, failed: made, ...none }]);
    logger.warn('the destination refused rows; their keys are in dead_letters', { mapping: mapping.label, rows: made });
  }
  const copy = requestId === null ? null : { requestId, place: position };
  return (await control.journal.countDeadLetters(mappingUid, copy)) <= maxFailedRows;
}
