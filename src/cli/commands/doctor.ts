import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function doctorCommand(surroundings: Surroundings): Command {
  return newCommand('doctor', 'Check servers and mappings; print what is missing and the SQL that fixes it')
    .argument('[mapping]', 'only this mapping (number, or name as in v_mapping_health)')
    .action(
      action<{ json?: boolean }, [mapping?: string]>(surroundings, 'doctor', async () => {
        throw new SluiceError('CAPABILITY_MISSING', 'sluice doctor is not part of this build yet');
      }),
    );
}
