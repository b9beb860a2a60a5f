/** Takes an apply group over, and what is done on its session (group-session.ts). */
import { SluiceError } from '../../model/errors.ts';
import type { Position } from '../../model/position.ts';
import type { TableName } from '../../model/tables.ts';
import { describeTarget } from '../apply-plan.ts';
import type { Block, GroupApplier, GroupState, Route, RouteChange, StoredBlock } from '../contract.ts';
import { GroupSession, type CommitOptions, type GroupStatements } from '../group-session.ts';
import { flagOf, numberOf, textOf } from '../row-values.ts';
import { LeftOutStore } from '../left-out.ts';
import { ROUTE_COLUMNS, routeOf } from '../stored-route.ts';
import { readBlock } from './blocks.ts';
import { MysqlCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { requireWritable } from './guards.ts';
import { holdMapping } from './hold.ts';
import { LEFT_OUT, own } from './home.ts';
import { Locker } from './locks.ts';
import { reshapeRoute } from './reshape.ts';
import { quoteLiteral, quoteTable } from './sql.ts';
import { settleGroup } from './swaps.ts';
import { TableApplier } from './table-applier.ts';
import { attempt, BEGIN, commit, openWriter, rollback } from './transactions.ts';

/** As `Destination.takeGroup`. */
export async function takeGroup(
  connection: Connection,
  options: { stream: string; group: string; epoch: number; lockWaitMs: number; create: Position | null },
): Promise<GroupApplier | null> {
  const { stream, group, epoch, create } = options;
  const where = `stream = ${quoteLiteral(stream)} AND apply_group = ${quoteLiteral(group)}`;
  const [before] = await connection.query(
    'look up the former owner',
    `SELECT owner_session FROM sluice_positions WHERE ${where}`,
  );
  if (!before && create === null) return null;
  const session = await openWriter(connection, { patient: false });
  try {
    const locker = new Locker(connection, session, options.lockWaitMs);
    await locker.group(stream, group, numberOf(before, 'owner_session'));
    // One round trip to its COMMIT: who takes over and freezes holds no row. An epoch is taken once: the row's epoch must be lower
    // (PROTOCOL, Ownership).
    const answers = await session.batch('take the group over', [
      ...BEGIN,
      ...(create === null
        ? []
        : [
            `INSERT IGNORE INTO sluice_positions (stream, apply_group, epoch, position)
             VALUES (${quoteLiteral(stream)}, ${quoteLiteral(group)}, ${epoch - 1}, ${quoteLiteral(create)})`,
          ]),
      `UPDATE sluice_positions SET epoch = ${epoch}, owner_session = CONNECTION_ID(), updated_at = NOW(3)
        WHERE ${where} AND epoch < ${epoch}`,
      `SELECT position, route_version FROM sluice_positions WHERE ${where} AND epoch = ${epoch} AND owner_session = CONNECTION_ID()`,
      // Pieces of earlier owners.
      `DELETE FROM sluice_pieces WHERE ${where} AND epoch < ${epoch}`,
      'COMMIT',
      'SET autocommit = 1',
    ]);
    const row = answers.flat().find((candidate) => 'position' in candidate);
    if (!row) throw new SluiceError('FENCED', `the group ${group} of ${stream} has a newer owner`);
    await settleGroup(session, stream, group);
    await locker.release();
    const state: GroupState = {
      stream,
      group,
      epoch,
      position: textOf(row, 'position') as Position,
      routeVersion: numberOf(row, 'route_version') ?? 0,
    };
    return new GroupSession(new MysqlGroup(connection, session, locker, state), state);
  } catch (error) {
    await connection.release(session);
    throw error;
  }
}

/** What is done on the group's session (group-session.ts). */
class MysqlGroup implements GroupStatements<TableApplier> {
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
    const { stream, group } = this.#state;
    const select = `SELECT epoch, position, route_version, has_renames FROM sluice_positions WHERE ${this.#where} FOR UPDATE`;
    await this.#locker.group(stream, group);
    for (;;) {
      const answers = await this.#session.batch('lock the group’s position', [...BEGIN, select]);
      const row = answers.flat().find((candidate) => 'epoch' in candidate);
      if (!row) return null;
      if (!flagOf(row, 'has_renames'))
        return {
          epoch: numberOf(row, 'epoch'),
          position: textOf(row, 'position'),
          routeVersion: numberOf(row, 'route_version') ?? 0,
        };
      // A swap was decided by somebody who was killed before the name followed.
      await this.#session.run('let go of the position', ['ROLLBACK', 'SET autocommit = 1']);
      await settleGroup(this.#session, stream, group);
    }
  }

  async readRoutes(): Promise<Route[]> {
    const rows = await this.#session.query(
      'read the routes',
      `SELECT ${ROUTE_COLUMNS} FROM sluice_generations WHERE ${this.#where} ORDER BY mapping_uid`,
    );
    return rows.map(routeOf).filter((route) => route !== null);
  }

  async openTable(route: Route): Promise<TableApplier> {
    const described = await describeTarget(new MysqlCatalog(this.#connection), route.target);
    requireWritable(described);
    return new TableApplier(this.#session, described, route.columns, route.key, true);
  }

  attempt<T>(work: () => Promise<T>): Promise<T> {
    return attempt(this.#session, work);
  }

  async append(backlog: TableName, block: Block): Promise<void> {
    await this.#session.query(
      'append to a backlog',
      `INSERT INTO ${quoteTable(own(backlog))} (bytes, changes, block) VALUES (?, ?, ?)`,
      [block.bytes.length, block.changes, block.bytes],
    );
  }

  async hold(mappingUid: string): Promise<Route | null> {
    await holdMapping(this.#connection, this.#session, this.#locker, mappingUid);
    const [row] = await this.#session.query(
      'read the held route',
      `SELECT ${ROUTE_COLUMNS} FROM sluice_generations WHERE mapping_uid = ?`,
      [mappingUid],
    );
    return row ? routeOf(row) : null;
  }

  reshape(mappingUid: string, change: RouteChange): Promise<boolean> {
    return reshapeRoute(this.#connection, this.#session, this.#locker, mappingUid, change);
  }

  /** As durable as the server makes every commit (innodb_flush_log_at_trx_commit): a session cannot say. */
  async commit(position: Position, { discardPieces }: CommitOptions): Promise<boolean> {
    const statements = [
      `UPDATE sluice_positions SET position = ${quoteLiteral(position)}, updated_at = NOW(3) WHERE ${this.#where}`,
      ...(discardPieces ? [`DELETE FROM sluice_pieces WHERE ${this.#where}`] : []),
    ];
    await commit(this.#session, 'commit changes', statements, this.#locker);
    return true;
  }

  async rollback(tables: readonly TableApplier[]): Promise<void> {
    await rollback(this.#session, this.#locker);
    try {
      if (!this.#session.lost) for (const table of tables) await table.dropStages();
    } catch {
      // They go with the session.
    }
  }

  async stage(block: Block): Promise<boolean> {
    // The row of an ex-owner finds no epoch to go with.
    const { stream, group, epoch } = this.#state;
    const { rows } = await this.#session.change(
      'keep a piece of a large transaction',
      `INSERT INTO sluice_pieces (stream, apply_group, epoch, changes, block)
       SELECT stream, apply_group, epoch, ?, ? FROM sluice_positions WHERE stream = ? AND apply_group = ? AND epoch = ? LOCK IN SHARE MODE`,
      [block.changes, block.bytes, stream, group, epoch],
    );
    return rows > 0;
  }

  nextStaged(after: number): Promise<StoredBlock | null> {
    const source = `FROM sluice_pieces WHERE ${this.#where} AND epoch = ${this.#state.epoch}`;
    return readBlock(this.#session, 'read a staged piece', source, after);
  }

  async discardStaged(): Promise<void> {
    await this.#session.run('discard staged pieces', [
      `DELETE FROM sluice_pieces WHERE ${this.#where} AND epoch <= ${this.#state.epoch}`,
    ]);
  }

  async close(): Promise<void> {
    await this.#connection.release(this.#session);
  }
}
