/**
 * The control database: the tables a person writes, and what the service remembers besides. The rest of the program sees
 * this class only; knex and the driver stay behind it.
 *
 * Everything here may be used by many jobs at once and by several processes. All methods reject with SluiceError; when
 * the database is away that is CONTROL_UNREACHABLE, and the same object works again as soon as it is back.
 */
import type { Installation } from '../engines/contract.ts';
import { SluiceError } from '../model/errors.ts';
import { checkHealth, openContext } from './connect.ts';
import type { ControlContext, ControlOptions } from './context.ts';
import { holdsDataflow, upgradeDataflow, type DataflowUpgrade } from './dataflow.ts';
import { Journal } from './journal.ts';
import { Leases } from './leases.ts';
import { MappingStates } from './mapping-state.ts';
import { checkVersion, latestOf, loadMigrations, migrate, type Migration, type MigrationResult } from './migrate.ts';
import { Operator } from './operator.ts';
import { PlanReader, type PlanRows, type UnchangedPlan } from './plan-rows.ts';
import { Requests } from './requests.ts';
import { purge, type RetentionOptions } from './retention.ts';
import { Runs } from './runs.ts';
import { SettingsStore, type SettingProblem, type Settings } from './settings.ts';
import { SourceObjects } from './source-objects.ts';
import { StreamHealths } from './stream-health.ts';

type OpenOptions = Partial<ControlOptions> & { url: string };

export class ControlDatabase {
  readonly requests: Requests;
  readonly leases: Leases;
  readonly states: MappingStates;
  readonly runs: Runs;
  readonly journal: Journal;
  readonly sourceObjects: SourceObjects;
  readonly streams: StreamHealths;
  readonly #options: OpenOptions;
  readonly operator: Operator;
  readonly #context: ControlContext;
  readonly #migrations: readonly Migration[];
  readonly #plan: PlanReader;
  readonly #settings: SettingsStore;

  private constructor(options: OpenOptions, context: ControlContext, migrations: readonly Migration[]) {
    this.#options = options;
    this.#context = context;
    this.#migrations = migrations;
    this.#plan = new PlanReader(context, latestOf(migrations));
    this.#settings = new SettingsStore(context);
    this.requests = new Requests(context);
    this.leases = new Leases(context);
    this.states = new MappingStates(context);
    this.runs = new Runs(context);
    this.journal = new Journal(context);
    this.sourceObjects = new SourceObjects(context);
    this.streams = new StreamHealths(context);
    this.operator = new Operator(context);
  }

  /**
   * Connects (see `openContext` for the errors); the tables may be missing or old: `migrate` or `check` comes next.
   * `url`: DEST_URL, secrets may be references. `migrations`: the program's own unless a test says otherwise.
   */
  static async open(options: OpenOptions, migrations?: readonly Migration[]): Promise<ControlDatabase> {
    const list = migrations ?? (await loadMigrations());
    return new ControlDatabase(options, await openContext(options), list);
  }

  /** Brings tables and default settings up to date. Safe twice, from two processes, after a kill. CONTROL_TOO_NEW. */
  async migrate(): Promise<MigrationResult> {
    return this.#patiently(async (patient) => {
      if (await holdsDataflow(patient))
        throw new SluiceError('CONFIG_INVALID', 'the control database holds the tables of dbaops-dataflow', {
          hint: 'Run `sluice migrate --from-dataflow`: it keeps them and carries their rows over (--dry-run says what it would do).',
        });
      const result = await migrate(patient, this.#migrations);
      await this.#settings.seed();
      return result;
    });
  }

  /** Upgrades a control database of dbaops-dataflow in place; again without effect. CONFIG_INVALID where there is none. */
  async migrateFromDataflow(options: { dryRun: boolean }): Promise<DataflowUpgrade> {
    return this.#patiently(async (patient) => {
      const result = await upgradeDataflow(patient, this.#migrations, options);
      if (!options.dryRun) await this.#settings.seed();
      return result;
    });
  }

  /** On a connection of its own: a statement of a migration may be silent for long. */
  async #patiently<T>(work: (patient: ControlContext) => Promise<T>): Promise<T> {
    const patient = await openContext({ ...this.#options, maxConnections: 1, silenceMs: 0 });
    try {
      return await work(patient);
    } finally {
      await patient.knex.destroy();
    }
  }

  /** The tables are of a version this program can serve; else CONTROL_TOO_NEW or CONFIG_INVALID. */
  check(): Promise<{ schemaVersion: number; minReaderVersion: number }> {
    return checkVersion(this.#context, latestOf(this.#migrations));
  }

  /** One round trip. */
  health(): Promise<{ migrated: boolean; roundTripMs: number }> {
    return checkHealth(this.#context);
  }

  /** Names slots, staging tables and position rows. */
  async installation(): Promise<Installation> {
    return this.#context.run('read the installation', async (queries) => {
      const row = await queries('meta').first<{ installation_uid: string }>('installation_uid');
      return { uid: row.installation_uid };
    });
  }

  /** The control tables, or that they are as they were at `last`; see PlanReader. */
  readPlanRows(last: string | null = null): Promise<PlanRows | UnchangedPlan> {
    return this.#plan.read(last);
  }

  readSettings(): Promise<{ settings: Settings; problems: SettingProblem[] }> {
    return this.#settings.readSettings();
  }

  /** Deletes what is older than its retention, in bounded batches. */
  purge(options: RetentionOptions): Promise<{ deleted: Readonly<Record<string, number>>; more: boolean }> {
    return purge(this.#context, options);
  }

  /** A connection to the server worked: `last_connected_at`, written at most once a minute. */
  async connected(role: 'source' | 'destination', serverId: number): Promise<void> {
    await this.#context.run('write last_connected_at', (queries) =>
      queries(role === 'source' ? 'source_servers' : 'destination_servers')
        .where('server_id', serverId)
        .where((old) => {
          const aMinuteAgo = this.#context.dialect.inSeconds(queries, -60);
          void old.whereNull('last_connected_at').orWhere('last_connected_at', '<', aMinuteAgo);
        })
        .update({ last_connected_at: this.#context.now(queries) }),
    );
  }

  /** Ends all connections. Safe to call twice. */
  async close(): Promise<void> {
    await this.#context.knex.destroy().catch(() => undefined);
  }
}

export type { ControlOptions, CounterRow } from './context.ts';
export type { DeadLetter, ErrorType, LogKind, LogLevel, LogLine, Verification } from './journal.ts';
export type { DataflowUpgrade } from './dataflow.ts';
export { keyText } from './journal.ts';
export { thisProcess, type Lease, type LeaseInfo, type Owner } from './leases.ts';
export { TRANSITIONS, type MappingStateName, type MappingStateRow, type StateDetails } from './mapping-state.ts';
export type { Migration, MigrationResult } from './migrate.ts';
export type { MappingHealth, NewMapping } from './operator.ts';
export type { InvalidRow, MappingRow, OpenRequest, PlanRows, ServerRow, UnchangedPlan } from './plan-rows.ts';
export type { FinishedRequest, FullSyncRequest, RequestReason, RequestStatus } from './request-rows.ts';
export type { Run, RunProgress, RunStatus, SyncType } from './runs.ts';
export { decryptSecret, encryptSecret, resolveSecrets } from './secrets.ts';
export { DEFAULT_SETTINGS, SETTINGS, type SettingName, type SettingProblem, type Settings } from './settings.ts';
export type { RecordedObject } from './source-objects.ts';
export type { StreamHealthRow } from './stream-health.ts';
