import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function addTableCommand(surroundings: Surroundings): Command {
  return newCommand('add-table', 'Add a mapping: one INSERT into table_mappings')
    .argument('<server>', 'the name given to add-server')
    .argument('<table>', 'source table, schema.table')
    .option('--dry-run', 'show the destination table and what is missing; change nothing')
    .action(
      action<{ json?: boolean; dryRun?: boolean }, [server: string, table: string]>(
        surroundings,
        'add-table',
        async () => {
          throw new SluiceError('CAPABILITY_MISSING', 'sluice add-table is not part of this build yet');
        },
      ),
    );
}
