/**
 * What is done for one mapping at a time, under its lease: copy, adopt, pause, settle. Each job may die at any instant: the
 * destination's generation row and the control tables' request say how far it came, and the next holder of the lease goes on.
 */
import type { ControlDatabase, MappingStateName, Owner, Settings } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import { hasCode, SluiceError, toSluiceError } from '../model/errors.ts';
import type { Route } from '../engines/contract.ts';
import type { Finding } from '../model/findings.ts';
import type { TableName } from '../model/tables.ts';
import type { ColumnsChanged } from '../sync/group-writer.ts';
import { checkMapping } from '../sync/check-mapping.ts';
import { runFullSync, type FullSyncProgress } from '../sync/full-sync.ts';
import { runHeldFold } from '../sync/held-fold.ts';
import { keepRefused } from './dead-letters.ts';
import type { Fleet } from './fleet.ts';
import type { PlannedMapping } from './planner.ts';

export interface MappingJobsOptions {
  readonly control: ControlDatabase;
  readonly fleet: Fleet;
  readonly owner: Owner;
  readonly logger: Logger;
  readonly settings: () => Settings;
  /** Why a change stream of this process does not run now; null: it does, or is another's. */
  readonly streamFailure: (stream: string) => SluiceError | null;
  /** A mapping of the plan, by its uid. */
  readonly mapping: (uid: string) => PlannedMapping | null;
}

/** How often a running copy asks whether it was cancelled, ms. */
const CANCEL_CHECK_MS = 1000;

export class MappingJobs {
  readonly #options: MappingJobsOptions;

  constructor(options: MappingJobsOptions) {
    this.#options = options;
  }

  /** Runs the request that is open for the mapping, if any. False: it could not begin yet. */
  async copy(mapping: PlannedMapping, signal: AbortSignal): Promise<boolean> {
    const { control, fleet, owner, logger } = this.#options;
    const { mappingUid, mappingId } = mapping.row;
    const claimed = await control.requests.claim(mappingUid, owner.id);
    if (!claimed) return true;
    const { request } = claimed;
    const destination = fleet.database(mapping.destination);
    const startedAt = performance.now();
    const before = mapping.row.state?.state ?? 'new';
    const isServed = before === 'streaming' || before === 'idle';
    if (!isServed) await this.#setState(mapping, 'copying');
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
      const finished = await this.#alreadyFinished(mapping, request.requestId);
      if (!finished) {
        await this.#checkPlace(mapping);
        logger.info('full sync started', {
          mapping: mapping.label,
          request: request.requestId,
          reason: request.reason,
          resumed: claimed.resumed,
        });
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
          progress: (progress) => {
            rows = progress.rows;
            run.progress(pace.of(progress)).catch(() => undefined);
          },
          findings: (findings) => this.#logFindings(mapping, findings),
          sourceObjects: (objects) => this.#recordObjects(mapping, objects),
        });
        if (!result) {
          await run.progress({ phase: 'waiting' });
          return false;
        }
        rows = result.rows;
      }
      await control.requests.finish(request.requestId, { outcome: 'completed', rowsCopied: rows });
      await run.finish('COMPLETED', { recordsProcessed: rows, phase: 'done' });
      await this.#served(mapping, isServed);
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
      await this.#copyFailed(mapping, request.requestId, isServed, toSluiceError(error), run, signal);
    } finally {
      clearInterval(watch);
      signal.removeEventListener('abort', stop);
    }
    return true;
  }

  /** `initial_sync = 'none'`: the table is taken as it is, changes are followed from now on. False: it could not begin yet. */
  async adopt(mapping: PlannedMapping): Promise<boolean> {
    const { control, fleet, logger, settings } = this.#options;
    const source = fleet.database(mapping.source);
    const destination = fleet.database(mapping.destination);
    if (!destination.destination)
      throw new SluiceError('CAPABILITY_MISSING', `${mapping.label}: the destination cannot be written`);
    await destination.destination.prepare();
    await this.#checkPlace(mapping);
    const { table, live, check } = await checkMapping({
      source,
      destination,
      sourceTable: mapping.sourceTable,
      target: mapping.target,
      keyColumns: mapping.row.primaryKey,
      stream: mapping.stream,
      findings: (findings) => this.#logFindings(mapping, findings),
    });
    if (!live) {
      throw new SluiceError(
        'DESTINATION_TABLE_MISSING',
        `${mapping.label}: initial_sync = 'none', but the destination has no such table`,
        {
          hint: `UPDATE table_mappings SET initial_sync = 'copy' WHERE mapping_id = ${mapping.row.mappingId};`,
        },
      );
    }
    const [state] = await destination.destination.copies.states([mapping.row.mappingUid]);
    const adopted = await destination.destination.copies.adopt({
      stream: mapping.stream,
      group: mapping.group,
      mappingUid: mapping.row.mappingUid,
      copyEpoch: await control.leases.drawEpoch(state?.copyEpoch ?? 0),
      requestId: 0,
      source: table,
      key: check.key,
      columns: check.columns,
      design: destination.destination.design(table, mapping.target, check.key),
      target: mapping.target,
      live,
      lockWaitMs: settings().lease_seconds * 1000,
    });
    // No position row yet: the stream's owner makes it; it is tried again.
    if (!adopted) {
      const failure = mapping.stream === null ? null : this.#options.streamFailure(mapping.stream);
      if (failure) throw failure;
      return false;
    }
    if (mapping.stream !== null && source.changes) {
      const { objects } = await source.changes.include(mapping.stream, table, check.key);
      await this.#recordObjects(mapping, objects);
    }
    await this.#setState(mapping, mapping.stream === null ? 'idle' : 'streaming');
    logger.info('table adopted', { mapping: mapping.label });
    return true;
  }

  /** Disabled: changes go to a backlog from now on (PROTOCOL, Changes). */
  async pause(mapping: PlannedMapping): Promise<void> {
    const { fleet, logger, settings } = this.#options;
    if (mapping.stream !== null && mapping.row.state?.state !== 'new') {
      await fleet
        .database(mapping.destination)
        .destination?.copies.hold(mapping.row.mappingUid, settings().lease_seconds * 1000);
    }
    await this.#setState(mapping, 'paused');
    logger.info('mapping paused', { mapping: mapping.label });
  }

  /** Enabled again, or tried again after a failure: whatever the destination says is missing is done. False: nothing was. */
  async settle(mapping: PlannedMapping, signal: AbortSignal): Promise<boolean> {
    const { control, fleet, logger, settings } = this.#options;
    const { mappingUid, mappingId } = mapping.row;
    const destination = fleet.database(mapping.destination);
    const copies = destination.destination?.copies;
    if (!copies) throw new SluiceError('CAPABILITY_MISSING', `${mapping.label}: the destination cannot be written`);
    await destination.destination?.prepare();
    const [state] = await copies.states([mappingUid]);
    if (await this.#leftBehind(mapping, state?.route ?? null)) return true;
    if (state?.route?.backlog === 'hold') {
      if (state.backlogBytes > settings().backlog_max_bytes) {
        await copies.forget(mappingUid);
        throw new SluiceError(
          'BACKLOG_FULL',
          `${mapping.label}: the changes kept while it waited grew past backlog_max_bytes`,
          {
            hint: `UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = ${mappingId};`,
          },
        );
      }
      const { needsCopy } = await runHeldFold({
        source: fleet.database(mapping.source),
        destination,
        mappingUid,
        drawEpoch: (atLeast) => control.leases.drawEpoch(atLeast),
        lockWaitMs: settings().lease_seconds * 1000,
        signal,
        sparing: (place) => ({
          limit: mapping.row.maxFailedRows,
          record: (rows) => keepRefused(this.#options, mapping, place, rows),
        }),
      });
      if (needsCopy) {
        await this.columnsChanged(mapping, { added: [], dropped: [], error: needsCopy });
        return true;
      }
      await this.#resumed(mapping, 'streaming');
      logger.info('mapping resumed', { mapping: mapping.label });
      return true;
    } else if (state?.route?.live || (mapping.stream === null && state?.liveGeneration != null)) {
      await this.#resumed(mapping, mapping.stream === null ? 'idle' : 'streaming');
      return true;
    }
    if (mapping.row.running ?? mapping.row.queued) {
      if (mapping.row.state?.personHash === mapping.row.personHash) return false;
      await this.#setState(mapping, mapping.row.state?.state ?? 'new');
      return true;
    }
    if (mapping.row.state?.state === 'gap') {
      await control.requests.create({ mappingId, mappingUid, reason: 'gap' });
      return true;
    }
    if (state?.finishedRequest != null && mapping.row.state?.state !== 'failed') {
      // It was served once, and what happened since is in no backlog.
      const gap = new SluiceError('GAP', `${mapping.label}: changes made while it was disabled were not kept`, {
        hint: `UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = ${mappingId};`,
      });
      await control.states.set(mappingUid, 'gap', { error: { code: gap.code, message: gap.message, hint: gap.hint } });
      return true;
    }
    await control.requests.create({
      mappingId,
      mappingUid,
      reason: state?.finishedRequest == null ? 'initial' : 'gap',
    });
    return true;
  }

  /**
   * The person pointed the mapping elsewhere, or regrouped it: what was copied stays where it is, by itself, and the mapping
   * starts anew. Another group of the same table, or another key, may replace the rows; another table must be empty.
   */
  async #leftBehind(mapping: PlannedMapping, route: Route | null): Promise<boolean> {
    const { control, fleet } = this.#options;
    const { mappingId, mappingUid, state } = mapping.row;
    // Never placed: there is nothing to leave.
    if (!state || state.destDatabase === null) return false;
    const isElsewhere =
      state.destServerId !== mapping.row.destServerId ||
      state.destDatabase !== mapping.destination.database ||
      (route !== null && !sameTable(route.target, mapping.target));
    const isOther =
      isElsewhere ||
      state.stream !== mapping.stream ||
      state.applyGroup !== mapping.group ||
      (route !== null &&
        (!sameTable(route.source, mapping.sourceTable) || !sameKey(route.key, mapping.row.primaryKey)));
    if (!isOther) return false;
    if (state.destServerId === mapping.row.destServerId && state.destDatabase !== null) {
      await fleet
        .database({ server: mapping.destination.server, database: state.destDatabase })
        .destination?.copies.forget(mappingUid);
    }
    await control.requests.cancel(mappingUid);
    await control.requests.create({ mappingId, mappingUid, reason: isElsewhere ? 'initial' : 'schema_change' });
    await this.#setState(mapping, 'new');
    return true;
  }

  async #resumed(mapping: PlannedMapping, state: MappingStateName): Promise<void> {
    await this.#setState(mapping, state, { error: null, attempts: 0, retryInSeconds: null });
    await this.#options.control.journal.resolveErrors({ mappingId: mapping.row.mappingId });
  }

  /** The source's columns changed: what was followed is told, what was not is asked for. */
  async columnsChanged(mapping: PlannedMapping, change: ColumnsChanged): Promise<void> {
    const { control, logger } = this.#options;
    const { mappingId, mappingUid } = mapping.row;
    const lines: { level: 'INFO' | 'WARNING'; message: string; errorCode?: string }[] = [];
    if (change.added.length > 0)
      lines.push({ level: 'INFO', message: `columns added in place: ${change.added.join(', ')}` });
    if (change.dropped.length > 0)
      lines.push({
        level: 'WARNING',
        message: `columns dropped at the source, kept at the destination and no longer written: ${change.dropped.join(', ')}`,
      });
    if (change.error) {
      await control.requests.create({ mappingId, mappingUid, reason: 'schema_change' });
      lines.push({
        level: 'WARNING',
        message: `${change.error.message}; a full sync was requested`,
        errorCode: change.error.code,
      });
    }
    for (const line of lines) logger.info(line.message, { mapping: mapping.label });
    await control.journal.log(
      lines.map((line) => ({ mappingId, ...line, message: `${mapping.label}: ${line.message}` })),
    );
  }

  /** A job failed before it could say so itself. */
  async failed(mapping: PlannedMapping, thrown: SluiceError): Promise<void> {
    const { control, logger, settings } = this.#options;
    if (thrown.code === 'FENCED' || thrown.code === 'CONTROL_UNREACHABLE') return;
    const error = thrown.code === 'ROW_REFUSED' ? await this.#explained(mapping, thrown) : thrown;
    const attempts = (mapping.row.state?.attempts ?? 0) + 1;
    const retries = error.retry === 'backoff' && attempts <= settings().max_retry_attempts;
    const isNew = await this.#journal(mapping, error);
    if (isNew) logger.error('mapping failed', { mapping: mapping.label, error });
    const isGap = hasCode(error, 'GAP', 'BACKLOG_FULL');
    const retryInSeconds = retries ? settings().retry_delay_seconds : settings().failed_retry_minutes * 60;
    await control.states.set(mapping.row.mappingUid, isGap ? 'gap' : 'failed', {
      error: { code: error.code, message: error.message, hint: error.hint },
      attempts,
      // Nothing but a copy mends a gap, and `on_gap` says who asks for it.
      retryInSeconds: isGap ? null : retryInSeconds,
      personHash: mapping.row.personHash,
    });
  }

  /** Why a row was refused, if the tables' declarations say so: with the statement that helps. */
  async #explained(mapping: PlannedMapping, refused: SluiceError): Promise<SluiceError> {
    const { fleet } = this.#options;
    try {
      await checkMapping({
        source: fleet.database(mapping.source),
        destination: fleet.database(mapping.destination),
        sourceTable: mapping.sourceTable,
        target: mapping.target,
        keyColumns: mapping.row.primaryKey,
        stream: mapping.stream,
        findings: (findings) => this.#logFindings(mapping, findings),
        mayAdd: true,
      });
      return refused;
    } catch (error) {
      return hasCode(error, 'SCHEMA_MISMATCH') ? error : refused;
    }
  }

  /** The table is served, unless its group met a gap in the moment since: then that is what counts. */
  async #served(mapping: PlannedMapping, wasServed: boolean): Promise<void> {
    if (mapping.stream === null) return this.#setState(mapping, 'idle');
    const [state] =
      (await this.#options.fleet.database(mapping.destination).destination?.copies.states([mapping.row.mappingUid])) ??
      [];
    if (!state?.route?.live) return;
    if (!wasServed) await this.#setState(mapping, 'copying');
    await this.#setState(mapping, 'streaming');
  }

  /**
   * F54, where the planner's look at connection strings does not reach: one server has many names. Asked of the databases
   * themselves before anything is written.
   */
  async #checkPlace(mapping: PlannedMapping): Promise<void> {
    const { fleet } = this.#options;
    const source = fleet.database(mapping.source);
    const destination = fleet.database(mapping.destination);
    const hint = 'Set dest_database, dest_schema or dest_table to another place.';
    if (source.engine === destination.engine && sameTable(mapping.sourceTable, mapping.target)) {
      const here = await source.destination?.identity();
      if (here !== undefined && here === (await destination.destination?.identity()))
        throw new SluiceError('MAPPING_INVALID', `${mapping.label}: source and destination are the same table`, {
          hint,
        });
    }
    await destination.destination?.prepare();
    for (const uid of (await destination.destination?.copies.writers(mapping.target)) ?? []) {
      const other = uid === mapping.row.mappingUid ? null : this.#options.mapping(uid);
      // Of another place by now: it leaves when it is settled.
      if (!other || !sameTable(other.target, mapping.target) || other.row.mappingId > mapping.row.mappingId) continue;
      throw new SluiceError(
        'DESTINATION_TAKEN',
        `${mapping.label}: mapping ${other.row.mappingId} already writes to this destination table`,
        { hint: 'Give one of the two another dest_database, dest_schema or dest_table, or delete it.' },
      );
    }
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
    isServed: boolean,
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
      if (!isServed) await control.states.set(mappingUid, 'failed', { ...details, retryInSeconds: null });
      return;
    }
    const isNew = await this.#journal(mapping, error);
    if (isNew) logger.error('full sync failed', { mapping: mapping.label, error });
    await run.finish('ERROR', { error: { code: error.code, message: error.message } });
    const attempts = (mapping.row.state?.attempts ?? 0) + 1;
    const retries = error.retry === 'backoff' && attempts <= settings().max_retry_attempts;
    if (retries) {
      await control.states.set(mappingUid, isServed ? (mapping.row.state?.state ?? 'streaming') : 'failed', {
        ...details,
        attempts,
        retryInSeconds: settings().retry_delay_seconds,
      });
      return;
    }
    if (error.code === 'BACKLOG_FULL') await copies?.abandon(mappingUid);
    await control.requests.finish(requestId, { outcome: 'failed', errorCode: error.code, errorMessage: error.message });
    await control.states.set(mappingUid, isServed ? (mapping.row.state?.state ?? 'streaming') : 'failed', {
      ...details,
      attempts: 0,
      retryInSeconds: isServed ? null : settings().failed_retry_minutes * 60,
    });
  }

  async #setState(
    mapping: PlannedMapping,
    state: MappingStateName,
    details: Parameters<ControlDatabase['states']['set']>[2] = {},
  ): Promise<void> {
    await this.#options.control.states.set(mapping.row.mappingUid, state, {
      personHash: mapping.row.personHash,
      serverId: mapping.row.serverId,
      destServerId: mapping.row.destServerId,
      destDatabase: mapping.destination.database,
      stream: mapping.stream,
      applyGroup: mapping.group,
      ...details,
    });
  }

  async #journal(mapping: PlannedMapping, error: SluiceError): Promise<boolean> {
    const message = error.message.startsWith('mapping ') ? error.message : `${mapping.label}: ${error.message}`;
    const type = hasCode(error, 'SCHEMA_MISMATCH', 'KEY_REQUIRED', 'KEY_INVALID', 'SCHEMA_CHANGED') ? 'SCHEMA' : 'SYNC';
    return this.#options.control.journal.error(
      { mappingId: mapping.row.mappingId, type },
      new SluiceError(error.code, message, { hint: error.hint ?? undefined, retry: error.retry }),
    );
  }

  /** One line per finding; an unchanged list is not written twice within the process. */
  readonly #lastFindings = new Map<string, string>();
  async #logFindings(mapping: PlannedMapping, findings: readonly Finding[]): Promise<void> {
    const text = JSON.stringify(findings);
    if (findings.length === 0 || this.#lastFindings.get(mapping.row.mappingUid) === text) return;
    this.#lastFindings.set(mapping.row.mappingUid, text);
    await this.#options.control.journal.log(
      findings.map((finding) => ({
        mappingId: mapping.row.mappingId,
        level: ({ error: 'ERROR', warning: 'WARNING', info: 'INFO' } as const)[finding.severity],
        message: finding.message,
        syncType: 'SCHEMA_CHECK' as const,
        errorCode: finding.code,
        ...(finding.fixSql.length > 0 ? { details: finding.fixSql.join(';\n') } : {}),
      })),
    );
  }

  async #recordObjects(
    mapping: PlannedMapping,
    objects: readonly { kind: string; name: string; dropSql: string }[],
  ): Promise<void> {
    for (const object of objects) {
      await this.#options.control.sourceObjects.upsert({
        serverId: mapping.row.serverId,
        database: mapping.source.database,
        kind: object.kind,
        name: object.name,
        mappingUid: null,
        stream: mapping.stream,
        dropSql: object.dropSql,
      });
    }
  }
}

function sameTable(a: TableName, b: TableName): boolean {
  return a.schema === b.schema && a.table === b.table;
}

/** A key that the person does not name stays what it was. */
function sameKey(key: readonly string[], wanted: readonly string[] | null): boolean {
  return (
    wanted === null ||
    (wanted.length === key.length &&
      wanted.every((name) => key.some((column) => column.toLowerCase() === name.toLowerCase())))
  );
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
