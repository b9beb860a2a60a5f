/**
 * A mixed load whose every committed state can be judged by looking at it alone: balances of two tables have one constant sum,
 * each transaction stamps two tables with its writer's counter, and a document carries the MD5 of its body.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { Random } from '../../src/demo/random.ts';
import type { TestDatabase } from '../support/postgres.ts';

export const TABLES = ['clock_a', 'clock_b', 'accounts_a', 'accounts_b', 'documents', 'journal', 'parts', 'flags'];
export const ACCOUNTS = 200;
export const TOTAL = 2 * ACCOUNTS * 1000;

const body = (seed: string) =>
  `(SELECT string_agg(md5(${seed} || '/' || g), '' ORDER BY g) FROM generate_series(1, 150) g)`;

export async function createTables(source: TestDatabase, writers: number): Promise<void> {
  await source.query(`
    CREATE TABLE clock_a (writer int PRIMARY KEY, n bigint NOT NULL, at timestamptz);
    CREATE TABLE clock_b (writer int PRIMARY KEY, n bigint NOT NULL, at timestamptz);
    INSERT INTO clock_a SELECT w, 0, now() FROM generate_series(1, ${writers}) w;
    INSERT INTO clock_b SELECT w, 0, now() FROM generate_series(1, ${writers}) w;
    CREATE SEQUENCE ids START 100000;
    CREATE TABLE accounts_a (id int PRIMARY KEY, owner text, balance bigint NOT NULL);
    CREATE TABLE accounts_b (LIKE accounts_a INCLUDING ALL);
    INSERT INTO accounts_a SELECT i, 'owner ' || i, 1000 FROM generate_series(1, ${ACCOUNTS}) i;
    INSERT INTO accounts_b SELECT i, 'owner ' || i, 1000 FROM generate_series(1, ${ACCOUNTS}) i;
    CREATE TABLE documents (id int PRIMARY KEY, code text NOT NULL UNIQUE, title text, body text, body_md5 text, stamp bigint NOT NULL DEFAULT 0);
    ALTER TABLE documents ALTER COLUMN body SET STORAGE EXTERNAL;
    INSERT INTO documents SELECT i, 'code ' || i, 'title ' || i, ${body('i')}, md5(${body('i')}) FROM generate_series(1, 250) i;
    CREATE TABLE journal (id bigint PRIMARY KEY, writer int, n bigint, payload text);
    INSERT INTO journal SELECT -i, 0, 0, repeat(md5(i::text), 8) FROM generate_series(1, 12000) i;
    CREATE TABLE parts (label text, tenant int, amount numeric(20, 4), note text, PRIMARY KEY (tenant, label));
    INSERT INTO parts SELECT 'Teil ' || i, i % 7, i * 1.0001, NULL FROM generate_series(1, 500) i;
    CREATE TABLE flags (id int PRIMARY KEY, resync smallint NOT NULL DEFAULT 0, note text);
    INSERT INTO flags SELECT i FROM generate_series(1, 20) i;
  `);
}

/** Rolls back and tries something else: the row it wanted was taken, or a deadlock was broken. */
class Again extends Error {}

type Step = (client: pg.Client, random: Random) => Promise<void>;

/** A random row, locked; rows that others hold are passed over. */
async function pick(client: pg.Client, table: string): Promise<number> {
  const { rows } = await client.query<{ id: number }>(
    `SELECT id FROM ${table} WHERE id >= (SELECT id FROM ${table} ORDER BY random() LIMIT 1) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED`,
  );
  const [row] = rows;
  if (!row) throw new Again();
  return row.id;
}

const transfer: Step = async (client, random) => {
  const [from, to] = [await pick(client, 'accounts_a'), await pick(client, 'accounts_b')];
  const amount = random.below(200) - 100;
  await client.query(`UPDATE accounts_a SET balance = balance - ${amount} WHERE id = ${from}`);
  await client.query(`UPDATE accounts_b SET balance = balance + ${amount} WHERE id = ${to}`);
};

const closeAccount: Step = async (client) => {
  const [gone, heir] = [await pick(client, 'accounts_a'), await pick(client, 'accounts_b')];
  await client.query(
    `WITH gone AS (DELETE FROM accounts_a WHERE id = ${gone} RETURNING balance)
     UPDATE accounts_b SET balance = accounts_b.balance + gone.balance FROM gone WHERE id = ${heir}`,
  );
  // Opened again under the same key or another one, with a part of the heir's money.
  const id = gone % 2 === 0 ? `${gone}` : `nextval('ids')`;
  await client.query(`INSERT INTO accounts_a VALUES (${id}, 'reopened', 37)`);
  await client.query(`UPDATE accounts_b SET balance = balance - 37 WHERE id = ${heir}`);
};

const moveKey: Step = async (client, random) => {
  const table = random.pick(['accounts_a', 'accounts_b', 'documents']);
  await client.query(`UPDATE ${table} SET id = nextval('ids') WHERE id = ${await pick(client, table)}`);
};

const swapKeys: Step = async (client, random) => {
  const table = random.pick(['accounts_a', 'documents', 'documents']);
  const [one, two] = [await pick(client, table), await pick(client, table)];
  if (one === two) throw new Again();
  await client.query(`UPDATE ${table} SET id = -${one} WHERE id = ${one}`);
  await client.query(`UPDATE ${table} SET id = ${one} WHERE id = ${two}`);
  await client.query(`UPDATE ${table} SET id = ${two} WHERE id = -${one}`);
};

const exchangeCodes: Step = async (client) => {
  const [one, two] = [await pick(client, 'documents'), await pick(client, 'documents')];
  if (one === two) throw new Again();
  const { rows } = await client.query<{ id: number; code: string }>(
    `SELECT id, code FROM documents WHERE id IN (${one}, ${two})`,
  );
  const code = (id: number) => rows.find((row) => row.id === id)?.code ?? '';
  await client.query(`UPDATE documents SET code = 'between ' || id WHERE id = ${one}`);
  await client.query(`UPDATE documents SET code = $1 WHERE id = ${two}`, [code(one)]);
  await client.query(`UPDATE documents SET code = $1 WHERE id = ${one}`, [code(two)]);
};

const retitle: Step = async (client, random) => {
  const id = await pick(client, 'documents');
  await client.query(`UPDATE documents SET title = $1, stamp = stamp + 1 WHERE id = ${id}`, [`title ${random.next()}`]);
};

const rewrite: Step = async (client, random) => {
  const id = await pick(client, 'documents');
  const text = body(`'${random.next()}'`);
  await client.query(
    `UPDATE documents SET body = t.b, body_md5 = md5(t.b) FROM (SELECT ${text} AS b) t WHERE id = ${id}`,
  );
};

const replaceDocument: Step = async (client, random) => {
  const id = await pick(client, 'documents');
  await client.query(`DELETE FROM documents WHERE id = ${id}`);
  const [text, code] = [body(`'${random.next()}'`), `'code ' || nextval('ids')`];
  const insert = `INSERT INTO documents SELECT ${id}, ${code}, 'new', t.b, md5(t.b) FROM (SELECT ${text} AS b) t`;
  await client.query(insert);
  // One key within one transaction: delete, insert, delete, insert (F21).
  if (random.below(2) === 0) await client.query(`DELETE FROM documents WHERE id = ${id}; ${insert}`);
};

const write: Step = async (client, random) => {
  const rows = 1 + random.below(20);
  await client.query(
    `INSERT INTO journal SELECT nextval('ids'), 1, g, repeat('x', 100) FROM generate_series(1, ${rows}) g`,
  );
  await client.query(`UPDATE journal SET payload = 'changed' WHERE id = (SELECT max(id) FROM journal)`);
};

const part: Step = async (client, random) => {
  const tenant = random.below(7);
  await client.query(`UPDATE parts SET amount = amount + 0.0001 WHERE tenant = ${tenant} AND random() < 0.1`);
  await client.query(`INSERT INTO parts VALUES ('Stück ' || nextval('ids'), ${tenant}, 1.5000, '')`);
  await client.query(
    `DELETE FROM parts WHERE (label, tenant) IN (SELECT label, tenant FROM parts WHERE tenant <> ${tenant} AND label LIKE 'Stück%' LIMIT 1)`,
  );
};

/** More than fits a batch: staged in pieces at the destination; with key changes in it (F04). */
const large: Step = async (client) => {
  await client.query(
    `INSERT INTO journal SELECT nextval('ids'), 2, g, repeat(md5(g::text), 6) FROM generate_series(1, 2500) g`,
  );
  await client.query(`UPDATE accounts_b SET id = id + 1000000 WHERE id < 50`);
  await client.query(`UPDATE accounts_b SET id = id - 1000000 WHERE id >= 1000000`);
  await client.query(`UPDATE documents SET stamp = stamp + 1`);
  await client.query(`DELETE FROM journal WHERE writer = 2 AND n % 3 = 0`);
};

const truncate: Step = async (client) => {
  await client.query(`TRUNCATE journal`);
  // So that no committed state of the table is empty.
  await client.query(`INSERT INTO journal SELECT nextval('ids'), 0, 0, 'after a TRUNCATE' FROM generate_series(1, 50)`);
};

const STEPS: readonly (readonly [weight: number, step: Step])[] = [
  [25, transfer],
  [6, closeAccount],
  [8, moveKey],
  [8, swapKeys],
  [8, exchangeCodes],
  [10, retitle],
  [5, rewrite],
  [4, replaceDocument],
  [14, write],
  [10, part],
  [1, large],
  [0.4, truncate],
];

function choose(random: Random): Step {
  let at = random.next() * STEPS.reduce((sum, [weight]) => sum + weight, 0);
  for (const [weight, step] of STEPS) if ((at -= weight) < 0) return step;
  return transfer;
}

/** Deadlock, serialization failure, lock not available, a key another writer made first. */
const RETRY = new Set(['40P01', '40001', '55P03', '23505']);

export class Workload {
  transactions = 0;
  /** Writers pause this many times longer: the service is far behind. */
  slowness = 1;
  readonly #stop = new AbortController();
  readonly #writers: Promise<void>[];

  /** `pauseMs`: longest pause between two transactions of one writer. */
  constructor(source: TestDatabase, seed: number, writers: number, pauseMs: number) {
    this.#writers = Array.from({ length: writers }, async (_, i) => {
      const client = await source.connect();
      const random = new Random(seed + i + 1);
      for (let n = 1; !this.#stop.signal.aborted;) {
        if (await this.#transaction(client, random, i + 1, n)) n++;
        await sleep(random.below(pauseMs) * this.slowness);
      }
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#writers);
  }

  async #transaction(client: pg.Client, random: Random, writer: number, n: number): Promise<boolean> {
    try {
      await client.query('BEGIN');
      await client.query(`UPDATE clock_a SET n = ${n}, at = clock_timestamp() WHERE writer = ${writer}`);
      for (let steps = 1 + random.below(3); steps > 0; steps--) await choose(random)(client, random);
      await client.query(`UPDATE clock_b SET n = ${n}, at = clock_timestamp() WHERE writer = ${writer}`);
      await client.query('COMMIT');
      this.transactions++;
      return true;
    } catch (error) {
      await client.query('ROLLBACK');
      if (error instanceof Again || RETRY.has((error as { code?: string }).code ?? '')) return false;
      throw error;
    }
  }
}
