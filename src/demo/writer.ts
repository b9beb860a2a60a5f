/**
 * Plays an application: small transactions of mixed changes on the demo's tables. The same seed gives the same
 * changes (times apart).
 */
import type { Client } from 'pg';
import { Random } from './random.ts';

export interface ChangeCounts {
  inserted: number;
  updated: number;
  deleted: number;
  /** Rows whose key changed. */
  rekeyed: number;
  transactions: number;
}

/** All rows changed. */
export function changesOf(counts: ChangeCounts): number {
  return counts.inserted + counts.updated + counts.deleted + counts.rekeyed;
}

export class Writer {
  readonly counts: ChangeCounts = { inserted: 0, updated: 0, deleted: 0, rekeyed: 0, transactions: 0 };
  private readonly client: Client;
  private readonly random: Random;
  /** Keys that exist now; a deleted one is replaced by the last. */
  private readonly ids: string[];
  private readonly countries: readonly string[];
  private nextId: number;
  private nextRegion = 1;

  private constructor(client: Client, seed: number, ids: string[], countries: readonly string[], nextId: number) {
    this.client = client;
    this.random = new Random(seed);
    this.ids = ids;
    this.countries = countries;
    this.nextId = nextId;
  }

  /** The client is the writer's alone from now on. */
  static async create(client: Client, seed: number): Promise<Writer> {
    const ids = await client.query<{ id: string }>('SELECT id::text AS id FROM cities ORDER BY cities.id');
    const countries = await client.query<{ country: string }>('SELECT country FROM countries ORDER BY country');
    const keys = ids.rows.map((row) => row.id);
    return new Writer(
      client,
      seed,
      keys,
      countries.rows.map((row) => row.country),
      Number(keys[keys.length - 1] ?? 0) + 1,
    );
  }

  /** One transaction of 1 to about 8 changes, at most `limit`. */
  async transaction(limit = Number.POSITIVE_INFINITY): Promise<void> {
    await this.client.query('BEGIN');
    const dice = this.random.next();
    if (dice < 0.06 && limit >= 6) await this.newRegion();
    else {
      const steps = Math.min(limit, 1 + this.random.below(4));
      for (let step = 0; step < steps; step++) await this.change();
    }
    await this.client.query('COMMIT');
    this.counts.transactions += 1;
  }

  /** Transactions until this many rows have changed, or `signal` says stop. `perSecond` limits the rate. */
  async write(changes: number, options: { signal?: AbortSignal; perSecond?: number } = {}): Promise<void> {
    const from = changesOf(this.counts);
    const started = Date.now();
    for (;;) {
      const done = changesOf(this.counts) - from;
      if (done >= changes || options.signal?.aborted) return;
      await this.transaction(changes - done);
      if (options.perSecond) {
        const ahead = ((changesOf(this.counts) - from) / options.perSecond) * 1000 - (Date.now() - started);
        if (ahead > 5) await new Promise((resolve) => setTimeout(resolve, Math.min(ahead, 1000)));
      }
    }
  }

  private async change(): Promise<void> {
    const dice = this.random.next();
    if (dice < 0.25) await this.insertCity(this.random.pick(this.countries), null);
    else if (dice < 0.75) await this.moveCity();
    else if (dice < 0.9) await this.deleteCity();
    else await this.rekeyCity();
  }

  /** Several tables in one transaction: a region, a district in it, two cities there, and the country's count: 6 rows. */
  private async newRegion(): Promise<void> {
    const country = this.random.pick(this.countries);
    const region = `N${this.nextRegion++}`;
    await this.client.query('INSERT INTO regions (country, admin1, name) VALUES ($1, $2, $3)', [
      country,
      region,
      `New region ${region}`,
    ]);
    await this.client.query('INSERT INTO districts (country, admin1, admin2, name) VALUES ($1, $2, $3, $4)', [
      country,
      region,
      '001',
      `New district of ${region}`,
    ]);
    this.counts.inserted += 2;
    await this.insertCity(country, region);
    await this.insertCity(country, region);
    await this.count(
      'updated',
      'UPDATE countries SET city_count = city_count + 2, updated_at = now() WHERE country = $1',
      [country],
    );
    await this.count(
      'updated',
      'UPDATE regions SET name = name || $3, updated_at = now() WHERE country = $1 AND admin1 = $2',
      [country, region, ' · região'],
    );
  }

  private async insertCity(country: string, region: string | null): Promise<void> {
    const id = String(this.nextId++);
    const degrees = (range: number) => ((this.random.next() * 2 - 1) * range).toFixed(5);
    await this.count(
      'inserted',
      'INSERT INTO cities (id, name, country, admin1, admin2, latitude, longitude) VALUES ($1, $2, $3, $4, NULL, $5, $6)',
      [id, `New city ${id}`, country, region, degrees(90), degrees(180)],
    );
    this.ids.push(id);
  }

  private async moveCity(): Promise<void> {
    const id = this.random.pick(this.ids);
    if (this.random.next() < 0.5) {
      await this.count('updated', 'UPDATE cities SET latitude = -latitude, updated_at = now() WHERE id = $1', [id]);
    } else {
      const name = ['Ñandú', "L'Aquila", 'Zürich\tNord', '東京 🗼', '\\N', ''][this.random.below(6)] ?? '';
      await this.count('updated', 'UPDATE cities SET name = $2, admin2 = NULL, updated_at = now() WHERE id = $1', [
        id,
        name,
      ]);
    }
  }

  private async deleteCity(): Promise<void> {
    const at = this.random.below(this.ids.length);
    await this.count('deleted', 'DELETE FROM cities WHERE id = $1', [this.ids[at]]);
    const last = this.ids.pop();
    if (last !== undefined && at < this.ids.length) this.ids[at] = last;
  }

  private async rekeyCity(): Promise<void> {
    const at = this.random.below(this.ids.length);
    const id = String(this.nextId++);
    await this.count('rekeyed', 'UPDATE cities SET id = $2, updated_at = now() WHERE id = $1', [this.ids[at], id]);
    this.ids[at] = id;
  }

  private async count(kind: keyof ChangeCounts, sql: string, values: unknown[]): Promise<void> {
    const result = await this.client.query(sql, values);
    this.counts[kind] += result.rowCount ?? 0;
  }
}
