import { expect } from 'chai';
import { inspect } from 'node:util';
import { ControlDatabase } from '../../src/control/index.ts';
import { SluiceError } from '../../src/model/errors.ts';
import { skip } from '../support/skip.ts';
import { startProxy, type Proxy } from './proxy.ts';
import { onControlServers, POSTGRES, randomName, SQLSERVER } from './servers.ts';
import { createControl, rejection, type TestControl } from './support.ts';

const SECRET = 'hunter2-hunter2';

onControlServers('control: connection', (server) => {
  const opened: ControlDatabase[] = [];
  const drops: (() => Promise<unknown>)[] = [];
  let proxy: Proxy | null = null;
  let test: TestControl;
  before(async () => {
    test = await createControl(server);
  });
  afterEach(async () => {
    for (const control of opened.splice(0)) await control.close();
    for (const undo of drops.splice(0).reverse()) await undo();
    await proxy?.close();
    proxy = null;
  });
  after(() => test?.drop());

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
    const name = randomName('made');
    drops.push(() => server.dropDatabase(name));
    const url = await server.url();
    const controls = await Promise.all([1, 2, 3].map(() => open(url, { database: name })));
    const results = await Promise.all(controls.map((control) => control.migrate()));
    expect(results.flatMap((each) => each.applied)).to.deep.equal(['0001_schema']);
    const health = await controls[0]?.health();
    expect(health?.migrated).to.equal(true);
    expect(health?.roundTripMs).to.be.greaterThan(0);
  });

  it('says how to create it when the login may not', async () => {
    const role = randomName('poor');
    await server.createLogin(role, SECRET);
    drops.push(() => server.dropLogin(role));
    const url = new URL(await server.url());
    [url.username, url.password] = [role, SECRET];
    const error = await rejection(open(url.toString(), { database: 'not_there' }));
    expectError(error, 'PERMISSION_DENIED');
    expect((error as SluiceError).hint).to.contain(server.sql.createDatabase('not_there'));
  });

  it('names what is wrong with the settings, and never the secret', async () => {
    const good = new URL(await server.url());
    const scheme = good.protocol.replace(':', '');
    const wrong: [string, string][] = [
      ['', 'DESTINATION_MISSING'],
      [`oracle://u:${SECRET}@h/`, 'ENGINE_UNKNOWN'],
      [`u:${SECRET}@h/`, 'ENGINE_UNKNOWN'],
      [`${scheme}://u:${SECRET}@h:port/`, 'CONFIG_INVALID'],
      [`${scheme}://u:${SECRET}@127.0.0.1:1/`, 'CONTROL_UNREACHABLE'],
      [`${scheme}://u:${SECRET}@no-such-host.invalid/`, 'CONTROL_UNREACHABLE'],
      [`${scheme}://nobody:${SECRET}@${good.host}/${good.search}`, 'LOGIN_FAILED'],
      [`${scheme}://u:${SECRET}@${good.host}/?${server.demandingTls}`, 'TLS_FAILED'],
      [`${scheme}://u:\${env:SLUICE_NOT_SET}@h/`, 'SECRET_UNREADABLE'],
      ...(server !== SQLSERVER
        ? []
        : ([
            [`server=127.0.0.1,1;user id=u;password='${SECRET}';encrypt=disable`, 'CONTROL_UNREACHABLE'],
            [`server=h;user id=u;password='${SECRET}`, 'CONFIG_INVALID'],
            [`server=h;user id=u;password=${SECRET};certificate=/not/there.pem`, 'CONFIG_INVALID'],
          ] as [string, string][])),
    ];
    for (const [url, code] of wrong) expectError(await rejection(open(url)), code);
  });

  it('an error of a statement names no bound value', async () => {
    const { mappingId } = await test.addMapping();
    await test.query(`ALTER TABLE full_sync_requests ADD CONSTRAINT odd CHECK (requested_by <> '${SECRET}')`);
    drops.push(() => test.query('ALTER TABLE full_sync_requests DROP CONSTRAINT odd'));
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
    await blocker.query('BEGIN TRANSACTION');
    await blocker.query('UPDATE mapping_state SET attempts = attempts');
    const pending = rejection(control.states.set(mappingUid, 'paused'));
    await new Promise((resolve) => setTimeout(resolve, 100));
    proxy.cut();
    expectError(await pending, 'CONTROL_UNREACHABLE');
    await blocker.query('ROLLBACK TRANSACTION');
    proxy.restore();
    await expectRecovery(control);
    const [row] = await test.query('SELECT state FROM mapping_state WHERE mapping_uid = $1', [mappingUid]);
    expect(row).to.deep.equal({ state: 'new' });
    expect(await control.states.set(mappingUid, 'paused')).to.equal(true);
  });

  it('F55 a network that swallows everything: given up after a silence, then works again', async () => {
    proxy = await startProxy(test.database.url);
    const control = await open(proxy.url, { database: test.database.name, silenceMs: 300, timeoutMs: 1500 });
    await control.health();
    proxy.swallow();
    const began = performance.now();
    expectError(await rejection(control.health()), 'CONTROL_UNREACHABLE');
    expectError(await rejection(control.health()), 'CONTROL_UNREACHABLE');
    expect(performance.now() - began).to.be.below(5000);
    proxy.restore();
    await expectRecovery(control);
  });

  it('a person’s open transaction makes a call fail with TIMEOUT and a hint, not hang', async () => {
    const control = await open(test.database.url, { database: test.database.name, lockWaitMs: 200 });
    const { mappingUid, mappingId } = await test.addMapping('held');
    const { requestId } = await control.requests.create({ mappingId, mappingUid, reason: 'cli' });
    await control.requests.claim(mappingUid, 'me');
    const person = await test.database.connect();
    await person.query('BEGIN TRANSACTION');
    await person.query(`UPDATE table_mappings SET dest_table = 'x' WHERE mapping_id = ${mappingId}`);
    const error = await rejection(control.requests.finish(requestId, { outcome: 'completed' }));
    expectError(error, 'TIMEOUT');
    expect((error as SluiceError).hint).to.contain('open transaction');
    await person.query('COMMIT TRANSACTION');
    await control.requests.finish(requestId, { outcome: 'completed' });
    expect((await control.requests.list({ mappingUid }))[0]?.status).to.equal('completed');
  });

  it('reads times alike whatever the login’s settings are', async function () {
    if (server !== POSTGRES) return skip(this, 'only a database of PostgreSQL has settings that texts depend on');
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
    await server.endSessions('to be ended', test.database.name);
    await expectRecovery(control);
  });
});
