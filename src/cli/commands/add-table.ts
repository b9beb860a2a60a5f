import type { Command } from 'commander';
import type { ControlDatabase, NewMapping, ServerRow } from '../../control/index.ts';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';
import { withControl } from '../control.ts';
import { parseTableName } from '../table-name.ts';

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
              const { dryRun } = await import('../dry-run.ts');
              return dryRun(control, mapping, environment.destinationUrl ?? '');
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
  const known = servers
    .map((server) => server.name)
    .sort()
    .join(', ');
  throw new SluiceError('CONFIG_INVALID', `there is no server ${name} in ${table}`, {
    hint: known ? `Known: ${known}.` : 'Add it with sluice add-server.',
  });
}
