/** MariaDB as destination, and in the long run MySQL itself. */
import { expect } from 'chai';
import { findMysqlItself } from '../support/mysql.ts';
import { eventually } from '../support/service.ts';
import { destinationSuite, type DestinationUnderTest } from './destination.suite.ts';

const MYSQL: Omit<DestinationUnderTest, 'name'> = {
  engine: 'mysql',
  tellsBlanksApart: true,
  guarded: [
    'CREATE TABLE parents (id int NOT NULL PRIMARY KEY)',
    `CREATE TABLE guarded (id int NOT NULL AUTO_INCREMENT PRIMARY KEY,
         parent int NULL, v longtext NULL, CONSTRAINT guarded_parent FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE)`,
    `CREATE TRIGGER touch BEFORE INSERT ON guarded FOR EACH ROW SET NEW.v = 'touched'`,
  ],
  // Foreign keys neither refuse nor cascade in the service's sessions.
  remedies: (hint) => Promise.resolve([hint]),
};

if (process.env['SLUICE_TEST_LONG']) destinationSuite({ ...MYSQL, name: 'MySQL', mysql: findMysqlItself });

destinationSuite({ ...MYSQL, name: 'MariaDB' }, (world) => {
  it('F25 F30 F31 F32 F33: values of all kinds, under a key of text without limit; the table that was made is copied to again', async () => {
    await world().source.query(
      `CREATE TABLE kinds (code text PRIMARY KEY, u uuid, n numeric(38,10), b bigint, r real, d double precision, j json, x xml, t text,
         day date, clock time(6), at timestamp(6), instant timestamptz(6), flag boolean, raw bytea)`,
    );
    const insert = (code: string, t: string) =>
      world().source.query(
        `INSERT INTO kinds VALUES ($1, '01234567-89ab-7cde-8f01-23456789abcd', -1234567890123456789012345678.0123456789, -9223372036854775808,
           3.4028235e38, -0.1, '{ "a" :  1,"a":2 }', '<a>é</a>', $2, '0001-01-01', '24:00:00', '9999-12-31 23:59:59.999999',
           '2037-12-31 23:59:59.000001+00', true, decode('00ff5c0a09', 'hex'))`,
        [code, t],
      );
    await insert('first', 'tab\tline\nback\\slash \\N 😀');
    await world().source.query(`INSERT INTO kinds (code) VALUES ('')`);
    const mapping = await world().map('kinds');
    await world().state(mapping, 'streaming', 40);
    await insert('second', '');
    await world().source.query(`UPDATE kinds SET n = 0.1, t = 'updated', raw = '', flag = false WHERE code = 'first'`);
    await world().source.query(`UPDATE kinds SET code = code || ' ' WHERE code = 'second'`);
    const list = `code, u::text, n::text, b::text, r::text, d::text, j::text, x::text, t, day::text, clock::text, at::text,
      (instant AT TIME ZONE 'UTC')::text AS instant, CASE WHEN flag THEN '1' WHEN NOT flag THEN '0' END AS flag, encode(raw, 'hex') AS raw`;
    const same = () =>
      eventually(async () => {
        const ours = await world().source.query<Record<string, string | null>>(
          `SELECT ${list} FROM kinds ORDER BY code COLLATE "C"`,
        );
        const theirs = await world().target.query(
          `SELECT code, u, n, b, r + 0e0 AS r, d, j, x, t, day, clock, at, instant, flag + 0 AS flag, LOWER(HEX(raw)) AS raw FROM kinds ORDER BY BINARY code`,
        );
        const plain = (row: Readonly<Record<string, unknown>>) =>
          Object.fromEntries(
            Object.entries(row).map(([name, value]) => [
              name,
              value === null
                ? null
                : name === 'r'
                  ? Math.fround(Number(value))
                  : (value as string | Buffer)
                      .toString()
                      .replace(/(\.\d*?)0+$/, '$1')
                      .replace(/\.$/, ''),
            ]),
          );
        expect(theirs.map(plain)).to.deep.equal(ours.map(plain));
      }, 20_000);
    await same();
    await world().target.query(`DELETE FROM kinds WHERE code = 'first'`);
    await world().copyAgain(mapping);
    await same();
    // Longer than an index holds: the row is refused, not cut.
    await world().source.query(`INSERT INTO kinds (code) VALUES (repeat('k', 800))`);
    await eventually(async () => {
      const failed = await world().problem(mapping);
      expect(failed.error_code).to.equal('ROW_REFUSED');
    }, 20_000);
  });

  it('F36: a table that takes no part in transactions stops its mapping, with the statement that helps', async () => {
    await world().source.query(`CREATE TABLE heap (id int PRIMARY KEY, v text)`);
    await world().source.query(`INSERT INTO heap VALUES (1, 'a')`);
    await world().target.query(`CREATE TABLE heap (id int NOT NULL PRIMARY KEY, v longtext NULL) ENGINE = MyISAM`);
    const mapping = await world().map('heap');
    await world().state(mapping, 'failed', 40);
    const failed = await world().problem(mapping);
    expect(failed.error_code).to.equal('CAPABILITY_MISSING');
    await world().target.query(failed.error_hint ?? '');
    await world().control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await world().state(mapping, 'streaming', 40);
    await world().equal('heap');
  });
});
