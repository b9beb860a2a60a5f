import { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function secretCommand(surroundings: Surroundings): Command {
  const encrypt = newCommand('encrypt', 'Encrypt a connection string or password read from standard input').action(
    action<{ json?: boolean }>(surroundings, 'secret encrypt', async () => {
      throw new SluiceError('CAPABILITY_MISSING', 'sluice secret encrypt is not part of this build yet');
    }),
  );
  return new Command('secret').description('Secrets in the control database').addCommand(encrypt);
}
