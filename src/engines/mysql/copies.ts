/** The copy side of a destination: generations from their staging table to their replacement (PROTOCOL, A copy). */
import type { TableName } from '../../model/tables.ts';
import { hasNewerCopier } from '../backlog-fold.ts';
import { backlogTable } from '../home-tables.ts';
import { numberOf, textOf } from '../row-values.ts';
import { routeOf, routeFor, type StoredRoute } from '../stored-route.ts';
import type {
  CopyDestination,
  CopySession,
  FoldSession,
  GenerationRequest,
  GenerationState,
  RouteChange,
  TableDesign,
} from '../contract.ts';
import type { Connection, Row, Session } from './connection.ts';
import { MysqlCopy, stagingSql } from './copy.ts';
import { MysqlFold } from './fold.ts';
import { readStates, writersOf } from './generation-states.ts';
import { claim, stagingOf, sweep } from './generations.ts';
import { announceRoute, holdMapping, lockGeneration } from './hold.ts';
import { createBacklogSql, own } from './home.ts';
import { Locker } from './locks.ts';
import { addColumns, reshapeRoute } from './reshape.ts';
import { quoteTable } from './sql.ts';
import { settleGroup } from './swaps.ts';
import { inTransaction, openWriter } from './transactions.ts';

class NotReshaped extends Error {}

const LOCK_WAIT_MS = 30_000;

interface Names {
  readonly stream: string | null;
  readonly group: string;
  readonly mappingUid: string;
}

export class MysqlCopies implements CopyDestination {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  writers(target: TableName): Promise<string[]> {
    return writersOf(this.#connection, target);
  }

  states(mappingUids: readonly string[]): Promise<GenerationState[]> {
    return readStates(this.#connection, mappingUids);
  }

  async open(request: GenerationRequest): Promise<CopySession | null> {
    const { stream, group, mappingUid, target } = request;
    if (stream !== null && !(await this.#hasPosition(stream, group))) return null;
    return this.#withSession(request.lockWaitMs, async (session, locker) => {
      const route: StoredRoute = { ...routeFor(request), likeLive: request.live !== null };
      const claimed = await claim(session, locker, request, route);
      await locker.announceCopier(mappingUid);
      const copy = (generation: number, number: number) =>
        new MysqlCopy(this.#connection, session, locker, request, { generation, number });
      if (claimed.resumes)
        return copy(numberOf(claimed.resumes, 'copy_generation') ?? 0, numberOf(claimed.resumes, 'copy_table') ?? 0);
      const generation = claimed.reserved;
      const staging = stagingOf(target, mappingUid, generation);
      const backlog = own(backlogTable(mappingUid, generation));
      await session.run('create the staging table', [
        `DROP TABLE IF EXISTS ${quoteTable(staging)}, ${quoteTable(backlog)}`,
        stagingSql(request, staging),
        ...(stream === null ? [] : [createBacklogSql(backlog)]),
      ]);
      const isOpen = await this.#underLocks(session, locker, { stream, group, mappingUid }, async (row) => {
        if (numberOf(row, 'copy_epoch') !== request.copyEpoch) throw hasNewerCopier(target);
        await session.query('discard chunk marks', 'DELETE FROM sluice_chunks WHERE mapping_uid = ?', [mappingUid]);
        await session.query(
          'start a generation',
          `UPDATE sluice_generations SET stream = ?, apply_group = ?, reserved = NULL, copy_generation = ?, copy_table = ?, copy_route = ?,
              copy_request = ?, copy_plan = NULL, is_indexed = 0, backlog = ?, backlog_generation = ?, folded_seq = 0, updated_at = NOW(3)
            WHERE mapping_uid = ?`,
          [
            stream,
            group,
            generation,
            generation,
            JSON.stringify(route),
            request.requestId,
            stream === null ? null : 'copy',
            stream === null ? null : generation,
            mappingUid,
          ],
        );
        await announceRoute(session, { stream, group });
        return true;
      });
      if (isOpen === null) {
        await locker.retract();
        return null;
      }
      await sweep(session, mappingUid, [target.schema]);
      return copy(generation, generation);
    });
  }

  async abandon(mappingUid: string): Promise<void> {
    await this.#change(mappingUid, LOCK_WAIT_MS, async (session, locker, row) => {
      if (numberOf(row, 'copy_generation') === null) return;
      // A table that was held meanwhile has missed what went to the copy's backlog: only another copy mends that.
      await session.query(
        'end a copy',
        `UPDATE sluice_generations SET copy_generation = NULL, copy_table = NULL, copy_route = NULL, copy_request = NULL, copy_plan = NULL,
            reserved = NULL, backlog = NULL, backlog_generation = NULL, live_generation = IF(is_live = 1, live_generation, NULL),
            copy_epoch = copy_epoch + 1, updated_at = NOW(3) WHERE mapping_uid = ?`,
        [mappingUid],
      );
      await session.query('discard chunk marks', 'DELETE FROM sluice_chunks WHERE mapping_uid = ?', [mappingUid]);
      await announceRoute(session, { stream: textOf(row, 'stream'), group: textOf(row, 'apply_group') });
      await locker.endCopiers(mappingUid);
    });
  }

  async openHeld(mappingUid: string, copyEpoch: number, lockWaitMs: number): Promise<FoldSession | null> {
    return this.#withSession(lockWaitMs, async (session, locker) => {
      const row = await inTransaction(
        session,
        async () => {
          const found = await lockGeneration(session, locker, mappingUid);
          if (textOf(found, 'backlog') !== 'hold' || (numberOf(found, 'copy_epoch') ?? 0) >= copyEpoch) return null;
          await session.query(
            'take over a held backlog',
            'UPDATE sluice_generations SET copy_epoch = ? WHERE mapping_uid = ?',
            [copyEpoch, mappingUid],
          );
          return found ?? null;
        },
        { locker },
      );
      const route = row ? routeOf(row) : null;
      if (!row || !route || route.generation === null) return null;
      await locker.endCopiers(mappingUid);
      await locker.announceCopier(mappingUid);
      return new MysqlFold(this.#connection, session, locker, {
        mappingUid,
        generation: route.generation,
        copyEpoch,
        stream: textOf(row, 'stream'),
        group: textOf(row, 'apply_group') ?? '',
        route,
        target: route.target,
      });
    });
  }

  async adopt(request: GenerationRequest): Promise<boolean> {
    const { stream, group, mappingUid } = request;
    if (stream !== null && !(await this.#hasPosition(stream, group))) return false;
    const done = await this.#withSession(request.lockWaitMs, async (session, locker) => {
      await claim(session, locker, request, routeFor(request));
      const result = await this.#underLocks(session, locker, { stream, group, mappingUid }, async (row) => {
        if (numberOf(row, 'copy_epoch') !== request.copyEpoch) throw hasNewerCopier(request.target);
        const generation = numberOf(row, 'last_generation');
        await session.query(
          'adopt the table',
          `UPDATE sluice_generations SET stream = ?, apply_group = ?, reserved = NULL, live_generation = ?, live_route = ?, is_live = ?,
              finished_request = ?, updated_at = NOW(3) WHERE mapping_uid = ?`,
          [
            stream,
            group,
            generation,
            JSON.stringify(routeFor(request)),
            stream === null ? 0 : 1,
            request.requestId,
            mappingUid,
          ],
        );
        await announceRoute(session, { stream, group });
        return true;
      });
      await this.#connection.release(session);
      return result;
    });
    return done ?? false;
  }

  async hold(mappingUid: string, lockWaitMs: number): Promise<boolean> {
    let held = false;
    await this.#change(mappingUid, lockWaitMs, async (session, locker, row) => {
      if (textOf(row, 'stream') === null) return;
      await holdMapping(this.#connection, session, locker, mappingUid);
      held = true;
    });
    return held;
  }

  async reshape(mappingUid: string, change: RouteChange, lockWaitMs: number): Promise<boolean> {
    let done = false;
    try {
      await this.#change(mappingUid, lockWaitMs, async (session, locker) => {
        done = await reshapeRoute(this.#connection, session, locker, mappingUid, change);
        // Thrown to have it rolled back.
        if (!done) throw new NotReshaped();
      });
    } catch (error) {
      if (!(error instanceof NotReshaped)) throw error;
    }
    return done;
  }

  addColumns(target: TableName, design: TableDesign, columns: readonly string[]): Promise<void> {
    return addColumns(this.#connection, target, design, columns);
  }

  async forget(mappingUid: string): Promise<void> {
    let target: TableName | null = null;
    await this.#change(mappingUid, LOCK_WAIT_MS, async (session, locker, row) => {
      const route = textOf(row, 'copy_route') ?? textOf(row, 'live_route');
      target = route === null ? null : (JSON.parse(route) as StoredRoute).target;
      await session.query('discard chunk marks', 'DELETE FROM sluice_chunks WHERE mapping_uid = ?', [mappingUid]);
      await session.query('forget what was left out', 'DELETE FROM sluice_left_out WHERE mapping_uid = ?', [
        mappingUid,
      ]);
      // The row itself goes last: as long as it is there, somebody drops what it named.
      await session.query(
        'route nothing to the mapping',
        `UPDATE sluice_generations SET live_generation = NULL, is_live = 0, copy_generation = NULL, copy_table = NULL, copy_request = NULL,
            copy_plan = NULL, reserved = NULL, backlog = NULL, backlog_generation = NULL, copy_epoch = copy_epoch + 1,
            updated_at = NOW(3) WHERE mapping_uid = ?`,
        [mappingUid],
      );
      await announceRoute(session, { stream: textOf(row, 'stream'), group: textOf(row, 'apply_group') });
      await locker.endCopiers(mappingUid);
    });
    const schema = (target as TableName | null)?.schema ?? '';
    await this.#connection.use((session) => sweep(session, mappingUid, [schema]));
    await this.#connection.query(
      'forget the mapping',
      'DELETE FROM sluice_generations WHERE mapping_uid = ? AND reserved IS NULL',
      [mappingUid],
    );
  }

  async #hasPosition(stream: string, group: string): Promise<boolean> {
    const rows = await this.#connection.query(
      'look for the group’s position',
      'SELECT 1 AS found FROM sluice_positions WHERE stream = ? AND apply_group = ?',
      [stream, group],
    );
    return rows.length > 0;
  }

  /** Changes a mapping's generation row under its group's position; nothing when there is no row. Then drops what it no longer names. */
  async #change(
    mappingUid: string,
    lockWaitMs: number,
    work: (session: Session, locker: Locker, row: Row) => Promise<void>,
  ): Promise<void> {
    await this.#withSession(lockWaitMs, async (session, locker) => {
      const [found] = await session.query(
        'look up the mapping',
        'SELECT stream, apply_group, live_route, copy_route FROM sluice_generations WHERE mapping_uid = ?',
        [mappingUid],
      );
      if (!found) return null;
      const names = { stream: textOf(found, 'stream'), group: textOf(found, 'apply_group') ?? '', mappingUid };
      await this.#underLocks(session, locker, names, (row) => work(session, locker, row));
      const schemas = ['live_route', 'copy_route'].flatMap((column) => {
        const route = textOf(found, column);
        return route === null ? [] : [(JSON.parse(route) as StoredRoute).target.schema];
      });
      await sweep(session, mappingUid, schemas);
      return null;
    });
  }

  /** Lock order: the position first, then the generation (PROTOCOL). Null: the group has no position yet, or the mapping no row. */
  async #underLocks<T>(
    session: Session,
    locker: Locker,
    { stream, group, mappingUid }: Names,
    work: (row: Row) => Promise<T>,
  ): Promise<T | null> {
    if (stream !== null) {
      await locker.group(stream, group);
      await settleGroup(session, stream, group);
    }
    return inTransaction(
      session,
      async () => {
        if (stream !== null) {
          const rows = await session.query(
            'lock the group’s position',
            'SELECT epoch FROM sluice_positions WHERE stream = ? AND apply_group = ? FOR UPDATE',
            [stream, group],
          );
          if (rows.length === 0) return null;
        }
        const row = await lockGeneration(session, locker, mappingUid);
        return row ? work(row) : null;
      },
      { locker },
    );
  }

  /** The session belongs to what `work` returns; it is released here only when `work` throws or returns null. */
  async #withSession<T>(
    lockWaitMs: number,
    work: (session: Session, locker: Locker) => Promise<T | null>,
  ): Promise<T | null> {
    const session = await openWriter(this.#connection, { patient: false });
    const locker = new Locker(this.#connection, session, lockWaitMs);
    try {
      const result = await work(session, locker);
      if (result === null) await this.#connection.release(session);
      return result;
    } catch (error) {
      await this.#connection.release(session);
      await locker.retract();
      throw error;
    }
  }
}
