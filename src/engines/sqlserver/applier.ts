/** Takes an apply group over, and what is done on its session (group-session.ts). */
import { SluiceError } from '../../model/errors.ts';
import type { Position } from '../../model/position.ts';
import type { TableName } from '../../model/tables.ts';
import { describeTarget } from '../apply-plan.ts';
import type { Block, GroupApplier, GroupState, Route, RouteChange, StoredBlock } from '../contract.ts';
import { GroupSession, type CommitOptions, type GroupStatements } from '../group-session.ts';
import { readBlock } from './blocks.ts';
import { SqlServerCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { requireUnguarded } from './guards.ts';
import { GROUP, holdMapping, MAPPING } from './hold.ts';
import { LEFT_OUT } from './home.ts';
import { groupLock, Locker } from './locks.ts';
import { reshapeRoute } from './reshape.ts';
import { numberOf, textOf } from '../row-values.ts';
import { LeftOutStore } from '../left-out.ts';
import { ROUTE_COLUMNS, routeOf } from '../stored-route.ts';
import { quoteLiteral, quoteTable } from './sql.ts';
import { TableApplier } from './table-applier.ts';

/** As `Destination.takeGroup`. */
export async function takeGroup(
  connection: Connection,
  options: { stream: string; group: string; epoch: number; lockWaitMs: number; create: Position | null },
): Promise<GroupApplier | null> {
  const { stream, group, epoch, create } = options;
  const named = { stream, group };
  const name = groupLock(stream, group);
  // Beside each other: opening a session takes several round trips.
  const lookup = connection.query(
    'look up the former owner',
    `SELECT owner_session FROM sluice.positions WITH (READUNCOMMITTED) WHERE ${GROUP}`,
    named,
  );
  lookup.catch(() => undefined);
  const session = await connection.open();
  let locker: Locker | null = null;
  try {
    const [before] = await lookup;
    if (!before && create === null) {
      await connection.release(session);
      return null;
    }
    const mine = (locker = await Locker.of(connection, session, options.lockWaitMs));
    await mine.enter(name);
    const former = textOf(before, 'owner_session');
    const where = `stream = ${quoteLiteral(stream)} AND apply_group = ${quoteLiteral(group)}`;
    // One batch to its COMMIT: who takes over and freezes holds nothing. An epoch is taken once: the row's epoch must be lower
    // (PROTOCOL, Ownership).
    const take = [
      'BEGIN TRANSACTION',
      Locker.lockSql(name),
      ...(before || create === null
        ? []
        : [
            `INSERT INTO sluice.positions (stream, apply_group, epoch, position)
             SELECT ${quoteLiteral(stream)}, ${quoteLiteral(group)}, ${epoch - 1}, ${quoteLiteral(create)}
              WHERE NOT EXISTS (SELECT 1 FROM sluice.positions WHERE ${where})`,
          ]),
      `UPDATE sluice.positions SET epoch = ${epoch}, owner_session = ${quoteLiteral(mine.id)}, updated_at = SYSUTCDATETIME()
        OUTPUT inserted.position AS position, inserted.route_version AS route_version WHERE ${where} AND epoch < ${epoch}`,
      // Pieces of earlier owners.
      `DELETE FROM sluice.pieces WHERE ${where} AND epoch < (SELECT epoch FROM sluice.positions WHERE ${where})`,
      'COMMIT TRANSACTION',
    ];
    const rows = await mine.past(name, () => session.query('take the group over', take.join(';\n')), former);
    const row = rows.find((candidate) => 'position' in candidate);
    if (!row) throw new SluiceError('FENCED', `the group ${group} of ${stream} has a newer owner`);
    const state: GroupState = {
      stream,
      group,
      epoch,
      position: textOf(row, 'position') as Position,
      routeVersion: numberOf(row, 'route_version') ?? 0,
    };
    return new GroupSession(new SqlServerGroup(connection, session, mine, state), state);
  } catch (error) {
    await locker?.close();
    await connection.release(session);
    throw error;
  }
}

/** What is done on the group's session (group-session.ts). */
class SqlServerGroup implements GroupStatements<TableApplier> {
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #locker: Locker;
  readonly #state: Pick<GroupState, 'stream' | 'group' | 'epoch'>;
  readonly #where: string;
  readonly leftOut: LeftOutStore;

  constructor(connection: Connection, session: Session, locker: Locker, state: GroupState) {
    this.#connection = connection;
    this.#session = session;
    this.#locker = locker;
    this.#state = state;
    this.leftOut = new LeftOutStore(session, LEFT_OUT);
    this.#where = `stream = ${quoteLiteral(state.stream)} AND apply_group = ${quoteLiteral(state.group)}`;
  }

  async lockPosition() {
    const name = groupLock(this.#state.stream, this.#state.group);
    const rows = await this.#locker.past(name, () =>
      this.#session.query(
        'lock the group’s position',
        `BEGIN TRANSACTION; ${Locker.lockSql(name)};
         SELECT epoch, position, route_version FROM sluice.positions WHERE ${this.#where}`,
      ),
    );
    const row = rows.find((candidate) => 'epoch' in candidate);
    if (!row) return null;
    return {
      epoch: numberOf(row, 'epoch'),
      position: textOf(row, 'position'),
      routeVersion: numberOf(row, 'route_version') ?? 0,
    };
  }

  async readRoutes(): Promise<Route[]> {
    const rows = await this.#session.query(
      'read the routes',
      `SELECT ${ROUTE_COLUMNS} FROM sluice.generations WHERE ${this.#where} ORDER BY mapping_uid`,
    );
    return rows.map(routeOf).filter((route) => route !== null);
  }

  async openTable(route: Route): Promise<TableApplier> {
    const described = await describeTarget(new SqlServerCatalog(this.#connection), route.target);
    requireUnguarded(described);
    return new TableApplier(this.#session, described, route.columns, route.key, true);
  }

  attempt<T>(work: () => Promise<T>): Promise<T> {
    return this.#session.attempt(work);
  }

  async append(backlog: TableName, block: Block): Promise<void> {
    await this.#session.query(
      'append to a backlog',
      `INSERT INTO ${quoteTable(backlog)} (bytes, changes, block) VALUES (@bytes, @changes, @block)`,
      { bytes: block.bytes.length, changes: block.changes, block: block.bytes },
    );
  }

  async hold(mappingUid: string): Promise<Route | null> {
    await holdMapping(this.#session, this.#locker, mappingUid);
    const [row] = await this.#session.query(
      'read the held route',
      `SELECT ${ROUTE_COLUMNS} FROM sluice.generations WHERE ${MAPPING}`,
      { uid: mappingUid },
    );
    return row ? routeOf(row) : null;
  }

  reshape(mappingUid: string, change: RouteChange): Promise<boolean> {
    return reshapeRoute(this.#connection, this.#session, this.#locker, mappingUid, change);
  }

  /** Always durable, unless the database is set to delayed durability for everybody. */
  async commit(position: Position, { discardPieces }: CommitOptions): Promise<boolean> {
    await this.#session.run('commit changes', [
      `UPDATE sluice.positions SET position = ${quoteLiteral(position)}, updated_at = SYSUTCDATETIME() WHERE ${this.#where}`,
      ...(discardPieces ? [`DELETE FROM sluice.pieces WHERE ${this.#where}`] : []),
      'COMMIT TRANSACTION',
    ]);
    return true;
  }

  async rollback(tables: readonly TableApplier[]): Promise<void> {
    await this.#session.rollback();
    try {
      if (!this.#session.lost) for (const table of tables) await table.dropStages();
    } catch {
      // They go with the session.
    }
  }

  async stage(block: Block): Promise<boolean> {
    // The row of an ex-owner finds no epoch to go with.
    const rows = await this.#session.query(
      'keep a piece of a large transaction',
      `INSERT INTO sluice.pieces (stream, apply_group, epoch, changes, block) OUTPUT inserted.seq AS seq
       SELECT stream, apply_group, epoch, @changes, @block FROM sluice.positions WHERE ${GROUP} AND epoch = @epoch`,
      {
        stream: this.#state.stream,
        group: this.#state.group,
        epoch: this.#state.epoch,
        changes: block.changes,
        block: block.bytes,
      },
    );
    return rows.length > 0;
  }

  nextStaged(after: number): Promise<StoredBlock | null> {
    const source = `FROM sluice.pieces WHERE ${this.#where} AND epoch = ${this.#state.epoch}`;
    return readBlock(this.#session, 'read a staged piece', source, after);
  }

  async discardStaged(): Promise<void> {
    await this.#session.run('discard staged pieces', [
      `DELETE FROM sluice.pieces WHERE ${this.#where} AND epoch <= ${this.#state.epoch}`,
    ]);
  }

  async close(): Promise<void> {
    await this.#connection.release(this.#session);
    await this.#locker.close();
  }
}
