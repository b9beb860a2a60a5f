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
import type { TableName } from '../model/tables.ts';
import { displayPlace, type Fleet } from './fleet.ts';
import { isServedBy, type PlannedMapping, type PlannedStream } from './planner.ts';

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
export const LOW_HEADROOM_SECONDS = 3600;

interface Reported {
  readonly fault: string | null;
  readonly code: ErrorCode | null;
  readonly lastCapturedAt: number | null;
  readonly headroomSeconds: number | null;
  readonly headroomBytes: number | null;
}

/** What is not worth a write, of what moves all the time. */
const SAME_SECONDS = 60;
const SAME_SHARE = 0.01;

export class StreamWatch {
  readonly #options: StreamWatchOptions;
  /** What was last said of a mapping or stream, so that it is said once. */
  readonly #said = new Map<string, string>();
  /** What stands in stream_health, by stream. */
  readonly #reported = new Map<string, Reported>();
  /** What stands in mapping_state.warning, by mapping. */
  readonly #warned = new Map<string, string | null>();

  constructor(options: StreamWatchOptions) {
    this.#options = options;
  }

  /** Other processes read the other streams now, and write about them. */
  forgetOthers(streams: ReadonlySet<string>): void {
    for (const stream of this.#reported.keys()) if (!streams.has(stream)) this.#reported.delete(stream);
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
      group.mappings.filter((mapping) => isServedBy(mapping, stream.stream)),
    );
    if (served.length === 0) return;
    const health = await changes.health(
      stream.stream,
      served.map((mapping) => mapping.sourceTable),
      at,
    );
    await this.#report(stream, served, health);
    for (const { name, finding } of health.tables) {
      if (finding.severity !== 'error') continue;
      for (const mapping of served) {
        if (!isOf(mapping, name) || !this.#isNews(mapping.row.mappingUid, finding.message)) continue;
        const reason = errorOf(finding, mapping.label);
        if (finding.code === 'GAP') await this.#gap(mapping, reason);
        else await attention(mapping, reason);
      }
    }
    const faulty = health.tables.filter(({ finding }) => finding.severity === 'error');
    for (const mapping of served) {
      if (!faulty.some(({ name }) => isOf(mapping, name))) this.#said.delete(mapping.row.mappingUid);
      await this.#warn(mapping, health);
    }
    this.#headroom(stream, health);
  }

  /** The stream's row of stream_health, when it says something new: an idle source writes nothing (invariant 13). */
  async #report(stream: PlannedStream, served: readonly PlannedMapping[], health: StreamHealth): Promise<void> {
    const { control } = this.#options;
    const { stream: findings = [], lastCapturedAt = null, captureLagSeconds = null, headroomSeconds = null } = health;
    // A gap is told by who reads.
    const fault = findings.find(({ severity, code }) => severity === 'error' && code !== 'GAP') ?? null;
    const now: Reported = {
      // How long a silence lasts is no news.
      fault: fault && `${fault.code} ${fault.message.replace(/\d+/g, '#')}`,
      code: fault?.code ?? null,
      lastCapturedAt,
      headroomSeconds,
      headroomBytes: health.headroomBytes,
    };
    const before = this.#reported.get(stream.stream);
    if (before && !isNew(before, now, health.retainedBytes)) return;
    const code = before ? before.code : await control.streams.faultOf(stream.stream);
    await control.streams.write(stream.stream, {
      captureLagSeconds,
      headroomSeconds,
      headroomBytes: health.headroomBytes,
      fault: fault && errorOf(fault, displayPlace(stream.source)),
    });
    this.#reported.set(stream.stream, now);
    if (fault && before?.fault !== now.fault) await this.#fault(stream, served, fault);
    else if (!fault && code !== null) await this.#recovered(stream, served);
  }

  /** F16: nothing arrives, and nothing will. The mappings keep their state. */
  async #fault(stream: PlannedStream, served: readonly PlannedMapping[], fault: Finding): Promise<void> {
    const { control, logger } = this.#options;
    logger.error('the source captures no changes', {
      stream: stream.stream,
      mapping: served
        .slice(0, 3)
        .map(({ label }) => label)
        .join(', '),
      error: errorOf(fault, stream.stream),
    });
    for (const mapping of served)
      await control.journal.error({ mappingId: mapping.row.mappingId, type: 'CDC' }, errorOf(fault, mapping.label));
  }

  async #recovered(stream: PlannedStream, served: readonly PlannedMapping[]): Promise<void> {
    const { control, logger } = this.#options;
    logger.info('the source captures changes again', { stream: stream.stream });
    for (const mapping of served) await control.journal.resolveErrors({ mappingId: mapping.row.mappingId }, 'CDC');
  }

  /** What somebody may do at the source while changes go on arriving (F14: an instance that can be dropped), until it is done. */
  async #warn(mapping: PlannedMapping, { tables }: StreamHealth): Promise<void> {
    const found = tables.filter(({ name, finding }) => finding.severity === 'warning' && isOf(mapping, name));
    const message = found.length === 0 ? null : found.map(({ finding }) => finding.message).join('; ');
    const uid = mapping.row.mappingUid;
    const before = this.#warned.has(uid) ? this.#warned.get(uid) : (mapping.row.state?.warning ?? null);
    if (before === message) return;
    const hint = found.flatMap(({ finding }) => finding.fixSql).join(' ');
    await this.#options.control.states.change(uid, () => ({ warning: message === null ? null : { message, hint } }));
    this.#warned.set(uid, message);
    if (message !== null)
      this.#options.logger.warn('something is to be done at the source', { mapping: mapping.label, message, hint });
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

function isOf(mapping: PlannedMapping, name: TableName): boolean {
  return mapping.sourceTable.schema === name.schema && mapping.sourceTable.table === name.table;
}

function isNew(before: Reported, now: Reported, retainedBytes: number | null): boolean {
  if (before.fault !== now.fault || before.lastCapturedAt !== now.lastCapturedAt) return true;
  if (isFar(before.headroomSeconds, now.headroomSeconds, SAME_SECONDS)) return true;
  return isFar(before.headroomBytes, now.headroomBytes, SAME_SHARE * ((now.headroomBytes ?? 0) + (retainedBytes ?? 0)));
}

function isFar(a: number | null, b: number | null, distance: number): boolean {
  return a === null || b === null ? a !== b : Math.abs(a - b) > distance;
}
