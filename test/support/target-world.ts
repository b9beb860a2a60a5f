/** A world (service.ts) whose mappings go from PostgreSQL to a database of another engine. */
import type { Cell } from '../../src/model/changes.ts';
import { eventually, type World } from './service.ts';

export interface TargetWorld extends World {
  /** Waits until `public.table` of the source and the target's table hold the same rows, cell by cell. */
  equal(table: string, ms?: number): Promise<void>;
  /** The mapping of a source table. */
  idOf(table: string): Promise<number>;
  /** Asks for a full sync and waits until it is done. */
  copyAgain(mappingId: number): Promise<void>;
}

export interface Target {
  readonly url: string;
  /** What a mapping's row says of the destination. */
  readonly place: Readonly<Record<string, string>>;
  /** All rows of a table, as exact cells. */
  rows(table: string): Promise<{ columns: string[]; rows: Cell[][] }>;
}

/** The target is destination server 1. */
export async function worldTo(world: World, target: Target): Promise<TargetWorld> {
  await world.control.query(`INSERT INTO destination_servers (server_name, connection_string) VALUES ('target', $1)`, [
    target.url,
  ]);
  return {
    ...world,
    map: (table, columns = {}) => world.map(table, { dest_server_id: 1, ...target.place, ...columns }),
    equal: (table, ms = 20_000) =>
      eventually(async () => {
        const { columns, rows } = await target.rows(table);
        const theirs = rows
          .map((row) =>
            JSON.stringify(row.map((cell) => (cell instanceof Uint8Array ? Buffer.from(cell).toString() : cell))),
          )
          .sort();
        const here = await world.source.query(
          `SELECT ${columns.map((column, i) => `"${column}"::text AS c${i}`).join(', ')} FROM public."${table}"`,
        );
        const ours = here.map((row) => JSON.stringify(columns.map((_, i) => row[`c${i}`]))).sort();
        const [there, known] = [new Set(theirs), new Set(ours)];
        const missing = ours.filter((row) => !there.has(row)).slice(0, 3);
        const extra = theirs.filter((row) => !known.has(row)).slice(0, 3);
        if (ours.length !== theirs.length || missing.length + extra.length > 0)
          throw new Error(
            `${table}: ${ours.length} rows at the source, ${theirs.length} here; missing ${missing.join()}; extra ${extra.join()}`,
          );
      }, ms),
    idOf: async (table) => {
      const [row] = await world.control.query<{ mapping_id: number }>(
        'SELECT mapping_id FROM table_mappings WHERE source_table = $1',
        [table],
      );
      return row?.mapping_id ?? 0;
    },
    copyAgain: async (mappingId) => {
      await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mappingId]);
      await eventually(async () => {
        const [row] = await world.control.query('SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1', [
          mappingId,
        ]);
        if (row?.['is_full_sync'] !== 0) throw new Error('the full sync is not done');
      }, 30_000);
    },
  };
}
