/**
 * Everything a poll needs from the control tables, in three round trips however many mappings there are; and in one, of a
 * few dozen bytes, when nothing changed.
 *
 * How change is noticed: the database hashes the rows where they are (every column a poll acts upon; no counters), and the
 * process compares the hash with the last one. Times of change would miss rows written by a transaction that began
 * earlier and committed later, and deleted rows; a hash misses nothing. It is read *before* the rows: what changes in
 * between makes the next hash differ, and the rows are read again.
 */
import { createHash } from 'node:crypto';
import type { z } from 'zod';
import { SluiceError, type ErrorCode } from '../model/errors.ts';
import type { ControlContext, Queries } from './context.ts';
import { stateColumns, stateFrom, type MappingStateRow, type StateColumns } from './mapping-state.ts';
import { refuseNewer } from './migrate.ts';
import { MAPPING, PERSON_COLUMNS, SERVER } from './row-schemas.ts';

export interface ServerRow {
  readonly serverId: number;
  readonly name: string;
  /** As stored: secrets not resolved. Never log it. */
  readonly connectionString: string;
  readonly enabled: boolean;
  /** Differs when the person changed how to connect. */
  readonly personHash: string;
}

export interface OpenRequest {
  readonly requestId: number;
  readonly reason: string;
  readonly confirmed: boolean;
  readonly owner: string | null;
}

export interface MappingRow {
  readonly mappingId: number;
  readonly mappingUid: string;
  readonly serverId: number;
  readonly sourceDatabase: string | null;
  readonly sourceSchema: string | null;
  readonly sourceTable: string;
  /** Null: the control server. */
  readonly destServerId: number | null;
  readonly destDatabase: string | null;
  readonly destSchema: string | null;
  readonly destTable: string | null;
  /** Null: from the catalog. */
  readonly primaryKey: readonly string[] | null;
  readonly triggerColumn: string | null;
  readonly fullSyncFlag: boolean;
  readonly enabled: boolean;
  readonly cdcEnabled: boolean;
  readonly applyGroup: string | null;
  readonly initialSync: 'copy' | 'none';
  readonly onGap: 'stop' | 'resync';
  readonly maxFailedRows: number;
  readonly keepFailedValues: boolean;
  /** Of the person's columns; differs from `state.personHash` when the person changed the row since it was acted upon. */
  readonly personHash: string;
  /** Null: new, `MappingStates.ensure` makes it. */
  readonly state: MappingStateRow | null;
  readonly running: OpenRequest | null;
  readonly queued: OpenRequest | null;
}

/** A row that cannot be understood, to be reported on itself (F52); the others run. */
export interface InvalidRow {
  readonly table: 'source_servers' | 'destination_servers' | 'table_mappings';
  /** server_id or mapping_id. */
  readonly id: number;
  readonly mappingId: number | null;
  /** With it the caller may write the mapping's state, if it has one. */
  readonly mappingUid: string | null;
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string;
}

export interface PlanRows {
  readonly sources: ReadonlyMap<number, ServerRow>;
  readonly destinations: ReadonlyMap<number, ServerRow>;
  /** By mapping_id. */
  readonly mappings: readonly MappingRow[];
  readonly invalid: readonly InvalidRow[];
  /** Pass it to the next call. */
  readonly fingerprint: string;
  /** Differs when `config` changed: then read the settings. */
  readonly configFingerprint: string;
}

export interface UnchangedPlan {
  readonly unchanged: true;
  readonly configFingerprint: string;
}

interface RequestColumns {
  [prefixed: string]: unknown;
}

export class PlanReader {
  readonly #context: ControlContext;
  readonly #programVersion: number;

  constructor(context: ControlContext, programVersion: number) {
    this.#context = context;
    this.#programVersion = programVersion;
  }

  /**
   * `last`: the fingerprint of the previous answer; when nothing changed, only that is said. Rejects with CONTROL_TOO_NEW
   * when a newer program migrated meanwhile, CONTROL_UNREACHABLE and the like.
   */
  async read(last: string | null = null): Promise<PlanRows | UnchangedPlan> {
    return this.#context.run('read the control tables', async (queries) => {
      const seen = await this.#context.dialect.fingerprints(queries);
      refuseNewer(seen.minReaderVersion, this.#programVersion);
      if (seen.plan === last) return { unchanged: true, configFingerprint: seen.config };
      // Mappings first: a server is inserted before its mappings, so it is there when we look for it afterwards.
      const mappingRows = await selectMappings(this.#context, queries);
      const serverRows = await selectServers(queries);
      return this.#assemble(mappingRows, serverRows, seen.plan, seen.config);
    });
  }

  #assemble(
    mappingRows: Record<string, unknown>[],
    serverRows: Record<string, unknown>[],
    fingerprint: string,
    configFingerprint: string,
  ): PlanRows {
    const invalid: InvalidRow[] = [];
    const sources = new Map<number, ServerRow>();
    const destinations = new Map<number, ServerRow>();
    for (const row of serverRows) {
      const isSource = row['role'] === 'source';
      const parsed = SERVER.safeParse(row);
      if (parsed.success) {
        const { server_id, server_name, connection_string, is_enabled } = parsed.data;
        const server = {
          serverId: server_id,
          name: server_name,
          connectionString: connection_string,
          enabled: is_enabled,
          personHash: hashOf([connection_string]),
        };
        (isSource ? sources : destinations).set(server_id, server);
      } else {
        const table = isSource ? 'source_servers' : 'destination_servers';
        invalid.push(problemOf(table, 'server_id', row, parsed.error));
      }
    }
    const mappings: MappingRow[] = [];
    for (const row of mappingRows) {
      const parsed = MAPPING.safeParse(row);
      if (parsed.success) mappings.push(mappingFrom(parsed.data, row));
      else invalid.push(problemOf('table_mappings', 'mapping_id', row, parsed.error));
    }
    return { sources, destinations, mappings, invalid, fingerprint, configFingerprint };
  }
}

function problemOf(
  table: InvalidRow['table'],
  idColumn: 'server_id' | 'mapping_id',
  row: Record<string, unknown>,
  error: z.ZodError,
): InvalidRow {
  const id = Number(row[idColumn]);
  const isMapping = table === 'table_mappings';
  const details = error.issues.map((issue) => `${issue.path.join('.')} ${issue.message}`).join('; ');
  const column = String(error.issues[0]?.path[0] ?? 'the column');
  const problem = new SluiceError('MAPPING_INVALID', `${table}, ${idColumn} ${id}: ${details}`);
  return {
    table,
    id,
    mappingId: isMapping ? id : null,
    mappingUid: isMapping ? String(row['mapping_uid']) : null,
    code: problem.code,
    message: problem.message,
    hint: `UPDATE ${table} SET ${column} = … WHERE ${idColumn} = ${id}; it is read again at the next poll.`,
  };
}

function mappingFrom(data: z.infer<typeof MAPPING>, row: Record<string, unknown>): MappingRow {
  return {
    mappingId: data.mapping_id,
    mappingUid: data.mapping_uid,
    serverId: data.server_id,
    sourceDatabase: data.source_database,
    sourceSchema: data.source_schema,
    sourceTable: data.source_table,
    destServerId: data.dest_server_id,
    destDatabase: data.dest_database,
    destSchema: data.dest_schema,
    destTable: data.dest_table,
    primaryKey: data.primary_key_column,
    triggerColumn: data.full_sync_trigger_column,
    fullSyncFlag: data.is_full_sync,
    enabled: data.is_enabled,
    cdcEnabled: data.cdc_enabled,
    applyGroup: data.apply_group,
    initialSync: data.initial_sync === 'none' ? 'none' : 'copy',
    onGap: data.on_gap === 'resync' ? 'resync' : 'stop',
    maxFailedRows: data.max_failed_rows,
    keepFailedValues: data.keep_failed_values,
    personHash: personHash(row),
    state: row['state_uid'] === null ? null : stateFrom(row as unknown as StateColumns),
    running: requestFrom('running', row),
    queued: requestFrom('queued', row),
  };
}

/** Over the columns as they are stored, so that any edit counts, also one that means the same. */
function personHash(row: Record<string, unknown>): string {
  return hashOf(PERSON_COLUMNS.map((column) => row[column]));
}

function hashOf(values: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(values)).digest('hex');
}

function requestFrom(kind: 'running' | 'queued', row: RequestColumns): OpenRequest | null {
  const id = row[`${kind}_id`];
  if (id === null || id === undefined) return null;
  return {
    requestId: Number(id),
    reason: String(row[`${kind}_reason`]),
    confirmed: row[`${kind}_confirmed`] === 1,
    owner: (row[`${kind}_owner`] as string | null) ?? null,
  };
}

function selectMappings(context: ControlContext, queries: Queries): Promise<Record<string, unknown>[]> {
  const query = queries('table_mappings as m')
    .leftJoin('mapping_state as s', 's.mapping_uid', 'm.mapping_uid')
    .select(Object.keys(MAPPING.shape).map((column) => `m.${column}`))
    .select(stateColumns(context, queries));
  for (const kind of ['running', 'queued']) {
    void query
      .leftJoin(`full_sync_requests as ${kind}`, (join) => {
        join.on(`${kind}.mapping_uid`, 'm.mapping_uid').andOnVal(`${kind}.status`, kind);
      })
      .select(
        `${kind}.request_id as ${kind}_id`,
        `${kind}.reason as ${kind}_reason`,
        `${kind}.is_confirmed as ${kind}_confirmed`,
        `${kind}.owner as ${kind}_owner`,
      );
  }
  return query.orderBy('m.mapping_id').then((rows) => rows as Record<string, unknown>[]);
}

function selectServers(queries: Queries): Promise<Record<string, unknown>[]> {
  const columns = ['server_id', 'server_name', 'connection_string', 'is_enabled'];
  const of = (table: string, role: string) =>
    queries(table)
      .select(columns)
      .select(queries.raw('? as role', [role]));
  return of('source_servers', 'source')
    .unionAll([of('destination_servers', 'destination')])
    .then((rows) => rows as Record<string, unknown>[]);
}
