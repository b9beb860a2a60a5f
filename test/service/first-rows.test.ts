import { createWorld, equal, eventually, type World } from '../support/service.ts';

describe('from the first INSERT to live changes', () => {
  let world: World;
  beforeEach(async () => {
    world = await createWorld();
  });
  afterEach(() => world.close());

  it('copies the table, follows its changes, copies again when asked', async () => {
    await world.source.query(
      `CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2), note text, placed timestamptz DEFAULT now())`,
    );
    await world.source.query(
      `INSERT INTO orders (id, customer, total) SELECT i, 'customer ' || i, i * 1.25 FROM generate_series(1, 5000) i`,
    );
    await world.start();
    const mapping = await world.map('orders');
    await world.state(mapping, 'streaming');
    await equal(world, 'orders');

    await world.source.query(`UPDATE orders SET total = total + 1 WHERE id % 7 = 0`);
    await world.source.query(`DELETE FROM orders WHERE id % 11 = 0`);
    await world.source
      .query(`INSERT INTO orders (id, customer) VALUES (9001, 'new'), (9002, NULL || 'x' || 'y')`)
      .catch(() => undefined);
    await world.source.query(`UPDATE orders SET id = id + 100000 WHERE id < 50`);
    await equal(world, 'orders');

    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await world.source.query(`UPDATE orders SET note = 'during the copy' WHERE id % 3 = 0`);
    await world.control.query('SELECT 1');
    await eventually(async () => {
      const [row] = await world.control.query('SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1', [
        mapping,
      ]);
      if (row?.['is_full_sync'] !== 0) throw new Error('still 1');
    });
    await equal(world, 'orders');
  });
});
