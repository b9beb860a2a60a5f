/** Following the columns of a source's table where a route carries it (PROTOCOL, Changes). */
import { hasCode, type SluiceError } from '../model/errors.ts';
import type { Table } from '../model/tables.ts';
import type { Catalog, Destination, GroupApplier, Route, RouteColumn, TableDesign } from '../engines/contract.ts';
import { decide, driftOf, notFollowed } from './drift.ts';
import type { KnownDrifts } from './known-drifts.ts';
import { MappingFailure } from './piece-router.ts';
import type { Drifted } from './piece-transaction.ts';

export interface ColumnsChanged {
  readonly added: readonly string[];
  readonly dropped: readonly string[];
  /** Why a full copy is needed; null: it is not. */
  readonly error: SluiceError | null;
}

export interface FollowOptions {
  readonly destination: Destination;
  /** The source's. */
  readonly catalog: Catalog;
  readonly drifts: KnownDrifts;
  /** The group's; throws when it has none. */
  readonly session: () => GroupApplier;
  readonly hold: (failure: MappingFailure) => Promise<void>;
  /** Durable when it resolves. */
  readonly columnsChanged: (mappingUid: string, change: ColumnsChanged) => Promise<void>;
}

export class ColumnFollower {
  readonly #options: FollowOptions;

  constructor(options: FollowOptions) {
    this.#options = options;
  }

  /**
   * Follows the source's columns in a commit of its own at the position the group is at, so that no change is applied by a
   * route that cannot carry it (PROTOCOL, Changes). What cannot be followed is reported, and mended by a copy.
   */
  async follow({ route, relation, drift, capture }: Drifted): Promise<void> {
    const [source = null] = await this.#options.catalog.describe([route.source]);
    const decision = decide(route, relation, source);
    const { columns, added, dropped, unproven, broken } = decision;
    if (broken) {
      const error = notFollowed(route, decision);
      await this.#options.hold(new MappingFailure(route.mappingUid, error));
      // After the state: what the copy then says of the tables is not overwritten by what led to it.
      await this.#options.columnsChanged(route.mappingUid, { added: [], dropped: [], error });
      return;
    }
    const isKept = columns === null && capture === null;
    const change = { columns: columns ?? route.columns, added, ...(capture === null ? {} : { capture }) };
    const isFollowed = isKept || (source !== null && (await this.#reshape(route, change, source)));
    let now: Route = isFollowed ? { ...route, ...change } : route;
    if (!isFollowed && source !== null && columns !== null && added.length > 0) {
      // The table could not be given the columns: without them for now, and then by a copy.
      const rest = { ...change, columns: columns.filter((column) => !added.includes(column.source)), added: [] };
      if ((dropped.length > 0 || capture !== null) && (await this.#reshape(route, rest, source)))
        now = { ...route, ...rest };
    }
    // The statement that changed the columns may have asked for it already.
    const needsCopy = (unproven.length > 0 || !isFollowed) && !this.#options.drifts.isAsked(route);
    if (needsCopy || added.length > 0 || dropped.length > 0)
      await this.#options.columnsChanged(route.mappingUid, {
        added: isFollowed ? added : [],
        dropped,
        error: needsCopy ? notFollowed(route, isFollowed ? { ...decision, added: [] } : decision) : null,
      });
    // Only now: the copy that brings what the route, as it is from now on, does not carry is asked for, durably.
    this.#options.drifts.settle(now, drift);
    const left = driftOf(now, relation);
    if (left !== null) this.#options.drifts.settle(now, left);
  }

  async #reshape(
    route: Route,
    change: { columns: readonly RouteColumn[]; added: readonly string[]; capture?: string },
    source: Table,
  ): Promise<boolean> {
    const applier = this.#options.session();
    const design = designOf(this.#options.destination, source, route);
    if (design === null) return false;
    const transaction = await applier.begin();
    try {
      const done = await transaction.reshape(route.mappingUid, { ...change, design });
      if (done) await transaction.commit(applier.state.position);
      else await transaction.rollback();
      return done;
    } catch (error) {
      await transaction.rollback();
      if (hasCode(error, 'SCHEMA_CHANGED')) throw new MappingFailure(route.mappingUid, error);
      throw error;
    }
  }
}

/** Null: the destination has no type for one of the columns. */
function designOf(destination: Destination, source: Table, route: Route): TableDesign | null {
  try {
    return destination.design(source, route.target, route.key);
  } catch (error) {
    if (hasCode(error, 'SCHEMA_MISMATCH')) return null;
    throw error;
  }
}
