/** Rows of a result set of which only the leading columns were made cells: the rest stays in the buffers that it came in. */
import type { ReadColumn } from './read-columns.ts';

/** Where the columns behind the leading ones lie, of each row. What is there is not written again. */
export interface RowRests {
  readonly format: RestFormat;
  readonly buffers: Buffer[];
  /** Where the first value of the rest begins. */
  readonly starts: number[];
  readonly lengths: number[];
  /** Of rows where some column is NULL and has no bytes: the bitmap of these columns, the leading ones first. */
  readonly nulls: (Uint8Array | null)[];
}

export interface RestFormat {
  readonly leading: number;
  /** Behind the leading ones. */
  readonly columns: readonly ReadColumn[];
}

export function emptyRests(format: RestFormat): RowRests {
  return { format, buffers: [], starts: [], lengths: [], nulls: [] };
}

/** The column has no bytes in the row with this bitmap. */
export function isSet(nulls: Uint8Array, column: number): boolean {
  return (((nulls[column >> 3] ?? 0) >> (column & 7)) & 1) === 1;
}
