/**
 * Brings the control tables to the version this program knows.
 *
 * Each migration is one transaction that first takes a lock the server frees when the session ends, then looks which
 * version the tables have, then does its work: so two processes take turns, the second finds nothing left to do, and one
 * that is killed leaves no half version and no lock behind. MySQL commits each statement of DDL by itself: there a migration's
 * statements can be run again (IF NOT EXISTS, or a look first), and the version is written last. (knex's own migrator keeps its lock in a table, which a killed
 * process leaves locked, so it is not used; only the form of its migration modules is.)
 */
import { readdir } from 'node:fs/promises';
import { SluiceError } from '../model/errors.ts';
import type { ControlContext, Queries } from './context.ts';

/** `up` runs inside the migration's transaction, and on MySQL perhaps again over what a killed one left. */
export interface Migration {
  /** The version of the tables afterwards: 1, 2, 3 … without holes. */
  readonly version: number;
  readonly name: string;
  up(queries: Queries): Promise<void>;
}

export interface MigrationResult {
  readonly from: number;
  readonly to: number;
  readonly applied: readonly string[];
}

/** Where migrations lie, seen both from src/control and from dist/control. */
const FOLDER = new URL('../../migrations/', import.meta.url);

/** The program's own migrations, in order. */
export async function loadMigrations(folder: URL = FOLDER): Promise<Migration[]> {
  const files = (await readdir(folder)).filter((name) => /^\d{4}_.*\.mjs$/.test(name)).sort();
  return Promise.all(
    files.map(async (name, index) => {
      const version = Number(name.slice(0, 4));
      if (version !== index + 1) throw new Error(`migrations are numbered without holes; ${name} is not ${index + 1}`);
      const loaded = (await import(new URL(name, folder).href)) as Pick<Migration, 'up'>;
      return { version, name: name.replace(/\.mjs$/, ''), up: (queries: Queries) => loaded.up(queries) };
    }),
  );
}

/**
 * Applies what is missing; safe to run twice, from two processes at once, and again after a kill. Waits for another
 * process at most `lockWaitSeconds` (TIMEOUT). Rejects with CONTROL_TOO_NEW when the tables are ahead of the program and
 * ask for a newer one.
 */
export async function migrate(
  context: ControlContext,
  migrations: readonly Migration[],
  lockWaitSeconds = 60,
): Promise<MigrationResult> {
  let from: number | null = null;
  const applied: string[] = [];
  for (const migration of migrations) {
    const before = await step(context, migration, latestOf(migrations), lockWaitSeconds);
    from ??= before;
    if (before < migration.version) applied.push(migration.name);
    else if (before >= latestOf(migrations)) break;
  }
  const { schemaVersion } = await checkVersion(context, latestOf(migrations));
  return { from: from ?? schemaVersion, to: schemaVersion, applied };
}

/** One migration, or nothing if the tables have it. Resolves to the version found under the lock. */
function step(context: ControlContext, migration: Migration, latest: number, seconds: number): Promise<number> {
  const work = async (queries: Queries) => {
    const found = await readVersion(context, queries);
    refuseNewer(found.minReaderVersion, latest);
    if (found.schemaVersion >= migration.version) return found.schemaVersion;
    await apply(context, queries, migration);
    return found.schemaVersion;
  };
  return context.run(`migrate the control database (${migration.name})`, (queries) =>
    context.dialect.migrateAlone(queries, seconds, work),
  );
}

/** All of them, in the caller's transaction, on a database that has none of the tables. */
export async function applyAll(
  context: ControlContext,
  queries: Queries,
  migrations: readonly Migration[],
): Promise<void> {
  for (const migration of migrations) await apply(context, queries, migration);
}

async function apply(context: ControlContext, queries: Queries, migration: Migration): Promise<void> {
  await migration.up(queries);
  // A migration's SQL may say its version itself, so that a DBA's run by hand counts too.
  await queries('meta')
    .where('schema_version', '<', migration.version)
    .update({ schema_version: migration.version, updated_at: context.now(queries) });
}

/** The tables' version, checked against the program's. Throws CONTROL_TOO_NEW, or CONFIG_INVALID when migration is due. */
export async function checkVersion(
  context: ControlContext,
  programVersion: number,
): Promise<{ schemaVersion: number; minReaderVersion: number }> {
  const found = await context.run('read the version of the control database', (queries) =>
    readVersion(context, queries),
  );
  refuseNewer(found.minReaderVersion, programVersion);
  if (found.schemaVersion < programVersion) {
    throw new SluiceError(
      'CONFIG_INVALID',
      `the control database has version ${found.schemaVersion}, this program needs ${programVersion}`,
      { hint: 'Run `sluice migrate`.' },
    );
  }
  return found;
}

/** Also called by every poll: a newer process may have migrated while this one runs. */
export function refuseNewer(minReaderVersion: number, programVersion: number): void {
  if (minReaderVersion <= programVersion) return;
  throw new SluiceError(
    'CONTROL_TOO_NEW',
    `the control database asks for programs that know version ${minReaderVersion}; this one knows ${programVersion}`,
    { hint: 'Update this program to the version that migrated the database.' },
  );
}

async function readVersion(
  context: ControlContext,
  queries: Queries,
): Promise<{ schemaVersion: number; minReaderVersion: number }> {
  if (!(await context.dialect.hasSchema(queries))) return { schemaVersion: 0, minReaderVersion: 0 };
  const row = await queries('meta').first<{ schema_version: number; min_reader_version: number } | undefined>(
    'schema_version',
    'min_reader_version',
  );
  return { schemaVersion: row?.schema_version ?? 0, minReaderVersion: row?.min_reader_version ?? 0 };
}

/** The highest version a list of migrations leads to. */
export function latestOf(migrations: readonly Migration[]): number {
  return Math.max(0, ...migrations.map((each) => each.version));
}
