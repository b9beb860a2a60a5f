import type { TableName } from './tables.ts';
import type { Position } from './position.ts';
import type { SluiceError } from './errors.ts';

/**
 * One exact value: the engine's exact text for the column's logical type (as text, or as its UTF-8 bytes), or bytes for
 * binary columns. Never a number, never a Date: JavaScript's lose digits (DESIGN §5).
 */
export type Cell = string | Uint8Array | null;

/** A cell of a change. `undefined` is *absent*: the source did not send it (unchanged TOAST, LOB). Absent is never NULL. */
export type ChangeCell = Cell | undefined;

/** Rows as one flat array: row r, column c is `cells[r * columns.length + c]`. */
export interface RowBatch {
  readonly columns: readonly string[];
  readonly rows: number;
  readonly cells: readonly Cell[];
}

/** A relation as the stream described it when the changes below it were made. */
export interface ChangeRelation {
  readonly name: TableName;
  /** Same identity as `Table.id`. */
  readonly id: string;
  readonly columns: readonly string[];
  /** The engine's own notes on the columns' types (object id and modifier): differs when a column was retyped. */
  readonly columnTypes: readonly string[];
}

export const Op = { Insert: 1, Update: 2, Delete: 3, Truncate: 4 } as const;
export type Op = (typeof Op)[keyof typeof Op];

/**
 * Changes of one relation in source order, flat: change i has `ops[i]`; its rows lie in `cells` at `before[i]` and
 * `after[i]` (offsets of a row's first cell, −1 for none). A before-row holds the replica identity; its other cells are
 * absent. An update whose key did not change may have no before-row.
 */
export interface TableChanges {
  readonly relation: ChangeRelation;
  readonly ops: Op[];
  readonly before: number[];
  readonly after: number[];
  readonly cells: ChangeCell[];
  /**
   * The rows as the source sent them, where it keeps them so, and only until `cells` is first asked for and made of them. Whoever
   * needs a few cells takes them from here.
   */
  readonly images?: RowImages | undefined;
  /** Some cell of an after-row is absent. */
  hasAbsent: boolean;
  /** What is absent may have changed: it is there, and could not be read. Nothing but the source's row says what it is. */
  hasUnread?: boolean;
  /**
   * What the snapshot source needs to know before it may answer for rows with absent cells: opaque tokens of the
   * transactions that made them (PostgreSQL: transaction ids). A decoded commit may not be visible yet.
   */
  readonly visibility: string[];
}

/** Rows in the form in which their engine's stream has them, opaque outside it. Row r is the one that begins at `cells[r * width]`. */
export interface RowImages {
  /** The row's cell of this column of the relation. */
  cell(row: number, column: number): ChangeCell;
  /** Puts the row's cells, of all columns of the relation, behind `cells`. */
  append(row: number, cells: ChangeCell[]): void;
  /**
   * Writes the text of the row's cells of these columns (none of them of bytes) as UTF-8: tabs in between, `\N` for NULL, a backslash before
   * what would end a field, as COPY and LOAD DATA read it. Returns where it ends; −1: it needs cells. `out` has room for `mostLine` bytes.
   */
  line?(row: number, columns: readonly number[], out: Buffer, to: number): number;
  mostLine?(row: number, columns: readonly number[]): number;
  /** The cell, where it is the shortest text of an integer of at most nine digits; null where it is anything else. */
  integer(row: number, column: number): number | null;
  /** The row was sent with all its cells. One that was not may still have them all, from the row that it was before. */
  isWhole(row: number): boolean;
}

/**
 * A piece of the stream. Its tables are in order of first change; one relation may appear twice when it was altered in
 * between. `end` is the position after the last transaction it completes; null: the piece ends inside a transaction and
 * the next one continues it. A piece with no tables and an `end` is idle progress.
 */
export interface ChangePiece {
  readonly tables: TableChanges[];
  readonly end: Position | null;
  /** Memory held by its cells, approximately. */
  readonly bytes: number;
  readonly changes: number;
  /** Transactions completed by this piece. */
  readonly transactions: number;
  /** When the last transaction of the piece committed at the source, ms since 1970; null for idle progress. */
  readonly committedAt: number | null;
  /** Changes of other schemas' tables were left out, because nobody wanted them when the reader began. Absent: nothing was left out. */
  readonly schemas?: ReadonlySet<string>;
  /** Absent: the source has one log for all tables, which is complete or is not. */
  readonly captures?: TableCaptures;
  /** Tables that the source changed by statements whose effect no change tells: only a copy brings it. After the changes of the piece. */
  readonly altered?: readonly AlteredTable[];
}

export interface AlteredTable {
  readonly schema: string;
  /** Null: every table of the schema. */
  readonly table: string | null;
  /** What was done (`ALTER TABLE`), for people. */
  readonly verb: string;
}

/**
 * Where each table is recorded by itself (SQL Server's capture instances) a stream may lack changes of one table and have those of
 * the others. Asked with what a route says of its table, before a piece is committed by it (invariant 5).
 */
export interface TableCaptures {
  /** Why changes of the table up to the end of this piece are missing; null: they are all there. */
  gap(table: TableName, capture: string | null): SluiceError | null;
  /** What records the table instead of `capture` from now on, with nothing missing in between; null: nothing else. */
  successor(table: TableName, capture: string | null): CaptureSuccessor | null;
}

export interface CaptureSuccessor {
  readonly capture: string;
  /** How the stream describes the table from there on. */
  readonly relation: ChangeRelation;
}

export function emptyTableChanges(relation: ChangeRelation): TableChanges {
  return { relation, ops: [], before: [], after: [], cells: [], hasAbsent: false, visibility: [] };
}

/** The cell of `column` in the row that begins at `at`. */
export function cellAt(changes: TableChanges, at: number, column: number): ChangeCell {
  const { images } = changes;
  return images ? images.cell(at / changes.relation.columns.length, column) : changes.cells[at + column];
}
