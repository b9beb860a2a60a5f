/**
 * The service: polls the control tables, runs the streams whose leases it holds, and queues copies and other jobs. `run` is
 * its life; `stop` drains. Several processes may share one control database; any of them may die or freeze at any instant.
 */
import {
  DEFAULT_SETTINGS,
  resolveSecrets,
  thisProcess,
  type ControlDatabase,
  type MappingStateRow,
  type PlanRows,
  type ServerRow,
  type Settings,
} from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import { hasCode, toSluiceError, type SluiceError } from '../model/errors.ts';
import type { ColumnsChanged } from '../sync/follow-columns.ts';
import type { StreamSettings } from '../sync/stream.ts';
import { cleanUp } from './cleanup.ts';
import { checkServer, Fleet, type ResolvedServer, type StreamPlace } from './fleet.ts';
import { JobBoard } from './job-board.ts';
import { LeaseKeeper } from './lease-keeper.ts';
import { MappingJobs } from './mapping-jobs.ts';
import { plan, type Plan, type PlannedMapping, type PlannedStream } from './planner.ts';
import { leaseKey, StreamHost } from './stream-host.ts';
import { ProblemReports } from './problem-reports.ts';
import { Retirement } from './retirement.ts';
import { StreamWatch } from './stream-watch.ts';
import { TriggerColumns } from './trigger-columns.ts';
import { VerificationSchedule } from './verification-schedule.ts';
import { wantedJob } from './wanted-job.ts';

export interface ServiceOptions {
  readonly control: ControlDatabase;
  /** Where `dest_server_id` NULL points: the server of the control database, secrets resolved. */
  readonly controlServerUrl: string;
  readonly logger: Logger;
}

/** How long `stop` waits for work in hand, ms. */
const DRAIN_MS = 20_000;
const RETENTION_INTERVAL_MS = 60 * 60 * 1000;
const DISPLAY_INTERVAL_MS = 60 * 1000;
/** When what could not be undone is tried again. */
const CLEAN_UP_AGAIN_MS = 30_000;
/** A wake-up storm (500 jobs that end at once) becomes one poll. */
const WAKE_DELAY_MS = 50;
/** A poll that reads thousands of mappings takes long: whatever wakes it, the next waits for a multiple of that. */
const REST_PER_POLL = 4;
const MAX_REST_MS = 2000;

export class Service {
  readonly #options: ServiceOptions;
  readonly #control: ControlDatabase;
  readonly #logger: Logger;
  readonly #owner = thisProcess();
  readonly #leases: LeaseKeeper;
  readonly #streams = new Map<string, { host: StreamHost; done: Promise<void> }>();
  #jobs: JobBoard | null = null;
  #fleet: Fleet | null = null;
  #jobsRunner: MappingJobs | null = null;
  #triggers: TriggerColumns | null = null;
  readonly #knownSources = new Map<number, ResolvedServer>();
  readonly #retirement = new Retirement();
  #watch: StreamWatch | null = null;
  #verification: VerificationSchedule | null = null;
  #settings: Settings = DEFAULT_SETTINGS;
  #installationUid = '';
  #plan: Plan | null = null;
  #rows: PlanRows | null = null;
  /** On performance.now(). */
  #rowsReadAt = 0;
  #configFingerprint: string | null = null;
  readonly #problems: ProblemReports;
  #stopping = false;
  #wake: (() => void) | null = null;
  #look = false;
  /** On performance.now(). */
  #restUntil = 0;
  #isAway = false;
  #watchedAt = -Infinity;
  #retentionAt = -Infinity;
  #displayAt = performance.now();

  constructor(options: ServiceOptions) {
    this.#options = options;
    this.#control = options.control;
    this.#logger = options.logger;
    this.#problems = new ProblemReports(options.control, options.logger);
    this.#leases = new LeaseKeeper(this.#control, this.#owner, () => this.#settings.lease_seconds);
  }

  async run(): Promise<void> {
    this.#logger.info('service started', { owner: this.#owner.id, pid: process.pid });
    this.#leases.start();
    try {
      while (!this.#stopping) {
        const begun = performance.now();
        try {
          await this.#cycle();
          if (this.#isAway) this.#logger.info('the control database is back');
          this.#isAway = false;
        } catch (error) {
          const known = toSluiceError(error);
          if (known.code === 'CONTROL_TOO_NEW') throw known;
          // Said once: streams and copies go on without it (F55).
          if (known.code !== 'CONTROL_UNREACHABLE') this.#logger.error('a poll failed', { error: known });
          else if (!this.#isAway)
            this.#logger.error('the control database does not answer; waiting for it', { error: known });
          this.#isAway ||= known.code === 'CONTROL_UNREACHABLE';
        }
        this.#restUntil = performance.now() + Math.min((performance.now() - begun) * REST_PER_POLL, MAX_REST_MS);
        await this.#sleep(this.#isAway ? 1000 : this.#settings.cdc_check_interval_seconds * 1000);
      }
    } finally {
      await this.#drain();
    }
  }

  /** Ends `run` after the work in hand, at the latest after 20 s. */
  stop(): void {
    this.#stopping = true;
    this.#wake?.();
  }

  async #cycle(): Promise<void> {
    if (!this.#fleet) await this.#begin();
    const isLook = this.#look || this.#retryIsDue();
    this.#look = false;
    const answer = await this.#control.readPlanRows(isLook ? null : (this.#rows?.fingerprint ?? null));
    if (answer.configFingerprint !== this.#configFingerprint) await this.#readSettings(answer.configFingerprint);
    if (!('unchanged' in answer)) await this.#replan(answer);
    await this.#startStreams();
    await this.#watchStreams();
    this.#startJobs();
    await this.#pollTriggers();
    this.#startVerifications();
    await this.#housekeeping();
  }

  async #begin(): Promise<void> {
    const installation = await this.#control.installation();
    this.#installationUid = installation.uid;
    this.#fleet = new Fleet(installation);
    const { control, logger } = this.#options;
    this.#jobsRunner = new MappingJobs({
      control,
      fleet: this.#fleet,
      owner: this.#owner,
      logger,
      settings: () => this.#settings,
      streamFailure: (stream) => this.#streams.get(stream)?.host.failure ?? null,
      isPlanned: (stream) => this.#plan?.mappings.some((mapping) => mapping.stream === stream) ?? true,
      mapping: (uid) => this.#mapping(uid),
    });
    this.#triggers = new TriggerColumns(control, this.#fleet, logger);
    this.#watch = new StreamWatch({
      control,
      fleet: this.#fleet,
      logger,
      settings: () => this.#settings,
      attention: (mapping, reason) => this.#attention(mapping, reason),
    });
    this.#verification = new VerificationSchedule({
      control,
      fleet: this.#fleet,
      logger,
      settings: () => this.#settings,
    });
    this.#jobs = new JobBoard({
      runner: this.#jobsRunner,
      verification: this.#verification,
      leases: this.#leases,
      logger,
      mapping: (uid) => this.#mapping(uid),
      lookSoon: (ms) => this.#lookSoon(ms),
    });
  }

  async #readSettings(fingerprint: string): Promise<void> {
    const { settings, problems } = await this.#control.readSettings();
    this.#settings = settings;
    this.#configFingerprint = fingerprint;
    this.#jobs?.limit(settings);
    await this.#problems.settings(problems);
  }

  /** The control tables changed: what they ask for now. */
  async #replan(rows: PlanRows): Promise<void> {
    const flags = await this.#control.requests.fromFlags();
    const made = await this.#control.states.ensure();
    if (flags.mappings.length > 0 || flags.cancelled.length > 0 || made > 0) {
      const again = await this.#control.readPlanRows(null);
      if (!('unchanged' in again)) rows = again;
    }
    this.#rows = rows;
    this.#rowsReadAt = performance.now();
    const sources = await resolveAll(rows.sources);
    const destinations = await resolveAll(rows.destinations);
    for (const [id, server] of sources) if (!server.error) this.#knownSources.set(id, server);
    this.#plan = plan({
      installationUid: this.#installationUid,
      sources,
      destinations,
      controlServer: this.#controlServer(),
      mappings: rows.mappings,
      invalid: rows.invalid,
    });
    await this.#problems.plan(this.#plan, sources, destinations);
    for (const [name, { host }] of this.#streams) {
      const wanted = this.#plan.streams.get(name);
      if (wanted) host.update(wanted);
      else await this.#stopStream(name);
    }
    const places = this.#plan.mappings.flatMap((one): StreamPlace[] => [one.source, one.streamPlace, one.destination]);
    await this.#fleet?.keep(places);
    if (this.#fleet) {
      const isClean = await cleanUp(this.#plan, {
        control: this.#control,
        fleet: this.#fleet,
        owner: this.#owner,
        logger: this.#logger,
        // A server deleted together with its mappings is still cleaned up by whoever knew it.
        sources: this.#knownSources,
        destinations,
        controlServer: this.#controlServer(),
        leaseSeconds: this.#settings.lease_seconds,
      });
      // Nothing else may ever change.
      if (!isClean) this.#lookSoon(CLEAN_UP_AGAIN_MS);
    }
    this.#jobs?.endOutdated();
  }

  async #startStreams(): Promise<void> {
    const missing = new Set<string>();
    for (const stream of this.#plan?.streams.values() ?? []) {
      if (this.#stopping || this.#streams.has(stream.stream)) continue;
      const taken = await this.#leases.take(leaseKey(stream.stream), () => {
        this.#logger.warn('the lease of a change stream was lost to another process', {
          stream: stream.stream,
        });
        void this.#stopStream(stream.stream);
      });
      if (taken) this.#startStream(stream);
      else missing.add(leaseKey(stream.stream));
    }
    if (missing.size > 0) await this.#wakeAtExpiry(missing);
  }

  /** Somebody else holds these leases: if they have died, we look the moment the first one expires, not an interval later. */
  async #wakeAtExpiry(keys: ReadonlySet<string>): Promise<void> {
    const expiries = (await this.#control.leases.list())
      .filter((lease) => keys.has(lease.key))
      .map((lease) => lease.expiresAt.getTime() - Date.now());
    const soonest = Math.min(...expiries);
    if (!Number.isFinite(soonest)) return;
    setTimeout(() => this.#wake?.(), Math.max(soonest, 0) + WAKE_DELAY_MS).unref();
  }

  /** Once per interval, whatever woke the poll. */
  async #watchStreams(): Promise<void> {
    if (performance.now() - this.#watchedAt < this.#settings.cdc_check_interval_seconds * 900) return;
    this.#watchedAt = performance.now();
    const owned = [...(this.#plan?.streams.values() ?? [])].filter((stream) => this.#streams.has(stream.stream));
    this.#watch?.forgetOthers(new Set(owned.map(({ stream }) => stream)));
    await Promise.all(
      owned.map(async (stream) =>
        this.#watch?.look(stream, this.#streams.get(stream.stream)?.host.acknowledged ?? null),
      ),
    );
  }

  #startStream(stream: PlannedStream): void {
    if (!this.#fleet) return;
    this.#triggers?.streamBegins();
    const host = new StreamHost(
      {
        control: this.#control,
        fleet: this.#fleet,
        owner: this.#owner,
        logger: this.#logger.child({ stream: stream.stream.split('/').slice(1).join('/') }),
        settings: () => this.#streamSettings(),
        isOwner: () => this.#leases.holds(leaseKey(stream.stream)),
        attention: (mapping, reason) => this.#attention(mapping, reason),
        columnsChanged: (mapping, change) => this.#columnsChanged(mapping, change),
        flipped: (mapping) => this.#flipped(mapping),
        lookSoon: () => this.#lookSoon(),
      },
      stream,
    );
    const done = host
      .run()
      .catch((error: unknown) => this.#logger.error('change stream ended', { error }))
      .finally(async () => {
        this.#streams.delete(stream.stream);
        await this.#leases.giveUp(leaseKey(stream.stream)).catch(() => undefined);
      });
    this.#streams.set(stream.stream, { host, done });
  }

  async #stopStream(name: string): Promise<void> {
    const entry = this.#streams.get(name);
    await entry?.host.stop();
    await entry?.done;
  }

  #startJobs(): void {
    for (const mapping of this.#plan?.mappings ?? []) {
      if (this.#stopping || this.#jobs?.has(mapping.row.mappingUid)) continue;
      const kind = wantedJob(mapping, (state) => this.#isDue(state));
      if (kind) this.#jobs?.add(mapping, kind);
    }
  }

  /** A stream has something to say about a mapping: recorded at once, acted upon at the next look. */
  async #attention(mapping: PlannedMapping, reason: SluiceError): Promise<void> {
    try {
      if (reason.code !== 'GAP' && reason.code !== 'HOLD_EXCEEDED') await this.#jobsRunner?.failed(mapping, reason);
      this.#lookSoon();
    } catch (error) {
      this.#logger.error('an event of a stream could not be recorded', { error });
    }
  }

  async #columnsChanged(mapping: PlannedMapping, change: ColumnsChanged): Promise<void> {
    await this.#jobsRunner?.columnsChanged(mapping, change);
    if (change.error) this.#lookSoon();
  }

  #flipped(mapping: PlannedMapping): void {
    const current = this.#mapping(mapping.row.mappingUid) ?? mapping;
    void this.#triggers
      ?.flipped(current)
      .then((made) => made && this.#lookSoon())
      .catch((error: unknown) =>
        this.#logger.warn('the trigger column was not reset yet; it is tried again', { mapping: mapping.label, error }),
      );
  }

  async #pollTriggers(): Promise<void> {
    const mappings = this.#plan?.mappings ?? [];
    for (const mapping of mappings) {
      const { queued } = mapping.row;
      if (mapping.enabled && queued && !queued.confirmed) {
        await this.#triggers
          ?.settle(mapping, queued.requestId)
          .then(() => this.#lookSoon())
          .catch((error: unknown) => this.#logger.warn('the trigger column was not reset yet', { error }));
      }
    }
    const made = await this.#triggers
      ?.poll(mappings, this.#settings.trigger_poll_seconds * 1000)
      .catch((error: unknown) => {
        this.#logger.warn('trigger columns could not be read', { error: toSluiceError(error) });
        return 0;
      });
    if (made) this.#lookSoon();
  }

  #startVerifications(): void {
    for (const mapping of this.#verification?.due(this.#plan?.mappings ?? []) ?? []) {
      if (!this.#stopping) this.#jobs?.add(mapping, 'verify');
    }
  }

  async #housekeeping(): Promise<void> {
    if (performance.now() - this.#displayAt > DISPLAY_INTERVAL_MS) {
      this.#displayAt = performance.now();
      await this.#control.states.refreshDisplay();
      await this.#retireUnread();
    }
    if (performance.now() - this.#retentionAt < RETENTION_INTERVAL_MS) return;
    this.#retentionAt = performance.now();
    await this.#control.purge({
      logDays: this.#settings.log_retention_days,
      deadLetterDays: this.#settings.dead_letter_retention_days,
    });
  }

  /** Slots of disabled servers hold the source's log: within limits they wait, past them they go (F47). */
  async #retireUnread(): Promise<void> {
    if (!this.#plan || !this.#fleet) return;
    const done = await this.#retirement.look(this.#plan, {
      control: this.#control,
      fleet: this.#fleet,
      owner: this.#owner,
      logger: this.#logger,
      settings: this.#settings,
    });
    if (done) this.#lookSoon();
  }

  #mapping(uid: string): PlannedMapping | null {
    return this.#plan?.mappings.find((mapping) => mapping.row.mappingUid === uid) ?? null;
  }

  #controlServer(): ResolvedServer {
    return checkServer({
      serverId: null,
      name: 'control server',
      enabled: true,
      connectionString: this.#options.controlServerUrl,
    });
  }

  #streamSettings(): StreamSettings {
    const settings = this.#settings;
    return {
      batchRows: settings.batch_size,
      batchMaxBytes: settings.batch_max_bytes,
      leaseMs: settings.lease_seconds * 1000,
      idleMs: settings.cdc_check_interval_seconds * 1000,
      pollMs: settings.cdc_check_interval_seconds * 1000,
      retryAttempts: settings.max_retry_attempts,
      retryDelayMs: settings.retry_delay_seconds * 1000,
      holdMaxBytes: settings.hold_max_bytes,
      holdMaxMs: settings.hold_max_hours * 3_600_000,
    };
  }

  /** A retry's time is told by the control database's clock, and how long that is by our monotonic one: a clock that is set changes nothing (F56). */
  #retryIsDue(): boolean {
    return this.#rows?.mappings.some(({ state }) => state?.retryInMs != null && this.#isDue(state)) ?? false;
  }

  #isDue(state: MappingStateRow): boolean {
    return state.retryInMs !== null && this.#rowsReadAt + state.retryInMs <= performance.now();
  }

  #lookSoon(ms = WAKE_DELAY_MS): void {
    setTimeout(() => {
      this.#look = true;
      this.#wake?.();
    }, ms).unref();
  }

  async #sleep(ms: number): Promise<void> {
    if (this.#stopping) return;
    if (!this.#look) await this.#wait(ms);
    while (!this.#stopping && performance.now() < this.#restUntil)
      await this.#wait(this.#restUntil - performance.now());
  }

  /** Until `#wake` is called, at most. */
  async #wait(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = null;
  }

  async #drain(): Promise<void> {
    this.#logger.info('stopping');
    const all = Promise.all([...[...this.#streams.keys()].map((name) => this.#stopStream(name)), this.#jobs?.drain()]);
    const limit = new Promise((resolve) => setTimeout(resolve, DRAIN_MS).unref());
    await Promise.race([all, limit]);
    await this.#leases.stop();
    await this.#fleet?.close();
    this.#logger.info('stopped');
  }
}

async function resolveAll(servers: ReadonlyMap<number, ServerRow>): Promise<Map<number, ResolvedServer>> {
  const resolved = new Map<number, ResolvedServer>();
  for (const [id, row] of servers) {
    const server = { serverId: row.serverId, name: row.name, enabled: row.enabled };
    try {
      resolved.set(id, checkServer({ ...server, connectionString: await resolveSecrets(row.connectionString) }));
    } catch (error) {
      resolved.set(id, { ...server, connectionString: '', error: hasCode(error) ? error : toSluiceError(error) });
    }
  }
  return resolved;
}
