import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function syncCommand(surroundings: Surroundings): Command {
  return newCommand('sync', 'Request a full sync of a mapping and wait for it')
    .argument('<mapping>', 'number, or name as in v_mapping_health')
    .option('--no-wait', 'only make the request')
    .action(
      action<{ json?: boolean; wait: boolean }, [mapping: string]>(surroundings, 'sync', async () => {
        throw new SluiceError('CAPABILITY_MISSING', 'sluice sync is not part of this build yet');
      }),
    );
}
