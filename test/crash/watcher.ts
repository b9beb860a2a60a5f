/** Reads the destination all the while, as an application would, and notes every state that never existed at the source. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestDatabase } from '../support/postgres.ts';
import { TABLES, TOTAL } from './workload.ts';

const POLL_MS = 40;

export class Watcher {
  readonly findings: string[] = [];
  polls = 0;
  #stopped = false;
  readonly #done: Promise<void>;
  readonly #seen = new Map<number, number>();

  /** Every table must have been filled by now. */
  constructor(destination: TestDatabase) {
    this.#done = this.#watch(destination);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }

  async #watch(destination: TestDatabase): Promise<void> {
    const client = await destination.connect();
    const rows = async (sql: string) => (await client.query<Record<string, string>>(sql)).rows;
    while (!this.#stopped) {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      const before = await rows('SELECT writer, n FROM clock_a ORDER BY writer');
      const [left] = await rows('SELECT coalesce(sum(balance), 0) AS sum FROM accounts_a');
      // Long enough for a commit or a swap to come in between.
      await sleep(10);
      const counts = await rows(
        TABLES.map((table) => `SELECT '${table}' AS name, EXISTS (SELECT FROM ${table}) AS filled`).join(' UNION ALL '),
      );
      const [wrong] = await rows(
        'SELECT count(*) AS n FROM documents WHERE md5(body) IS DISTINCT FROM body_md5 OR code IS NULL',
      );
      const [right] = await rows('SELECT coalesce(sum(balance), 0) AS sum FROM accounts_b');
      const after = await rows('SELECT writer, n FROM clock_b ORDER BY writer');
      await client.query('COMMIT');
      this.polls++;
      for (const { name, filled } of counts) if (!filled) this.#found(`${name} is empty`);
      const sum = Number(left?.['sum']) + Number(right?.['sum']);
      if (sum !== TOTAL) this.#found(`half of a transaction: the balances' sum is ${sum}, not ${TOTAL}`);
      if (Number(wrong?.['n']) > 0) this.#found(`${wrong?.['n']} documents have another document's body`);
      for (const [i, { writer, n }] of before.entries()) {
        if (after[i]?.['n'] !== n)
          this.#found(`half of a transaction: writer ${writer} is at ${n} in clock_a, ${after[i]?.['n']} in clock_b`);
        const last = this.#seen.get(Number(writer)) ?? 0;
        if (Number(n) < last) this.#found(`older than before: writer ${writer} was at ${last}, is at ${n}`);
        this.#seen.set(Number(writer), Number(n));
      }
      await sleep(POLL_MS);
    }
  }

  #found(what: string): void {
    if (this.findings.length < 20) this.findings.push(`poll ${this.polls}: ${what}`);
  }
}
