/** The server of control database and destination in trouble: killed, and set up so that it cannot be written to. */
import { expect } from 'chai';
import { ControlDatabase } from '../../src/control/index.ts';
import { createMysqlDatabase, type MysqlTestDatabase } from '../support/mysql.ts';
import { isMariaDbInstalled, startMariaDb, type PrivateServer } from '../support/mysql-servers.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { eventually, startService, type TestService } from '../support/service.ts';
import { skip } from '../support/skip.ts';
import { rejection } from '../control/support.ts';

/** What is committed stays, whatever happens to the server. */
const DURABLE = { 'innodb-flush-log-at-trx-commit': '1', 'sync-binlog': '1' };

describe('a control database on a MariaDB in trouble', function () {
  this.timeout(120_000);
  let server: PrivateServer;
  let source: TestDatabase;
  let control: MysqlTestDatabase;
  let destination: MysqlTestDatabase;
  let service: TestService | null = null;
  before(async function () {
    if (!isMariaDbInstalled()) skip(this, 'there is no mariadbd to start one of its own');
    this.timeout(120_000);
    server = await startMariaDb(DURABLE);
    [source, control, destination] = await Promise.all([
      createDatabase('src'),
      createMysqlDatabase(server.server, 'ctl'),
      createMysqlDatabase(server.server, 'dst'),
    ]);
    const opened = await ControlDatabase.open({ url: server.server.url, database: control.name });
    await opened.migrate();
    await opened.close();
    await control.query(
      `UPDATE config SET config_value = CASE config_key WHEN 'lease_seconds' THEN '5' WHEN 'max_retry_attempts' THEN '100' ELSE '1' END
       WHERE config_key IN ('cdc_check_interval_seconds', 'retry_delay_seconds', 'lease_seconds', 'max_retry_attempts')`,
    );
    await source.query('CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL)');
    await source.query(`INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 100) n`);
    await control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('pg', ?)`, [source.url]);
    await control.query(`INSERT INTO table_mappings (server_id, source_table, dest_database) VALUES (1, 't', ?)`, [
      destination.name,
    ]);
    service = await startService(server.server.url, control.name);
  });
  after(async () => {
    await service?.stop();
    await control?.connection.close();
    await destination?.connection.close();
    await server?.stop();
    await source?.drop();
  });

  const equal = (ms = 40_000) =>
    eventually(async () => {
      const lines = (rows: readonly Readonly<Record<string, unknown>>[]) =>
        rows.map((row) => String(row['line'])).sort();
      const there = await destination.query(`SELECT CONCAT(id, '|', v) AS line FROM t`);
      expect(lines(there)).to.deep.equal(lines(await source.query(`SELECT id || '|' || v AS line FROM t`)));
    }, ms);
  const change = (from: number) =>
    source.query(
      `INSERT INTO t SELECT n, 'new' FROM generate_series(${from}, ${from + 20}) n; UPDATE t SET v = v || '!' WHERE id % 5 = 0; DELETE FROM t WHERE id = ${from + 7}`,
    );

  it('F40 F55: the server is killed and comes back: the service waits for it, and nothing is lost', async () => {
    await equal();
    for (const from of [1000, 2000]) {
      await change(from);
      await server.halt('SIGKILL');
      await change(from + 100);
      await server.restart();
      await change(from + 200);
      await equal();
    }
    const [row] = await control.query('SELECT state, error_code FROM v_mapping_health');
    expect(row).to.deep.equal({ state: 'streaming', error_code: null });
  });

  it('F40: the service’s sessions are killed, several times while changes arrive: nothing is lost', async () => {
    for (const from of [5000, 6000, 7000]) {
      await change(from);
      await eventually(async () => {
        const sessions = await control.query(
          `SELECT ID AS id FROM information_schema.PROCESSLIST WHERE USER = 'root' AND ID <> CONNECTION_ID() AND COMMAND <> 'Daemon'`,
        );
        expect(sessions, 'the service is connected').not.to.deep.equal([]);
        for (const { id } of sessions) await control.query(`KILL ${String(id)}`).catch(() => undefined);
      });
    }
    await equal();
    await control.query('UPDATE table_mappings SET is_full_sync = 1');
    await eventually(async () => {
      expect(await control.query('SELECT is_full_sync FROM table_mappings')).to.deep.equal([{ is_full_sync: '0' }]);
    }, 40_000);
    await equal();
  });

  it('F52: a binary log of statements: the setting is named, and what is right afterwards works', async () => {
    await service?.stop();
    service = null;
    await server.restart({ ...DURABLE, 'binlog-format': 'STATEMENT' });
    const opened = await ControlDatabase.open({ url: server.server.url, database: control.name });
    try {
      const refused = await rejection(opened.leases.drawEpoch(0));
      expect(refused).to.have.property('code', 'CONFIG_INVALID');
      expect(refused).to.have.property('hint').that.includes(`SET GLOBAL binlog_format = 'ROW'`);
      await control.query(`SET GLOBAL binlog_format = 'ROW'`);
    } finally {
      await opened.close();
    }
    const again = await ControlDatabase.open({ url: server.server.url, database: control.name });
    expect(await again.leases.drawEpoch(0)).to.be.greaterThan(0);
    await again.close();
  });

  it('F40 F55: a server that was made read-only, as at a failover: CONTROL_UNREACHABLE, which is waited out', async () => {
    const login = `writer_${control.name}`;
    await control.query(`CREATE USER ${login} IDENTIFIED BY 'Writer_pass1'`);
    await control.query(`GRANT ALL ON ${control.name}.* TO ${login}`);
    const url = new URL(server.server.url);
    [url.username, url.password] = [login, 'Writer_pass1'];
    const opened = await ControlDatabase.open({ url: url.toString(), database: control.name });
    try {
      await control.query('SET GLOBAL read_only = 1');
      const refused = await rejection(opened.leases.drawEpoch(0));
      expect(refused).to.include({ code: 'CONTROL_UNREACHABLE', retry: 'backoff' });
      await control.query('SET GLOBAL read_only = 0');
      expect(await opened.leases.drawEpoch(0)).to.be.greaterThan(0);
    } finally {
      await opened.close();
    }
  });
});
