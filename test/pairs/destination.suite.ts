/** What every destination is held to besides, from PostgreSQL: keys of text, guards, rows that are refused, a column that comes, readers. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EngineName } from '../support/ends.ts';
import type { findMysql } from '../support/mysql.ts';
import { eventually } from '../support/service.ts';
import { createWorldTo, type TargetWorld } from '../support/target-world.ts';

export interface DestinationUnderTest {
  readonly name: string;
  readonly engine: EngineName;
  readonly mysql?: typeof findMysql;
  /** Keys that differ in blanks at their ends only are two. */
  readonly tellsBlanksApart: boolean;
  /** Makes the tables `parents` and `guarded` (an identity, a foreign key that cascades) and the trigger `touch`. */
  readonly guarded: readonly string[];
  /** The statements of the schema check's hint. */
  remedies(hint: string): Promise<readonly string[]>;
}

export function destinationSuite(under: DestinationUnderTest, more?: (worldOf: () => TargetWorld) => void): void {
  describe(`${under.name} as destination`, function () {
    this.timeout(90_000);
    let world: TargetWorld;
    before(async function () {
      world = await createWorldTo(this, under.engine, {}, under.mysql);
      await world.start();
    });
    after(() => world?.close());

    it('F25: keys that differ in case, accents and trailing blanks only', async () => {
      await world.source.query(`CREATE TABLE words (word varchar(40), n int, tail text, PRIMARY KEY (n, word))`);
      await world.source.query(`INSERT INTO words VALUES ('a', 1, 'x'), ('A', 1, 'y'), ('ä', 1, ''), ('Ω', 1, NULL)`);
      if (under.tellsBlanksApart) await world.source.query(`INSERT INTO words VALUES ('a ', 1, 'blank')`);
      await world.state(await world.map('words'), 'streaming', 40);
      await world.source.query(`UPDATE words SET tail = tail || '!' WHERE word = 'a'`);
      await world.source.query(`UPDATE words SET word = 'aA' WHERE word = 'A'`);
      await world.source.query(`UPDATE words SET word = 'a  ' WHERE word = 'a '`);
      await world.source.query(`DELETE FROM words WHERE word = 'ä'`);
      await world.equal('words');
    });

    it('F45: what guards the table stops its mapping with the statements that help; identity columns take their values', async () => {
      await world.source.query(
        `CREATE TABLE guarded (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent int, v text)`,
      );
      await world.source.query(`INSERT INTO guarded (parent, v) SELECT 5, 'v' || i FROM generate_series(1, 30) i`);
      for (const statement of under.guarded) await world.target.query(statement);
      const mapping = await world.map('guarded');
      await world.state(mapping, 'failed', 40);
      const failed = await world.problem(mapping);
      expect(failed.error_code).to.equal('DESTINATION_GUARDED');
      expect(failed.error_message).to.include('touch');
      expect(await world.target.query('SELECT id FROM guarded')).to.deep.equal([]);
      for (const statement of await under.remedies(failed.error_hint ?? '')) await world.target.query(statement);
      await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
      await world.state(mapping, 'streaming', 40);
      await world.source
        .query(`BEGIN; UPDATE guarded SET v = v || '!' WHERE id % 3 = 0; DELETE FROM guarded WHERE id % 5 = 0;
        INSERT INTO guarded (parent, v) VALUES (7, 'new'); COMMIT`);
      await world.equal('guarded');
      await world.target.query('DELETE FROM guarded WHERE id = 2');
      await world.copyAgain(mapping);
      await world.equal('guarded');
    });

    it('F36: a row that a constraint refuses is left out as far as allowed, the others of its transaction arrive', async () => {
      await world.source.query(`CREATE TABLE limited (id int PRIMARY KEY, n int NOT NULL)`);
      await world.source.query(`INSERT INTO limited SELECT i, i FROM generate_series(1, 20) i`);
      const mapping = await world.map('limited', { max_failed_rows: 1 });
      await world.state(mapping, 'streaming', 40);
      await world.target.query(`ALTER TABLE limited ADD CONSTRAINT at_most CHECK (n < 100)`);
      await world.source.query(
        `BEGIN; UPDATE limited SET n = n + 50; INSERT INTO limited VALUES (21, 500), (22, 22); COMMIT`,
      );
      await eventually(async () => {
        const [row] = await world.target.query('SELECT COUNT(*) AS n, MIN(n) AS least FROM limited');
        expect([Number(row?.['n']), Number(row?.['least'])]).to.deep.equal([21, 22]);
      }, 30_000);
      const letters = await world.control.query(
        'SELECT operation, error_code FROM dead_letters WHERE mapping_id = $1',
        [mapping],
      );
      expect(letters).to.deep.equal([{ operation: 'upsert', error_code: 'ROW_REFUSED' }]);
      await world.source.query('UPDATE limited SET n = 1 WHERE id = 21');
      await world.equal('limited');
    });

    it('F22 F36: a large value that changed while its row was left out comes with the change that makes the row fit', async () => {
      await world.source.query(`CREATE TABLE outdated (id int PRIMARY KEY, at timestamp(3), large text)`);
      await world.source.query(`ALTER TABLE outdated ALTER large SET STORAGE EXTERNAL`);
      await world.source.query(
        `INSERT INTO outdated SELECT i, CASE WHEN i > 2 THEN timestamp '2024-02-03' ELSE 'infinity' END, repeat('a', 3000) FROM generate_series(1, 9) i`,
      );
      const mapping = await world.map('outdated', { max_failed_rows: 5 });
      await world.state(mapping, 'streaming', 40);
      await world.source.query(`UPDATE outdated SET at = 'infinity', large = repeat('b', 3000) WHERE id IN (3, 4)`);
      await eventually(async () => {
        const kept = await world.control.query('SELECT DISTINCT key_text FROM dead_letters WHERE mapping_id = $1', [
          mapping,
        ]);
        expect(kept.length).to.equal(4);
      }, 20_000);
      // None of these carries `large`: 1 and 2 are not there, 3 and 4 are as they were before.
      await world.source.query(`UPDATE outdated SET at = '2024-02-04' WHERE id IN (1, 3)`);
      await world.source.query(`UPDATE outdated SET at = '2024-02-05', id = id + 100 WHERE id IN (2, 4)`);
      await world.equal('outdated');
      await world.state(mapping, 'streaming');
      expect(await world.target.query(`SELECT key_hash FROM ${world.target.home('left_out')}`)).to.deep.equal([]);
    });

    for (const cdc of process.env['SLUICE_TEST_LONG'] ? [1, 0] : [1])
      it(`F36: a value that has no place here costs a copy its row, and no other, as far as allowed (cdc_enabled ${cdc})`, async () => {
        const table = `endless_${cdc}`;
        await world.source.query(`CREATE TABLE ${table} (id int PRIMARY KEY, at timestamp(3), v text)`);
        await world.source.query(
          `INSERT INTO ${table} SELECT i, '2024-02-03', 'v' || i FROM generate_series(1, 2000) i`,
        );
        await world.source.query(`UPDATE ${table} SET at = 'infinity' WHERE id IN (3, 1999)`);
        const mapping = await world.map(table, { cdc_enabled: cdc });
        await world.state(mapping, 'failed', 40);
        expect((await world.problem(mapping)).error_code).to.equal('ROW_REFUSED');
        await world.control.query('UPDATE table_mappings SET max_failed_rows = 2 WHERE mapping_id = $1', [mapping]);
        await world.state(mapping, cdc === 1 ? 'streaming' : 'idle', 40);
        const [loaded] = await world.target.query(`SELECT COUNT(*) AS n FROM ${table}`);
        expect(Number(loaded?.['n'])).to.equal(1998);
        await world.source.query(`DELETE FROM ${table} WHERE id IN (3, 1999)`);
        await world.equal(table);
        const letters = await world.control.query('SELECT DISTINCT key_text FROM dead_letters WHERE mapping_id = $1', [
          mapping,
        ]);
        expect(letters.map((row) => row['key_text']).sort()).to.deep.equal(['["1999"]', '["3"]']);
      });

    it('F26 F28: a column is added in place; one with a default reaches all rows by a copy', async () => {
      await world.source.query(`CREATE TABLE growing (id int PRIMARY KEY, v text)`);
      await world.source.query(`INSERT INTO growing SELECT i, 'v' FROM generate_series(1, 20) i`);
      await world.state(await world.map('growing'), 'streaming', 40);
      await world.source.query(`ALTER TABLE growing ADD COLUMN more numeric(10,3)`);
      await world.source.query(`UPDATE growing SET more = id + 0.125 WHERE id % 2 = 0`);
      await eventually(async () => {
        expect((await world.target.rows('growing')).columns).to.deep.equal(['id', 'v', 'more']);
      }, 20_000);
      await world.equal('growing');
      await world.source.query(`ALTER TABLE growing ADD COLUMN filled int DEFAULT 7`);
      await world.source.query(`UPDATE growing SET filled = 8 WHERE id = 1`);
      await world.equal('growing', 40_000);
      expect((await world.target.query('SELECT id FROM growing WHERE filled = 7')).length).to.equal(19);
    });

    it('F49: a statement of a reader sees whole source transactions, across tables', async () => {
      await world.source.query(`CREATE TABLE one_side (id int PRIMARY KEY, amount int NOT NULL)`);
      await world.source.query(`CREATE TABLE other_side (id int PRIMARY KEY, amount int NOT NULL)`);
      await world.source.query(`INSERT INTO one_side SELECT i, 100 FROM generate_series(1, 10) i`);
      await world.source.query(`INSERT INTO other_side SELECT i, 100 FROM generate_series(1, 10) i`);
      for (const table of ['one_side', 'other_side']) await world.state(await world.map(table), 'streaming', 40);
      let stop = false;
      const sums = new Set<string>();
      const reading = (async () => {
        while (!stop) {
          const [row] = await world.target.query(
            `SELECT (SELECT SUM(amount) FROM one_side) + (SELECT SUM(amount) FROM other_side) AS total`,
          );
          sums.add(String(row?.['total']));
        }
      })();
      for (let i = 0; i < 40; i++) {
        await world.source.query(`BEGIN; UPDATE one_side SET amount = amount - ${i} WHERE id = ${(i % 10) + 1};
          UPDATE other_side SET amount = amount + ${i} WHERE id = ${((i * 3) % 10) + 1}; COMMIT`);
        await sleep(20);
      }
      await world.equal('one_side');
      await world.equal('other_side');
      stop = true;
      await reading;
      expect([...sums]).to.deep.equal(['2000']);
    });

    more?.(() => world);
  });
}
