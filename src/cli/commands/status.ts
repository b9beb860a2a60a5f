import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function statusCommand(surroundings: Surroundings): Command {
  return newCommand('status', 'Show the mappings: state, lag, rows, last error')
    .argument('[mapping]', 'only this mapping (number, or name as in v_mapping_health)')
    .action(
      action<{ json?: boolean }, [mapping?: string]>(surroundings, 'status', async () => {
        throw new SluiceError('CAPABILITY_MISSING', 'sluice status is not part of this build yet');
      }),
    );
}
