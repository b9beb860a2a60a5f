/** Opens the two ends of a mapping for commands that look at them without the service: doctor and add-table --dry-run. */
import { resolveSecrets } from '../control/index.ts';
import type { EngineDatabase, Installation } from '../engines/contract.ts';
import { engineOf } from '../engines/registry.ts';
import type { TableName } from '../model/tables.ts';

/** What both a row of table_mappings and the arguments of add-table say. */
export interface MappingNames {
  readonly sourceDatabase: string | null;
  readonly sourceSchema: string | null;
  readonly sourceTable: string;
  readonly destDatabase: string | null;
  readonly destSchema: string | null;
  readonly destTable: string | null;
}

export interface ResolvedNames {
  readonly sourceDatabase: string | null;
  readonly source: TableName;
  readonly destDatabase: string | null;
  readonly target: TableName;
}

/** Fills in what is NULL: the engine's default schema, and the source's names at the destination. `connection`: secrets resolved. */
export function resolveNames(names: MappingNames, connection: string): ResolvedNames {
  const engine = engineOf(connection);
  const source = { schema: names.sourceSchema ?? engine.defaultSchema, table: names.sourceTable };
  const sourceDatabase = names.sourceDatabase ?? engine.databaseOf(connection);
  return {
    sourceDatabase,
    source,
    destDatabase: names.destDatabase ?? sourceDatabase,
    target: { schema: names.destSchema ?? source.schema, table: names.destTable ?? source.table },
  };
}

/** Handles by connection string and database, each opened once; `close` ends them all. */
export class Ends {
  readonly #installation: Installation;
  readonly #open = new Map<string, EngineDatabase>();

  constructor(installation: Installation) {
    this.#installation = installation;
  }

  /** Resolves secrets; does not connect yet. Throws SECRET_UNREADABLE, ENGINE_UNKNOWN, MAPPING_INVALID. */
  async database(stored: string, database: string | null): Promise<EngineDatabase> {
    const key = JSON.stringify([stored, database]);
    const found = this.#open.get(key);
    if (found) return found;
    const connectionString = await resolveSecrets(stored);
    const opened = engineOf(connectionString).open({
      connectionString,
      database,
      installation: this.#installation,
      applicationName: 'sluice',
      maxSessions: 2,
    });
    this.#open.set(key, opened);
    return opened;
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#open.values()].map((database) => database.close()));
    this.#open.clear();
  }
}
