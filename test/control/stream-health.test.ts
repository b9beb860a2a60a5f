import { expect } from 'chai';
import { SluiceError } from '../../src/model/errors.ts';
import { onControlServers } from './servers.ts';
import { createControl, type TestControl } from './support.ts';

onControlServers('control: what sources say of their streams', (server) => {
  let test: TestControl;
  let mappingUid: string;
  const stream = 'installation/1/Shop';
  beforeEach(async () => {
    test = await createControl(server);
    ({ mappingUid } = await test.addMapping());
    await test.control.states.set(mappingUid, 'copying', { stream });
    await test.control.states.set(mappingUid, 'streaming');
  });
  afterEach(() => test.drop());

  const health = async () => (await test.control.operator.health())[0];
  const nothing = { captureLagSeconds: null, headroomSeconds: null, headroomBytes: null, fault: null };

  it('F16 F10: capture lag counts on by itself; headroom and the fault stand on the stream’s mappings until they change', async () => {
    expect(await health()).to.include({ captureLagSeconds: null, retentionHeadroomSeconds: null, errorCode: null });
    const fault = new SluiceError('CDC_NOT_READY', 'SQL Server Agent does not run', { hint: 'start it' });
    await test.control.streams.write(stream, {
      captureLagSeconds: 90,
      headroomSeconds: 7200.5,
      headroomBytes: 2 ** 40,
      fault,
    });
    const first = await health();
    expect(first).to.include({
      state: 'streaming',
      retentionHeadroomSeconds: 7200.5,
      retentionHeadroomBytes: 2 ** 40,
      errorCode: 'CDC_NOT_READY',
      errorMessage: 'SQL Server Agent does not run',
      errorHint: 'start it',
    });
    expect(first?.captureLagSeconds).to.be.within(90, 120);
    expect(first?.lastCapturedAt?.getTime()).to.be.within(Date.now() - 120_000, Date.now() - 60_000);
    expect(await test.control.streams.faultOf(stream)).to.equal('CDC_NOT_READY');
    await test.control.streams.write(stream, { ...nothing, captureLagSeconds: 0 });
    expect(await health()).to.include({ retentionHeadroomSeconds: null, errorCode: null, errorHint: null });
    expect((await health())?.captureLagSeconds).to.be.below(30);
    expect(await test.control.streams.faultOf(stream)).to.equal(null);
  });

  it('a mapping’s own error is not mixed with its stream’s, and another stream’s is not shown', async () => {
    const fault = new SluiceError('CDC_NOT_READY', 'of the stream', { hint: 'start it' });
    await test.control.streams.write('installation/1/shop', { ...nothing, fault });
    expect(await health(), 'a database that differs in case only').to.include({ errorCode: null });
    await test.control.streams.write(stream, { ...nothing, fault });
    const error = { code: 'GAP', message: 'of the mapping', hint: null } as const;
    await test.control.states.set(mappingUid, 'gap', { error });
    expect(await health()).to.include({ errorCode: 'GAP', errorMessage: 'of the mapping', errorHint: null });
    await test.query('UPDATE source_servers SET is_enabled = 0');
    expect((await health())?.captureLagSeconds, 'nobody looks').to.equal(null);
  });

  it('a warning stands beside the state and is not an error', async () => {
    const warning = { message: 'capture instance a can be dropped', hint: 'EXEC …' };
    expect(await test.control.states.change(mappingUid, () => ({ warning }))).to.equal(true);
    expect(await test.control.states.change(mappingUid, () => ({ warning }))).to.equal(false);
    expect(await health()).to.include({
      state: 'streaming',
      errorCode: null,
      warning: warning.message,
      warningHint: 'EXEC …',
    });
    await test.control.states.change(mappingUid, () => ({ warning: null }));
    expect(await health()).to.include({ warning: null, warningHint: null });
  });

  it('F58: of a stream that nothing is read from any more, the row goes with the logs', async () => {
    await test.control.streams.write(stream, nothing);
    await test.control.streams.write('gone', nothing);
    await test.query(`UPDATE stream_health SET updated_at = ${server.sql.shift(server.sql.now, -100 * 86_400)}`);
    expect((await test.control.purge({ logDays: 30, deadLetterDays: 90 })).deleted).to.deep.equal({ stream_health: 1 });
    expect(await test.query('SELECT stream FROM stream_health')).to.deep.equal([{ stream }]);
  });
});
