/** What a person does to the control database through the command line: the two INSERTs, and reading the views. */
import { SluiceError } from '../model/errors.ts';
import { insertedId, type ControlContext } from './context.ts';

/** A row of v_mapping_health. */
export interface MappingHealth {
  readonly mappingId: number;
  readonly server: string;
  /** As in the mapping's row; null: the default. */
  readonly sourceDatabase: string | null;
  readonly sourceSchema: string | null;
  readonly sourceTable: string;
  readonly destDatabase: string | null;
  readonly destSchema: string | null;
  readonly destTable: string;
  readonly destServer: string | null;
  readonly enabled: boolean;
  readonly state: string;
  /** Behind the source, as of the last change. */
  readonly lagSeconds: number | null;
  /** How long ago the source's capture job came as far as it is; null: it has none. */
  readonly captureLagSeconds: number | null;
  readonly lastCapturedAt: Date | null;
  /** Until the source discards, by age, what was not read. */
  readonly retentionHeadroomSeconds: number | null;
  readonly retentionHeadroomBytes: number | null;
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
  readonly failed: number;
  readonly lastFullSyncAt: Date | null;
  readonly lastVerifiedAt: Date | null;
  readonly verificationStatus: string | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly errorHint: string | null;
  readonly warning: string | null;
  readonly warningHint: string | null;
  readonly retryAt: Date | null;
  readonly fullSync: {
    readonly phase: string;
    readonly rows: number;
    readonly rowsEstimated: number | null;
    readonly rowsPerSecond: number | null;
    readonly secondsLeft: number | null;
  } | null;
}

/** Columns of `table_mappings` that a person may give; absent: the table's default. */
export interface NewMapping {
  readonly serverId: number;
  readonly sourceDatabase?: string | undefined;
  readonly sourceSchema?: string | undefined;
  readonly sourceTable: string;
  readonly destServerId?: number | undefined;
  readonly destDatabase?: string | undefined;
  readonly destSchema?: string | undefined;
  readonly destTable?: string | undefined;
  readonly primaryKey?: string | undefined;
  readonly triggerColumn?: string | undefined;
  readonly cdcEnabled?: boolean | undefined;
  readonly initialSync?: 'copy' | 'none' | undefined;
  readonly onGap?: 'stop' | 'resync' | undefined;
  readonly applyGroup?: string | undefined;
}

export interface VerificationResult {
  readonly verificationId: number;
  readonly status: string;
  readonly compared: number;
  readonly mismatches: number;
  /** What of the differences is explained; null: nothing. */
  readonly details: string | null;
  readonly durationMs: number | null;
  readonly verifiedAt: Date;
}

export class Operator {
  readonly #context: ControlContext;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  /** By mapping_id. */
  async health(): Promise<MappingHealth[]> {
    const rows = await this.#context.run('read v_mapping_health', (queries) =>
      queries('v_mapping_health')
        .select('*')
        .orderBy('mapping_id')
        .then((found) => found as HealthRow[]),
    );
    return rows.map(healthFrom);
  }

  /** The newest row of verification_logs for a mapping, or null. */
  async lastVerification(mappingId: number): Promise<VerificationResult | null> {
    return this.#context.run('read verification_logs', async (queries) => {
      const row = await queries('verification_logs')
        .where('mapping_id', mappingId)
        .orderBy('verification_id', 'desc')
        .first<VerificationRow | undefined>(
          'verification_id',
          'verification_status',
          'records_compared',
          'mismatches_found',
          'verification_details',
          'duration_ms',
          'verified_at',
        );
      if (!row) return null;
      return {
        verificationId: Number(row.verification_id),
        status: row.verification_status,
        compared: Number(row.records_compared),
        mismatches: Number(row.mismatches_found),
        details: row.verification_details,
        durationMs: row.duration_ms === null ? null : Number(row.duration_ms),
        verifiedAt: row.verified_at,
      };
    });
  }

  /** Inserts into source_servers. CONFIG_INVALID when the name is taken. */
  async addServer(name: string, connectionString: string): Promise<number> {
    return this.#context.run(`add the server ${name}`, async (queries) => {
      try {
        const row = { server_name: name, connection_string: connectionString };
        return insertedId(await queries('source_servers').insert(row).returning('server_id'), 'server_id');
      } catch (thrown) {
        if (!this.#context.dialect.isDuplicate(thrown)) throw thrown;
        throw new SluiceError('CONFIG_INVALID', `there is a server named ${name} already`, {
          hint: `Choose another name, or UPDATE source_servers SET connection_string = … WHERE server_name = '${name.replaceAll("'", "''")}'.`,
        });
      }
    });
  }

  /** Inserts into table_mappings. */
  async addMapping(mapping: NewMapping): Promise<number> {
    const row = {
      server_id: mapping.serverId,
      source_database: mapping.sourceDatabase ?? null,
      source_schema: mapping.sourceSchema ?? null,
      source_table: mapping.sourceTable,
      dest_server_id: mapping.destServerId ?? null,
      dest_database: mapping.destDatabase ?? null,
      dest_schema: mapping.destSchema ?? null,
      dest_table: mapping.destTable ?? null,
      primary_key_column: mapping.primaryKey ?? null,
      full_sync_trigger_column: mapping.triggerColumn ?? null,
      apply_group: mapping.applyGroup ?? null,
      ...(mapping.cdcEnabled === undefined ? {} : { cdc_enabled: mapping.cdcEnabled ? 1 : 0 }),
      ...(mapping.initialSync === undefined ? {} : { initial_sync: mapping.initialSync }),
      ...(mapping.onGap === undefined ? {} : { on_gap: mapping.onGap }),
    };
    return this.#context.run(`add a mapping of ${mapping.sourceTable}`, async (queries) =>
      insertedId(await queries('table_mappings').insert(row).returning('mapping_id'), 'mapping_id'),
    );
  }
}

interface VerificationRow {
  readonly verification_id: string;
  readonly verification_status: string;
  readonly records_compared: string;
  readonly mismatches_found: string;
  readonly verification_details: string | null;
  readonly duration_ms: string | null;
  readonly verified_at: Date;
}

interface HealthRow {
  readonly mapping_id: number;
  readonly server_name: string;
  readonly source_database: string | null;
  readonly source_schema: string | null;
  readonly source_table: string;
  readonly dest_database: string | null;
  readonly dest_schema: string | null;
  readonly dest_table: string;
  readonly dest_server_name: string | null;
  readonly is_enabled: number;
  readonly state: string;
  readonly lag_seconds: number | null;
  readonly capture_lag_seconds: number | null;
  readonly last_captured_at: Date | null;
  readonly retention_headroom_seconds: number | null;
  readonly retention_headroom_bytes: string | null;
  readonly rows_inserted: string;
  readonly rows_updated: string;
  readonly rows_deleted: string;
  readonly rows_failed: string;
  readonly last_full_sync_at: Date | null;
  readonly last_verified_at: Date | null;
  readonly verification_status: string | null;
  readonly error_code: string | null;
  readonly error_message: string | null;
  readonly error_hint: string | null;
  readonly warning: string | null;
  readonly warning_hint: string | null;
  readonly retry_at: Date | null;
  readonly full_sync_phase: string | null;
  readonly full_sync_rows: string | null;
  readonly full_sync_rows_estimated: string | null;
  readonly full_sync_rows_per_second: number | null;
  readonly full_sync_seconds_left: number | null;
}

function healthFrom(row: HealthRow): MappingHealth {
  return {
    mappingId: row.mapping_id,
    server: row.server_name,
    sourceDatabase: row.source_database,
    sourceSchema: row.source_schema,
    sourceTable: row.source_table,
    destDatabase: row.dest_database,
    destSchema: row.dest_schema,
    destTable: row.dest_table,
    destServer: row.dest_server_name,
    enabled: row.is_enabled === 1,
    state: row.state,
    lagSeconds: row.lag_seconds,
    captureLagSeconds: row.capture_lag_seconds,
    lastCapturedAt: row.last_captured_at,
    retentionHeadroomSeconds: row.retention_headroom_seconds,
    retentionHeadroomBytes: row.retention_headroom_bytes === null ? null : Number(row.retention_headroom_bytes),
    inserted: Number(row.rows_inserted),
    updated: Number(row.rows_updated),
    deleted: Number(row.rows_deleted),
    failed: Number(row.rows_failed),
    lastFullSyncAt: row.last_full_sync_at,
    lastVerifiedAt: row.last_verified_at,
    verificationStatus: row.verification_status,
    errorCode: row.error_code,
    errorMessage: row.error_message,
    errorHint: row.error_hint,
    warning: row.warning,
    warningHint: row.warning_hint,
    retryAt: row.retry_at,
    // The bigint columns are null together: there is a running full sync or there is none.
    fullSync:
      row.full_sync_rows === null
        ? null
        : {
            phase: row.full_sync_phase ?? 'starting',
            rows: Number(row.full_sync_rows),
            rowsEstimated: row.full_sync_rows_estimated === null ? null : Number(row.full_sync_rows_estimated),
            rowsPerSecond: row.full_sync_rows_per_second,
            secondsLeft: row.full_sync_seconds_left,
          },
  };
}
