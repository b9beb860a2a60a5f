import type { Command } from 'commander';
import type { ControlDatabase, NewMapping, ServerRow } from '../../control/index.ts';
import { resolveSecrets } from '../../control/index.ts';
import { SluiceError, toSluiceError } from '../../model/errors.ts';
import type { Finding } from '../../model/findings.ts';
import { displayName, type Table } from '../../model/tables.ts';
import { checkMapping } from '../../sync/full-sync.ts';
import { action, newCommand, type Surroundings } from '../command.ts';
import { withControl } from '../control.ts';
import { Ends, resolveNames } from '../ends.ts';
import type { Outcome } from '../envelope.ts';
import { parseTableName } from '../table-name.ts';
import { linesOf } from './doctor.ts';

interface Options {
  json?: boolean;
  dryRun?: boolean;
  sourceDatabase?: string;
  destServer?: string;
  destDatabase?: string;
  destTable?: string;
  key?: string;
  triggerColumn?: string;
  cdc: boolean;
  adopt?: boolean;
  onGap?: string;
  applyGroup?: string;
}

export function addTableCommand(surroundings: Surroundings): Command {
  return newCommand('add-table', 'Add a mapping: one INSERT into table_mappings')
    .argument('<server>', 'the name given to add-server')
    .argument('<table>', 'source table: table or schema.table')
    .option('--source-database <name>', "default: the connection string's")
    .option('--dest-server <name>', 'a row of destination_servers; default: the control server')
    .option('--dest-database <name>', "default: the source's name")
    .option('--dest-table <table>', "table or schema.table; default: the source's names")
    .option('--key <columns>', 'a, b; default: from the catalog')
    .option('--trigger-column <name>', 'column of the source that requests a full sync when it becomes 1')
    .option('--no-cdc', 'full syncs only, no changes')
    .option('--adopt', 'the destination already holds the rows: follow changes without a copy')
    .option('--on-gap <policy>', 'stop or resync')
    .option('--apply-group <name>', 'mappings of one group commit together')
    .option('--dry-run', 'show the destination table and what is missing; change nothing')
    .action(
      action<Options, [server: string, table: string]>(
        surroundings,
        'add-table',
        async ({ environment }, options, server, table) =>
          withControl(environment, async (control) => {
            const servers = await readServers(control);
            const source = named(servers.sources, server, 'source_servers');
            const destination =
              options.destServer === undefined
                ? null
                : named(servers.destinations, options.destServer, 'destination_servers');
            const mapping = mappingOf(options, table, source, destination);
            if (options.dryRun) {
              const url = destination?.connectionString ?? environment.destinationUrl ?? '';
              return dryRun(control, mapping, source, url);
            }
            const mappingId = await control.operator.addMapping(mapping);
            return {
              summary: `Added mapping ${mappingId}. A running service takes it up at its next poll.`,
              result: { mappingId },
            };
          }),
      ),
    );
}

function mappingOf(options: Options, table: string, source: ServerRow, destination: ServerRow | null): NewMapping {
  const from = parseTableName(table);
  const to = options.destTable === undefined ? null : parseTableName(options.destTable);
  if (options.onGap !== undefined && options.onGap !== 'stop' && options.onGap !== 'resync') {
    throw new SluiceError('CONFIG_INVALID', '--on-gap is stop or resync');
  }
  return {
    serverId: source.serverId,
    sourceDatabase: options.sourceDatabase,
    sourceSchema: from.schema ?? undefined,
    sourceTable: from.table,
    destServerId: destination?.serverId,
    destDatabase: options.destDatabase,
    destSchema: to?.schema ?? undefined,
    destTable: to?.table,
    primaryKey: options.key,
    triggerColumn: options.triggerColumn,
    cdcEnabled: options.cdc ? undefined : false,
    initialSync: options.adopt ? 'none' : undefined,
    onGap: options.onGap,
    applyGroup: options.applyGroup,
  };
}

/** Looks at both ends as a full sync would; writes nothing anywhere. */
async function dryRun(
  control: ControlDatabase,
  mapping: NewMapping,
  server: ServerRow,
  destinationUrl: string,
): Promise<Outcome> {
  const ends = new Ends(await control.installation());
  try {
    const names = resolveNames(
      {
        sourceDatabase: mapping.sourceDatabase ?? null,
        sourceSchema: mapping.sourceSchema ?? null,
        sourceTable: mapping.sourceTable,
        destDatabase: mapping.destDatabase ?? null,
        destSchema: mapping.destSchema ?? null,
        destTable: mapping.destTable ?? null,
      },
      await resolveSecrets(server.connectionString),
    );
    const source = await ends.database(server.connectionString, names.sourceDatabase);
    const destination = await ends.database(destinationUrl, names.destDatabase);
    const cdc = mapping.cdcEnabled ?? true;
    const keyColumns = mapping.primaryKey?.split(',').map((name) => name.trim()) ?? null;
    const findings: Finding[] = [...((await source.preflight?.source([names.source], { cdc })) ?? [])];
    findings.push(...((await destination.preflight?.destination()) ?? []));
    let error: SluiceError | null = null;
    let live: Table | null = null;
    let table: Table | null = null;
    try {
      ({ live, table } = await checkMapping({
        source,
        destination,
        sourceTable: names.source,
        target: names.target,
        keyColumns,
        stream: cdc ? 'dry run' : null,
        findings: async (found) => void findings.push(...found),
      }));
    } catch (thrown) {
      error = toSluiceError(thrown);
    }
    const first = findings.find((finding) => finding.severity === 'error');
    error ??= first ? new SluiceError(first.code, first.message) : null;
    const key = keyColumns ?? table?.keys.find((candidate) => candidate.usable)?.columns ?? [];
    const design = table && !live ? (destination.destination?.design(table, names.target, key) ?? null) : null;
    const target = `${names.destDatabase ? `${names.destDatabase}, ` : ''}${displayName(names.target)}`;
    const what = live ? `would fill the existing table ${target}` : `would make and fill ${target}`;
    return {
      summary: error ? error.message : `${displayName(names.source)} ${what}. Nothing was changed.`,
      result: {
        source: names.source,
        target: names.target,
        exists: live !== null,
        ddl: design?.ddl ?? [],
        leftOut: design?.leftOut ?? [],
        findings,
      },
      lines: [
        ...findings.flatMap((finding) => linesOf({ about: displayName(names.source), ...finding })),
        ...(design?.ddl.map((sql) => `${sql};`) ?? []),
        ...(design?.leftOut.map((text) => `-- left out: ${text}`) ?? []),
      ],
      ...(error ? { error } : {}),
    };
  } finally {
    await ends.close();
  }
}

interface Servers {
  readonly sources: readonly ServerRow[];
  readonly destinations: readonly ServerRow[];
}

async function readServers(control: ControlDatabase): Promise<Servers> {
  const plan = await control.readPlanRows();
  if ('unchanged' in plan) throw new Error('the first reading of the control tables is never unchanged');
  return { sources: [...plan.sources.values()], destinations: [...plan.destinations.values()] };
}

function named(servers: readonly ServerRow[], name: string, table: string): ServerRow {
  const found = servers.find((server) => server.name === name);
  if (found) return found;
  const known = servers.map((server) => server.name).join(', ');
  throw new SluiceError('CONFIG_INVALID', `there is no server ${name} in ${table}`, {
    hint: known ? `Known: ${known}.` : 'Add it with sluice add-server.',
  });
}
