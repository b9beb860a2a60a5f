/** A control database of its own for a test, and the few rows most tests need. */
import { ControlDatabase, type MappingRow, type PlanRows } from '../../src/control/index.ts';
import { atEnd } from '../support/at-end.ts';
import { POSTGRES, type ControlServer, type ControlSession, type ControlTestDatabase } from './servers.ts';

export interface TestControl extends ControlSession {
  readonly database: ControlTestDatabase;
  readonly control: ControlDatabase;
  /** Another process, as far as the control database can tell. */
  second(): Promise<ControlDatabase>;
  /** Inserts a source server and a mapping with the two columns that are required. */
  addMapping(table?: string): Promise<{ mappingId: number; mappingUid: string }>;
  plan(): Promise<PlanRows>;
  mapping(mappingId: number): Promise<MappingRow>;
  drop(): Promise<void>;
}

interface Kept {
  readonly database: ControlTestDatabase;
  readonly control: ControlDatabase;
}

/** Where making a database and opening sessions take long: one that tests take turns on, emptied between them. */
const kept = new Map<ControlServer, Kept>();

async function take(server: ControlServer): Promise<Kept> {
  const free = kept.get(server);
  kept.delete(server);
  if (free) {
    await free.database.empty?.();
    // The settings' rows again.
    await free.control.migrate();
    return free;
  }
  const database = await server.createDatabase();
  const control = await ControlDatabase.open({ url: database.url, database: database.name });
  await control.migrate();
  return { database, control };
}

async function giveBack(server: ControlServer, taken: Kept): Promise<void> {
  if (!server.reuse || kept.has(server)) {
    await taken.control.close();
    await taken.database.drop();
    return;
  }
  kept.set(server, taken);
  atEnd(async () => {
    // Taken again meanwhile: whoever took it gives it back.
    if (kept.get(server) !== taken) return;
    kept.delete(server);
    await taken.control.close();
    await taken.database.drop();
  });
}

export async function createControl(server: ControlServer = POSTGRES): Promise<TestControl> {
  const taken = await take(server);
  const { database, control } = taken;
  const opened: ControlDatabase[] = [];
  const open = async () => {
    const other = await ControlDatabase.open({ url: database.url, database: database.name });
    opened.push(other);
    return other;
  };
  const plan = async () => {
    const rows = await control.readPlanRows();
    if ('unchanged' in rows) throw new Error('a plan without a last fingerprint is never unchanged');
    return rows;
  };
  return {
    database,
    control,
    query: (sql, parameters) => database.query(sql, parameters),
    second: open,
    plan,
    addMapping: async (table = 'orders') => {
      await database.query(
        `INSERT INTO source_servers (server_name, connection_string)
         SELECT 'shop', 'postgres://reader:secret@shop/db' WHERE NOT EXISTS (SELECT 1 FROM source_servers)`,
      );
      await database.query('INSERT INTO table_mappings (server_id, source_table) VALUES (1, $1)', [table]);
      const [row] = await database.query<{ mapping_id: number; mapping_uid: string }>(
        'SELECT mapping_id, mapping_uid FROM table_mappings WHERE mapping_id = (SELECT max(mapping_id) FROM table_mappings)',
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
      await giveBack(server, taken);
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
