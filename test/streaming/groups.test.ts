/** Large transactions where not everything goes well: groups that stand apart, mappings that fail, sessions that end. */
import { expect } from 'chai';
import { audit, repeats } from '../crash/audit.ts';
import { ChildServices, type Failpoints } from '../support/child-service.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

const LONG = Boolean(process.env['SLUICE_TEST_LONG']);

describe('large transactions in trouble', function () {
  this.timeout(60_000);
  let world: World;
  const services = new ChildServices();
  const start = (failpoints?: Failpoints) => services.start(world, failpoints);

  beforeEach(async () => {
    world = await createWorld({ batch_max_bytes: 64 * 1024 });
    await world.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (LIKE t INCLUDING ALL)`);
  });
  afterEach(async () => {
    await services.killAll();
    await world.close();
  });

  const large = async (note: string) => {
    const client = await world.source.connect();
    await client.query('BEGIN');
    for (const table of ['t', 'u'])
      await client.query(`INSERT INTO ${table} SELECT g, repeat('${note}', 300) FROM generate_series(1, 400) g
        ON CONFLICT (id) DO UPDATE SET v = excluded.v`);
    await client.query(`UPDATE t SET id = id + 10000 WHERE id > 200`);
    await client.query('COMMIT');
  };

  it('F06 F43: a group ahead of the reader does not apply a large transaction again that another group still lacks', async () => {
    const first = await start();
    for (const mapping of [await world.map('t'), await world.map('u', { apply_group: 'apart' })])
      await world.state(mapping, 'streaming', 30);
    await first.kill();
    await audit(world.destination, 't');
    const service = await start();
    await service.says('change stream started');
    // The other group cannot commit, so this one is ahead by the large transaction when the process dies.
    const holder = await world.destination.connect();
    await holder.query('BEGIN; LOCK TABLE u');
    await large('large');
    await equal(world, 't');
    await service.kill();
    await holder.query('ROLLBACK');
    await world.source.query(`UPDATE t SET v = 'newer' WHERE id % 3 = 0`);
    await start();
    await equal(world, 't');
    await equal(world, 'u');
    expect(await repeats(world.destination)).to.deep.equal([]);
  });

  it('F43: a mapping that fails at the end of a large transaction does not take the others’ pieces with it', async () => {
    await start();
    const [one, other] = [await world.map('t'), await world.map('u')];
    await world.state(one, 'streaming', 30);
    await world.state(other, 'streaming', 30);
    await world.destination.query(`ALTER TABLE u ADD CHECK (v <> 'refused')`);
    const client = await world.source.connect();
    await client.query('BEGIN');
    await client.query(`INSERT INTO t SELECT g, repeat('t', 1000) FROM generate_series(1, 500) g`);
    await client.query(`INSERT INTO u SELECT g, repeat('u', 1000) FROM generate_series(1, 500) g`);
    await client.query(`INSERT INTO u VALUES (0, 'refused')`);
    await client.query('COMMIT');
    await equal(world, 't');
    await world.state(other, 'failed');
    const [row] = await world.destination.query('SELECT count(*)::int AS n FROM u');
    expect(row?.['n'], 'nothing of the refused transaction').to.equal(0);
    await world.destination.query(`ALTER TABLE u DROP CONSTRAINT u_v_check`);
    await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [other]);
    await world.state(other, 'paused');
    await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [other]);
    await world.state(other, 'streaming');
    await equal(world, 'u');
  });

  it('F40 F43: the session ends between the pieces of a large transaction, and during its commit', async () => {
    const service = await start({
      'stream.part-applied': 'error:1',
      'stream.piece-staged': 'sleep:60',
      'stream.before-commit': 'sleep:300',
    });
    const [one, other] = [await world.map('t'), await world.map('u')];
    await world.state(one, 'streaming', 30);
    await world.state(other, 'streaming', 30);
    await audit(world.destination, 't');
    const end = (condition: string) =>
      eventually(async () => {
        const ended = await world.destination.query(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND ${condition}`,
        );
        if (ended.length === 0) throw new Error(`no session with ${condition}`);
      }, 15_000);
    await large('first');
    await eventually(async () => {
      const [row] = await world.destination.query('SELECT count(*)::int AS n FROM sluice.pieces');
      if (Number(row?.['n']) < 3) throw new Error('not staged yet');
    });
    expect(service.count('it is read again'), service.lastWords()).to.equal(1);
    await end(`query LIKE '%sluice.pieces%'`);
    await equal(world, 't', 't', 30_000);
    if (LONG) {
      await large('second');
      await end(`state = 'idle in transaction' AND query NOT LIKE '%sluice.pieces%'`);
      await equal(world, 't', 't', 30_000);
    }
    await equal(world, 'u');
    expect(await repeats(world.destination)).to.deep.equal([]);
  });
});
