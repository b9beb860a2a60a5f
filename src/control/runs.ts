/** Rows of `sync_status`: one per run, its progress written at most once a second. */
import { insertedId, type ControlContext } from './context.ts';
import { storable } from './secrets.ts';

export type SyncType = 'FULL_SYNC' | 'CDC';
export type RunStatus = 'RUNNING' | 'COMPLETED' | 'ERROR' | 'PAUSED';

/** What a long job shows. Absent: as before. */
export interface RunProgress {
  readonly recordsProcessed?: number;
  readonly recordsFailed?: number;
  readonly bytesProcessed?: number;
  readonly rowsEstimated?: number | null;
  readonly rowsPerSecond?: number | null;
  /** Time left, in seconds. */
  readonly secondsLeft?: number | null;
  readonly phase?: string;
}

const COLUMNS: Readonly<Record<keyof RunProgress, string>> = {
  recordsProcessed: 'records_processed',
  recordsFailed: 'records_failed',
  bytesProcessed: 'bytes_processed',
  rowsEstimated: 'rows_estimated',
  rowsPerSecond: 'rows_per_second',
  secondsLeft: 'seconds_left',
  phase: 'phase',
};

/** One run. One caller at a time. */
export class Run {
  readonly statusId: number;
  readonly #context: ControlContext;
  readonly #minIntervalMs: number;
  #pending: RunProgress = {};
  #lastWrite = -Infinity;

  constructor(context: ControlContext, statusId: number, minIntervalMs: number) {
    this.#context = context;
    this.statusId = statusId;
    this.#minIntervalMs = minIntervalMs;
  }

  /** Written now, or with a later call if the last write is younger than a second. Resolves to whether it was written. */
  async progress(progress: RunProgress): Promise<boolean> {
    this.#pending = { ...this.#pending, ...progress };
    if (performance.now() - this.#lastWrite < this.#minIntervalMs) return false;
    this.#lastWrite = performance.now();
    const written = this.#take();
    await this.#context.run('write the progress of a run', (queries) =>
      queries('sync_status')
        .where({ status_id: this.statusId, status: 'RUNNING' })
        .update({ ...written, updated_at: this.#context.now(queries) }),
    );
    return true;
  }

  /** Ends the run with what was last said of it. Idempotent: a run that has ended stays as it ended. */
  async finish(
    status: Exclude<RunStatus, 'RUNNING'>,
    final: RunProgress & { readonly error?: { code: string; message: string } } = {},
  ): Promise<void> {
    const { error, ...progress } = final;
    this.#pending = { ...this.#pending, ...progress };
    const written = this.#take();
    await this.#context.run('write the end of a run', (queries) => {
      const now = this.#context.now(queries);
      return queries('sync_status')
        .where({ status_id: this.statusId, status: 'RUNNING' })
        .update({
          ...written,
          status,
          completed_at: now,
          updated_at: now,
          seconds_left: null,
          error_code: error?.code ?? null,
          error_message: error === undefined ? null : storable(error.message),
        });
    });
  }

  #take(): Record<string, unknown> {
    const row = Object.fromEntries(
      Object.entries(this.#pending)
        .filter(([, value]) => value !== undefined)
        .map(([name, value]) => [COLUMNS[name as keyof RunProgress], value]),
    );
    this.#pending = {};
    return row;
  }
}

export class Runs {
  readonly #context: ControlContext;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  /**
   * Begins a run. A run of the same mapping and kind that is still RUNNING was left by a process that died: it ends as
   * ERROR with CONNECTION_LOST (or, with the same request, is taken up).
   */
  async start(run: {
    mappingId: number;
    syncType: SyncType;
    owner: string;
    requestId?: number;
    phase?: string;
    rowsEstimated?: number;
    minIntervalMs?: number;
  }): Promise<Run> {
    const statusId = await this.#context.transaction('write the start of a run', async (queries) => {
      const now = this.#context.now(queries);
      const open = await queries('sync_status')
        .where({ mapping_id: run.mappingId, sync_type: run.syncType, status: 'RUNNING' })
        .orderBy('status_id', 'desc')
        .select<{ status_id: string; request_id: string | null }[]>('status_id', 'request_id');
      const same = open.find((row) => run.requestId !== undefined && Number(row.request_id) === run.requestId);
      const left = open.filter((row) => row !== same).map((row) => row.status_id);
      if (left.length > 0) {
        await queries('sync_status').whereIn('status_id', left).update({
          status: 'ERROR',
          completed_at: now,
          updated_at: now,
          seconds_left: null,
          error_code: 'CONNECTION_LOST',
          error_message: 'the process that did this work ended',
        });
      }
      const values = { owner: run.owner, phase: run.phase ?? null, updated_at: now };
      if (same) {
        await queries('sync_status').where('status_id', same.status_id).update(values);
        return Number(same.status_id);
      }
      const row = {
        ...values,
        mapping_id: run.mappingId,
        sync_type: run.syncType,
        status: 'RUNNING',
        started_at: now,
        request_id: run.requestId ?? null,
        rows_estimated: run.rowsEstimated ?? null,
      };
      return insertedId(await queries('sync_status').insert(row).returning('status_id'), 'status_id');
    });
    return new Run(this.#context, statusId, run.minIntervalMs ?? 1000);
  }

  /** Chunks that are in, for display. Repeating one is harmless. */
  async chunksDone(
    requestId: number,
    mappingId: number,
    chunks: readonly { chunkId: number; rows: number; bytes: number }[],
  ): Promise<void> {
    const rows = chunks.map((chunk) => ({
      request_id: requestId,
      chunk_id: chunk.chunkId,
      mapping_id: mappingId,
      rows_copied: chunk.rows,
      bytes_copied: chunk.bytes,
    }));
    await this.#context.run('write the chunks of a copy', (queries) =>
      this.#context.dialect.insertMissing(queries, 'sync_progress', rows, ['request_id', 'chunk_id']),
    );
  }

  /** At the end of a copy, or when it starts again. */
  async clearChunks(requestId: number): Promise<void> {
    await this.#context.run('clear the chunks of a copy', (queries) =>
      queries('sync_progress').where('request_id', requestId).delete(),
    );
  }
}
