/** Carries the changes of a piece to where each mapping's route says: its live table, its backlog, or both. */
import type { TableChanges } from '../model/changes.ts';
import { SluiceError } from '../model/errors.ts';
import type { KeyedChanges } from '../model/keyed-changes.ts';
import { displayName, tableKey } from '../model/tables.ts';
import type { ApplyCounts, GroupTransaction, Route } from '../engines/contract.ts';
import { encodeBlocks } from './change-block.ts';
import { Collapse } from './collapse.ts';
import type { AbsentSource } from './absent-values.ts';
import { applyKnowing } from './left-out-rows.ts';
import type { Sparing } from './refused-rows.ts';

/**
 * Blocks of a backlog: large enough to be few, small enough to be read one at a time, and for a server that takes no packet larger than
 * 1 MiB (max_allowed_packet, the default of old ones). One that holds a larger row is larger.
 */
export const BLOCK_BYTES = 3 << 18;

/** An error of one mapping's own: the others go on without it (invariant 8). */
export class MappingFailure extends Error {
  readonly mappingUid: string;
  readonly error: SluiceError;
  constructor(mappingUid: string, error: SluiceError) {
    super(error.message);
    this.mappingUid = mappingUid;
    this.error = error;
  }
}

/** Errors that are the mapping's, not the connection's or the server's. */
const OF_THE_MAPPING: ReadonlySet<string> = new Set([
  // Somebody locks the table: its changes wait in a backlog, the group's other tables do not.
  'TIMEOUT',
  'ROW_REFUSED',
  'SCHEMA_CHANGED',
  'DESTINATION_TABLE_MISSING',
  'PERMISSION_DENIED',
  'DESTINATION_GUARDED',
  'SOURCE_TABLE_REPLACED',
  'INTERNAL',
]);

export type Routed = ReadonlyMap<string, { route: Route; tables: TableChanges[] }>;

/**
 * Groups changes by mapping. A table that no route wants is left out: it is in the stream for another group, or since its mapping left. One
 * that was renamed is known by its id: its changes must not get lost between the two names.
 */
export function routeChanges(tables: readonly TableChanges[], routes: readonly Route[]): Routed {
  const bySource = new Map<string, Route[]>();
  const byId = new Map<string, Route[]>();
  for (const route of routes) {
    const name = tableKey(route.source);
    bySource.set(name, [...(bySource.get(name) ?? []), route]);
    byId.set(route.relationId, [...(byId.get(route.relationId) ?? []), route]);
  }
  const routed = new Map<string, { route: Route; tables: TableChanges[] }>();
  for (const changes of tables) {
    const { name, id } = changes.relation;
    const named = bySource.get(tableKey(name)) ?? [];
    const renamed = (byId.get(id) ?? []).filter((route) => !named.includes(route));
    for (const route of [...named, ...renamed]) {
      const entry = routed.get(route.mappingUid) ?? { route, tables: [] };
      entry.tables.push(changes);
      routed.set(route.mappingUid, entry);
    }
  }
  return routed;
}

/** The mapping's changes by key. Throws when they are another table's, or lack its key. */
function collapsed(route: Route, tables: readonly TableChanges[]): Collapsed {
  const collapse = new Collapse(
    route.columns.map((column) => column.source),
    route.key,
  );
  for (const changes of tables) {
    requireSameTable(changes, route);
    collapse.add(changes);
  }
  return { changes: collapse.result(), visibility: collapse.visibility };
}

interface Collapsed {
  readonly changes: KeyedChanges;
  readonly visibility: readonly string[];
}

/** What is known of changes before their transaction begins. */
export interface Prepared {
  readonly routed: Routed;
  /** By mapping; one that is not here is collapsed when it is applied. */
  readonly collapsed: ReadonlyMap<string, Collapsed>;
}

export function prepare(tables: readonly TableChanges[], routes: readonly Route[]): Prepared {
  const routed = routeChanges(tables, routes);
  const ready = new Map<string, Collapsed>();
  for (const [mappingUid, { route, tables: own }] of routed) {
    if (!route.live) continue;
    try {
      ready.set(mappingUid, collapsed(route, own));
    } catch {
      // Thrown again where it is told whose trouble it is.
    }
  }
  return { routed, collapsed: ready };
}

export interface Carrying {
  /** Of mappings whose rows were refused before, by mapping. */
  readonly sparing: ReadonlyMap<string, Sparing>;
  /** Where values that a change lacks are fetched. */
  readonly absent: (route: Route) => Promise<AbsentSource>;
}

/** Applies and appends within the transaction. Throws MappingFailure for what only one mapping is to blame for. */
export async function carry(
  transaction: GroupTransaction,
  { routed, collapsed: ready }: Prepared,
  { sparing, absent }: Carrying,
): Promise<Map<string, ApplyCounts>> {
  const counts = new Map<string, ApplyCounts>();
  for (const [mappingUid, { route, tables }] of routed) {
    try {
      if (route.live) {
        const { changes, visibility } = ready.get(mappingUid) ?? collapsed(route, tables);
        const spared = sparing.get(mappingUid);
        const { counts: applied } = await applyKnowing(changes, visibility, {
          apply: (part) => transaction.apply(route, part),
          attempt: (work) => transaction.attempt(route, work),
          missing: (keys) => transaction.missing(route, keys),
          leftOut: transaction.leftOut(route),
          source: () => absent(route),
          sparing: spared ?? null,
        });
        counts.set(mappingUid, applied);
      }
      if (route.backlog !== null) {
        for (const each of tables) {
          for (const block of encodeBlocks(each, BLOCK_BYTES)) await transaction.append(route, block);
        }
      }
    } catch (error) {
      if (error instanceof SluiceError && OF_THE_MAPPING.has(error.code)) throw new MappingFailure(mappingUid, error);
      throw error;
    }
  }
  return counts;
}

/** Another table under the same name is another table: its rows do not belong here until a copy says so. */
function requireSameTable({ relation }: TableChanges, route: Route): void {
  if (relation.id === route.relationId) {
    if (tableKey(relation.name) === tableKey(route.source)) return;
    throw new SluiceError(
      'SOURCE_TABLE_REPLACED',
      `the source's table ${displayName(route.source)} was renamed to ${displayName(relation.name)}; its changes are kept`,
      {
        hint: 'Rename it back and disable and enable the mapping, or set source_schema and source_table to the new name.',
      },
    );
  }
  throw new SluiceError(
    'SOURCE_TABLE_REPLACED',
    `the source's table ${displayName(route.source)} was replaced by another of that name`,
    {
      hint: 'Set is_full_sync = 1 to copy the new table.',
    },
  );
}
