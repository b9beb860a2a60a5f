import { expect } from 'chai';
import { TRANSITIONS, type MappingStateName } from '../../src/control/index.ts';
import { onAllControlServers } from './servers.ts';
import { createControl, rejection, type TestControl } from './support.ts';

onAllControlServers('control: states of mappings', (server) => {
  let test: TestControl;
  let mappingId: number;
  let mappingUid: string;
  beforeEach(async () => {
    test = await createControl(server);
    ({ mappingId, mappingUid } = await test.addMapping());
  });
  afterEach(() => test.drop());

  const state = async () => (await test.mapping(mappingId)).state;
  /** Changes whenever any row of the table is written, whatever with. */
  const writes = async () => (await test.query<{ w: string }>(server.sql.writes('mapping_state')))[0]?.w;

  it('goes the ways of the table of transitions, and no other', async () => {
    const names = Object.keys(TRANSITIONS) as MappingStateName[];
    for (const from of names) {
      for (const to of names) {
        await test.query(`UPDATE mapping_state SET state = $1`, [from]);
        const allowed = from === to || TRANSITIONS[from].includes(to);
        const outcome = await test.control.states.set(mappingUid, to).catch((error: { code: string }) => error.code);
        expect(outcome, `${from} to ${to}`).to.equal(allowed ? from !== to : 'INTERNAL');
        expect((await state())?.state).to.equal(allowed ? to : from);
      }
    }
    expect(TRANSITIONS.gap, 'a gap is never skipped (invariant 5)').to.not.include('streaming');
  });

  it('writes only when something differs', async () => {
    const { states } = test.control;
    const error = { code: 'SERVER_UNREACHABLE', message: 'no answer', hint: null } as const;
    expect(await states.set(mappingUid, 'failed', { error, attempts: 3, retryInSeconds: 60 })).to.equal(true);
    const before = await writes();
    expect(await states.set(mappingUid, 'failed', { error, attempts: 3 })).to.equal(false);
    expect(await states.ensure()).to.equal(0);
    await states.addCounters([]);
    expect(await writes()).to.equal(before);
    expect(await states.set(mappingUid, 'failed', { error: { ...error, message: 'refused' } })).to.equal(true);
  });

  it('keeps reason and retry of a failure, and clears them when it works again', async () => {
    const { states } = test.control;
    const error = { code: 'KEY_REQUIRED', message: 'no key', hint: 'add one' } as const;
    await states.set(mappingUid, 'failed', { error, attempts: 2, retryInSeconds: 900, personHash: 'h' });
    expect(await state()).to.include({ errorCode: 'KEY_REQUIRED', errorHint: 'add one', attempts: 2 });
    await test.query(`UPDATE mapping_state SET retry_at = ${server.sql.shift('retry_at', -900)}`);
    expect((await state())?.retryInMs).to.equal(0);
    await states.set(mappingUid, 'copying', { stream: 'pg:1', serverId: 1 });
    expect(await state()).to.deep.include({
      state: 'copying',
      errorCode: null,
      errorMessage: null,
      errorHint: null,
      retryAt: null,
      attempts: 0,
      personHash: 'h',
      stream: 'pg:1',
    });
  });

  it('decides by the state that is stored, not by what was seen before', async () => {
    const { states } = test.control;
    const error = { code: 'SCHEMA_MISMATCH', message: 'too narrow', hint: null } as const;
    const whenServed = () =>
      states.change(mappingUid, (now) => (now === 'streaming' ? { error } : { error, state: 'failed' }));
    await states.set(mappingUid, 'copying');
    await states.set(mappingUid, 'streaming');
    await whenServed();
    expect(await state()).to.include({ state: 'streaming', errorCode: 'SCHEMA_MISMATCH' });
    await states.set(mappingUid, 'failed', { error: null, retryInSeconds: 60 });
    await whenServed();
    expect(await state()).to.include({ state: 'failed', errorCode: 'SCHEMA_MISMATCH' });
    await states.change(mappingUid, () => ({ triggerSeenZero: true }));
    expect(await state()).to.include({ state: 'failed', triggerSeenZero: true, errorCode: 'SCHEMA_MISMATCH' });
    expect((await state())?.retryAt).to.be.instanceOf(Date);
  });

  it('adds counters of many mappings in one statement', async () => {
    await test.query(
      `INSERT INTO table_mappings (server_id, source_table) SELECT 1, CONCAT('t', n) FROM ${server.sql.numbers(1, 1500)}`,
    );
    expect(await test.control.states.ensure()).to.equal(1500);
    const uids = (await test.plan()).mappings.map((each) => each.mappingUid);
    const rows = uids.map((uid, index) => ({
      mappingUid: uid,
      inserted: index,
      updated: 1,
      deleted: 2,
      failed: 0,
      position: `at ${index}`,
      lagSeconds: 0.5,
      displayLsn: new Uint8Array([0, 255]),
    }));
    await test.control.states.addCounters(rows);
    await test.control.states.addCounters([
      ...rows.map(({ mappingUid: uid }) => ({
        mappingUid: uid,
        inserted: 9_007_199_254,
        updated: 1,
        deleted: 0,
        failed: 0,
      })),
      { mappingUid: '00000000-0000-4000-8000-000000000000', inserted: 1, updated: 1, deleted: 1, failed: 1 },
    ]);
    const [row] = await test.query(
      `SELECT rows_inserted, rows_updated, rows_deleted, position, lag_seconds, display_lsn FROM mapping_state WHERE mapping_uid = $1`,
      [uids[1234]],
    );
    expect(row).to.deep.equal({
      rows_inserted: String(9_007_199_254 + 1234),
      rows_updated: '2',
      rows_deleted: '2',
      position: 'at 1234',
      lag_seconds: 0.5,
      display_lsn: Buffer.from([0, 255]),
    });
  });

  it('keeps what is known of a deleted mapping until it is cleaned up', async () => {
    await test.control.states.set(mappingUid, 'copying', {
      serverId: 1,
      stream: 's',
      applyGroup: 'g',
      destDatabase: 'd',
    });
    const { requestId } = await test.control.requests.create({ mappingId, mappingUid, reason: 'initial' });
    await test.control.requests.claim(mappingUid, 'me');
    expect(await test.control.requests.isRunning(requestId)).to.equal(true);
    await test.query('DELETE FROM table_mappings');
    expect(await test.control.requests.isRunning(requestId), 'its copier stops').to.equal(false);
    const departed = await test.control.states.departed();
    expect(departed).to.have.length(1);
    expect(departed[0]).to.include({
      mappingUid,
      mappingId,
      serverId: 1,
      stream: 's',
      applyGroup: 'g',
      destDatabase: 'd',
    });
    await test.control.states.forget(mappingUid);
    expect(await test.control.states.departed()).to.deep.equal([]);
    expect(await test.control.requests.list()).to.deep.equal([]);
    expect(await test.control.states.set(mappingUid, 'paused'), 'a late writer makes nothing').to.equal(false);
  });

  it('a mapping that takes over the number of a deleted one does not take over its state', async () => {
    await test.control.states.set(mappingUid, 'copying');
    await test.query('DELETE FROM table_mappings');
    await test.query(
      server.sql.withIdentity(
        'table_mappings',
        `INSERT INTO table_mappings (mapping_id, server_id, source_table) VALUES (${mappingId}, 1, 'other')`,
      ),
    );
    expect(await state()).to.equal(null);
    expect(await test.control.states.ensure()).to.equal(1);
    expect((await state())?.state).to.equal('new');
  });

  it('refuses a transition without having written anything', async () => {
    const before = await writes();
    await rejection(test.control.states.set(mappingUid, 'gap', { attempts: 9 }));
    expect(await writes()).to.equal(before);
  });
});
