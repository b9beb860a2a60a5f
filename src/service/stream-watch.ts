/**
 * What a stream does not tell by itself, looked at each cycle in O(streams) round trips: tables that left it, a source that
 * is about to discard what was not read, backlogs of held mappings that outgrow their limit.
 */
import type { ControlDatabase, Settings } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import type { StreamHealth } from '../engines/contract.ts';
import { SluiceError, toSluiceError, type ErrorCode } from '../model/errors.ts';
import type { Finding } from '../model/findings.ts';
import type { Position } from '../model/position.ts';
import type { Fleet } from './fleet.ts';
import type { PlannedMapping, PlannedStream } from './planner.ts';

export interface StreamWatchOptions {
  readonly control: ControlDatabase;
  readonly fleet: Fleet;
  readonly logger: Logger;
  readonly settings: () => Settings;
  /** Never rejects. */
  readonly attention: (mapping: PlannedMapping, reason: SluiceError) => Promise<void>;
}

/** Warn once when less than this part of what the source keeps for us is left. */
const LOW_HEADROOM = 0.2;
/** … or less than an hour, where it is discarded by age. */
const LOW_HEADROOM_SECONDS = 3600;

export class StreamWatch {
  readonly #options: StreamWatchOptions;
  /** What was last said of a mapping or stream, so that it is said once. */
  readonly #said = new Map<string, string>();
  /** What is wrong with a stream's source. */
  readonly #faulty = new Map<string, ErrorCode>();

  constructor(options: StreamWatchOptions) {
    this.#options = options;
  }

  /**
   * Never rejects: a source that does not answer is the stream's own trouble, and it says so. `at`: the lowest position stored, where it
   * is known.
   */
  async look(stream: PlannedStream, at: Position | null = null): Promise<void> {
    await this.#source(stream, at).catch((error: unknown) =>
      this.#options.logger.debug('the source could not be looked at', { error: toSluiceError(error) }),
    );
    for (const group of stream.groups.values()) {
      await this.#backlogs(group.mappings).catch((error: unknown) =>
        this.#options.logger.debug('backlogs could not be looked at', { error: toSluiceError(error) }),
      );
    }
  }

  async #source(stream: PlannedStream, at: Position | null): Promise<void> {
    const { fleet, attention } = this.#options;
    const changes = fleet.database(stream.source).changes;
    if (!changes) return;
    const served = [...stream.groups.values()].flatMap((group) =>
      group.mappings.filter((mapping) => mapping.row.state?.state === 'streaming'),
    );
    if (served.length === 0) return;
    const health = await changes.health(
      stream.stream,
      served.map((mapping) => mapping.sourceTable),
      at,
    );
    await this.#faults(stream, served, health);
    for (const { name, finding } of health.tables) {
      for (const mapping of served) {
        if (mapping.sourceTable.schema !== name.schema || mapping.sourceTable.table !== name.table) continue;
        if (finding.severity === 'info' || !this.#isNews(mapping.row.mappingUid, finding.message)) continue;
        const reason = errorOf(finding, mapping.label);
        if (finding.severity === 'warning') await this.#options.control.states.note([mapping.row.mappingUid], reason);
        else if (finding.code === 'GAP') await this.#gap(mapping, reason);
        else await attention(mapping, reason);
      }
    }
    const found = new Set(health.tables.map(({ name }) => `${name.schema}.${name.table}`));
    for (const mapping of served)
      if (!found.has(`${mapping.sourceTable.schema}.${mapping.sourceTable.table}`))
        this.#said.delete(mapping.row.mappingUid);
    this.#headroom(stream, health);
  }

  /**
   * What is wrong with the source's part of the stream (nobody captures, F16) stands on its mappings until it is over: they keep their
   * state, but nothing arrives. A gap is told by who reads.
   */
  async #faults(stream: PlannedStream, served: readonly PlannedMapping[], { stream: findings = [] }: StreamHealth) {
    const { control, logger } = this.#options;
    const uids = served.map((mapping) => mapping.row.mappingUid);
    const key = `fault ${stream.stream}`;
    const fault = findings.find(({ severity, code }) => severity === 'error' && code !== 'GAP');
    if (fault) {
      const reason = errorOf(fault, stream.stream);
      if (!this.#isNews(key, fault.code)) return;
      logger.error('the source captures no changes', { stream: stream.stream, error: reason });
      await control.states.note(uids, reason);
      this.#faulty.set(stream.stream, fault.code);
      return;
    }
    const before = this.#faulty.get(stream.stream);
    this.#said.delete(key);
    if (before === undefined) return;
    this.#faulty.delete(stream.stream);
    logger.info('the source captures changes again', { stream: stream.stream });
    await control.states.clear(uids, before);
  }

  #headroom(stream: PlannedStream, { retainedBytes, headroomBytes, headroomSeconds = null }: StreamHealth): void {
    const { logger } = this.#options;
    const isLow =
      (headroomBytes !== null && headroomBytes < LOW_HEADROOM * ((retainedBytes ?? 0) + headroomBytes)) ||
      (headroomSeconds !== null && headroomSeconds < LOW_HEADROOM_SECONDS);
    if (!isLow) this.#said.delete(stream.stream);
    else if (this.#isNews(stream.stream, 'low')) {
      logger.warn('the source will soon discard changes that were not read', {
        stream: stream.stream,
        retainedBytes,
        headroomBytes,
        headroomSeconds,
      });
    }
  }

  /** F48: the destination's disk is bounded. */
  async #backlogs(mappings: readonly PlannedMapping[]): Promise<void> {
    const held = mappings.filter((mapping) => ['paused', 'failed'].includes(mapping.row.state?.state ?? ''));
    const [first] = held;
    const copies = first ? this.#options.fleet.database(first.destination).destination?.copies : undefined;
    if (!copies) return;
    const limit = this.#options.settings().backlog_max_bytes;
    for (const state of await copies.states(held.map((mapping) => mapping.row.mappingUid))) {
      const mapping = held.find((candidate) => candidate.row.mappingUid === state.mappingUid);
      if (!mapping || state.route?.backlog !== 'hold' || state.backlogBytes <= limit) continue;
      // Durable first: without its backlog the mapping must never look as if nothing were missing.
      await this.#gap(
        mapping,
        new SluiceError(
          'BACKLOG_FULL',
          `${mapping.label}: the changes kept while it waited grew past backlog_max_bytes (${limit})`,
          {
            hint: `UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = ${mapping.row.mappingId};`,
          },
        ),
      );
      await copies.forget(state.mappingUid);
    }
  }

  async #gap(mapping: PlannedMapping, reason: SluiceError): Promise<void> {
    const { control, attention, logger } = this.#options;
    await control.states.set(mapping.row.mappingUid, 'gap', {
      error: { code: reason.code, message: reason.message, hint: reason.hint },
      retryInSeconds: null,
    });
    await control.journal.error({ mappingId: mapping.row.mappingId, type: 'CDC' }, reason);
    logger.error('changes are missing', { mapping: mapping.label, error: reason });
    await attention(mapping, new SluiceError('GAP', reason.message));
  }

  #isNews(key: string, text: string): boolean {
    if (this.#said.get(key) === text) return false;
    this.#said.set(key, text);
    return true;
  }
}

function errorOf(finding: Finding, label: string): SluiceError {
  return new SluiceError(finding.code, `${label}: ${finding.message}`, {
    hint: finding.fixSql.join('; ') || undefined,
  });
}
