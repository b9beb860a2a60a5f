/** The service with its control database on SQL Server: two INSERTs, rows arrive, changes arrive, a flag copies again. */
import { expect } from 'chai';
import { ControlDatabase } from '../../src/control/index.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { checksum, eventually, startService, type TestService } from '../support/service.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../support/sqlserver.ts';

describe('a control database on SQL Server', function () {
  this.timeout(120_000);
  let source: TestDatabase;
  let destination: TestDatabase;
  let control: SqlServerTestDatabase;
  let service: TestService | null = null;

  before(async function () {
    const server = await requireSqlServer(this);
    this.timeout(120_000);
    [source, destination, control] = await Promise.all([
      createDatabase('src'),
      createDatabase('dst'),
      createSqlServerDatabase(server, 'ctl'),
    ]);
    const opened = await ControlDatabase.open({ url: server.url, database: control.name });
    await opened.migrate();
    await opened.close();
    await control.query(
      `UPDATE config SET config_value = '1' WHERE config_key IN ('cdc_check_interval_seconds', 'retry_delay_seconds')`,
    );
    service = await startService(server.url, control.name);
  });
  after(async () => {
    await service?.stop();
    await Promise.all([source?.drop(), destination?.drop(), control?.drop()]);
  });

  const equal = (ms = 60_000) =>
    eventually(async () => {
      const here = await checksum(source, 'orders');
      const there = await checksum(destination, 'orders').catch((error: Error) => error.message);
      const [health] = await control.query('SELECT state, error_code, error_message FROM v_mapping_health');
      if (here !== there) throw new Error(`source ${here}, destination ${there}: ${JSON.stringify(health)}`);
    }, ms);
  const mapping = async () => (await control.query('SELECT * FROM table_mappings'))[0];

  it('copies, follows, and copies again when is_full_sync becomes 1', async () => {
    await source.query('CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL)');
    await source.query(`INSERT INTO orders SELECT n, 'customer ' || n FROM generate_series(1, 500) n`);
    await control.query('INSERT INTO source_servers (server_name, connection_string) VALUES (@name, @url)', {
      name: 'shop',
      url: source.url,
    });
    await control.query('INSERT INTO destination_servers (server_name, connection_string) VALUES (@name, @url)', {
      name: 'copy',
      url: destination.url,
    });
    await control.query(
      `INSERT INTO table_mappings (server_id, source_table, dest_server_id, dest_database) VALUES (1, 'orders', 1, @database)`,
      { database: destination.name },
    );
    await equal();

    await source.query(`UPDATE orders SET customer = 'Ada' WHERE id = 1`);
    await source.query('DELETE FROM orders WHERE id = 2');
    await equal();

    await destination.query('DELETE FROM orders WHERE id = 3');
    await control.query('UPDATE table_mappings SET is_full_sync = 1');
    await equal();
    await eventually(async () => {
      expect((await mapping())?.['is_full_sync']).to.equal(false);
    }, 60_000);
    expect((await mapping())?.['last_full_sync_at']).to.be.instanceOf(Date);
    const runs = await control.query(`SELECT status FROM sync_status WHERE sync_type = 'FULL_SYNC' ORDER BY status_id`);
    expect(runs.map((run) => run['status'])).to.deep.equal(['COMPLETED', 'COMPLETED']);
    const [health] = await control.query('SELECT state, error_code, rows_updated, rows_deleted FROM v_mapping_health');
    expect(health).to.include({ state: 'streaming', error_code: null });
    expect(await control.query('SELECT error_code, error_message FROM error_logs')).to.deep.equal([]);
  });
});
