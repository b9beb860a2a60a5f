/** Names in another case than the server's own, on servers that do not tell them apart. */
import { expect } from 'chai';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../support/mysql.ts';
import { startMariaDb, TEST_SETTINGS, type PrivateServer } from '../support/mysql-servers.ts';
import { createWorld, eventually, type World } from '../support/service.ts';
import { skip } from '../support/skip.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../support/sqlserver.ts';

interface Source {
  readonly url: string;
  query(sql: string): Promise<unknown>;
}

/** Copies, follows, is paused and resumed: one copy, and every row. */
async function follows(world: World, source: Source, columns: Readonly<Record<string, string | number>>) {
  const [server] = await world.control.query<{ server_id: number }>(
    `INSERT INTO source_servers (server_name, connection_string) VALUES ('folding', $1) RETURNING server_id`,
    [source.url],
  );
  const rows = (expected: readonly string[]) =>
    eventually(async () => {
      const found = await world.destination.query('SELECT id, v FROM public.taken ORDER BY id');
      expect(found.map((row) => `${String(row['id'])} ${String(row['v'])}`)).to.deep.equal(expected);
    }, 30_000);
  await world.start();
  const mapping = await world.map('ORDERS', {
    server_id: server?.server_id ?? 0,
    dest_schema: 'public',
    dest_table: 'taken',
    ...columns,
  });
  await world.state(mapping, 'streaming', 60);
  await source.query("INSERT INTO orders VALUES (2, 'followed')");
  await rows(['1 first', '2 followed']);
  await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
  await world.state(mapping, 'paused');
  await source.query("INSERT INTO orders VALUES (3, 'kept')");
  await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
  await world.state(mapping, 'streaming', 60);
  await rows(['1 first', '2 followed', '3 kept']);
  const requests = await world.control.query('SELECT reason FROM full_sync_requests WHERE mapping_id = $1', [mapping]);
  expect(requests.map((row) => row['reason'])).to.deep.equal(['initial']);
  return { mapping, rows };
}

describe('F27: a mapping written in another case than the table’s', function () {
  this.timeout(120_000);
  let world: World;
  beforeEach(async () => {
    world = await createWorld();
  });
  afterEach(() => world.close());

  it('MariaDB with lower_case_table_names = 1', async function () {
    const shared = await requireMysql(this);
    if (!shared.isMariaDb || process.env['TEST_MYSQL_URL']) skip(this, 'it is a server of its own');
    const server: PrivateServer = await startMariaDb({ ...TEST_SETTINGS, 'lower-case-table-names': '1' });
    let source: MysqlTestDatabase | null = null;
    try {
      source = await createMysqlDatabase(server.server, 'src');
      await source.query('CREATE TABLE Orders (id int PRIMARY KEY, v varchar(20))');
      await source.query("INSERT INTO orders VALUES (1, 'first')");
      const { mapping, rows } = await follows(world, source, {});
      await source.query('TRUNCATE TABLE oRDERS');
      await source.query("INSERT INTO orders VALUES (4, 'after it')");
      await rows(['4 after it']);
      await world.state(mapping, 'streaming');
    } finally {
      await source?.connection.close();
      await server.stop();
    }
  });

  it('SQL Server with a collation that ignores case', async function () {
    const source: SqlServerTestDatabase = await createSqlServerDatabase(await requireSqlServer(this), 'src');
    try {
      await source.enableCdc();
      await source.query('CREATE TABLE dbo.orders (id int NOT NULL PRIMARY KEY, v nvarchar(20))');
      await source.captureTable('dbo', 'orders');
      await source.query("INSERT INTO orders VALUES (1, 'first')");
      await follows(world, source, { source_database: source.name, source_schema: 'DBO' });
    } finally {
      await world.close();
      await source.drop();
    }
  });
});
