/**
 * The engine contract: small capabilities, composed. An engine implements what it can; the planner asks for a
 * capability and never for an engine's name (DESIGN §6). Nothing here may assume one engine.
 *
 * Concurrency, everywhere: an `EngineDatabase` and its capabilities may be used by many jobs at once. What is *opened*
 * from them (readers, appliers, copies) is a session: one caller at a time, unless its own comment says otherwise.
 * All methods reject with SluiceError; drivers' errors never leave an engine's folder.
 */
import type { Table, TableName } from '../model/tables.ts';
import type { Position, PositionOrder } from '../model/position.ts';
import type { Cell, ChangePiece, ChangeRelation, RowBatch } from '../model/changes.ts';
import type { KeyedChanges } from '../model/keyed-changes.ts';
import type { Finding } from '../model/findings.ts';

export interface Engine {
  readonly name: string;
  /** URL schemes of connection strings, without `://`. */
  readonly schemes: readonly string[];
  /** Recognizes connection strings of another form than a URL (`server=…;user id=…`). */
  understands?(connectionString: string): boolean;
  /** Checks a connection string without connecting. Throws MAPPING_INVALID with a hint; the message holds no secret. */
  check(connectionString: string): void;
  /** The database a connection string names, or null. */
  databaseOf(connectionString: string): string | null;
  /** The schema that a NULL `source_schema`/`dest_schema` means. */
  readonly defaultSchema: string;
  /** Opens a handle; sessions are made when first needed, so this does not connect. */
  open(options: OpenOptions): EngineDatabase;
}

export interface OpenOptions {
  /** Secrets already resolved. */
  readonly connectionString: string;
  /** The database; wins over the string's. Null: the string's. */
  readonly database: string | null;
  /** Names our slots, publications, staging tables and position rows. */
  readonly installation: Installation;
  /** Shown to the DBA by the server (application_name and the like). */
  readonly applicationName: string;
  /** Idle sessions kept for short queries. */
  readonly maxSessions?: number;
}

export interface Installation {
  /** The control database's `installation_uid`. */
  readonly uid: string;
}

/** One database of one server. */
export interface EngineDatabase {
  readonly engine: Engine;
  /** Connects and asks for the version; the cheapest proof that the server is there. */
  ping(): Promise<{ version: string }>;
  readonly catalog: Catalog;
  readonly preflight: Preflight | null;
  readonly snapshot: SnapshotSource | null;
  readonly changes: ChangeSource | null;
  readonly destination: Destination | null;
  readonly checksum: Checksummer | null;
  readonly triggers: TriggerSource | null;
  /** Ends every session, readers and appliers included. Safe to call twice. */
  close(): Promise<void>;
}

export interface Catalog {
  /** The tables as they are now, in one round trip; null for one that is missing or not visible. Same order as asked. */
  describe(names: readonly TableName[]): Promise<(Table | null)[]>;
  /** No row is visible. Reads at most one. */
  isEmpty(name: TableName): Promise<boolean>;
}

/** What is missing for a role, each with the exact SQL that fixes it. */
export interface Preflight {
  /** Findings for following `tables` (none named: for the server alone). An empty list means ready. */
  source(tables: readonly TableName[], options: { cdc: boolean }): Promise<Finding[]>;
  destination(): Promise<Finding[]>;
}

// ---------------------------------------------------------------------------------------------------------------------
// Source: full copies

/** One short read of a copy, resumable by `id`. Everything else in it is the engine's own. */
export interface Chunk {
  readonly id: number;
  /** The engine's bounds, as text that can be stored and given back after a restart. */
  readonly bounds: string;
}

export interface ChunkPlan {
  /**
   * What the chunks' bounds depend on (PostgreSQL: the relation's filenodes). A chunk is read only while it is still
   * this; otherwise `readChunk` fails with COPY_RESTARTED.
   */
  readonly layout: string;
  readonly chunks: readonly Chunk[];
  readonly estimatedRows: number | null;
  readonly estimatedBytes: number;
  /** `ChangeSource.incarnation` when the copy began: another one later starts it again. Absent: no stream. */
  readonly incarnation?: string;
}

/**
 * Rows on their way. `format` 'cells' is understood by every loader; any other name is a private byte lane between a
 * source and a loader that both list it (`lanes`).
 */
export type RowStream =
  | { readonly format: 'cells'; readonly batches: AsyncIterable<RowBatch> }
  | { readonly format: string; readonly bytes: AsyncIterable<Uint8Array> };

export interface SnapshotSource {
  /** Byte lanes this source can write for these columns, best first; 'cells' is always understood besides. */
  lanes(table: Table, columns: readonly string[]): readonly string[];
  /** Splits the table into chunks of about `targetBytes`. The last is open-ended, so that no row falls behind it. */
  planChunks(table: Table, options: { targetBytes: number }): Promise<ChunkPlan>;
  /**
   * Reads one chunk in a short transaction of its own. The stream ends only after the layout was checked inside that
   * transaction; an error (COPY_RESTARTED among them) is thrown by the iteration. Not iterating to the end closes the session.
   */
  readChunk(table: Table, layout: string, chunk: Chunk, columns: readonly string[], lane: string): Promise<RowStream>;
  /** One transaction over the whole table (cdc_enabled = 0): the chunks of `plan`, read in one snapshot, one after another. */
  readWhole(
    table: Table,
    plan: ChunkPlan,
    columns: readonly string[],
    lane: string,
  ): AsyncIterable<{ chunk: Chunk; rows: RowStream }>;
  /**
   * The present rows with these keys, each at most once; keys that have no row are left out. Waits until every
   * transaction in `visibility` is visible to its snapshot (PROTOCOL, A copy, 4: a decoded commit may not be yet).
   */
  fetchRows(
    table: Table,
    columns: readonly string[],
    keyColumns: readonly string[],
    keys: readonly (readonly Cell[])[],
    visibility: readonly string[],
  ): Promise<RowBatch>;
}

/** The source's trigger column (`full_sync_trigger_column`). */
export interface TriggerSource {
  /** Which of these have a row whose column is 1/true; one round trip. */
  flipped(tables: readonly { name: TableName; column: string }[]): Promise<boolean[]>;
  /** `UPDATE … SET col = 0 WHERE col = 1`: the only row ever written to a source. Throws TRIGGER_RESET_DENIED. */
  reset(table: TableName, column: string): Promise<void>;
}

// ---------------------------------------------------------------------------------------------------------------------
// Source: changes

/** A source object we made and must undo (invariant 10); recorded in `source_objects`. */
export interface SourceObject {
  readonly kind: string;
  readonly name: string;
  /** What a DBA runs to remove it by hand. */
  readonly dropSql: string;
}

export interface StreamHealth {
  /** Bytes of log the source keeps because of us; null where the engine cannot tell. */
  readonly retainedBytes: number | null;
  /** Bytes left before the source discards what we have not read; null: no limit, or not known. */
  readonly headroomBytes: number | null;
  /** What is wrong with the stream itself (its slot is missing or was invalidated …). */
  readonly stream?: readonly Finding[];
  /** What is wrong with single tables now (no longer published, identity lost …). */
  readonly tables: readonly { readonly name: TableName; readonly finding: Finding }[];
}

/**
 * The change stream of one database. There is ONE reader (PROTOCOL, The stream); `prepare`, `read` and `drop` are for
 * the stream's owner only, the rest for anyone.
 */
export interface ChangeSource {
  /** Compares two positions of this source. Pure. */
  compare(a: Position, b: Position): PositionOrder;
  /**
   * The history a position belongs to (PostgreSQL: system and timeline). Pure. After a failover that lost nothing of the
   * stream it still differs: a chunk may have read what the failover took back.
   */
  incarnation(position: Position): string;
  /** For display: the log position as the engine's own tools print it. */
  display(position: Position): string;
  /**
   * Makes what a stream needs at the source (a slot) unless it is there, and tells where a stream without any stored
   * position starts. `objects`: what exists because of us. Throws CDC_NOT_READY and the like with the fix.
   */
  prepare(stream: string): Promise<{ start: Position; created: boolean; objects: SourceObject[] }>;
  /**
   * Takes the reader and starts behind `from`, the lowest stored position of all groups. Before the first piece is handed
   * out it is checked, with the source's reader held, that the source still has everything after `from` (invariant 5):
   * throws GAP otherwise. CDC_IN_USE when someone else reads.
   */
  read(stream: string, from: Position, options: ReadOptions): Promise<ChangeReader>;
  /**
   * Makes a table part of the stream and returns only when every later transaction that changes it will be in the stream
   * and every earlier one is visible to reads that start now (PROTOCOL, A copy, 2). Idempotent; any process may call it.
   * `key`: the columns that changes will be matched by; the source must send them (CDC_NOT_READY). Absent: the primary key.
   */
  include(stream: string, table: Table, key?: readonly string[]): Promise<{ objects: SourceObject[] }>;
  /** The table leaves the stream. Idempotent. */
  exclude(stream: string, table: TableName): Promise<void>;
  /**
   * A position that everything visible at the source now is at or below (the inserted, not the flushed end of the log);
   * makes sure that an idle stream gets there.
   */
  end(): Promise<Position>;
  /** One round trip, every cycle. */
  health(stream: string, tables: readonly TableName[]): Promise<StreamHealth>;
  /** Undoes `prepare` and `include`: nothing of ours stays. Idempotent; terminates a reader that still holds the slot. */
  drop(stream: string): Promise<void>;
}

export interface ReadOptions {
  /**
   * Positions of groups that are ahead of `from`: no piece reaches across one of them, so that such a group can skip
   * whole pieces (never apply a change twice: a key that has moved on would not be found under its old name).
   */
  readonly breakAt?: readonly Position[];
  /** Ends whoever holds the reader instead of CDC_IN_USE: a former owner that is frozen would keep it for a minute. The caller owns the stream. */
  readonly takeOver?: boolean;
  /** A piece is handed out when it holds this many changes (it grows beyond while nobody asks for it), or … */
  readonly maxChanges: number;
  /** … this many bytes (a piece may end inside a transaction then), or when nothing more is waiting at the source. */
  readonly maxBytes: number;
  /** At most how often idle progress is handed out, ms. Read anew each time. */
  readonly idleProgressMs: () => number;
}

/** Reading and acknowledging are separate acts: what is not acknowledged is kept by the source (invariant 3). */
export interface ChangeReader {
  /**
   * The stream, one consumer. Not pulling pushes back on the source within `maxBytes`. Ends after `stop`, throws when
   * the connection or the source fails.
   */
  readonly pieces: AsyncIterable<ChangePiece>;
  /** Everything at or below `position` is stored durably by every group. Never moves backwards. */
  acknowledge(position: Position): void;
  /** Ends the session after a last acknowledgement. */
  stop(): Promise<void>;
}

// ---------------------------------------------------------------------------------------------------------------------
// Destination

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
  /** Apply to the target table. */
  readonly live: boolean;
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
  /** Triggers and foreign keys can be kept from firing for our sessions. */
  canSuspendTriggers(): Promise<boolean>;
  /** Every group, generation and staging table of this installation, for `doctor` and clean-up. */
  inventory(): Promise<{ stream: string | null; mappingUid: string | null; objects: string[] }[]>;
}

/** Statements in order; none where this engine cannot say. `as`: the name of a column of `source`. */
export interface Remedies {
  /** Keeps the table's triggers and foreign keys from firing when this login writes to it. */
  suspendGuards(target: Table): readonly string[];
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
  readonly state: GroupState;
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
  commit(position: Position): Promise<void>;
  rollback(): Promise<void>;
}

/** The source's columns changed: what the live route carries from now on. */
export interface RouteChange {
  readonly columns: readonly RouteColumn[];
  /** Target names among them that the destination table does not have yet: added as `design` declares them, NULL allowed. */
  readonly added: readonly string[];
  readonly design: TableDesign;
}

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
 * row in it now (their places in the list); `attempt` undoes what its work applied when that throws. They act in the round's transaction.
 */
export type FoldWork = (
  blocks: AsyncIterable<StoredBlock>,
  apply: (changes: KeyedChanges) => Promise<ApplyCounts>,
  missing: (keys: readonly (readonly Cell[])[]) => Promise<readonly number[]>,
  attempt: <T>(work: () => Promise<T>) => Promise<T>,
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
  /** Ids of chunks that are in. */
  loadedChunks(): Promise<ReadonlySet<number>>;
  /** Throws away what was loaded (COPY_RESTARTED): empty staging table, no plan; the whole backlog waits to be folded again. */
  restart(): Promise<void>;
  /** Loads one chunk: rows and the mark that it is in commit together, checked against the copier's epoch. Returns rows. */
  load(chunk: Chunk, rows: RowStream): Promise<number>;
  /** Reduces keys that were loaded twice to one row each and builds the key index. Idempotent. */
  buildKey(): Promise<void>;
  /** Builds the other indexes and refreshes statistics; before the last folds. Idempotent. */
  buildIndexes(): Promise<void>;
  /** Without a lock: finds the keys in which staging and live table differ (re-copies only). */
  compare(): Promise<{ differing: number }>;
}

// ---------------------------------------------------------------------------------------------------------------------
// Verification

export interface Checksummer {
  /**
   * The last `limit` rows by key as blocks of `blockRows`: for each block its first key and an MD5 over its rows,
   * computed by the database. `below`: rows with a key at or below it only, so that both sides look at the same range.
   */
  recent(request: ChecksumRequest & { readonly below?: readonly Cell[] | null }): Promise<ChecksumBlock[]>;
  /** MD5 per row for the rows from `from` to `to` (inclusive, key order of the database). */
  rows(request: ChecksumRequest & { from: readonly Cell[]; to: readonly Cell[] }): Promise<RowChecksum[]>;
  /** MD5 of the rows with these keys, for the re-check of differences that may have been in flight. */
  rowsByKey(request: ChecksumRequest, keys: readonly (readonly Cell[])[]): Promise<RowChecksum[]>;
}

export interface ChecksumRequest {
  readonly table: TableName;
  readonly columns: readonly string[];
  readonly key: readonly string[];
  readonly limit: number;
  readonly blockRows: number;
}

export interface ChecksumBlock {
  readonly first: readonly Cell[];
  readonly last: readonly Cell[];
  readonly rows: number;
  readonly md5: string;
}

export interface RowChecksum {
  readonly key: readonly Cell[];
  readonly md5: string;
}

export type { ChangeRelation };
