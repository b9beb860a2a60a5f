/** Two installations on the same source and destination. */
import { expect } from 'chai';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

describe('two installations', function () {
  this.timeout(60_000);
  let one: World;
  let other: World;
  afterEach(async () => {
    await other.close();
    await one.close();
  });

  it('F64: the same mapping numbers, source and destination: slots, positions and staging tables never mix', async () => {
    one = await createWorld();
    other = await createWorld();
    await one.source.query(`CREATE TABLE t (id int PRIMARY KEY, v text);
      INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 5000) i`);
    await other.control.query('UPDATE source_servers SET connection_string = $1', [one.source.url]);
    await one.start();
    const second = await other.start();
    const first = await one.map('t');
    const same = await other.map('t', { dest_database: one.destination.name, dest_table: 't2' });
    expect(same).to.equal(first);
    await Promise.all([one.state(first, 'streaming'), other.state(same, 'streaming')]);
    await one.source.query(`UPDATE t SET id = -id, v = 'both' WHERE id % 3 = 0`);
    await equal(one, 't');
    await equal(one, 't', 't2');
    // Both copy again at once, and changes go on.
    for (const world of [one, other]) await world.control.query('UPDATE table_mappings SET is_full_sync = 1');
    await one.source.query(`UPDATE t SET v = 'during both copies' WHERE id % 5 = 0`);
    await equal(one, 't');
    await equal(one, 't', 't2');
    const slots = () =>
      one.source.query(`SELECT slot_name FROM pg_replication_slots WHERE database = current_database()`);
    expect(await slots()).to.have.length(2);
    expect(await one.destination.query('SELECT DISTINCT stream FROM sluice.positions')).to.have.length(2);
    // One leaves: what it made goes, what the other made stays.
    await other.control.query('DELETE FROM table_mappings');
    await eventually(async () => {
      if ((await slots()).length !== 1) throw new Error('its slot is still there');
    }, 20_000);
    await second.stop();
    await one.source.query(`DELETE FROM t WHERE id % 2 = 0`);
    await equal(one, 't');
    expect(await one.destination.query('SELECT DISTINCT stream FROM sluice.positions')).to.have.length(1);
    expect(await one.destination.query('SELECT mapping_uid FROM sluice.generations')).to.have.length(1);
  });
});
