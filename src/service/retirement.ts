/**
 * Streams that nobody reads because their server was disabled: their slots keep the source's log, so that enabling the server
 * again loses nothing, until `hold_max_bytes` or `hold_max_hours`; then the slot goes and their mappings enter `gap` (F46, F47).
 */
import type { ControlDatabase, Owner, Settings } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import { SluiceError, toSluiceError } from '../model/errors.ts';
import { dropStream } from './cleanup.ts';
import type { Fleet } from './fleet.ts';
import type { Plan, PlannedMapping } from './planner.ts';

export interface RetirementOptions {
  readonly control: ControlDatabase;
  readonly fleet: Fleet;
  readonly owner: Owner;
  readonly logger: Logger;
  readonly settings: Settings;
}

export class Retirement {
  /** When each unread stream was first seen so, on performance.now(). A restart begins anew; the limit of bytes does not. */
  readonly #since = new Map<string, number>();

  /** Resolves to whether some stream was retired. */
  async look(plan: Plan, options: RetirementOptions): Promise<boolean> {
    const unread = new Map<string, PlannedMapping[]>();
    for (const mapping of plan.mappings) {
      const state = mapping.row.state;
      if (mapping.stream === null || plan.streams.has(mapping.stream) || state?.stream !== mapping.stream) continue;
      if (state.state === 'gap' || state.state === 'new') continue;
      unread.set(mapping.stream, [...(unread.get(mapping.stream) ?? []), mapping]);
    }
    for (const stream of this.#since.keys()) if (!unread.has(stream)) this.#since.delete(stream);
    let retired = false;
    for (const [stream, mappings] of unread) {
      try {
        retired = (await this.#lookAt(stream, mappings, options)) || retired;
      } catch (error) {
        options.logger.debug('an unread stream could not be looked at', { stream, error: toSluiceError(error) });
      }
    }
    return retired;
  }

  async #lookAt(stream: string, mappings: readonly PlannedMapping[], options: RetirementOptions): Promise<boolean> {
    const { control, fleet, settings } = options;
    const [first] = mappings;
    const changes = first ? fleet.database(first.streamPlace).changes : null;
    if (!first || !changes) return false;
    const since = this.#since.get(stream) ?? performance.now();
    this.#since.set(stream, since);
    const { retainedBytes } = await changes.health(stream, []);
    const hours = (performance.now() - since) / 3_600_000;
    if (hours <= settings.hold_max_hours && (retainedBytes ?? 0) <= settings.hold_max_bytes) return false;
    const reason = new SluiceError(
      'HOLD_EXCEEDED',
      'the server was disabled for longer than hold_max_hours or hold_max_bytes allow, so its log was released',
      {
        hint: "Set is_full_sync = 1 after enabling it, or on_gap = 'resync'.",
      },
    );
    // invariant 5: the gap is durable before the source may forget.
    for (const mapping of mappings) {
      await control.states.set(mapping.row.mappingUid, 'gap', {
        error: { code: reason.code, message: reason.message, hint: reason.hint },
        retryInSeconds: null,
      });
      await control.journal.error({ mappingId: mapping.row.mappingId, type: 'CDC' }, reason);
    }
    await dropStream(stream, first.streamPlace, { ...options, leaseSeconds: settings.lease_seconds });
    return true;
  }
}
