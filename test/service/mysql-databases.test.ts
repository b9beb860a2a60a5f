/** Databases of one MariaDB or MySQL, by one change stream: what is one transaction there is one here, and each mapping is still its own. */
import { expect } from 'chai';
import { ChildServices, expireLeases } from '../support/child-service.ts';
import { createMysqlDatabase, requireMysql, requireMysqlItself, type MysqlTestDatabase } from '../support/mysql.ts';
import { MARIADB } from '../support/same-engine-pair.ts';
import { createWorld, eventually, type World } from '../support/service.ts';
import { skip } from '../support/skip.ts';

const ROWS = 50;
/** What all `n` of a pair of tables add up to, whatever is moved between them. */
const TOTAL = 2 * ROWS * 100;

for (const { name, require } of [
  { name: 'MariaDB', require: requireMysql },
  { name: 'MySQL', require: requireMysqlItself },
])
  describe(`databases of one ${name} → PostgreSQL`, function () {
    this.timeout(120_000);
    let world: World;
    let a: MysqlTestDatabase;
    let b: MysqlTestDatabase;
    const mappings = new Map<string, number>();
    const services = new ChildServices();

    const database = async (server: Parameters<typeof createMysqlDatabase>[0], prefix: string) => {
      const made = await createMysqlDatabase(server, prefix);
      for (const table of ['orders', 'items']) {
        await made.query(`CREATE TABLE ${table} (id int NOT NULL PRIMARY KEY, n int NOT NULL, v varchar(40))`);
        await made.query(`INSERT INTO ${table} SELECT i, 100, '${prefix} ${table}' FROM ${MARIADB.numbers(ROWS)}`);
      }
      return made;
    };
    const map = async (from: MysqlTestDatabase, table: string, target: string) => {
      const mapping = await world.map(table, {
        server_id: 2,
        source_database: from.name,
        dest_server_id: null,
        dest_table: target,
      });
      mappings.set(target, mapping);
    };
    const state = (target: string, wanted: string) => world.state(mappings.get(target) ?? 0, wanted, 40);
    const set = (target: string, change: string) =>
      world.control.query(`UPDATE table_mappings SET ${change} WHERE mapping_id = $1`, [mappings.get(target)]);
    const equal = (from: MysqlTestDatabase, table: string, target: string) =>
      eventually(async () => {
        const lines = (rows: readonly Readonly<Record<string, unknown>>[]) => rows.map((row) => String(row['line']));
        const sql = `SELECT CONCAT_WS('|', id, n, v) AS line FROM`;
        const [here, there] = [
          await from.query(`${sql} ${table} ORDER BY id`),
          await world.destination.query(`${sql} public.${target} ORDER BY id`),
        ];
        expect(lines(there)).to.deep.equal(lines(here));
      }, 20_000);
    const allEqual = async () => {
      for (const table of ['orders', 'items']) {
        await equal(a, table, `a_${table}`);
        await equal(b, table, `b_${table}`);
      }
    };
    /** Moves from one database to the other, in one transaction. */
    const move = (i: number) =>
      a.connection.use((session) =>
        session.transaction('START TRANSACTION', async () => {
          await session.run('move', [
            `UPDATE \`${a.name}\`.orders SET n = n - 1, v = 'move ${i}' WHERE id = ${(i % ROWS) + 1}`,
            `UPDATE \`${b.name}\`.orders SET n = n + 1, v = 'move ${i}' WHERE id = ${((i * 7) % ROWS) + 1}`,
          ]);
        }),
      );
    /** Moves for as long as `work` takes. */
    const whileMoving = async (work: () => Promise<unknown>) => {
      let stop = false;
      const writer = (async () => {
        for (let i = 0; !stop; i++) await move(i);
      })();
      try {
        await work();
      } finally {
        stop = true;
        await writer;
      }
    };
    const readers = () =>
      a.query("SELECT DB AS db FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'");

    before(async function () {
      const server = await require(this);
      [a, b] = [await database(server, 'a'), await database(server, 'b')];
      world = await createWorld({ lease_seconds: 90 });
      await world.control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('both', $1)`, [
        server.url,
      ]);
      for (const table of ['orders', 'items']) {
        await map(a, table, `a_${table}`);
        await map(b, table, `b_${table}`);
      }
    });
    after(async () => {
      await world?.close();
      await a?.drop();
      await b?.drop();
    });
    const running = async (work: () => Promise<unknown>) => {
      const service = await world.start();
      try {
        for (const target of mappings.keys()) await state(target, 'streaming');
        await work();
      } finally {
        await service.stop();
      }
    };

    it('F49: one connection reads the log, tables of one name are told apart, and no reader sees half of a transaction across them', async () => {
      await running(async () => {
        await allEqual();
        await eventually(async () => {
          expect(await readers()).to.deep.equal([{ db: null }]);
        });
        const streams = await world.control.query("SELECT lease_key FROM leases WHERE lease_key LIKE 'stream:%'");
        expect(streams).to.have.length(1);
        expect(await world.destination.query('SELECT apply_group FROM sluice.positions')).to.have.length(1);
        let moved = 0;
        await whileMoving(async () => {
          const seen = new Set<string>();
          for (let look = 0; look < 200 || seen.size < 5; look++) {
            const [row] = await world.destination.query<{ total: string; n: string }>(
              `SELECT (SELECT sum(n) FROM a_orders) + (SELECT sum(n) FROM b_orders) AS total, (SELECT sum(n) FROM a_orders) AS n`,
            );
            expect(Number(row?.total)).to.equal(TOTAL);
            seen.add(String(row?.n));
          }
          moved = seen.size;
        });
        expect(moved).to.be.greaterThan(4);
        await allEqual();
      });
    });

    it('F27 F51: one mapping is refused a row, disabled, deleted: those of the other database go on', async () => {
      await running(async () => {
        await world.destination.query("ALTER TABLE a_items ADD CONSTRAINT no_bad CHECK (v <> 'bad')");
        await a.query("UPDATE items SET v = 'bad' WHERE id = 1");
        await state('a_items', 'failed');
        await b.query("UPDATE items SET v = 'while the other fails' WHERE id < 10");
        await equal(b, 'items', 'b_items');
        await move(1);
        await equal(a, 'orders', 'a_orders');
        await set('b_items', 'is_enabled = 0');
        await state('b_items', 'paused');
        await b.query("UPDATE items SET v = 'while disabled' WHERE id < 10");
        await b.query('DELETE FROM items WHERE id = 20');
        await world.destination.query('ALTER TABLE a_items DROP CONSTRAINT no_bad');
        // A changed row is tried again at once.
        await set('a_items', 'max_failed_rows = 1');
        await state('a_items', 'streaming');
        await equal(a, 'items', 'a_items');
        await set('b_items', 'is_enabled = 1');
        await state('b_items', 'streaming');
        await allEqual();
        await world.control.query('DELETE FROM table_mappings WHERE mapping_id = $1', [mappings.get('b_items')]);
        mappings.delete('b_items');
        await eventually(async () => {
          expect(await world.destination.query('SELECT mapping_uid FROM sluice.generations')).to.have.length(3);
        });
        await move(2);
        await equal(b, 'orders', 'b_orders');
        await world.destination.query('DROP TABLE b_items');
        await map(b, 'items', 'b_items');
        await state('b_items', 'streaming');
        await allEqual();
        const copies = await world.control.query("SELECT mapping_id FROM full_sync_requests WHERE reason = 'gap'");
        expect(copies).to.deep.equal([]);
        await b.connection.use((session) =>
          session.run('log parts of rows', [
            "SET SESSION binlog_row_image = 'MINIMAL'",
            "UPDATE items SET v = 'in part' WHERE id = 3",
            "SET SESSION binlog_row_image = 'FULL'",
          ]),
        );
        await state('b_items', 'gap');
        expect((await world.problem(mappings.get('b_items') ?? 0)).error_hint).to.contain('binlog_row_image');
        await move(4);
        await equal(a, 'orders', 'a_orders');
        await equal(b, 'orders', 'b_orders');
        await world.copyAgain(mappings.get('b_items') ?? 0);
        await allEqual();
      });
    });

    it('F03: a database that nobody wanted so far is mapped while it is written to: nothing of it is left out', async () => {
      const c = await database(a.server, 'c');
      try {
        await running(async () => {
          let stop = false;
          const writer = (async () => {
            for (let i = 1; !stop; i++)
              await c.query(`UPDATE orders SET id = id + ${ROWS}, v = 'round ${i}' WHERE id <= ${i * ROWS}`);
          })();
          try {
            await map(c, 'orders', 'c_orders');
            await state('c_orders', 'streaming');
          } finally {
            stop = true;
            await writer;
          }
          await equal(c, 'orders', 'c_orders');
          expect(await readers()).to.have.length(1);
          await world.control.query('DELETE FROM table_mappings WHERE mapping_id = $1', [mappings.get('c_orders')]);
          mappings.delete('c_orders');
        });
      } finally {
        await c.drop();
      }
    });

    it('F03 F50: such a database is mapped and copied by another process, while the owner of the stream is frozen and knows of nothing', async function () {
      if (!process.env['SLUICE_TEST_LONG']) skip(this, 'takes long: npm run test:long');
      const d = await database(a.server, 'd');
      try {
        const owner = await services.start(world);
        await owner.says('change stream started', 60_000);
        await move(6);
        await equal(a, 'orders', 'a_orders');
        owner.signal('SIGSTOP');
        await map(d, 'orders', 'd_orders');
        // Its lease is left to the owner.
        const copier = await services.startBeside(world);
        await copier.says('full sync started', 60_000);
        for (let i = 1; i <= 20; i++)
          await d.query(`UPDATE orders SET id = id + ${ROWS}, v = 'round ${i}' WHERE id <= ${i * ROWS}`);
        await move(7);
        owner.signal('SIGCONT');
        await state('d_orders', 'streaming');
        await equal(d, 'orders', 'd_orders');
        expect(owner.count('was lost to another'), owner.lastWords()).to.equal(0);
        await d.query("UPDATE orders SET v = 'behind it'");
        await equal(d, 'orders', 'd_orders');
        await allEqual();
        await world.control.query('DELETE FROM table_mappings WHERE mapping_id = $1', [mappings.get('d_orders')]);
        mappings.delete('d_orders');
      } finally {
        await services.killAll();
        await d.drop();
      }
    });

    it('F01: killed behind the commit of a transaction across both, the service goes on behind it', async () => {
      const gaps = () => world.control.query("SELECT error_message FROM error_logs WHERE error_code = 'GAP'");
      const before = await gaps();
      try {
        const first = await services.start(world, { 'stream.after-commit': 'kill:3' });
        await first.says('change stream started', 60_000);
        await whileMoving(async () => {
          expect(await first.endsWithin(60_000), first.lastWords()).to.equal(true);
          await services.start(world);
          await state('a_orders', 'streaming');
        });
        await allEqual();
        expect(await gaps()).to.deep.equal(before);
      } finally {
        await services.killAll();
      }
    });

    it('F51 F54: the database that the connection string names is changed: its rows replace the former ones; a table is not copied onto itself', async () => {
      await expireLeases(world);
      await world.control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('one', $1)`, [
        a.url,
      ]);
      const mapping = await world.map('orders', { server_id: 3, dest_server_id: null, dest_table: 'one_orders' });
      mappings.set('one_orders', mapping);
      const same = new URL(a.url);
      same.hostname = 'localhost';
      await world.control.query(`INSERT INTO destination_servers (server_name, connection_string) VALUES ('it', $1)`, [
        same.toString(),
      ]);
      await running(async () => {
        await equal(a, 'orders', 'one_orders');
        await world.control.query('UPDATE source_servers SET connection_string = $1 WHERE server_id = 3', [b.url]);
        await equal(b, 'orders', 'one_orders');
        await move(5);
        await equal(b, 'orders', 'one_orders');
        await state('one_orders', 'streaming');
        const onto = await world.map('orders', {
          server_id: 2,
          source_database: a.name,
          dest_server_id: 1,
          dest_database: a.name,
          is_full_sync: 1,
        });
        await world.state(onto, 'failed');
        expect(await world.problem(onto)).to.include({ error_code: 'MAPPING_INVALID' });
        await world.control.query('DELETE FROM table_mappings WHERE mapping_id IN ($1, $2)', [mapping, onto]);
        mappings.delete('one_orders');
        await allEqual();
      });
    });

    it('F51: places that were kept for each database by an earlier version: all is copied again, and that is said', async () => {
      await expireLeases(world);
      for (const table of ['sluice.positions', 'sluice.generations'])
        await world.destination.query(`UPDATE ${table} SET stream = stream || '/${a.name}'`);
      await world.control.query(`UPDATE mapping_state SET stream = stream || '/${a.name}'`);
      await move(3);
      await a.query("UPDATE items SET v = 'while it was upgraded'");
      await running(async () => {
        await eventually(async () => {
          const requests = await world.control.query(
            "SELECT mapping_id FROM full_sync_requests WHERE reason = 'schema_change' AND status = 'completed'",
          );
          expect(requests).to.have.length(4);
        }, 40_000);
        await allEqual();
        await a.query("UPDATE items SET v = 'behind it'");
        await allEqual();
        const told = await world.control.query("SELECT 1 FROM sync_logs WHERE log_message LIKE '%is copied again%'");
        expect(told).to.have.length(4);
        const positions = await world.destination.query('SELECT stream FROM sluice.positions');
        expect(positions.map((row) => String(row['stream']).split('/').length)).to.deep.equal([2]);
      });
    });
  });
