/** What single changes mean: keys, repeated changes of one key, values that are not sent, TRUNCATE, unique columns. */
import { expect } from 'chai';
import type pg from 'pg';
import { createWorld, equal, eventually, type TestService, type World } from '../support/service.ts';

const LARGE = (seed: string) => `(SELECT string_agg(md5(concat(${seed}, '-', g)), '') FROM generate_series(1, 200) g)`;

describe('changes of rows', function () {
  this.timeout(60_000);
  let world: World;
  let service: TestService;
  let client: pg.Client;

  beforeEach(async () => {
    // Small batches: a transaction of a few rows is already kept in pieces.
    world = await createWorld({ batch_max_bytes: 64 * 1024 });
    client = await world.source.connect();
    service = await world.start();
  });
  afterEach(() => world.close());

  const together = (...statements: string[]) => client.query(['BEGIN', ...statements, 'COMMIT'].join(';\n'));
  /** The service does not see what happens in `work` piecemeal, but as one backlog. */
  const unseen = async (work: () => Promise<unknown>) => {
    await service.stop();
    await work();
    service = await world.start();
  };
  const recopy = (mapping: number) =>
    world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
  const recopied = (mapping: number) =>
    eventually(async () => {
      const [row] = await world.control.query(
        `SELECT m.is_full_sync, s.error_message FROM table_mappings m JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1`,
        [mapping],
      );
      if (row?.['is_full_sync'] !== 0) throw new Error(`still copying: ${JSON.stringify(row)}`);
    }, 20_000);

  it('F20: a row changes its key; two rows swap keys in one transaction; with composite keys and back again', async () => {
    await client.query(`CREATE TABLE t (b text, a int, v text, body text, PRIMARY KEY (a, b));
      ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
      INSERT INTO t SELECT 'k' || i, i, 'row ' || i, ${LARGE('i')} FROM generate_series(1, 20) i`);
    await world.state(await world.map('t'), 'streaming');
    await client.query(`UPDATE t SET a = 100 WHERE a = 1`);
    await together(
      `UPDATE t SET b = 'x' WHERE a = 2`,
      `UPDATE t SET a = 2, b = 'k2' WHERE a = 3`,
      `UPDATE t SET a = 3, b = 'k3' WHERE b = 'x'`,
    );
    await unseen(async () => {
      await together(
        `UPDATE t SET a = -1 WHERE a = 4`,
        `UPDATE t SET a = 4, b = 'k4' WHERE a = 5`,
        `UPDATE t SET a = 5, b = 'k5' WHERE a = -1`,
      );
      await together(
        `UPDATE t SET a = -1 WHERE a = 4`,
        `UPDATE t SET a = 4, b = 'k4', v = 'back' WHERE a = 5`,
        `UPDATE t SET a = 5, b = 'k5' WHERE a = -1`,
      );
      // A chain: each row takes its neighbour's key.
      await together(`UPDATE t SET a = a + 1000 WHERE a > 5 AND a < 15`, `UPDATE t SET a = a - 999 WHERE a > 1000`);
    });
    await equal(world, 't');
  });

  it('F21: insert, update, delete and insert of one key, within a batch and across batches', async () => {
    await client.query(`CREATE TABLE t (id int PRIMARY KEY, v text)`);
    await world.state(await world.map('t'), 'streaming');
    const steps = [
      `INSERT INTO t VALUES (1, 'a')`,
      `UPDATE t SET v = 'b' WHERE id = 1`,
      `DELETE FROM t WHERE id = 1`,
      `INSERT INTO t VALUES (1, 'c')`,
    ];
    await together(...steps);
    await equal(world, 't');
    await unseen(async () => {
      await client.query('DELETE FROM t');
      for (const step of steps) await client.query(step);
      for (const step of steps.slice(1)) await client.query(step);
      // Each of them larger than a batch.
      await client.query(`INSERT INTO t SELECT g, repeat('x', 5000) FROM generate_series(2, 30) g`);
      await client.query(`DELETE FROM t WHERE id > 10`);
      await client.query(`INSERT INTO t SELECT g, repeat('y', 5000) FROM generate_series(11, 30) g`);
      await together(
        `DELETE FROM t WHERE id > 1`,
        `INSERT INTO t SELECT g, repeat('z', 5000) FROM generate_series(2, 30) g`,
        `DELETE FROM t WHERE id % 2 = 0`,
        `UPDATE t SET id = id + 1 WHERE id > 10`,
      );
    });
    await equal(world, 't');
  });

  it('F22: large values that a change leaves alone stay as they are, also when the key changes', async () => {
    await client.query(`CREATE TABLE t (id int PRIMARY KEY, v text, body text, more bytea);
      ALTER TABLE t ALTER body SET STORAGE EXTERNAL; ALTER TABLE t ALTER more SET STORAGE EXTERNAL;
      INSERT INTO t SELECT i, 'v', ${LARGE('i')}, decode(${LARGE('i')}, 'hex') FROM generate_series(1, 40) i`);
    const mapping = await world.map('t');
    await world.state(mapping, 'streaming');
    const change = async () => {
      await client.query(`UPDATE t SET v = v || '.' WHERE id <= 10`);
      await client.query(`UPDATE t SET id = id + 100 WHERE id BETWEEN 5 AND 10`);
      await together(`UPDATE t SET body = NULL WHERE id = 11`, `UPDATE t SET v = 'after NULL' WHERE id = 11`);
      await together(
        `UPDATE t SET body = ${LARGE("'new'")} WHERE id = 12`,
        `UPDATE t SET id = 212 WHERE id = 12`,
        `UPDATE t SET v = 'thrice' WHERE id = 212`,
      );
      await together(
        `UPDATE t SET id = -13 WHERE id = 13`,
        `UPDATE t SET id = 13 WHERE id = 14`,
        `UPDATE t SET id = 14 WHERE id = -13`,
      );
      await together(
        `DELETE FROM t WHERE id = 15`,
        `UPDATE t SET id = 15 WHERE id = 16`,
        `INSERT INTO t VALUES (16, 'new', 'small', NULL)`,
      );
      await client.query(`UPDATE t SET id = id - 100 WHERE id BETWEEN 105 AND 110`);
      await client.query(`UPDATE t SET id = 12 WHERE id = 212`);
    };
    await change();
    await equal(world, 't');
    await unseen(change);
    await equal(world, 't');
    await recopy(mapping);
    await change();
    await recopied(mapping);
    await equal(world, 't');
    const [row] = await world.destination.query('SELECT count(*)::int AS n FROM t WHERE body IS NULL');
    expect(row?.['n']).to.equal(1);
  });

  it('F23: TRUNCATE, alone, among other changes of its transaction, of two tables at once, and during a copy', async () => {
    await client.query(`CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (LIKE t INCLUDING ALL);
      INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 3000) g; INSERT INTO u VALUES (1, 'u')`);
    const [mapping] = [await world.map('t'), await world.map('u')];
    await world.state(mapping, 'streaming');
    await client.query('TRUNCATE t');
    await equal(world, 't');
    await together(
      `INSERT INTO t VALUES (1, 'before')`,
      'TRUNCATE t, u',
      `INSERT INTO t VALUES (1, 'after'), (2, 'after')`,
      `UPDATE t SET v = 'later' WHERE id = 2`,
    );
    await equal(world, 't');
    await equal(world, 'u');
    await client.query(`INSERT INTO t SELECT g, repeat('y', 1000) FROM generate_series(10, 3000) g`);
    await recopy(mapping);
    for (let i = 0; i < 5; i++) {
      await together(
        'TRUNCATE t',
        `INSERT INTO t SELECT g, repeat('${i}', 500) FROM generate_series(${i}, 500) g`,
        `UPDATE t SET id = -id WHERE id % 5 = 0`,
      );
      await client.query(`UPDATE t SET v = 'changed' WHERE id % 7 = 0`);
    }
    await recopied(mapping);
    await equal(world, 't');
  });

  it('F24: values of a unique column are exchanged between rows, in the stream and while a copy replaces the table', async () => {
    await client.query(`CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, position int UNIQUE, body text);
      ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
      INSERT INTO t SELECT i, 'c' || i, i, ${LARGE('i')} FROM generate_series(1, 60) i`);
    const mapping = await world.map('t');
    await world.state(mapping, 'streaming');
    const exchange = (a: number, b: number) =>
      together(
        `CREATE TEMP TABLE w ON COMMIT DROP AS SELECT * FROM t WHERE id IN (${a}, ${b})`,
        `UPDATE t SET code = 'w' || id, position = -id WHERE id IN (${a}, ${b})`,
        `UPDATE t SET code = w.code, position = w.position FROM w WHERE t.id = ${a} AND w.id = ${b}`,
        `UPDATE t SET code = w.code, position = w.position FROM w WHERE t.id = ${b} AND w.id = ${a}`,
      );
    await exchange(1, 2);
    await equal(world, 't');
    await unseen(async () => {
      for (let i = 1; i < 30; i++) await exchange(i, i + 1);
      // All at once, in several pieces.
      await together(
        `UPDATE t SET position = -position, body = ${LARGE("'n'")}`,
        `UPDATE t SET position = 61 + position`,
      );
      await together(
        `DELETE FROM t WHERE id = 3`,
        `INSERT INTO t SELECT 103, 'c3', 500, 'small'`,
        `UPDATE t SET position = 3 WHERE id = 103`,
      ).catch(() => client.query('ROLLBACK'));
    });
    await equal(world, 't');
    for (let round = 0; round < 2; round++) {
      await recopy(mapping);
      for (let i = 4; i < 50; i++) await exchange(i, i + 1);
      await recopied(mapping);
      await equal(world, 't');
    }
    const states = await world.control.query('SELECT error_code FROM mapping_state WHERE error_code IS NOT NULL');
    expect(states).to.deep.equal([]);
  });
});
