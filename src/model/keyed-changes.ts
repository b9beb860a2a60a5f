import type { ChangeCell, ChangeRelation, RowImages } from './changes.ts';

/**
 * Changes of one table after collapse: at most one entry per key, what the table must look like afterwards.
 * To apply: first keep, for the upserts that need it, the absent values from the row under their base key; then delete
 * `deletes` (and old rows of upserts that move a key or change unique columns); then update and insert the upserts.
 */
export interface KeyedChanges {
  /** Source column names of the upserts' cells, in order. */
  readonly columns: readonly string[];
  /** Source names of the key columns. */
  readonly key: readonly string[];
  /** The whole table was emptied before everything below (TRUNCATE). */
  readonly truncate: boolean;
  /** Keys that must not exist afterwards, flat, `key.length` cells each. */
  readonly deletes: readonly ChangeCell[];
  /** Rows that must exist afterwards, flat, `columns.length` cells each. Key cells are never absent. */
  readonly upserts: readonly ChangeCell[];
  /**
   * The upserts as the source sent them, where all of them came so: for a destination that understands that form, which then
   * leaves `upserts` alone (it is made when first asked for). Whoever copies these changes with other upserts leaves it out.
   */
  readonly images?: UpsertImages | null;
  /**
   * The first so many upserts are complete rows made within these changes, under keys that no row had before them: a destination
   * that is exactly where these changes begin can insert them without looking.
   */
  readonly newCount: number;
  /**
   * For upserts with absent cells whose row had another key before: that key, by the upsert's number. An upsert with
   * absent cells that is not in here finds them under its own key.
   */
  readonly bases: ReadonlyMap<number, readonly ChangeCell[]>;
  /** Some upsert has an absent cell. */
  readonly hasAbsent: boolean;
  /** What is absent may have changed (`TableChanges.hasUnread`): it is never taken from the row that is there. */
  readonly hasUnread?: boolean;
  readonly deleteCount: number;
  readonly upsertCount: number;
}

export interface UpsertImages {
  readonly relation: ChangeRelation;
  /** By column of the upserts: its place in the relation. */
  readonly columns: readonly number[];
  /** By upsert: the rows it is among, and its number there. Every row is whole. */
  readonly images: readonly RowImages[];
  readonly rows: readonly number[];
}
