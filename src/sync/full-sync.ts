/** A full copy of one table, from the first look at its schema to the swap (PROTOCOL, A copy). Restartable at any instant. */
import { setTimeout as pause } from 'node:timers/promises';
import { failpoint } from '../model/failpoint.ts';
import { hasCode, SluiceError } from '../model/errors.ts';
import { displayName, type Table, type TableName } from '../model/tables.ts';
import type {
  Chunk,
  ChunkPlan,
  CopySession,
  Destination,
  GenerationRequest,
  GenerationState,
  RowStream,
  SnapshotSource,
} from '../engines/contract.ts';
import { checkMapping, type CheckedMapping, type CheckOptions } from './check-mapping.ts';
import { copyGuard, folder, foldDown, ROUND_BYTES, TableAltered } from './fold.ts';
import type { Sparing } from './refused-rows.ts';
import { sift, type Sieve } from './refused-chunk.ts';
import type { SchemaCheck } from './schema-check.ts';
import { Throttle } from './throttle.ts';

export interface FullSyncOptions extends CheckOptions {
  readonly mappingUid: string;
  readonly group: string;
  readonly requestId: number;
  /** Rows that Sluice did not put there may be replaced (the person asked for it). */
  readonly mayReplace: boolean;
  readonly drawEpoch: (atLeast: number) => Promise<number>;
  readonly chunkBytes: number;
  readonly parallelism: number;
  readonly maxBytesPerSecond: number | null;
  readonly lockWaitMs: number;
  /** Past it the copy ends, the live table goes on (PROTOCOL, A copy). */
  readonly backlogMaxBytes: number;
  readonly signal: AbortSignal;
  /** Why the change stream does not run now; null: it runs, or another process has it. */
  readonly streamFailure: () => SluiceError | null;
  readonly progress: (progress: FullSyncProgress) => void;
  /** Of rows that the staging table does not take. `place`: the copy, so that a row of it that is refused again counts once. */
  readonly sparing: (place: string) => Sparing;
  readonly sourceObjects: (objects: readonly { kind: string; name: string; dropSql: string }[]) => Promise<void>;
}

export interface FullSyncProgress {
  readonly phase: 'checking' | 'waiting' | 'copying' | 'indexing' | 'folding' | 'comparing' | 'swapping';
  readonly rows: number;
  readonly rowsEstimated: number | null;
  readonly chunksDone: number;
  readonly chunks: number;
}

export interface FullSyncResult {
  readonly rows: number;
  readonly differing: number | null;
}

/** What stands for a position where a row of the copy is refused. */
export const copyPlace = (requestId: number) => `copy ${requestId}`;

/** Null: the change stream has not begun yet, so nothing could; call again later. */
export async function runFullSync(options: FullSyncOptions): Promise<FullSyncResult | null> {
  const job = new FullSync(options);
  return job.run();
}

/** Copies that found the table altered again before somebody is told. */
const MAX_RESTARTS = 10;
const RESTART_PAUSE_MS = 200;
const STREAM_WAIT_MS = 3000;
/** How long a fold waits for the source's end before it asks whether anybody still gets there. */
const END_AGAIN_MS = 30_000;

class FullSync {
  readonly #options: FullSyncOptions;
  readonly #sparing: Sparing;
  #progress: FullSyncProgress = { phase: 'checking', rows: 0, rowsEstimated: null, chunksDone: 0, chunks: 0 };

  constructor(options: FullSyncOptions) {
    this.#options = options;
    this.#sparing = options.sparing(copyPlace(options.requestId));
  }

  /** The source's table may be altered at any time; a copy of what it no longer is starts again. */
  async run(): Promise<FullSyncResult | null> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#attempt();
      } catch (error) {
        if (!(error instanceof TableAltered) || attempt >= MAX_RESTARTS) throw error;
        await this.#options.destination.destination?.copies.abandon(this.#options.mappingUid);
        await pause(RESTART_PAUSE_MS * attempt);
      }
    }
  }

  async #attempt(): Promise<FullSyncResult | null> {
    const { source, destination, stream } = this.#options;
    const snapshot = source.snapshot;
    const target = destination.destination;
    if (!snapshot || !target)
      throw new SluiceError(
        'CAPABILITY_MISSING',
        `${source.engine.name} cannot be copied to ${destination.engine.name}`,
      );
    if (stream !== null && !source.changes)
      throw new SluiceError('CAPABILITY_MISSING', `${source.engine.name} has no change stream`, {
        hint: 'Set cdc_enabled = 0.',
      });
    this.#report({ phase: 'checking' });
    await target.prepare();
    const [state] = await target.copies.states([this.#options.mappingUid]);
    const { table, live, check } = await this.#checkMapping(target, state);
    if (live !== null && !this.#options.mayReplace && !isOurs(state, this.#options.requestId)) {
      await this.#requireEmpty(live);
    }
    const request: GenerationRequest = {
      stream,
      group: this.#options.group,
      mappingUid: this.#options.mappingUid,
      copyEpoch: await this.#options.drawEpoch(state?.copyEpoch ?? 0),
      requestId: this.#options.requestId,
      source: table,
      key: check.key,
      columns: check.columns,
      design: target.design(table, this.#options.target, check.key),
      target: this.#options.target,
      live,
      lockWaitMs: this.#options.lockWaitMs,
    };
    const guard = copyGuard(table, () => this.#describe());
    const session = await this.#open(request);
    if (!session) return null;
    try {
      await failpoint('copy.opened');
      if (stream !== null && source.changes) {
        const { objects } = await source.changes.include(stream, table, check.key);
        await this.#options.sourceObjects(objects);
        await failpoint('copy.included');
      }
      const rows = await this.#fill(session, snapshot, table, live, check, guard);
      await session.buildIndexes();
      const differing = await this.#swap(session, snapshot, table, live !== null, guard).catch((error: unknown) => {
        throw hasCode(error, 'ROW_REFUSED') ? refusedInPlace(error, this.#options.target) : error;
      });
      await failpoint('copy.swapped');
      return { rows, differing };
    } catch (error) {
      // A column that is gone fails whatever names it first.
      if (hasCode(error, 'SCHEMA_CHANGED')) await guard();
      throw error;
    } finally {
      await session.close();
    }
  }

  /** A table that copies have filled before is given the columns that its source has gained. */
  async #checkMapping(target: Destination, state: GenerationState | undefined): Promise<CheckedMapping> {
    const mayAdd = state !== undefined && (state.liveGeneration !== null || state.finishedRequest !== null);
    const checked = await checkMapping({ ...this.#options, mayAdd });
    const { table, check } = checked;
    if (check.missing.length === 0) return checked;
    await target.copies.addColumns(
      this.#options.target,
      target.design(table, this.#options.target, check.key),
      check.missing,
    );
    return checkMapping(this.#options);
  }

  /**
   * The stream's owner makes the group's position row; until then there is no place to note that the copy began (invariant 1).
   * Not waited for long: whoever waits keeps a place in the queue from mappings of healthy streams (invariant 8).
   */
  async #open(request: GenerationRequest): Promise<CopySession | null> {
    const until = performance.now() + STREAM_WAIT_MS;
    for (;;) {
      this.#check();
      const session = await this.#options.destination.destination?.copies.open(request);
      if (session) return session;
      const failure = this.#options.streamFailure();
      if (failure) throw failure;
      if (performance.now() > until) return null;
      this.#report({ phase: 'waiting' });
      await pause(200);
    }
  }

  /** Until the staging table is a state of the source that existed; from the beginning as often as it must be. */
  async #fill(
    session: CopySession,
    snapshot: SnapshotSource,
    table: Table,
    live: Table | null,
    check: SchemaCheck,
    guard: ReturnType<typeof copyGuard>,
  ): Promise<number> {
    for (;;) {
      try {
        const rows = await this.#copy(session, snapshot, table, live, check);
        this.#report({ phase: 'indexing' });
        await session.buildKey();
        await failpoint('copy.key-built');
        if (this.#options.stream !== null) await this.#foldToEnd(session, snapshot, table, guard);
        return rows;
      } catch (error) {
        if (!hasCode(error, 'COPY_RESTARTED') || error instanceof TableAltered) throw error;
        this.#check();
        await session.restart();
      }
    }
  }

  async #copy(
    session: CopySession,
    snapshot: SnapshotSource,
    table: Table,
    live: Table | null,
    check: SchemaCheck,
  ): Promise<number> {
    const columns = check.columns.map((column) => column.source);
    const lane = this.#lane(snapshot, table, live, check);
    if (this.#options.stream === null) return this.#copyWhole(session, snapshot, table, columns, lane);
    let plan = await session.plan();
    const incarnation = await this.#incarnation();
    if (!plan) {
      plan = await this.#plan(snapshot, table);
      if (incarnation !== null) plan = { ...plan, incarnation };
      await session.savePlan(plan);
    } else if ((plan.incarnation ?? null) !== incarnation) throw otherHistory();
    return this.#copyChunks(session, snapshot, table, plan, columns, lane);
  }

  async #copyChunks(
    session: CopySession,
    snapshot: SnapshotSource,
    table: Table,
    plan: ChunkPlan,
    columns: readonly string[],
    lane: string,
  ): Promise<number> {
    const done = await session.loadedChunks();
    const waiting = plan.chunks.filter((chunk) => !done.has(chunk.id));
    let rows = [...done.values()].reduce((sum, each) => sum + each, 0);
    this.#report({
      phase: 'copying',
      rows,
      rowsEstimated: plan.estimatedRows,
      chunks: plan.chunks.length,
      chunksDone: plan.chunks.length - waiting.length,
    });
    const throttle = new Throttle(this.#options.maxBytesPerSecond, plan.estimatedBytes / plan.chunks.length);
    let failed: unknown = null;
    const worker = async () => {
      for (let chunk = waiting.shift(); chunk && failed === null; chunk = waiting.shift()) {
        try {
          // Not `rows += await …`: that would add to what `rows` was before other workers went on.
          const loaded = await this.#copyChunk(session, snapshot, table, plan.layout, chunk, columns, lane);
          rows += loaded;
          await failpoint('copy.chunk-loaded');
          this.#report({ rows, chunksDone: this.#progress.chunksDone + 1 });
          await this.#limitBacklog(session);
          await throttle.wait();
        } catch (error) {
          failed ??= error;
        }
      }
    };
    await Promise.all(Array.from({ length: Math.max(1, this.#options.parallelism) }, worker));
    if (failed !== null) throw failed as Error;
    return rows;
  }

  async #copyChunk(
    session: CopySession,
    snapshot: SnapshotSource,
    table: Table,
    layout: string,
    chunk: Chunk,
    columns: readonly string[],
    lane: string,
  ): Promise<number> {
    this.#check();
    try {
      return await session.load(chunk, await snapshot.readChunk(table, layout, chunk, columns, lane));
    } catch (error) {
      if (!hasCode(error, 'ROW_REFUSED')) throw error;
      // Read once more, to be looked through.
      return session.load(
        chunk,
        sifted(await snapshot.readChunk(table, layout, chunk, columns, 'cells'), this.#sieve(session)),
      );
    }
  }

  #sieve(session: CopySession): Sieve {
    return {
      key: session.route.key,
      alike: new Map(),
      refusal: (batch) => session.refusal(batch),
      sparing: this.#sparing,
      check: () => this.#check(),
    };
  }

  /** Without changes to correct it, a copy is one snapshot: what was loaded before a restart belongs to another one. */
  async #copyWhole(
    session: CopySession,
    snapshot: SnapshotSource,
    table: Table,
    columns: readonly string[],
    lane: string,
  ): Promise<number> {
    try {
      return await this.#loadWhole(session, snapshot, table, columns, lane, null);
    } catch (error) {
      if (!hasCode(error, 'ROW_REFUSED')) throw error;
      // One snapshot cannot be read twice: the copy begins again, and looks at all of its rows.
      return this.#loadWhole(session, snapshot, table, columns, 'cells', this.#sieve(session));
    }
  }

  async #loadWhole(
    session: CopySession,
    snapshot: SnapshotSource,
    table: Table,
    columns: readonly string[],
    lane: string,
    sieve: Sieve | null,
  ): Promise<number> {
    // Without a plan nothing was loaded.
    if ((await session.plan()) !== null) await session.restart();
    const plan = await this.#plan(snapshot, table);
    await session.savePlan(plan);
    this.#report({ phase: 'copying', rowsEstimated: plan.estimatedRows, chunks: plan.chunks.length });
    let rows = 0;
    for await (const { chunk, rows: stream } of snapshot.readWhole(table, plan, columns, lane)) {
      this.#check();
      rows += await session.load(chunk, sieve ? sifted(stream, sieve) : stream);
      await failpoint('copy.chunk-loaded');
      this.#report({ rows, chunksDone: this.#progress.chunksDone + 1 });
    }
    return rows;
  }

  /** The plan's layout is checked with each chunk; that it is the layout of the table as described is checked here. */
  async #plan(snapshot: SnapshotSource, table: Table): Promise<ChunkPlan> {
    const plan = await snapshot.planChunks(table, { targetBytes: this.#options.chunkBytes });
    await copyGuard(table, () => this.#describe())();
    return plan;
  }

  async #describe(): Promise<Table | null> {
    const [now = null] = await this.#options.source.catalog.describe([this.#options.sourceTable]);
    return now;
  }

  /** The source's history now; null: no changes are followed. */
  async #incarnation(): Promise<string | null> {
    const { changes } = this.#options.source;
    return this.#options.stream !== null && changes ? changes.incarnation(await changes.end()) : null;
  }

  /** Only past the end position is the staging table a state that existed; until then absent values come from the source. */
  async #foldToEnd(
    session: CopySession,
    snapshot: SnapshotSource,
    table: Table,
    guard: ReturnType<typeof copyGuard>,
  ): Promise<void> {
    const changes = this.#options.source.changes;
    if (!changes) return;
    this.#report({ phase: 'folding' });
    const folding = folder(session.route, { snapshot, table }, { guard, sparing: this.#sparing });
    let end = await changes.end();
    let askedAt = performance.now();
    let failingSince: number | null = null;
    for (;;) {
      this.#check();
      // Both read before the round: the backlog holds everything at or below the position, and one round takes all that waits.
      const position = await session.position();
      const waiting = await this.#limitBacklog(session);
      const folded = waiting === 0 ? 0 : await session.round(ROUND_BYTES, folding.fold);
      await failpoint('copy.folded');
      if (position !== null && waiting <= ROUND_BYTES && ['equal', 'after'].includes(changes.compare(position, end))) {
        if (folding.settle()) {
          if ((await session.plan())?.incarnation !== changes.incarnation(position)) throw otherHistory();
          return;
        }
        end = await changes.end();
      } else if (folded === 0) {
        await pause(100);
        // As before the copy began: nobody else waits for a place that a stream does not get to.
        const failure = this.#options.streamFailure();
        failingSince = failure && (failingSince ?? performance.now());
        if (failure && performance.now() - (failingSince ?? 0) > STREAM_WAIT_MS) throw failure;
        if (performance.now() - askedAt < END_AGAIN_MS) continue;
        // It may have become a position that nothing will reach: a source that records no changes any more says so.
        askedAt = performance.now();
        await changes.end();
      }
    }
  }

  async #swap(
    session: CopySession,
    snapshot: SnapshotSource,
    table: Table,
    hadTable: boolean,
    guard: ReturnType<typeof copyGuard>,
  ): Promise<number | null> {
    const mend = () => Promise.resolve({ snapshot, table });
    const { fold } = folder(session.route, null, { guard, sparing: this.#sparing, mend });
    const check = () => this.#check();
    this.#report({ phase: 'folding' });
    if (this.#options.stream !== null) await foldDown(session, fold, check);
    this.#report({ phase: 'comparing' });
    const { differing } = await session.compare();
    await failpoint('copy.compared');
    if (this.#options.stream !== null) await foldDown(session, fold, check);
    this.#report({ phase: 'swapping' });
    for (let attempt = 0; ; attempt++) {
      this.#check();
      if (await session.finish(fold)) return hadTable ? differing : null;
      // Somebody holds the table: let the stream through, then try again (PROTOCOL, A copy, 6).
      await pause(Math.min(2000, 100 * 2 ** attempt));
      if (this.#options.stream !== null) await foldDown(session, fold, check);
    }
  }

  #lane(snapshot: SnapshotSource, table: Table, live: Table | null, check: SchemaCheck): string {
    const target = this.#options.destination.destination;
    if (!target || this.#options.source.engine.name !== this.#options.destination.engine.name) return 'cells';
    const from = check.columns.map((column) => column.source);
    const understood = live
      ? target.lanes(
          live,
          check.columns.map((column) => column.target),
        )
      : target.lanes(table, from);
    return snapshot.lanes(table, from).find((lane) => understood.includes(lane)) ?? 'cells';
  }

  async #requireEmpty(live: Table): Promise<void> {
    if (await this.#options.destination.catalog.isEmpty(live.name)) return;
    throw new SluiceError(
      'DESTINATION_NOT_EMPTY',
      `the destination table ${displayName(live.name)} holds rows that Sluice did not put there`,
      {
        hint: "UPDATE table_mappings SET is_full_sync = 1 to replace them, or initial_sync = 'none' to keep them and follow changes from now on.",
      },
    );
  }

  /** Bytes that wait to be folded. Throws BACKLOG_FULL. */
  async #limitBacklog(session: CopySession): Promise<number> {
    if (this.#options.stream === null) return 0;
    const waiting = await session.backlogBytes();
    if (waiting <= this.#options.backlogMaxBytes) return waiting;
    throw new SluiceError(
      'BACKLOG_FULL',
      `${waiting} bytes of changes wait for the copy, more than backlog_max_bytes`,
      {
        hint: 'Raise backlog_max_bytes, or copy when fewer rows change.',
      },
    );
  }

  #check(): void {
    if (!this.#options.signal.aborted) return;
    const reason: unknown = this.#options.signal.reason;
    throw reason instanceof SluiceError ? reason : new SluiceError('CANCELLED', 'the full sync was cancelled');
  }

  #report(progress: Partial<FullSyncProgress>): void {
    this.#progress = { ...this.#progress, ...progress };
    this.#options.progress(this.#progress);
  }
}

/** By a constraint that the staging table does not have: nobody has looked which rows it is. */
function refusedInPlace(error: SluiceError, target: TableName): SluiceError {
  const hint = `A constraint of ${displayName(target)} refuses rows of the copy, which max_failed_rows does not cover: drop the constraint there, or mend the rows at the source; then set is_full_sync = 1 (0 first, where it is 1 already). Nothing was replaced.`;
  return new SluiceError('ROW_REFUSED', error.message, {
    hint: error.hint ?? hint,
    isConflict: error.isConflict,
    cause: error,
  });
}

/** The rows without those that the staging table does not take. */
function sifted(rows: RowStream, sieve: Sieve): RowStream {
  if (!('batches' in rows)) throw new SluiceError('INTERNAL', `rows of lane ${rows.format} cannot be looked through`);
  return { format: 'cells', batches: sift(rows.batches, sieve) };
}

/** A failover: the chunks may hold rows that it took back, and no event will say so (PROTOCOL, The stream). */
function otherHistory(): SluiceError {
  return new SluiceError('COPY_RESTARTED', 'the source failed over during the copy');
}

/** The table's rows are there because of us: an earlier copy, or this one, put them there. */
function isOurs(state: GenerationState | undefined, requestId: number): boolean {
  return (
    state !== undefined &&
    (state.liveGeneration !== null || state.finishedRequest !== null || state.copyRequest === requestId)
  );
}
