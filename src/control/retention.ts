/** Nothing grows without bound: what is older than its retention is deleted, in short statements that block nobody. */
import type { Knex } from 'knex';
import type { ControlContext, Queries } from './context.ts';

interface Purge {
  readonly table: string;
  readonly id: string;
  /** Rows older than this column's age go; NULL is never old. */
  readonly time: string;
  readonly days: 'logs' | 'deadLetters';
  /** What is old but stays. */
  readonly keep?: (query: Knex.QueryBuilder, queries: Queries) => void;
}

const PURGES: readonly Purge[] = [
  { table: 'sync_logs', id: 'log_id', time: 'created_at', days: 'logs' },
  // An error that still repeats is not old; one that nobody has seen for that long is, resolved or not.
  { table: 'error_logs', id: 'error_id', time: 'last_seen_at', days: 'logs' },
  { table: 'verification_mismatches', id: 'mismatch_id', time: 'found_at', days: 'logs' },
  { table: 'verification_logs', id: 'verification_id', time: 'verified_at', days: 'logs' },
  {
    table: 'sync_status',
    id: 'status_id',
    time: 'completed_at',
    days: 'logs',
    // The latest run of each mapping and kind is what v_sync_summary shows.
    keep: (query, queries) =>
      void query.whereExists(
        queries('sync_status as newer')
          .select('newer.status_id')
          .whereRaw(
            'newer.mapping_id = sync_status.mapping_id and newer.sync_type = sync_status.sync_type and newer.status_id > sync_status.status_id',
          ),
      ),
  },
  {
    table: 'full_sync_requests',
    id: 'request_id',
    time: 'finished_at',
    days: 'logs',
    // The one that served the flag's last flip says that the flag is served.
    keep: (query, queries) =>
      void query.whereNotExists(
        queries('table_mappings as m')
          .select('m.mapping_id')
          .whereRaw(
            'm.mapping_uid = full_sync_requests.mapping_uid and full_sync_requests.flag_flip >= m.full_sync_flips',
          ),
      ),
  },
  { table: 'leases', id: 'lease_key', time: 'expires_at', days: 'logs' },
  {
    table: 'stream_health',
    id: 'stream',
    time: 'updated_at',
    days: 'logs',
    keep: (query, queries) =>
      void query.whereNotExists(
        queries('mapping_state as s').select('s.stream').whereRaw('s.stream = stream_health.stream'),
      ),
  },
  { table: 'sync_progress', id: 'request_id', time: 'completed_at', days: 'logs' },
  { table: 'dead_letters', id: 'dead_letter_id', time: 'created_at', days: 'deadLetters' },
];

export interface RetentionOptions {
  /** `log_retention_days`. */
  readonly logDays: number;
  /** `dead_letter_retention_days`. */
  readonly deadLetterDays: number;
  /** Rows per statement. */
  readonly batchRows?: number;
  /** Statements per table and call: the rest goes next time. */
  readonly maxBatches?: number;
}

/**
 * One pass over all tables. Resolves to the rows deleted per table (tables without any are left out) and whether old rows
 * may be left. Two processes may run it at once.
 */
export async function purge(
  context: ControlContext,
  options: RetentionOptions,
): Promise<{ deleted: Readonly<Record<string, number>>; more: boolean }> {
  const { batchRows = 5000, maxBatches = 20 } = options;
  const deleted: Record<string, number> = {};
  let more = false;
  for (const each of PURGES) {
    const days = each.days === 'logs' ? options.logDays : options.deadLetterDays;
    let rows = 0;
    for (let batch = 1; ; batch++) {
      const found = await context.run(`delete old rows of ${each.table}`, (queries) =>
        purgeBatch(context, queries, each, days, batchRows),
      );
      rows += found;
      if (found < batchRows) break;
      if (batch === maxBatches) {
        more = true;
        break;
      }
    }
    if (rows > 0) deleted[each.table] = rows;
  }
  return { deleted, more };
}

/** Picks ids first: a bounded delete is said differently on every engine, a select with a limit is not. */
async function purgeBatch(
  context: ControlContext,
  queries: Queries,
  each: Purge,
  days: number,
  limit: number,
): Promise<number> {
  const old = queries(each.table)
    .where(each.time, '<', context.dialect.inSeconds(queries, -days * 86_400))
    .orderBy(each.time)
    .limit(limit);
  each.keep?.(old, queries);
  const ids = (await old.pluck(each.id)) as unknown[];
  if (ids.length === 0) return 0;
  await queries(each.table)
    .whereIn(each.id, ids as string[])
    .delete();
  return ids.length;
}
