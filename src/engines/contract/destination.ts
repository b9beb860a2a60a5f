/** Destination, changes: apply groups, routes, and what may be asked of a destination's tables. */
import type { Cell } from '../../model/changes.ts';
import type { Table, TableName } from '../../model/tables.ts';
import type { Position } from '../../model/position.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import type { CopyDestination } from './copies.ts';

/** One row of `positions`: a stream in an apply group. */
export interface GroupState {
  readonly stream: string;
  readonly group: string;
  readonly epoch: number;
  readonly position: Position;
  readonly routeVersion: number;
}

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

/** A stretch of changes made durable as bytes (src/sync/change-block.ts): opaque to the engine. */
export interface Block {
  readonly bytes: Uint8Array;
  readonly changes: number;
}

export interface StoredBlock extends Block {
  readonly seq: number;
}

export interface ApplyCounts {
  inserted: number;
  updated: number;
  deleted: number;
}

export interface Destination {
  /** Creates or upgrades what Sluice keeps in this database (schema `sluice`). Idempotent, safe from several processes. */
  prepare(): Promise<void>;
  /** The database's own identity, to notice that two configurations mean the same database. */
  identity(): Promise<string>;
  /** Stored groups of a stream; no lock. */
  groups(stream: string): Promise<GroupState[]>;
  /**
   * Fences the group for `epoch` (invariant 9) and opens the session that will commit its changes. Waits for a holder of
   * the row at most `lockWaitMs`, then terminates the sessions it stored (PROTOCOL, Ownership). Throws FENCED when the stored
   * epoch is not lower. With `create`: makes the row at that position if there is none.
   */
  takeGroup(options: {
    stream: string;
    group: string;
    epoch: number;
    lockWaitMs: number;
    create: Position | null;
  }): Promise<GroupApplier | null>;
  /**
   * After a gap: the group starts again at `position`; none of its mappings is live any more and their backlogs are gone. Their
   * tables keep the rows they have. Fenced by `epoch` like `takeGroup`.
   */
  resetGroup(options: {
    stream: string;
    group: string;
    epoch: number;
    lockWaitMs: number;
    position: Position;
  }): Promise<void>;
  /** Removes a group and all that belongs to it. */
  dropGroup(stream: string, group: string): Promise<void>;
  /** The copy side: generations, staging tables, folds and swaps. */
  readonly copies: CopyDestination;
  /**
   * Byte lanes this destination's loader understands for these columns of `table`, best first. A lane's name says all that
   * the bytes depend on: it can be used when the source lists the same name for the columns that go into these, in order.
   */
  lanes(table: Table, columns: readonly string[]): readonly string[];
  /** How `source` would be declared here: native types chosen, what does not translate listed. */
  design(source: Table, target: TableName, key: readonly string[]): TableDesign;
  /** The statements that make a table here hold what a source column holds, for hints. */
  readonly remedies: Remedies;
  /** Which of these can be kept from firing for our sessions. */
  suspends(): Promise<Suspends>;
  /** Every group, generation and staging table of this installation, for `doctor` and clean-up. */
  inventory(): Promise<{ stream: string | null; mappingUid: string | null; objects: string[] }[]>;
}

/** What of a table does not act on what our sessions write. */
export interface Suspends {
  readonly triggers: boolean;
  readonly foreignKeys: boolean;
}

/** Statements in order; none where this engine cannot say. `as`: the name of a column of `source`. */
export interface Remedies {
  /** Keeps the table's triggers and foreign keys from firing when this login writes to it. */
  suspendGuards(target: Table): readonly string[];
  /** Makes the table's rows part of transactions, where there are tables whose rows are not. */
  makeTransactional?(target: Table): readonly string[];
  addColumn(target: TableName, source: Table, as: string): readonly string[];
  allowNull(target: TableName, column: Table['columns'][number]): string;
  /** `column`: the destination's, which shall hold what `as` holds. */
  retype(target: TableName, column: Table['columns'][number], source: Table, as: string): readonly string[];
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

/**
 * Commits changes of one group. One session; one caller at a time. Any error other than FENCED leaves it usable after
 * `rollback`, unless the connection is lost (CONNECTION_LOST): then open another.
 */
export interface GroupApplier {
  /** With the position of the last commit. */
  readonly state: GroupState;
  /** The last position that a crash of the server cannot take back: `state.position`, or lower after lazy commits. */
  readonly durable: Position;
  /**
   * Locks the position row and checks epoch = ours and position = the one last written; FENCED otherwise. The routes are
   * those of the row's `route_version`, read under the lock.
   */
  begin(): Promise<GroupTransaction>;
  /** Keeps a piece of a transaction that is too large for memory, durably, in a small transaction of its own. */
  stage(block: Block): Promise<void>;
  /** Discards staged pieces (the reader starts again). */
  discardStaged(): Promise<void>;
  close(): Promise<void>;
}

export interface GroupTransaction {
  readonly routes: readonly Route[];
  /** Staged pieces of this epoch in order, one at a time; they are deleted by `commit`. */
  staged(): AsyncIterable<Block>;
  /** Applies collapsed changes to the route's live table. Throws ROW_REFUSED or SCHEMA_CHANGED: then roll back. */
  apply(route: Route, changes: KeyedChanges): Promise<ApplyCounts>;
  /**
   * What `work` applies to the route's table is undone when it throws, and the transaction goes on; also after a refused row.
   */
  attempt<T>(route: Route, work: () => Promise<T>): Promise<T>;
  /** Places of those keys that have no row in the route's table. */
  missing(route: Route, keys: readonly (readonly Cell[])[]): Promise<readonly number[]>;
  /** Of the route's table. */
  leftOut(route: Route): LeftOutRows;
  /** Appends to the route's backlog. */
  append(route: Route, block: Block): Promise<void>;
  /**
   * Stops applying to the mapping's table and opens a backlog that will be folded into it later (pause, failure). Takes
   * effect with this commit, which the caller routes accordingly. A mapping that is not live (its first copy runs) ends its copy
   * instead, which starts anew, and gets nothing until then: null.
   */
  hold(mappingUid: string): Promise<Route | null>;
  /** As `CopyDestination.reshape`; takes effect with this commit, which applies nothing else. */
  reshape(mappingUid: string, change: RouteChange): Promise<boolean>;
  /**
   * `lazily`: need not have reached the disk when it resolves, as far as the engine can; the next commit that is not lazy makes
   * it durable. Nothing of it may be acknowledged before (invariant 3).
   */
  commit(position: Position, options?: { lazily: boolean }): Promise<void>;
  rollback(): Promise<void>;
}

/**
 * Rows of a live table that are older than its position, or not there, because a newer state was refused: by `keyHash` of the rows' keys
 * (refused-rows.ts). Durable with the table's own transaction.
 */
export interface LeftOutRows {
  keys(): Promise<ReadonlySet<string>>;
  change(added: readonly string[], removed: readonly string[]): Promise<void>;
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
