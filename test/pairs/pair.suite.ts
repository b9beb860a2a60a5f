/** What every pair of engines is held to: first rows, changes, a copy again while rows change, keys that change places, a pause. */
import { expect } from 'chai';
import { TITLES, type EngineName, type End } from '../support/ends.ts';
import type { PairsWorld } from '../support/pairs-world.ts';
import { skip } from '../support/skip.ts';

/** Long enough for a busy machine: what is waited for comes by itself, or never. */
const PATIENCE_S = 40;

export function pairSuite(worldOf: () => PairsWorld, from: EngineName, into: EngineName, titles = TITLES): void {
  describe(`${titles[from]} → ${titles[into]}`, function () {
    this.timeout(120_000);
    let world: PairsWorld;
    let source: End;
    let target: End;
    before(function () {
      world = worldOf();
      const missing = world.missing(from) ?? world.missing(into);
      if (missing !== null) skip(this, missing);
      source = world.from(from);
      target = world.into(into);
    });
    const named = (table: string) => `${table}_${from}_${into}`;
    const equal = (table: string) => world.equalPair(from, into, table, PATIENCE_S * 1000);
    const stream = async (table: string) => {
      const mapping = await world.mapPair(from, into, table);
      await world.state(mapping, 'streaming', PATIENCE_S);
      return mapping;
    };
    const complaints = () => world.control.query('SELECT error_message FROM error_logs');
    const orders = named('orders');
    let mapping = 0;

    it('copies the table, follows its changes, copies again while rows change', async () => {
      const { text, moment } = source.words;
      await source.query(
        `CREATE TABLE ${orders} (id int NOT NULL PRIMARY KEY, customer ${text} NOT NULL, total decimal(12,2), note ${text}, placed ${moment})`,
      );
      await source.capture(orders);
      const columns = ['id', 'customer', 'total', 'placed'];
      const row = (id: number) => [id, `customer ${id}`, (id * 1.25).toFixed(2), '2024-02-29 12:00:00.120'];
      await source.insert(orders, columns, numbers(1, 1500).map(row));
      mapping = await stream(orders);
      await equal(orders);

      await source.query(`UPDATE ${orders} SET total = total + 1 WHERE id % 7 = 0`);
      await source.query(`DELETE FROM ${orders} WHERE id % 11 = 0`);
      await source.insert(orders, columns, [
        [9001, "né\t\\N 😀 '", null, null],
        [9002, '', '-0.05', '1753-01-01 00:00:00'],
      ]);
      await source.query(`UPDATE ${orders} SET id = id + 100000 WHERE id < 50`);
      await equal(orders);

      // What a person did at the destination is put right by the next copy.
      await target.query(`UPDATE ${orders} SET customer = UPPER(customer) WHERE id < 500`);
      await target.query(`DELETE FROM ${orders} WHERE id BETWEEN 600 AND 700`);
      await target.insert(orders, ['id', 'customer'], [[-1, 'stray']]);
      const again = world.copyAgain(mapping, PATIENCE_S);
      for (const n of numbers(1, 6)) {
        await source.query(`UPDATE ${orders} SET note = 'copy ${n}' WHERE id % 9 = ${n}`);
        await source.query(`UPDATE ${orders} SET id = id + 200000 WHERE id BETWEEN ${n * 100} AND ${n * 100 + 9}`);
        await source.query(`DELETE FROM ${orders} WHERE id BETWEEN ${n * 100 + 50} AND ${n * 100 + 59}`);
        await source.insert(orders, columns, [row(20_000 + n)]);
      }
      await again;
      await equal(orders);
      expect(await complaints()).to.deep.equal([]);
    });

    it('F20 F21: changes of a paused mapping are kept and arrive in order', async () => {
      await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
      await world.state(mapping, 'paused', PATIENCE_S);
      await source.query(`UPDATE ${orders} SET note = 'while paused' WHERE id % 5 = 0`);
      await source.query(`UPDATE ${orders} SET id = -id WHERE id % 5 = 1`);
      await source.transaction(
        `DELETE FROM ${orders} WHERE id = 9002`,
        `INSERT INTO ${orders} (id, customer) VALUES (9002, 'again')`,
        `UPDATE ${orders} SET customer = 'at last' WHERE id = 9002`,
      );
      await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
      await world.state(mapping, 'streaming', PATIENCE_S);
      await equal(orders);
    });

    it('F20 F21 F22 F23 F24: keys and unique values change places, large values stay, an emptied table fills again', async () => {
      const places = named('places');
      await source.query(
        `CREATE TABLE ${places} (id int NOT NULL PRIMARY KEY, seat int NOT NULL, v ${source.words.text})`,
      );
      if (from === 'postgres') await source.query(`ALTER TABLE ${places} ALTER COLUMN v SET STORAGE EXTERNAL`);
      await source.capture(places);
      const columns = ['id', 'seat', 'v'];
      await source.insert(
        places,
        columns,
        numbers(1, 60).map((i) => [i, i, `large ${i} `.repeat(1000)]),
      );
      const mapping = await stream(places);
      await target.query(`CREATE UNIQUE INDEX seats_${from} ON ${places} (seat)`);
      // The index is the destination's own: known since the table is described again.
      await world.copyAgain(mapping, PATIENCE_S);
      await source.transaction(`UPDATE ${places} SET seat = -seat`, `UPDATE ${places} SET seat = 61 + seat`);
      await source.transaction(
        `UPDATE ${places} SET id = -id WHERE id <= 20`,
        `UPDATE ${places} SET id = 21 + id WHERE id < 0`,
      );
      await source.transaction(
        `DELETE FROM ${places} WHERE id = 30`,
        `INSERT INTO ${places} VALUES (30, 1000, 'again')`,
        `UPDATE ${places} SET seat = 1001 WHERE id = 30`,
        `DELETE FROM ${places} WHERE id = 31`,
      );
      await equal(places);
      await source.query(source.emptying(places));
      await source.insert(
        places,
        columns,
        numbers(1, 20).map((i) => [i, 100 - i, 'new']),
      );
      await equal(places);
      // A row that somebody else put here is replaced, and the rest arrives.
      await target.insert(places, columns, [[503, 503, 'stray']]);
      await source.insert(
        places,
        columns,
        numbers(501, 510).map((i) => [i, i, 'mine']),
      );
      await equal(places);
      expect(await complaints()).to.deep.equal([]);
    });
  });
}

function numbers(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
