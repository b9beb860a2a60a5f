/** The copy side of a destination: generations from their staging table to their replacement (PROTOCOL, A copy). */
import type { TableName } from '../../model/tables.ts';
import { backlogTable } from '../home-tables.ts';
import { ROUTE_COLUMNS, routeOf, isSameShape, routeFor, type StoredRoute } from '../stored-route.ts';
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
import { SqlServerCopy } from './copy.ts';
import { SqlServerFold } from './fold.ts';
import { claim, discardCopy, inserted, UNFINISHED } from './generations.ts';
import { announceRoute, GROUP, holdMapping, MAPPING } from './hold.ts';
import { createBacklogSql, stagingOf } from './home.ts';
import { groupLock, Locker, mappingLock, pastFrozenWriters } from './locks.ts';
import { addColumns, reshapeRoute } from './reshape.ts';
import { numberOf, textOf } from '../row-values.ts';
import { quoteLiteral, quoteTable } from './sql.ts';
import { stagingSql } from './staging.ts';

class NotReshaped extends Error {}

/** Mappings that one statement names. */
const UIDS_AT_ONCE = 1000;

export class SqlServerCopies implements CopyDestination {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async writers(target: TableName): Promise<string[]> {
    // Names are the same as the database compares them.
    const names = (route: string) =>
      `JSON_VALUE(${route}, N'$.target.schema') COLLATE DATABASE_DEFAULT = @schema COLLATE DATABASE_DEFAULT
       AND JSON_VALUE(${route}, N'$.target.table') COLLATE DATABASE_DEFAULT = @table COLLATE DATABASE_DEFAULT`;
    const rows = await this.#connection.query(
      'look who writes to the table',
      `SELECT mapping_uid FROM sluice.generations
        WHERE live_generation IS NOT NULL AND ${names('live_route')} OR copy_generation IS NOT NULL AND ${names('copy_route')}`,
      { schema: target.schema, table: target.table },
    );
    return rows.map((row) => textOf(row, 'mapping_uid') ?? '');
  }

  /** A second round trip where there are backlogs. */
  async states(mappingUids: readonly string[]): Promise<GenerationState[]> {
    const rows: Row[] = [];
    for (let at = 0; at < mappingUids.length; at += UIDS_AT_ONCE) {
      // Ours, so literals; OPENJSON needs compatibility level 130, and parameters end at 2,100.
      const uids = mappingUids
        .slice(at, at + UIDS_AT_ONCE)
        .map(quoteLiteral)
        .join(', ');
      rows.push(
        ...(await pastFrozenWriters(this.#connection, () =>
          this.#connection.query(
            'read the state of copies',
            `SELECT ${ROUTE_COLUMNS}, finished_request, copy_request, copy_epoch FROM sluice.generations
              WHERE mapping_uid IN (${uids})`,
          ),
        )),
      );
    }
    const bytes = await this.#backlogBytes(rows);
    return rows.map((row) => {
      const mappingUid = textOf(row, 'mapping_uid') ?? '';
      return {
        mappingUid,
        liveGeneration: numberOf(row, 'live_generation'),
        copyGeneration: numberOf(row, 'copy_generation'),
        route: routeOf(row),
        finishedRequest: numberOf(row, 'finished_request'),
        copyRequest: numberOf(row, 'copy_request'),
        copyEpoch: numberOf(row, 'copy_epoch') ?? 0,
        backlogBytes: bytes.get(mappingUid) ?? 0,
      };
    });
  }

  async #backlogBytes(rows: readonly Row[]): Promise<Map<string, number>> {
    const sums = rows.flatMap((row, i) => {
      const generation = numberOf(row, 'backlog_generation');
      if (textOf(row, 'backlog') === null || generation === null) return [];
      const table = quoteTable(backlogTable(textOf(row, 'mapping_uid') ?? '', generation));
      // One that is gone by now (its copy has finished) is left out; statements are bound when they are reached.
      return [
        `IF OBJECT_ID(N'${table}', N'U') IS NOT NULL SELECT ${i} AS place, SUM(CAST(bytes AS bigint)) AS bytes FROM ${table} WITH (READCOMMITTEDLOCK, READPAST)`,
      ];
    });
    if (sums.length === 0) return new Map();
    const found = await this.#connection.query('measure the backlogs', sums.join(';\n'));
    return new Map(
      found.map((sum) => [textOf(rows[numberOf(sum, 'place') ?? 0], 'mapping_uid') ?? '', numberOf(sum, 'bytes') ?? 0]),
    );
  }

  async open(request: GenerationRequest): Promise<CopySession | null> {
    const { stream, group, mappingUid } = request;
    return this.#withSession(request.lockWaitMs, async (session, locker) => {
      const generation = await this.#underLocks(session, locker, { stream, group, mappingUid }, async () => {
        const row = await claim(session, request);
        // A copier that is frozen with the table locked (fill.ts) would be waited for.
        if (numberOf(row, 'copy_generation') !== null) await locker.endCopiers(mappingUid);
        const route: StoredRoute = { ...routeFor(request), likeLive: request.live !== null };
        const resumes =
          numberOf(row, 'copy_generation') !== null &&
          numberOf(row, 'copy_request') === request.requestId &&
          isSameShape(textOf(row, 'copy_route'), route);
        if (resumes) return numberOf(row, 'copy_generation');
        await discardCopy(session, locker, mappingUid, row);
        const generation = (numberOf(row, 'last_generation') ?? 0) + 1;
        await session.run('create the staging table', [
          ...stagingSql(request, stagingOf(route, mappingUid, generation)),
          ...(stream === null ? [] : [createBacklogSql(backlogTable(mappingUid, generation))]),
        ]);
        await session.query(
          'start a generation',
          `UPDATE sluice.generations SET stream = @stream, apply_group = @group, last_generation = @generation,
              copy_generation = @generation, copy_route = @route, copy_request = @request, copy_plan = NULL,
              is_key_built = 0, is_indexed = 0, backlog = @backlog,
              backlog_generation = CASE WHEN @backlog IS NULL THEN NULL ELSE @generation END, folded_seq = 0,
              updated_at = SYSUTCDATETIME() WHERE ${MAPPING}`,
          {
            uid: mappingUid,
            stream,
            group,
            generation,
            route: JSON.stringify(route),
            request: request.requestId,
            backlog: stream === null ? null : 'copy',
          },
        );
        await announceRoute(session, { stream, group });
        return generation;
      });
      if (generation === null) return null;
      await locker.announceCopier(mappingUid);
      return new SqlServerCopy(this.#connection, session, locker, request, generation);
    });
  }

  async abandon(mappingUid: string): Promise<void> {
    await this.#change(mappingUid, 30_000, async (session, locker, row) => {
      if (numberOf(row, 'copy_generation') === null) return;
      await discardCopy(session, locker, mappingUid, row);
      // A table that was held meanwhile has missed what went to the copy's backlog: only another copy mends that.
      await session.query(
        'end a copy',
        `UPDATE sluice.generations SET copy_generation = NULL, copy_route = NULL, copy_request = NULL, copy_plan = NULL,
            backlog = NULL, backlog_generation = NULL, live_generation = CASE WHEN is_live = 1 THEN live_generation END,
            copy_epoch = copy_epoch + 1, updated_at = SYSUTCDATETIME() WHERE ${MAPPING}`,
        { uid: mappingUid },
      );
      await announceRoute(session, { stream: textOf(row, 'stream'), group: textOf(row, 'apply_group') });
    });
  }

  async openHeld(mappingUid: string, copyEpoch: number, lockWaitMs: number): Promise<FoldSession | null> {
    return this.#withSession(lockWaitMs, async (session, locker) => {
      await locker.enter(mappingLock(mappingUid));
      const row = await session.transaction(async () => {
        await locker.lock(mappingLock(mappingUid));
        const [taken] = await session.query(
          'take over a held backlog',
          `UPDATE sluice.generations SET copy_epoch = @epoch OUTPUT ${inserted(`${ROUTE_COLUMNS}, stream, apply_group`)}
            WHERE ${MAPPING} AND backlog = N'hold' AND copy_epoch < @epoch`,
          { uid: mappingUid, epoch: copyEpoch },
        );
        return taken;
      });
      const route = row ? routeOf(row) : null;
      if (!row || !route || route.generation === null) return null;
      await locker.announceCopier(mappingUid);
      return new SqlServerFold(this.#connection, session, locker, {
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
    let done: boolean | null = null;
    await this.#withSession(request.lockWaitMs, async (session, locker) => {
      done = await this.#underLocks(session, locker, { stream, group, mappingUid }, async () => {
        await claim(session, request);
        await session.query(
          'adopt the table',
          `UPDATE sluice.generations SET stream = @stream, apply_group = @group, last_generation = last_generation + 1,
              live_generation = last_generation + 1, live_route = @route, is_live = CASE WHEN @stream IS NULL THEN 0 ELSE 1 END,
              finished_request = @request, updated_at = SYSUTCDATETIME() WHERE ${MAPPING}`,
          { uid: mappingUid, stream, group, route: JSON.stringify(routeFor(request)), request: request.requestId },
        );
        await announceRoute(session, { stream, group });
        return true;
      });
      return null;
    });
    return done ?? false;
  }

  async hold(mappingUid: string, lockWaitMs: number): Promise<boolean> {
    let held = false;
    await this.#change(mappingUid, lockWaitMs, async (session, locker, row) => {
      if (textOf(row, 'stream') === null) return;
      await holdMapping(session, locker, mappingUid);
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
    await this.#change(mappingUid, 30_000, async (session, locker, row) => {
      await discardCopy(session, locker, mappingUid, row);
      await session.query('forget what was left out', `DELETE FROM sluice.left_out WHERE ${MAPPING}`, {
        uid: mappingUid,
      });
      await session.query('forget the mapping', `DELETE FROM sluice.generations WHERE ${MAPPING}`, { uid: mappingUid });
      await announceRoute(session, { stream: textOf(row, 'stream'), group: textOf(row, 'apply_group') });
    });
  }

  /** Changes a mapping's generation row under its group's position; nothing when there is no row. */
  async #change(
    mappingUid: string,
    lockWaitMs: number,
    work: (session: Session, locker: Locker, row: Row) => Promise<void>,
  ): Promise<void> {
    await this.#withSession(lockWaitMs, async (session, locker) => {
      const uid = { uid: mappingUid };
      const [found] = await session.query(
        'look up the mapping',
        `SELECT stream, apply_group FROM sluice.generations WHERE ${MAPPING}`,
        uid,
      );
      if (found) {
        const names = { stream: textOf(found, 'stream'), group: textOf(found, 'apply_group') ?? '', mappingUid };
        await this.#underLocks(session, locker, names, async () => {
          const [row] = await session.query(
            'read the generation',
            `SELECT stream, apply_group, ${UNFINISHED} FROM sluice.generations WHERE ${MAPPING}`,
            uid,
          );
          if (row) await work(session, locker, row);
          return true;
        });
      }
      return null;
    });
  }

  /** Lock order: the position first, then the generation (PROTOCOL). Null: the group has no position yet. */
  async #underLocks<T>(
    session: Session,
    locker: Locker,
    names: { readonly stream: string | null; readonly group: string; readonly mappingUid: string },
    work: () => Promise<T>,
  ): Promise<T | null> {
    const { stream, group, mappingUid } = names;
    await locker.enter(mappingLock(mappingUid));
    return session.transaction(async () => {
      if (stream !== null) {
        await locker.lock(groupLock(stream, group));
        const [position] = await session.query(
          'look for the group’s position',
          `SELECT 1 AS found FROM sluice.positions WHERE ${GROUP}`,
          { stream, group },
        );
        if (!position) return null;
      }
      await locker.lock(mappingLock(mappingUid));
      return work();
    });
  }

  /** The session belongs to what `work` returns; it is given back here, and only here, when `work` returns null or throws. */
  async #withSession<T>(
    lockWaitMs: number,
    work: (session: Session, locker: Locker) => Promise<T | null>,
  ): Promise<T | null> {
    const session = await this.#connection.take();
    let locker: Locker | null = null;
    try {
      locker = await Locker.of(this.#connection, session, lockWaitMs);
      const result = await work(session, locker);
      if (result === null) await locker.leave();
      return result;
    } catch (error) {
      await this.#connection.release(session);
      await locker?.close();
      throw error;
    }
  }
}
