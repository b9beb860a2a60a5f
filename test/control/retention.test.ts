import { expect } from 'chai';
import { createControl, type TestControl } from './support.ts';

describe('control: retention, and views over many rows', () => {
  let test: TestControl;
  before(async () => {
    test = await createControl();
  });
  after(() => test.drop());

  it('views answer in less than 50 ms with 2,000 mappings and 1,000,000 log rows', async function () {
    this.timeout(180_000);
    await test.addMapping('first');
    await test.query(
      `INSERT INTO table_mappings (server_id, source_table) SELECT 1, 't' || n FROM generate_series(2, 2000) n`,
    );
    await test.control.states.ensure();
    for (const sql of [
      `INSERT INTO sync_logs (mapping_id, log_level, log_message, created_at)
       SELECT 1 + n % 2000, 'INFO', 'line ' || n, now() - n * interval '5 seconds' FROM generate_series(1000000, 1, -1) n`,
      `INSERT INTO sync_status (mapping_id, sync_type, status, started_at, completed_at)
       SELECT 1 + n % 2000, CASE WHEN n % 3 = 0 THEN 'CDC' ELSE 'FULL_SYNC' END, CASE WHEN n <= 50 THEN 'RUNNING' ELSE 'COMPLETED' END,
              now() - n * interval '50 seconds', CASE WHEN n > 50 THEN now() - n * interval '49 seconds' END
       FROM generate_series(100000, 1, -1) n`,
      `INSERT INTO error_logs (mapping_id, error_type, error_code, error_message, fingerprint, is_resolved, created_at, last_seen_at)
       SELECT 1 + n % 2000, 'SYNC', 'TIMEOUT', 'm', md5(n::text), (n % 10 <> 0)::int, now() - n * interval '30 seconds', now() - n * interval '30 seconds'
       FROM generate_series(100000, 1, -1) n`,
      'ANALYZE',
    ])
      await test.query(sql);
    const expected = { v_sync_summary: 4000, v_recent_errors: 100, v_mapping_health: 2000, v_recent_logs: 1000 };
    for (const [view, rows] of Object.entries(expected)) {
      const times: number[] = [];
      let found = 0;
      for (let attempt = 0; attempt < 5; attempt++) {
        // Timed by the server and without the transfer, so that the machine's other work hardly counts; best of five.
        const [plan] = await test.query<{
          'QUERY PLAN': [{ 'Execution Time': number; Plan: { 'Actual Rows': number } }];
        }>(`EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM ${view}`);
        const top = plan?.['QUERY PLAN'][0];
        times.push(top?.['Execution Time'] ?? Infinity);
        found = top?.Plan['Actual Rows'] ?? 0;
      }
      expect(found, view).to.equal(rows);
      expect(Math.min(...times), `${view}: ${times.join(', ')} ms`).to.be.below(50);
    }
    // The same for one mapping, as a person asks.
    const [one] = await test.query<{ 'QUERY PLAN': [{ 'Execution Time': number }] }>(
      `EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM sync_logs WHERE mapping_id = 77 ORDER BY log_id DESC LIMIT 50`,
    );
    expect(one?.['QUERY PLAN'][0]['Execution Time']).to.be.below(50);
  });

  it('F58 deletes what is older than its retention, in bounded batches, and keeps the rest', async function () {
    this.timeout(120_000);
    const count = async (table: string, where = 'true') =>
      Number((await test.query<{ n: string }>(`SELECT count(*) AS n FROM ${table} WHERE ${where}`))[0]?.n);
    const old = `created_at < now() - interval '30 days'`;
    const [before, stay] = [await count('sync_logs', old), await count('sync_logs', `NOT ${old}`)];
    expect(before).to.be.greaterThan(100_000);
    const first = await test.control.purge({ logDays: 30, deadLetterDays: 90, batchRows: 1000, maxBatches: 2 });
    expect(first.more).to.equal(true);
    expect(first.deleted['sync_logs'], 'no more than it was allowed').to.equal(2000);
    let passes = 0;
    while ((await test.control.purge({ logDays: 30, deadLetterDays: 90 })).more) expect(++passes).to.be.below(50);
    expect(await count('sync_logs', old)).to.equal(0);
    expect(await count('sync_logs')).to.be.within(stay - 1000, stay); // some of them have come of age meanwhile
    expect(await count('error_logs', `last_seen_at < now() - interval '31 days'`)).to.equal(0);
    expect(await count('sync_status'), 'running ones and the latest of each mapping stay').to.be.greaterThan(4000);
    expect((await test.control.purge({ logDays: 30, deadLetterDays: 90 })).deleted).to.not.have.property(
      'verification_logs',
    );
  });

  it('F58 every table that grows is purged, except what still means something', async () => {
    const age = `now() - interval '100 days'`;
    const { mappingId, mappingUid } = await test.addMapping('aged');
    await test.query(`UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = ${mappingId}`);
    await test.control.requests.fromFlags();
    const claimed = await test.control.requests.claim(mappingUid, 'me');
    await test.control.requests.finish(claimed?.request.requestId ?? 0, { outcome: 'failed' });
    for (const sql of [
      `INSERT INTO full_sync_requests (mapping_id, mapping_uid, reason, status, finished_at) VALUES (${mappingId}, '${mappingUid}', 'cli', 'completed', ${age})`,
      `UPDATE full_sync_requests SET finished_at = ${age}`,
      `INSERT INTO verification_logs (mapping_id, verification_type, verification_status, verified_at) VALUES (1, 'ROW_COUNT', 'PASSED', ${age})`,
      `INSERT INTO verification_mismatches (verification_id, mapping_id, kind, key_text, found_at) VALUES (1, 1, 'extra', '[]', ${age})`,
      `INSERT INTO dead_letters (mapping_id, mapping_uid, position, key_hash, key_text, operation, error_code, reason, created_at, position_hash)
       VALUES (1, '${mappingUid}', 'p', 'h', '[]', 'insert', 'ROW_REFUSED', 'r', ${age}, 'h')`,
      `INSERT INTO leases (lease_key, owner, acquired_at, renewed_at, expires_at) VALUES ('old', 'o', ${age}, ${age}, ${age})`,
      `INSERT INTO sync_progress (request_id, chunk_id, mapping_id, completed_at) VALUES (1, 1, 1, ${age})`,
      `INSERT INTO sync_status (mapping_id, sync_type, status, started_at, completed_at) VALUES (${mappingId}, 'CDC', 'COMPLETED', ${age}, ${age}), (${mappingId}, 'CDC', 'ERROR', ${age}, ${age})`,
    ])
      await test.query(sql);
    const { deleted } = await test.control.purge({ logDays: 30, deadLetterDays: 90 });
    expect(deleted).to.include({
      full_sync_requests: 1,
      verification_logs: 1,
      verification_mismatches: 1,
      dead_letters: 1,
      leases: 1,
      sync_progress: 1,
      sync_status: 1,
    });
    // The failed request still says that the flag, which stays 1, was served: no new run begins by itself.
    await test.control.requests.fromFlags();
    expect(await test.control.requests.claim(mappingUid, 'me')).to.equal(null);
  });
});
