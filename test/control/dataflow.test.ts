/** F59: a control database of the tool that people come from becomes ours, in place, with nothing lost. */
import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { ControlDatabase } from '../../src/control/index.ts';
import { sluice } from '../cli/support.ts';
import { SLUICE } from '../support/program.ts';
import { eventually } from '../support/service.ts';
import { LAYOUTS, type DataflowLayout } from './dataflow-layouts.ts';
import { SQLSERVER, type ControlTestDatabase } from './servers.ts';

/** What is the same for every layout, and each time a process with cold sessions: for one of them, but in the long run. */
const isWhole = (layout: DataflowLayout) => layout === LAYOUTS[0] || Boolean(process.env['SLUICE_TEST_LONG']);

describe('sluice migrate --from-dataflow', function () {
  this.timeout(600_000);
  const databases: ControlTestDatabase[] = [];
  before(function () {
    return SQLSERVER.require(this);
  });
  after(async () => {
    for (const database of databases) await database.drop();
  });

  const make = async (layout: DataflowLayout | undefined) => {
    const database = await SQLSERVER.createDatabase();
    databases.push(database);
    for (const sql of layout?.statements ?? []) await database.query(sql);
    return { database, variables: { DEST_URL: await SQLSERVER.url(), CONTROL_DATABASE: database.name } };
  };
  const tables = async (database: ControlTestDatabase) =>
    (
      await database.query<{ name: string; n: number }>(
        `SELECT t.name AS name, (SELECT COUNT(*) FROM sys.columns AS c WHERE c.object_id = t.object_id) AS n FROM sys.objects AS t WHERE t.type IN ('U', 'V') AND t.schema_id = SCHEMA_ID(N'dbo') ORDER BY t.name`,
      )
    ).map(({ name, n }) => `${name} ${n}`);
  const holds = async (database: ControlTestDatabase, layout: DataflowLayout) => {
    for (const { sql, rows } of layout.expected) expect(await database.query(sql), sql).to.deep.equal(rows);
  };
  const carriedBy = (result: unknown) => {
    const sums: Record<string, number> = {};
    for (const { to, rows } of (result as { carried: { to: string; rows: number }[] }).carried)
      sums[to] = (sums[to] ?? 0) + rows;
    return sums;
  };

  for (const layout of LAYOUTS) {
    it(`F59: ${layout.name}: told beforehand, upgraded in place, nothing lost, and again without effect`, async () => {
      const { database, variables } = await make(layout);
      const before = await tables(database);
      if (isWhole(layout)) {
        const plain = await sluice(['migrate'], variables);
        expect(plain.exitCode).to.equal(2);
        expect(plain.stderr).to.contain('sluice migrate --from-dataflow');
      }

      const dry = await sluice(['migrate', '--from-dataflow', '--dry-run', '--json'], variables);
      expect(dry.exitCode, dry.stdout).to.equal(0);
      expect(carriedBy(dry.envelope().result)).to.deep.equal(layout.carried);
      expect(await tables(database), 'nothing was done').to.deep.equal(before);

      const run = await sluice(['migrate', '--from-dataflow', '--json'], variables);
      expect(run.exitCode, run.stdout).to.equal(0);
      expect(carriedBy(run.envelope().result)).to.deep.equal(layout.carried);
      expect(run.stdout, 'no password is printed').to.not.match(/pass|p;a/);
      await holds(database, layout);

      const again = await sluice(['migrate', '--from-dataflow'], variables);
      expect(again.stdout).to.contain('was upgraded before');
      if (isWhole(layout)) expect((await sluice(['migrate'], variables)).stdout).to.contain('is up to date');
      await holds(database, layout);

      // It is a control database as any: rows are understood, new ones get new numbers, the views answer.
      const control = await ControlDatabase.open({ url: variables.DEST_URL, database: database.name });
      try {
        const plan = await control.readPlanRows();
        if ('unchanged' in plan) throw new Error('first read');
        expect(plan.invalid).to.deep.equal([]);
        expect(plan.mappings.map(({ mappingId, fullSyncFlag }) => [mappingId, fullSyncFlag])).to.deep.equal([
          [1, true],
          [3, true],
        ]);
        expect(plan.mappings[1]?.primaryKey).to.deep.equal(['a,b']);
      } finally {
        await control.close();
      }
      await database.query(`INSERT INTO table_mappings (server_id, source_table) VALUES (1, 'later')`);
      const [later] = await database.query<{ mapping_id: number }>(
        `SELECT mapping_id FROM table_mappings WHERE source_table = 'later'`,
      );
      expect(later?.mapping_id).to.be.greaterThan(3);
      for (const view of ['v_sync_summary', 'v_recent_errors', 'v_mapping_health', 'v_recent_logs'])
        await database.query(`SELECT * FROM ${view}`);
    });
  }

  it('F59: killed in the middle: nothing is changed, and the next one does it all', async () => {
    const [layout] = LAYOUTS;
    if (!layout) throw new Error('no layouts');
    const { database, variables } = await make(layout);
    const before = await tables(database);
    const env = { ...process.env, ...variables, SLUICE_FAILPOINTS: 'control.carried=kill:3' };
    const child = spawn(process.execPath, [...SLUICE, 'migrate', '--from-dataflow'], { env, stdio: 'ignore' });
    const [, signal] = (await once(child, 'exit')) as [number | null, string | null];
    expect(signal).to.equal('SIGKILL');
    // The server rolls back as soon as it has noticed.
    await eventually(async () => {
      expect(await tables(database)).to.deep.equal(before);
    }, 30_000);
    const run = await sluice(['migrate', '--from-dataflow', '--json'], variables);
    expect(run.exitCode, run.stdout).to.equal(0);
    await holds(database, layout);
  });

  it('says what is wrong where there is nothing of that tool', async () => {
    const { variables } = await make(undefined);
    const none = await sluice(['migrate', '--from-dataflow'], variables);
    expect(none.exitCode).to.equal(2);
    expect(none.stderr).to.match(/CONFIG_INVALID: .*no tables of any generation[^]*hint: Set CONTROL_DATABASE/);
    const dry = await sluice(['migrate', '--dry-run'], variables);
    expect(dry.exitCode).to.equal(2);
  });
});
