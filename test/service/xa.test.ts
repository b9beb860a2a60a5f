/** Application servers that use XA: what is prepared is not at the destination before it is committed, whatever happens in between. */
import { expect } from 'chai';
import { ChildServices, expireLeases } from '../support/child-service.ts';
import { createWorldFrom, type LogWorld } from '../support/log-world.ts';
import {
  findMysql,
  findMysqlItself,
  requireMysql,
  requireMysqlItself,
  type MysqlTestDatabase,
} from '../support/mysql.ts';
import { connect } from '../support/mysql-servers.ts';
import { eventually } from '../support/service.ts';

for (const { name, require, into } of [
  { name: 'MariaDB → PostgreSQL', require: requireMysql },
  { name: 'MySQL → PostgreSQL', require: requireMysqlItself },
  { name: 'MariaDB → MySQL', require: requireMysql, into: findMysqlItself },
  { name: 'MySQL → MariaDB', require: requireMysqlItself, into: findMysql },
])
  describe(`XA transactions, ${name}`, function () {
    this.timeout(90_000);
    let world: LogWorld;
    let source: MysqlTestDatabase;
    before(async function () {
      world = await createWorldFrom(this, require, into);
      source = world.from;
    });
    after(() => world?.close());
    const prepare = async (id: string, ...statements: string[]) => {
      const session = connect(source.url, source.name);
      await session.use((own) =>
        own.run('prepare', [`XA START '${id}'`, ...statements, `XA END '${id}'`, `XA PREPARE '${id}'`]),
      );
      await session.close();
    };
    /** The server lets go of a session that prepared and left only after a moment. */
    const decide = (verb: 'COMMIT' | 'ROLLBACK', id: string) =>
      eventually(() => source.query(`XA ${verb} '${id}'`).then(() => undefined));
    const rows = (table: string) =>
      world.into
        .query(`SELECT id, v FROM ${table} ORDER BY id`)
        .then((all) => all.map((row) => `${String(row['id'])} ${String(row['v'])}`));
    const becomes = (table: string, wanted: readonly string[]) =>
      eventually(async () => void expect(await rows(table)).to.deep.equal(wanted), 30_000);

    it('F01 F06 F49: killed between prepare and commit, and before the commit of the commit: all of it, after XA COMMIT only, and nothing of what is rolled back', async () => {
      for (const table of ['orders', 'items']) {
        await source.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v varchar(20))`);
        await source.query(`INSERT INTO ${table} VALUES (1, 'old'), (2, 'old')`);
      }
      const mappings = [];
      for (const table of ['orders', 'items']) mappings.push(await world.map(table));
      const services = new ChildServices();
      try {
        const first = await services.start(world);
        for (const mapping of mappings) await world.state(mapping, 'streaming', 40);
        await prepare(
          `${source.name} kept`,
          "INSERT INTO orders VALUES (3, 'xa')",
          "UPDATE items SET v = 'xa' WHERE id = 1",
        );
        await prepare(
          `${source.name} dropped`,
          "INSERT INTO orders VALUES (4, 'never')",
          'DELETE FROM items WHERE id = 2',
        );
        await source.query("INSERT INTO orders VALUES (5, 'other')");
        await becomes('orders', ['1 old', '2 old', '5 other']);
        await first.kill();
        await source.query("INSERT INTO orders VALUES (6, 'other')");
        await decide('COMMIT', `${source.name} kept`);
        const second = await services.start(world, { 'stream.before-commit': 'kill' });
        expect(await second.exited).to.equal('SIGKILL');
        expect(await rows('orders')).to.not.include('3 xa');
        await services.start(world);
        await becomes('orders', ['1 old', '2 old', '3 xa', '5 other', '6 other']);
        expect(await rows('items')).to.deep.equal(['1 xa', '2 old']);
        await decide('ROLLBACK', `${source.name} dropped`);
        await source.query("INSERT INTO items VALUES (7, 'last')");
        await becomes('items', ['1 xa', '2 old', '7 last']);
        expect(await rows('orders')).to.not.include('4 never');
        for (const mapping of mappings) await world.state(mapping, 'streaming');
        const requests = await world.control.query("SELECT reason FROM full_sync_requests WHERE reason <> 'initial'");
        expect(requests).to.deep.equal([]);
      } finally {
        await services.killAll();
      }
    });

    it('F03: a table copied while a transaction that changed it is prepared: its rows come with the commit', async () => {
      await source.query('CREATE TABLE late (id int PRIMARY KEY, v varchar(20))');
      await source.query("INSERT INTO late VALUES (1, 'old')");
      const id = `${source.name} early`;
      await prepare(id, "INSERT INTO late VALUES (2, 'xa')", "UPDATE late SET v = 'xa' WHERE id = 1");
      await expireLeases(world);
      const service = await world.start();
      const mapping = await world.map('late');
      await world.state(mapping, 'streaming', 40);
      expect(await rows('late')).to.deep.equal(['1 old']);
      await decide('COMMIT', id);
      await becomes('late', ['1 xa', '2 xa']);
      await world.state(mapping, 'streaming');
      await service.stop();
    });
  });
