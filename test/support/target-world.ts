/** A world (service.ts) whose mappings go from PostgreSQL to a database of another engine. */
import type { Context } from 'mocha';
import type { End, EngineName } from './ends.ts';
import { findMysql } from './mysql.ts';
import { createPairsWorld } from './pairs-world.ts';
import type { World } from './service.ts';
import { skip } from './skip.ts';

export interface TargetWorld extends World {
  readonly target: End;
  /** Waits until `public.table` of the source and the target's table hold the same rows, cell by cell. */
  equal(table: string, ms?: number): Promise<void>;
  /** The mapping of a source table. */
  idOf(table: string): Promise<number>;
}

/** To be called in a hook: skips its tests where there is no such server. `mysql`: which of the two is meant. */
export async function createWorldTo(
  context: Context,
  engine: EngineName,
  settings: Readonly<Record<string, number>> = {},
  mysql = findMysql,
): Promise<TargetWorld> {
  const world = await createPairsWorld(settings, [], [engine], mysql);
  const missing = world.missing(engine);
  if (missing !== null) {
    await world.close();
    return skip(context, missing);
  }
  return {
    ...world,
    target: world.into(engine),
    map: (table, columns) => world.mapPair('postgres', engine, table, columns),
    equal: (table, ms) => world.equalPair('postgres', engine, table, ms),
    idOf: async (table) => {
      const [row] = await world.control.query<{ mapping_id: number }>(
        'SELECT mapping_id FROM table_mappings WHERE source_table = $1',
        [table],
      );
      return row?.mapping_id ?? 0;
    },
  };
}
