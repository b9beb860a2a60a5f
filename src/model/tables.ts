import type { LogicalType } from './types.ts';

/** A table within the database a session is connected to. Names are exact, unquoted. */
export interface TableName {
  readonly schema: string;
  readonly table: string;
}

/** For messages and logs only: never becomes SQL. */
export function displayName(name: TableName): string {
  return name.schema === '' ? name.table : `${name.schema}.${name.table}`;
}

/** For maps: names may hold dots. */
export function tableKey(name: TableName): string {
  return `${name.schema.length}:${name.schema}.${name.table}`;
}

/** A default that means the same in every engine; `now`: the time of the statement. */
export type Constant =
  | { readonly kind: 'text' | 'number'; readonly text: string }
  | { readonly kind: 'boolean'; readonly value: boolean }
  | { readonly kind: 'now' };

export interface Column {
  readonly name: string;
  /** As the engine declares it, e.g. `numeric(10,2)`, `"my schema".mood`. */
  readonly nativeType: string;
  readonly type: LogicalType;
  readonly nullable: boolean;
  /**
   * The engine computes it (generated, computed columns): it is declared, never written. The engine's own words for
   * how: equal words on the same engine compute equal values.
   */
  readonly generated: string | null;
  /** The engine fills it and takes no value for it, but what it holds is data (rowversion, period columns): carried to ordinary columns. */
  readonly selfWritten?: boolean;
  readonly identity: 'always' | 'by default' | null;
  /** The default's expression as the engine prints it, or null. */
  readonly default: string | null;
  /** The default, where it is a constant; absent: it is none, or an expression of the engine's own. */
  readonly constant?: Constant;
  /** Named where it differs from the database's; by SQL Server always, because databases' own differ there and decide what is equal. */
  readonly collation: string | null;
  /** The engine's identity of the column: another one under the same name is another column. */
  readonly id?: string;
  /** What `ChangeRelation.columnTypes` says of its type. */
  readonly streamType?: string;
  /** Rows that were there when the column was added have a value in it that no change event told of. */
  readonly filled?: boolean;
}

export interface Key {
  readonly name: string;
  readonly columns: readonly string[];
  readonly primary: boolean;
  /** All columns are not null, the index is valid, not partial, not on expressions, and not deferrable. */
  readonly usable: boolean;
  /** Two different byte strings may be equal under it (case-insensitive collation, numeric 1.0 = 1.00). */
  readonly loose: boolean;
  /** The server finds no rows by it, and refuses statements that ask it to (MySQL: invisible; MariaDB: ignored). */
  readonly isHidden?: boolean;
}

export interface Index {
  readonly name: string;
  readonly columns: readonly string[];
  readonly unique: boolean;
  /** The engine's own statement that makes it, for the same engine. */
  readonly definition: string;
  /** It is of whole columns and of all rows, and finds values by their order: what every engine has. */
  readonly plain?: boolean;
}

export interface Table {
  /** Name of the engine that described it: native types, defaults and definitions are in its language. */
  readonly engine: string;
  readonly name: TableName;
  /** The engine's identity of the table (an object id): another one under the same name is another table. */
  readonly id: string;
  readonly kind: 'table' | 'partitioned' | 'other';
  readonly columns: readonly Column[];
  /** Primary key first, then unique indexes by name. */
  readonly keys: readonly Key[];
  /** What is not a key: secondary indexes, unique ones that are not usable as keys included. */
  readonly indexes: readonly Index[];
  /** False: what is written to it is not part of a transaction (MyISAM). */
  readonly isTransactional?: boolean;
  /** Enabled user triggers, by name. */
  readonly triggers: readonly string[];
  /** Foreign keys by name: of this table, and of others that refer to it, which MariaDB is not asked for (catalog.ts there). */
  readonly foreignKeys: readonly string[];
  readonly referencedBy: readonly string[];
  /** The catalog's estimate; null where there is none yet. */
  readonly estimatedRows: number | null;
  readonly bytes: number;
  /** Differs once rows were rewritten by something that no change event tells of; null: the engine cannot say. */
  readonly storage?: string | null;
  /**
   * Where tables are recorded one by one: what records this one now, and since when. Null: nothing does. Absent: the source has one
   * log for all.
   */
  readonly capture?: string | null;
}

/** The columns that are carried: those the engine does not compute itself. */
export function carriedColumns(table: Table): readonly Column[] {
  return table.columns.filter((column) => column.generated === null);
}
