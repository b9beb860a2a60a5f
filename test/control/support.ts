/** A control database of its own for a test, and the few rows most tests need. */
import type pg from 'pg';
import { ControlDatabase, type MappingRow, type PlanRows } from '../../src/control/index.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';

export interface TestControl {
  readonly database: TestDatabase;
  readonly control: ControlDatabase;
  query<R extends pg.QueryResultRow = Record<string, unknown>>(sql: string, params?: unknown[]): Promise<R[]>;
  /** Another process, as far as the control database can tell. */
  second(): Promise<ControlDatabase>;
  /** Inserts a source server and a mapping with the two columns that are required. */
  addMapping(table?: string): Promise<{ mappingId: number; mappingUid: string }>;
  plan(): Promise<PlanRows>;
  mapping(mappingId: number): Promise<MappingRow>;
  drop(): Promise<void>;
}

export async function createControl(): Promise<TestControl> {
  const database = await createDatabase('control');
  const opened: ControlDatabase[] = [];
  const open = async () => {
    const control = await ControlDatabase.open({ url: database.url, database: database.name });
    opened.push(control);
    return control;
  };
  const control = await open();
  await control.migrate();
  const plan = async () => {
    const rows = await control.readPlanRows();
    if ('unchanged' in rows) throw new Error('a plan without a last fingerprint is never unchanged');
    return rows;
  };
  return {
    database,
    control,
    query: (sql, params) => database.query(sql, params),
    second: open,
    plan,
    addMapping: async (table = 'orders') => {
      await database.query(
        `INSERT INTO source_servers (server_name, connection_string)
         SELECT 'shop', 'postgres://reader:secret@shop/db' WHERE NOT EXISTS (SELECT FROM source_servers)`,
      );
      const [row] = await database.query<{ mapping_id: number; mapping_uid: string }>(
        'INSERT INTO table_mappings (server_id, source_table) VALUES (1, $1) RETURNING mapping_id, mapping_uid',
        [table],
      );
      if (!row) throw new Error('nothing inserted');
      await control.states.ensure();
      return { mappingId: row.mapping_id, mappingUid: row.mapping_uid };
    },
    mapping: async (mappingId) => {
      const found = (await plan()).mappings.find((each) => each.mappingId === mappingId);
      if (!found) throw new Error(`no mapping ${mappingId}`);
      return found;
    },
    drop: async () => {
      for (const each of opened) await each.close();
      await database.drop();
    },
  };
}

/** The error a promise rejects with; fails when it does not. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('expected a rejection');
}
