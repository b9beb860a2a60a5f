import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function runCommand(surroundings: Surroundings): Command {
  return newCommand('run', 'Run the service: copy, follow changes, verify, until it is stopped')
    .option('--embedded', 'use an embedded PostgreSQL under ./.sluice/ as the control server')
    .action(
      action<{ json?: boolean; embedded?: boolean }>(surroundings, 'run', async () => {
        throw new SluiceError('CAPABILITY_MISSING', 'sluice run is not part of this build yet');
      }),
    );
}
