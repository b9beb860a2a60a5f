/** Which mapping is compared when, and what becomes of the result. */
import type { ControlDatabase, Settings } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import { SluiceError } from '../model/errors.ts';
import { verifyRecent } from '../verify/verify-recent.ts';
import type { Fleet } from './fleet.ts';
import type { PlannedMapping } from './planner.ts';

export interface VerificationScheduleOptions {
  readonly control: ControlDatabase;
  readonly fleet: Fleet;
  readonly logger: Logger;
  readonly settings: () => Settings;
}

export class VerificationSchedule {
  readonly #options: VerificationScheduleOptions;
  /** When each mapping is next compared, on performance.now(). */
  readonly #next = new Map<string, number>();

  constructor(options: VerificationScheduleOptions) {
    this.#options = options;
  }

  /** Mappings whose turn has come; the first turn is one interval after the mapping was first seen served. */
  due(mappings: readonly PlannedMapping[]): PlannedMapping[] {
    const interval = this.#options.settings().verification_interval_minutes * 60_000;
    if (interval === 0) return [];
    const now = performance.now();
    const due: PlannedMapping[] = [];
    for (const mapping of mappings) {
      const uid = mapping.row.mappingUid;
      if (!mapping.enabled || mapping.row.state?.state !== 'streaming') {
        this.#next.delete(uid);
        continue;
      }
      const at = this.#next.get(uid);
      // Spread over the interval, so that 2,000 mappings are not compared in one instant.
      if (at === undefined) this.#next.set(uid, now + interval * (0.5 + Math.random() / 2));
      else if (at <= now) {
        due.push(mapping);
        this.#next.set(uid, now + interval);
      }
    }
    return due;
  }

  /** A comparison that could not be made says nothing about the mapping: it is recorded, and made again at its next turn. */
  async failed(mapping: PlannedMapping, error: SluiceError): Promise<void> {
    if (error.code === 'CANCELLED' || error.code === 'FENCED') return;
    const { control, logger } = this.#options;
    const said = new SluiceError(error.code, `${mapping.label}: could not be verified: ${error.message}`, {
      hint: error.hint ?? undefined,
    });
    if (await control.journal.error({ mappingId: mapping.row.mappingId, type: 'VERIFICATION' }, said)) {
      logger.warn('verification was not possible', { mapping: mapping.label, error });
    }
  }

  async verify(mapping: PlannedMapping, signal: AbortSignal): Promise<void> {
    const { control, fleet, logger, settings } = this.#options;
    const startedAt = performance.now();
    const destination = fleet.database(mapping.destination);
    const [state] = (await destination.destination?.copies.states([mapping.row.mappingUid])) ?? [];
    if (!state?.route?.live) return;
    const result = await verifyRecent({
      source: fleet.database(mapping.source),
      destination,
      route: state.route,
      rows: settings().verification_row_count,
      signal,
    });
    await control.journal.verification({
      mappingId: mapping.row.mappingId,
      mappingUid: mapping.row.mappingUid,
      type: 'MD5_COMPARISON',
      status: result.mismatches.length === 0 ? 'PASSED' : 'FAILED',
      sourceMd5: result.sourceMd5,
      destMd5: result.destMd5,
      sourceRows: result.sourceRows,
      destRows: result.destRows,
      compared: result.compared,
      mismatches: result.mismatches.length,
      durationMs: performance.now() - startedAt,
      keys: result.mismatches,
    });
    if (result.mismatches.length === 0) return;
    const error = new SluiceError(
      'VERIFICATION_FAILED',
      `${mapping.label}: ${result.mismatches.length} of ${result.compared} rows differ`,
      {
        hint: 'SELECT * FROM verification_mismatches names their keys; is_full_sync = 1 copies the table again.',
      },
    );
    logger.error('verification failed', { mapping: mapping.label, error });
    await control.journal.error({ mappingId: mapping.row.mappingId, type: 'VERIFICATION' }, error);
  }
}
