import { expect } from 'chai';
import { SluiceError } from '../../src/model/errors.ts';
import { onAllControlServers } from './servers.ts';
import { createControl, type TestControl } from './support.ts';

onAllControlServers('control: the journal', (server) => {
  let test: TestControl;
  let mappingId: number;
  let mappingUid: string;
  beforeEach(async () => {
    test = await createControl(server);
    ({ mappingId, mappingUid } = await test.addMapping());
  });
  afterEach(() => test.drop());

  it('shows a run while it runs, writes at most once a second, and ends it once', async () => {
    const run = await test.control.runs.start({
      mappingId,
      syncType: 'FULL_SYNC',
      owner: 'me',
      requestId: 1,
      minIntervalMs: 200,
      rowsEstimated: 1000,
    });
    let written = 0;
    for (let rows = 1; rows <= 100; rows++)
      if (await run.progress({ recordsProcessed: rows, phase: 'copy', rowsPerSecond: 5.5, secondsLeft: 9 })) written++;
    expect(written).to.be.within(1, 3);
    const look = async () => (await test.query('SELECT * FROM v_sync_summary'))[0];
    expect(await look()).to.include({
      status: 'RUNNING',
      sync_type: 'FULL_SYNC',
      phase: 'copy',
      rows_estimated: '1000',
    });
    const [health] = await test.query('SELECT * FROM v_mapping_health');
    expect(health).to.include({ state: 'new', full_sync_phase: 'copy', full_sync_seconds_left: 9 });
    await run.finish('COMPLETED', { recordsFailed: 2 });
    // What the throttle held back is not lost.
    expect(await look()).to.include({
      status: 'COMPLETED',
      records_processed: '100',
      records_failed: '2',
      seconds_left: null,
    });
    await run.finish('ERROR', { error: { code: 'INTERNAL', message: 'late' } });
    await run.progress({ recordsProcessed: 1 });
    expect(await look()).to.include({ status: 'COMPLETED', records_processed: '100', error_code: null });
  });

  it('F57 a run whose process died is taken up by the same request, ended by another', async () => {
    const { runs } = test.control;
    const first = await runs.start({ mappingId, syncType: 'FULL_SYNC', owner: 'killed', requestId: 1 });
    const again = await runs.start({ mappingId, syncType: 'FULL_SYNC', owner: 'next', requestId: 1 });
    expect(again.statusId).to.equal(first.statusId);
    const other = await runs.start({ mappingId, syncType: 'FULL_SYNC', owner: 'next', requestId: 2 });
    expect(other.statusId).to.not.equal(first.statusId);
    const rows = await test.query('SELECT status, error_code FROM sync_status ORDER BY status_id');
    expect(rows).to.deep.equal([
      { status: 'ERROR', error_code: 'CONNECTION_LOST' },
      { status: 'RUNNING', error_code: null },
    ]);
  });

  it('keeps chunks for display', async () => {
    const chunk = { chunkId: 1, rows: 10, bytes: 100 };
    await test.control.runs.chunksDone(5, mappingId, [chunk]);
    await test.control.runs.chunksDone(5, mappingId, [chunk, { ...chunk, chunkId: 2 }]);
    expect((await test.query('SELECT sum(rows_copied) AS copied FROM sync_progress'))[0]).to.deep.equal({
      copied: '20',
    });
    await test.control.runs.clearChunks(5);
    expect(await test.query('SELECT 1 FROM sync_progress')).to.deep.equal([]);
  });

  it('writes log lines for people, without passwords', async () => {
    await test.control.journal.log([
      { mappingId, level: 'INFO', message: 'Full sync started', syncType: 'FULL_SYNC', records: 5, durationMs: 12.7 },
      {
        mappingId: null,
        level: 'WARNING',
        message: 'cannot reach postgres://u:hunter2@h/',
        errorCode: 'SERVER_UNREACHABLE',
      },
    ]);
    await test.control.journal.log([{ mappingId: 77, level: 'INFO', message: `\0${'x'.repeat(100_000)}` }]);
    const [long] = await test.query<{ log_message: string }>('SELECT * FROM sync_logs WHERE mapping_id = 77');
    await test.query('DELETE FROM sync_logs WHERE mapping_id = 77');
    expect(long?.log_message.length, 'a message has an end').to.be.within(8000, 8001);
    const rows = await test.query('SELECT * FROM v_recent_logs ORDER BY log_id DESC');
    expect(rows).to.have.length(2);
    expect(rows[0]).to.include({ log_level: 'WARNING', source_table: null, error_code: 'SERVER_UNREACHABLE' });
    expect(rows[0]?.['log_message']).to.not.contain('hunter2');
    expect(rows[1]).to.include({
      log_level: 'INFO',
      source_table: 'orders',
      server_name: 'shop',
      execution_time_ms: '13',
    });
  });

  it('an error that repeats is one row with a growing retry_count, from several processes too', async () => {
    const error = new SluiceError('SERVER_UNREACHABLE', 'no answer from shop', { hint: 'look at it' });
    const where = { mappingId, type: 'CONNECTION' as const };
    const other = await test.second();
    expect(await test.control.journal.error(where, error)).to.equal(true);
    const repeats = await Promise.all(
      Array.from({ length: 6 }, (_, index) => (index % 2 ? other : test.control).journal.error(where, error)),
    );
    expect(repeats).to.deep.equal(Array(6).fill(false));
    expect(await test.control.journal.error({ ...where, mappingId: 99 }, error)).to.equal(true);
    expect(await test.control.journal.error(where, new SluiceError('LOGIN_FAILED', 'no'))).to.equal(true);
    const rows = await test.query(`SELECT * FROM v_recent_errors WHERE mapping_id = $1 AND error_code = $2`, [
      mappingId,
      'SERVER_UNREACHABLE',
    ]);
    expect(rows).to.have.length(1);
    expect(rows[0]).to.include({
      retry_count: 6,
      is_resolved: 0,
      hint: 'look at it',
      source_table: 'orders',
      server_name: 'shop',
    });
    expect(await test.control.journal.resolveErrors({ mappingId })).to.equal(2);
    expect(await test.control.journal.resolveErrors({ mappingId })).to.equal(0);
    expect(await test.control.journal.error(where, error), 'after it had worked it is a new one').to.equal(true);
    expect(
      await test.query('SELECT 1 FROM error_logs WHERE error_code = $1 AND mapping_id = $2', [
        'SERVER_UNREACHABLE',
        mappingId,
      ]),
    ).to.have.length(2);
  });

  it('F62 records a verification with its keys, and their repair', async () => {
    const id = await test.control.journal.verification({
      mappingId,
      mappingUid,
      type: 'MD5_COMPARISON',
      status: 'FAILED',
      sourceRows: 10,
      destRows: 9,
      compared: 10,
      mismatches: 2,
      keys: [
        { kind: 'missing', key: ['1', 'a"b'] },
        { kind: 'different', key: [new Uint8Array([1, 171]), null] },
      ],
    });
    const [log] = await test.query(`SELECT * FROM verification_logs WHERE verification_status = 'FAILED'`);
    expect(log).to.include({ source_row_count: '10', dest_row_count: '9', mismatches_found: '2' });
    await test.control.journal.repaired(id, [['1', 'a"b']]);
    const keys = await test.query<{ kind: string; key_text: string; repaired_at: Date | null }>(
      'SELECT kind, key_text, repaired_at FROM verification_mismatches ORDER BY kind DESC',
    );
    expect(keys.map((row) => [row.kind, row.key_text, row.repaired_at !== null])).to.deep.equal([
      ['missing', '["1","a\\"b"]', true],
      ['different', '["\\\\x01ab",null]', false],
    ]);
    expect((await test.query('SELECT * FROM v_mapping_health'))[0]).to.include({ verification_status: 'FAILED' });
  });

  it('F58: a refused row is kept once, however often its batch is tried, and however often it changes', async () => {
    const letter = {
      mappingId,
      mappingUid,
      position: '0/1A',
      operation: 'insert' as const,
      key: ['7'],
      errorCode: 'ROW_REFUSED',
      reason: 'constraint positive',
    };
    const { journal } = test.control;
    expect(
      await journal.deadLetters([
        letter,
        { ...letter, key: ['8'], values: { id: '8', raw: new Uint8Array([9]), own: Buffer.from([10]) } },
      ]),
    ).to.equal(2);
    expect(await journal.deadLetters([letter, { ...letter, position: '0/1B' }])).to.equal(1);
    // Rows, not refusals: one of them was refused twice.
    expect(await journal.countDeadLetters(mappingUid)).to.equal(2);
    const rows = await test.query('SELECT position, key_text, row_values FROM dead_letters ORDER BY key_text', []);
    expect(rows).to.deep.equal([
      { position: '0/1B', key_text: '["7"]', row_values: null },
      { position: letter.position, key_text: '["8"]', row_values: '{"id":"8","raw":"\\\\x09","own":"\\\\x0a"}' },
    ]);
    // A copy that begins now closes those from before, but its own.
    await test.control.requests.create({ mappingId, mappingUid, reason: 'api' });
    const claimed = await test.control.requests.claim(mappingUid, 'owner');
    const requestId = claimed?.request.requestId ?? 0;
    expect(await journal.countDeadLetters(mappingUid, { requestId, place: '0/1B' })).to.equal(1);
    expect(await journal.closeDeadLetters(mappingUid, requestId, '0/1B')).to.equal(1);
    expect(await journal.countDeadLetters(mappingUid)).to.equal(1);
  });

  it('keeps what was made on sources, written only when it changes', async () => {
    const { sourceObjects } = test.control;
    const slot = {
      serverId: 1,
      database: 'db',
      kind: 'slot',
      name: 'sluice_1',
      mappingUid: null,
      stream: 's',
      dropSql: 'SELECT 1',
    };
    await sourceObjects.upsert(slot);
    const stamp = async () => (await test.query<{ w: string }>(server.sql.writes('source_objects')))[0]?.w;
    const before = await stamp();
    await sourceObjects.upsert(slot);
    expect(await stamp()).to.equal(before);
    await sourceObjects.upsert({ ...slot, dropSql: 'SELECT 2' });
    await sourceObjects.upsert({ ...slot, kind: 'publication', mappingUid });
    expect(await sourceObjects.list()).to.deep.equal([
      { ...slot, dropSql: 'SELECT 2' },
      { ...slot, kind: 'publication', mappingUid },
    ]);
    expect(await sourceObjects.list({ mappingUid })).to.have.length(1);
    await sourceObjects.remove(slot);
    expect(await sourceObjects.list({ stream: 's' })).to.have.length(1);
  });
});
