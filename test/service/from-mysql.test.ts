/** From MariaDB and MySQL to PostgreSQL, by the service: first rows, changes, a pause, columns that come, TRUNCATE. */
import { expect } from 'chai';
import { createMysqlDatabase, requireMysql, requireMysqlItself, type MysqlTestDatabase } from '../support/mysql.ts';
import { createWorld, eventually, type World } from '../support/service.ts';

for (const { name, require } of [
  { name: 'MariaDB', require: requireMysql },
  { name: 'MySQL', require: requireMysqlItself },
])
  describe(`${name} → PostgreSQL`, function () {
    this.timeout(90_000);
    let world: World;
    let source: MysqlTestDatabase;
    before(async function () {
      source = await createMysqlDatabase(await require(this), 'src');
      world = await createWorld();
      await world.control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('its log', $1)`, [
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

    it('copies the table, follows its changes, keeps them while paused, copies again when asked', async () => {
      await source.query(
        'CREATE TABLE orders (id int PRIMARY KEY, customer varchar(100) NOT NULL, total decimal(12,2), amount bigint unsigned, placed datetime(3))',
      );
      await source.query(
        `INSERT INTO orders SELECT i, CONCAT('customer ', i), i * 1.25, 18446744073709551615 - i, '2024-01-01 00:00:00.120'
       FROM JSON_TABLE(CONCAT('[', REPEAT('0,', 2999), '0]'), '$[*]' COLUMNS (i FOR ORDINALITY)) AS numbers`,
      );
      const columns = 'id, customer, total, amount';
      const mapping = await map('orders');
      await world.state(mapping, 'streaming', 40);
      await equal('orders', columns);

      await source.query('UPDATE orders SET total = total + 1 WHERE id % 7 = 0');
      await source.query('DELETE FROM orders WHERE id % 11 = 0');
      await source.query("INSERT INTO orders (id, customer) VALUES (9001, 'né 😀'), (9002, '')");
      await source.query('UPDATE orders SET id = id + 100000 WHERE id < 50');
      await equal('orders', columns);

      await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
      await world.state(mapping, 'paused');
      await source.query('UPDATE orders SET customer = UPPER(customer) WHERE id < 500');
      await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
      await world.state(mapping, 'streaming');
      await equal('orders', columns);

      await world.destination.query('DELETE FROM orders WHERE id BETWEEN 600 AND 700');
      await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
      await source.query('UPDATE orders SET total = 0 WHERE id % 3 = 0');
      await equal('orders', columns);
      expect(await world.control.query('SELECT error_message FROM error_logs')).to.deep.equal([]);
    });

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
