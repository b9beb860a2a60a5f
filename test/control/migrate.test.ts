import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { ControlDatabase } from '../../src/control/index.ts';
import { loadMigrations } from '../../src/control/migrate.ts';
import { SluiceError } from '../../src/model/errors.ts';
import { NEXT_VERSION } from './next-version.ts';
import { onControlServers, type ControlTestDatabase } from './servers.ts';
import { rejection } from './support.ts';

onControlServers('control: migrations', (server) => {
  let database: ControlTestDatabase;
  const opened: ControlDatabase[] = [];
  const children: ChildProcess[] = [];
  beforeEach(async () => {
    database = await server.createDatabase();
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    for (const control of opened.splice(0)) await control.close();
    await database.drop();
  });

  const open = async (next = false) => {
    const migrations = [...(await loadMigrations()), ...(next ? [NEXT_VERSION] : [])];
    const control = await ControlDatabase.open({ url: database.url, database: database.name }, migrations);
    opened.push(control);
    return control;
  };
  const child = (mode: string) => {
    const file = new URL('./migrate-child.ts', import.meta.url).pathname;
    const started = spawn(process.execPath, ['--import=tsx', file, database.url, database.name, mode], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(started);
    return started;
  };
  const firstLine = async (started: ChildProcess) => {
    if (!started.stdout) throw new Error('no output');
    const [data] = (await once(started.stdout, 'data')) as [Buffer];
    return data.toString().trim();
  };
  const version = async () => (await database.query<{ v: number }>('SELECT schema_version AS v FROM meta'))[0]?.v;

  it('runs on an empty database, and again without doing anything', async () => {
    const control = await open();
    expect(await control.migrate()).to.deep.equal({ from: 0, to: 1, applied: ['0001_schema'] });
    const [before] = await database.query('SELECT * FROM meta');
    expect(await control.migrate()).to.deep.equal({ from: 1, to: 1, applied: [] });
    expect((await database.query('SELECT * FROM meta'))[0]).to.deep.equal(before);
    expect((await control.installation()).uid).to.match(/^[0-9a-f-]{36}$/);
  });

  it('takes over tables a DBA made by hand from the file', async () => {
    await database.runSchemaFile();
    const control = await open();
    expect(await control.migrate()).to.deep.equal({ from: 1, to: 1, applied: [] });
    expect((await control.readSettings()).settings.lease_seconds).to.equal(15);
  });

  it('two processes at once: each migration is applied once', async () => {
    const results = await Promise.all([child('run'), child('run')].map(firstLine));
    const applied = results.flatMap((line) => (JSON.parse(line) as { applied: string[] }).applied);
    expect(applied.sort()).to.deep.equal(['0001_schema', '0002_next']);
    expect(await version()).to.equal(2);
  });

  it('killed in the middle: nothing half done, no lock left, the next one goes on', async () => {
    await (await open()).migrate();
    const killed = child('hang');
    expect(await firstLine(killed)).to.equal('hanging');
    killed.kill('SIGKILL');
    await once(killed, 'exit');
    expect(await version()).to.equal(1);
    const began = performance.now();
    expect((await (await open(true)).migrate()).applied).to.deep.equal(['0002_next']);
    expect(performance.now() - began, 'did not wait for a dead process').to.be.below(20_000);
    expect(await version()).to.equal(2);
  });

  it('an older process stops with CONTROL_TOO_NEW once the tables ask for a newer one, also while it runs', async () => {
    const control = await open();
    await control.migrate();
    await database.query('UPDATE meta SET schema_version = 5');
    await control.check(); // newer tables alone are fine
    await control.readPlanRows();
    await database.query('UPDATE meta SET min_reader_version = 2');
    for (const attempt of [() => control.check(), () => control.migrate(), () => control.readPlanRows()]) {
      const error = await rejection(attempt());
      expect(error).to.be.instanceOf(SluiceError).with.property('code', 'CONTROL_TOO_NEW');
      expect(error).to.have.property('retry', 'never');
    }
  });

  it('tables that are older than the program, or missing, are named as what they are', async () => {
    const control = await open();
    expect(await rejection(control.check())).to.have.property('code', 'CONFIG_INVALID');
    expect(await rejection(control.readPlanRows())).to.have.property('code', 'CONFIG_INVALID');
    expect((await control.health()).migrated).to.equal(false);
  });

  it('F59 upgrade with live rows: nothing is lost, values stay, a process of the old version goes on working', async () => {
    const old = await open();
    await old.migrate();
    await database.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('s', 'postgres://s/')`);
    await database.query(`INSERT INTO table_mappings (server_id, source_table, is_full_sync) VALUES (1, 'orders', 1)`);
    await database.query(`UPDATE config SET config_value = '42' WHERE config_key = 'batch_size'`);
    await old.states.ensure();
    await old.requests.fromFlags();
    const uid = (await old.installation()).uid;
    const before = await old.readPlanRows();
    if ('unchanged' in before) throw new Error('first read');

    const upgraded = await open(true);
    expect(await upgraded.migrate()).to.deep.equal({ from: 1, to: 2, applied: ['0002_next'] });

    const after = await upgraded.readPlanRows();
    if ('unchanged' in after) throw new Error('first read');
    const settled = (plan: typeof before) => plan.mappings.map((each) => ({ ...each }));
    expect(settled(after)).to.deep.equal(settled(before));
    expect((await upgraded.installation()).uid).to.equal(uid);
    expect((await upgraded.readSettings()).settings.batch_size).to.equal(42);
    const mapping = after.mappings[0];
    if (!mapping) throw new Error('mapping lost');
    expect((await old.requests.claim(mapping.mappingUid, 'old'))?.request.reason).to.equal('flag');
    expect(await database.query('SELECT next_column FROM table_mappings')).to.deep.equal([{ next_column: 7 }]);
  });
});
