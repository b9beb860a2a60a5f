import { expect } from 'chai';
import { decryptSecret } from '../../src/control/index.ts';
import type { ControlTestDatabase } from '../control/server.ts';
import { MARIADB } from '../control/mysql-server.ts';
import { onControlServers, POSTGRES } from '../control/servers.ts';
import { sluice } from './support.ts';

onControlServers(
  'commands on a control database',
  (server) => {
    let database: ControlTestDatabase;
    let variables: Record<string, string>;

    before(async () => {
      database = await server.createDatabase();
      variables = { DEST_URL: await server.url(), CONTROL_DATABASE: database.name };
    });

    after(() => database?.drop());

    it('say how to configure a destination when there is none', async () => {
      const run = await sluice(['status']);
      expect(run.exitCode).to.equal(2);
      expect(run.stderr).to.match(/^DESTINATION_MISSING: .*\n {2}hint: Set DEST_URL/);
    });

    it('say that a server does not answer, with exit code 3 and without the password', async () => {
      const run = await sluice(['migrate', '--json'], { DEST_URL: 'postgres://u:geheim@127.0.0.1:1/' });
      expect(run.exitCode).to.equal(3);
      expect(run.envelope().error?.code).to.be.oneOf(['CONTROL_UNREACHABLE', 'SERVER_UNREACHABLE']);
      expect(run.stdout + run.stderr).not.to.include('geheim');
    });

    it('ask for migrate first', async () => {
      const run = await sluice(['status'], variables);
      expect(run.exitCode).to.equal(2);
      expect(run.stderr).to.include('sluice migrate');
    });

    it('migrate, and again without effect', async () => {
      const first = await sluice(['migrate', '--json'], variables);
      expect(first.exitCode, first.stdout).to.equal(0);
      expect(first.envelope().result).to.include({ database: database.name, from: 0 });
      const second = await sluice(['migrate'], variables);
      expect(second.stdout).to.include('is up to date');
    });

    it('show an empty installation', async () => {
      const run = await sluice(['status'], variables);
      expect(run.exitCode).to.equal(0);
      expect(run.stdout).to.equal('There are no mappings yet: INSERT INTO table_mappings, or sluice add-table.\n');
    });

    it('add a server once, and a mapping', async () => {
      const connection = 'postgres://u:${env:SHOP_PASSWORD}@h/shop';
      const added = await sluice(['add-server', 'shop', connection, '--json'], variables);
      expect(added.exitCode, added.stdout).to.equal(0);
      expect(added.stderr).to.equal('');
      const again = await sluice(['add-server', 'shop', connection], variables);
      expect(again.exitCode).to.equal(2);
      expect(again.stderr).to.include('there is a server named shop already');
      const plain = await sluice(['add-server', 'other', 'postgres://u:geheim@h/shop'], variables);
      expect(plain.stderr).to.include('sluice secret encrypt');
      expect(plain.stdout + plain.stderr).not.to.include('geheim');

      const table = await sluice(['add-table', 'shop', '"sales.eu"."Orders"', '--key', 'id', '--no-cdc'], variables);
      expect(table.exitCode, table.stderr).to.equal(0);
      expect(
        await database.query('SELECT source_schema, source_table, primary_key_column, cdc_enabled FROM table_mappings'),
      ).to.deep.equal([
        { source_schema: 'sales.eu', source_table: 'Orders', primary_key_column: 'id', cdc_enabled: 0 },
      ]);
      const unknown = await sluice(['add-table', 'shopp', 'orders'], variables);
      expect(unknown.exitCode).to.equal(2);
      expect(unknown.stderr).to.include('Known: other, shop');
    });

    it('show mappings with their errors', async () => {
      await database.query(
        `INSERT INTO mapping_state (mapping_uid, mapping_id, state, error_code, error_message, error_hint)
       SELECT mapping_uid, mapping_id, 'failed', 'LOGIN_FAILED', 'refused', 'ask the DBA' FROM table_mappings`,
      );
      const run = await sluice(['status'], variables);
      expect(run.stdout).to.match(/^id +mapping +state/);
      expect(run.stdout).to.include('shop: sales.eu.Orders: LOGIN_FAILED: refused\n  hint: ask the DBA\n');
      expect(run.stdout).to.include('1 mapping: 1 failed.');
      const json = await sluice(['status', 'Orders', '--json'], variables);
      expect(json.envelope().result).to.have.nested.property('mappings[0].errorCode', 'LOGIN_FAILED');
      expect((await sluice(['status', 'nope'], variables)).exitCode).to.equal(2);
    });

    it('request a full sync', async () => {
      const run = await sluice(['sync', '1', '--no-wait', '--json'], variables);
      expect(run.exitCode, run.stdout).to.equal(0);
      expect(run.envelope().result).to.deep.include({ created: true });
      const again = await sluice(['sync', 'Orders', '--no-wait', '--json'], variables);
      expect(again.envelope().result).to.deep.include({ created: false });
      expect(await database.query('SELECT reason, status FROM full_sync_requests')).to.deep.equal([
        { reason: 'cli', status: 'queued' },
      ]);
    });

    it('encrypt a secret from standard input, never from an argument', async () => {
      const key = { SLUICE_SECRET_KEY: 'a passphrase' };
      const run = await sluice(['secret', 'encrypt'], key, 'geheim\n');
      expect(run.exitCode).to.equal(0);
      expect(run.stdout).to.match(/^enc:v1:\S+\n$/);
      expect(decryptSecret(run.stdout.trim(), key.SLUICE_SECRET_KEY)).to.equal('geheim');
      expect((await sluice(['secret', 'encrypt'], key, '')).exitCode).to.equal(2);
      expect((await sluice(['secret', 'encrypt'], {}, 'x')).exitCode).to.equal(3);
    });
  },
  [POSTGRES, MARIADB],
);
