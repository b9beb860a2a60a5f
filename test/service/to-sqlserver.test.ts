/** From PostgreSQL to SQL Server, by the service: first rows, changes, copies again. */
import { expect } from 'chai';
import { requireSqlServer } from '../support/sqlserver.ts';
import { createWorldToSqlServer, type WorldToSqlServer } from '../support/sqlserver-world.ts';

describe('PostgreSQL → SQL Server', function () {
  this.timeout(90_000);
  let world: WorldToSqlServer;
  before(async function () {
    world = await createWorldToSqlServer(await requireSqlServer(this));
    await world.start();
  });
  after(() => world?.close());

  it('copies the table, follows its changes, copies again when asked', async () => {
    await world.source.query(
      `CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric(12,2), note text, placed timestamptz DEFAULT now())`,
    );
    await world.source.query(
      `INSERT INTO orders (id, customer, total) SELECT i, 'customer ' || i, i * 1.25 FROM generate_series(1, 3000) i`,
    );
    const mapping = await world.map('orders');
    await world.state(mapping, 'streaming', 40);
    await world.equal('orders');

    await world.source.query(`UPDATE orders SET total = total + 1 WHERE id % 7 = 0`);
    await world.source.query(`DELETE FROM orders WHERE id % 11 = 0`);
    await world.source.query(`INSERT INTO orders (id, customer) VALUES (9001, 'new'), (9002, '')`);
    await world.source.query(`UPDATE orders SET id = id + 100000 WHERE id < 50`);
    await world.equal('orders');

    // What a person did here is put right by the next copy, which writes nothing else.
    await world.target.query(`UPDATE dbo.orders SET customer = UPPER(customer) WHERE id < 500`);
    await world.target.query(`DELETE FROM dbo.orders WHERE id BETWEEN 600 AND 700`);
    await world.target.query(`INSERT INTO dbo.orders (id, customer) VALUES (-1, N'stray')`);
    await world.source.query(`UPDATE orders SET note = 'during the copy' WHERE id % 3 = 0`);
    await world.copyAgain(mapping);
    await world.equal('orders');
    expect(await world.control.query('SELECT * FROM error_logs')).to.deep.equal([]);
  });
});
