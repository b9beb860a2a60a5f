/** Destination, copies: generations from their staging table to their replacement, and folds. */
import type { Table, TableName } from '../../model/tables.ts';
import type { Position } from '../../model/position.ts';
import type { Cell, RowBatch } from '../../model/changes.ts';
import type { SluiceError } from '../../model/errors.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import type { ApplyCounts, LeftOutRows } from './groups.ts';
import type { Route, RouteChange, RouteColumn, StoredBlock, TableDesign } from './routes.ts';
import type { Chunk, ChunkPlan, RowStream } from './snapshot.ts';

export interface GenerationRequest {
  readonly stream: string | null;
  readonly group: string;
  readonly mappingUid: string;
  /** The copier's epoch: fences this copier against an earlier one. */
  readonly copyEpoch: number;
  readonly requestId: number;
  readonly source: Table;
  readonly key: readonly string[];
  readonly columns: readonly RouteColumn[];
  readonly design: TableDesign;
  readonly target: TableName;
  /** The table that is there already; null: the copy becomes the table. */
  readonly live: Table | null;
  readonly lockWaitMs: number;
}

/** What the destination says of a mapping; survives the control database. */
export interface GenerationState {
  readonly mappingUid: string;
  readonly liveGeneration: number | null;
  readonly copyGeneration: number | null;
  readonly route: Route | null;
  readonly finishedRequest: number | null;
  readonly copyRequest: number | null;
  /** The highest epoch a copier had; draw the next one above it. */
  readonly copyEpoch: number;
  readonly backlogBytes: number;
}

export interface CopyDestination {
  /** Mappings, of any installation, that fill or are filling this table. */
  writers(target: TableName): Promise<string[]>;
  /** One round trip. Missing mappings are left out. */
  states(mappingUids: readonly string[]): Promise<GenerationState[]>;
  /**
   * Starts a generation, or takes up the one that `requestId` had begun (its copier died). Under the position row's lock
   * (when there is a stream): the generation row, the opened backlog, route_version + 1. Null when the group's position row does
   * not exist yet: the stream's owner makes it; try again.
   */
  open(request: GenerationRequest): Promise<CopySession | null>;
  /** Ends a copy without replacing anything: staging and backlog go, the live table keeps receiving changes. */
  abandon(mappingUid: string): Promise<void>;
  /** Opens the fold of a held mapping's backlog into its own table. Null: nothing is held. */
  openHeld(mappingUid: string, copyEpoch: number, lockWaitMs: number): Promise<FoldSession | null>;
  /** Marks an existing table as filled without a copy (`initial_sync = 'none'`): routed live from the group's position on. */
  adopt(request: GenerationRequest): Promise<boolean>;
  /** Holds the changes of a mapping (pause): as `GroupTransaction.hold`, by itself. False: no stream, nothing to hold. */
  hold(mappingUid: string, lockWaitMs: number): Promise<boolean>;
  /**
   * Changes the columns of a live or held route, and adds columns to its table. False, and nothing done: the table has such a
   * column already, is locked by others, or the login may not alter it. SCHEMA_CHANGED: a column that is no longer carried
   * cannot be left out, because it is NOT NULL and has no default.
   */
  reshape(mappingUid: string, change: RouteChange, lockWaitMs: number): Promise<boolean>;
  /** Adds columns to a table that copies have filled before, NULL allowed. Readers wait for a moment. */
  addColumns(target: TableName, design: TableDesign, columns: readonly string[]): Promise<void>;
  /** The mapping left: route, backlog, staging and generation row go; the table stays. */
  forget(mappingUid: string): Promise<void>;
}

/**
 * What is done with the blocks that wait. `apply` changes the table that is folded into; `missing` tells which of some keys have no
 * row in it now (their places in the list); `attempt` undoes what its work applied when that throws; `leftOut`: of the table, where it is a
 * live one, null of a staging table. They act in the round's transaction.
 */
export type FoldWork = (
  blocks: AsyncIterable<StoredBlock>,
  apply: (changes: KeyedChanges) => Promise<ApplyCounts>,
  missing: (keys: readonly (readonly Cell[])[]) => Promise<readonly number[]>,
  attempt: <T>(work: () => Promise<T>) => Promise<T>,
  leftOut: LeftOutRows | null,
) => Promise<void>;

/** Applies a backlog in rounds. Folding and applying are the same code: blocks → collapse → `apply`. */
export interface FoldSession {
  readonly generation: number;
  readonly route: Route;
  /** The group's position now (null without a stream): the backlog holds everything at or below it. */
  position(): Promise<Position | null>;
  /** Bytes that wait to be folded. */
  backlogBytes(): Promise<number>;
  /**
   * One round, one transaction: gives `fold` the blocks that wait, in order, at most about `maxBytes` of them; what `fold`
   * applies and the mark of how far it came commit together. Resolves to the number of blocks folded.
   */
  round(maxBytes: number, fold: FoldWork): Promise<number>;
  /**
   * The last act under the position row's lock: everything left is folded, then (a copy) the staging table replaces the
   * live rows and (always) the route goes to the live table and the backlog is dropped, in one transaction. Locks on tables are
   * waited for at most 1 s: then nothing has happened and `false` is returned; call again.
   */
  finish(fold: FoldWork): Promise<boolean>;
  close(): Promise<void>;
}

/** One copy, from its staging table to its replacement. `load` may be called by several at once; the rest by one. */
export interface CopySession extends FoldSession {
  /** The chunk plan stored with the generation: null until `savePlan`. A resumed copy goes on with it. */
  plan(): Promise<ChunkPlan | null>;
  savePlan(plan: ChunkPlan): Promise<void>;
  /** Chunks that are in: rows by id. */
  loadedChunks(): Promise<ReadonlyMap<number, number>>;
  /** Throws away what was loaded (COPY_RESTARTED): empty staging table, no plan; the whole backlog waits to be folded again. */
  restart(): Promise<void>;
  /** Loads one chunk: rows and the mark that it is in commit together, checked against the copier's epoch. Returns rows. */
  load(chunk: Chunk, rows: RowStream): Promise<number>;
  /**
   * Why the staging table does not take these rows (ROW_REFUSED); null: it does. Nothing is kept of them. On a session of its own: a chunk may be
   * loading meanwhile, but not these rows.
   */
  refusal(rows: RowBatch): Promise<SluiceError | null>;
  /** Reduces keys that were loaded twice to one row each and builds the key index. Idempotent. */
  buildKey(): Promise<void>;
  /** Builds the other indexes and refreshes statistics; before the last folds. Idempotent. */
  buildIndexes(): Promise<void>;
  /** Without a lock: finds the keys in which staging and live table differ (re-copies only). */
  compare(): Promise<{ differing: number }>;
}
