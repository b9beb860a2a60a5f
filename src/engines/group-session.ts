/**
 * Commits the changes of one apply group: data, backlogs and position in one transaction (invariant 2), fenced by epoch
 * (invariant 9). What is so in every database with transactions; the statements are the engine's.
 */
import { SluiceError } from '../model/errors.ts';
import type { Cell } from '../model/changes.ts';
import type { KeyedChanges } from '../model/keyed-changes.ts';
import type { Position } from '../model/position.ts';
import type { TableName } from '../model/tables.ts';
import { backlogTable } from './home-tables.ts';
import { note, type LeftOutStore } from './left-out.ts';
import type {
  ApplyCounts,
  Block,
  GroupApplier,
  GroupState,
  GroupTransaction,
  Route,
  RouteChange,
  StoredBlock,
} from './contract.ts';

/** A table that a session applies changes to, with temporary tables of its own. */
export interface AppliedTable {
  /** Makes the temporary tables now, outside an attempt whose end would take them away again. */
  prepare(): Promise<void>;
  apply(changes: KeyedChanges): Promise<ApplyCounts>;
  /** Places of those keys that have no row in the table. */
  missing(keys: readonly (readonly Cell[])[]): Promise<readonly number[]>;
  dropStages(): Promise<void>;
}

/** What an engine does on the group's session, at the epoch it was taken with. */
export interface GroupStatements<Table extends AppliedTable> {
  readonly leftOut: LeftOutStore;
  /** Begins a transaction and locks the position row; null: there is none. Whoever holds it and is at work is waited for, however long. */
  lockPosition(): Promise<{
    readonly epoch: number | null;
    readonly position: string | null;
    readonly routeVersion: number;
  } | null>;
  /** The group's, in the order of the mappings' uids. */
  readRoutes(): Promise<Route[]>;
  /** The route's target as it is now. Throws what keeps it from being written. */
  openTable(route: Route): Promise<Table>;
  attempt<T>(work: () => Promise<T>): Promise<T>;
  append(backlog: TableName, block: Block): Promise<void>;
  hold(mappingUid: string): Promise<Route | null>;
  reshape(mappingUid: string, change: RouteChange): Promise<boolean>;
  /** Resolves to whether the commit is durable. */
  commit(position: Position, options: CommitOptions): Promise<boolean>;
  /** `tables`: those that were applied to, which have temporary tables from before or within the transaction. */
  rollback(tables: readonly Table[]): Promise<void>;
  /** In a transaction of its own, checked against the epoch in the same statement. False: the group has another one. */
  stage(block: Block): Promise<boolean>;
  /** The first staged piece behind `after`. */
  nextStaged(after: number): Promise<StoredBlock | null>;
  discardStaged(): Promise<void>;
  close(): Promise<void>;
}

export interface CommitOptions {
  readonly discardPieces: boolean;
  /** The commit need not be durable, where the engine can leave that to a later one. */
  readonly lazily: boolean;
}

export class GroupSession<Table extends AppliedTable> implements GroupApplier {
  readonly #statements: GroupStatements<Table>;
  #state: GroupState;
  #durable: Position;
  #routes: readonly Route[] | null = null;
  #tables = new Map<string, Table>();
  /** By mapping; null: to be read. */
  #leftOut: Map<string, Set<string>> | null = null;
  #staged = 0;

  constructor(statements: GroupStatements<Table>, state: GroupState) {
    this.#statements = statements;
    this.#state = state;
    this.#durable = state.position;
  }

  get state(): GroupState {
    return this.#state;
  }

  get durable(): Position {
    return this.#durable;
  }

  async begin(): Promise<GroupTransaction> {
    const statements = this.#statements;
    try {
      const row = await statements.lockPosition();
      if (row?.epoch !== this.#state.epoch || row.position !== this.#state.position)
        throw new SluiceError(
          'FENCED',
          `the group ${this.#state.group} of ${this.#state.stream} has moved on without us`,
        );
      const { routeVersion } = row;
      if (this.#routes === null || routeVersion !== this.#state.routeVersion) {
        this.#routes = await statements.readRoutes();
        this.#state = { ...this.#state, routeVersion };
        this.#leftOut = null;
        await this.#forgetTables();
      }
      this.#leftOut ??= await statements.leftOut.ofGroup(this.#state.stream, this.#state.group);
    } catch (error) {
      await this.#rollback();
      throw error;
    }
    const routes = this.#routes;
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
      apply: async (route, changes) => (await this.#table(route)).apply(changes),
      attempt: async (route, work) => {
        await (await this.#table(route)).prepare();
        return statements.attempt(work);
      },
      missing: async (route, keys) => (await this.#table(route)).missing(keys),
      leftOut: ({ mappingUid, liveGeneration }) => ({
        keys: () => Promise.resolve(this.#leftOutOf(mappingUid)),
        change: async (added, removed) => {
          await statements.leftOut.write(mappingUid, liveGeneration ?? null, added, removed);
          note(this.#leftOutOf(mappingUid), added, removed);
        },
      }),
      append: async ({ mappingUid, generation }, block) => {
        if (generation === null) throw new SluiceError('INTERNAL', 'a route without a backlog was appended to');
        await statements.append(backlogTable(mappingUid, generation), block);
      },
      hold: async (mappingUid) => {
        const route = await statements.hold(mappingUid);
        held ??= new Map();
        held.set(mappingUid, route);
        return route;
      },
      reshape: async (mappingUid, change) => {
        const done = await statements.reshape(mappingUid, change);
        this.#routes = null;
        return done;
      },
      commit: async (position, { lazily } = { lazily: false }) => {
        // A commit that only changes a route stays where it is: the pieces are of the transaction that follows.
        const discardPieces = this.#staged > 0 && position !== this.#state.position;
        if (await statements.commit(position, { discardPieces, lazily })) this.#durable = position;
        if (discardPieces) this.#staged = 0;
        this.#state = { ...this.#state, position };
        if (held) this.#routes = null;
      },
      rollback: () => this.#rollback(),
    };
  }

  async stage(block: Block): Promise<void> {
    if (!(await this.#statements.stage(block)))
      throw new SluiceError('FENCED', `the group ${this.#state.group} of ${this.#state.stream} has a newer owner`);
    this.#staged++;
  }

  async discardStaged(): Promise<void> {
    await this.#statements.discardStaged();
    this.#staged = 0;
  }

  close(): Promise<void> {
    return this.#statements.close();
  }

  async *#readStaged(): AsyncGenerator<Block> {
    if (this.#staged === 0) return;
    for (let after = 0; ;) {
      const block = await this.#statements.nextStaged(after);
      if (!block) return;
      after = block.seq;
      yield block;
    }
  }

  async #table(route: Route): Promise<Table> {
    const known = this.#tables.get(route.mappingUid);
    if (known) return known;
    const table = await this.#statements.openTable(route);
    this.#tables.set(route.mappingUid, table);
    return table;
  }

  #leftOutOf(mappingUid: string): Set<string> {
    const known = this.#leftOut?.get(mappingUid) ?? new Set<string>();
    this.#leftOut?.set(mappingUid, known);
    return known;
  }

  /** Temporary tables made in this transaction are gone with it; those from before as well, so that memory and server agree. */
  async #rollback(): Promise<void> {
    const tables = [...this.#tables.values()];
    this.#tables.clear();
    this.#leftOut = null;
    await this.#statements.rollback(tables);
  }

  async #forgetTables(): Promise<void> {
    const tables = [...this.#tables.values()];
    this.#tables.clear();
    for (const table of tables) await table.dropStages();
  }
}
