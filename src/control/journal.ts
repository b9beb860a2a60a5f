/**
 * What happened: logs, errors, verifications, refused rows. Messages come from SluiceError and our own code; they never
 * hold a row's value (invariant 12). Keys are row values: only `dead_letters` and `verification_mismatches` take them.
 */
import { createHash } from 'node:crypto';
import type { Cell } from '../model/changes.ts';
import type { SluiceError } from '../model/errors.ts';
import { insertedId, type ControlContext, type Queries } from './context.ts';
import { storable } from './secrets.ts';

export type LogLevel = 'INFO' | 'WARNING' | 'ERROR';
export type LogKind = 'CDC' | 'FULL_SYNC' | 'VERIFICATION' | 'SCHEMA_CHECK';

export interface LogLine {
  readonly mappingId: number | null;
  readonly level: LogLevel;
  readonly message: string;
  readonly syncType?: LogKind;
  readonly records?: number;
  readonly durationMs?: number;
  readonly errorCode?: string;
  readonly details?: string;
}

export type ErrorType = 'CONNECTION' | 'SYNC' | 'CDC' | 'SCHEMA' | 'VERIFICATION' | 'OTHER';

export interface Verification {
  readonly mappingId: number;
  readonly mappingUid: string;
  readonly type: 'MD5_COMPARISON' | 'ROW_COUNT' | 'SCHEMA';
  readonly status: 'PASSED' | 'FAILED' | 'PARTIAL';
  readonly sourceMd5?: string;
  readonly destMd5?: string;
  readonly sourceRows?: number;
  readonly destRows?: number;
  readonly compared: number;
  /** How many differ; `keys` may hold fewer of them. */
  readonly mismatches: number;
  readonly details?: string;
  readonly durationMs?: number;
  readonly keys?: readonly { readonly kind: 'missing' | 'extra' | 'different'; readonly key: readonly Cell[] }[];
}

export interface DeadLetter {
  readonly mappingId: number;
  readonly mappingUid: string;
  /** The change's place, or `copy:<request id>`: one part of what makes it the same row when the batch is tried again. */
  readonly position: string;
  readonly operation: 'insert' | 'update' | 'upsert' | 'delete' | 'copy';
  readonly key: readonly Cell[];
  readonly errorCode: string;
  readonly reason: string;
  /** Only where the mapping says `keep_failed_values = 1`. */
  readonly values?: Readonly<Record<string, Cell>>;
}

/** Rows per statement. */
const CHUNK = 500;

export class Journal {
  readonly #context: ControlContext;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  /** Appends lines to `sync_logs`, in one statement per 500. */
  async log(lines: readonly LogLine[]): Promise<void> {
    const rows = lines.map((line) => ({
      mapping_id: line.mappingId,
      log_level: line.level,
      log_message: storable(line.message),
      sync_type: line.syncType ?? null,
      records_count: line.records ?? null,
      execution_time_ms: line.durationMs === undefined ? null : Math.round(line.durationMs),
      error_code: line.errorCode ?? null,
      details: line.details === undefined ? null : storable(line.details),
    }));
    for (let at = 0; at < rows.length; at += CHUNK) {
      await this.#context.run('write to sync_logs', (queries) =>
        this.#context.dialect.insertRows(queries, 'sync_logs', rows.slice(at, at + CHUNK)),
      );
    }
  }

  /**
   * Records an error. The same error of the same mapping and server, still unresolved, is one row: its `retry_count` grows
   * and `last_seen_at` moves. Resolves to whether it is a new one (worth a log line).
   */
  async error(where: { mappingId?: number; serverId?: number; type: ErrorType }, error: SluiceError): Promise<boolean> {
    const message = storable(error.message);
    const mappingId = where.mappingId ?? null;
    const serverId = where.serverId ?? null;
    const fingerprint = sha256([mappingId, serverId, where.type, error.code, message]);
    return this.#context.run('write to error_logs', async (queries) => {
      const row = {
        mapping_id: mappingId,
        server_id: serverId,
        error_type: where.type,
        error_code: error.code,
        error_message: message,
        hint: error.hint === null ? null : storable(error.hint),
        fingerprint,
      };
      const open = queries('error_logs').where({ fingerprint, is_resolved: 0 });
      if (!(await open.clone().first('error_id'))) {
        try {
          await queries('error_logs').insert(row);
          return true;
        } catch (thrown) {
          if (!this.#context.dialect.isDuplicate(thrown)) throw thrown;
        }
      }
      await open.update({ retry_count: queries.raw('retry_count + 1'), last_seen_at: this.#context.now(queries) });
      return false;
    });
  }

  /** The mapping (or server) works again: its open errors are resolved. Writes nothing when there are none. */
  async resolveErrors(where: { mappingId: number } | { serverId: number }, type?: ErrorType): Promise<number> {
    const column = 'mappingId' in where ? 'mapping_id' : 'server_id';
    const id = 'mappingId' in where ? where.mappingId : where.serverId;
    return this.#context.run('resolve errors', async (queries) => {
      const query = queries('error_logs').where({ [column]: id, is_resolved: 0 });
      if (type !== undefined) void query.where('error_type', type);
      const change = { is_resolved: 1, resolved_at: this.#context.now(queries) };
      return this.#context.dialect.updateRows(query, change, 'error_id');
    });
  }

  /** Rows of `config` that are right now (or gone): all errors about them but those that still stand. Writes nothing when there are none. */
  async resolveSettings(still: readonly SluiceError[]): Promise<number> {
    return this.#context.run('resolve errors', (queries) =>
      queries('error_logs')
        .where({ error_code: 'CONFIG_INVALID', is_resolved: 0 })
        .whereNull('mapping_id')
        .whereNull('server_id')
        .whereNotIn(
          'error_message',
          still.map((error) => storable(error.message)),
        )
        .update({ is_resolved: 1, resolved_at: this.#context.now(queries) }),
    );
  }

  /** Records a verification with the keys that differ, and shows it in `mapping_state`; all or nothing. */
  async verification(found: Verification): Promise<number> {
    return this.#context.transaction('write to verification_logs', async (queries) => {
      const now = this.#context.now(queries);
      const row = {
        mapping_id: found.mappingId,
        verification_type: found.type,
        verification_status: found.status,
        source_md5: found.sourceMd5 ?? null,
        dest_md5: found.destMd5 ?? null,
        source_row_count: found.sourceRows ?? null,
        dest_row_count: found.destRows ?? null,
        records_compared: found.compared,
        mismatches_found: found.mismatches,
        verification_details: found.details === undefined ? null : storable(found.details),
        duration_ms: found.durationMs === undefined ? null : Math.round(found.durationMs),
        verified_at: now,
      };
      const id = insertedId(
        await queries('verification_logs').insert(row).returning('verification_id'),
        'verification_id',
      );
      const keys = (found.keys ?? []).map(({ kind, key }) => ({
        verification_id: id,
        mapping_id: found.mappingId,
        kind,
        key_text: keyText(key),
      }));
      await this.#context.dialect.insertRows(queries, 'verification_mismatches', keys);
      await queries('mapping_state')
        .where('mapping_uid', found.mappingUid)
        .update({ last_verified_at: now, verification_status: found.status });
      return id;
    });
  }

  /** The rows with these keys were repaired. */
  async repaired(verificationId: number, keys: readonly (readonly Cell[])[]): Promise<void> {
    await this.#context.run('write a repair', async (queries) => {
      for (let at = 0; at < keys.length; at += CHUNK) {
        await queries('verification_mismatches')
          .where('verification_id', verificationId)
          .whereIn('key_text', keys.slice(at, at + CHUNK).map(keyText))
          .update({ repaired_at: this.#context.now(queries) });
      }
    });
  }

  /**
   * Keeps rows the destination refused; durable when it resolves, so call it before the destination's commit. Idempotent by
   * mapping, position and key. Resolves to how many were new. Of each row the latest refusal stays: one that goes on changing, or a
   * destination that takes nothing any more, must not fill the table.
   */
  async deadLetters(letters: readonly DeadLetter[]): Promise<number> {
    const rows = letters.map((letter) => ({
      mapping_id: letter.mappingId,
      mapping_uid: letter.mappingUid,
      position: letter.position,
      position_hash: sha256([letter.position]),
      key_hash: sha256([keyText(letter.key)]),
      key_text: keyText(letter.key),
      operation: letter.operation,
      error_code: letter.errorCode,
      reason: storable(letter.reason),
      row_values: letter.values === undefined ? null : JSON.stringify(letter.values, textOfBytes),
    }));
    return this.#context.run('write to dead_letters', async (queries) => {
      let made = 0;
      for (let at = 0; at < rows.length; at += CHUNK)
        made += await this.#insertLetters(queries, rows.slice(at, at + CHUNK));
      return made;
    });
  }

  /** Which of these rows are in dead_letters: their `keyText`. */
  async refusedBefore(mappingUid: string, keys: readonly (readonly Cell[])[]): Promise<ReadonlySet<string>> {
    const found = new Set<string>();
    const texts = keys.map(keyText);
    for (let at = 0; at < texts.length; at += CHUNK) {
      const hashes = texts.slice(at, at + CHUNK).map((text) => sha256([text]));
      const rows = await this.#context.run('look into dead_letters', (queries) =>
        queries('dead_letters')
          .where('mapping_uid', mappingUid)
          .whereIn('key_hash', hashes)
          .then((all) => all as { key_text: string }[]),
      );
      for (const row of rows) found.add(row.key_text);
    }
    return found;
  }

  /**
   * A full sync has written every row that the destination takes: letters from before it began are of rows that are there now, or gone, or
   * have a letter of `place`. Those of changes made since stay.
   */
  async closeDeadLetters(mappingUid: string, requestId: number, place: string): Promise<number> {
    return this.#context.run('close dead_letters', (queries) =>
      queries('dead_letters')
        .where({ mapping_uid: mappingUid })
        .whereNot({ position_hash: sha256([place]) })
        .where('created_at', '<', queries('full_sync_requests').select('started_at').where({ request_id: requestId }))
        .delete(),
    );
  }

  async #insertLetters(
    queries: Queries,
    rows: readonly { mapping_uid: string; position_hash: string; key_hash: string }[],
  ): Promise<number> {
    const unique = ['mapping_uid', 'position_hash', 'key_hash'];
    const made = await this.#context.dialect.insertMissing(queries, 'dead_letters', rows, unique);
    if (made === 0) return 0;
    const latest = new Map(rows.map((row) => [`${row.mapping_uid} ${row.key_hash}`, row]));
    const places = new Map<string, { mapping_uid: string; position_hash: string; keys: string[] }>();
    for (const { mapping_uid, position_hash, key_hash } of latest.values()) {
      const name = `${mapping_uid} ${position_hash}`;
      const place = places.get(name) ?? { mapping_uid, position_hash, keys: [] };
      places.set(name, place);
      place.keys.push(key_hash);
    }
    // After the insertion: a row that was refused is never without its letter.
    for (const { mapping_uid, position_hash, keys } of places.values()) {
      const letters = queries('dead_letters').where({ mapping_uid }).whereIn('key_hash', keys);
      await letters.whereNot({ position_hash }).delete();
    }
    return made;
  }

  /**
   * How many rows (keys) of a mapping are in dead_letters, however often each was refused: against `max_failed_rows`. `copy`: without
   * those that it closes when it is through (`closeDeadLetters`).
   */
  async countDeadLetters(
    mappingUid: string,
    copy: { requestId: number; place: string } | null = null,
  ): Promise<number> {
    const row = await this.#context.run('count dead_letters', (queries) =>
      queries('dead_letters')
        .where('mapping_uid', mappingUid)
        .where((kept) => {
          if (copy === null) return;
          const { requestId, place } = copy;
          const began = queries('full_sync_requests').select('started_at').where({ request_id: requestId });
          void kept.where({ position_hash: sha256([place]) }).orWhere('created_at', '>=', began);
        })
        .countDistinct<{ rows: string }[]>('key_hash as rows')
        .first(),
    );
    return Number((row as { rows: string } | undefined)?.rows ?? 0);
  }
}

/** A key as people and `repaired` read it: a JSON array with one text per column; bytes in hex after `\x`. */
export function keyText(key: readonly Cell[]): string {
  return JSON.stringify(key.map((cell) => (cell instanceof Uint8Array ? hex(cell) : cell)));
}

/** JSON.stringify hands over what `toJSON` made of a Buffer, and has the Buffer as a property of `this` only. */
function textOfBytes(this: unknown, name: string, value: unknown): unknown {
  const given = (this as Readonly<Record<string, unknown>>)[name];
  return given instanceof Uint8Array ? hex(given) : value;
}

function hex(bytes: Uint8Array): string {
  return `\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`;
}

function sha256(parts: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}
