/** What Sluice made on servers is undone when the last mapping that needed it leaves (invariant 10). */
import type { ControlDatabase, Owner } from '../control/index.ts';
import type { Logger } from '../log/logger.ts';
import { SluiceError, toSluiceError } from '../model/errors.ts';
import type { Fleet, ResolvedServer, StreamPlace } from './fleet.ts';
import type { Plan } from './planner.ts';
import { leaseKey } from './stream-host.ts';
import { databaseOf } from './stream-name.ts';

export interface CleanupOptions {
  readonly control: ControlDatabase;
  readonly fleet: Fleet;
  readonly owner: Owner;
  readonly logger: Logger;
  readonly sources: ReadonlyMap<number, ResolvedServer>;
  readonly destinations: ReadonlyMap<number, ResolvedServer>;
  readonly controlServer: ResolvedServer;
  readonly leaseSeconds: number;
}

/** Forgets deleted mappings; streams that nobody needs lose their slot first. False: something failed, and is to be tried again. */
export async function cleanUp(plan: Plan, options: CleanupOptions): Promise<boolean> {
  const isForgotten = await forgetDeparted(plan, options);
  return (await dropLeft(plan, options)) && isForgotten;
}

async function forgetDeparted(plan: Plan, options: CleanupOptions): Promise<boolean> {
  const { control, logger } = options;
  let isDone = true;
  for (const gone of await control.states.departed()) {
    try {
      const destination =
        gone.destServerId === null ? options.controlServer : options.destinations.get(gone.destServerId);
      const source = gone.serverId === null ? undefined : options.sources.get(gone.serverId);
      const place =
        gone.stream !== null && source && !source.error ? { server: source, database: databaseOf(gone.stream) } : null;
      const isUnneeded = gone.stream !== null && !plan.streams.has(gone.stream);
      // The slot first: it is what fills the source's disk.
      if (gone.stream !== null && place && isUnneeded) await dropStream(gone.stream, place, options);
      if (gone.destDatabase !== null && destination && !destination.error) {
        const handle = options.fleet.database({ server: destination, database: gone.destDatabase }).destination;
        await handle?.prepare();
        const [state] = (await handle?.copies.states([gone.mappingUid])) ?? [];
        await handle?.copies.forget(gone.mappingUid);
        if (gone.stream !== null && gone.applyGroup !== null && isUnneeded)
          await handle?.dropGroup(gone.stream, gone.applyGroup);
        else if (gone.stream !== null && place && state?.route && !isMapped(plan, gone.stream, state.route.source)) {
          await options.fleet.database(place).changes?.exclude(gone.stream, state.route.source);
        }
      }
      await control.states.forget(gone.mappingUid);
      logger.info('deleted mapping cleaned up', { mapping: gone.mappingId });
    } catch (error) {
      isDone = false;
      logger.warn('clean-up of a deleted mapping failed; it is tried again', {
        mapping: gone.mappingId,
        error: toSluiceError(error),
      });
    }
  }
  return isDone;
}

/** Streams that every mapping has left for another one (another source_database, say) go as well: their slots fill the source's disk (F47). */
async function dropLeft(plan: Plan, options: CleanupOptions): Promise<boolean> {
  const { control, logger } = options;
  let isDone = true;
  // Which streams they have a place in is not known.
  if (plan.invalid.some((row) => row.mappingUid !== null)) return true;
  const needed = new Set(plan.mappings.map((mapping) => mapping.stream));
  for (const { row } of [...plan.mappings, ...plan.problems]) needed.add(row.state?.stream ?? null);
  const made = new Map<string, number>();
  for (const { stream, serverId } of await control.sourceObjects.list())
    if (stream !== null && !needed.has(stream)) made.set(stream, serverId);
  for (const [stream, serverId] of made) {
    const server = options.sources.get(serverId);
    if (!server || server.error) continue;
    try {
      await dropStream(stream, { server, database: databaseOf(stream) }, options);
    } catch (error) {
      isDone = false;
      logger.warn('a change stream that was left could not be dropped; it is tried again', {
        stream,
        error: toSluiceError(error),
      });
    }
  }
  return isDone;
}

/** What the stream made at its source goes; only while nobody reads it. */
export async function dropStream(
  stream: string,
  source: StreamPlace,
  options: Pick<CleanupOptions, 'control' | 'fleet' | 'owner' | 'logger' | 'leaseSeconds'>,
): Promise<void> {
  const { control, fleet, owner, logger } = options;
  if (!(await control.leases.acquire(leaseKey(stream), owner, options.leaseSeconds))) {
    throw new SluiceError('CDC_IN_USE', 'the stream is still read by another process');
  }
  try {
    await fleet.database(source).changes?.drop(stream);
    for (const object of await control.sourceObjects.list({ stream })) await control.sourceObjects.remove(object);
    logger.info('change stream dropped at the source', { stream });
  } finally {
    await control.leases.release(leaseKey(stream), owner);
  }
}

function isMapped(plan: Plan, stream: string, table: { schema: string; table: string }): boolean {
  return plan.mappings.some(
    (mapping) =>
      mapping.stream === stream &&
      mapping.sourceTable.schema === table.schema &&
      mapping.sourceTable.table === table.table,
  );
}
