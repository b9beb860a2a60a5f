/**
 * The source's trigger column: a row that sets it to 1 asks for a full sync. The request is durable before the column is
 * reset, and counts only once the reset has committed (DESIGN §3).
 */
import type { ControlDatabase } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import { failpoint } from '../model/failpoint.ts';
import { hasCode, SluiceError } from '../model/errors.ts';
import type { Fleet } from './fleet.ts';
import type { PlannedMapping } from './planner.ts';

export class TriggerColumns {
  readonly #control: ControlDatabase;
  readonly #fleet: Fleet;
  readonly #logger: Logger;
  /** Mappings that were polled since their stream began here: from then on it shows every flip. */
  readonly #polled = new Set<string>();
  #polledAt = -Infinity;

  constructor(control: ControlDatabase, fleet: Fleet, logger: Logger) {
    this.#control = control;
    this.#fleet = fleet;
    this.#logger = logger;
  }

  /** A stream begins here: its former owner may have died between the commit that carried a flip and the request (F53). */
  streamBegins(): void {
    this.#polled.clear();
    this.#polledAt = -Infinity;
  }

  /** A row's flag was seen in the change stream, or by polling. Resolves to whether a request was made. */
  async flipped(mapping: PlannedMapping): Promise<boolean> {
    try {
      return await this.#request(mapping);
    } catch (error) {
      // The stream does not show it again.
      this.#polled.delete(mapping.row.mappingUid);
      throw error;
    }
  }

  async #request(mapping: PlannedMapping): Promise<boolean> {
    const column = mapping.row.triggerColumn;
    // After a denied reset the column stays 1: it counts again only after a 0 was seen.
    if (column === null || mapping.row.state?.triggerSeenZero === false) return false;
    // Poll and stream show the same flip, and a successor's stream one that its request has served. The column is reset only
    // once the request is durable: where it is no longer set, the flip has its request (F53, F66).
    const triggers = this.#fleet.database(mapping.source).triggers;
    const [isSet = false] = (await triggers?.flipped([{ name: mapping.sourceTable, column }])) ?? [];
    if (!isSet) return false;
    const { mappingId, mappingUid } = mapping.row;
    const { requestId } = await this.#control.requests.create({
      mappingId,
      mappingUid,
      reason: 'trigger',
      confirmed: false,
    });
    await failpoint('request.created');
    await this.settle(mapping, requestId);
    return true;
  }

  /** Resets the column of a request that is not confirmed yet, and confirms it. Also for requests a killed process left. */
  async settle(mapping: PlannedMapping, requestId: number): Promise<void> {
    const { mappingId, mappingUid, triggerColumn } = mapping.row;
    const triggers = this.#fleet.database(mapping.source).triggers;
    if (triggerColumn === null || !triggers) return;
    try {
      await triggers.reset(mapping.sourceTable, triggerColumn);
      await failpoint('trigger.reset');
    } catch (error) {
      if (!hasCode(error, 'TRIGGER_RESET_DENIED')) throw error;
      const denied = new SluiceError(error.code, `${mapping.label}: ${error.message}`, {
        hint: error.hint ?? undefined,
      });
      const isNew = await this.#control.journal.error({ mappingId, type: 'SYNC' }, denied);
      if (isNew) this.#logger.error('the trigger column cannot be reset', { mapping: mapping.label, error: denied });
      await this.#control.states.change(mappingUid, () => ({ triggerSeenZero: false }));
    }
    await this.#control.requests.confirm(requestId);
    this.#logger.info('full sync requested by the trigger column', { mapping: mapping.label, request: requestId });
  }

  /** One round trip per source database, at most every `intervalMs`: mappings whose stream does not show the column. */
  async poll(mappings: readonly PlannedMapping[], intervalMs: number): Promise<number> {
    if (performance.now() - this.#polledAt < intervalMs) return 0;
    this.#polledAt = performance.now();
    const byDatabase = new Map<string, PlannedMapping[]>();
    for (const mapping of mappings) {
      if (!mapping.enabled || mapping.row.triggerColumn === null) continue;
      const isWatched = mapping.row.state?.state === 'streaming' && mapping.row.state.triggerSeenZero;
      if (isWatched && this.#polled.has(mapping.row.mappingUid)) continue;
      const key = `${mapping.row.serverId}/${mapping.source.database}`;
      byDatabase.set(key, [...(byDatabase.get(key) ?? []), mapping]);
    }
    let made = 0;
    for (const group of byDatabase.values()) {
      const [first] = group;
      const triggers = first ? this.#fleet.database(first.source).triggers : null;
      if (!triggers) continue;
      const flags = await triggers.flipped(
        group.map((mapping) => ({ name: mapping.sourceTable, column: mapping.row.triggerColumn ?? '' })),
      );
      for (const [i, mapping] of group.entries()) {
        this.#polled.add(mapping.row.mappingUid);
        if (flags[i]) made += (await this.flipped(mapping)) ? 1 : 0;
        else if (mapping.row.state?.triggerSeenZero === false) {
          await this.#control.states.change(mapping.row.mappingUid, () => ({ triggerSeenZero: true }));
        }
      }
    }
    return made;
  }
}
