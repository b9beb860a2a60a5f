/** What the control tables ask for, as streams, groups and mappings. Pure: it reads rows and decides, it does nothing. */
import { createHash } from 'node:crypto';
import type { InvalidRow, MappingRow } from '../control/index.ts';
import { engineOf } from '../engines/registry.ts';
import { SluiceError } from '../model/errors.ts';
import type { TableName } from '../model/tables.ts';
import type { Place, ResolvedServer, StreamPlace } from './fleet.ts';
import { streamName } from './stream-name.ts';

export interface PlannedMapping {
  readonly row: MappingRow;
  readonly source: Place;
  readonly destination: Place;
  readonly sourceTable: TableName;
  readonly target: TableName;
  /** Null: `cdc_enabled = 0`. */
  readonly stream: string | null;
  /** Where its stream is read, if it has one. */
  readonly streamPlace: StreamPlace;
  readonly group: string;
  /** The group and its destination: unique within the stream. */
  readonly groupId: string;
  /** Mapping, server and destination server are all enabled. */
  readonly enabled: boolean;
  /** For logs and errors. */
  readonly label: string;
}

export interface PlannedGroup {
  readonly id: string;
  readonly group: string;
  readonly destination: Place;
  readonly mappings: readonly PlannedMapping[];
}

export interface PlannedStream {
  readonly stream: string;
  readonly source: StreamPlace;
  readonly groups: ReadonlyMap<string, PlannedGroup>;
}

export interface MappingProblem {
  readonly row: MappingRow;
  readonly error: SluiceError;
}

export interface Plan {
  readonly mappings: readonly PlannedMapping[];
  /** Streams that somebody needs: an enabled mapping, or a paused one that keeps its backlog. */
  readonly streams: ReadonlyMap<string, PlannedStream>;
  readonly problems: readonly MappingProblem[];
  readonly invalid: readonly InvalidRow[];
}

export interface PlanInput {
  readonly installationUid: string;
  readonly sources: ReadonlyMap<number, ResolvedServer>;
  readonly destinations: ReadonlyMap<number, ResolvedServer>;
  /** Where `dest_server_id` NULL points. */
  readonly controlServer: ResolvedServer;
  readonly mappings: readonly MappingRow[];
  readonly invalid: readonly InvalidRow[];
}

const DEFAULT_GROUP = 'main';

export function plan(input: PlanInput): Plan {
  const mappings: PlannedMapping[] = [];
  const problems: MappingProblem[] = [];
  const taken = new Map<string, MappingRow>();
  for (const row of input.mappings) {
    try {
      const planned = place(input, row);
      // The first to name a destination table has it (F54).
      const key = [
        planned.destination.server.connectionString,
        planned.destination.database,
        planned.target.schema,
        planned.target.table,
      ].join('\u0000');
      const other = taken.get(key);
      if (other) {
        throw new SluiceError(
          'DESTINATION_TAKEN',
          `${planned.label}: mapping ${other.mappingId} already writes to this destination table`,
          {
            hint: 'Give one of the two another dest_database, dest_schema or dest_table, or delete it.',
          },
        );
      }
      taken.set(key, row);
      mappings.push(planned);
    } catch (error) {
      problems.push({
        row,
        error: error instanceof SluiceError ? error : new SluiceError('INTERNAL', String(error), { cause: error }),
      });
    }
  }
  return { mappings, streams: streamsOf(mappings), problems, invalid: input.invalid };
}

function place(input: PlanInput, row: MappingRow): PlannedMapping {
  const label = `mapping ${row.mappingId} (${row.sourceTable})`;
  const sourceServer = requireServer(label, 'source_servers', row.serverId, input.sources.get(row.serverId));
  const destServer =
    row.destServerId === null
      ? input.controlServer
      : requireServer(label, 'destination_servers', row.destServerId, input.destinations.get(row.destServerId));
  const sourceEngine = engineOf(sourceServer.connectionString);
  const destEngine = engineOf(destServer.connectionString);
  const sourceDatabase = row.sourceDatabase ?? sourceEngine.databaseOf(sourceServer.connectionString);
  if (sourceDatabase === null) {
    throw new SluiceError(
      'MAPPING_INVALID',
      `${label}: neither source_database nor the connection string names a database`,
      {
        hint: `UPDATE table_mappings SET source_database = '…' WHERE mapping_id = ${row.mappingId};`,
      },
    );
  }
  const destDatabase = row.destDatabase ?? sourceDatabase;
  const isServerWide = sourceEngine.streamScope === 'server';
  const sourceTable = {
    schema: row.sourceSchema ?? (isServerWide ? sourceDatabase : sourceEngine.defaultSchema),
    table: row.sourceTable,
  };
  const target = {
    schema:
      row.destSchema ??
      (row.sourceSchema === null || sourceEngine.name !== destEngine.name
        ? destEngine.defaultSchema
        : row.sourceSchema),
    table: row.destTable ?? row.sourceTable,
  };
  if (
    sourceServer.connectionString === destServer.connectionString &&
    sourceDatabase === destDatabase &&
    (row.sourceSchema ?? sourceEngine.defaultSchema) === target.schema &&
    sourceTable.table === target.table
  ) {
    throw new SluiceError('MAPPING_INVALID', `${label}: source and destination are the same table`, {
      hint: 'Set dest_database, dest_schema or dest_table to another place.',
    });
  }
  // Two rows may name the same server, under two names of its host: each has groups of its own there.
  const group = `${row.applyGroup ?? DEFAULT_GROUP}${destServer.serverId === null ? '' : `@${destServer.serverId}`}`;
  const streamPlace = { server: sourceServer, database: isServerWide ? null : sourceDatabase };
  return {
    row: row.sourceDatabase === null ? { ...row, personHash: hashOf(row.personHash, sourceDatabase) } : row,
    label,
    source: { server: sourceServer, database: sourceDatabase },
    destination: { server: destServer, database: destDatabase },
    sourceTable,
    target,
    stream: row.cdcEnabled ? streamName(input.installationUid, row.serverId, streamPlace.database) : null,
    streamPlace,
    group,
    groupId: `${destServer.serverId ?? 'control'}/${destDatabase}/${group}`,
    enabled: row.enabled && sourceServer.enabled && destServer.enabled,
  };
}

/** A database that the connection string names instead of the row is as much part of what the person asks for. */
function hashOf(personHash: string, sourceDatabase: string): string {
  return createHash('sha256')
    .update(JSON.stringify([personHash, sourceDatabase]))
    .digest('hex');
}

function requireServer(label: string, table: string, id: number, server: ResolvedServer | undefined): ResolvedServer {
  if (!server) {
    throw new SluiceError('MAPPING_INVALID', `${label}: the row of ${table} with server_id ${id} cannot be used`, {
      hint: `SELECT * FROM v_recent_errors says what is wrong with it.`,
    });
  }
  if (!server.error) return server;
  const { code, message, hint, retry } = server.error;
  throw new SluiceError(code, `${label}: ${table}, server_id ${id}: ${message}`, {
    hint: hint ?? undefined,
    retry,
    cause: server.error,
  });
}

function streamsOf(mappings: readonly PlannedMapping[]): Map<string, PlannedStream> {
  const streams = new Map<string, Draft>();
  for (const mapping of mappings) {
    // A disabled server is not read at all; a disabled mapping keeps its backlog (PROTOCOL, Changes).
    if (mapping.stream === null || !mapping.source.server.enabled || !mapping.destination.server.enabled) continue;
    const stream = streams.get(mapping.stream) ?? draftOf(mapping.stream, mapping.streamPlace);
    streams.set(mapping.stream, stream);
    const group = stream.groups.get(mapping.groupId) ?? {
      id: mapping.groupId,
      group: mapping.group,
      destination: mapping.destination,
      mappings: [],
    };
    stream.groups.set(mapping.groupId, group);
    group.mappings.push(mapping);
  }
  for (const [name, stream] of streams) {
    const isWanted = [...stream.groups.values()].some((group) =>
      group.mappings.some((mapping) => mapping.enabled || hasPlace(mapping)),
    );
    if (!isWanted) streams.delete(name);
  }
  return streams;
}

interface Draft {
  readonly stream: string;
  readonly source: StreamPlace;
  readonly groups: Map<string, { id: string; group: string; destination: Place; mappings: PlannedMapping[] }>;
}

function draftOf(stream: string, source: StreamPlace): Draft {
  return { stream, source, groups: new Map() };
}

/** Its changes go to its table by this stream; by another one before, it is yet to be settled. */
export function isServedBy({ row: { state } }: PlannedMapping, stream: string): boolean {
  return state?.state === 'streaming' && state.stream === stream;
}

/** Paused, it still wants its changes kept, so that enabling it again loses nothing. */
function hasPlace(mapping: PlannedMapping): boolean {
  const state = mapping.row.state;
  return state !== null && state.stream !== null && ['copying', 'streaming', 'paused', 'failed'].includes(state.state);
}
