/** The demo speaks to Sluice as a person does: two INSERTs, then the views. */
import type { Client } from 'pg';
import { SluiceError } from '../model/errors.ts';
import type { DemoTableName } from './dataset.ts';
import { COPY_DATABASE, SOURCE_DATABASE, type Stage } from './stage.ts';

export interface Health {
  readonly table: string;
  readonly mappingId: number;
  readonly state: string;
  readonly lagSeconds: number | null;
  /** Changes applied since the copy. */
  readonly applied: number;
  readonly copied: number | null;
  readonly expected: number | null;
  readonly verification: string | null;
  readonly error: string | null;
}

/** The two statements, as they are shown and run. */
export function insertStatements(stage: Stage, tables: readonly DemoTableName[]): [string, string] {
  return [
    `INSERT INTO source_servers (server_name, connection_string)
VALUES ('demo', '${stage.server.url(SOURCE_DATABASE)}');`,
    `INSERT INTO table_mappings (server_id, source_table, dest_database)
VALUES ${tables.map((table) => `(1, '${table}', '${COPY_DATABASE}')`).join(',\n       ')};`,
  ];
}

/** Verification each minute instead of each five: nobody watches a demo that long. */
export async function hurryVerification(control: Client): Promise<void> {
  await control.query(
    `INSERT INTO config (config_key, config_value) VALUES ('verification_interval_minutes', '1')
     ON CONFLICT (config_key) DO UPDATE SET config_value = excluded.config_value`,
  );
}

export async function health(control: Client): Promise<Health[]> {
  const result = await control.query<{
    source_table: string;
    mapping_id: number;
    state: string;
    lag_seconds: number | null;
    applied: string;
    full_sync_rows: string | null;
    full_sync_rows_estimated: string | null;
    verification_status: string | null;
    error: string | null;
  }>(
    `SELECT source_table, mapping_id, state, lag_seconds, (rows_inserted + rows_updated + rows_deleted)::text AS applied,
            full_sync_rows::text, full_sync_rows_estimated::text, verification_status,
            error_code || ': ' || error_message AS error
     FROM v_mapping_health ORDER BY mapping_id`,
  );
  return result.rows.map((row) => ({
    table: row.source_table,
    mappingId: row.mapping_id,
    state: row.state,
    lagSeconds: row.lag_seconds,
    applied: Number(row.applied),
    copied: row.full_sync_rows === null ? null : Number(row.full_sync_rows),
    expected: row.full_sync_rows_estimated === null ? null : Number(row.full_sync_rows_estimated),
    verification: row.verification_status,
    error: row.error,
  }));
}

/** Throws what stopped a mapping: in the demo nothing may. */
export function refuseTrouble(all: readonly Health[]): void {
  const stopped = all.find((one) => one.state === 'failed' || one.state === 'gap');
  if (stopped)
    throw new SluiceError(
      'INTERNAL',
      `mapping ${stopped.table} is ${stopped.state}: ${stopped.error ?? 'no reason given'}`,
    );
}

export interface Verification {
  readonly table: string;
  readonly status: string;
  readonly rows: number;
  readonly mismatches: number;
}

/** The latest verification of each mapping since `since` (the control database's clock). */
export async function verificationsSince(control: Client, since: Date): Promise<Verification[]> {
  const result = await control.query<{
    source_table: string;
    verification_status: string;
    rows: string;
    mismatches: string;
  }>(
    `SELECT DISTINCT ON (m.mapping_id) m.source_table, v.verification_status, v.records_compared::text AS rows,
            v.mismatches_found::text AS mismatches
     FROM verification_logs v JOIN table_mappings m USING (mapping_id)
     WHERE v.verified_at >= $1 ORDER BY m.mapping_id, v.verification_id DESC`,
    [since],
  );
  return result.rows.map((row) => ({
    table: row.source_table,
    status: row.verification_status,
    rows: Number(row.rows),
    mismatches: Number(row.mismatches),
  }));
}

export async function clock(control: Client): Promise<Date> {
  const result = await control.query<{ now: Date }>('SELECT clock_timestamp() AS now');
  return result.rows[0]?.now ?? new Date();
}
