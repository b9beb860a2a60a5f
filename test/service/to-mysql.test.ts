/** From PostgreSQL to MySQL or MariaDB, by the service: first rows, changes, copies again. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { createWorld, eventually, type World } from '../support/service.ts';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../support/mysql.ts';
import { casesFor, valueTable, type ValueCase } from '../engines/mysql/values.ts';
import { skip } from '../support/skip.ts';
import { createWorldToMysql, type WorldToMysql } from '../support/mysql-world.ts';

describe('PostgreSQL → MariaDB', function () {
  this.timeout(90_000);
  let world: WorldToMysql;
  before(async function () {
    world = await createWorldToMysql(await requireMysql(this));
    await world.start();
  });
  after(() => world?.close());
  const problemOf = async (mapping: number) => {
    const [row] = await world.control.query<{ error_code: string; error_message: string; error_hint: string }>(
      `SELECT s.error_code, s.error_message, s.error_hint FROM table_mappings m JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1`,
      [mapping],
    );
    if (!row) throw new Error('no state');
    return row;
  };

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
    await world.target.query(`UPDATE orders SET customer = UPPER(customer) WHERE id < 500`);
    await world.target.query(`DELETE FROM orders WHERE id BETWEEN 600 AND 700`);
    await world.target.query(`INSERT INTO orders (id, customer) VALUES (-1, 'stray')`);
    await world.source.query(`UPDATE orders SET note = 'during the copy' WHERE id % 3 = 0`);
    await world.copyAgain(mapping);
    await world.equal('orders');
    expect(await world.control.query('SELECT * FROM error_logs')).to.deep.equal([]);
  });

  it('F20 F21 F23 F24: keys and unique values change places, large values stay, a truncated table fills again', async () => {
    await world.source.query(`CREATE TABLE places (id int PRIMARY KEY, seat int NOT NULL, v text)`);
    await world.source.query(`ALTER TABLE places ALTER COLUMN v SET STORAGE EXTERNAL`);
    await world.source.query(
      `INSERT INTO places SELECT i, i, repeat('large ' || i || ' ', 1000) FROM generate_series(1, 60) i`,
    );
    await world.state(await world.map('places'), 'streaming', 40);
    await world.target.query(`CREATE UNIQUE INDEX seats ON places (seat)`);
    // The index is the destination's own: known since the table is described again.
    await world.copyAgain(await world.idOf('places'));
    await world.source.query(`BEGIN; UPDATE places SET seat = -seat; UPDATE places SET seat = 61 + seat; COMMIT`);
    await world.source.query(
      `BEGIN; UPDATE places SET id = -id WHERE id <= 20; UPDATE places SET id = 21 + id WHERE id < 0; COMMIT`,
    );
    await world.source.query(`BEGIN; DELETE FROM places WHERE id = 30; INSERT INTO places VALUES (30, 1000, 'again');
      UPDATE places SET seat = 1001 WHERE id = 30; DELETE FROM places WHERE id = 31; COMMIT`);
    await world.equal('places');
    await world.source.query(
      `BEGIN; TRUNCATE places; INSERT INTO places SELECT i, 100 - i, 'new' FROM generate_series(1, 20) i; COMMIT`,
    );
    await world.equal('places');
    // A row that somebody else put here is replaced, and the rest arrives.
    await world.target.query(`INSERT INTO places (id, seat, v) VALUES (503, 503, 'stray')`);
    await world.source.query(`INSERT INTO places SELECT i, i, 'mine' FROM generate_series(501, 510) i`);
    await world.equal('places');
    expect(await world.control.query('SELECT * FROM error_logs')).to.deep.equal([]);
  });

  it('F25: keys that differ in case, accents and trailing blanks only', async () => {
    await world.source.query(`CREATE TABLE words (word varchar(40), n int, tail text, PRIMARY KEY (n, word))`);
    await world.source.query(
      `INSERT INTO words VALUES ('a', 1, 'x'), ('A', 1, 'y'), ('ä', 1, ''), ('Ω', 1, NULL), ('a ', 1, 'blank')`,
    );
    await world.state(await world.map('words'), 'streaming', 40);
    await world.source.query(`UPDATE words SET tail = tail || '!' WHERE word = 'a'`);
    await world.source.query(`UPDATE words SET word = 'aA' WHERE word = 'A'`);
    await world.source.query(`UPDATE words SET word = 'a  ' WHERE word = 'a '`);
    await world.source.query(`DELETE FROM words WHERE word = 'ä'`);
    await world.equal('words');
  });

  it('F25 F30 F31 F32 F33: values of all kinds, under a key of text without limit; the table that was made is copied to again', async () => {
    await world.source.query(
      `CREATE TABLE kinds (code text PRIMARY KEY, u uuid, n numeric(38,10), b bigint, r real, d double precision, j json, x xml, t text,
         day date, clock time(6), at timestamp(6), instant timestamptz(6), flag boolean, raw bytea)`,
    );
    const insert = (code: string, t: string) =>
      world.source.query(
        `INSERT INTO kinds VALUES ($1, '01234567-89ab-7cde-8f01-23456789abcd', -1234567890123456789012345678.0123456789, -9223372036854775808,
           3.4028235e38, -0.1, '{ "a" :  1,"a":2 }', '<a>é</a>', $2, '0001-01-01', '24:00:00', '9999-12-31 23:59:59.999999',
           '2037-12-31 23:59:59.000001+00', true, decode('00ff5c0a09', 'hex'))`,
        [code, t],
      );
    await insert('first', 'tab\tline\nback\\slash \\N 😀');
    await world.source.query(`INSERT INTO kinds (code) VALUES ('')`);
    const mapping = await world.map('kinds');
    await world.state(mapping, 'streaming', 40);
    await insert('second', '');
    await world.source.query(`UPDATE kinds SET n = 0.1, t = 'updated', raw = '', flag = false WHERE code = 'first'`);
    await world.source.query(`UPDATE kinds SET code = code || ' ' WHERE code = 'second'`);
    const list = `code, u::text, n::text, b::text, r::text, d::text, j::text, x::text, t, day::text, clock::text, at::text,
      (instant AT TIME ZONE 'UTC')::text AS instant, CASE WHEN flag THEN '1' WHEN NOT flag THEN '0' END AS flag, encode(raw, 'hex') AS raw`;
    const same = () =>
      eventually(async () => {
        const ours = await world.source.query<Record<string, string | null>>(
          `SELECT ${list} FROM kinds ORDER BY code COLLATE "C"`,
        );
        const theirs = await world.target.query(
          `SELECT code, u, n, b, r + 0e0 AS r, d, j, x, t, day, clock, at, instant, flag + 0 AS flag, LOWER(HEX(raw)) AS raw FROM kinds ORDER BY BINARY code`,
        );
        const plain = (row: Readonly<Record<string, string | Buffer | null>>) =>
          Object.fromEntries(
            Object.entries(row).map(([name, value]) => [
              name,
              value === null
                ? null
                : name === 'r'
                  ? Math.fround(Number(value))
                  : String(value)
                      .replace(/(\.\d*?)0+$/, '$1')
                      .replace(/\.$/, ''),
            ]),
          );
        expect(theirs.map(plain)).to.deep.equal(ours.map(plain));
      }, 20_000);
    await same();
    await world.target.query(`DELETE FROM kinds WHERE code = 'first'`);
    await world.copyAgain(mapping);
    await same();
    // Longer than an index holds: the row is refused, not cut.
    await world.source.query(`INSERT INTO kinds (code) VALUES (repeat('k', 800))`);
    await eventually(async () => {
      const failed = await problemOf(mapping);
      expect(failed.error_code).to.equal('ROW_REFUSED');
    }, 20_000);
  });

  it('F45: a trigger stops a mapping with the statement that helps; foreign keys neither refuse nor cascade', async () => {
    await world.source.query(
      `CREATE TABLE guarded (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent int, v text)`,
    );
    await world.source.query(`INSERT INTO guarded (parent, v) SELECT 5, 'v' || i FROM generate_series(1, 30) i`);
    await world.target.query(`CREATE TABLE parents (id int NOT NULL PRIMARY KEY)`);
    await world.target.query(
      `CREATE TABLE guarded (id int NOT NULL AUTO_INCREMENT PRIMARY KEY,
         parent int NULL, v longtext NULL, CONSTRAINT guarded_parent FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE)`,
    );
    await world.target.query(`CREATE TRIGGER touch BEFORE INSERT ON guarded FOR EACH ROW SET NEW.v = 'touched'`);
    const mapping = await world.map('guarded');
    await world.state(mapping, 'failed', 40);
    const failed = await problemOf(mapping);
    expect(failed.error_code).to.equal('DESTINATION_GUARDED');
    expect(failed.error_message).to.include('touch');
    expect(await world.target.query('SELECT id FROM guarded')).to.deep.equal([]);
    await world.target.query(failed.error_hint);
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

  it('a table that takes no part in transactions stops its mapping, with the statement that helps', async () => {
    await world.source.query(`CREATE TABLE heap (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO heap VALUES (1, 'a')`);
    await world.target.query(`CREATE TABLE heap (id int NOT NULL PRIMARY KEY, v longtext NULL) ENGINE = MyISAM`);
    const mapping = await world.map('heap');
    await world.state(mapping, 'failed', 40);
    const failed = await problemOf(mapping);
    expect(failed.error_code).to.equal('CAPABILITY_MISSING');
    await world.target.query(failed.error_hint);
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming', 40);
    await world.equal('heap');
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
      const rows = await world.target.query('SELECT COUNT(*) AS n, MIN(n) AS least FROM limited');
      expect(rows).to.deep.equal([{ n: '21', least: '22' }]);
    }, 30_000);
    const letters = await world.control.query('SELECT operation, error_code FROM dead_letters WHERE mapping_id = $1', [
      mapping,
    ]);
    expect(letters).to.deep.equal([{ operation: 'upsert', error_code: 'ROW_REFUSED' }]);
    await world.source.query('UPDATE limited SET n = 1 WHERE id = 21');
    await world.equal('limited');
  });

  it('F26: a column is added in place', async () => {
    await world.source.query(`CREATE TABLE growing (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO growing SELECT i, 'v' FROM generate_series(1, 20) i`);
    await world.state(await world.map('growing'), 'streaming', 40);
    await world.source.query(`ALTER TABLE growing ADD COLUMN more numeric(10,3)`);
    await world.source.query(`UPDATE growing SET more = id + 0.125 WHERE id % 2 = 0`);
    await eventually(async () => {
      const rows = await world.target.query(`SHOW COLUMNS FROM growing LIKE 'more'`);
      expect(rows).to.have.length(1);
    }, 20_000);
    await world.equal('growing');
  });

  it('a paused mapping keeps its changes and gets them in order', async () => {
    const mapping = await world.idOf('orders');
    await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
    await eventually(async () => {
      const rows = await world.target.query(`SELECT backlog FROM sluice_generations WHERE backlog = 'hold'`);
      expect(rows).to.have.length(1);
    }, 20_000);
    await world.source.query(`UPDATE orders SET note = 'while paused' WHERE id % 5 = 0`);
    await world.source.query(`UPDATE orders SET id = -id WHERE id % 5 = 1`);
    await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming', 40);
    await world.equal('orders');
  });

  it('F49: a statement of a reader sees whole source transactions, across tables', async () => {
    await world.source.query(`CREATE TABLE one_side (id int PRIMARY KEY, amount int NOT NULL)`);
    await world.source.query(`CREATE TABLE other_side (id int PRIMARY KEY, amount int NOT NULL)`);
    await world.source.query(`INSERT INTO one_side SELECT i, 100 FROM generate_series(1, 10) i`);
    await world.source.query(`INSERT INTO other_side SELECT i, 100 FROM generate_series(1, 10) i`);
    for (const table of ['one_side', 'other_side']) await world.state(await world.map(table), 'streaming', 40);
    let stop = false;
    const sums = new Set<unknown>();
    const reading = (async () => {
      while (!stop) {
        const [row] = await world.target.query(
          `SELECT (SELECT SUM(amount) FROM one_side) + (SELECT SUM(amount) FROM other_side) AS total`,
        );
        sums.add(row?.['total']);
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
});

describe('MariaDB → MariaDB', function () {
  this.timeout(90_000);
  let world: World;
  let source: MysqlTestDatabase;
  let target: MysqlTestDatabase;
  before(async function () {
    const server = await requireMysql(this);
    if (!server.isMariaDb) skip(this, 'changes of MySQL itself are not followed yet');
    [source, target] = [await createMysqlDatabase(server, 'src'), await createMysqlDatabase(server, 'dst')];
    world = await createWorld();
    await world.control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('mariadb', $1)`, [
      source.url,
    ]);
    await world.control.query(
      `INSERT INTO destination_servers (server_name, connection_string) VALUES ('target', $1)`,
      [target.url],
    );
    await world.start();
  });
  after(async () => {
    await world?.close();
    await source?.drop();
    await target?.drop();
  });
  const map = (table: string) => world.map(table, { server_id: 2, dest_server_id: 1, dest_database: target.name });
  const equal = (table: string) =>
    eventually(async () => {
      const rows = (database: MysqlTestDatabase) => database.query(`SELECT * FROM ${table} ORDER BY id`);
      expect(await rows(target)).to.deep.equal(await rows(source));
    }, 20_000);

  it('F30 F31 F32 F33 F34: every type arrives as it is, by copy and by change, in a table made like its source', async () => {
    const made = valueTable(casesFor(true).filter(isFollowed), 'all_values');
    await source.query(made.create);
    await source.query(made.insert);
    const mapping = await map('all_values');
    await world.state(mapping, 'streaming', 40);
    await equal('all_values');
    await source.query('UPDATE all_values SET id = id + 100');
    await source.query(made.insert);
    await source.query('DELETE FROM all_values WHERE id = 101');
    await equal('all_values');
  });

  it('F24 F27: defaults, generated columns, unique and other indexes come with the table', async () => {
    await source.query(
      `CREATE TABLE rich (id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, seat int NOT NULL, name varchar(40) COLLATE utf8mb4_unicode_ci NOT NULL DEFAULT 'it''s',
         doubled int AS (seat * 2) STORED, kind enum('a','b') DEFAULT 'b', at timestamp(3) NOT NULL DEFAULT current_timestamp(3),
         UNIQUE KEY seats (seat), KEY names (name(10), kind))`,
    );
    await source.query(`INSERT INTO rich (seat, name) SELECT seq, CONCAT('n', seq) FROM seq_1_to_50`);
    await world.state(await map('rich'), 'streaming', 40);
    await equal('rich');
    const [described] = await target.query('SHOW CREATE TABLE rich');
    const sql = String(described?.['Create Table']);
    for (const part of [
      'UNIQUE KEY `seats` (`seat`)',
      'KEY `names` (`name`(10),`kind`)',
      "DEFAULT 'it''s'",
      'STORED',
      'utf8mb4_unicode_ci',
    ])
      expect(sql).to.include(part);
    await source.query('UPDATE rich SET seat = -seat');
    await source.query('UPDATE rich SET seat = 51 + seat');
    await equal('rich');
    expect(await world.control.query('SELECT error_message FROM error_logs')).to.deep.equal([]);
  });
});

/** MariaDB's own types are bytes in its log. */
function isFollowed({ type }: ValueCase): boolean {
  return !/^(uuid|inet)/.test(type);
}
