/** From MariaDB and MySQL to PostgreSQL, by the service, what other sources do otherwise: TRUNCATE, columns that come. */
import { expect } from 'chai';
import { createWorldFrom, type LogWorld } from '../support/log-world.ts';
import { requireMysql, requireMysqlItself, type MysqlTestDatabase } from '../support/mysql.ts';
import { connect } from '../support/mysql-servers.ts';
import { eventually } from '../support/service.ts';

for (const { name, require } of [
  { name: 'MariaDB', require: requireMysql },
  { name: 'MySQL', require: requireMysqlItself },
])
  describe(`${name} → PostgreSQL`, function () {
    this.timeout(90_000);
    let world: LogWorld;
    let source: MysqlTestDatabase;
    before(async function () {
      world = await createWorldFrom(this, require);
      source = world.from;
      await world.start();
    });
    after(() => world?.close());

    const map = (table: string) => world.map(table);
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
      const asked = (expected: readonly string[]) =>
        eventually(async () => void expect(await reasons()).to.deep.equal(expected), 20_000);
      await asked(['initial', 'schema_change']);
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
      await asked(['initial', 'schema_change', 'schema_change']);
    });

    it('F18: statements in the log instead of rows: a gap of the tables that they may have changed, and of no others', async () => {
      for (const table of ['by_rows', 'by_statement', 'by_join']) {
        await source.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v varchar(20))`);
        await source.query(`INSERT INTO ${table} VALUES (1, 'a'), (2, 'b')`);
      }
      const [rows, statement] = [await map('by_rows'), await map('by_statement')];
      await world.state(rows, 'streaming', 40);
      await world.state(statement, 'streaming', 40);
      const asStatement = (sql: string) =>
        source.connection.use((session) =>
          session.run('log statements', [
            "SET SESSION binlog_format = 'STATEMENT'",
            sql,
            "SET SESSION binlog_format = 'ROW'",
          ]),
        );
      await asStatement("UPDATE by_statement SET v = 'unseen' WHERE id = 1");
      await source.query("UPDATE by_rows SET v = 'seen' WHERE id = 1");
      await world.state(statement, 'gap');
      expect((await world.problem(statement)).error_hint).to.contain('binlog_format');
      await equal('by_rows', 'id, v');
      await world.state(rows, 'streaming');
      await world.copyAgain(statement);
      await equal('by_statement', 'id, v');
      await world.state(statement, 'streaming');
      // What it changes cannot be told from its text.
      await asStatement("UPDATE by_join JOIN by_rows ON by_rows.id = by_join.id SET by_rows.v = 'unseen'");
      await world.state(rows, 'gap');
      await world.copyAgain(rows);
      await equal('by_rows', 'id, v');
      await world.control.query('DELETE FROM table_mappings');
    });

    it('F18: an incident in the log: a gap that a full sync mends, and the log behind it is read', async () => {
      await source.query('CREATE TABLE lossy (id int PRIMARY KEY, v longtext) ENGINE = MyISAM');
      await source.query("INSERT INTO lossy VALUES (1, 'a')");
      const mapping = await map('lossy');
      await world.state(mapping, 'streaming', 40);
      const [limit] = await source.query('SELECT @@global.max_binlog_stmt_cache_size AS was');
      await source.query('SET GLOBAL max_binlog_stmt_cache_size = 4096');
      // The limit is that of sessions that begin now.
      const session = connect(source.url, source.name);
      try {
        // The rows are in the table, and their events were too large for the log.
        const error = await session
          .query('insert large rows', "INSERT INTO lossy VALUES (2, REPEAT('b', 100000)), (3, REPEAT('c', 100000))")
          .catch((thrown: unknown) => thrown);
        expect(String(error)).to.contain('max_binlog_stmt_cache_size');
      } finally {
        await session.close();
        await source.query(`SET GLOBAL max_binlog_stmt_cache_size = ${String(limit?.['was'])}`);
      }
      await world.state(mapping, 'gap');
      await world.copyAgain(mapping);
      await source.query("INSERT INTO lossy VALUES (4, 'd')");
      await equal('lossy', 'id, LENGTH(v), LEFT(v, 5)');
      await world.state(mapping, 'streaming');
      await world.control.query('DELETE FROM table_mappings');
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
      expect(
        await world.control.query('SELECT error_message FROM error_logs WHERE mapping_id = $1', [mapping]),
      ).to.deep.equal([]);
    });
  });
