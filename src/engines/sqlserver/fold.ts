/** Folds a backlog into a table in rounds, and ends it under the position's lock (PROTOCOL, A copy, 4–6). */
import { hasCode } from '../../model/errors.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import type { Position } from '../../model/position.ts';
import type { Table } from '../../model/tables.ts';
import { describeTarget } from '../apply-plan.ts';
import { foldWaiting, hasNewerCopier, wasEnded, type FoldOptions } from '../backlog-fold.ts';
import type { FoldSession, FoldWork, LeftOutRows, Route } from '../contract.ts';
import { backlogTable } from '../home-tables.ts';
import { LeftOutStore } from '../left-out.ts';
import { readBlock } from './blocks.ts';
import { SqlServerCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { requireUnguarded } from './guards.ts';
import { announceRoute, GROUP, MAPPING } from './hold.ts';
import { LEFT_OUT } from './home.ts';
import { groupLock, isLockFailure, mappingLock, pastFrozenWriters, type Locker } from './locks.ts';
import { numberOf, textOf } from '../row-values.ts';
import { quoteTable } from './sql.ts';
import { TableApplier } from './table-applier.ts';

/** Locks on tables are waited for this long under the position's lock; the stream queues behind it (PROTOCOL, A copy, 6). */
const TABLE_LOCK_WAIT_MS = 1000;

export class SqlServerFold implements FoldSession {
  protected readonly connection: Connection;
  protected readonly session: Session;
  protected readonly locker: Locker;
  protected readonly options: FoldOptions;
  /**
   * A transaction in which another table is being filled is open: what waits is folded into that one, within it, and how far is
   * remembered here, because a write to the generation row would lock it before the position. Null: rounds are transactions of
   * their own.
   */
  protected filling: { readonly applier: TableApplier; folded: number } | null = null;
  #applier: TableApplier | null = null;
  #described: Table | null = null;
  /** Nothing is left to be done; the session is as good as new. */
  #isFinished = false;

  constructor(connection: Connection, session: Session, locker: Locker, options: FoldOptions) {
    this.connection = connection;
    this.session = session;
    this.locker = locker;
    this.options = options;
  }

  get generation(): number {
    return this.options.generation;
  }

  get route(): Route {
    return this.options.route;
  }

  async position(): Promise<Position | null> {
    const { stream, group } = this.options;
    if (stream === null) return null;
    const [row] = await pastFrozenWriters(this.connection, () =>
      this.connection.query('read the group’s position', `SELECT position FROM sluice.positions WHERE ${GROUP}`, {
        stream,
        group,
      }),
    );
    return textOf(row, 'position') as Position | null;
  }

  async backlogBytes(): Promise<number> {
    if (this.options.stream === null) return 0;
    const [row] = await this.unlessEnded(() =>
      this.session.query(
        'measure the backlog',
        // What the stream is just appending is not waited for.
        `SELECT COALESCE(SUM(CAST(bytes AS bigint)), 0) AS bytes FROM ${this.#backlog()} WITH (READCOMMITTEDLOCK, READPAST)
          WHERE seq > COALESCE(@folded, (SELECT folded_seq FROM sluice.generations WHERE ${MAPPING}))`,
        { uid: this.options.mappingUid, folded: this.filling?.folded ?? null },
      ),
    );
    return numberOf(row, 'bytes') ?? 0;
  }

  async round(maxBytes: number, fold: FoldWork): Promise<number> {
    if (this.options.stream === null) return 0;
    const { filling } = this;
    if (filling)
      return this.unlessEnded(async () => {
        const { count, last } = await this.#foldWaiting(filling.applier, filling.folded, maxBytes, fold);
        filling.folded = last;
        return count;
      });
    return this.unlessEnded(async () => {
      const applier = await this.prepareApplier();
      return this.#transaction(async () => {
        const { count, last } = await this.#foldWaiting(applier, await this.#lockGeneration(), maxBytes, fold);
        if (count > 0)
          await this.session.query(
            'mark how far the backlog was folded',
            `UPDATE sluice.generations SET folded_seq = @last WHERE ${MAPPING}`,
            { uid: this.options.mappingUid, last },
          );
        return count;
      });
    });
  }

  async finish(fold: FoldWork): Promise<boolean> {
    const { filling } = this;
    try {
      await this.unlessEnded(async () => {
        const applier = filling?.applier ?? (this.options.stream === null ? null : await this.prepareApplier());
        const work = () => this.#finish(applier, fold);
        if (!filling) return this.#transaction(work);
        // A savepoint: locks that were not to be had let go of the position, and the rows stay in.
        await this.session.attempt(work);
        await this.session.run('commit', ['COMMIT TRANSACTION']);
      });
      this.#isFinished = true;
      return true;
    } catch (error) {
      // The server has taken back the rows as well: the copy goes on from its staging table, in another session.
      if (filling && hasCode(error, 'DEADLOCK')) throw error;
      if (isLockFailure(error)) return false;
      throw error;
    } finally {
      if (!this.session.lost) await this.session.run('wait for tables again', ['SET LOCK_TIMEOUT -1']);
    }
  }

  async #finish(applier: TableApplier | null, fold: FoldWork): Promise<void> {
    const { stream, group, mappingUid, generation } = this.options;
    if (stream !== null) await this.locker.lock(groupLock(stream, group));
    const marked = await this.#lockGeneration();
    const folded = this.filling?.folded ?? marked;
    await this.session.run('bound the wait for tables', [`SET LOCK_TIMEOUT ${TABLE_LOCK_WAIT_MS}`]);
    if (stream !== null && applier) await this.#foldWaiting(applier, folded, Number.POSITIVE_INFINITY, fold);
    await this.replace();
    if (stream === null) return;
    await announceRoute(this.session, { stream, group });
    await this.session.run('drop the backlog', [`DROP TABLE ${quoteTable(backlogTable(mappingUid, generation))}`]);
  }

  async close(): Promise<void> {
    if (this.#isFinished && !this.session.lost) return this.locker.leave();
    await this.connection.release(this.session);
    await this.locker.close();
  }

  /** Within `finish`: what takes the place of what, and the generation row. A held table is already in its place. */
  protected async replace(): Promise<void> {
    await this.session.query(
      'route to the live table',
      `UPDATE sluice.generations SET is_live = 1, backlog = NULL, backlog_generation = NULL, updated_at = SYSUTCDATETIME() WHERE ${MAPPING}`,
      { uid: this.options.mappingUid },
    );
  }

  /** Called with the changes a round applied, in the same transaction. */
  protected async applied(_changes: KeyedChanges, _applier: TableApplier): Promise<void> {
    // A held table needs no record.
  }

  /** Outside a transaction: describes the target and makes the temporary tables. */
  protected async prepareApplier(): Promise<TableApplier> {
    if (this.#applier) return this.#applier;
    const described = await this.describeTarget();
    const { columns, key } = this.options.route;
    this.#applier = new TableApplier(this.session, described, columns, key, false);
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
    const table = await describeTarget(new SqlServerCatalog(this.connection), this.options.target);
    requireUnguarded(table);
    this.#described = table;
    return table;
  }

  /** A failed round may have taken rows of the temporary tables back, or the tables themselves: they are made again. */
  async #transaction<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await this.session.transaction(work);
    } catch (error) {
      if (!this.session.lost) await this.forgetTarget();
      throw error;
    }
  }

  /** Locks the generation and checks that this copier still owns it; returns how far the backlog was folded. */
  async #lockGeneration(): Promise<number> {
    const { mappingUid, copyEpoch, route } = this.options;
    await this.locker.lock(mappingLock(mappingUid));
    const [row] = await this.session.query(
      'read how far the backlog was folded',
      `SELECT copy_epoch, folded_seq FROM sluice.generations WHERE ${MAPPING}`,
      { uid: mappingUid },
    );
    if (numberOf(row, 'copy_epoch') !== copyEpoch) throw hasNewerCopier(route.target);
    return numberOf(row, 'folded_seq') ?? 0;
  }

  #foldWaiting(
    applier: TableApplier,
    folded: number,
    maxBytes: number,
    fold: FoldWork,
  ): Promise<{ count: number; last: number }> {
    const source = `FROM ${this.#backlog()} WHERE 1 = 1`;
    const next = (after: number) => readBlock(this.session, 'read a backlog', source, after);
    return foldWaiting({ folded, maxBytes, next }, fold, {
      apply: async (changes) => {
        const counts = await applier.apply(changes);
        await this.applied(changes, applier);
        return counts;
      },
      missing: (keys) => applier.missing(keys),
      attempt: (work) => this.session.attempt(work),
      leftOut: this.#leftOut(),
    });
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
      const isOver = hasCode(error, 'CONNECTION_LOST')
        ? await this.#isSucceeded()
        : hasCode(error, 'DESTINATION_TABLE_MISSING') && !(await this.#backlogIsThere());
      if (!isOver) throw error;
      throw wasEnded(this.options.route.target, error);
    }
  }

  async #isSucceeded(): Promise<boolean> {
    const [row] = await this.connection
      .query('look who copies now', `SELECT copy_epoch FROM sluice.generations WHERE ${MAPPING}`, {
        uid: this.options.mappingUid,
      })
      .catch(() => []);
    return row !== undefined && numberOf(row, 'copy_epoch') !== this.options.copyEpoch;
  }

  async #backlogIsThere(): Promise<boolean> {
    const name = this.#backlog();
    const [row] = await this.connection.query('look for the backlog', `SELECT OBJECT_ID(@name, N'U') AS id`, { name });
    return numberOf(row, 'id') !== null;
  }

  #backlog(): string {
    return quoteTable(backlogTable(this.options.mappingUid, this.options.generation));
  }
}
