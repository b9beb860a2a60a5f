import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function migrateCommand(surroundings: Surroundings): Command {
  return newCommand('migrate', 'Create or upgrade the control database').action(
    action<{ json?: boolean }>(surroundings, 'migrate', async () => {
      throw new SluiceError('CAPABILITY_MISSING', 'sluice migrate is not part of this build yet');
    }),
  );
}
