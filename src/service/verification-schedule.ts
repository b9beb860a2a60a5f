/** Which mapping is compared when, and what becomes of the result. */
import { keyText, type ControlDatabase, type Settings } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import type { Cell } from '../model/changes.ts';
import { SluiceError } from '../model/errors.ts';
import { legible } from '../sync/refused-rows.ts';
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

  /** How many of these rows are in dead_letters. */
  async #refusedAmong(mapping: PlannedMapping, keys: readonly (readonly Cell[])[]): Promise<number> {
    // As they are named there.
    const named = keys.map((key) => key.map(legible));
    const refused = await this.#options.control.journal.refusedBefore(mapping.row.mappingUid, named);
    return named.filter((key) => refused.has(keyText(key))).length;
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
      isExplained: async (keys) => (await this.#refusedAmong(mapping, keys)) === keys.length,
    });
    const differing = result.mismatches.length;
    const refused =
      differing === 0
        ? 0
        : await this.#refusedAmong(
            mapping,
            result.mismatches.map(({ key }) => key),
          );
    const details = `${refused === differing ? 'All' : `${refused} of the ${differing}`} differing rows are in dead_letters: the destination refused them.`;
    await control.journal.verification({
      mappingId: mapping.row.mappingId,
      mappingUid: mapping.row.mappingUid,
      type: 'MD5_COMPARISON',
      status: differing === 0 ? 'PASSED' : refused === differing ? 'PARTIAL' : 'FAILED',
      ...(refused > 0 ? { details } : {}),
      sourceMd5: result.sourceMd5,
      destMd5: result.destMd5,
      sourceRows: result.sourceRows,
      destRows: result.destRows,
      compared: result.compared,
      mismatches: differing,
      durationMs: performance.now() - startedAt,
      keys: result.mismatches,
    });
    if (differing === 0) return;
    if (refused === differing) {
      logger.warn('rows differ that the destination refused', { mapping: mapping.label, rows: differing });
      return;
    }
    const error = new SluiceError(
      'VERIFICATION_FAILED',
      `${mapping.label}: ${differing} of ${result.compared} rows differ${refused > 0 ? `; ${refused} of them were refused` : ''}`,
      {
        hint: 'SELECT * FROM verification_mismatches names their keys; is_full_sync = 1 copies the table again.',
      },
    );
    logger.error('verification failed', { mapping: mapping.label, error });
    await control.journal.error({ mappingId: mapping.row.mappingId, type: 'VERIFICATION' }, error);
  }
}
