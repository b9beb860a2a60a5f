import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function demoCommand(surroundings: Surroundings): Command {
  return newCommand('demo', 'Two embedded databases, the service between them, a writer, and a live view')
    .option('--once', 'unattended: copy, change, kill -9, restart, verify, compare, exit')
    .action(
      action<{ json?: boolean; once?: boolean }>(surroundings, 'demo', async () => {
        throw new SluiceError('CAPABILITY_MISSING', 'sluice demo is not part of this build yet');
      }),
    );
}
