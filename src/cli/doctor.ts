/** Everything that can be checked without the service: the control tables, every server, every mapping, and what was left behind. */
import {
  resolveSecrets,
  type ControlDatabase,
  type MappingRow,
  type PlanRows,
  type ServerRow,
} from '../control/index.ts';
import type { EngineDatabase } from '../engines/contract.ts';
import { toSluiceError } from '../model/errors.ts';
import type { Finding } from '../model/findings.ts';
import type { TableName } from '../model/tables.ts';
import { checkMapping } from '../sync/full-sync.ts';
import type { Diagnosis } from './diagnosis.ts';
import { Ends, resolveNames, type ResolvedNames } from './ends.ts';

export interface Examination {
  readonly diagnoses: readonly Diagnosis[];
  readonly servers: number;
  readonly mappings: number;
}

interface Known {
  readonly row: MappingRow;
  readonly about: string;
  readonly source: ServerRow;
  readonly destination: string;
  readonly names: ResolvedNames;
}

/** `only`: this mapping and its servers. `destinationUrl`: the control server, the destination of mappings that name none. */
export async function examine(
  control: ControlDatabase,
  destinationUrl: string,
  only: number | null,
): Promise<Examination> {
  const doctor = new Doctor(control, destinationUrl, only);
  try {
    return await doctor.examine();
  } finally {
    await doctor.ends?.close();
  }
}

class Doctor {
  ends: Ends | null = null;
  readonly #control: ControlDatabase;
  readonly #destinationUrl: string;
  readonly #only: number | null;
  readonly #diagnoses: Diagnosis[] = [];

  constructor(control: ControlDatabase, destinationUrl: string, only: number | null) {
    this.#control = control;
    this.#destinationUrl = destinationUrl;
    this.#only = only;
  }

  async examine(): Promise<Examination> {
    const ends = new Ends(await this.#control.installation());
    this.ends = ends;
    const plan = await this.#control.readPlanRows();
    if ('unchanged' in plan) throw new Error('the first reading of the control tables is never unchanged');
    await this.#settings();
    this.#invalidRows(plan);
    const known = await this.#resolve(plan);
    const sources = groupBy(known, (one) => JSON.stringify([one.source.serverId, one.names.sourceDatabase]));
    const destinations = groupBy(known, (one) => JSON.stringify([one.destination, one.names.destDatabase]));
    const reachable = new Set<Known>(known);
    for (const group of sources.values()) await this.#source(ends, group, reachable);
    for (const group of destinations.values()) await this.#destination(ends, group, reachable);
    for (const one of reachable) await this.#mapping(ends, one);
    if (this.#only === null) await this.#orphans(plan);
    return { diagnoses: this.#diagnoses, servers: sources.size + destinations.size, mappings: known.length };
  }

  async #settings(): Promise<void> {
    const { problems } = await this.#control.readSettings();
    for (const { key, error } of problems) this.#failure(`config ${key}`, error);
  }

  #invalidRows(plan: PlanRows): void {
    for (const row of plan.invalid) {
      if (this.#only !== null && row.mappingId !== this.#only) continue;
      this.#diagnoses.push({
        about: `${row.table} ${row.id}`,
        code: row.code,
        severity: 'error',
        message: row.message,
        fixSql: [row.hint],
      });
    }
  }

  async #resolve(plan: PlanRows): Promise<Known[]> {
    const known: Known[] = [];
    for (const row of plan.mappings) {
      if (!row.enabled || (this.#only !== null && row.mappingId !== this.#only)) continue;
      const source = plan.sources.get(row.serverId);
      const destination =
        row.destServerId === null ? this.#destinationUrl : plan.destinations.get(row.destServerId)?.connectionString;
      // A server whose own row is invalid has been reported; a disabled one is nobody's business.
      if (!source?.enabled || destination === undefined) continue;
      const about = `mapping ${row.mappingId} (${source.name}: ${row.sourceTable})`;
      try {
        const names = resolveNames(row, await resolveSecrets(source.connectionString));
        known.push({ row, about, source, destination, names });
      } catch (thrown) {
        this.#failure(about, thrown);
      }
    }
    return known;
  }

  async #source(ends: Ends, group: readonly Known[], reachable: Set<Known>): Promise<void> {
    const [first] = group;
    if (!first) return;
    const about = `source ${first.source.name}${first.names.sourceDatabase ? `, database ${first.names.sourceDatabase}` : ''}`;
    await this.#server(about, group, reachable, async () => {
      const database = await ends.database(first.source.connectionString, first.names.sourceDatabase);
      await database.ping();
      for (const cdc of [true, false]) {
        const tables: TableName[] = group.filter((one) => one.row.cdcEnabled === cdc).map((one) => one.names.source);
        if (tables.length > 0) this.#findings(about, (await database.preflight?.source(tables, { cdc })) ?? []);
      }
    });
  }

  async #destination(ends: Ends, group: readonly Known[], reachable: Set<Known>): Promise<void> {
    const [first] = group;
    if (!first) return;
    const about = `destination database ${first.names.destDatabase ?? '(default)'}`;
    await this.#server(about, group, reachable, async () => {
      const database = await ends.database(first.destination, first.names.destDatabase);
      await database.ping();
      this.#findings(about, (await database.preflight?.destination()) ?? []);
      if (this.#only === null) await this.#leftovers(about, database);
    });
  }

  async #mapping(ends: Ends, one: Known): Promise<void> {
    try {
      await checkMapping({
        source: await ends.database(one.source.connectionString, one.names.sourceDatabase),
        destination: await ends.database(one.destination, one.names.destDatabase),
        sourceTable: one.names.source,
        target: one.names.target,
        keyColumns: one.row.primaryKey,
        // Only whether there is one matters to the check.
        stream: one.row.cdcEnabled ? 'doctor' : null,
        findings: async (findings) => this.#findings(one.about, findings),
      });
    } catch (thrown) {
      // What was found as a finding is thrown again as an error.
      const { code } = toSluiceError(thrown);
      if (!this.#diagnoses.some((known) => known.about === one.about && known.code === code))
        this.#failure(one.about, thrown);
    }
  }

  /** Records in the control database of objects on sources that no mapping needs. */
  async #orphans(plan: PlanRows): Promise<void> {
    const alive = new Set([
      ...plan.mappings.map((row) => row.mappingUid),
      ...plan.invalid.map((row) => row.mappingUid),
    ]);
    const servers = new Set(plan.mappings.map((row) => row.serverId));
    for (const object of await this.#control.sourceObjects.list()) {
      const needed = object.mappingUid === null ? servers.has(object.serverId) : alive.has(object.mappingUid);
      if (needed) continue;
      this.#diagnoses.push({
        about: `source ${plan.sources.get(object.serverId)?.name ?? object.serverId}, database ${object.database}`,
        code: 'MAPPING_INVALID',
        severity: 'warning',
        message: `the ${object.kind} ${object.name} was made by Sluice and no mapping needs it; a running service removes it`,
        fixSql: object.dropSql === null ? [] : [object.dropSql],
      });
    }
  }

  /** Staging tables and the like at the destination whose mapping is gone. */
  async #leftovers(about: string, database: EngineDatabase): Promise<void> {
    const plan = await this.#control.readPlanRows();
    if ('unchanged' in plan) return;
    const alive = new Set([
      ...plan.mappings.map((row) => row.mappingUid),
      ...plan.invalid.map((row) => row.mappingUid),
    ]);
    for (const left of (await database.destination?.inventory()) ?? []) {
      if (left.mappingUid === null || alive.has(left.mappingUid)) continue;
      const message = `${left.objects.join(', ')} belong to a mapping that is gone; a running service removes them`;
      this.#add(about, 'MAPPING_INVALID', 'warning', message);
    }
  }

  async #server(
    about: string,
    group: readonly Known[],
    reachable: Set<Known>,
    work: () => Promise<void>,
  ): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      this.#failure(about, thrown);
      for (const one of group) reachable.delete(one);
    }
  }

  #findings(about: string, findings: readonly Finding[]): void {
    for (const finding of findings) this.#diagnoses.push({ about, ...finding });
  }

  #failure(about: string, thrown: unknown): void {
    const error = toSluiceError(thrown);
    this.#diagnoses.push({
      about,
      code: error.code,
      severity: 'error',
      message: error.message,
      fixSql: error.hint === null ? [] : [error.hint],
    });
  }

  #add(about: string, code: Finding['code'], severity: Finding['severity'], message: string): void {
    this.#diagnoses.push({ about, code, severity, message, fixSql: [] });
  }
}

function groupBy<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}
