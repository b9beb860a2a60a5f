import { expect } from 'chai';
import { DEFAULT_SETTINGS, SETTINGS } from '../../src/control/index.ts';
import { onControlServers } from './servers.ts';
import { createControl, type TestControl } from './support.ts';

onControlServers('control: settings', (server) => {
  let test: TestControl;
  beforeEach(async () => {
    test = await createControl(server);
  });
  afterEach(() => test.drop());
  const set = (key: string, value: string) =>
    test.query('UPDATE config SET config_value = $2 WHERE config_key = $1', [key, value]);

  it('seeds every setting with its default, unit and range, and leaves a person’s values alone', async () => {
    const rows = await test.query<{ config_key: string; config_value: string; description: string }>(
      'SELECT * FROM config',
    );
    expect(Object.fromEntries(rows.map((row) => [row.config_key, Number(row.config_value)]))).to.deep.equal(
      DEFAULT_SETTINGS,
    );
    const row = rows.find((each) => each.config_key === 'lease_seconds');
    expect(row?.description).to.contain(`${SETTINGS.lease_seconds.min} to ${SETTINGS.lease_seconds.max}`);
    await set('batch_size', '77');
    await test.query(`DELETE FROM config WHERE config_key = 'lease_seconds'`);
    await test.control.migrate();
    expect((await test.control.readSettings()).settings).to.deep.equal({ ...DEFAULT_SETTINGS, batch_size: 77 });
  });

  it('every default is within its own range', () => {
    for (const [name, spec] of Object.entries(SETTINGS)) expect(spec.default, name).to.be.within(spec.min, spec.max);
  });

  it('is read again while running', async () => {
    expect((await test.control.readSettings()).settings.batch_size).to.equal(1000);
    await set('batch_size', ' 250 ');
    expect(await test.control.readSettings()).to.deep.equal({
      settings: { ...DEFAULT_SETTINGS, batch_size: 250 },
      problems: [],
    });
  });

  it('F52 an invalid value is reported with its range and the last good one stays; others are read', async () => {
    await set('retry_delay_seconds', '45');
    await test.control.readSettings();
    for (const wrong of ['-5', 'abc', '1.5', '', '0x10', '1e3', '99999999999999999999']) {
      await set('retry_delay_seconds', wrong);
      await set('batch_size', '2000');
      const { settings, problems } = await test.control.readSettings();
      expect(settings.retry_delay_seconds, wrong).to.equal(45);
      expect(settings.batch_size).to.equal(2000);
      expect(problems).to.have.length(1);
      expect(problems[0]?.key).to.equal('retry_delay_seconds');
      expect(problems[0]?.error).to.include({ code: 'CONFIG_INVALID' });
      expect(problems[0]?.error.message).to.contain('retry_delay_seconds');
      expect(problems[0]?.error.hint).to.contain('1 to 86400');
    }
    await set('retry_delay_seconds', '46');
    expect((await test.control.readSettings()).settings.retry_delay_seconds).to.equal(46);
  });

  it('an unknown key is reported, with the one that was meant', async () => {
    await test.query(`DELETE FROM config WHERE config_key = 'lease_seconds'`);
    await test.query(
      `INSERT INTO config (config_key, config_value) VALUES ('batch_sizes', '5'), ('LEASE_SECONDS ', '20')`,
    );
    const { settings, problems } = await test.control.readSettings();
    expect(problems.map((each) => each.key)).to.deep.equal(['batch_sizes']);
    expect(problems[0]?.error.hint).to.contain('batch_size');
    expect(settings.lease_seconds, 'case and blanks do not matter').to.equal(20);
  });
});
