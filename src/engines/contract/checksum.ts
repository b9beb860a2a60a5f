/** Verification: checksums computed by the database. */
import type { TableName } from '../../model/tables.ts';
import type { Cell } from '../../model/changes.ts';

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
