/** The service inside the test's own process, on a control database of its own; and what tests ask of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlDatabase } from '../../src/control/index.ts';
import { createLogger, silentLogger } from '../../src/log/logger.ts';
import { Service } from '../../src/service/service.ts';
import { PATIENCE } from './patience.ts';
import { createDatabase, testServer, type TestDatabase } from './postgres.ts';

export interface TestService {
  stop(): Promise<void>;
}

export interface World {
  readonly source: TestDatabase;
  readonly destination: TestDatabase;
  /** The control database, for SQL as a person types it. */
  readonly control: TestDatabase;
  /** Starts the service (again). */
  start(): Promise<TestService>;
  /** Adds a mapping of `public.<table>` and returns its id. `columns`: further columns of table_mappings. */
  map(table: string, columns?: Readonly<Record<string, string | number | null>>): Promise<number>;
  /** Waits until the mapping is in `state`; fails with what v_mapping_health says. */
  state(mappingId: number, state: string, seconds?: number): Promise<void>;
  /** Asks for a full sync and waits until it is done. */
  copyAgain(mappingId: number, seconds?: number): Promise<void>;
  /** What is wrong with the mapping. */
  problem(mappingId: number): Promise<Problem>;
  close(): Promise<void>;
}

/** Of mapping_state. */
export interface Problem {
  readonly error_code: string | null;
  readonly error_message: string | null;
  readonly error_hint: string | null;
}

/** A source, a destination and a control database; the source is server 1, polled every second. */
export async function createWorld(settings: Readonly<Record<string, number>> = {}): Promise<World> {
  const [source, destination, control] = await Promise.all([
    createDatabase('src'),
    createDatabase('dst'),
    createDatabase('ctl'),
  ]);
  const server = await testServer();
  const opened = await ControlDatabase.open({ url: server.url(), database: control.name });
  await opened.migrate();
  await opened.close();
  const values = {
    cdc_check_interval_seconds: 1,
    verification_interval_minutes: 0,
    retry_delay_seconds: 1,
    lease_seconds: 5,
    ...settings,
  };
  for (const [key, value] of Object.entries(values)) {
    await control.query('UPDATE config SET config_value = $2 WHERE config_key = $1', [key, String(value)]);
  }
  await control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('source', $1)`, [
    source.url,
  ]);
  const services = new Set<TestService>();
  return {
    source,
    destination,
    control,
    start: async () => {
      const service = await startService(server.url(), control.name);
      services.add(service);
      return service;
    },
    map: async (table, columns = {}) => {
      const row: Record<string, string | number | null> = {
        server_id: 1,
        source_table: table,
        dest_database: destination.name,
        ...columns,
      };
      const names = Object.keys(row);
      const [made] = await control.query<{ mapping_id: number }>(
        `INSERT INTO table_mappings (${names.join(', ')}) VALUES (${names.map((_, i) => `$${i + 1}`).join(', ')}) RETURNING mapping_id`,
        Object.values(row),
      );
      return made?.mapping_id ?? 0;
    },
    state: (mappingId, state, seconds = 20) =>
      eventually(async () => {
        const rows = await control.query(
          'SELECT s.state, s.error_code, s.error_message FROM table_mappings m LEFT JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1',
          [mappingId],
        );
        if (rows[0]?.['state'] !== state)
          throw new Error(`mapping ${mappingId} is not ${state}: ${JSON.stringify(rows[0])}`);
      }, seconds * 1000),
    copyAgain: async (mappingId, seconds = 30) => {
      await control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mappingId]);
      await eventually(async () => {
        const [row] = await control.query('SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1', [mappingId]);
        if (row?.['is_full_sync'] !== 0) throw new Error('the full sync is not done');
      }, seconds * 1000);
    },
    problem: async (mappingId) => {
      const [row] = await control.query<{ error_code: string; error_message: string; error_hint: string }>(
        `SELECT s.error_code, s.error_message, s.error_hint FROM table_mappings m JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1`,
        [mappingId],
      );
      return row ?? { error_code: null, error_message: null, error_hint: null };
    },
    close: async () => {
      await Promise.all([...services].map((service) => service.stop()));
      await Promise.all([source.drop(), destination.drop(), control.drop()]);
    },
  };
}

export async function startService(controlServerUrl: string, controlDatabase: string): Promise<TestService> {
  const control = await ControlDatabase.open({ url: controlServerUrl, database: controlDatabase });
  const logger = process.env['SLUICE_TEST_LOG'] ? createLogger({ level: 'debug' }) : silentLogger;
  const service = new Service({ control, controlServerUrl, logger });
  const running = service.run();
  // A failure is reported by `stop`, not as an unhandled rejection in another test.
  running.catch(() => undefined);
  let stopped: Promise<void> | null = null;
  return {
    stop: () =>
      (stopped ??= (async () => {
        service.stop();
        await running;
        await control.close();
      })()),
  };
}

/** Repeats `check` until it no longer throws; `ms` on an idle machine (patience.ts). */
export async function eventually(check: () => Promise<void>, ms = 10_000): Promise<void> {
  const until = Date.now() + ms * PATIENCE;
  for (;;) {
    try {
      await check();
      return;
    } catch (error) {
      if (Date.now() > until) throw error;
      await sleep(50);
    }
  }
}

/** Rows of a table as one checksum, by the database: equal exactly when all rows are. */
export async function checksum(database: TestDatabase, table: string): Promise<string> {
  const [row] = await database.query<{ sum: string }>(
    `SELECT count(*) || ':' || coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE "C")), '') AS sum FROM ${table} t`,
  );
  return row?.sum ?? '';
}

/** Waits until both tables hold the same rows. */
export async function equal(world: World, table: string, target = table, ms = 15_000): Promise<void> {
  await eventually(async () => {
    const [left, right] = [await checksum(world.source, table), await checksum(world.destination, target)];
    if (left !== right) throw new Error(`${table}: source ${left}, destination ${right}`);
  }, ms);
}
