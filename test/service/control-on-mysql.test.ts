/**
 * Control database and destination on one MySQL or MariaDB, sources on PostgreSQL and there: two INSERTs, rows arrive, changes
 * arrive, through a kill, a cut network and a change of owners.
 */
import { expect } from 'chai';
import { startProxy, type Proxy } from '../control/proxy.ts';
import { sluice } from '../cli/support.ts';
import { ChildService } from '../support/child-service.ts';
import { createMysqlDatabase, requireMysql, requireMysqlItself, type MysqlTestDatabase } from '../support/mysql.ts';
import type { MysqlUnderTest } from '../support/mysql-servers.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { eventually } from '../support/service.ts';

type Lines = readonly Readonly<Record<string, unknown>>[];

const SERVERS = [
  { name: 'MariaDB', require: requireMysql },
  ...(process.env['SLUICE_TEST_LONG'] ? [{ name: 'MySQL', require: requireMysqlItself }] : []),
];

for (const { name, require } of SERVERS)
  describe(`a control database on ${name}`, function () {
    this.timeout(120_000);
    let server: MysqlUnderTest;
    let postgres: TestDatabase;
    let mysql: MysqlTestDatabase;
    let destination: MysqlTestDatabase;
    let control: MysqlTestDatabase;
    let proxy: Proxy;
    const services: ChildService[] = [];
    /** Table → its source. */
    const tables = new Map<string, TestDatabase | MysqlTestDatabase>();

    const start = async (url = server.url) => {
      const service = await ChildService.start({ control }, {}, { DEST_URL: url });
      services.push(service);
      return service;
    };
    const cli = (...args: string[]) => sluice(args, { DEST_URL: server.url, CONTROL_DATABASE: control.name });

    before(async function () {
      server = await require(this);
      this.timeout(120_000);
      [postgres, mysql, destination, control] = await Promise.all([
        createDatabase('src'),
        createMysqlDatabase(server, 'src'),
        createMysqlDatabase(server, 'dst'),
        createMysqlDatabase(server, 'ctl'),
      ]);
      proxy = await startProxy(server.url);
      tables.set('orders', postgres);
      tables.set('items', mysql);
      expect((await cli('migrate')).exitCode).to.equal(0);
      await control.query(
        `UPDATE config SET config_value = CASE config_key WHEN 'lease_seconds' THEN '5' WHEN 'verification_interval_minutes' THEN '0' ELSE '1' END
       WHERE config_key IN ('cdc_check_interval_seconds', 'retry_delay_seconds', 'lease_seconds', 'verification_interval_minutes')`,
      );
    });
    after(async () => {
      for (const service of services) await service.kill();
      await proxy?.close();
      await Promise.all([postgres, mysql, destination, control].map((each) => each?.drop()));
    });

    const text = (rows: Lines) => rows.map((row) => String(row['line'])).sort();
    const equal = (ms = 40_000) =>
      eventually(async () => {
        const health = await control.query(
          'SELECT source_table, state, error_code, error_message FROM v_mapping_health',
        );
        for (const [table, source] of tables) {
          const sql = `SELECT CONCAT(id, '|', name) AS line FROM ${table}`;
          const there = await destination.query(sql).catch((error: Error) => [{ line: error.message }]);
          const told = `${table}: ${JSON.stringify(health)}\n${services.at(-1)?.lastWords(5) ?? ''}`;
          expect(text(there as Lines), told).to.deep.equal(text(await source.query(sql)));
        }
      }, ms);
    /** Inserts from `from` on, and changes and deletes some of what is there. */
    const change = async (from: number) => {
      for (const [table, source] of tables) {
        const rows = Array.from({ length: 20 }, (_, at) => `(${from + at}, 'né 😀 ${from + at}')`);
        await source.query(`INSERT INTO ${table} (id, name) VALUES ${rows.join(', ')}`);
        await source.query(`UPDATE ${table} SET name = CONCAT(name, '!') WHERE id % 7 = ${from % 7}`);
        await source.query(`UPDATE ${table} SET id = -id WHERE id = ${from + 3}`);
        await source.query(`DELETE FROM ${table} WHERE id % 50 = ${from % 50}`);
      }
    };

    it('F01 F57: two INSERTs: copied and followed, also through kill -9 and a restart', async () => {
      for (const [table, source] of tables) {
        await source.query(`CREATE TABLE ${table} (id int NOT NULL PRIMARY KEY, name varchar(100) NOT NULL)`);
        await source.query(
          `INSERT INTO ${table} VALUES ${Array.from({ length: 300 }, (_, at) => `(${at + 1}, 'name ${at + 1}')`).join(', ')}`,
        );
        await control.query('INSERT INTO source_servers (server_name, connection_string) VALUES (?, ?)', [
          table,
          source.url,
        ]);
        await control.query(
          `INSERT INTO table_mappings (server_id, source_table, dest_database) SELECT server_id, server_name, ? FROM source_servers WHERE server_name = ?`,
          [destination.name, table],
        );
      }
      const first = await start();
      await equal();
      await change(1000);
      await equal();

      await change(1100);
      await first.kill();
      await change(1200);
      await control.query(`UPDATE leases SET expires_at = UTC_TIMESTAMP(3) - INTERVAL 1 SECOND`);
      await start();
      await change(1300);
      await equal();
      expect(
        await control.query('SELECT error_code, error_message FROM error_logs WHERE is_resolved = 0'),
      ).to.deep.equal([]);
    });

    it('F53: is_full_sync = 1 copies again, once, and returns to 0', async () => {
      await destination.query('DELETE FROM orders WHERE id < 100');
      await control.query(`UPDATE table_mappings SET is_full_sync = 1 WHERE source_table = 'orders'`);
      await equal();
      await eventually(async () => {
        const [row] = await control.query(
          `SELECT is_full_sync, last_full_sync_at FROM table_mappings WHERE mapping_id = 1`,
        );
        expect(row?.['is_full_sync']).to.equal('0');
        expect(row?.['last_full_sync_at']).to.be.a('string');
        const runs = await control.query(
          `SELECT status FROM sync_status WHERE mapping_id = 1 AND sync_type = 'FULL_SYNC' ORDER BY status_id`,
        );
        expect(runs.map((run) => run['status'])).to.deep.equal(['COMPLETED', 'COMPLETED']);
      }, 30_000);
    });

    it('an idle service writes no rows but its leases', async () => {
      const written = async () =>
        JSON.stringify(
          await control.query(
            'CHECKSUM TABLE config, error_logs, full_sync_requests, mapping_state, source_objects, source_servers, stream_health, sync_logs, sync_progress, sync_status, table_mappings',
          ),
        );
      // What was applied a moment ago is still shown for a while.
      await eventually(async () => {
        const before = await written();
        await new Promise((resolve) => setTimeout(resolve, 2500));
        expect(await written()).to.equal(before);
      }, 60_000);
    });

    it('the commands read it: status, doctor, sync, verify', async () => {
      const status = await cli('status', '--json');
      expect(status.exitCode, status.stdout).to.equal(0);
      expect(status.envelope().result).to.have.nested.property('mappings[0].state', 'streaming');
      const doctor = await cli('doctor', '--json');
      expect(doctor.exitCode, doctor.stdout).to.equal(0);
      const sync = await cli('sync', 'orders', '--json');
      expect(sync.exitCode, sync.stdout).to.equal(0);
      const verify = await cli('verify', 'orders', '--json');
      expect(verify.exitCode, verify.stdout).to.equal(0);
      const [found] = await control.query('SELECT verification_status, mismatches_found FROM verification_logs');
      expect(found).to.deep.equal({ verification_status: 'PASSED', mismatches_found: '0' });
    });

    it('F50: a second process takes over from one that was killed, within its lease', async () => {
      const [, first] = services;
      const second = await start();
      await second.says('service started');
      await first?.kill();
      await change(2000);
      await equal();
      const owners = await control.query('SELECT DISTINCT pid FROM leases WHERE expires_at > UTC_TIMESTAMP(3)');
      expect(owners).to.deep.equal([{ pid: String(second.pid) }]);
      expect(await second.stop()).to.equal(0);
      expect(await control.query('SELECT lease_key FROM leases')).to.deep.equal([]);
    });

    it('F46 F55: control database and destination out of reach for a while: it waits, says so, and loses nothing', async () => {
      const service = await start(proxy.url);
      await change(3000);
      await equal();
      proxy.cut();
      await change(3100);
      await service.says('CONTROL_UNREACHABLE');
      proxy.restore();
      await change(3200);
      await equal();
      expect(service.isOver).to.equal(false);
      await eventually(async () => {
        expect(await control.query('SELECT error_code FROM error_logs WHERE is_resolved = 0')).to.deep.equal([]);
      }, 30_000);
    });
  });
