/**
 * What an engine's registration gives the contract suites: databases, and the little SQL that differs. The suites themselves
 * speak the contract only (src/engines/contract.ts), so that every engine is held to the same sentences.
 */
import type { EngineDatabase } from '../../src/engines/contract.ts';
import { engineOf } from '../../src/engines/registry.ts';
import type { Cell } from '../../src/model/changes.ts';
import type { Column, Table, TableName } from '../../src/model/tables.ts';
import type { LogicalType } from '../../src/model/types.ts';

export interface ContractDatabase {
  /** A handle of the engine; closed with the database. */
  readonly handle: EngineDatabase;
  /** Another handle of the same database, as another process would have. */
  readonly another: () => EngineDatabase;
  /** The schema in which the suites make their tables. */
  readonly schema: string;
  /** Runs one statement, as a user of the database. */
  execute(sql: string): Promise<void>;
  /** The table's rows in key order, columns as asked, as exact text; null for NULL. */
  rows(table: TableName, columns: readonly string[]): Promise<(string | null)[][]>;
  /** The statements that make a table, of an engine that is no destination. */
  create?(table: Table): readonly string[];
  /** Has the source record the table's changes, where that is not for the engine to do. */
  capture?(table: TableName): Promise<void>;
  /** `a.b` quoted as the engine wants it. */
  quote(table: TableName): string;
  drop(): Promise<void>;
}

export interface EngineUnderTest {
  readonly name: string;
  database(): Promise<ContractDatabase>;
  /** Rewrites the table so that its rows move (a copy by chunks has to start again). */
  rewrite(database: ContractDatabase, table: TableName): Promise<void>;
}

/** The part of a registration that is the same for every engine: handles of its database, as processes have them. */
export function handlesOf(url: string): Pick<ContractDatabase, 'handle' | 'another'> & {
  close: () => Promise<void>;
  /** All but `handle`. */
  closeOthers: () => Promise<void>;
} {
  const handles: EngineDatabase[] = [];
  const another = () => {
    const handle = engineOf(url).open({
      connectionString: url,
      database: null,
      installation: { uid: 'contract' },
      applicationName: 'contract',
    });
    handles.push(handle);
    return handle;
  };
  return {
    handle: another(),
    another,
    close: async () => void (await Promise.all(handles.splice(0).map((handle) => handle.close()))),
    closeOthers: async () => void (await Promise.all(handles.splice(1).map((handle) => handle.close()))),
  };
}

const TEXT: LogicalType = { kind: 'text', length: null, fixed: false, nul: false };
const INT: LogicalType = { kind: 'int', bits: 32, signed: true };

function column(name: string, type: LogicalType, nullable = true): Column {
  return { name, nativeType: '', type, nullable, generated: null, identity: null, default: null, collation: null };
}

/** The table of most suites: an integer key, a short text, a long one. No engine's own: each designs it for itself. */
export function itemsTable(schema: string, table = 'items'): Table {
  return {
    engine: 'contract',
    name: { schema, table },
    id: 'contract',
    kind: 'table',
    columns: [column('id', INT, false), column('v', TEXT), column('big', TEXT)],
    keys: [{ name: 'items_key', columns: ['id'], primary: true, usable: true, loose: false }],
    indexes: [],
    triggers: [],
    foreignKeys: [],
    referencedBy: [],
    estimatedRows: null,
    bytes: 0,
  };
}

export const ITEM_COLUMNS = ['id', 'v', 'big'] as const;
export const ITEM_ROUTE = ITEM_COLUMNS.map((name) => ({ source: name, target: name }));

/** Makes the table by the engine's own design. */
export async function createItems(database: ContractDatabase, table = 'items'): Promise<Table> {
  const wanted = itemsTable(database.schema, table);
  const ddl = database.create?.(wanted) ?? database.handle.destination?.design(wanted, wanted.name, ['id']).ddl ?? [];
  for (const statement of ddl) await database.execute(statement);
  const [described] = await database.handle.catalog.describe([wanted.name]);
  if (!described) throw new Error('the table was not made');
  return described;
}

/** Inserts rows of numbers and simple texts by plain SQL. */
export async function insertItems(
  database: ContractDatabase,
  table: TableName,
  ids: readonly number[],
  v = 'v',
  big = 'big',
): Promise<void> {
  for (let at = 0; at < ids.length; at += 500) {
    const values = ids.slice(at, at + 500).map((id) => `(${id}, '${v}${id}', '${big}${id}')`);
    await database.execute(`INSERT INTO ${database.quote(table)} (id, v, big) VALUES ${values.join(', ')}`);
  }
}

export function cellText(cell: Cell | undefined): string | null | undefined {
  return cell instanceof Uint8Array ? Buffer.from(cell).toString('utf8') : cell;
}

export function numbers(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}
