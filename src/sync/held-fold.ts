/** What a held mapping (paused, failing) has missed, folded into its own table. */
import { setTimeout as pause } from 'node:timers/promises';
import { hasCode, SluiceError } from '../model/errors.ts';
import { displayName, type Table } from '../model/tables.ts';
import type { EngineDatabase, FoldSession, FoldWork, Route } from '../engines/contract.ts';
import { notFollowed } from './drift.ts';
import { folder, foldDown, heldGuard, RouteOutdated, type Guard } from './fold.ts';
import type { Sparing } from './refused-rows.ts';

export interface HeldFoldOptions {
  readonly source: EngineDatabase;
  readonly destination: EngineDatabase;
  readonly mappingUid: string;
  readonly drawEpoch: (atLeast: number) => Promise<number>;
  readonly lockWaitMs: number;
  readonly signal: AbortSignal;
  /** For rows that the table refuses. `place` names the backlog. */
  readonly sparing: (place: string) => Sparing;
}

/**
 * Folds what a held mapping has missed into its table and makes it live again. `needsCopy`: it stays held, because the source's
 * table has become something that only a copy brings.
 */
export async function runHeldFold(
  options: HeldFoldOptions,
): Promise<{ folded: boolean; needsCopy: SluiceError | null }> {
  const nothing = { folded: false, needsCopy: null };
  const { source, destination, mappingUid } = options;
  const copies = destination.destination?.copies;
  if (!copies || !destination.destination) return nothing;
  for (;;) {
    const [state] = await copies.states([mappingUid]);
    const route = state?.route;
    if (route?.backlog !== 'hold') return nothing;
    const describe = async () => (await source.catalog.describe([route.source]))[0] ?? null;
    requireSameTable(route, await describe());
    const session = await copies.openHeld(
      mappingUid,
      await options.drawEpoch(state?.copyEpoch ?? 0),
      options.lockWaitMs,
    );
    if (!session) return nothing;
    try {
      await foldHeld(session, heldGuard(session.route, describe), describe, options);
      return { folded: true, needsCopy: null };
    } catch (error) {
      if (!(error instanceof RouteOutdated)) throw error;
      const table = await describe();
      const { columns, added, unproven, broken } = error.decision;
      const isFollowed =
        table !== null &&
        columns !== null &&
        unproven.length === 0 &&
        broken === null &&
        (await copies.reshape(
          mappingUid,
          { columns, added, design: destination.destination.design(table, route.target, route.key) },
          options.lockWaitMs,
        ));
      if (!isFollowed) return { folded: false, needsCopy: notFollowed(route, error.decision) };
    } finally {
      await session.close();
    }
  }
}

/** What was held may be another table's, or this one's under another name: only a person knows. */
function requireSameTable(route: Route, table: Table | null): asserts table is Table {
  if (table?.id === route.relationId) return;
  const name = displayName(route.source);
  if (table)
    throw new SluiceError('SOURCE_TABLE_REPLACED', `the source's table ${name} was replaced by another of that name`, {
      hint: 'Set is_full_sync = 1 to copy the new table.',
    });
  throw new SluiceError('SOURCE_TABLE_MISSING', `the source has no table ${name}, or the login cannot see it`, {
    hint: 'Its changes are kept. If it was renamed: rename it back, or set source_schema and source_table to the new name.',
  });
}

async function foldHeld(
  session: FoldSession,
  guard: Guard,
  describe: () => Promise<Table | null>,
  options: HeldFoldOptions,
): Promise<void> {
  const { snapshot } = options.source;
  const mend =
    snapshot &&
    (async () => {
      const table = await describe();
      requireSameTable(session.route, table);
      return { snapshot, table };
    });
  try {
    await foldAll(session, folder(session.route, null, { guard, mend }).fold, options.signal);
  } catch (error) {
    // The round was undone. Once more, row by row where it must be.
    if (!hasCode(error, 'ROW_REFUSED')) throw error;
    const sparing = options.sparing(`backlog ${session.generation}`);
    await foldAll(session, folder(session.route, null, { guard, mend, sparing }).fold, options.signal);
  }
}

async function foldAll(session: FoldSession, fold: FoldWork, signal: AbortSignal): Promise<void> {
  const check = () => {
    if (signal.aborted) throw new SluiceError('CANCELLED', 'the fold was cancelled');
  };
  for (let attempt = 0; ; attempt++) {
    await foldDown(session, fold, check);
    check();
    if (await session.finish(fold)) return;
    await pause(Math.min(2000, 100 * 2 ** attempt));
  }
}
