/** Source, full copies: chunks of rows, and the source's trigger column. */
import type { Table, TableName } from '../../model/tables.ts';
import type { Cell, RowBatch } from '../../model/changes.ts';

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
