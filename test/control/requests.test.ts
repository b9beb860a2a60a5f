import { expect } from 'chai';
import { onControlServers } from './servers.ts';
import { createControl, type TestControl } from './support.ts';

onControlServers('control: requests for full syncs', (server) => {
  let test: TestControl;
  let mappingId: number;
  let mappingUid: string;
  const me = 'process-1';
  beforeEach(async () => {
    test = await createControl(server);
    ({ mappingId, mappingUid } = await test.addMapping());
  });
  afterEach(() => test.drop());

  const setFlag = (value: 0 | 1) => test.query(`UPDATE table_mappings SET is_full_sync = ${value}`);
  const flag = async () => (await test.mapping(mappingId)).fullSyncFlag;
  const statuses = async () => (await test.control.requests.list({ mappingUid })).map((each) => each.status).reverse();
  const run = async () => {
    const claimed = await test.control.requests.claim(mappingUid, me);
    if (!claimed) throw new Error('nothing to claim');
    return claimed.request.requestId;
  };

  it('a flag makes one request, stays 1 during the run, and returns to 0 when it has finished', async () => {
    await setFlag(1);
    expect(await test.control.requests.fromFlags()).to.deep.equal({ mappings: [mappingId], cancelled: [] });
    expect(await test.control.requests.fromFlags()).to.deep.equal({ mappings: [], cancelled: [] });
    const id = await run();
    await test.control.requests.fromFlags();
    expect(await flag()).to.equal(true);
    await test.control.requests.finish(id, { outcome: 'completed', rowsCopied: 7 });
    expect(await flag()).to.equal(false);
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['completed']);
    const [row] = await test.query('SELECT last_full_sync_at FROM table_mappings');
    expect(row?.['last_full_sync_at']).to.be.instanceOf(Date);
  });

  it('F53 flipped twice before anybody looked: one run', async () => {
    await setFlag(1);
    await setFlag(0);
    await setFlag(1);
    await setFlag(1);
    await test.control.requests.fromFlags();
    await test.control.requests.finish(await run(), { outcome: 'completed' });
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['completed']);
    expect(await flag()).to.equal(false);
  });

  it('F53 F66 set to 0 and 1 again between two polls of a run: the run ends and exactly one more follows', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    const id = await run();
    await setFlag(0);
    await setFlag(1);
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['running', 'queued']);
    await test.control.requests.finish(id, { outcome: 'completed' });
    expect(await flag(), 'the later flip is not served yet').to.equal(true);
    await test.control.requests.fromFlags();
    await test.control.requests.finish(await run(), { outcome: 'completed' });
    await test.control.requests.fromFlags();
    expect(await flag()).to.equal(false);
    expect(await statuses()).to.deep.equal(['completed', 'completed']);
  });

  it('F53 a flip between the swap and the end of the request is not lost', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    const id = await run();
    await setFlag(0);
    await setFlag(1); // no poll in between
    await test.control.requests.finish(id, { outcome: 'completed' });
    expect(await flag()).to.equal(true);
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['completed', 'queued']);
  });

  it('F53 1 written over 1 is not a flip', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    const id = await run();
    await setFlag(1);
    await test.control.requests.fromFlags();
    await test.control.requests.finish(id, { outcome: 'completed' });
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['completed']);
  });

  it('F53 killed at once: before the request was made, and between claim and end, nothing is lost or doubled', async () => {
    await setFlag(1);
    const restarted = await test.second();
    await restarted.requests.fromFlags();
    const first = await restarted.requests.claim(mappingUid, 'killed');
    const again = await test.second();
    await again.requests.fromFlags();
    const resumed = await again.requests.claim(mappingUid, 'successor');
    expect(resumed?.resumed).to.equal(true);
    expect(resumed?.request.requestId).to.equal(first?.request.requestId);
    expect(resumed?.request.owner).to.equal('successor');
    expect(await statuses()).to.deep.equal(['running']);
  });

  it('F66 crash between the swap and the clearing: finishing again clears, and no second copy follows', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    const id = await run();
    // The swap committed at the destination with this id; the process died. Its successor recognises the id.
    const successor = await test.second();
    await successor.requests.fromFlags();
    const resumed = await successor.requests.claim(mappingUid, 'successor');
    expect(resumed?.request.requestId).to.equal(id);
    await successor.requests.finish(id, { outcome: 'completed' });
    await successor.requests.finish(id, { outcome: 'completed' });
    await successor.requests.fromFlags();
    expect(await successor.requests.claim(mappingUid, 'successor')).to.equal(null);
    expect(await flag()).to.equal(false);
  });

  it('finishing again does not clear a flag that was set since', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    const id = await run();
    await test.control.requests.finish(id, { outcome: 'completed' });
    await setFlag(1);
    await test.control.requests.finish(id, { outcome: 'completed' });
    expect(await flag()).to.equal(true);
  });

  it('F66 asked for by the CLI during a run, ten times at once: exactly one waits', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    await run();
    const other = await test.second();
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        (index % 2 ? other : test.control).requests.create({ mappingId, mappingUid, reason: 'cli' }),
      ),
    );
    expect(new Set(answers.map((each) => each.requestId)).size).to.equal(1);
    expect(answers.filter((each) => each.created)).to.have.length(1);
    expect(await statuses()).to.deep.equal(['running', 'queued']);
  });

  it('F50 two processes turn the same flag into one request', async () => {
    const other = await test.second();
    for (let round = 0; round < 5; round++) {
      await setFlag(1);
      await Promise.all([test.control.requests.fromFlags(), other.requests.fromFlags()]);
      const open = await test.control.requests.list({ mappingUid, open: true });
      expect(open).to.have.length(1);
      await test.control.requests.finish(await run(), { outcome: 'completed' });
    }
    expect(await statuses()).to.deep.equal(Array(5).fill('completed'));
  });

  it('a flag set to 0 during the run cancels it; also while it waits', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    const id = await run();
    expect(await test.control.requests.isRunning(id)).to.equal(true);
    await setFlag(0);
    expect((await test.control.requests.fromFlags()).cancelled).to.deep.equal([id]);
    expect(await test.control.requests.isRunning(id)).to.equal(false);
    await test.control.requests.finish(id, { outcome: 'cancelled' });
    await setFlag(1);
    await test.control.requests.fromFlags();
    await setFlag(0);
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['cancelled', 'cancelled']);
    expect(await test.control.requests.claim(mappingUid, me)).to.equal(null);
  });

  it('a swap that won against the cancellation counts as completed', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    const id = await run();
    await setFlag(0);
    await test.control.requests.fromFlags();
    await test.control.requests.finish(id, { outcome: 'completed' });
    expect(await statuses()).to.deep.equal(['completed']);
  });

  it('a failed run leaves the flag at 1 and runs again only after another flip', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    await test.control.requests.finish(await run(), { outcome: 'failed', errorCode: 'SCHEMA_MISMATCH' });
    await test.control.requests.fromFlags();
    expect(await flag()).to.equal(true);
    expect(await statuses()).to.deep.equal(['failed']);
    await setFlag(0);
    await setFlag(1);
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['failed', 'queued']);
  });

  it('a flag set while another request waits is served by it, and clearing the flag does not cancel that one', async () => {
    const { requestId } = await test.control.requests.create({ mappingId, mappingUid, reason: 'initial' });
    await setFlag(1);
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['queued']);
    await setFlag(0);
    expect((await test.control.requests.fromFlags()).cancelled).to.deep.equal([]);
    await setFlag(1);
    await test.control.requests.fromFlags();
    await test.control.requests.finish(await run(), { outcome: 'completed' });
    expect(await flag()).to.equal(false);
    expect((await test.control.requests.list())[0]).to.include({ requestId, status: 'completed' });
  });

  it('a trigger column’s request runs only once its reset is known, and survives a crash before', async () => {
    const made = await test.control.requests.create({ mappingId, mappingUid, reason: 'trigger', confirmed: false });
    expect(await test.control.requests.claim(mappingUid, me)).to.equal(null);
    const after = await test.second();
    expect((await test.mapping(mappingId)).queued).to.deep.include({ requestId: made.requestId, confirmed: false });
    const again = await after.requests.create({ mappingId, mappingUid, reason: 'trigger', confirmed: false });
    expect(again).to.deep.equal({ requestId: made.requestId, created: false });
    await after.requests.confirm(made.requestId);
    expect(await run()).to.equal(made.requestId);
  });

  it('a disabled mapping’s flag waits until it is enabled', async () => {
    await test.query('UPDATE table_mappings SET is_enabled = 0');
    await setFlag(1);
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal([]);
    await test.query('UPDATE table_mappings SET is_enabled = 1');
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['queued']);
  });

  it('cancelling from the CLI sets the flag back', async () => {
    await setFlag(1);
    await test.control.requests.fromFlags();
    await run();
    await test.control.requests.create({ mappingId, mappingUid, reason: 'api' });
    expect(await test.control.requests.cancel(mappingUid)).to.have.length(2);
    expect(await flag()).to.equal(false);
    await test.control.requests.fromFlags();
    expect(await statuses()).to.deep.equal(['cancelled', 'cancelled']);
  });
});
