/** Folds a backlog into a table in rounds, and ends it under the position row's lock (PROTOCOL, A copy, 4–6). */
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import type { Position } from '../../model/position.ts';
import type { Table } from '../../model/tables.ts';
import { describeTarget } from '../apply-plan.ts';
import { foldWaiting, hasNewerCopier, wasEnded, type FoldOptions } from '../backlog-fold.ts';
import type { FoldSession, FoldWork, LeftOutRows, Route } from '../contract.ts';
import { backlogTable } from '../home-tables.ts';
import { LeftOutStore } from '../left-out.ts';
import { readBlock } from './blocks.ts';
import { PostgresCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { sqlState } from './errors.ts';
import { requireUnguarded, suspend } from './guards.ts';
import { isLockFailure, pastFrozenHolders } from './locks.ts';
import { LEFT_OUT } from './home.ts';
import { quoteTable } from './sql.ts';
import { beginApplying, TableApplier } from './table-applier.ts';

export interface PostgresFoldOptions extends FoldOptions {
  readonly lockWaitMs: number;
}

/** Locks on tables are waited for this long under the position row's lock; the stream queues behind it (PROTOCOL, A copy, 6). */
export const BOUND_TABLE_LOCKS = `SET LOCAL lock_timeout = '1s'`;
const UNDEFINED_TABLE = '42P01';

export class PostgresFold implements FoldSession {
  protected readonly connection: Connection;
  protected readonly session: Session;
  protected readonly options: PostgresFoldOptions;
  /**
   * A transaction in which another table is being filled is open: what waits is folded into that one, within it, and how far is
   * remembered here, because a write to the generation row would lock it before the position row. Null: rounds are transactions of
   * their own.
   */
  protected filling: { readonly applier: TableApplier; folded: number } | null = null;
  #applier: TableApplier | null = null;
  #described: Table | null = null;

  constructor(connection: Connection, session: Session, options: PostgresFoldOptions) {
    this.connection = connection;
    this.session = session;
    this.options = options;
  }

  get generation(): number {
    return this.options.generation;
  }

  get route(): Route {
    return this.options.route;
  }

  async position(): Promise<Position | null> {
    if (this.options.stream === null) return null;
    const [row] = await this.connection.query(
      'read the group’s position',
      `SELECT position FROM sluice.positions WHERE stream = $1 AND apply_group = $2`,
      [this.options.stream, this.options.group],
    );
    return (row?.['position'] ?? null) as Position | null;
  }

  async backlogBytes(): Promise<number> {
    if (this.options.stream === null) return 0;
    const [row] = await this.unlessEnded(() =>
      this.session.query(
        'measure the backlog',
        `SELECT coalesce(sum(bytes), 0) AS bytes FROM ${this.#backlog()}
        WHERE seq > coalesce($2, (SELECT folded_seq FROM sluice.generations WHERE mapping_uid = $1))`,
        [this.options.mappingUid, this.filling?.folded ?? null],
      ),
    );
    return Number(row?.['bytes'] ?? 0);
  }

  async round(maxBytes: number, fold: FoldWork): Promise<number> {
    if (this.options.stream === null) return 0;
    const { filling } = this;
    if (filling) {
      return this.unlessEnded(async () => {
        const { count, last } = await this.#foldWaiting(filling.folded, maxBytes, fold);
        filling.folded = last;
        return count;
      });
    }
    await this.prepareApplier();
    return this.unlessEnded(() =>
      this.session.transaction('BEGIN', async () => {
        const folded = await this.#lockGeneration();
        beginApplying(this.session);
        const { count, last } = await this.#foldWaiting(folded, maxBytes, fold);
        if (count > 0) await this.#markFolded(last);
        return count;
      }),
    );
  }

  async finish(fold: FoldWork): Promise<boolean> {
    const { stream, group } = this.options;
    const { filling } = this;
    // Most copies meet no change at all, and need no temporary tables.
    if (!filling && (await this.backlogBytes()) > 0) await this.prepareApplier();
    const work = async () => {
      if (stream !== null) {
        await pastFrozenHolders(this.connection, this.session, this.options.lockWaitMs, () =>
          this.session.query(
            'lock the group’s position',
            `SELECT 1 AS locked FROM sluice.positions WHERE stream = $1 AND apply_group = $2 FOR UPDATE`,
            [stream, group],
          ),
        );
      }
      const folded = await this.#lockGeneration();
      if (!filling) beginApplying(this.session);
      if (stream !== null)
        await this.#foldWaiting(filling?.folded ?? folded, Number.POSITIVE_INFINITY, fold, BOUND_TABLE_LOCKS);
      await this.replace();
    };
    try {
      await this.unlessEnded(async () => {
        if (!filling) return this.#transaction(work);
        // A savepoint: locks that were not to be had let go of the position row, and the rows stay in.
        await this.session.attempt(work);
        await this.session.run('commit', ['COMMIT']);
      });
      return true;
    } catch (error) {
      if (isLockFailure(error)) return false;
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.connection.release(this.session);
  }

  /**
   * Within `finish`: what takes the place of what, the generation row and its route, and the end of the backlog. A held table is already in
   * its place.
   */
  protected async replace(): Promise<void> {
    const { stream, group, mappingUid, generation } = this.options;
    await this.session.query(
      'route to the live table',
      `WITH announced AS (UPDATE sluice.positions SET route_version = route_version + 1 WHERE stream = $2 AND apply_group = $3)
       UPDATE sluice.generations SET is_live = true, backlog = NULL, backlog_generation = NULL, copy_session = NULL, updated_at = now() WHERE mapping_uid = $1`,
      [mappingUid, stream, group],
    );
    if (stream !== null)
      await this.session.run('drop the backlog', [
        BOUND_TABLE_LOCKS,
        `DROP TABLE ${quoteTable(backlogTable(mappingUid, generation))}`,
      ]);
  }

  /** Called with the changes a round applied, in the same transaction. */
  protected async applied(_changes: KeyedChanges, _applier: TableApplier): Promise<void> {
    // A held table needs no record.
  }

  /** Describes the target and makes the temporary tables. */
  protected async prepareApplier(): Promise<TableApplier> {
    if (this.#applier) return this.#applier;
    const described = await this.describeTarget();
    this.#applier = new TableApplier(
      this.session,
      described,
      this.options.route.columns,
      this.options.route.key,
      false,
    );
    await this.#applier.prepare();
    return this.#applier;
  }

  /** The target has new indexes: rows that change the columns of unique ones are applied differently. */
  protected async forgetTarget(): Promise<void> {
    await this.#applier?.dropStages();
    this.#applier = null;
    this.#described = null;
  }

  protected async describeTarget(): Promise<Table> {
    if (this.#described) return this.#described;
    const table = await describeTarget(new PostgresCatalog(this.connection), this.options.target);
    await requireUnguarded(table, () => suspend(this.session));
    this.#described = table;
    return table;
  }

  /** Locks the generation row and checks that this copier still owns it; returns how far the backlog was folded. */
  async #lockGeneration(): Promise<number> {
    const [row] = await pastFrozenHolders(this.connection, this.session, this.options.lockWaitMs, () =>
      this.session.query(
        'lock the generation',
        `SELECT copy_epoch, folded_seq FROM sluice.generations WHERE mapping_uid = $1 FOR UPDATE`,
        [this.options.mappingUid],
      ),
    );
    if (!row || Number(row['copy_epoch']) !== this.options.copyEpoch) throw hasNewerCopier(this.options.route.target);
    return Number(row['folded_seq'] ?? 0);
  }

  /** Temporary tables that were made in a transaction are gone with it when it is rolled back. */
  async #transaction<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#applier;
    try {
      return await this.session.transaction('BEGIN', work);
    } catch (error) {
      if (this.#applier !== before) this.#applier = null;
      throw error;
    }
  }

  /** `first`: a statement that goes before whatever is applied. */
  #foldWaiting(
    folded: number,
    maxBytes: number,
    fold: FoldWork,
    first: string | null = null,
  ): Promise<{ count: number; last: number }> {
    let before = first;
    const prepared = async () => {
      if (before !== null) await this.session.run('bound the wait for tables', [before]);
      before = null;
      return this.filling?.applier ?? this.prepareApplier();
    };
    const source = `FROM ${this.#backlog()} WHERE true`;
    const next = (after: number) => readBlock(this.session, 'read a backlog', source, after);
    return foldWaiting({ folded, maxBytes, next }, fold, {
      apply: async (changes) => {
        const applier = await prepared();
        const counts = await applier.apply(changes);
        await this.applied(changes, applier);
        return counts;
      },
      missing: async (keys) => (await prepared()).missing(keys),
      attempt: (work) => this.session.attempt(work),
      leftOut: this.#leftOut(),
    });
  }

  #markFolded(last: number): Promise<unknown> {
    return this.session.query(
      'mark how far the backlog was folded',
      `UPDATE sluice.generations SET folded_seq = $2 WHERE mapping_uid = $1`,
      [this.options.mappingUid, last],
    );
  }

  #leftOut(): LeftOutRows | null {
    const { mappingUid, route } = this.options;
    if (route.backlog !== 'hold') return null;
    return new LeftOutStore(this.session, LEFT_OUT).ofMapping(mappingUid, route.liveGeneration ?? null);
  }

  /** This copy is over when somebody else ended it, whatever statement notices. */
  protected async unlessEnded<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (sqlState(error) !== UNDEFINED_TABLE && !(this.session.lost && (await this.#isSucceeded()))) throw error;
      throw wasEnded(this.options.route.target, error);
    }
  }

  async #isSucceeded(): Promise<boolean> {
    const [row] = await this.connection
      .query('look who copies now', `SELECT copy_epoch FROM sluice.generations WHERE mapping_uid = $1`, [
        this.options.mappingUid,
      ])
      .catch(() => [undefined]);
    return row !== undefined && Number(row['copy_epoch']) !== this.options.copyEpoch;
  }

  #backlog(): string {
    return quoteTable(backlogTable(this.options.mappingUid, this.options.generation));
  }
}
