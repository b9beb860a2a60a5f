/** Runs a full sync request of one mapping, and says how it went. */
import type { ControlDatabase, MappingStateName } from '../control/index.ts';
import type { EngineDatabase } from '../engines/contract.ts';
import { SluiceError, toSluiceError } from '../model/errors.ts';
import { copyPlace, runFullSync, type FullSyncProgress } from '../sync/full-sync.ts';
import { sparingAt } from './dead-letters.ts';
import type { JobContext } from './job-context.ts';
import type { MappingNotes } from './mapping-notes.ts';
import { checkPlace } from './place.ts';
import type { PlannedMapping } from './planner.ts';

/** How often a running copy asks whether it was cancelled, ms. */
const CANCEL_CHECK_MS = 1000;

export class CopyJob {
  readonly #options: JobContext;
  readonly #notes: MappingNotes;
  /** Destinations of which it was said what slows or endangers writing to them. */
  readonly #told = new WeakSet<EngineDatabase>();

  constructor(options: JobContext, notes: MappingNotes) {
    this.#options = options;
    this.#notes = notes;
  }

  /** Once for each destination: what doctor would warn of. That nobody could be asked, the copy itself will say. */
  async #tellOf(destination: EngineDatabase): Promise<void> {
    if (this.#told.has(destination)) return;
    this.#told.add(destination);
    for (const finding of (await destination.preflight?.destination().catch(() => [])) ?? [])
      if (finding.severity === 'warning')
        this.#options.logger.warn(finding.message, { code: finding.code, fix: finding.fixSql.join(' ') });
  }

  /** Runs the request that is open for the mapping, if any. False: it could not begin yet. */
  async run(mapping: PlannedMapping, signal: AbortSignal): Promise<boolean> {
    const { control, fleet, owner, logger } = this.#options;
    const { mappingUid, mappingId } = mapping.row;
    const claimed = await control.requests.claim(mappingUid, owner.id);
    if (!claimed) return true;
    const { request } = claimed;
    const destination = fleet.database(mapping.destination);
    const startedAt = performance.now();
    const wasServed = isServed(mapping.row.state?.state ?? 'new');
    if (!wasServed) await this.#notes.setState(mapping, 'copying');
    const run = await control.runs.start({
      mappingId,
      syncType: 'FULL_SYNC',
      owner: owner.id,
      requestId: request.requestId,
      phase: 'checking',
    });
    const abort = new AbortController();
    const stop = () => abort.abort(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    const watch = setInterval(() => {
      void control.requests.isRunning(request.requestId).then(
        (running) =>
          running || abort.abort(new SluiceError('CANCELLED', `${mapping.label}: the full sync was cancelled`)),
        () => undefined, // the control database is away: the copy goes on without it
      );
    }, CANCEL_CHECK_MS);
    const pace = new Pace();
    let rows = 0;
    try {
      const finished = claimed.resumed && (await this.#alreadyFinished(mapping, request.requestId));
      if (!finished) {
        await checkPlace(mapping, fleet, this.#options.mapping);
        logger.info('full sync started', {
          mapping: mapping.label,
          request: request.requestId,
          reason: request.reason,
          resumed: claimed.resumed,
        });
        await this.#tellOf(destination);
        const settings = this.#options.settings();
        const result = await runFullSync({
          mappingUid,
          source: fleet.database(mapping.source),
          destination,
          sourceTable: mapping.sourceTable,
          target: mapping.target,
          keyColumns: mapping.row.primaryKey,
          stream: mapping.stream,
          group: mapping.group,
          requestId: request.requestId,
          mayReplace: request.reason !== 'initial',
          drawEpoch: (atLeast) => control.leases.drawEpoch(atLeast),
          chunkBytes: settings.copy_chunk_bytes,
          parallelism: settings.copy_parallelism,
          maxBytesPerSecond: settings.copy_max_bytes_per_second === 0 ? null : settings.copy_max_bytes_per_second,
          lockWaitMs: settings.lease_seconds * 1000,
          backlogMaxBytes: settings.backlog_max_bytes,
          signal: abort.signal,
          streamFailure: () => (mapping.stream === null ? null : this.#options.streamFailure(mapping.stream)),
          sparing: (place) => sparingAt(this.#options, mapping, place, request.requestId),
          progress: (progress) => {
            rows = progress.rows;
            run.progress(pace.of(progress)).catch(() => undefined);
          },
          findings: (findings) => this.#notes.findings(mapping, findings),
          sourceObjects: (objects) => this.#notes.sourceObjects(mapping, objects),
        });
        if (!result) {
          await run.progress({ phase: 'waiting' });
          return false;
        }
        rows = result.rows;
      }
      await control.journal.closeDeadLetters(mappingUid, request.requestId, copyPlace(request.requestId));
      await control.requests.finish(request.requestId, { outcome: 'completed', rowsCopied: rows });
      await run.finish('COMPLETED', { recordsProcessed: rows, phase: 'done' });
      await this.#served(mapping, wasServed);
      await control.journal.resolveErrors({ mappingId });
      const durationMs = performance.now() - startedAt;
      await control.journal.log([
        {
          mappingId,
          level: 'INFO',
          message: `${mapping.label}: full sync completed`,
          syncType: 'FULL_SYNC',
          records: rows,
          durationMs,
        },
      ]);
      logger.info('full sync completed', { mapping: mapping.label, rows, seconds: Math.round(durationMs / 100) / 10 });
    } catch (error) {
      await this.#copyFailed(mapping, request.requestId, toSluiceError(error), run, signal);
    } finally {
      clearInterval(watch);
      signal.removeEventListener('abort', stop);
    }
    return true;
  }

  /** The table is served, unless its group met a gap in the moment since: then that is what counts. */
  async #served(mapping: PlannedMapping, wasServed: boolean): Promise<void> {
    if (mapping.stream === null) return this.#notes.setState(mapping, 'idle');
    const [state] =
      (await this.#options.fleet.database(mapping.destination).destination?.copies.states([mapping.row.mappingUid])) ??
      [];
    if (!state?.route?.live) return;
    if (!wasServed) await this.#notes.setState(mapping, 'copying');
    await this.#notes.setState(mapping, 'streaming');
  }

  /** F66: the swap committed, and the process died before the request was finished: no second copy. */
  async #alreadyFinished(mapping: PlannedMapping, requestId: number): Promise<boolean> {
    const destination = this.#options.fleet.database(mapping.destination).destination;
    if (!destination) return false;
    await destination.prepare();
    const [state] = await destination.copies.states([mapping.row.mappingUid]);
    return state?.finishedRequest === requestId;
  }

  async #copyFailed(
    mapping: PlannedMapping,
    requestId: number,
    error: SluiceError,
    run: { finish(status: 'ERROR' | 'PAUSED', final?: { error?: { code: string; message: string } }): Promise<void> },
    signal: AbortSignal,
  ): Promise<void> {
    const { control, fleet, logger, settings } = this.#options;
    const { mappingUid } = mapping.row;
    // Shutdown, or a newer copier: the request stays open for whoever goes on.
    if (signal.aborted || error.code === 'FENCED') {
      await run.finish('PAUSED');
      return;
    }
    const copies = fleet.database(mapping.destination).destination?.copies;
    const details = { error: { code: error.code, message: error.message, hint: error.hint } };
    if (error.code === 'CANCELLED') {
      const isDisabled = !(await control.requests.list({ mappingUid, open: true })).every(
        (request) => request.requestId !== requestId,
      );
      await run.finish('PAUSED', { error: { code: error.code, message: error.message } });
      logger.info(isDisabled ? 'full sync paused' : 'full sync cancelled', {
        mapping: mapping.label,
        request: requestId,
      });
      if (isDisabled) return; // goes on when the mapping is enabled again
      await copies?.abandon(mappingUid);
      await control.states.change(mappingUid, (now) =>
        isServed(now) ? {} : { ...details, retryInSeconds: null, state: 'failed' },
      );
      return;
    }
    const isNew = await this.#notes.error(mapping, error);
    if (isNew) logger.error('full sync failed', { mapping: mapping.label, error });
    await run.finish('ERROR', { error: { code: error.code, message: error.message } });
    const attempts = (mapping.row.state?.attempts ?? 0) + 1;
    const retries = error.retry === 'backoff' && attempts <= settings().max_retry_attempts;
    if (!retries) {
      if (error.code === 'BACKLOG_FULL') await copies?.abandon(mappingUid);
      await control.requests.finish(requestId, {
        outcome: 'failed',
        errorCode: error.code,
        errorMessage: error.message,
      });
    }
    const { retry_delay_seconds, failed_retry_minutes } = settings();
    const delay = retries ? retry_delay_seconds : null;
    const noted = { ...details, attempts: retries ? attempts : 0 };
    // A table that is served goes on being served; whether it still is, its stream may have decided meanwhile.
    await control.states.change(mappingUid, (now) =>
      isServed(now)
        ? { ...noted, retryInSeconds: delay }
        : { ...noted, retryInSeconds: delay ?? failed_retry_minutes * 60, state: 'failed' },
    );
  }
}

/** Its rows are at the destination and kept up to date, whatever a copy that runs besides comes to. */
function isServed(state: MappingStateName): boolean {
  return state === 'streaming' || state === 'idle';
}

/** Rate and time left, from when copying began. */
class Pace {
  #startedAt: number | null = null;

  of(progress: FullSyncProgress): Parameters<Awaited<ReturnType<ControlDatabase['runs']['start']>>['progress']>[0] {
    if (progress.phase === 'copying') this.#startedAt ??= performance.now();
    const seconds = this.#startedAt === null ? 0 : (performance.now() - this.#startedAt) / 1000;
    const rate = seconds > 0.5 ? progress.rows / seconds : null;
    const left =
      rate && progress.rowsEstimated !== null
        ? Math.max(0, Math.round((progress.rowsEstimated - progress.rows) / rate))
        : null;
    return {
      recordsProcessed: progress.rows,
      rowsEstimated: progress.rowsEstimated,
      rowsPerSecond: rate === null ? null : Math.round(rate),
      secondsLeft: progress.phase === 'copying' ? left : null,
      phase:
        progress.chunks > 0 && progress.phase === 'copying'
          ? `copying ${progress.chunksDone}/${progress.chunks}`
          : progress.phase,
    };
  }
}
