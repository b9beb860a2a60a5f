/** Takes an apply group over, and what is done on its session (group-session.ts). */
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { Position } from '../../model/position.ts';
import type { TableName } from '../../model/tables.ts';
import { describeTarget } from '../apply-plan.ts';
import type { Block, GroupApplier, GroupState, Route, RouteChange, StoredBlock } from '../contract.ts';
import { GroupSession, type CommitOptions, type GroupStatements } from '../group-session.ts';
import { LeftOutStore } from '../left-out.ts';
import { ROUTE_COLUMNS, routeOf } from '../stored-route.ts';
import { readBlock } from './blocks.ts';
import { PostgresCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { requireUnguarded, suspend, suspendTriggers } from './guards.ts';
import { holdMapping } from './hold.ts';
import { LEFT_OUT } from './home.ts';
import { pastFrozenHolders, sessionId } from './locks.ts';
import { reshapeRoute } from './reshape.ts';
import { quoteLiteral, quoteTable } from './sql.ts';
import { APPLY_SETTINGS, beginApplying, TableApplier } from './table-applier.ts';

const LOCK_MARGIN_MS = 1000;

/** As `Destination.takeGroup`. */
export async function takeGroup(
  connection: Connection,
  options: { stream: string; group: string; epoch: number; lockWaitMs: number; create: Position | null },
): Promise<GroupApplier | null> {
  const { stream, group, epoch } = options;
  const session = await connection.open();
  try {
    await session.run('set up the applier', [...APPLY_SETTINGS]);
    await suspendTriggers(session);
    const [before] = await connection.query(
      'look up the former owner',
      `SELECT owner_session FROM sluice.positions WHERE stream = $1 AND apply_group = $2`,
      [stream, group],
    );
    if (!before && options.create === null) {
      await connection.release(session);
      return null;
    }
    const id = await sessionId(session);
    const take = async () => {
      if (!before && options.create !== null) {
        await session.query(
          'create the group’s position',
          `INSERT INTO sluice.positions (stream, apply_group, epoch, position) VALUES ($1, $2, $3::bigint - 1, $4) ON CONFLICT DO NOTHING`,
          [stream, group, epoch, options.create],
        );
      }
      // An epoch is taken once: the row's epoch must be lower (PROTOCOL, Ownership).
      return session.query(
        'take the group over',
        `UPDATE sluice.positions SET epoch = $3, owner_session = $4, updated_at = now()
          WHERE stream = $1 AND apply_group = $2 AND epoch < $3 RETURNING position, route_version`,
        [stream, group, epoch, id],
      );
    };
    const [row] = await pastFrozenHolders(
      connection,
      session,
      options.lockWaitMs,
      take,
      before?.['owner_session'] ?? null,
    );
    if (!row) throw new SluiceError('FENCED', `the group ${group} of ${stream} has a newer owner`);
    // A table that somebody locks is not waited for for ever; longer than for a holder of the row that is frozen.
    await session.run('bound the wait for locks', [`SET lock_timeout = ${options.lockWaitMs + LOCK_MARGIN_MS}`]);
    await session.query(
      'discard pieces of earlier owners',
      `DELETE FROM sluice.pieces WHERE stream = $1 AND apply_group = $2 AND epoch < $3`,
      [stream, group, epoch],
    );
    const state: GroupState = {
      stream,
      group,
      epoch,
      position: row['position'] as Position,
      routeVersion: Number(row['route_version']),
    };
    return new GroupSession(new PostgresGroup(connection, session, state, options.lockWaitMs), state);
  } catch (error) {
    await connection.release(session);
    throw error;
  }
}

/** What is done on the group's session (group-session.ts). */
class PostgresGroup implements GroupStatements<TableApplier> {
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #epoch: number;
  readonly #lockWaitMs: number;
  readonly #where: string;
  readonly leftOut: LeftOutStore;

  constructor(connection: Connection, session: Session, state: GroupState, lockWaitMs: number) {
    this.#connection = connection;
    this.#session = session;
    this.#epoch = state.epoch;
    this.#lockWaitMs = lockWaitMs;
    this.leftOut = new LeftOutStore(session, LEFT_OUT);
    this.#where = `stream = ${quoteLiteral(state.stream)} AND apply_group = ${quoteLiteral(state.group)}`;
  }

  async lockPosition() {
    for (;;) {
      try {
        const [row] = await pastFrozenHolders(this.#connection, this.#session, this.#lockWaitMs, () =>
          this.#session.query(
            'lock the group’s position',
            `BEGIN; SELECT epoch, position, route_version FROM sluice.positions WHERE ${this.#where} FOR UPDATE`,
          ),
        );
        if (!row) return null;
        beginApplying(this.#session);
        return {
          epoch: Number(row['epoch']),
          position: row['position'] ?? null,
          routeVersion: Number(row['route_version']),
        };
      } catch (error) {
        if (!hasCode(error, 'TIMEOUT')) throw error;
        await this.#session.run('roll back', ['ROLLBACK']);
      }
    }
  }

  async readRoutes(): Promise<Route[]> {
    const rows = await this.#session.query(
      'read the routes',
      `SELECT ${ROUTE_COLUMNS} FROM sluice.generations WHERE ${this.#where} ORDER BY mapping_uid`,
    );
    return rows.map(routeOf).filter((route) => route !== null);
  }

  async openTable(route: Route): Promise<TableApplier> {
    const described = await describeTarget(new PostgresCatalog(this.#connection), route.target);
    await requireUnguarded(described, () => this.#session.attempt(() => suspend(this.#session)));
    return new TableApplier(this.#session, described, route.columns, route.key, true);
  }

  attempt<T>(work: () => Promise<T>): Promise<T> {
    return this.#session.attempt(work);
  }

  async append(backlog: TableName, block: Block): Promise<void> {
    await this.#session.query(
      'append to a backlog',
      `INSERT INTO ${quoteTable(backlog)} (bytes, changes, block) VALUES ($1, $2, $3)`,
      [block.bytes.length, block.changes, block.bytes],
    );
  }

  async hold(mappingUid: string): Promise<Route | null> {
    await holdMapping(this.#connection, this.#session, mappingUid);
    const [row] = await this.#session.query(
      'read the held route',
      `SELECT ${ROUTE_COLUMNS} FROM sluice.generations WHERE mapping_uid = $1`,
      [mappingUid],
    );
    return row ? routeOf(row) : null;
  }

  reshape(mappingUid: string, change: RouteChange): Promise<boolean> {
    return reshapeRoute(this.#connection, this.#session, mappingUid, change);
  }

  async commit(position: Position, { discardPieces, lazily }: CommitOptions): Promise<boolean> {
    await this.#session.run('commit changes', [
      // The log is written in order: the next commit that waits for the disk, waits for this one too.
      ...(lazily ? ['SET LOCAL synchronous_commit = off'] : []),
      `UPDATE sluice.positions SET position = ${quoteLiteral(position)}, updated_at = now() WHERE ${this.#where}`,
      ...(discardPieces ? [`DELETE FROM sluice.pieces WHERE ${this.#where}`] : []),
      'COMMIT',
    ]);
    return !lazily;
  }

  async rollback(): Promise<void> {
    if (!this.#session.lost) await this.#session.run('roll back', ['ROLLBACK']).catch(() => undefined);
    if (!this.#session.lost) await this.#session.run('drop temporary tables', ['DISCARD TEMP']).catch(() => undefined);
  }

  async stage(block: Block): Promise<boolean> {
    // The row of an ex-owner finds no epoch to go with.
    const rows = await this.#session.query(
      'keep a piece of a large transaction',
      `INSERT INTO sluice.pieces (stream, apply_group, epoch, changes, block)
       SELECT stream, apply_group, epoch, $1::int, $2::bytea FROM sluice.positions WHERE ${this.#where} AND epoch = $3 RETURNING seq`,
      [block.changes, block.bytes, this.#epoch],
    );
    return rows.length > 0;
  }

  nextStaged(after: number): Promise<StoredBlock | null> {
    const source = `FROM sluice.pieces WHERE ${this.#where} AND epoch = ${this.#epoch}`;
    return readBlock(this.#session, 'read a staged piece', source, after);
  }

  async discardStaged(): Promise<void> {
    await this.#session.run('discard staged pieces', [
      `DELETE FROM sluice.pieces WHERE ${this.#where} AND epoch <= ${this.#epoch}`,
    ]);
  }

  async close(): Promise<void> {
    await this.#connection.release(this.#session);
  }
}
