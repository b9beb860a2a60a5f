/** Rows of `full_sync_requests`, as stored and as the program sees them. */

export type RequestReason = 'flag' | 'trigger' | 'cli' | 'api' | 'initial' | 'gap' | 'schema_change';
export type RequestStatus = 'queued' | 'running' | 'completed' | 'failed' | 'cancelled';

export interface FullSyncRequest {
  readonly requestId: number;
  readonly mappingId: number;
  readonly mappingUid: string;
  readonly reason: RequestReason;
  readonly status: RequestStatus;
  /** false: asked for by a trigger column that is not yet known to be reset; it does not run before `confirm`. */
  readonly confirmed: boolean;
  readonly flagFlip: number | null;
  readonly owner: string | null;
  readonly requestedBy: string | null;
  readonly requestedAt: Date;
  readonly startedAt: Date | null;
  readonly finishedAt: Date | null;
  readonly rowsCopied: number | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
}

export interface FinishedRequest {
  readonly outcome: 'completed' | 'failed' | 'cancelled';
  readonly rowsCopied?: number;
  readonly errorCode?: string;
  readonly errorMessage?: string;
}

export interface RequestRow {
  request_id: string;
  mapping_id: number;
  mapping_uid: string;
  reason: RequestReason;
  status: RequestStatus;
  is_confirmed: number;
  flag_flip: string | null;
  owner: string | null;
  requested_by: string | null;
  requested_at: Date;
  started_at: Date | null;
  finished_at: Date | null;
  rows_copied: string | null;
  error_code: string | null;
  error_message: string | null;
}

export function fromRow(row: RequestRow): FullSyncRequest {
  return {
    requestId: Number(row.request_id),
    mappingId: row.mapping_id,
    mappingUid: row.mapping_uid,
    reason: row.reason,
    status: row.status,
    confirmed: row.is_confirmed === 1,
    flagFlip: row.flag_flip === null ? null : Number(row.flag_flip),
    owner: row.owner,
    requestedBy: row.requested_by,
    requestedAt: row.requested_at,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
    rowsCopied: row.rows_copied === null ? null : Number(row.rows_copied),
    errorCode: row.error_code,
    errorMessage: row.error_message,
  };
}
