import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function addServerCommand(surroundings: Surroundings): Command {
  return newCommand('add-server', 'Add a source server: one INSERT into source_servers')
    .argument('<name>', 'a name of your choice')
    .argument('<connection>', 'connection string; passwords as ${env:NAME} or ${file:/path}')
    .action(
      action<{ json?: boolean }, [name: string, connection: string]>(surroundings, 'add-server', async () => {
        throw new SluiceError('CAPABILITY_MISSING', 'sluice add-server is not part of this build yet');
      }),
    );
}
