/** Source, changes: one reader per stream; reading and acknowledging are separate acts. */
import type { Table, TableName } from '../../model/tables.ts';
import type { Position, PositionOrder } from '../../model/position.ts';
import type { ChangePiece } from '../../model/changes.ts';
import type { Finding } from '../../model/findings.ts';

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
  /** Where changes are recorded by a job of the source: the newest commit it has recorded, ms by the source's clock. */
  readonly lastCapturedAt?: number | null;
  /** … and how long ago that was, seconds. */
  readonly captureLagSeconds?: number | null;
  /** Where changes are discarded by age: how long until it reaches what we have not read, seconds. */
  readonly headroomSeconds?: number | null;
  /** What is wrong with the stream itself (its slot is missing or was invalidated …). */
  readonly stream?: readonly Finding[];
  /** What is wrong with single tables now (no longer published, identity lost …). */
  readonly tables: readonly { readonly name: TableName; readonly finding: Finding }[];
}

/**
 * The change stream of one database or server (`Engine.streamScope`). There is ONE reader (PROTOCOL, The stream); `prepare`, `read` and `drop` are for
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
   * position starts. `floor`: what was acknowledged, so that a stored position below it is a gap; null where nothing is
   * acknowledged and `read` finds out. `objects`: what exists because of us. Throws CDC_NOT_READY and the like with the fix.
   */
  prepare(
    stream: string,
  ): Promise<{ start: Position; floor: Position | null; created: boolean; objects: SourceObject[] }>;
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
  /** One round trip, every cycle. `at`: the lowest position stored, where it is known. */
  health(stream: string, tables: readonly TableName[], at?: Position | null): Promise<StreamHealth>;
  /** Undoes `prepare` and `include`: nothing of ours stays. Idempotent; terminates a reader that still holds the slot. */
  drop(stream: string): Promise<void>;
}

export interface ReadOptions {
  /**
   * Schemas whose tables somebody wants. A source whose log is of more than that may leave out the rest; its pieces say so
   * (`ChangePiece.schemas`). Absent: the default schema.
   */
  readonly schemas?: readonly string[];
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
  /** How often a source that does not stream is asked for changes, ms. Read anew each time. */
  readonly pollMs: () => number;
}

/** Reading and acknowledging are separate acts: what is not acknowledged is kept by the source (invariant 3). */
export interface ChangeReader {
  /**
   * The stream, one consumer. Not pulling pushes back on the source within `maxBytes`. Ends after `stop`, throws when
   * the connection or the source fails.
   */
  readonly pieces: AsyncIterable<ChangePiece>;
  /**
   * The next piece is there and grows no more: to be pulled while the last one is being committed, which costs the memory of one more.
   * Absent: what comes next is not pulled before it can be written.
   */
  readonly isReady?: boolean;
  /** Everything at or below `position` is stored durably by every group. Never moves backwards. */
  acknowledge(position: Position): void;
  /** Ends the session after a last acknowledgement. */
  stop(): Promise<void>;
}
