/** The plan that the service would make, for commands that look at servers and tables without it: doctor, add-table --dry-run. */
import {
  resolveSecrets,
  type ControlDatabase,
  type MappingRow,
  type PlanRows,
  type ServerRow,
} from '../control/index.ts';
import { toSluiceError } from '../model/errors.ts';
import { checkServer, Fleet, type ResolvedServer } from '../service/fleet.ts';
import { plan, type Plan } from '../service/planner.ts';

export interface Planning {
  readonly rows: PlanRows;
  readonly plan: Plan;
  /** To be closed by the caller. */
  readonly fleet: Fleet;
}

/** `destinationUrl`: the control server's, which is the destination of mappings that name none. `extra`: a row that is not in the table yet. */
export async function makePlan(
  control: ControlDatabase,
  destinationUrl: string,
  extra: MappingRow | null = null,
): Promise<Planning> {
  const installation = await control.installation();
  const rows = await control.readPlanRows();
  if ('unchanged' in rows) throw new Error('the first reading of the control tables is never unchanged');
  const controlServer = await resolve(null, {
    name: 'the control server',
    connectionString: destinationUrl,
    enabled: true,
  });
  return {
    rows,
    plan: plan({
      installationUid: installation.uid,
      sources: await resolveAll(rows.sources),
      destinations: await resolveAll(rows.destinations),
      controlServer,
      mappings: extra === null ? rows.mappings : [...rows.mappings, extra],
      invalid: rows.invalid,
    }),
    fleet: new Fleet(installation),
  };
}

async function resolveAll(servers: ReadonlyMap<number, ServerRow>): Promise<Map<number, ResolvedServer>> {
  const resolved = new Map<number, ResolvedServer>();
  for (const [id, server] of servers) resolved.set(id, await resolve(id, server));
  return resolved;
}

async function resolve(
  serverId: number | null,
  { name, connectionString, enabled }: Pick<ServerRow, 'name' | 'connectionString' | 'enabled'>,
): Promise<ResolvedServer> {
  try {
    return checkServer({ serverId, name, enabled, connectionString: await resolveSecrets(connectionString) });
  } catch (thrown) {
    return { serverId, name, enabled, connectionString: '', error: toSluiceError(thrown) };
  }
}
