/** Commits the changes of one apply group: data, backlogs and position in one transaction (invariant 2), fenced by epoch (invariant 9). */
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import type { Position } from '../../model/position.ts';
import { displayName, type Table } from '../../model/tables.ts';
import type { ApplyCounts, Block, GroupApplier, GroupState, GroupTransaction, Route } from '../contract.ts';
import { readBlock } from './blocks.ts';
import { PostgresCatalog } from './catalog.ts';
import type { Connection, Row, Session } from './connection.ts';
import { backlogTable } from '../home-tables.ts';
import { createBacklogSql } from './home.ts';
import { endCopier, pastFrozenHolders, sessionId } from './locks.ts';
import { reshapeRoute } from './reshape.ts';
import { ROUTE_COLUMNS, routeOf } from './routes.ts';
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
    return new PostgresApplier(connection, session, state, options.lockWaitMs);
  } catch (error) {
    await connection.release(session);
    throw error;
  }
}

/** Triggers and foreign keys do not fire for us, where the login may say so (superuser, or SET on the parameter from 15 on). */
export async function suspendTriggers(session: Session): Promise<boolean> {
  try {
    await suspend(session);
    return true;
  } catch (error) {
    if (error instanceof SluiceError && error.code === 'PERMISSION_DENIED') return false;
    throw error;
  }
}

/**
 * A table with triggers or foreign keys is written only where they do not fire. The right may have been granted, or the trigger
 * made, since the session was opened.
 */
export async function requireUnguarded(table: Table, suspendNow: () => Promise<void>): Promise<void> {
  const guards = [...table.triggers, ...table.foreignKeys, ...table.referencedBy];
  if (guards.length === 0) return;
  try {
    await suspendNow();
  } catch (error) {
    if (!hasCode(error, 'PERMISSION_DENIED')) throw error;
    throw new SluiceError(
      'DESTINATION_GUARDED',
      `${displayName(table.name)} has triggers or foreign keys (${guards.join(', ')}), which this login cannot suspend`,
      {
        hint: 'From PostgreSQL 15 on: GRANT SET ON PARAMETER session_replication_role TO the login of the destination; before, it must be a superuser. Or drop them.',
      },
    );
  }
}

export async function suspend(session: Session): Promise<void> {
  await session.run('suspend triggers', [`SET session_replication_role = replica`]);
}

class PostgresApplier implements GroupApplier {
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #lockWaitMs: number;
  readonly #where: string;
  #state: GroupState;
  #routes: readonly Route[] | null = null;
  #tables = new Map<string, TableApplier>();
  #staged = 0;

  constructor(connection: Connection, session: Session, state: GroupState, lockWaitMs: number) {
    this.#connection = connection;
    this.#session = session;
    this.#state = state;
    this.#lockWaitMs = lockWaitMs;
    this.#where = `stream = ${quoteLiteral(state.stream)} AND apply_group = ${quoteLiteral(state.group)}`;
  }

  get state(): GroupState {
    return this.#state;
  }

  async begin(): Promise<GroupTransaction> {
    const session = this.#session;
    try {
      const row = await this.#lockPosition();
      if (!row || Number(row['epoch']) !== this.#state.epoch || row['position'] !== this.#state.position) {
        throw new SluiceError(
          'FENCED',
          `the group ${this.#state.group} of ${this.#state.stream} has moved on without us`,
        );
      }
      const routeVersion = Number(row['route_version']);
      if (this.#routes === null || routeVersion !== this.#state.routeVersion) {
        const rows = await session.query(
          'read the routes',
          `SELECT ${ROUTE_COLUMNS} FROM sluice.generations WHERE ${this.#where} ORDER BY mapping_uid`,
        );
        this.#routes = rows.map(routeOf).filter((route) => route !== null);
        this.#state = { ...this.#state, routeVersion };
        await this.#forgetTables();
      }
    } catch (error) {
      await this.#rollback();
      throw error;
    }
    beginApplying(session);
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
      apply: (route, changes) => this.#apply(route, changes),
      attempt: async (route, work) => {
        // Staging tables made within the attempt would be gone with it.
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
        const done = await reshapeRoute(this.#connection, session, mappingUid, change);
        this.#routes = null;
        return done;
      },
      commit: async (position) => {
        const statements = [
          `UPDATE sluice.positions SET position = ${quoteLiteral(position)}, updated_at = now() WHERE ${this.#where}`,
        ];
        // A commit that only changes a route stays where it is: the pieces are of the transaction that follows.
        const isDone = this.#staged > 0 && position !== this.#state.position;
        if (isDone) statements.push(`DELETE FROM sluice.pieces WHERE ${this.#where}`);
        await session.run('commit changes', [...statements, 'COMMIT']);
        if (isDone) this.#staged = 0;
        this.#state = { ...this.#state, position };
        if (held) this.#routes = null;
      },
      rollback: () => this.#rollback(),
    };
  }

  /** Whoever holds the row and is at work is waited for, however long. */
  async #lockPosition(): Promise<Row | undefined> {
    const session = this.#session;
    for (;;) {
      try {
        const [row] = await pastFrozenHolders(this.#connection, session, this.#lockWaitMs, () =>
          session.query(
            'lock the group’s position',
            `BEGIN; SELECT epoch, position, route_version FROM sluice.positions WHERE ${this.#where} FOR UPDATE`,
          ),
        );
        return row;
      } catch (error) {
        if (!hasCode(error, 'TIMEOUT')) throw error;
        await session.run('roll back', ['ROLLBACK']);
      }
    }
  }

  async stage(block: Block): Promise<void> {
    // Checked and written in one statement; the row of an ex-owner finds no epoch to go with.
    const rows = await this.#session.query(
      'keep a piece of a large transaction',
      `INSERT INTO sluice.pieces (stream, apply_group, epoch, changes, block)
       SELECT stream, apply_group, epoch, $1::int, $2::bytea FROM sluice.positions WHERE ${this.#where} AND epoch = $3 RETURNING seq`,
      [block.changes, block.bytes, this.#state.epoch],
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
      const [described] = await new PostgresCatalog(this.#connection).describe([route.target]);
      if (!described) {
        throw new SluiceError(
          'DESTINATION_TABLE_MISSING',
          `the destination table ${displayName(route.target)} is gone`,
          {
            hint: 'Set is_full_sync = 1 to create and fill it again.',
          },
        );
      }
      await requireUnguarded(described, () => this.#session.attempt(() => suspend(this.#session)));
      table = new TableApplier(this.#session, described, route.columns, route.key, true);
      this.#tables.set(route.mappingUid, table);
    }
    return table;
  }

  async #append(route: Route, block: Block): Promise<void> {
    if (route.generation === null) throw new SluiceError('INTERNAL', 'a route without a backlog was appended to');
    await this.#session.query(
      'append to a backlog',
      `INSERT INTO ${quoteTable(backlogTable(route.mappingUid, route.generation))} (bytes, changes, block) VALUES ($1, $2, $3)`,
      [block.bytes.length, block.changes, block.bytes],
    );
  }

  async #hold(mappingUid: string): Promise<Route | null> {
    await holdMapping(this.#connection, this.#session, mappingUid);
    const [row] = await this.#session.query(
      'read the held route',
      `SELECT ${ROUTE_COLUMNS} FROM sluice.generations WHERE mapping_uid = $1`,
      [mappingUid],
    );
    return row ? routeOf(row) : null;
  }

  /** Temporary tables made in this transaction are gone with it; those from before as well, so that memory and server agree. */
  async #rollback(): Promise<void> {
    this.#tables.clear();
    if (!this.#session.lost) await this.#session.run('roll back', ['ROLLBACK']).catch(() => undefined);
    if (!this.#session.lost) await this.#session.run('drop temporary tables', ['DISCARD TEMP']).catch(() => undefined);
  }

  async #forgetTables(): Promise<void> {
    for (const table of this.#tables.values()) await table.dropStages();
    this.#tables.clear();
  }
}

/**
 * Within a transaction that holds the position row: no longer live, a backlog to be folded into the table later. A copy that
 * runs keeps its backlog, and what it will replace needs none. Idempotent.
 */
export async function holdMapping(connection: Connection, session: Session, mappingUid: string): Promise<void> {
  const [row] = await session.query(
    'hold a mapping',
    `UPDATE sluice.generations SET is_live = false,
        last_generation = CASE WHEN backlog IS NULL THEN last_generation + 1 ELSE last_generation END,
        backlog_generation = CASE WHEN backlog IS NULL THEN last_generation + 1 ELSE backlog_generation END,
        folded_seq = CASE WHEN backlog IS NULL THEN 0 ELSE folded_seq END,
        backlog = coalesce(backlog, 'hold'), updated_at = now()
      WHERE mapping_uid = $1 AND is_live RETURNING stream, apply_group, backlog, backlog_generation`,
    [mappingUid],
  );
  if (!row) {
    // Not live: its first copy ends, and begins anew with another copier's epoch.
    const [ended] = await session.query(
      'end a copy that cannot go on',
      `WITH before AS (SELECT mapping_uid, backlog_generation FROM sluice.generations WHERE mapping_uid = $1 AND backlog = 'copy' FOR UPDATE)
       UPDATE sluice.generations g SET backlog = NULL, backlog_generation = NULL, copy_request = NULL, copy_epoch = copy_epoch + 1, updated_at = now()
         FROM before WHERE g.mapping_uid = before.mapping_uid RETURNING g.stream, g.apply_group, before.backlog_generation`,
      [mappingUid],
    );
    if (!ended) return;
    await endCopier(connection, session, mappingUid);
    await session.run('drop its backlog', [
      `DROP TABLE IF EXISTS ${quoteTable(backlogTable(mappingUid, Number(ended['backlog_generation'])))}`,
    ]);
    await announceRoute(session, ended);
    return;
  }
  if (row['backlog'] === 'hold')
    await session.run('open a backlog', createBacklogSql(backlogTable(mappingUid, Number(row['backlog_generation']))));
  await announceRoute(session, row);
}

async function announceRoute(session: Session, row: Row): Promise<void> {
  await session.query(
    'announce the new route',
    `UPDATE sluice.positions SET route_version = route_version + 1 WHERE stream = $1 AND apply_group = $2`,
    [row['stream'], row['apply_group']],
  );
}
