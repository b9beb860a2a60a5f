/** Tables that are made for a mapping: what of the source's declaration comes with them. */
import { expect } from 'chai';
import { createPairsWorld, type PairsWorld } from '../support/pairs-world.ts';
import { skip } from '../support/skip.ts';

describe('created tables, MariaDB → MariaDB', function () {
  this.timeout(90_000);
  let world: PairsWorld;
  before(async function () {
    world = await createPairsWorld({}, ['mysql'], ['mysql']);
    const missing = world.missing('mysql');
    if (missing !== null) skip(this, missing);
    await world.start();
  });
  after(() => world?.close());

  it('F24 F27: defaults, generated columns, unique and other indexes come with the table', async () => {
    await world.from('mysql').query(
      `CREATE TABLE rich (id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, seat int NOT NULL, name varchar(40) COLLATE utf8mb4_unicode_ci NOT NULL DEFAULT 'it''s',
         doubled int AS (seat * 2) STORED, kind enum('a','b') DEFAULT 'b', at timestamp(3) NOT NULL DEFAULT current_timestamp(3),
         UNIQUE KEY seats (seat), KEY names (name(10), kind))`,
    );
    await world.from('mysql').query(`INSERT INTO rich (seat, name) SELECT seq, CONCAT('n', seq) FROM seq_1_to_50`);
    await world.state(await world.mapPair('mysql', 'mysql', 'rich'), 'streaming', 40);
    await world.equalPair('mysql', 'mysql', 'rich');
    const [described] = await world.into('mysql').query('SHOW CREATE TABLE rich');
    const sql = String(described?.['Create Table']);
    for (const part of [
      'UNIQUE KEY `seats` (`seat`)',
      'KEY `names` (`name`(10),`kind`)',
      "DEFAULT 'it''s'",
      'STORED',
      'utf8mb4_unicode_ci',
    ])
      expect(sql).to.include(part);
    await world.from('mysql').query('UPDATE rich SET seat = -seat');
    await world.from('mysql').query('UPDATE rich SET seat = 51 + seat');
    await world.equalPair('mysql', 'mysql', 'rich');
    expect(await world.control.query('SELECT error_message FROM error_logs')).to.deep.equal([]);
  });
});
