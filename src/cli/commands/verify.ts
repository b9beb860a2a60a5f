import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function verifyCommand(surroundings: Surroundings): Command {
  return newCommand('verify', 'Compare source and destination of a mapping by checksum')
    .argument('<mapping>', 'number, or name as in v_mapping_health')
    .action(
      action<{ json?: boolean }, [mapping: string]>(surroundings, 'verify', async () => {
        throw new SluiceError('CAPABILITY_MISSING', 'sluice verify is not part of this build yet');
      }),
    );
}
