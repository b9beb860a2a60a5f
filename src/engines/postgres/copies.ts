/** The copy side of a destination: generations from their staging table to their replacement (PROTOCOL, A copy). */
import { SluiceError } from '../../model/errors.ts';
import type { TableName } from '../../model/tables.ts';
import type {
  CopyDestination,
  CopySession,
  FoldSession,
  GenerationRequest,
  GenerationState,
  RouteChange,
  TableDesign,
} from '../contract.ts';
import { suspendTriggers } from './guards.ts';
import { holdMapping } from './hold.ts';
import type { Connection, Session } from './connection.ts';
import { PostgresCopy } from './copy.ts';
import { PostgresFold } from './fold.ts';
import { claim, createTables, discardCopy, nextGeneration, OtherGeneration, startGeneration } from './generations.ts';
import { ROUTE_COLUMNS, routeOf, routeFor } from '../stored-route.ts';
import { pastFrozenHolders, sessionId } from './locks.ts';
import { addColumns, reshapeRoute } from './reshape.ts';
import { APPLY_SETTINGS } from './table-applier.ts';

class NotReshaped extends Error {}
class NoPosition extends Error {}

export class PostgresCopies implements CopyDestination {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async writers(target: TableName): Promise<string[]> {
    const rows = await this.#connection.query(
      'look who writes to the table',
      `SELECT mapping_uid FROM sluice.generations
        WHERE live_generation IS NOT NULL AND live_route->'target' = $1::jsonb OR copy_generation IS NOT NULL AND copy_route->'target' = $1::jsonb`,
      [JSON.stringify({ schema: target.schema, table: target.table })],
    );
    return rows.map((row) => row['mapping_uid'] ?? '');
  }

  async states(mappingUids: readonly string[]): Promise<GenerationState[]> {
    if (mappingUids.length === 0) return [];
    const rows = await this.#connection.query(
      'read the state of copies',
      `SELECT ${ROUTE_COLUMNS}, finished_request, copy_request, copy_epoch,
              CASE WHEN backlog IS NULL THEN 0 ELSE coalesce(pg_total_relation_size(to_regclass(
                format('sluice.backlog_%s_%s', left(encode(sha256(mapping_uid::bytea), 'hex'), 16), backlog_generation))), 0) END AS backlog_bytes
         FROM sluice.generations WHERE mapping_uid = ANY ($1::text[])`,
      [mappingUids],
    );
    return rows.map((row) => ({
      mappingUid: row['mapping_uid'] ?? '',
      liveGeneration: numberOrNull(row['live_generation']),
      copyGeneration: numberOrNull(row['copy_generation']),
      route: routeOf(row),
      finishedRequest: numberOrNull(row['finished_request']),
      copyRequest: numberOrNull(row['copy_request']),
      copyEpoch: Number(row['copy_epoch']),
      backlogBytes: Number(row['backlog_bytes']),
    }));
  }

  async open(request: GenerationRequest): Promise<CopySession | null> {
    return this.#withSession(async (session) => {
      const id = await sessionId(session);
      const likely = await nextGeneration(session, request);
      if (likely === 'no position') return null;
      for (const prepared of [likely, null]) {
        try {
          const generation = await this.#underPositionLock(session, request, request.lockWaitMs, {
            // So that the stream waits for the rows that coordinate only.
            before: async () => {
              if (prepared !== null) await createTables(session, request, prepared);
            },
            work: () => startGeneration(this.#connection, session, request, id, prepared),
          });
          if (generation === null) return null;
          return new PostgresCopy(this.#connection, session, request, generation);
        } catch (error) {
          // Rolled back, the tables with it: somebody else had a generation in between.
          if (!(error instanceof OtherGeneration)) throw error;
        }
      }
      throw new SluiceError('INTERNAL', 'a generation that was not prepared cannot be another one');
    });
  }

  async abandon(mappingUid: string): Promise<void> {
    await this.#change(mappingUid, 30_000, async (session, row, bump) => {
      if (row['copy_generation'] === null) return;
      await discardCopy(this.#connection, session, mappingUid, row);
      // A table that was held meanwhile has missed what went to the copy's backlog: only another copy mends that.
      await session.query(
        'end a copy',
        `UPDATE sluice.generations SET copy_generation = NULL, copy_route = NULL, copy_request = NULL, copy_plan = NULL,
            backlog = NULL, backlog_generation = NULL, live_generation = CASE WHEN is_live THEN live_generation END,
            copy_epoch = copy_epoch + 1, updated_at = now()
          WHERE mapping_uid = $1`,
        [mappingUid],
      );
      await bump();
    });
  }

  async openHeld(mappingUid: string, copyEpoch: number, lockWaitMs: number): Promise<FoldSession | null> {
    return this.#withSession(async (session) => {
      const id = await sessionId(session);
      const [row] = await pastFrozenHolders(this.#connection, session, lockWaitMs, () =>
        session.query(
          'take over a held backlog',
          `UPDATE sluice.generations SET copy_epoch = $2, copy_session = $3
            WHERE mapping_uid = $1 AND backlog = 'hold' AND copy_epoch < $2
            RETURNING ${ROUTE_COLUMNS}, stream, apply_group`,
          [mappingUid, copyEpoch, id],
        ),
      );
      const route = row ? routeOf(row) : null;
      if (!row || !route || route.generation === null) return null;
      return new PostgresFold(this.#connection, session, {
        mappingUid,
        generation: route.generation,
        copyEpoch,
        lockWaitMs,
        stream: row['stream'] ?? null,
        group: row['apply_group'] ?? '',
        route,
        target: route.target,
      });
    });
  }

  async adopt(request: GenerationRequest): Promise<boolean> {
    const done = await this.#withSession(async (session) => {
      const result = await this.#underPositionLock(session, request, request.lockWaitMs, {
        work: async (bump) => {
          await claim(session, request, null);
          const route = routeFor(request);
          await session.query(
            'adopt the table',
            `UPDATE sluice.generations SET stream = $2, apply_group = $3, last_generation = last_generation + 1,
              live_generation = last_generation + 1, live_route = $4, is_live = $2::text IS NOT NULL,
              finished_request = $5, updated_at = now() WHERE mapping_uid = $1`,
            [request.mappingUid, request.stream, request.group, JSON.stringify(route), request.requestId],
          );
          await bump();
          return true;
        },
      });
      await this.#connection.release(session);
      return result;
    });
    return done ?? false;
  }

  async hold(mappingUid: string, lockWaitMs: number): Promise<boolean> {
    let held = false;
    await this.#change(mappingUid, lockWaitMs, async (session, row) => {
      if (row['stream'] === null) return;
      await holdMapping(this.#connection, session, mappingUid);
      held = true;
    });
    return held;
  }

  async reshape(mappingUid: string, change: RouteChange, lockWaitMs: number): Promise<boolean> {
    let done = false;
    try {
      await this.#change(mappingUid, lockWaitMs, async (session) => {
        done = await reshapeRoute(this.#connection, session, mappingUid, change);
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
    await this.#change(mappingUid, 30_000, async (session, row, bump) => {
      await discardCopy(this.#connection, session, mappingUid, row);
      await session.query('forget what was left out', `DELETE FROM sluice.left_out WHERE mapping_uid = $1`, [
        mappingUid,
      ]);
      await session.query('forget the mapping', `DELETE FROM sluice.generations WHERE mapping_uid = $1`, [mappingUid]);
      await bump();
    });
  }

  /** Changes a mapping's generation row under its group's position row; nothing when there is no row. */
  async #change(
    mappingUid: string,
    lockWaitMs: number,
    work: (session: Session, row: Readonly<Record<string, string | null>>, bump: () => Promise<void>) => Promise<void>,
  ): Promise<void> {
    await this.#withSession(async (session) => {
      const [found] = await session.query(
        'look up the mapping',
        `SELECT stream, apply_group FROM sluice.generations WHERE mapping_uid = $1`,
        [mappingUid],
      );
      if (found) {
        await this.#underPositionLock(
          session,
          { stream: found['stream'] ?? null, group: found['apply_group'] ?? '' },
          lockWaitMs,
          {
            work: async (bump) => {
              const [row] = await session.query(
                'lock the generation',
                `SELECT stream, copy_generation, backlog, backlog_generation FROM sluice.generations WHERE mapping_uid = $1 FOR UPDATE`,
                [mappingUid],
              );
              if (row) await work(session, row, bump);
              return true;
            },
          },
        );
      }
      await this.#connection.release(session);
    });
  }

  /**
   * Lock order: the position row first, then the generation (PROTOCOL). Null: the group has no position row yet, and nothing has
   * happened. `before`: in the same transaction, without a lock that anybody waits for.
   */
  async #underPositionLock<T>(
    session: Session,
    { stream, group }: { readonly stream: string | null; readonly group: string },
    lockWaitMs: number,
    steps: { before?: () => Promise<void>; work: (bump: () => Promise<void>) => Promise<T> },
  ): Promise<T | null> {
    const transaction = async () => {
      await steps.before?.();
      if (stream !== null) {
        const [row] = await session.query(
          'lock the group’s position',
          `SELECT 1 AS locked FROM sluice.positions WHERE stream = $1 AND apply_group = $2 FOR UPDATE`,
          [stream, group],
        );
        if (!row) throw new NoPosition();
      }
      return steps.work(async () => {
        if (stream === null) return;
        await session.query(
          'announce the new route',
          `UPDATE sluice.positions SET route_version = route_version + 1 WHERE stream = $1 AND apply_group = $2`,
          [stream, group],
        );
      });
    };
    try {
      return await pastFrozenHolders(this.#connection, session, lockWaitMs, () =>
        session.transaction('BEGIN', transaction),
      );
    } catch (error) {
      if (error instanceof NoPosition) return null;
      throw error;
    }
  }

  /** The session belongs to what `work` returns; it is released here only when `work` throws or returns null. */
  async #withSession<T>(work: (session: Session) => Promise<T | null>): Promise<T | null> {
    const session = await this.#connection.open();
    try {
      await session.run('set up the copy', [...APPLY_SETTINGS]);
      await suspendTriggers(session);
      const result = await work(session);
      if (result === null) await this.#connection.release(session);
      return result;
    } catch (error) {
      await this.#connection.release(session);
      throw error;
    }
  }
}

function numberOrNull(text: string | null | undefined): number | null {
  return text === null || text === undefined ? null : Number(text);
}
