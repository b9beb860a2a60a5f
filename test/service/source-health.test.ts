/** What a person sees of the source itself: how far capture has come, how long until changes are discarded, and why nothing is captured. */
import { expect } from 'chai';
import { Client } from 'pg';
import { sluice } from '../cli/support.ts';
import { testServer } from '../support/postgres.ts';
import { createWorld, eventually, type TestService, type World } from '../support/service.ts';
import { skip } from '../support/skip.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../support/sqlserver.ts';

/** Long enough for a busy machine: what is waited for comes by itself, or never. */
const PATIENCE_MS = 60_000;
const DAY_S = 86_400;

interface Health {
  readonly state: string;
  readonly lag_seconds: number | null;
  readonly capture_lag_seconds: number | null;
  readonly last_captured_at: Date | null;
  readonly retention_headroom_seconds: number | null;
  readonly error_code: string | null;
  readonly error_message: string | null;
  readonly error_hint: string | null;
}

describe('the health of a SQL Server source', function () {
  this.timeout(180_000);
  let world: World;
  let source: SqlServerTestDatabase;
  let service: TestService;
  let mapping: number;
  let variables: Record<string, string>;

  before(async function () {
    source = await createSqlServerDatabase(await requireSqlServer(this), 'src');
    await source.enableCdc();
    await source.query('CREATE TABLE dbo.items (id int NOT NULL PRIMARY KEY, v int)');
    await source.captureTable('dbo', 'items');
    await source.query('INSERT INTO dbo.items VALUES (1, 1)');
    world = await createWorld({ cdc_check_interval_seconds: 1 });
    await world.control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('sql', $1)`, [
      source.url,
    ]);
    service = await world.start();
    mapping = await world.map('items', {
      server_id: 2,
      source_database: source.name,
      source_schema: 'dbo',
      dest_schema: 'public',
    });
    await world.state(mapping, 'streaming', PATIENCE_MS / 1000);
    variables = { DEST_URL: (await testServer()).url(), CONTROL_DATABASE: world.control.name };
  });
  after(async () => {
    await world?.close();
    await source?.drop();
  });

  const health = async (): Promise<Health> => {
    const [row] = await world.control.query<Health & Record<string, unknown>>(
      'SELECT * FROM v_mapping_health WHERE mapping_id = $1',
      [mapping],
    );
    if (!row) throw new Error('no row');
    return row;
  };
  const errors = () =>
    world.control.query<{ error_message: string; hint: string; is_resolved: number; error_code: string }>(
      'SELECT error_code, error_message, hint, is_resolved FROM error_logs WHERE mapping_id = $1 ORDER BY error_id',
      [mapping],
    );
  /** Changes whenever a row is written, whatever with. */
  const writes = async () =>
    (await world.control.query<{ w: string }>('SELECT string_agg(xmin::text, $1) AS w FROM stream_health', [',']))[0]
      ?.w;
  const standIn = async (context: Mocha.Context, work: (pg: Client) => Promise<void>) => {
    const { pgUrl } = source.server;
    if (pgUrl === null) return skip(context, 'the agent of a real server is not stopped by a test');
    const pg = new Client({ connectionString: pgUrl });
    await pg.connect();
    try {
      await work(pg);
    } finally {
      await pg.query('SELECT cdc_standin.set_agent_status(4)');
      await pg.query('SELECT cdc_standin.inject_error($1, 0, NULL)', [source.name]);
      await pg.end();
    }
  };

  it('F10: v_mapping_health and status tell how long changes are kept, and when capture came as far as it is', async () => {
    await source.query('INSERT INTO dbo.items VALUES (2, 2)');
    await eventually(async () => {
      const now = await health();
      expect(now.retention_headroom_seconds).to.be.within(2.9 * DAY_S, 3 * DAY_S);
      expect(now.capture_lag_seconds).to.be.within(0, 60);
      expect(now.lag_seconds, 'apply lag').to.be.within(0, 60);
    }, PATIENCE_MS);
    const run = await sluice(['status'], variables);
    expect(run.stdout).to.match(/state +lag +capture lag +headroom +inserted/);
    expect(run.stdout).to.match(/7[12] h \d+ min/);
    const json = await sluice(['status', '--json'], variables);
    expect(json.envelope().result)
      .to.have.nested.property('mappings[0].retentionHeadroomSeconds')
      .that.is.greaterThan(DAY_S);
  });

  it('F16: a stopped agent: an error with its fix on every mapping, capture lag grows apart from apply lag, nothing is written meanwhile', async function () {
    await standIn(this, async (pg) => {
      const before = (await health()).lag_seconds;
      await pg.query('SELECT cdc_standin.set_agent_status(1)');
      await eventually(async () => {
        expect((await health()).error_code).to.equal('CDC_NOT_READY');
      }, PATIENCE_MS);
      expect(await health()).to.include({ state: 'streaming' });
      const [error] = await errors();
      expect(error?.error_message).to.match(new RegExp(`^mapping ${mapping} .*: SQL Server Agent does not run`));
      expect(error?.hint).to.contain('xp_servicecontrol');
      const [written, told] = [await writes(), await errors()];
      await source.query('INSERT INTO dbo.items VALUES (3, 3)');
      await eventually(async () => {
        expect((await health()).capture_lag_seconds).to.be.greaterThan(4);
      }, PATIENCE_MS);
      expect((await health()).lag_seconds, 'nothing arrived').to.equal(before);
      expect(await writes(), 'cycles that learn nothing write nothing').to.equal(written);
      expect(await errors()).to.deep.equal(told);
      const doctor = await sluice(['doctor'], variables);
      expect(doctor.stdout).to.contain('SQL Server Agent does not run');
    });
    await eventually(async () => {
      expect(await health()).to.include({ error_code: null, error_hint: null });
      expect((await errors()).map(({ is_resolved }) => is_resolved)).to.deep.equal([1]);
    }, PATIENCE_MS);
  });

  it('F16: a capture job that fails: the error of sys.dm_cdc_errors is told of, until something is captured again', async function () {
    await standIn(this, async (pg) => {
      await pg.query(
        `SELECT cdc_standin.inject_error($1, 22859, 'Log Scan process failed in processing log records.')`,
        [source.name],
      );
      await source.query('INSERT INTO dbo.items VALUES (4, 4)');
      await eventually(async () => {
        expect((await health()).error_message ?? '').to.match(/the capture job failed with error 22859/);
      }, PATIENCE_MS);
      expect((await health()).error_hint).to.contain('sys.dm_cdc_errors');
      expect((await errors()).at(-1)?.error_message).to.contain(`mapping ${mapping} `);
    });
    await eventually(async () => {
      expect((await health()).error_code).to.equal(null);
      expect(await world.destination.query('SELECT id FROM public.items WHERE id = 4')).to.deep.equal([{ id: 4 }]);
    }, PATIENCE_MS);
  });

  it('F10: what will soon be discarded is a finding of doctor, once for the stream', async () => {
    await service.stop();
    await world.control.query('UPDATE stream_health SET retention_headroom_seconds = 1200');
    const doctor = await sluice(['doctor', String(mapping), '--json'], variables);
    const { diagnoses } = doctor.envelope().result as { diagnoses: { code: string; message: string }[] };
    expect(diagnoses.filter(({ code }) => code === 'GAP').map(({ message }) => message)).to.deep.equal([
      'changes that were not read are discarded in 20 min 0 s: see what holds the service up, or keep them longer at the source',
    ]);
  });
});
