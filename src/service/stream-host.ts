/**
 * Runs one change stream while this process holds its lease: starts it, restarts it with backoff, and tells the control
 * tables what happens. The stream itself (src/sync/stream.ts) knows nothing of control tables.
 */
import type { ControlDatabase, CounterRow, Owner, Run } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import { hasCode, SluiceError, toSluiceError, type ErrorCode } from '../model/errors.ts';
import type { ApplyCounts, EngineDatabase } from '../engines/contract.ts';
import type { Position } from '../model/position.ts';
import type { ColumnsChanged } from '../sync/follow-columns.ts';
import { Stream, type GroupSpec, type StreamSettings } from '../sync/stream.ts';
import { keepRefused } from './dead-letters.ts';
import type { Fleet } from './fleet.ts';
import { isServedBy, type PlannedMapping, type PlannedStream } from './planner.ts';

export interface StreamHostOptions {
  readonly control: ControlDatabase;
  readonly fleet: Fleet;
  readonly owner: Owner;
  readonly logger: Logger;
  readonly settings: () => StreamSettings;
  /** The stream's lease is ours now. */
  readonly isOwner: () => boolean;
  /** A mapping needs a look before the next poll: it was held, or is in gap. */
  /** Never rejects. */
  readonly attention: (mapping: PlannedMapping, reason: SluiceError) => Promise<void>;
  /** The source's columns changed; durable when it resolves. */
  readonly columnsChanged: (mapping: PlannedMapping, change: ColumnsChanged) => Promise<void>;
  /** The mapping's trigger column was set to 1. */
  readonly flipped: (mapping: PlannedMapping) => void;
  /** Some mapping's time to be tried again has come. */
  readonly lookSoon: () => void;
}

/** What keeps a copy from its source as it keeps the stream. */
const OF_THE_SOURCE: readonly ErrorCode[] = [
  'LOGIN_FAILED',
  'SERVER_UNREACHABLE',
  'DATABASE_MISSING',
  'TLS_FAILED',
  'CONNECTION_LOST',
  'SERVER_BUSY',
  'TIMEOUT',
  'CDC_NOT_READY',
  'CDC_SLOTS_EXHAUSTED',
  'CDC_IN_USE',
];

interface Totals {
  inserted: number;
  updated: number;
  deleted: number;
  committedAt: number | null;
  position: Position | null;
}

const FLUSH_MS = 1000;
const RESYNC_HINT = "Set is_full_sync = 1 to copy the table again, or on_gap = 'resync' to have that done by itself.";
const MAX_BACKOFF_MS = 60_000;

export class StreamHost {
  readonly #options: StreamHostOptions;
  #plan: PlannedStream;
  #stream: Stream | null = null;
  #stopped = false;
  #failure: SluiceError | null = null;
  /** It has committed since it was started, or failed. */
  #isRunning = false;
  #wake: () => void = () => undefined;
  readonly #totals = new Map<string, Totals>();
  readonly #runs = new Map<string, { run: Run; records: number }>();
  #flushing: Promise<void> = Promise.resolve();

  constructor(options: StreamHostOptions, plan: PlannedStream) {
    this.#options = options;
    this.#plan = plan;
  }

  /** Why it does not run now. */
  get failure(): SluiceError | null {
    return this.#failure;
  }

  /** The lowest position that is stored everywhere; null: not known. */
  get acknowledged(): Position | null {
    return this.#stream?.status().acknowledged ?? null;
  }

  get name(): string {
    return this.#plan.stream;
  }

  /** A new plan for the same stream: read between pieces. */
  update(plan: PlannedStream): void {
    this.#plan = plan;
  }

  /** The stream's life under this process: ends when stopped or when somebody newer owns it. */
  async run(): Promise<void> {
    const { logger } = this.#options;
    const timer = setInterval(() => void this.#flush(), FLUSH_MS);
    let backoff = 1000;
    try {
      while (!this.#stopped) {
        const startedAt = performance.now();
        // While the control database is away nobody else can have taken it: what runs goes on, what begins waits.
        if (!this.#options.isOwner()) {
          await this.#pause(1000);
          continue;
        }
        try {
          await this.#reconcile();
          this.#stream = this.#make();
          if (!this.#failure) logger.info('change stream started', { owner: this.#options.owner.id });
          await this.#stream.run();
        } catch (error) {
          const known = toSluiceError(error);
          if (known.code === 'FENCED') {
            logger.warn('change stream has a newer owner', { error: known });
            return;
          }
          if (performance.now() - startedAt > MAX_BACKOFF_MS) backoff = 1000;
          await this.#failed(known);
          await this.#pause(backoff * (0.75 + Math.random() / 2));
          backoff = Math.min(MAX_BACKOFF_MS, backoff * 2);
        }
      }
    } finally {
      clearInterval(timer);
      await this.#flush();
      await this.#endRuns();
    }
  }

  /** Ends after the piece in hand. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wake();
    await this.#stream?.stop();
  }

  #make(): Stream {
    const { control, fleet, owner, logger } = this.#options;
    const { engine, changes: source, catalog, snapshot } = fleet.database(this.#plan.source);
    if (!source)
      throw new SluiceError('CAPABILITY_MISSING', `${engine.name} has no change stream`, {
        hint: 'Set cdc_enabled = 0.',
      });
    if (!snapshot)
      throw new SluiceError(
        'CAPABILITY_MISSING',
        `no rows can be read from ${engine.name}, so that values which changes leave out could not be fetched`,
      );
    return new Stream({
      stream: this.name,
      source,
      catalog,
      snapshot,
      groups: () => this.#groups(),
      schemas: () => this.#schemas(),
      isAwaited: () => this.#hasCopies(),
      settings: this.#options.settings,
      drawEpoch: (atLeast) => control.leases.drawEpoch(atLeast, { key: leaseKey(this.name), owner }),
      events: {
        committed: (_groupId, position, committedAt, counts) => this.#committed(position, committedAt, counts),
        held: (uid, error) => this.#held(uid, error),
        triggerColumn: (uid) => this.#mapping(uid)?.row.triggerColumn ?? null,
        flipped: (uid) => {
          const mapping = this.#mapping(uid);
          if (mapping) this.#options.flipped(mapping);
        },
        failedRowsAllowed: (uid) => this.#mapping(uid)?.row.maxFailedRows ?? 0,
        refused: async (uid, position, rows) => {
          const mapping = this.#mapping(uid);
          return mapping !== null && keepRefused(this.#options, mapping, position, rows);
        },
        columnsChanged: async (uid, change) => {
          const mapping = this.#mapping(uid);
          if (mapping) await this.#options.columnsChanged(mapping, change);
        },
        gap: (groupIds, reason) => this.#gap(groupIds, reason),
        mappingGap: async (uid, reason) => {
          const mapping = this.#mapping(uid);
          if (!mapping) return;
          logger.error('changes are missing', { mapping: mapping.label, error: reason });
          await this.#mappingGap(mapping, reason);
        },
        away: (groupId, reason) => {
          logger.error('a destination is away; its changes wait at the source', { group: groupId, error: reason });
          for (const mapping of this.#plan.groups.get(groupId)?.mappings.slice(0, 1) ?? [])
            void this.#journal(mapping, reason);
        },
        back: (groupId) => logger.info('the destination is back', { group: groupId }),
        undone: (groupId, reason) =>
          logger.info('a large transaction met with trouble while it was read; it is read again', {
            group: groupId,
            reason,
          }),
        objects: async (objects) => {
          for (const object of objects) {
            await control.sourceObjects.upsert({
              serverId: this.#plan.source.server.serverId ?? 0,
              database: this.#plan.source.database ?? '',
              kind: object.kind,
              name: object.name,
              mappingUid: null,
              stream: this.name,
              dropSql: object.dropSql,
            });
          }
        },
      },
    });
  }

  /**
   * What the control tables believe against what the destinations say: a destination that was restored, or lost, no longer has
   * what was copied (F19). A destination that is away is looked at by the stream itself.
   */
  async #reconcile(): Promise<void> {
    const { fleet } = this.#options;
    for (const group of this.#plan.groups.values()) {
      const served = group.mappings.filter((mapping) => isServedBy(mapping, this.name));
      const destination = fleet.database(group.destination).destination;
      if (served.length === 0 || !destination) continue;
      try {
        await destination.prepare();
        const states = new Map(
          (await destination.copies.states(served.map(uidOf))).map((state) => [state.mappingUid, state]),
        );
        for (const mapping of served) {
          const route = states.get(mapping.row.mappingUid)?.route;
          if (route?.live) continue;
          // Held, but not noted as such: the process died in between.
          if (route?.backlog === 'hold')
            await this.#options.attention(
              mapping,
              new SluiceError('INTERNAL', `${mapping.label}: its changes are held`),
            );
          else
            await this.#mappingGap(
              mapping,
              new SluiceError(
                'GAP',
                `${mapping.label}: the destination no longer knows what was copied: it was restored or made anew`,
                { hint: RESYNC_HINT },
              ),
            );
        }
      } catch (error) {
        this.#options.logger.debug('a destination could not be looked at', { group: group.id, error });
      }
    }
  }

  #groups(): GroupSpec[] {
    return [...this.#plan.groups.values()].flatMap((group) => {
      const handle: EngineDatabase = this.#options.fleet.database(group.destination);
      return handle.destination ? [{ id: group.id, group: group.group, destination: handle.destination }] : [];
    });
  }

  #schemas(): string[] {
    return [...this.#plan.groups.values()].flatMap((group) =>
      group.mappings.map((mapping) => mapping.sourceTable.schema),
    );
  }

  /** A full sync is open: it waits for the group's row, and its folds for positions. */
  #hasCopies(): boolean {
    for (const group of this.#plan.groups.values()) {
      if (group.mappings.some(({ enabled, row }) => enabled && (row.running ?? row.queued) !== null)) return true;
    }
    return false;
  }

  #mapping(uid: string): PlannedMapping | null {
    for (const group of this.#plan.groups.values()) {
      const found = group.mappings.find((mapping) => mapping.row.mappingUid === uid);
      if (found) return found;
    }
    return null;
  }

  #committed(position: Position, committedAt: number | null, counts: ReadonlyMap<string, ApplyCounts>): void {
    if (!this.#isRunning) {
      this.#isRunning = true;
      const failure = this.#failure;
      this.#failure = null;
      void this.#goesOn(failure);
    }
    for (const [uid, each] of counts) {
      const sum = this.#totals.get(uid) ?? { inserted: 0, updated: 0, deleted: 0, committedAt: null, position: null };
      this.#totals.set(uid, {
        inserted: sum.inserted + each.inserted,
        updated: sum.updated + each.updated,
        deleted: sum.deleted + each.deleted,
        committedAt: committedAt ?? sum.committedAt,
        position,
      });
    }
  }

  /** Counters and sync_status rows, at most once a second, only for mappings that changed (invariant 13). */
  #flush(): Promise<void> {
    this.#flushing = this.#flushing.then(async () => {
      if (this.#totals.size === 0) return;
      const taken = [...this.#totals];
      this.#totals.clear();
      try {
        const source = this.#options.fleet.database(this.#plan.source).changes;
        const rows = taken.map(([mappingUid, sum]): CounterRow => ({
          mappingUid,
          inserted: sum.inserted,
          updated: sum.updated,
          deleted: sum.deleted,
          failed: 0,
          position: sum.position === null ? null : (source?.display(sum.position) ?? sum.position),
          lastCommitAt: sum.committedAt,
          lagSeconds: sum.committedAt === null ? null : Math.max(0, (Date.now() - sum.committedAt) / 1000),
        }));
        await this.#options.control.states.addCounters(rows);
        for (const [uid, sum] of taken) await this.#countRun(uid, sum.inserted + sum.updated + sum.deleted);
      } catch (error) {
        // The control database is away: totals are for people; the rows themselves are safe where they belong.
        for (const [uid, sum] of taken) this.#totals.set(uid, merge(this.#totals.get(uid), sum));
        this.#options.logger.debug('status was not written', { error });
      }
    });
    return this.#flushing;
  }

  /** One sync_status row per mapping and ownership, made at its first change. */
  async #countRun(uid: string, records: number): Promise<void> {
    const mapping = this.#mapping(uid);
    if (!mapping) return;
    let entry = this.#runs.get(uid);
    if (!entry) {
      const run = await this.#options.control.runs.start({
        mappingId: mapping.row.mappingId,
        syncType: 'CDC',
        owner: this.#options.owner.id,
        phase: 'streaming',
      });
      entry = { run, records: 0 };
      this.#runs.set(uid, entry);
    }
    entry.records += records;
    await entry.run.progress({ recordsProcessed: entry.records });
  }

  async #endRuns(): Promise<void> {
    for (const { run, records } of this.#runs.values())
      await run.finish('COMPLETED', { recordsProcessed: records }).catch(() => undefined);
    this.#runs.clear();
  }

  async #held(uid: string, error: SluiceError): Promise<void> {
    const mapping = this.#mapping(uid);
    if (!mapping) return;
    await this.#options.attention(mapping, error);
  }

  async #gap(groupIds: readonly string[], reason: SluiceError): Promise<void> {
    const { logger } = this.#options;
    logger.error('changes are missing', { groups: groupIds.join(' '), error: reason });
    for (const id of groupIds) {
      for (const mapping of this.#plan.groups.get(id)?.mappings ?? []) await this.#mappingGap(mapping, reason);
    }
  }

  /** The source records nothing: whatever is followed, or copied at this moment, will lack what changes until it does (invariant 5). */
  async #changesLost(error: SluiceError): Promise<void> {
    const { fleet, logger } = this.#options;
    const reason = new SluiceError('GAP', `${error.message}: what has changed since is lost`, {
      hint: [error.hint, RESYNC_HINT].filter((each) => each !== null).join(' '),
    });
    for (const group of this.#plan.groups.values()) {
      const copies = fleet.database(group.destination).destination?.copies;
      try {
        for (const { mappingUid, route } of (await copies?.states(group.mappings.map(uidOf))) ?? []) {
          const mapping = this.#mapping(mappingUid);
          if (!mapping || !route) continue;
          if (route.live || route.backlog === 'hold') await this.#mappingGap(mapping, reason);
          await copies?.forget(mappingUid);
        }
      } catch (unknown) {
        logger.debug('a destination could not be looked at', { group: group.id, error: unknown });
        await this.#gap([group.id], reason);
      }
    }
  }

  async #mappingGap(mapping: PlannedMapping, reason: SluiceError): Promise<void> {
    const { code, message, hint } = reason;
    // By its state now: since the plan was made, a copy may have ended and the mapping be served.
    const isNew = await this.#options.control.states.change(mapping.row.mappingUid, (now) =>
      now === 'new' || now === 'idle' || now === 'gap'
        ? {}
        : { state: 'gap', error: { code, message, hint }, retryInSeconds: null },
    );
    if (!isNew) return;
    await this.#journal(mapping, reason);
    await this.#options.attention(mapping, reason);
  }

  async #failed(error: SluiceError): Promise<void> {
    const { control, logger } = this.#options;
    const isNew = this.#failure?.code !== error.code || this.#failure.message !== error.message;
    this.#failure = error;
    this.#isRunning = false;
    // Not the mappings' fault: they keep their state, and each shows why nothing arrives. Others learn it from their own copy.
    const served = this.#served();
    const names = served.slice(0, 3).map((mapping) => mapping.label);
    const mapping = served.length > 3 ? [...names, `and ${served.length - 3} more`] : names;
    logger[isNew ? 'error' : 'debug']('change stream failed; it is tried again', {
      ...(mapping.length > 0 ? { mapping: mapping.join(', ') } : {}),
      error,
    });
    await control.states.note(served.map(uidOf), error).catch(() => undefined);
    for (const each of served) await this.#journal(each, error);
    if (hasCode(error, 'GAP')) await this.#gap([...this.#plan.groups.keys()], error);
    if (error.losesChanges) await this.#changesLost(error);
  }

  /** The first commit, or the first after a failure: whoever failed as the stream did need not wait for `failed_retry_minutes`. */
  async #goesOn(failure: SluiceError | null): Promise<void> {
    const { control, logger, lookSoon } = this.#options;
    if (failure) await this.#recovered(failure);
    const uids = [...this.#plan.groups.values()].flatMap(({ mappings }) => mappings.map(uidOf));
    try {
      const reasons = failure ? [...OF_THE_SOURCE, failure.code] : OF_THE_SOURCE;
      if ((await control.states.retryNow(uids, reasons)) > 0) lookSoon();
    } catch (error) {
      logger.debug('mappings that failed are tried again later', { error });
    }
  }

  /** What was said of the failure is taken back. */
  async #recovered(failure: SluiceError): Promise<void> {
    const { control, logger } = this.#options;
    logger.info('the change stream is back');
    const served = this.#served();
    try {
      await control.states.clear(served.map(uidOf), failure.code);
      for (const each of served) await control.journal.resolveErrors({ mappingId: each.row.mappingId }, 'CDC');
    } catch (error) {
      logger.debug('the recovery was not written', { error });
    }
  }

  #served(): PlannedMapping[] {
    return [...this.#plan.groups.values()].flatMap((group) =>
      group.mappings.filter((mapping) => isServedBy(mapping, this.name)),
    );
  }

  async #journal(mapping: PlannedMapping, error: SluiceError): Promise<void> {
    await this.#options.control.journal
      .error(
        { mappingId: mapping.row.mappingId, type: 'CDC' },
        new SluiceError(error.code, `${mapping.label}: ${error.message}`, { hint: error.hint ?? undefined }),
      )
      .catch(() => undefined);
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (this.#stopped) this.#wake();
    });
  }
}

function uidOf(mapping: PlannedMapping): string {
  return mapping.row.mappingUid;
}

export function leaseKey(stream: string): string {
  return `stream:${stream}`;
}

function merge(a: Totals | undefined, b: Totals): Totals {
  if (!a) return b;
  return {
    inserted: a.inserted + b.inserted,
    updated: a.updated + b.updated,
    deleted: a.deleted + b.deleted,
    committedAt: a.committedAt ?? b.committedAt,
    position: a.position ?? b.position,
  };
}
