/**
 * Requests for full syncs: whatever asks for one becomes a row of `full_sync_requests` first. Per mapping at most one
 * runs and at most one waits beside it (a unique index says so, whoever races).
 *
 * What a flag means. The database counts in `full_sync_flips` how often `is_full_sync` went from 0 to 1. A request serves
 * one flip (`flag_flip`), and a flip is served once:
 *   - flag 1, flips above every served one  → a new request; one that already waits takes the flip on instead.
 *   - flag 1, flip already served           → nothing new: the flag stays 1 until the copy has replaced the table.
 *   - set to 0 and 1 again during a run     → another flip: the run goes on and exactly one more follows it.
 *   - 1 written over 1                      → not a flip.
 *   - flag 0 while its request is open      → the request is cancelled, waiting or running.
 *   - finished                              → the flag goes back to 0 only if its flip is still the one served.
 * A request from elsewhere (CLI, API, trigger column) during a run makes the one that waits.
 */
import type { Knex } from 'knex';
import type { ControlContext, Queries } from './context.ts';
import { insertedId } from './context.ts';
import {
  fromRow,
  type FinishedRequest,
  type FullSyncRequest,
  type RequestReason,
  type RequestRow,
  type RequestStatus,
} from './request-rows.ts';
import { storable } from './secrets.ts';

const TABLE = 'full_sync_requests';

export class Requests {
  readonly #context: ControlContext;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  /**
   * Asks for a full sync. Resolves to the request that will serve it: a new one, or the one that already waits.
   * `confirmed: false` (trigger column): call `confirm` once the column's reset has committed.
   */
  async create(request: {
    mappingId: number;
    mappingUid: string;
    reason: Exclude<RequestReason, 'flag'>;
    requestedBy?: string;
    confirmed?: boolean;
  }): Promise<{ requestId: number; created: boolean }> {
    const { mappingId, mappingUid, reason, requestedBy = null, confirmed = true } = request;
    const doing = `request a full sync of mapping ${mappingId}`;
    for (;;) {
      const waiting = await this.#context.transaction(doing, async (queries) => {
        const [found] = await this.#lock(queries, queued(queries, mappingUid));
        // Asked for from two sides: clearing the flag must not cancel what the other side wants.
        const change = {
          ...(confirmed && found?.is_confirmed === 0 ? { is_confirmed: 1 } : {}),
          ...(found?.reason === 'flag' ? { reason } : {}),
        };
        if (found && Object.keys(change).length > 0)
          await queries(TABLE).where('request_id', found.request_id).update(change);
        return found;
      });
      if (waiting) return { requestId: Number(waiting.request_id), created: false };
      const requestId = await this.#insert(doing, {
        mapping_id: mappingId,
        mapping_uid: mappingUid,
        reason,
        requested_by: requestedBy?.slice(0, 255) ?? null,
        is_confirmed: confirmed ? 1 : 0,
      });
      if (requestId !== null) return { requestId, created: true };
      // Lost the race to somebody who asked at the same moment: theirs waits now.
    }
  }

  /** The source's trigger column is reset (or found reset after a crash): the request counts. Idempotent. */
  async confirm(requestId: number): Promise<void> {
    await this.#context.run('confirm a full sync request', (queries) =>
      queries(TABLE).where({ request_id: requestId, is_confirmed: 0 }).update({ is_confirmed: 1 }),
    );
  }

  /**
   * Turns flags into requests and cleared flags into cancellations, for all enabled mappings, in a fixed number of
   * statements; call it when a poll shows a change. Resolves to the mappings whose flag is served now, and to the requests
   * cancelled.
   */
  async fromFlags(): Promise<{ mappings: number[]; cancelled: number[] }> {
    const doing = 'turn flags into full sync requests';
    return this.#context.run(doing, async (queries) => {
      for (let attempt = 1; ; attempt++) {
        try {
          return await queries.transaction((transaction) => this.#serveFlags(transaction));
        } catch (error) {
          // Somebody asked for one of them at the same moment: look again, theirs takes the flip on.
          if (attempt === 5 || !this.#context.dialect.isDuplicate(error)) throw error;
        }
      }
    });
  }

  async #serveFlags(queries: Queries): Promise<{ mappings: number[]; cancelled: number[] }> {
    const cancelled = await this.#cancelCleared(queries);
    const due = await unserved(queries).select<{ mapping_id: number; mapping_uid: string }[]>(
      'm.mapping_id',
      'm.mapping_uid',
    );
    if (due.length > 0) {
      // One that waits starts after the flip, so it serves it too; if it was claimed meanwhile, the insert makes another. MySQL reads
      // the table it updates only where a derived table is made of it, and DISTINCT makes one (manual, Subquery Errors).
      const uids = queries.select('due.uid').from(unserved(queries).distinct('m.mapping_uid as uid').as('due'));
      await queries(TABLE)
        .where('status', 'queued')
        .whereIn('mapping_uid', uids)
        .update({
          is_confirmed: 1,
          flag_flip: queries('table_mappings as m')
            .whereRaw('m.mapping_uid = full_sync_requests.mapping_uid')
            .select('m.full_sync_flips'),
        });
      await queries
        .into(queries.raw('full_sync_requests (mapping_id, mapping_uid, reason, flag_flip)'))
        .insert(unserved(queries).select('m.mapping_id', 'm.mapping_uid', queries.raw("'flag'"), 'm.full_sync_flips'));
    }
    return { mappings: due.map((row) => row.mapping_id), cancelled };
  }

  /**
   * What the mapping's copier should do now: the request that runs (its copier died: go on with it), else the one that
   * waits, which then runs. Null: nothing. The caller holds the mapping's lease.
   */
  async claim(mappingUid: string, owner: string): Promise<{ request: FullSyncRequest; resumed: boolean } | null> {
    return this.#context.transaction('claim a full sync request', async (queries) => {
      const open = await this.#lock(
        queries,
        queries(TABLE).where('mapping_uid', mappingUid).whereIn('status', ['queued', 'running']),
      );
      const running = open.find((row) => row.status === 'running');
      const next = running ?? open.find((row) => row.status === 'queued' && row.is_confirmed === 1);
      if (!next) return null;
      const change: Record<string, unknown> = { status: 'running', owner };
      if (!running) change['started_at'] = this.#context.now(queries);
      if (!running || next.owner !== owner) await queries(TABLE).where('request_id', next.request_id).update(change);
      return { request: fromRow({ ...next, status: 'running', owner }), resumed: running !== undefined };
    });
  }

  /**
   * The run is over. Idempotent: after a crash between the swap and this call, call it again. `completed`: sets
   * last_full_sync_at, and is_full_sync back to 0 if no later flip asks for another run. `cancelled`: the flag goes back
   * to 0 likewise. `failed`: the flag stays 1, and nothing more runs for it until it was 0.
   * A swap that committed before a cancellation was seen makes the request `completed` after all.
   */
  async finish(requestId: number, result: FinishedRequest): Promise<void> {
    await this.#context.transaction(`finish full sync request ${requestId}`, async (queries) => {
      const [row] = await this.#lock(queries, queries(TABLE).where('request_id', requestId));
      if (!row) return;
      const before: RequestStatus[] =
        result.outcome === 'completed' ? ['queued', 'running', 'cancelled', 'failed'] : ['queued', 'running'];
      if (before.includes(row.status)) {
        const now = this.#context.now(queries);
        await queries(TABLE)
          .where('request_id', requestId)
          .update({
            status: result.outcome,
            finished_at: now,
            rows_copied: result.rowsCopied ?? null,
            error_code: result.errorCode ?? null,
            error_message: result.errorMessage === undefined ? null : storable(result.errorMessage),
          });
        if (result.outcome === 'completed')
          await queries('table_mappings').where('mapping_uid', row.mapping_uid).update({ last_full_sync_at: now });
      } else if (row.status !== result.outcome) {
        return;
      }
      if (result.outcome !== 'failed') await clearFlag(queries, row);
    });
  }

  /** Cancels what is open for a mapping (or only what runs). The copier sees it by `isRunning`. */
  async cancel(mappingUid: string, statuses: readonly RequestStatus[] = ['queued', 'running']): Promise<number[]> {
    return this.#context.transaction('cancel full sync requests', async (queries) => {
      const open = await this.#lock(
        queries,
        queries(TABLE).where('mapping_uid', mappingUid).whereIn('status', statuses),
      );
      await this.#setCancelled(queries, open);
      for (const row of open) await clearFlag(queries, row);
      return open.map((row) => Number(row.request_id));
    });
  }

  /** False once the request was cancelled, or its mapping deleted or disabled: asked by the copier between chunks. */
  async isRunning(requestId: number): Promise<boolean> {
    const row = await this.#context.run('look whether a full sync was cancelled', (queries) =>
      queries(`${TABLE} as r`)
        .join('table_mappings as m', 'm.mapping_uid', 'r.mapping_uid')
        .where({ 'r.request_id': requestId, 'r.status': 'running', 'm.is_enabled': 1 })
        .first<{ request_id: string } | undefined>('r.request_id'),
    );
    return row !== undefined;
  }

  /** Newest first. */
  async list(filter: { mappingUid?: string; open?: boolean; limit?: number } = {}): Promise<FullSyncRequest[]> {
    const rows = await this.#context.run('list full sync requests', (queries) => {
      const query = queries<RequestRow>(TABLE)
        .select('*')
        .orderBy('request_id', 'desc')
        .limit(filter.limit ?? 100);
      if (filter.mappingUid !== undefined) void query.where('mapping_uid', filter.mappingUid);
      if (filter.open) void query.whereIn('status', ['queued', 'running']);
      return query;
    });
    return rows.map(fromRow);
  }

  /** Null: another request took the waiting place at the same moment. */
  async #insert(doing: string, row: Record<string, unknown>): Promise<number | null> {
    return this.#context.run(doing, async (queries) => {
      try {
        return insertedId(await queries(TABLE).insert(row).returning('request_id'), 'request_id');
      } catch (error) {
        if (this.#context.dialect.isDuplicate(error)) return null;
        throw error;
      }
    });
  }

  async #cancelCleared(queries: Queries): Promise<number[]> {
    const cleared = await this.#lock(
      queries,
      queries(TABLE)
        .where('reason', 'flag')
        .whereIn('status', ['queued', 'running'])
        .whereExists(
          queries('table_mappings as m')
            .select('m.mapping_id')
            .whereRaw('m.mapping_uid = full_sync_requests.mapping_uid')
            .where('m.is_full_sync', 0),
        ),
    );
    await this.#setCancelled(queries, cleared);
    return cleared.map((row) => Number(row.request_id));
  }

  #lock(queries: Queries, query: Knex.QueryBuilder): Promise<RequestRow[]> {
    return this.#context.dialect.lockRows<RequestRow>(queries, query, 'status');
  }

  async #setCancelled(queries: Queries, rows: readonly RequestRow[]): Promise<void> {
    if (rows.length === 0) return;
    await queries(TABLE)
      .whereIn(
        'request_id',
        rows.map((row) => row.request_id),
      )
      .update({ status: 'cancelled', finished_at: this.#context.now(queries), error_code: 'CANCELLED' });
  }
}

function queued(queries: Queries, mappingUid: string) {
  return queries(TABLE).where({ mapping_uid: mappingUid, status: 'queued' });
}

/** Enabled mappings whose flag is 1 for a flip that no request serves. */
function unserved(queries: Queries) {
  return queries('table_mappings as m')
    .where({ 'm.is_full_sync': 1, 'm.is_enabled': 1 })
    .whereNotExists(
      queries(`${TABLE} as r`)
        .select('r.request_id')
        .whereRaw('r.mapping_uid = m.mapping_uid and r.flag_flip >= m.full_sync_flips'),
    );
}

/** Compare and set: a flip that came after the one this request serves keeps its flag. */
async function clearFlag(queries: Queries, row: RequestRow): Promise<void> {
  if (row.flag_flip === null) return;
  await queries('table_mappings')
    .where({ mapping_uid: row.mapping_uid, is_full_sync: 1, full_sync_flips: row.flag_flip })
    .update({ is_full_sync: 0 });
}
