/** Everything that can be checked without the service: the control tables, every server, every mapping, and what was left behind. */
import type { ControlDatabase } from '../control/index.ts';
import type { EngineDatabase } from '../engines/contract.ts';
import { toSluiceError } from '../model/errors.ts';
import type { Finding } from '../model/findings.ts';
import { displayPlace, type Place } from '../service/fleet.ts';
import type { PlannedMapping } from '../service/planner.ts';
import { LOW_HEADROOM_SECONDS } from '../service/stream-watch.ts';
import { checkMapping } from '../sync/check-mapping.ts';
import type { Diagnosis } from './diagnosis.ts';
import { duration } from './output.ts';
import { makePlan, type Planning } from './planning.ts';

export interface Examination {
  readonly diagnoses: readonly Diagnosis[];
  readonly databases: number;
  readonly mappings: number;
}

/** `only`: this mapping and its servers. */
export async function examine(
  control: ControlDatabase,
  destinationUrl: string,
  only: number | null,
): Promise<Examination> {
  const planning = await makePlan(control, destinationUrl);
  try {
    return await new Doctor(control, planning, only).examine();
  } finally {
    await planning.fleet.close();
  }
}

class Doctor {
  readonly #control: ControlDatabase;
  readonly #planning: Planning;
  readonly #only: number | null;
  readonly #diagnoses: Diagnosis[] = [];

  constructor(control: ControlDatabase, planning: Planning, only: number | null) {
    this.#control = control;
    this.#planning = planning;
    this.#only = only;
  }

  async examine(): Promise<Examination> {
    if (this.#only === null) await this.#settings();
    this.#rows();
    const { plan } = this.#planning;
    const mappings = plan.mappings.filter((one) => one.enabled && this.#asked(one.row.mappingId));
    const sources = groupBy(mappings, (one) => one.source);
    const destinations = groupBy(mappings, (one) => one.destination);
    const reachable = new Set(mappings);
    for (const group of sources) await this.#source(group, reachable);
    for (const group of destinations) await this.#destination(group, reachable);
    for (const one of reachable) await this.#mapping(one);
    await this.#headroom(mappings);
    if (this.#only === null) await this.#orphans();
    return { diagnoses: this.#diagnoses, databases: sources.length + destinations.length, mappings: mappings.length };
  }

  async #settings(): Promise<void> {
    const { problems } = await this.#control.readSettings();
    for (const { key, error } of problems) this.#failure(`config ${key}`, error);
  }

  /** Rows that cannot be understood or placed; the others are looked at. */
  #rows(): void {
    const { invalid, problems } = this.#planning.plan;
    for (const row of invalid) {
      if (row.mappingId !== null && !this.#asked(row.mappingId)) continue;
      const { code, message } = row;
      this.#diagnoses.push({ about: `${row.table} ${row.id}`, code, severity: 'error', message, fixSql: [row.hint] });
    }
    for (const { row, error } of problems) {
      if (this.#asked(row.mappingId)) this.#failure(`mapping ${row.mappingId} (${row.sourceTable})`, error);
    }
  }

  async #source(group: readonly PlannedMapping[], reachable: Set<PlannedMapping>): Promise<void> {
    await this.#database(
      'source',
      group,
      reachable,
      (one) => one.source,
      async (about, database) => {
        for (const cdc of [true, false]) {
          const tables = group.filter((one) => (one.stream !== null) === cdc).map((one) => one.sourceTable);
          if (tables.length > 0) this.#findings(about, (await database.preflight?.source(tables, { cdc })) ?? []);
        }
      },
    );
  }

  async #destination(group: readonly PlannedMapping[], reachable: Set<PlannedMapping>): Promise<void> {
    await this.#database(
      'destination',
      group,
      reachable,
      (one) => one.destination,
      async (about, database) => {
        this.#findings(about, (await database.preflight?.destination()) ?? []);
        if (this.#only === null) await this.#leftovers(about, database);
      },
    );
  }

  async #database(
    role: string,
    group: readonly PlannedMapping[],
    reachable: Set<PlannedMapping>,
    placeOf: (mapping: PlannedMapping) => Place,
    work: (about: string, database: EngineDatabase) => Promise<void>,
  ): Promise<void> {
    const [first] = group;
    if (!first) return;
    const place = placeOf(first);
    const about = `${role} ${place.server.name}, database ${place.database}`;
    try {
      const database = this.#planning.fleet.database(place);
      await database.ping();
      await work(about, database);
    } catch (thrown) {
      // Said once for the database, not again for each of its tables.
      this.#failure(about, thrown);
      for (const one of group) reachable.delete(one);
    }
  }

  async #mapping(one: PlannedMapping): Promise<void> {
    const { fleet } = this.#planning;
    try {
      await checkMapping({
        source: fleet.database(one.source),
        destination: fleet.database(one.destination),
        sourceTable: one.sourceTable,
        target: one.target,
        keyColumns: one.row.primaryKey,
        stream: one.stream,
        findings: async (findings) => this.#findings(one.label, findings),
      });
    } catch (thrown) {
      // What was reported as a finding is thrown again as an error.
      const { code } = toSluiceError(thrown);
      const isKnown = this.#diagnoses.some((known) => known.about === one.label && known.code === code);
      if (!isKnown) this.#failure(one.label, thrown);
    }
  }

  /** As the service last saw it: it knows how far it has read. Once for all mappings of a stream. */
  async #headroom(mappings: readonly PlannedMapping[]): Promise<void> {
    const said = new Set<string>();
    for (const health of await this.#control.operator.health()) {
      const mapping = mappings.find((one) => one.row.mappingId === health.mappingId);
      const left = health.retentionHeadroomSeconds;
      if (!mapping?.stream || left === null || left >= LOW_HEADROOM_SECONDS || said.has(mapping.stream)) continue;
      said.add(mapping.stream);
      this.#diagnoses.push({
        about: displayPlace(mapping.streamPlace),
        code: 'GAP',
        severity: 'warning',
        message: `changes that were not read are discarded in ${duration(left)}: see what holds the service up, or keep them longer at the source`,
        fixSql: [],
      });
    }
  }

  /** Records in the control database of objects on sources that no mapping needs. */
  async #orphans(): Promise<void> {
    const { rows } = this.#planning;
    const servers = new Set(rows.mappings.map((row) => row.serverId));
    for (const object of await this.#control.sourceObjects.list()) {
      const needed = object.mappingUid === null ? servers.has(object.serverId) : this.#exists(object.mappingUid);
      if (needed) continue;
      this.#diagnoses.push({
        about: `source ${rows.sources.get(object.serverId)?.name ?? object.serverId}, database ${object.database}`,
        code: 'MAPPING_INVALID',
        severity: 'warning',
        message: `no mapping needs the ${object.kind} ${object.name} that Sluice made; a running service removes it`,
        fixSql: object.dropSql === null ? [] : [object.dropSql],
      });
    }
  }

  /** Staging tables and the like whose mapping is gone. */
  async #leftovers(about: string, database: EngineDatabase): Promise<void> {
    for (const left of (await database.destination?.inventory()) ?? []) {
      if (left.mappingUid === null || this.#exists(left.mappingUid)) continue;
      const message = `${left.objects.join(', ')}: left by a mapping that is gone; a running service removes it`;
      this.#diagnoses.push({ about, code: 'MAPPING_INVALID', severity: 'warning', message, fixSql: [] });
    }
  }

  #exists(mappingUid: string): boolean {
    const { mappings, invalid } = this.#planning.rows;
    return [...mappings, ...invalid].some((row) => row.mappingUid === mappingUid);
  }

  #asked(mappingId: number): boolean {
    return this.#only === null || this.#only === mappingId;
  }

  #findings(about: string, findings: readonly Finding[]): void {
    for (const finding of findings) this.#diagnoses.push({ about, ...finding });
  }

  #failure(about: string, thrown: unknown): void {
    const { code, message, hint } = toSluiceError(thrown);
    // The planner's errors name their mapping already.
    const told = message.startsWith(`${about}: `) ? message.slice(about.length + 2) : message;
    this.#diagnoses.push({ about, code, severity: 'error', message: told, fixSql: hint === null ? [] : [hint] });
  }
}

function groupBy(mappings: readonly PlannedMapping[], placeOf: (mapping: PlannedMapping) => Place): PlannedMapping[][] {
  const groups = new Map<string, PlannedMapping[]>();
  for (const mapping of mappings) {
    const { server, database } = placeOf(mapping);
    const key = JSON.stringify([server.serverId, database]);
    const group = groups.get(key);
    if (group) group.push(mapping);
    else groups.set(key, [mapping]);
  }
  return [...groups.values()];
}
