/**
 * The jobs under way: at most one a mapping, each under the mapping's lease, copies and comparisons limited overall and per
 * source server.
 */
import PQueue from 'p-queue';
import { DEFAULT_SETTINGS, type Settings } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import { SluiceError, toSluiceError } from '../model/errors.ts';
import type { LeaseKeeper } from './lease-keeper.ts';
import type { MappingJobs } from './mapping-jobs.ts';
import type { PlannedMapping } from './planner.ts';
import type { VerificationSchedule } from './verification-schedule.ts';
import type { JobKind } from './wanted-job.ts';

export interface JobBoardOptions {
  readonly runner: MappingJobs;
  readonly verification: VerificationSchedule;
  readonly leases: LeaseKeeper;
  readonly logger: Logger;
  /** The mapping as the control tables say it now; null: it was deleted. */
  readonly mapping: (uid: string) => PlannedMapping | null;
  /** The control tables are worth a look so soon, ms. */
  readonly lookSoon: (ms: number) => void;
}

/** A wake-up storm (500 jobs that end at once) becomes one poll. */
const WAKE_DELAY_MS = 50;
/** What could not begin yet is tried again so soon, ms. */
const AGAIN_MS = 1000;
/** Jobs that are no copies at once: a thousand new mappings must not open a thousand sessions. */
const SHORT_JOBS = 8;

interface Job {
  readonly kind: JobKind;
  /** The hash of the person's row it works by; null while it waits for its turn. */
  readonly begunWith: () => string | null;
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

export class JobBoard {
  readonly #options: JobBoardOptions;
  readonly #jobs = new Map<string, Job>();
  readonly #queue = new PQueue({ concurrency: DEFAULT_SETTINGS.parallel_scheduler_count });
  readonly #shortQueue = new PQueue({ concurrency: SHORT_JOBS });
  readonly #serverQueues = new Map<number, PQueue>();
  #serverConcurrency: number = DEFAULT_SETTINGS.server_parallel_count;
  #draining = false;

  constructor(options: JobBoardOptions) {
    this.#options = options;
  }

  /** Takes effect for jobs that have not begun. */
  limit(settings: Settings): void {
    this.#queue.concurrency = settings.parallel_scheduler_count;
    this.#serverConcurrency = settings.server_parallel_count;
    for (const queue of this.#serverQueues.values()) queue.concurrency = settings.server_parallel_count;
  }

  has(mappingUid: string): boolean {
    return this.#jobs.has(mappingUid);
  }

  /** What a running job was told no longer holds: it ends at its next step, and what is wanted now comes next (F51). */
  endOutdated(): void {
    for (const [uid, job] of this.#jobs) {
      const mapping = this.#options.mapping(uid);
      const begunWith = job.begunWith();
      if (job.kind === 'verify' || begunWith === null) continue;
      if (!mapping) job.abort.abort(new SluiceError('CANCELLED', 'the mapping was deleted'));
      else if (job.kind !== 'pause' && !mapping.enabled)
        job.abort.abort(new SluiceError('CANCELLED', `${mapping.label} was disabled`));
      else if (begunWith !== mapping.row.personHash)
        job.abort.abort(new SluiceError('CANCELLED', `${mapping.label} was changed`));
    }
  }

  /** Ends what runs at its next step and begins nothing more. */
  async drain(): Promise<void> {
    this.#draining = true;
    for (const job of this.#jobs.values()) job.abort.abort(new SluiceError('CANCELLED', 'the service stops'));
    await Promise.all([...this.#jobs.values()].map((job) => job.done));
  }

  /** Nothing happens while the mapping has a job. */
  add(planned: PlannedMapping, kind: JobKind): void {
    if (this.#draining || this.#jobs.has(planned.row.mappingUid)) return;
    const uid = planned.row.mappingUid;
    const abort = new AbortController();
    /** How soon its consequences are looked at, ms; null: at the next poll. */
    let next: number | null = WAKE_DELAY_MS;
    let begunWith: string | null = null;
    const work = async () => {
      // It may have waited long in the queue: as the row is now, not as it was.
      const mapping = this.#options.mapping(uid);
      if (this.#draining || abort.signal.aborted || !mapping) return;
      if (!mapping.enabled && kind !== 'pause') return;
      begunWith = mapping.row.personHash;
      const key = `mapping:${uid}`;
      const taken = await this.#options.leases.take(key, () =>
        abort.abort(new SluiceError('FENCED', 'the lease was lost')),
      );
      if (!taken) {
        // Another process does it, and will for a while.
        next = null;
        return;
      }
      try {
        if (!(await this.#runJob(mapping, kind, abort.signal))) next = AGAIN_MS;
      } finally {
        await this.#options.leases.giveUp(key).catch(() => undefined);
      }
    };
    // Pausing and resuming are short and wanted soon; copies and comparisons wait for their turn.
    const queued =
      kind === 'copy' || kind === 'verify'
        ? this.#serverQueue(planned.row.serverId).add(() => this.#queue.add(work))
        : this.#shortQueue.add(work, { priority: kind === 'pause' ? 1 : 0 });
    const done = Promise.resolve(queued)
      .then(() => undefined)
      .catch(async (error: unknown) => {
        const known = toSluiceError(error);
        if (kind === 'verify') return this.#options.verification.failed(planned, known);
        await this.#options.runner
          .failed(planned, known)
          .catch((again: unknown) => this.#options.logger.error('a failure could not be recorded', { error: again }));
        // A failed copy says in its state when it is tried again; what has no such place must not spin.
        next = kind === 'pause' ? null : AGAIN_MS;
      })
      .finally(() => {
        this.#jobs.delete(uid);
        if (kind !== 'verify' && next !== null) this.#options.lookSoon(next);
      });
    this.#jobs.set(uid, { kind, begunWith: () => begunWith, abort, done });
  }

  /** False: nothing could be done yet. */
  async #runJob(mapping: PlannedMapping, kind: JobKind, signal: AbortSignal): Promise<boolean> {
    const { runner } = this.#options;
    switch (kind) {
      case 'copy':
        return runner.copy(mapping, signal);
      case 'adopt':
        return runner.adopt(mapping, signal);
      case 'pause':
        await runner.pause(mapping);
        return true;
      case 'settle':
        return runner.settle(mapping, signal);
      case 'verify':
        await this.#options.verification.verify(mapping, signal);
        return true;
    }
  }

  #serverQueue(serverId: number): PQueue {
    let queue = this.#serverQueues.get(serverId);
    if (!queue) {
      queue = new PQueue({ concurrency: this.#serverConcurrency });
      this.#serverQueues.set(serverId, queue);
    }
    return queue;
  }
}
