import { expect } from 'chai';
import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { ControlDatabase } from '../../src/control/index.ts';
import { SluiceError } from '../../src/model/errors.ts';
import { testServer } from '../support/postgres.ts';
import { startProxy, type Proxy } from './proxy.ts';
import { createControl, rejection, type TestControl } from './support.ts';

const SECRET = 'hunter2-hunter2';

describe('control: connection', () => {
  const opened: ControlDatabase[] = [];
  const drops: string[] = [];
  let proxy: Proxy | null = null;
  let test: TestControl;
  before(async () => {
    test = await createControl();
  });
  afterEach(async () => {
    for (const control of opened.splice(0)) await control.close();
    for (const sql of drops.splice(0).reverse()) await test.query(sql);
    await proxy?.close();
    proxy = null;
  });
  after(() => test.drop());

  const open = async (url: string, options: Partial<Parameters<typeof ControlDatabase.open>[0]> = {}) => {
    const control = await ControlDatabase.open({ url, timeoutMs: 3000, ...options });
    opened.push(control);
    return control;
  };
  /** An error that a person may see whole, with its causes, without seeing a secret. */
  const expectError = (error: unknown, code: string) => {
    expect(error).to.be.instanceOf(SluiceError).with.property('code', code);
    expect(inspect(error, { depth: 10, showHidden: true })).to.not.contain(SECRET);
  };

  /** What was under way may still fail, in the one way that is allowed; then it works, and goes on working. */
  const expectRecovery = async (control: ControlDatabase) => {
    const until = performance.now() + 5000;
    for (;;) {
      const error: unknown = await control.health().then(
        () => null,
        (thrown: unknown) => thrown,
      );
      if (error === null) break;
      expectError(error, 'CONTROL_UNREACHABLE');
      if (performance.now() > until) throw new Error('it did not recover');
    }
    for (let call = 0; call < 5; call++) expect((await control.health()).migrated).to.equal(true);
  };

  it('creates the database when it is missing, also when several processes start at once', async () => {
    const name = `made_${randomBytes(4).toString('hex')}`;
    drops.push(`DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`);
    const url = (await testServer()).url('postgres');
    const controls = await Promise.all([1, 2, 3].map(() => open(url, { database: name })));
    const results = await Promise.all(controls.map((control) => control.migrate()));
    expect(results.flatMap((each) => each.applied)).to.deep.equal(['0001_schema']);
    const health = await controls[0]?.health();
    expect(health?.migrated).to.equal(true);
    expect(health?.roundTripMs).to.be.greaterThan(0);
  });

  it('says how to create it when the login may not', async () => {
    const role = `poor_${randomBytes(4).toString('hex')}`;
    await test.query(`CREATE ROLE ${role} LOGIN PASSWORD '${SECRET}'`);
    drops.push(`DROP ROLE ${role}`);
    const url = new URL((await testServer()).url('postgres'));
    [url.username, url.password] = [role, SECRET];
    const error = await rejection(open(url.toString(), { database: 'not_there' }));
    expectError(error, 'PERMISSION_DENIED');
    expect((error as SluiceError).hint).to.contain('CREATE DATABASE "not_there"');
  });

  it('names what is wrong with the settings, and never the secret', async () => {
    const good = new URL((await testServer()).url('postgres'));
    const wrong: [string, string][] = [
      ['', 'DESTINATION_MISSING'],
      [`oracle://u:${SECRET}@h/`, 'ENGINE_UNKNOWN'],
      [`u:${SECRET}@h/`, 'ENGINE_UNKNOWN'],
      [`postgres://u:${SECRET}@h:port/`, 'CONFIG_INVALID'],
      [`postgres://u:${SECRET}@127.0.0.1:1/`, 'CONTROL_UNREACHABLE'],
      [`postgres://u:${SECRET}@no-such-host.invalid/`, 'CONTROL_UNREACHABLE'],
      [`postgres://nobody:${SECRET}@${good.host}/postgres`, 'LOGIN_FAILED'],
      [`postgres://u:${SECRET}@${good.host}/postgres?sslmode=require`, 'TLS_FAILED'],
      ['postgres://u:${env:SLUICE_NOT_SET}@h/', 'SECRET_UNREADABLE'],
    ];
    for (const [url, code] of wrong) expectError(await rejection(open(url)), code);
  });

  it('an error of a statement names no bound value', async () => {
    const { mappingId } = await test.addMapping();
    await test.query(`ALTER TABLE full_sync_requests ADD CONSTRAINT odd CHECK (requested_by <> '${SECRET}')`);
    drops.push('ALTER TABLE full_sync_requests DROP CONSTRAINT odd');
    const { mappingUid } = await test.mapping(mappingId);
    const error = await rejection(
      test.control.requests.create({ mappingId, mappingUid, reason: 'cli', requestedBy: SECRET }),
    );
    expectError(error, 'INTERNAL');
    expect((error as SluiceError).message).to.contain('constraint odd');
  });

  it('F55 away at start: CONTROL_UNREACHABLE, and the next attempt succeeds when it is back', async () => {
    proxy = await startProxy(test.database.url);
    proxy.cut();
    const error = await rejection(open(proxy.url, { database: test.database.name }));
    expectError(error, 'CONTROL_UNREACHABLE');
    expect(error).to.have.property('retry', 'backoff');
    proxy.restore();
    await (await open(proxy.url, { database: test.database.name })).check();
  });

  it('F55 away later: every call says so, and the same object works again; nothing that was acknowledged is lost', async () => {
    proxy = await startProxy(test.database.url);
    const control = await open(proxy.url, { database: test.database.name });
    const { mappingUid, mappingId } = await test.addMapping('later');
    await control.requests.create({ mappingId, mappingUid, reason: 'cli' });
    const plan = control.readPlanRows();
    await plan;
    proxy.cut();
    for (const call of [
      () => control.readPlanRows(),
      () => control.readSettings(),
      () => control.leases.drawEpoch(0),
      () => control.health(),
    ])
      expectError(await rejection(call()), 'CONTROL_UNREACHABLE');
    proxy.restore();
    await expectRecovery(control);
    expect(await control.requests.list({ mappingUid, open: true })).to.have.length(1);
  });

  it('F55 a transaction cut in the middle is rolled back', async () => {
    proxy = await startProxy(test.database.url);
    const control = await open(proxy.url, { database: test.database.name });
    const { mappingUid } = await test.addMapping('cut');
    const blocker = await test.database.connect();
    await blocker.query('BEGIN');
    await blocker.query('SELECT * FROM mapping_state FOR UPDATE');
    const pending = rejection(control.states.set(mappingUid, 'paused'));
    await new Promise((resolve) => setTimeout(resolve, 100));
    proxy.cut();
    expectError(await pending, 'CONTROL_UNREACHABLE');
    await blocker.query('ROLLBACK');
    proxy.restore();
    await expectRecovery(control);
    const [row] = await test.query('SELECT state FROM mapping_state WHERE mapping_uid = $1', [mappingUid]);
    expect(row).to.deep.equal({ state: 'new' });
    expect(await control.states.set(mappingUid, 'paused')).to.equal(true);
  });

  it('F55 a network that swallows everything: given up after a silence, then works again', async () => {
    proxy = await startProxy(test.database.url);
    const control = await open(proxy.url, { database: test.database.name, silenceMs: 300, timeoutMs: 300 });
    await control.health();
    proxy.swallow();
    const began = performance.now();
    expectError(await rejection(control.health()), 'CONTROL_UNREACHABLE');
    expectError(await rejection(control.health()), 'CONTROL_UNREACHABLE');
    expect(performance.now() - began).to.be.below(3000);
    proxy.restore();
    await expectRecovery(control);
  });

  it('a person’s open transaction makes a call fail with TIMEOUT and a hint, not hang', async () => {
    const control = await open(test.database.url, { database: test.database.name, lockWaitMs: 200 });
    const { mappingUid, mappingId } = await test.addMapping('held');
    const { requestId } = await control.requests.create({ mappingId, mappingUid, reason: 'cli' });
    await control.requests.claim(mappingUid, 'me');
    const person = await test.database.connect();
    await person.query('BEGIN');
    await person.query(`UPDATE table_mappings SET dest_table = 'x' WHERE mapping_id = ${mappingId}`);
    const error = await rejection(control.requests.finish(requestId, { outcome: 'completed' }));
    expectError(error, 'TIMEOUT');
    expect((error as SluiceError).hint).to.contain('open transaction');
    await person.query('COMMIT');
    await control.requests.finish(requestId, { outcome: 'completed' });
    expect((await control.requests.list({ mappingUid }))[0]?.status).to.equal('completed');
  });

  it('reads times alike whatever the login’s settings are', async () => {
    await test.query(`ALTER DATABASE "${test.database.name}" SET datestyle = 'SQL, DMY'`);
    await test.query(`ALTER DATABASE "${test.database.name}" SET timezone = 'Asia/Kathmandu'`);
    const control = await open(test.database.url, { database: test.database.name });
    const { mappingUid, mappingId } = await test.addMapping('zone');
    await control.requests.create({ mappingId, mappingUid, reason: 'cli' });
    await control.states.set(mappingUid, 'failed', { retryInSeconds: 60 });
    const [request] = await control.requests.list({ mappingUid });
    expect(Math.abs((request?.requestedAt.getTime() ?? 0) - Date.now())).to.be.below(60_000);
    const [mine, others] = await Promise.all([control.readPlanRows(), test.control.readPlanRows()]);
    if ('unchanged' in mine || 'unchanged' in others) throw new Error('first read');
    expect(mine.fingerprint).to.equal(others.fingerprint);
  });

  it('F55 the server restarts our sessions: works again within a moment', async () => {
    const control = await open(test.database.url, { database: test.database.name, applicationName: 'to be ended' });
    await control.health();
    await test.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'to be ended'`);
    await expectRecovery(control);
  });
});
