/** A world (service.ts) whose mappings go from a database of MariaDB or of MySQL itself, by the server's log. */
import type { Context } from 'mocha';
import { createEnd, postgresEnd, type End } from './ends.ts';
import { createMysqlDatabase, type findMysql, type MysqlTestDatabase, type requireMysql } from './mysql.ts';
import { createWorld, type World } from './service.ts';
import { skip } from './skip.ts';

export interface LogWorld extends World {
  /** Server 2 of the control database. */
  readonly from: MysqlTestDatabase;
  readonly into: End;
}

/** To be called in a `before` hook: skips its tests where there is no such server. `into`: another destination than PostgreSQL. */
export async function createWorldFrom(
  context: Context,
  require: typeof requireMysql,
  into?: typeof findMysql,
): Promise<LogWorld> {
  const from = await createMysqlDatabase(await require(context), 'src');
  const other = into ? await createEnd('mysql', 'dst', into) : null;
  if (typeof other === 'string') {
    await from.drop();
    return skip(context, other);
  }
  const world = await createWorld();
  const server = 'INSERT INTO source_servers (server_name, connection_string) VALUES ($1, $2)';
  await world.control.query(server, ['its log', from.url]);
  if (other) await world.control.query(server.replace('source', 'destination'), ['copies', other.url]);
  const target = other ?? postgresEnd(world.destination);
  return {
    ...world,
    from,
    into: target,
    map: (table, columns) =>
      world.map(table, { server_id: 2, dest_server_id: other ? 1 : null, ...target.asDestination, ...columns }),
    close: async () => {
      await world.close();
      await target.drop();
      await from.drop();
    },
  };
}
