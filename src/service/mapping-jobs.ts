/**
 * What is done for one mapping at a time, under its lease: copy, adopt, pause, settle. Each job may die at any instant: the
 * destination's generation row and the control tables' request say how far it came, and the next holder of the lease goes on.
 */
import type { MappingStateName } from '../control/index.ts';
import { hasCode, SluiceError } from '../model/errors.ts';
import type { Route } from '../engines/contract.ts';
import type { ColumnsChanged } from '../sync/follow-columns.ts';
import { checkMapping } from '../sync/check-mapping.ts';
import { runHeldFold } from '../sync/held-fold.ts';
import { CopyJob } from './copy-job.ts';
import { sparingAt } from './dead-letters.ts';
import type { JobContext } from './job-context.ts';
import { MappingNotes } from './mapping-notes.ts';
import { checkPlace, isNamedBy, sameTable } from './place.ts';
import type { PlannedMapping } from './planner.ts';

export class MappingJobs {
  readonly #options: JobContext;
  readonly #notes: MappingNotes;
  readonly #copyJob: CopyJob;

  constructor(options: JobContext) {
    this.#options = options;
    this.#notes = new MappingNotes(options.control);
    this.#copyJob = new CopyJob(options, this.#notes);
  }

  /** Runs the request that is open for the mapping, if any. False: it could not begin yet. */
  copy(mapping: PlannedMapping, signal: AbortSignal): Promise<boolean> {
    return this.#copyJob.run(mapping, signal);
  }

  /** `initial_sync = 'none'`: the table is taken as it is, changes are followed from now on. False: it could not begin yet. */
  async adopt(mapping: PlannedMapping, signal: AbortSignal): Promise<boolean> {
    const { control, fleet, logger, settings } = this.#options;
    const source = fleet.database(mapping.source);
    const destination = fleet.database(mapping.destination);
    if (!destination.destination)
      throw new SluiceError('CAPABILITY_MISSING', `${mapping.label}: the destination cannot be written`);
    await destination.destination.prepare();
    const [state] = await destination.destination.copies.states([mapping.row.mappingUid]);
    // It was adopted before and has failed since: what changed meanwhile is kept for it.
    if (state?.route?.backlog === 'hold') return this.settle(mapping, signal);
    await checkPlace(mapping, fleet, this.#options.mapping);
    const { table, live, check } = await checkMapping({
      source,
      destination,
      sourceTable: mapping.sourceTable,
      target: mapping.target,
      keyColumns: mapping.row.primaryKey,
      stream: mapping.stream,
      findings: (findings) => this.#notes.findings(mapping, findings),
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
      await this.#notes.sourceObjects(mapping, objects);
    }
    await this.#notes.setState(mapping, mapping.stream === null ? 'idle' : 'streaming');
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
    await this.#notes.setState(mapping, 'paused');
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
    if (mapping.row.state?.state === 'gap') {
      // Whatever the destination still has of it: only a copy brings what is missing.
      if (mapping.row.running ?? mapping.row.queued) return false;
      await control.requests.create({ mappingId, mappingUid, reason: 'gap' });
      return true;
    }
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
        sparing: (place) => sparingAt(this.#options, mapping, place),
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
      await this.#notes.setState(mapping, mapping.row.state?.state ?? 'new');
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
        (!(await isNamedBy(mapping, route.source, fleet)) || !sameKey(route.key, mapping.row.primaryKey)));
    if (!isOther) return false;
    const { stream, applyGroup } = state;
    if (state.destServerId === mapping.row.destServerId && state.destDatabase !== null) {
      const place = { server: mapping.destination.server, database: state.destDatabase };
      const { destination } = fleet.database(place);
      await destination?.copies.forget(mappingUid);
      // A stream by the name that an earlier version gave it: nobody reads it again.
      if (stream !== null && applyGroup !== null && !this.#options.isPlanned(stream))
        await destination?.dropGroup(stream, applyGroup);
    }
    // What the person asks for with the new place is what the mapping starts with: it may replace rows that are there.
    const isAsked = ['flag', 'cli', 'api', 'trigger'].includes(mapping.row.queued?.reason ?? '');
    await control.requests.cancel(mappingUid, isAsked ? ['running'] : undefined);
    if (!isAsked)
      await control.requests.create({ mappingId, mappingUid, reason: isElsewhere ? 'initial' : 'schema_change' });
    await this.#notes.setState(mapping, 'new');
    if (stream !== null && stream !== mapping.stream && mapping.stream !== null)
      await this.#tellOfStream(mapping, stream);
    return true;
  }

  /** invariant 5: the place in the former stream is no place in this one. */
  async #tellOfStream(mapping: PlannedMapping, former: string): Promise<void> {
    const { control, logger } = this.#options;
    const message = `its changes were read by stream ${former}, and are now by ${mapping.stream}: it is copied again`;
    logger.warn(message, { mapping: mapping.label });
    await control.journal.log([
      { mappingId: mapping.row.mappingId, level: 'WARNING', message: `${mapping.label}: ${message}` },
    ]);
  }

  async #resumed(mapping: PlannedMapping, state: MappingStateName): Promise<void> {
    await this.#notes.setState(mapping, state, { error: null, attempts: 0, retryInSeconds: null });
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
    const isNew = await this.#notes.error(mapping, error);
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
        findings: (findings) => this.#notes.findings(mapping, findings),
        mayAdd: true,
      });
      return refused;
    } catch (error) {
      return hasCode(error, 'SCHEMA_MISMATCH') ? error : refused;
    }
  }
}

/** A key that the person does not name stays what it was. */
function sameKey(key: readonly string[], wanted: readonly string[] | null): boolean {
  return (
    wanted === null ||
    (wanted.length === key.length &&
      wanted.every((name) => key.some((column) => column.toLowerCase() === name.toLowerCase())))
  );
}
