/** From MariaDB to PostgreSQL, by the service, what other sources do otherwise: TRUNCATE, columns that come. */
import { expect } from 'chai';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../support/mysql.ts';
import { createWorld, eventually, type World } from '../support/service.ts';
import { skip } from '../support/skip.ts';

describe('MariaDB → PostgreSQL', function () {
  this.timeout(90_000);
  let world: World;
  let source: MysqlTestDatabase;
  before(async function () {
    const server = await requireMysql(this);
    if (!server.isMariaDb) skip(this, 'changes of MySQL itself are not followed yet');
    source = await createMysqlDatabase(server, 'src');
    world = await createWorld();
    await world.control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('mariadb', $1)`, [
      source.url,
    ]);
    await world.start();
  });
  after(async () => {
    await world?.close();
    await source?.drop();
  });

  const map = (table: string) => world.map(table, { server_id: 2, dest_server_id: null });
  const equal = (table: string, columns: string) =>
    eventually(async () => {
      const from = await source.query(`SELECT CONCAT_WS('|', ${columns}) AS line FROM ${table}`);
      const to = await world.destination.query(`SELECT CONCAT_WS('|', ${columns}) AS line FROM public.${table}`);
      const lines = (rows: readonly Readonly<Record<string, unknown>>[]) =>
        rows.map((row) => String(row['line'])).sort();
      expect(lines(to)).to.deep.equal(lines(from));
    }, 20_000);

  it('F23 F26 F28: TRUNCATE empties the copy; a column with a default reaches rows that no event told of', async () => {
    await source.query('CREATE TABLE shifting (id int PRIMARY KEY, v varchar(20))');
    await source.query("INSERT INTO shifting VALUES (1, 'a'), (2, 'b')");
    const mapping = await map('shifting');
    await world.state(mapping, 'streaming', 40);
    await equal('shifting', 'id, v');
    await source.query('TRUNCATE TABLE shifting');
    await source.query("INSERT INTO shifting VALUES (3, 'c'), (4, 'd')");
    await equal('shifting', 'id, v');
    await source.query('ALTER TABLE shifting ADD COLUMN w int NOT NULL DEFAULT 7 AFTER id');
    await source.query("INSERT INTO shifting VALUES (5, 8, 'e')");
    await equal('shifting', 'id, v, w');
    await world.state(mapping, 'streaming');
  });
});
