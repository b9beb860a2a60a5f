import { expect } from 'chai';
import { parseNameList } from '../../src/control/names.ts';
import { onAllControlServers } from './servers.ts';
import { createControl, type TestControl } from './support.ts';

onAllControlServers('control: the rows a poll reads', (server) => {
  let test: TestControl;
  beforeEach(async () => {
    test = await createControl(server);
  });
  afterEach(() => test.drop());

  it('reads a mapping of which only server_id and source_table were given', async () => {
    const { mappingId } = await test.addMapping('orders');
    const plan = await test.plan();
    expect(plan.invalid).to.deep.equal([]);
    expect(plan.sources.size).to.equal(1);
    expect(plan.sources.get(1)).to.include({
      serverId: 1,
      name: 'shop',
      connectionString: 'postgres://reader:secret@shop/db',
      enabled: true,
    });
    expect(plan.mappings).to.have.length(1);
    expect(plan.mappings[0]).to.include({
      mappingId,
      sourceTable: 'orders',
      sourceSchema: null,
      destServerId: null,
      destTable: null,
      primaryKey: null,
      enabled: true,
      cdcEnabled: true,
      fullSyncFlag: false,
      initialSync: 'copy',
      onGap: 'stop',
      maxFailedRows: 0,
      keepFailedValues: false,
      running: null,
      queued: null,
    });
    expect(plan.mappings[0]?.state?.state).to.equal('new');
  });

  it('F52 reports an invalid row on itself, naming the column, and reads the others', async () => {
    const good = await test.addMapping('good');
    const bad = [
      ['on_gap', "'maybe'"],
      ['initial_sync', "'perhaps'"],
      ['primary_key_column', "'a,,b'"],
      ['primary_key_column', "'\"a'"],
      ['source_table', "' '"],
      ['max_failed_rows', '-1'],
    ] as const;
    const ids: number[] = [];
    for (const [column, value] of bad) {
      const { mappingId } = await test.addMapping('t');
      await test.query(`UPDATE table_mappings SET ${column} = ${value} WHERE mapping_id = ${mappingId}`);
      ids.push(mappingId);
    }
    await test.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('empty', '')`);
    const plan = await test.plan();
    expect(plan.mappings.map((each) => each.mappingId)).to.deep.equal([good.mappingId]);
    const mappings = plan.invalid.filter((each) => each.table === 'table_mappings');
    expect(mappings.map((each) => each.mappingId)).to.deep.equal(ids);
    mappings.forEach((each, index) => {
      expect(each.code).to.equal('MAPPING_INVALID');
      expect(each.message).to.contain(bad[index]?.[0]);
      expect(each.hint).to.contain(`mapping_id = ${ids[index]}`);
    });
    expect(mappings[0]?.message).to.contain("'resync'"); // what would be accepted
    expect(plan.invalid.find((each) => each.table === 'source_servers')).to.include({ id: 2, mappingId: null });
    expect(plan.sources.size).to.equal(1);
  });

  it('answers "unchanged" until something it would act upon changes', async () => {
    const { mappingId, mappingUid } = await test.addMapping();
    let last = (await test.plan()).fingerprint;
    const changed = async () => {
      const next = await test.control.readPlanRows(last);
      if ('unchanged' in next) return false;
      last = next.fingerprint;
      return true;
    };
    expect(await changed()).to.equal(false);
    await test.control.states.addCounters([
      { mappingUid, inserted: 5, updated: 0, deleted: 0, failed: 0, lagSeconds: 1 },
    ]);
    await test.control.states.refreshDisplay();
    expect(await changed(), 'counters are nobody’s business').to.equal(false);
    for (const sql of [
      `UPDATE table_mappings SET dest_table = 'x' WHERE mapping_id = ${mappingId}`,
      `UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = ${mappingId}`,
      `UPDATE source_servers SET is_enabled = 0`,
      `INSERT INTO destination_servers (server_name, connection_string) VALUES ('d', 'postgres://d/')`,
      `UPDATE mapping_state SET state = 'failed'`,
      `DELETE FROM destination_servers`,
      `INSERT INTO full_sync_requests (mapping_id, mapping_uid, reason) VALUES (${mappingId}, '${mappingUid}', 'cli')`,
      `DELETE FROM table_mappings`,
    ]) {
      await test.query(sql);
      expect(await changed(), sql).to.equal(true);
      expect(await changed(), `${sql}, again`).to.equal(false);
    }
  });

  it('notices a row whose transaction began before the last poll and committed after it', async () => {
    await test.addMapping();
    const slow = await test.database.connect();
    await slow.query('BEGIN TRANSACTION');
    await slow.query(`UPDATE table_mappings SET dest_table = 'late'`);
    const before = await test.plan();
    await test.query(`UPDATE config SET config_value = '11' WHERE config_key = 'cdc_check_interval_seconds'`);
    await slow.query('COMMIT');
    const after = await test.control.readPlanRows(before.fingerprint);
    expect('unchanged' in after).to.equal(false);
    expect(after.configFingerprint).to.not.equal(before.configFingerprint);
  });

  it("the person's hash changes with the person's columns only; updated_at likewise", async () => {
    const { mappingId, mappingUid } = await test.addMapping();
    const look = async () => {
      const [row] = await test.query<{ updated_at: Date }>(`SELECT updated_at FROM table_mappings`);
      return { hash: (await test.mapping(mappingId)).personHash, updated: row?.updated_at.toISOString() };
    };
    const first = await look();
    await test.control.states.addCounters([
      { mappingUid, inserted: 1, updated: 0, deleted: 0, failed: 0, lastCommitAt: 1_700_000_000_123, position: 'x' },
    ]);
    await test.control.states.refreshDisplay();
    const [shown] = await test.query<{ last_cdc_sync_at: Date }>('SELECT last_cdc_sync_at FROM table_mappings');
    expect(shown?.last_cdc_sync_at.getTime()).to.equal(1_700_000_000_123);
    expect(await look()).to.deep.equal(first);
    await new Promise((resolve) => setTimeout(resolve, 5)); // times are shown to the millisecond
    await test.query(`UPDATE table_mappings SET on_gap = 'resync'`);
    const second = await look();
    expect(second.hash).to.not.equal(first.hash);
    expect(second.updated).to.not.equal(first.updated);
  });

  it('reads 2,000 mappings in three statements, and finds them unchanged in one', async () => {
    await test.addMapping();
    await test.query(
      `INSERT INTO table_mappings (server_id, source_table) SELECT 1, CONCAT('table_', n) FROM ${server.sql.numbers(2, 2000)}`,
    );
    await test.control.states.ensure();
    const plan = await test.plan();
    expect(plan.mappings).to.have.length(2000);
    const began = performance.now();
    expect(await test.control.readPlanRows(plan.fingerprint)).to.have.property('unchanged', true);
    // A stand-in for SQL Server takes its time over JSON.
    expect(performance.now() - began).to.be.below(server.name === 'PostgreSQL' ? 250 : 1500);
  });

  it('shows when a server was last connected, at most once a minute, without counting as a person’s change', async () => {
    await test.addMapping();
    const { fingerprint } = await test.plan();
    const look = async () => (await test.query('SELECT last_connected_at, updated_at FROM source_servers'))[0];
    const before = await look();
    await test.control.connected('source', 1);
    const first = await look();
    expect(first?.['last_connected_at']).to.be.instanceOf(Date);
    expect(first?.['updated_at']).to.deep.equal(before?.['updated_at']);
    await test.control.connected('source', 1);
    expect(await look()).to.deep.equal(first);
    await test.query(`UPDATE source_servers SET last_connected_at = ${server.sql.shift('last_connected_at', -61)}`);
    const aged = await look();
    await test.control.connected('source', 1);
    expect(await look()).to.not.deep.equal(aged);
    expect(await test.control.readPlanRows(fingerprint)).to.have.property('unchanged', true);
  });

  it('refuses to delete a server that has mappings', async () => {
    await test.addMapping();
    let message = '';
    await test.query('DELETE FROM source_servers').catch((error: Error) => (message = error.message));
    expect(message, 'PostgreSQL names the key, SQL Server’s error 547 the constraint').to.match(
      /table_mappings_server_in_use|547/,
    );
  });

  it('reads composite keys with quoted names', () => {
    expect(parseNameList('id')).to.deep.equal(['id']);
    expect(parseNameList(' a , b ')).to.deep.equal(['a', 'b']);
    expect(parseNameList('"a,b", [c]]d], `e f`')).to.deep.equal(['a,b', 'c]d', 'e f']);
    expect(parseNameList('"say ""hi"""')).to.deep.equal(['say "hi"']);
    for (const wrong of ['a,', ',a', '"a', '[a', '"a" b', 'a,a', '""'])
      expect(parseNameList(wrong), wrong).to.have.property('problem');
  });
});
