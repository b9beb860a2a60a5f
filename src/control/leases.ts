/**
 * Who owns what (invariant 9). Time is the control database's: the process's own clock is never compared with it, so a
 * clock that jumps changes nothing. What a process may believe without asking is measured on its monotonic clock, from
 * before the question was sent.
 *
 * A lease says who *should* work; that nobody else's work counts is for the epoch, which the destination checks.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { SluiceError } from '../model/errors.ts';
import type { ControlContext, Queries } from './context.ts';

/** One process. The uuid is drawn at its start: a restarted process is another owner. */
export interface Owner {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
}

export function thisProcess(): Owner {
  return { id: randomUUID(), host: hostname(), pid: process.pid };
}

export interface Lease {
  readonly key: string;
  /** On `performance.now()`: until then nobody else can hold it. Stop the work, or renew, before. */
  readonly validUntil: number;
}

export interface LeaseInfo {
  readonly key: string;
  readonly owner: Owner;
  readonly epoch: number | null;
  readonly acquiredAt: Date;
  readonly expiresAt: Date;
  /** By the database's clock. */
  readonly expired: boolean;
}

interface LeaseRow {
  lease_key: string;
  owner: string;
  host: string | null;
  pid: number | null;
  epoch: string | null;
  acquired_at: Date;
  expires_at: Date;
  /** A number, or its text, by engine. */
  expired: number | string;
}

export class Leases {
  readonly #context: ControlContext;

  constructor(context: ControlContext) {
    this.#context = context;
  }

  /** Takes the lease if it is free, expired, or already this owner's. Null: somebody else holds it. */
  async acquire(key: string, owner: Owner, seconds: number): Promise<Lease | null> {
    const asked = performance.now();
    return this.#context.run(`take the lease ${key}`, async (queries) => {
      const now = this.#context.now(queries);
      const held = {
        owner: owner.id,
        host: owner.host,
        pid: owner.pid,
        renewed_at: now,
        expires_at: this.#context.dialect.inSeconds(queries, seconds),
      };
      // The leases of jobs are made and given up, so nobody's is the common case.
      if (!(await queries('leases').where('lease_key', key).first('lease_key'))) {
        try {
          await queries('leases').insert({ lease_key: key, ...held, acquired_at: now });
          return leaseOf(key, asked, seconds);
        } catch (error) {
          if (!this.#context.dialect.isDuplicate(error)) throw error;
        }
      }
      await queries('leases').where({ lease_key: key, owner: owner.id }).update(held);
      await queries('leases')
        .where('lease_key', key)
        .whereNot('owner', owner.id)
        .where('expires_at', '<=', now)
        .update({ ...held, acquired_at: now, epoch: null });
      return (await this.#isMine(queries, key, owner)) ? leaseOf(key, asked, seconds) : null;
    });
  }

  /**
   * Extends the leases this owner still holds, in two statements however many. Those missing from the answer are lost (expired
   * and perhaps somebody else's): stop their work.
   */
  async renew(keys: readonly string[], owner: Owner, seconds: number): Promise<Lease[]> {
    if (keys.length === 0) return [];
    const asked = performance.now();
    return this.#context.run('renew leases', async (queries) => {
      const now = this.#context.now(queries);
      await queries('leases')
        .whereIn('lease_key', keys)
        .where('owner', owner.id)
        .where('expires_at', '>', now)
        .update({ renewed_at: now, expires_at: this.#context.dialect.inSeconds(queries, seconds) });
      const mine = await queries('leases')
        .whereIn('lease_key', keys)
        .where('owner', owner.id)
        .where('expires_at', '>', now)
        .select<{ lease_key: string }[]>('lease_key');
      return mine.map((row) => leaseOf(row.lease_key, asked, seconds));
    });
  }

  /** Gives it up at once. Nothing happens when it is not this owner's. */
  async release(key: string, owner: Owner): Promise<void> {
    await this.#context.run(`give up the lease ${key}`, (queries) =>
      queries('leases').where({ lease_key: key, owner: owner.id }).delete(),
    );
  }

  /** At shutdown: everything this owner holds. */
  async releaseAll(owner: Owner): Promise<void> {
    await this.#context.run('give up all leases', (queries) => queries('leases').where('owner', owner.id).delete());
  }

  /**
   * A new epoch: higher than every one drawn before and than `atLeast`, the epoch stored at the destination (a restored
   * control database must not repeat one). With `lease`: recorded there, for people; throws FENCED when it is not that owner's any more.
   */
  async drawEpoch(atLeast: number, lease?: { key: string; owner: Owner }): Promise<number> {
    return this.#context.transaction('draw an epoch', async (queries) => {
      // The update holds the row until the commit: who draws next sees it.
      await queries('meta')
        .where('meta_id', 1)
        .update({
          epoch_counter: queries.raw('case when epoch_counter > ? then epoch_counter else ? end + 1', [
            atLeast,
            atLeast,
          ]),
        });
      const row = await queries('meta').where('meta_id', 1).first<{ epoch_counter: string }>('epoch_counter');
      const epoch = Number(row.epoch_counter);
      if (lease) {
        const mine = queries('leases').where({ lease_key: lease.key, owner: lease.owner.id });
        const found = await this.#context.dialect.updateRows(mine, { epoch }, 'lease_key');
        // A process that was frozen must not draw one above its successor's.
        if (found === 0) throw new SluiceError('FENCED', `the lease ${lease.key} has another owner`);
      }
      return epoch;
    });
  }

  async list(): Promise<LeaseInfo[]> {
    const rows = await this.#context.run('list leases', (queries) =>
      queries('leases')
        .select<LeaseRow[]>(
          '*',
          queries.raw('case when expires_at <= ? then 1 else 0 end as expired', [this.#context.now(queries)]),
        )
        .orderBy('lease_key'),
    );
    return rows.map((row) => ({
      key: row.lease_key,
      owner: { id: row.owner, host: row.host ?? '', pid: row.pid ?? 0 },
      epoch: row.epoch === null ? null : Number(row.epoch),
      acquiredAt: row.acquired_at,
      expiresAt: row.expires_at,
      expired: Number(row.expired) === 1,
    }));
  }

  async #isMine(queries: Queries, key: string, owner: Owner): Promise<boolean> {
    const row = await queries('leases')
      .where({ lease_key: key, owner: owner.id })
      .where('expires_at', '>', this.#context.now(queries))
      .first<{ lease_key: string } | undefined>('lease_key');
    return row !== undefined;
  }
}

function leaseOf(key: string, asked: number, seconds: number): Lease {
  return { key, validUntil: asked + seconds * 1000 };
}
