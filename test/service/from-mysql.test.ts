/** From MariaDB and MySQL to PostgreSQL, by the service, what other sources do otherwise: TRUNCATE, columns that come. */
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
      // The statement itself asks for the copy: no row has to come after it.
      await equal('shifting', 'id, v, w');
      await source.query("INSERT INTO shifting VALUES (5, 8, 'e')");
      await equal('shifting', 'id, v, w');
      await world.state(mapping, 'streaming');
    });

    it('F26 F28: a statement that needed a copy and left the columns alone; then columns that no statement told of: they need another', async () => {
      await source.query('CREATE TABLE quiet (id int PRIMARY KEY, v varchar(20))');
      await source.query("INSERT INTO quiet VALUES (1, 'a'), (2, 'b')");
      const mapping = await map('quiet');
      await world.state(mapping, 'streaming', 40);
      const reasons = async () =>
        (
          await world.control.query(
            "SELECT reason FROM full_sync_requests WHERE mapping_id = $1 AND status = 'completed' ORDER BY request_id",
            [mapping],
          )
        ).map((row) => row['reason']);
      await source.query('ALTER TABLE quiet ENGINE = InnoDB');
      await eventually(async () => void expect(await reasons()).to.deep.equal(['initial', 'schema_change']), 20_000);
      // As a replica is altered before its primary.
      await source.connection.use((session) =>
        session.run('a statement that is not logged', [
          'SET SESSION sql_log_bin = 0',
          'ALTER TABLE quiet ADD COLUMN w int NOT NULL DEFAULT 7',
          'SET SESSION sql_log_bin = 1',
        ]),
      );
      await source.query("UPDATE quiet SET v = 'c' WHERE id = 1");
      await equal('quiet', 'id, v, w');
      // The request is finished a moment after its rows are there.
      await eventually(async () => {
        expect(await reasons()).to.deep.equal(['initial', 'schema_change', 'schema_change']);
      });
    });

    it('F23 F26: a table renamed away and another in its place (as gh-ost does), dropped partitions: a copy is asked for, at once; an index asks for none', async () => {
      await source.query(
        'CREATE TABLE swapped (id int PRIMARY KEY, v varchar(20)) PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (100), PARTITION high VALUES LESS THAN MAXVALUE)',
      );
      await source.query("INSERT INTO swapped VALUES (1, 'a'), (2, 'b'), (200, 'c')");
      const mapping = await map('swapped');
      await world.state(mapping, 'streaming', 40);
      await equal('swapped', 'id, v');
      const asked = async () =>
        (await world.control.query('SELECT reason FROM full_sync_requests WHERE mapping_id = $1', [mapping])).length;
      await source.query('ALTER TABLE swapped ADD INDEX by_v (v)');
      await source.query("INSERT INTO swapped VALUES (3, 'after the index')");
      await equal('swapped', 'id, v');
      expect(await asked()).to.equal(1);
      await source.query('ALTER TABLE swapped DROP PARTITION low');
      await equal('swapped', 'id, v');
      expect(await asked()).to.equal(2);
      await source.query('CREATE TABLE _swapped_gho (id int PRIMARY KEY, v varchar(20), w int NOT NULL DEFAULT 4)');
      await source.query('INSERT INTO _swapped_gho (id, v) SELECT id, v FROM swapped');
      await source.query("INSERT INTO _swapped_gho VALUES (7, 'only here', 5)");
      await source.query('RENAME TABLE swapped TO _swapped_del, _swapped_gho TO swapped');
      await source.query("INSERT INTO swapped VALUES (8, 'after it', 6)");
      await equal('swapped', 'id, v, w');
      await world.state(mapping, 'streaming');
      await equal('swapped', 'id, v, w');
      expect(await world.control.query('SELECT error_message FROM error_logs')).to.deep.equal([]);
    });
  });
