/** Tables that are made for a mapping: what of the source's declaration comes with them, and what is told of the rest. */
import { expect } from 'chai';
import { ENGINES, TITLES, type EngineName } from '../support/ends.ts';
import type { PairsWorld } from '../support/pairs-world.ts';
import { MARIADB } from '../support/same-engine-pair.ts';
import { skip } from '../support/skip.ts';

/** In the words of each engine: a flag that is set, the present time, a column that numbers its rows. */
const WORDS: Readonly<Record<EngineName, { flag: string; now: string; numbered: string }>> = {
  postgres: {
    flag: 'boolean DEFAULT true',
    now: 'timestamp(3) DEFAULT now()',
    numbered: 'int GENERATED ALWAYS AS IDENTITY',
  },
  sqlserver: {
    flag: 'bit DEFAULT 1',
    now: 'datetime2(3) DEFAULT SYSDATETIME()',
    numbered: 'int IDENTITY(1, 1) NOT NULL',
  },
  mysql: {
    flag: "bit(1) DEFAULT b'1'",
    now: 'datetime(3) DEFAULT CURRENT_TIMESTAMP(3)',
    numbered: 'int NOT NULL AUTO_INCREMENT',
  },
};

export function createdTablesSuite(worldOf: () => PairsWorld): void {
  describe('created tables', function () {
    this.timeout(180_000);
    let world: PairsWorld;
    before(() => {
      world = worldOf();
    });

    for (const from of ENGINES)
      for (const into of ENGINES)
        it(`F35: ${TITLES[from]} → ${TITLES[into]}: keys, nullability, defaults, numbering and indexes come with the table`, async function () {
          const missing = world.missing(from) ?? world.missing(into);
          if (missing !== null) skip(this, missing);
          const [source, target] = [world.from(from), world.into(into)];
          const table = `made_${from}_${into}`;
          await source.query(
            `CREATE TABLE ${table} (id ${WORDS[from].numbered}, tenant int NOT NULL, code varchar(20) DEFAULT 'it''s' NOT NULL, n int DEFAULT -7 NOT NULL,
             price decimal(10,2) DEFAULT 1.50, flag ${WORDS[from].flag}, at ${WORDS[from].now}, note ${source.words.text} NULL, PRIMARY KEY (id))`,
          );
          await source.query(`CREATE UNIQUE INDEX ${table}_seat ON ${table} (tenant, n)`);
          await source.query(`CREATE INDEX ${table}_code ON ${table} (code, tenant)`);
          await source.capture(table);
          await source.query(`INSERT INTO ${table} (tenant, n, note) VALUES (1, 1, '')`);
          await source.query(`INSERT INTO ${table} (tenant, code, price) VALUES (1, '', NULL)`);
          await world.state(await world.mapPair(from, into, table), 'streaming', 60);
          await world.equalPair(from, into, table);
          const made = await target.describe(table);
          const here = await source.describe(table);
          const columns = ({ columns: list }: typeof made) =>
            list.map(({ name, nullable, identity }) => ({ name, nullable, isNumbered: identity !== null }));
          expect(columns(made)).to.deep.equal(columns(here));
          expect(made.keys.filter(({ primary }) => primary).map((key) => key.columns)).to.deep.equal([['id']]);
          expect(made.keys.filter(({ primary }) => !primary).map((key) => key.columns)).to.deep.equal([
            ['tenant', 'n'],
          ]);
          expect(made.indexes.map((index) => index.columns)).to.deep.equal([['code', 'tenant']]);
          // A row that a person puts there gets what it would get at the source. F35: a NULL that is written stays one.
          const own = `INSERT INTO ${table} (id, tenant) VALUES (100, 2)`;
          await target.query(
            into === 'sqlserver' ? `SET IDENTITY_INSERT ${table} ON; ${own}; SET IDENTITY_INSERT ${table} OFF` : own,
          );
          const [row] = await target.query(`SELECT code, n, price, at FROM ${table} WHERE tenant = 2`);
          expect([row?.['code'], Number(row?.['n']), Number(row?.['price'])]).to.deep.equal(["it's", -7, 1.5]);
          expect(row?.['at']).to.not.equal(null);
          const [flags] = await target.query(
            `SELECT COUNT(*) AS n FROM ${table} WHERE flag = ${into === 'postgres' ? 'true' : '1'}`,
          );
          expect(Number(flags?.['n'])).to.equal(3);
        });

    it('what does not translate is told of by the schema check', async function () {
      if (world.missing('mysql') !== null) skip(this, world.missing('mysql') ?? '');
      await world.source.query(
        `CREATE TABLE odd (id int PRIMARY KEY, code text UNIQUE NOT NULL, n int, upper_code text GENERATED ALWAYS AS (upper(code)) STORED,
         at timestamptz DEFAULT now() - interval '1 day', parent int REFERENCES odd (id))`,
      );
      await world.source.query(
        `CREATE INDEX odd_lower ON odd (lower(code)); CREATE INDEX odd_some ON odd (n) WHERE n > 0`,
      );
      const mapping = await world.mapPair('postgres', 'mysql', 'odd');
      await world.state(mapping, 'streaming', 60);
      const rows = await world.control.query<{ log_message: string }>(
        `SELECT log_message FROM sync_logs WHERE mapping_id = $1 AND log_message LIKE '%without%'`,
        [mapping],
      );
      const told = rows.map((row) => row.log_message).join('; ');
      for (const what of ['upper_code', 'column at', 'odd_lower', 'odd_some', 'odd_code_key', 'odd_parent_fkey'])
        expect(told).to.include(what);
    });

    richTableTest(worldOf, TITLES.mysql);
  });
}

/** Of MariaDB or of MySQL, as `name` says. */
export function richTableTest(worldOf: () => PairsWorld, name: string): void {
  it(`F24 F27: ${name} → ${name}: defaults, generated columns, unique and other indexes come with the table`, async function () {
    const world = worldOf();
    const missing = world.missing('mysql');
    if (missing !== null) skip(this, missing);
    await world.from('mysql').query(
      `CREATE TABLE rich (id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, seat int NOT NULL, name varchar(40) COLLATE utf8mb4_unicode_ci NOT NULL DEFAULT 'it''s',
       doubled int AS (seat * 2) STORED, kind enum('a','b') DEFAULT 'b', at timestamp(3) NOT NULL DEFAULT current_timestamp(3),
       UNIQUE KEY seats (seat), KEY names (name(10), kind))`,
    );
    await world
      .from('mysql')
      .query(`INSERT INTO rich (seat, name) SELECT i, CONCAT('n', i) FROM ${MARIADB.numbers(50)}`);
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
      expect(sql, sql).to.include(part);
    await world.from('mysql').query('UPDATE rich SET seat = -seat');
    await world.from('mysql').query('UPDATE rich SET seat = 51 + seat');
    await world.equalPair('mysql', 'mysql', 'rich');
    expect(await world.control.query('SELECT error_message FROM error_logs')).to.deep.equal([]);
  });
}
