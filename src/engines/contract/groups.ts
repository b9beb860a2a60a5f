/** Destination, changes: the groups that commit them, each in one session, together with their position. */
import type { Cell } from '../../model/changes.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import type { Position } from '../../model/position.ts';
import type { Block, Route, RouteChange } from './routes.ts';

/** One row of `positions`: a stream in an apply group. */
export interface GroupState {
  readonly stream: string;
  readonly group: string;
  readonly epoch: number;
  readonly position: Position;
  readonly routeVersion: number;
}

export interface ApplyCounts {
  inserted: number;
  updated: number;
  deleted: number;
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
