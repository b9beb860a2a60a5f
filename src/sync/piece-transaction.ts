/** A transaction of the destination that changes of the source go into, of one piece or of several. */
import { cellAt, type ChangeRelation, type TableChanges } from '../model/changes.ts';
import type { ApplyCounts, GroupTransaction, Route } from '../engines/contract.ts';
import { driftOf } from './drift.ts';
import type { KnownDrifts } from './known-drifts.ts';
import { carry, type Carrying, type Prepared, type Routed } from './piece-router.ts';

export interface PieceOptions extends Carrying {
  readonly drifts: KnownDrifts;
  /** The column of the source that asks for a full sync when a row sets it to 1; null: none is watched. */
  readonly triggerColumn: (mappingUid: string) => string | null;
}

export class PieceTransaction {
  readonly transaction: GroupTransaction;
  readonly #options: PieceOptions;
  /** By mapping, of those that had changes. */
  readonly counts = new Map<string, ApplyCounts>();
  /** Mappings of which a row asks for a full sync. */
  readonly flipped = new Set<string>();

  constructor(transaction: GroupTransaction, options: PieceOptions) {
    this.transaction = transaction;
    this.#options = options;
  }

  /** Throws Drifted before anything of these changes is applied, and what `carry` throws. */
  async apply(changes: Prepared): Promise<void> {
    this.#lookForDrift(changes.routed);
    this.#watchTriggers(changes.routed);
    for (const [uid, each] of await carry(this.transaction, changes, this.#options)) {
      const sum = this.counts.get(uid) ?? { inserted: 0, updated: 0, deleted: 0 };
      this.counts.set(uid, {
        inserted: sum.inserted + each.inserted,
        updated: sum.updated + each.updated,
        deleted: sum.deleted + each.deleted,
      });
    }
  }

  /** A live table's columns are no longer those of its route. */
  #lookForDrift(routed: Routed): void {
    const { drifts } = this.#options;
    for (const { route, tables } of routed.values()) {
      if (!route.live) continue;
      for (const { relation } of tables) {
        if (relation.id !== route.relationId) continue;
        const drift = driftOf(route, relation);
        if (drift !== null && !drifts.isSettled(route, drift)) throw new Drifted(route, relation, drift);
      }
    }
  }

  #watchTriggers(routed: Routed): void {
    for (const [mappingUid, { tables }] of routed) {
      const column = this.#options.triggerColumn(mappingUid);
      if (column === null || this.flipped.has(mappingUid)) continue;
      if (tables.some((changes) => setsFlag(changes, column))) this.flipped.add(mappingUid);
    }
  }
}

/** The columns of a route's source are others than it carries. */
export class Drifted extends Error {
  readonly route: Route;
  readonly relation: ChangeRelation;
  readonly drift: string;
  /** The route's `capture` from now on; null: as it is. */
  readonly capture: string | null;
  constructor(route: Route, relation: ChangeRelation, drift: string, capture: string | null = null) {
    super('the source’s columns changed');
    this.route = route;
    this.relation = relation;
    this.drift = drift;
    this.capture = capture;
  }
}

const FLAG_SET: ReadonlySet<string> = new Set(['1', 't', 'true']);

/** Some change leaves a row with the column at 1 or true. */
function setsFlag(changes: TableChanges, column: string): boolean {
  const at = changes.relation.columns.indexOf(column);
  if (at < 0) return false;
  return changes.after.some((row) => {
    const cell = row < 0 ? null : cellAt(changes, row, at);
    return cell != null && FLAG_SET.has(typeof cell === 'string' ? cell : Buffer.from(cell).toString('utf8'));
  });
}
