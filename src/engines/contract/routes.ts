/** Where changes go: routes, the tables they lead to, and changes kept for later as blocks. */
import type { Table, TableName } from '../../model/tables.ts';

/** Where a mapping's changes go. Read under the position row's lock; every change bumps `route_version`. */
export interface Route {
  readonly mappingUid: string;
  /** The source's relation: by id first, so that a renamed table is noticed. */
  readonly relationId: string;
  readonly source: TableName;
  readonly target: TableName;
  /** Source columns that are carried, in order, with the destination's names. */
  readonly columns: readonly RouteColumn[];
  /** Source names of the key columns. */
  readonly key: readonly string[];
  /** The source's `Table.storage` when the route was made. */
  readonly storage?: string | null;
  /** The source's `Table.capture`, or what succeeded it since. */
  readonly capture?: string | null;
  /** Apply to the target table. */
  readonly live: boolean;
  /** The copy that the target table's rows are of; never the same number twice. */
  readonly liveGeneration?: number | null;
  /** Append to the backlog, for a copy (folded into its staging table) or because the mapping is held (folded into the target). */
  readonly backlog: 'copy' | 'hold' | null;
  readonly generation: number | null;
}

export interface RouteColumn {
  readonly source: string;
  readonly target: string;
  /** The source column's `id` and `streamType` when the route was made. */
  readonly id?: string;
  readonly type?: string;
}

/** The source's columns changed: what the live route carries from now on. */
export interface RouteChange {
  readonly columns: readonly RouteColumn[];
  /** Target names among them that the destination table does not have yet: added as `design` declares them, NULL allowed. */
  readonly added: readonly string[];
  readonly design: TableDesign;
  /** The route's `capture` from now on; absent: as it is. */
  readonly capture?: string;
}

export interface TableDesign {
  readonly target: TableName;
  readonly columns: readonly {
    source: string;
    target: string;
    nativeType: string;
    type: Table['columns'][number]['type'];
    /** As it is declared, where NULL could become it in a load. */
    default?: string;
  }[];
  readonly key: readonly string[];
  /** Statements in order: the table, then (after the load) key and secondary indexes. For display and for `createTable`. */
  readonly ddl: readonly string[];
  /** What is left out and why (defaults, indexes, generated expressions that do not translate). */
  readonly leftOut: readonly string[];
}

/** A stretch of changes made durable as bytes (src/sync/change-block.ts): opaque to the engine. */
export interface Block {
  readonly bytes: Uint8Array;
  readonly changes: number;
}

export interface StoredBlock extends Block {
  readonly seq: number;
}
