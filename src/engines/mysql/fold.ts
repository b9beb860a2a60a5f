/** Folds a backlog into a table in rounds, and ends it under the position's lock (PROTOCOL, A copy, 4–6). */
import { hasCode } from '../../model/errors.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import type { Position } from '../../model/position.ts';
import type { Table, TableName } from '../../model/tables.ts';
import { describeTarget } from '../apply-plan.ts';
import { foldWaiting, hasNewerCopier, wasEnded, type FoldOptions } from '../backlog-fold.ts';
import type { FoldSession, FoldWork, LeftOutRows, Route } from '../contract.ts';
import { backlogTable } from '../home-tables.ts';
import { LeftOutStore } from '../left-out.ts';
import { numberOf, textOf } from '../row-values.ts';
import { readBlock } from './blocks.ts';
import { MysqlCatalog } from './catalog.ts';
import type { Connection, Row, Session } from './connection.ts';
import { sweep } from './generations.ts';
import { requireWritable } from './guards.ts';
import { announceRoute, lockGeneration } from './hold.ts';
import { LEFT_OUT, own } from './home.ts';
import { isLockFailure, type Locker } from './locks.ts';
import { quoteTable } from './sql.ts';
import { TableApplier } from './table-applier.ts';
import { attempt, commit, inTransaction, rollback } from './transactions.ts';

/** Locks on tables and rows are waited for this long under the position's lock; the stream queues behind it (PROTOCOL, A copy, 6). */
const LOCK_WAIT_SECONDS = 1;

export class MysqlFold implements FoldSession {
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

  /** What is folded into; a copy that starts again changes it. */
  protected get target(): TableName {
    return this.options.target;
  }

  async position(): Promise<Position | null> {
    const { stream, group } = this.options;
    if (stream === null) return null;
    const [row] = await this.connection.query(
      'read the group’s position',
      'SELECT position FROM sluice_positions WHERE stream = ? AND apply_group = ?',
      [stream, group],
    );
    return textOf(row, 'position') as Position | null;
  }

  async backlogBytes(): Promise<number> {
    if (this.options.stream === null) return 0;
    const folded = this.filling?.folded ?? null;
    const [row] = await this.unlessEnded(() =>
      this.connection.query(
        'measure the backlog',
        `SELECT COALESCE(SUM(bytes), 0) AS bytes FROM ${this.#backlog()}
          WHERE seq > COALESCE(?, (SELECT folded_seq FROM sluice_generations WHERE mapping_uid = ?))`,
        [folded, this.options.mappingUid],
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
            'UPDATE sluice_generations SET folded_seq = ? WHERE mapping_uid = ?',
            [last, this.options.mappingUid],
          );
        return count;
      });
    });
  }

  async finish(fold: FoldWork): Promise<boolean> {
    const { filling, session, locker } = this;
    try {
      await this.unlessEnded(async () => {
        const applier = filling?.applier ?? (this.options.stream === null ? null : await this.prepareApplier());
        const work = () => this.#finish(applier, fold);
        if (!filling) {
          await this.#transaction(work, true);
        } else {
          // A savepoint: locks that were not to be had let go of the position, and the rows stay in.
          await attempt(session, work);
          await commit(session, 'commit the swap', []);
          this.filling = null;
        }
        await this.swapped();
      });
    } catch (error) {
      if (this.filling && hasCode(error, 'DEADLOCK')) {
        // The server has taken back the rows as well: the copy goes on from its staging table, in another session.
        await rollback(session, locker);
        throw error;
      }
      if (isLockFailure(error)) return false;
      throw error;
    } finally {
      if (!session.lost) {
        await locker.release();
        await session.run('wait for locks again', [
          'SET SESSION lock_wait_timeout = 60, innodb_lock_wait_timeout = 50',
        ]);
      }
    }
    await this.#sweep();
    return true;
  }

  async #finish(applier: TableApplier | null, fold: FoldWork): Promise<void> {
    const { stream, group } = this.options;
    if (stream !== null) await this.lockPosition(stream, group);
    const marked = await this.#lockGeneration();
    const folded = this.filling?.folded ?? marked;
    await this.session.run('bound the wait for locks', [
      `SET SESSION lock_wait_timeout = ${LOCK_WAIT_SECONDS}, innodb_lock_wait_timeout = ${LOCK_WAIT_SECONDS}`,
    ]);
    if (stream !== null && applier) await this.#foldWaiting(applier, folded, Number.POSITIVE_INFINITY, fold);
    await this.replace();
    if (stream !== null) await announceRoute(this.session, { stream, group });
  }

  async close(): Promise<void> {
    await this.connection.release(this.session);
    await this.locker.retract();
  }

  protected async lockPosition(stream: string, group: string): Promise<void> {
    await this.locker.group(stream, group);
    await this.session.query(
      'lock the group’s position',
      'SELECT epoch FROM sluice_positions WHERE stream = ? AND apply_group = ? FOR UPDATE',
      [stream, group],
    );
  }

  /** Within `finish`: what takes the place of what, and the generation row. A held table is already in its place. */
  protected async replace(): Promise<void> {
    await this.session.query(
      'route to the live table',
      'UPDATE sluice_generations SET is_live = 1, backlog = NULL, backlog_generation = NULL, updated_at = NOW(3) WHERE mapping_uid = ?',
      [this.options.mappingUid],
    );
  }

  /** Committed, with the locks still held: what no transaction can do. */
  protected swapped(): Promise<void> {
    return Promise.resolve();
  }

  /** Called with the changes a round applied, in the same transaction. */
  protected async applied(_changes: KeyedChanges, _applier: TableApplier): Promise<void> {
    // A held table needs no record.
  }

  /** Outside a transaction: describes the target and makes the temporary tables. */
  protected async prepareApplier(): Promise<TableApplier> {
    if (this.#applier) return this.#applier;
    const described = await this.#describeTarget();
    const { columns, key } = this.options.route;
    this.#applier = new TableApplier(this.session, described, columns, key, false);
    await this.#applier.prepare();
    return this.#applier;
  }

  /** The target has new indexes, or is another one: rows that change the columns of unique ones are applied differently. */
  protected async forgetTarget(): Promise<void> {
    await this.#applier?.dropStages();
    this.#applier = null;
    this.#described = null;
  }

  async #describeTarget(): Promise<Table> {
    if (this.#described) return this.#described;
    const table = await describeTarget(new MysqlCatalog(this.connection), this.target);
    requireWritable(table);
    this.#described = table;
    return table;
  }

  #transaction<T>(work: () => Promise<T>, keepLocks = false): Promise<T> {
    return inTransaction(this.session, work, { locker: this.locker, keepLocks });
  }

  /** Locks the generation and checks that this copier still owns it; returns how far the backlog was folded. */
  async #lockGeneration(): Promise<number> {
    const row: Row | undefined = await lockGeneration(this.session, this.locker, this.options.mappingUid);
    if (numberOf(row, 'copy_epoch') !== this.options.copyEpoch) throw hasNewerCopier(this.options.route.target);
    return numberOf(row, 'folded_seq') ?? 0;
  }

  #foldWaiting(
    applier: TableApplier,
    folded: number,
    maxBytes: number,
    fold: FoldWork,
  ): Promise<{ count: number; last: number }> {
    const source = `FROM ${this.#backlog()} WHERE TRUE`;
    const next = (after: number) => readBlock(this.session, 'read a backlog', source, after);
    return foldWaiting({ folded, maxBytes, next }, fold, {
      apply: async (changes) => {
        const counts = await applier.apply(changes);
        await this.applied(changes, applier);
        return counts;
      },
      missing: (keys) => applier.missing(keys),
      attempt: (work) => attempt(this.session, work),
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
      const isOver = hasCode(error, 'CONNECTION_LOST', 'DESTINATION_TABLE_MISSING') && (await this.#isSucceeded());
      if (!isOver) throw error;
      throw wasEnded(this.options.route.target, error);
    }
  }

  async #isSucceeded(): Promise<boolean> {
    const rows = await this.connection
      .query('look who copies now', 'SELECT copy_epoch FROM sluice_generations WHERE mapping_uid = ?', [
        this.options.mappingUid,
      ])
      .catch(() => null);
    return rows !== null && numberOf(rows[0], 'copy_epoch') !== this.options.copyEpoch;
  }

  /** What is over by now; whoever comes next would do it as well. */
  async #sweep(): Promise<void> {
    const { schema } = this.options.route.target;
    await sweep(this.session, this.options.mappingUid, [schema]).catch(() => undefined);
  }

  #backlog(): string {
    return quoteTable(own(backlogTable(this.options.mappingUid, this.options.generation)));
  }
}
