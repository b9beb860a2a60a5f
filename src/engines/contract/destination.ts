/** A destination: its groups and copies, and what may be asked of its tables. */
import type { Table, TableName } from '../../model/tables.ts';
import type { Position } from '../../model/position.ts';
import type { CopyDestination } from './copies.ts';
import type { GroupApplier, GroupState } from './groups.ts';
import type { TableDesign } from './routes.ts';

export interface Destination {
  /** Creates or upgrades what Sluice keeps in this database (schema `sluice`). Idempotent, safe from several processes. */
  prepare(): Promise<void>;
  /** The database's own identity, to notice that two configurations mean the same database. */
  identity(): Promise<string>;
  /** Names of tables in any case mean one table here. Absent: they never do. */
  foldsNames?(): Promise<boolean>;
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
