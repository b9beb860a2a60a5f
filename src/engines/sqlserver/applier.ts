/** Commits the changes of one apply group: data, backlogs and position in one transaction (invariant 2), fenced by epoch (invariant 9). */
import { SluiceError } from '../../model/errors.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import type { Position } from '../../model/position.ts';
import { displayName } from '../../model/tables.ts';
import { backlogTable } from '../home-tables.ts';
import type { ApplyCounts, Block, GroupApplier, GroupState, GroupTransaction, Route } from '../contract.ts';
import { readBlock } from './blocks.ts';
import { SqlServerCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { requireUnguarded } from './guards.ts';
import { GROUP, holdMapping, MAPPING } from './hold.ts';
import { groupLock, Locker } from './locks.ts';
import { reshapeRoute } from './reshape.ts';
import { numberOf, textOf } from './row-values.ts';
import { ROUTE_COLUMNS, routeOf } from './routes.ts';
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
    return new SqlServerApplier(connection, session, mine, state);
  } catch (error) {
    await locker?.close();
    await connection.release(session);
    throw error;
  }
}

class SqlServerApplier implements GroupApplier {
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #locker: Locker;
  readonly #where: string;
  #state: GroupState;
  #routes: readonly Route[] | null = null;
  #tables = new Map<string, TableApplier>();
  #staged = 0;

  constructor(connection: Connection, session: Session, locker: Locker, state: GroupState) {
    this.#connection = connection;
    this.#session = session;
    this.#locker = locker;
    this.#state = state;
    this.#where = `stream = ${quoteLiteral(state.stream)} AND apply_group = ${quoteLiteral(state.group)}`;
  }

  get state(): GroupState {
    return this.#state;
  }

  async begin(): Promise<GroupTransaction> {
    const session = this.#session;
    const { stream, group } = this.#state;
    const name = groupLock(stream, group);
    try {
      const rows = await this.#locker.past(name, () =>
        session.query(
          'lock the group’s position',
          `BEGIN TRANSACTION; ${Locker.lockSql(name)};
           SELECT epoch, position, route_version FROM sluice.positions WHERE ${this.#where}`,
        ),
      );
      const row = rows.find((candidate) => 'epoch' in candidate);
      if (numberOf(row, 'epoch') !== this.#state.epoch || textOf(row, 'position') !== this.#state.position)
        throw new SluiceError('FENCED', `the group ${group} of ${stream} has moved on without us`);
      const routeVersion = numberOf(row, 'route_version') ?? 0;
      if (this.#routes === null || routeVersion !== this.#state.routeVersion) {
        const routes = await session.query(
          'read the routes',
          `SELECT ${ROUTE_COLUMNS} FROM sluice.generations WHERE ${this.#where} ORDER BY mapping_uid`,
        );
        this.#routes = routes.map(routeOf).filter((route) => route !== null);
        this.#state = { ...this.#state, routeVersion };
        await this.#forgetTables();
      }
    } catch (error) {
      await this.#rollback();
      throw error;
    }
    const routes = this.#routes ?? [];
    let held: Map<string, Route | null> | null = null;
    return {
      get routes() {
        return held
          ? routes
              .map((route) => (held?.has(route.mappingUid) ? (held.get(route.mappingUid) ?? null) : route))
              .filter((route) => route !== null)
          : routes;
      },
      staged: () => this.#readStaged(),
      apply: async (route, changes) => this.#apply(route, changes),
      attempt: async (route, work) => {
        // Temporary tables made within the attempt would be gone with it.
        await (await this.#table(route)).prepare();
        return session.attempt(work);
      },
      append: (route, block) => this.#append(route, block),
      hold: async (mappingUid) => {
        const route = await this.#hold(mappingUid);
        held ??= new Map();
        held.set(mappingUid, route);
        return route;
      },
      reshape: async (mappingUid, change) => {
        const done = await reshapeRoute(this.#connection, session, this.#locker, mappingUid, change);
        this.#routes = null;
        return done;
      },
      commit: async (position) => {
        const statements = [
          `UPDATE sluice.positions SET position = ${quoteLiteral(position)}, updated_at = SYSUTCDATETIME() WHERE ${this.#where}`,
        ];
        // A commit that only changes a route stays where it is: the pieces are of the transaction that follows.
        const isDone = this.#staged > 0 && position !== this.#state.position;
        if (isDone) statements.push(`DELETE FROM sluice.pieces WHERE ${this.#where}`);
        await session.run('commit changes', [...statements, 'COMMIT TRANSACTION']);
        if (isDone) this.#staged = 0;
        this.#state = { ...this.#state, position };
        if (held) this.#routes = null;
      },
      rollback: () => this.#rollback(),
    };
  }

  async stage(block: Block): Promise<void> {
    // Checked and written in one statement; the row of an ex-owner finds no epoch to go with.
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
    if (rows.length === 0)
      throw new SluiceError('FENCED', `the group ${this.#state.group} of ${this.#state.stream} has a newer owner`);
    this.#staged++;
  }

  async discardStaged(): Promise<void> {
    await this.#session.run('discard staged pieces', [
      `DELETE FROM sluice.pieces WHERE ${this.#where} AND epoch <= ${this.#state.epoch}`,
    ]);
    this.#staged = 0;
  }

  async close(): Promise<void> {
    await this.#connection.release(this.#session);
    await this.#locker.close();
  }

  async *#readStaged(): AsyncGenerator<Block> {
    if (this.#staged === 0) return;
    const source = `FROM sluice.pieces WHERE ${this.#where} AND epoch = ${this.#state.epoch}`;
    for (let after = 0; ;) {
      const block = await readBlock(this.#session, 'read a staged piece', source, after);
      if (!block) return;
      after = block.seq;
      yield block;
    }
  }

  async #apply(route: Route, changes: KeyedChanges): Promise<ApplyCounts> {
    return (await this.#table(route)).apply(changes);
  }

  async #table(route: Route): Promise<TableApplier> {
    let table = this.#tables.get(route.mappingUid);
    if (!table) {
      const [described] = await new SqlServerCatalog(this.#connection).describe([route.target]);
      if (!described)
        throw new SluiceError(
          'DESTINATION_TABLE_MISSING',
          `the destination table ${displayName(route.target)} is gone`,
          { hint: 'Set is_full_sync = 1 to create and fill it again.' },
        );
      requireUnguarded(described);
      table = new TableApplier(this.#session, described, route.columns, route.key, true);
      this.#tables.set(route.mappingUid, table);
    }
    return table;
  }

  async #append(route: Route, block: Block): Promise<void> {
    if (route.generation === null) throw new SluiceError('INTERNAL', 'a route without a backlog was appended to');
    await this.#session.query(
      'append to a backlog',
      `INSERT INTO ${quoteTable(backlogTable(route.mappingUid, route.generation))} (bytes, changes, block) VALUES (@bytes, @changes, @block)`,
      { bytes: block.bytes.length, changes: block.changes, block: block.bytes },
    );
  }

  async #hold(mappingUid: string): Promise<Route | null> {
    await holdMapping(this.#session, this.#locker, mappingUid);
    const [row] = await this.#session.query(
      'read the held route',
      `SELECT ${ROUTE_COLUMNS} FROM sluice.generations WHERE ${MAPPING}`,
      { uid: mappingUid },
    );
    return row ? routeOf(row) : null;
  }

  /** Temporary tables made in this transaction are gone with it; those from before as well, so that memory and server agree. */
  async #rollback(): Promise<void> {
    await this.#session.rollback();
    await this.#forgetTables().catch(() => undefined);
  }

  async #forgetTables(): Promise<void> {
    const tables = [...this.#tables.values()];
    this.#tables.clear();
    if (!this.#session.lost) for (const table of tables) await table.dropStages();
  }
}
