/** A world (service.ts) with databases of every engine at both ends, each engine's servers in the control tables. */
import { createEnd, ENGINES, postgresEnd, type End, type EngineName } from './ends.ts';
import { findMysql } from './mysql.ts';
import { createWorld, eventually, type World } from './service.ts';

type Role = 'src' | 'dst';
type Columns = Readonly<Record<string, string | number | null>>;

export interface PairsWorld extends World {
  from(engine: EngineName): End;
  into(engine: EngineName): End;
  /** Why there is none of the engine. */
  missing(engine: EngineName): string | null;
  /** Maps a table of one engine's source to the same name in another's destination. */
  mapPair(from: EngineName, into: EngineName, table: string, columns?: Columns): Promise<number>;
  /** Waits until the table and its copy hold the same rows, cell by cell. */
  equalPair(from: EngineName, into: EngineName, table: string, ms?: number): Promise<void>;
}

/** Of these engines only, when given. PostgreSQL is there in any case. `mysql`: which of the two is meant. */
export async function createPairsWorld(
  settings: Readonly<Record<string, number>> = {},
  sources: readonly EngineName[] = ENGINES,
  destinations: readonly EngineName[] = ENGINES,
  mysql = findMysql,
): Promise<PairsWorld> {
  const world = await createWorld(settings);
  const ends = new Map<string, { end: End; server: number | null }>([
    ['src postgres', { end: postgresEnd(world.source), server: 1 }],
    // NULL: the control database's own server.
    ['dst postgres', { end: postgresEnd(world.destination), server: null }],
  ]);
  const reasons = new Map<EngineName, string>();
  const add = async (role: Role, engine: EngineName) => {
    if (engine === 'postgres') return;
    const end = await createEnd(engine, role, mysql);
    if (typeof end === 'string') return void reasons.set(engine, end);
    const table = role === 'src' ? 'source_servers' : 'destination_servers';
    const [row] = await world.control.query<{ id: number }>(
      `INSERT INTO ${table} (server_name, connection_string) VALUES ($1, $2) RETURNING server_id AS id`,
      [engine, end.url],
    );
    ends.set(`${role} ${engine}`, { end, server: row?.id ?? null });
  };
  for (const engine of sources) await add('src', engine);
  for (const engine of destinations) await add('dst', engine);
  const one = (role: Role, engine: EngineName) => {
    const found = ends.get(`${role} ${engine}`);
    if (!found) throw new Error(reasons.get(engine) ?? `${engine} was not asked for`);
    return found;
  };
  return {
    ...world,
    from: (engine) => one('src', engine).end,
    into: (engine) => one('dst', engine).end,
    missing: (engine) => reasons.get(engine) ?? null,
    mapPair: (from, into, table, columns = {}) => {
      const [source, destination] = [one('src', from), one('dst', into)];
      return world.map(table, {
        server_id: source.server,
        ...source.end.asSource,
        dest_server_id: destination.server,
        ...destination.end.asDestination,
        ...columns,
      });
    },
    equalPair: (from, into, table, ms = 20_000) =>
      eventually(async () => {
        const there = await one('dst', into).end.rows(table);
        const here = await one('src', from).end.rows(table);
        const [copies, originals] = [new Set(there.rows), new Set(here.rows)];
        const missing = here.rows.filter((row) => !copies.has(row));
        const extra = there.rows.filter((row) => !originals.has(row));
        if (here.rows.length !== there.rows.length || missing.length + extra.length > 0)
          throw new Error(
            `${table}: ${here.rows.length} rows at the source, ${there.rows.length} here; missing ${sample(missing)}; extra ${sample(extra)}`,
          );
      }, ms),
    close: async () => {
      await world.close();
      for (const { end } of ends.values()) await end.drop();
    },
  };
}

function sample(rows: readonly string[]): string {
  return rows
    .slice(0, 3)
    .map((row) => row.slice(0, 300))
    .join();
}
