/** Tables that only MariaDB or MySQL has, from and to the same. */
import { expect } from 'chai';
import { createSameEnginePair, MARIADB, type SameEnginePair } from '../support/same-engine-pair.ts';

describe('MariaDB to MariaDB: tables of its own', function () {
  this.timeout(60_000);
  let pair: SameEnginePair;
  before(async function () {
    pair = await createSameEnginePair(this, MARIADB);
    await pair.world.start();
  });
  after(() => pair?.close());

  it('F20 F21: of a system-versioned table the rows that it has, whatever is logged of those that it had', async () => {
    await pair.from.query('CREATE TABLE versioned (id int PRIMARY KEY, v text) WITH SYSTEM VERSIONING');
    await pair.from.query("INSERT INTO versioned VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')");
    await pair.from.query("UPDATE versioned SET v = 'before the copy' WHERE id = 1");
    await pair.stream('versioned');
    await pair.from.query("UPDATE versioned SET v = 'x' WHERE id = 1");
    await pair.from.query('DELETE FROM versioned WHERE id = 2');
    await pair.from.query('UPDATE versioned SET id = 9 WHERE id = 3');
    await pair.from.query("REPLACE INTO versioned VALUES (4, 'replaced'), (5, 'new')");
    await pair.equal('versioned');
    // Of every row that there is, some former row is deleted.
    await pair.from.query("UPDATE versioned SET v = CONCAT(v, '!')");
    await pair.from.query('DELETE HISTORY FROM versioned');
    await pair.from.query("INSERT INTO versioned VALUES (6, 'last')");
    await pair.equal('versioned');
    // Its columns are called as those that a versioned table has, and shown.
    await pair.from.query(
      'CREATE TABLE ordinary (id int PRIMARY KEY, row_start timestamp(6) NOT NULL, row_end timestamp(6) NOT NULL)',
    );
    await pair.from.query("INSERT INTO ordinary VALUES (1, '2020-01-01', '2021-01-01')");
    await pair.stream('ordinary');
    await pair.from.query("INSERT INTO ordinary VALUES (2, '2020-01-01', '2021-01-01')");
    await pair.from.query("UPDATE ordinary SET row_end = '2022-01-01' WHERE id = 1");
    await pair.equal('ordinary');
  });

  it('F22 F32: a value in a character set that is not read from the log is fetched when it changes, not left as it was', async () => {
    await pair.from.query(
      'CREATE TABLE encoded (id int PRIMARY KEY, s varchar(20) CHARACTER SET sjis, c text CHARACTER SET gbk, n int)',
    );
    await pair.from.query("INSERT INTO encoded VALUES (1, 'ソ', 'привет', 0), (2, '能', NULL, 0), (3, 'ｱ', 'мир', 0)");
    const mapping = await pair.stream('encoded');
    const enable = (flag: number) =>
      pair.world.control.query('UPDATE table_mappings SET is_enabled = $2 WHERE mapping_id = $1', [mapping, flag]);
    const change = async (round: number) => {
      await pair.from.query(`UPDATE encoded SET c = 'пока ${round}', n = n + 1 WHERE id = 1`);
      await pair.from.query(`UPDATE encoded SET id = id + 10, s = '表 ${round}' WHERE id % 10 = 2`);
      await pair.from.query(`UPDATE encoded SET c = NULL, s = NULL WHERE id = 3`);
      await pair.from.query(`INSERT INTO encoded VALUES (${100 + round}, 'ﾎﾞ', 'новый', 1)`);
      await pair.from.query(`UPDATE encoded SET c = 'другой' WHERE id = ${100 + round}`);
      // NULL is read: what comes after it is not NULL, though the two come together.
      await pair.from.query(
        `BEGIN NOT ATOMIC START TRANSACTION; INSERT INTO encoded VALUES (${200 + round}, NULL, NULL, 0);
          UPDATE encoded SET c = 'позже', s = '能' WHERE id = ${200 + round}; COMMIT; END`,
      );
    };
    await change(1);
    await pair.equal('encoded');
    // Through the backlog of a mapping that is held.
    await enable(0);
    await pair.state(mapping, 'paused');
    await change(2);
    await enable(1);
    await pair.state(mapping, 'streaming');
    await pair.equal('encoded');
  });

  it('F25 F34: keys in character sets of one byte are read from the log, and labels in any; a key in another set is refused', async () => {
    await pair.from.query('CREATE TABLE keyed (k varchar(20) CHARACTER SET cp1251 PRIMARY KEY, v int)');
    await pair.from.query("INSERT INTO keyed VALUES ('привет', 1), ('abc', 2)");
    await pair.from.query(
      `CREATE TABLE labelled (id int PRIMARY KEY, e enum('да', 'нет', '') CHARACTER SET cp1251, s set('能', 'q') CHARACTER SET sjis, o enum('x') CHARACTER SET gbk)`,
    );
    await pair.from.query("INSERT INTO labelled VALUES (1, 'да', 'q', 'x'), (2, 'да', '能', NULL)");
    await pair.from.query('CREATE TABLE unread (k varchar(20) CHARACTER SET sjis PRIMARY KEY, v int)');
    await pair.stream('keyed');
    await pair.stream('labelled');
    await pair.from.query('UPDATE keyed SET v = v + 10');
    await pair.from.query("INSERT INTO keyed VALUES ('мир', 3)");
    await pair.from.query("UPDATE keyed SET k = 'мир!' WHERE k = 'мир'");
    await pair.from.query("DELETE FROM keyed WHERE k = 'привет'");
    await pair.from.query("UPDATE labelled SET e = 'нет', o = 'x'");
    await pair.from.query("UPDATE labelled SET s = '能,q' WHERE id = 1");
    await pair.equal('keyed');
    await pair.equal('labelled');
    const refused = await pair.map('unread');
    await pair.state(refused, 'failed');
    expect(await pair.errorCode(refused)).to.equal('CAPABILITY_MISSING');
    // By the key that the mapping names, whichever others there are.
    const key = 'varchar(20) CHARACTER SET sjis NOT NULL';
    await pair.from.query(`CREATE TABLE unread_too (id int PRIMARY KEY, k ${key} UNIQUE, v int)`);
    const refusedToo = await pair.map('unread_too', { primary_key_column: 'k' });
    await pair.state(refusedToo, 'failed');
    expect(await pair.errorCode(refusedToo)).to.equal('CAPABILITY_MISSING');
    await pair.from.query(`CREATE TABLE beside (id int NOT NULL UNIQUE, k ${key} PRIMARY KEY, v int)`);
    await pair.from.query("INSERT INTO beside VALUES (1, '能', 1)");
    await pair.stream('beside', { primary_key_column: 'id' });
    await pair.from.query("UPDATE beside SET k = '表'");
    await pair.equal('beside');
  });

  it('F21: by an index that the server ignores rows are found as well', async () => {
    await pair.from.query(
      'CREATE TABLE hidden (id int PRIMARY KEY, k int NOT NULL, c text CHARACTER SET gbk, UNIQUE KEY by_k (k) IGNORED)',
    );
    await pair.from.query("INSERT INTO hidden VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')");
    const mapping = await pair.stream('hidden', { primary_key_column: 'k' });
    await pair.from.query("UPDATE hidden SET c = 'x' WHERE id = 3");
    await pair.equal('hidden');
    // Which the service does not know yet.
    await pair.into.query('ALTER TABLE hidden ALTER INDEX sluice_key IGNORED');
    await pair.from.query("UPDATE hidden SET c = 'привет' WHERE id = 1");
    await pair.from.query('DELETE FROM hidden WHERE id = 2');
    await pair.equal('hidden');
    await pair.copyAgain(mapping);
    await pair.equal('hidden');
  });

  it('F21 F43: rows that came a moment ago are changed by their key, however few the server believes that there are', async () => {
    const columns = 'id int PRIMARY KEY, v varchar(50), u int UNIQUE';
    await pair.from.query(`CREATE TABLE young (${columns})`);
    await pair.from.query("INSERT INTO young VALUES (0, 'x', 0)");
    // As the server has it for seconds after a large change.
    await pair.into.query(`CREATE TABLE young (${columns}) STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0`);
    const mapping = await pair.stream('young');
    await pair.from.query(`INSERT INTO young SELECT i, 'x', i FROM ${MARIADB.numbers(20_000)}`);
    await pair.equal('young');
    const begun = performance.now();
    await pair.from.query("UPDATE young SET v = 'y', u = -u - 1");
    await pair.from.query('DELETE FROM young WHERE id > 10000');
    await pair.equal('young');
    await pair.from.query("UPDATE young SET v = 'z' WHERE id % 2 = 0");
    await pair.copyAgain(mapping);
    await pair.equal('young');
    // Row by row it takes minutes.
    expect(performance.now() - begun).to.be.below(20_000);
  });
});
