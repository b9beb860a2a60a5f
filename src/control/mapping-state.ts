/**
 * Where each mapping is. The transitions are data, here and nowhere else; a row is written only when something differs, so
 * that an idle service writes nothing (invariant 13).
 */
import { SluiceError, type ErrorCode } from '../model/errors.ts';
import type { ControlContext, CounterRow, Queries } from './context.ts';
import { storable } from './secrets.ts';

export type MappingStateName = 'new' | 'copying' | 'streaming' | 'idle' | 'paused' | 'gap' | 'failed';

/**
 * From a state to those that may follow it. A re-copy of a live table leaves it `streaming` (or `idle`): `copying` is for
 * tables that are not served yet, or no longer (after a gap). From `gap` there is no way on but a copy. Back to `new` goes
 * what the person pointed at another table.
 */
export const TRANSITIONS: Readonly<Record<MappingStateName, readonly MappingStateName[]>> = {
  new: ['copying', 'streaming', 'idle', 'paused', 'failed'],
  copying: ['streaming', 'idle', 'paused', 'gap', 'failed', 'new'],
  streaming: ['new', 'idle', 'paused', 'gap', 'failed'],
  idle: ['new', 'copying', 'streaming', 'paused', 'failed'],
  paused: ['new', 'copying', 'streaming', 'idle', 'gap', 'failed'],
  gap: ['new', 'copying', 'paused', 'failed'],
  failed: ['new', 'copying', 'streaming', 'idle', 'paused', 'gap'],
};

export interface MappingStateRow {
  readonly mappingUid: string;
  readonly mappingId: number;
  readonly state: MappingStateName;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly errorHint: string | null;
  readonly warning: string | null;
  readonly retryAt: Date | null;
  /** Until then, by the database's clock when the row was read, ms; never below 0. Null: no retry is planned. */
  readonly retryInMs: number | null;
  readonly attempts: number;
  readonly personHash: string | null;
  readonly triggerSeenZero: boolean;
  readonly serverId: number | null;
  readonly destServerId: number | null;
  readonly destDatabase: string | null;
  readonly stream: string | null;
  readonly applyGroup: string | null;
}

/** What may be set beside the state. Absent: unchanged. */
export interface StateDetails {
  /** The reason for `failed`, `gap`, `paused`, or for a retry while the state stays. Null clears code, message and hint. */
  readonly error?: { code: ErrorCode; message: string; hint: string | null } | null;
  /** What somebody should do at the source while changes go on arriving. Null clears it. */
  readonly warning?: { message: string; hint: string | null } | null;
  /** Seconds from now by the database's clock; null: no retry is planned. */
  readonly retryInSeconds?: number | null;
  readonly attempts?: number;
  readonly personHash?: string;
  readonly triggerSeenZero?: boolean;
  readonly serverId?: number;
  readonly destServerId?: number | null;
  readonly destDatabase?: string | null;
  readonly stream?: string | null;
  readonly applyGroup?: string | null;
}

/** Absent state: it stays. */
export interface StateChange extends StateDetails {
  readonly state?: MappingStateName;
}

interface StoredRow {
  mapping_id: number;
  state: MappingStateName;
  retry_at: Date | null;
  [column: string]: unknown;
}

const TABLE = 'mapping_state';
const CHUNK = 1000;

export class MappingStates {
  readonly #context: ControlContext;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  /** Makes the rows of mappings that have none yet, in one statement. Resolves to how many. */
  async ensure(): Promise<number> {
    return this.#context.run('make the state rows of new mappings', async (queries) => {
      const fresh = await queries('table_mappings as m')
        .whereNotExists(queries(`${TABLE} as s`).select('s.mapping_uid').whereRaw('s.mapping_uid = m.mapping_uid'))
        .select<{ mapping_uid: string; mapping_id: number }[]>('m.mapping_uid', 'm.mapping_id');
      let made = 0;
      for (let at = 0; at < fresh.length; at += CHUNK)
        made += await this.#context.dialect.insertMissing(queries, TABLE, fresh.slice(at, at + CHUNK), ['mapping_uid']);
      return made;
    });
  }

  /**
   * Moves a mapping to `state` (its own state: only the details are compared). Resolves to whether anything was written.
   * Rejects with INTERNAL for a transition that does not exist. Entering `new`, `copying`, `streaming` or `idle` clears the
   * error, the retry and the attempts unless the details say otherwise.
   */
  async set(mappingUid: string, state: MappingStateName, details: StateDetails = {}): Promise<boolean> {
    return this.change(mappingUid, () => ({ ...details, state }));
  }

  /**
   * As `set`, with what to write decided by the state that the mapping is in while its row is locked: a copy and the stream of
   * one mapping work at the same time, and what either saw a moment ago may be over. `decide` may be called more than once.
   */
  async change(mappingUid: string, decide: (now: MappingStateName) => StateChange): Promise<boolean> {
    const doing = 'write the state of a mapping';
    const found = await this.#context.run(doing, (queries) =>
      queries<StoredRow>(TABLE).where('mapping_uid', mappingUid),
    );
    // Nearly always nothing differs: then nothing is locked either.
    if (found.every((row) => this.#changeOf(this.#context.knex, row, decide(row.state)) === null)) return false;
    return this.#context.transaction(doing, async (queries) => {
      const query = queries(TABLE).where('mapping_uid', mappingUid);
      const [row] = await this.#context.dialect.lockRows<StoredRow>(queries, query, 'state');
      if (!row) return false; // cleaned up by somebody meanwhile
      const change = this.#changeOf(queries, row, decide(row.state));
      if (change === null) return false;
      await queries(TABLE)
        .where('mapping_uid', mappingUid)
        .update({ ...change, updated_at: this.#context.now(queries) });
      return true;
    });
  }

  /** The columns to write; null: the row is as wanted. */
  #changeOf(queries: Queries, row: StoredRow, wish: StateChange): Record<string, unknown> | null {
    const { state = row.state, ...details } = wish;
    const moves = row.state !== state;
    if (moves && !TRANSITIONS[row.state].includes(state)) {
      throw new SluiceError('INTERNAL', `mapping ${row.mapping_id} cannot go from ${row.state} to ${state}`);
    }
    const healthy = moves && (state === 'new' || state === 'copying' || state === 'streaming' || state === 'idle');
    const wanted = healthy ? { error: null, retryInSeconds: null, attempts: 0, ...details } : details;
    const change: Record<string, unknown> = {};
    for (const [column, value] of columnsOf(wanted)) if (row[column] !== value) change[column] = value;
    if (moves) Object.assign(change, { state, state_since: this.#context.now(queries) });
    if (wanted.retryInSeconds === null && row.retry_at !== null) change['retry_at'] = null;
    if (typeof wanted.retryInSeconds === 'number')
      change['retry_at'] = this.#context.dialect.inSeconds(queries, wanted.retryInSeconds);
    return Object.keys(change).length === 0 ? null : change;
  }

  /** Why changes of mappings that are served do not arrive; their state stays. One statement per 1000. */
  async note(mappingUids: readonly string[], error: SluiceError): Promise<void> {
    await this.#notes(mappingUids, (queries) => ({
      error_code: error.code,
      error_message: storable(error.message),
      error_hint: error.hint === null ? null : storable(error.hint),
      updated_at: this.#context.now(queries),
    }));
  }

  /** Takes back what `note` said, unless something else was said since. */
  async clear(mappingUids: readonly string[], code: ErrorCode): Promise<void> {
    await this.#notes(
      mappingUids,
      (queries) => ({
        error_code: null,
        error_message: null,
        error_hint: null,
        updated_at: this.#context.now(queries),
      }),
      code,
    );
  }

  /** Those that failed for one of these reasons are tried again now: it no longer holds. Resolves to how many. */
  async retryNow(mappingUids: readonly string[], reasons: readonly ErrorCode[]): Promise<number> {
    let found = 0;
    for (let at = 0; at < mappingUids.length; at += CHUNK) {
      found += await this.#context.run('have mappings tried again', (queries) => {
        const now = this.#context.now(queries);
        return queries(TABLE)
          .whereIn('mapping_uid', mappingUids.slice(at, at + CHUNK))
          .where('state', 'failed')
          .where('retry_at', '>', now)
          .whereIn('error_code', [...reasons])
          .update({ retry_at: now, attempts: 0, updated_at: now });
      });
    }
    return found;
  }

  async #notes(
    mappingUids: readonly string[],
    change: (queries: Queries) => Record<string, unknown>,
    code?: ErrorCode,
  ): Promise<void> {
    for (let at = 0; at < mappingUids.length; at += CHUNK) {
      await this.#context.run('write what keeps mappings from changes', (queries) => {
        const query = queries(TABLE)
          .whereIn('mapping_uid', mappingUids.slice(at, at + CHUNK))
          .where('state', 'streaming')
          .update(change(queries));
        return code === undefined ? query : query.where('error_code', code);
      });
    }
  }

  /** Adds what streams did since the last flush: one statement per 1000 mappings. */
  async addCounters(rows: readonly CounterRow[]): Promise<void> {
    for (let at = 0; at < rows.length; at += CHUNK) {
      await this.#context.run('write the counters of mappings', (queries) =>
        this.#context.dialect.addCounters(queries, rows.slice(at, at + CHUNK)),
      );
    }
  }

  /**
   * Brings `last_cdc_sync_at` and `last_cdc_lsn` of the person's rows up to date, where they differ, without touching
   * `updated_at`. Call it at most once a minute.
   */
  async refreshDisplay(): Promise<void> {
    await this.#context.run('refresh what table_mappings shows', (queries) =>
      this.#context.dialect.refreshDisplay(queries),
    );
  }

  /** States whose mapping was deleted: what they left on servers is to be cleaned up, then `forget`. */
  async departed(): Promise<MappingStateRow[]> {
    return this.#context.run('look for deleted mappings', async (queries) => {
      const mapping = queries('table_mappings as m').select('m.mapping_id').whereRaw('m.mapping_uid = s.mapping_uid');
      const rows = await selectState(this.#context, queries).whereNotExists(mapping);
      return (rows as StateColumns[]).map(stateFrom);
    });
  }

  /** Removes what is kept of a deleted mapping, requests and chunk records included. Logs stay. */
  async forget(mappingUid: string): Promise<void> {
    await this.#context.transaction('forget a deleted mapping', async (queries) => {
      await queries('sync_progress')
        .whereIn('request_id', queries('full_sync_requests').where('mapping_uid', mappingUid).select('request_id'))
        .delete();
      await queries('full_sync_requests').where('mapping_uid', mappingUid).delete();
      await queries(TABLE).where('mapping_uid', mappingUid).delete();
    });
  }
}

function columnsOf(details: StateDetails): [column: string, value: unknown][] {
  const found: [string, unknown][] = [];
  const put = (column: string, value: unknown) => {
    if (value !== undefined) found.push([column, value]);
  };
  if (details.error !== undefined) {
    put('error_code', details.error?.code ?? null);
    put('error_message', details.error ? storable(details.error.message) : null);
    put('error_hint', details.error?.hint ? storable(details.error.hint) : null);
  }
  if (details.warning !== undefined) {
    put('warning', details.warning ? storable(details.warning.message) : null);
    put('warning_hint', details.warning?.hint ? storable(details.warning.hint) : null);
  }
  put('attempts', details.attempts);
  put('person_hash', details.personHash);
  put('trigger_seen_zero', details.triggerSeenZero === undefined ? undefined : details.triggerSeenZero ? 1 : 0);
  put('server_id', details.serverId);
  put('dest_server_id', details.destServerId);
  put('dest_database', details.destDatabase);
  put('stream', details.stream);
  put('apply_group', details.applyGroup);
  return found;
}

/** Columns of a state as a query on `mapping_state as s` selects them; null throughout where an outer join found none. */
export interface StateColumns {
  state_uid: string;
  state_mapping_id: number;
  state: MappingStateName;
  error_code: string | null;
  error_message: string | null;
  error_hint: string | null;
  warning: string | null;
  retry_at: Date | null;
  read_at: Date;
  attempts: number;
  person_hash: string | null;
  trigger_seen_zero: number;
  placed_server_id: number | null;
  placed_dest_server_id: number | null;
  placed_dest_database: string | null;
  stream: string | null;
  placed_group: string | null;
}

export function stateColumns(context: ControlContext, queries: Queries) {
  return [
    's.mapping_uid as state_uid',
    's.mapping_id as state_mapping_id',
    's.state',
    's.error_code',
    's.error_message',
    's.error_hint',
    's.warning',
    's.retry_at',
    queries.raw('? as read_at', [context.now(queries)]),
    's.attempts',
    's.person_hash',
    's.trigger_seen_zero',
    's.server_id as placed_server_id',
    's.dest_server_id as placed_dest_server_id',
    's.dest_database as placed_dest_database',
    's.stream',
    's.apply_group as placed_group',
  ];
}

function selectState(context: ControlContext, queries: Queries) {
  return queries(`${TABLE} as s`).select(stateColumns(context, queries));
}

export function stateFrom(row: StateColumns): MappingStateRow {
  return {
    mappingUid: row.state_uid,
    mappingId: row.state_mapping_id,
    state: row.state,
    errorCode: row.error_code,
    errorMessage: row.error_message,
    errorHint: row.error_hint,
    warning: row.warning,
    retryAt: row.retry_at,
    retryInMs: row.retry_at === null ? null : Math.max(0, row.retry_at.getTime() - row.read_at.getTime()),
    attempts: row.attempts,
    personHash: row.person_hash,
    triggerSeenZero: row.trigger_seen_zero === 1,
    serverId: row.placed_server_id,
    destServerId: row.placed_dest_server_id,
    destDatabase: row.placed_dest_database,
    stream: row.stream,
    applyGroup: row.placed_group,
  };
}
