import type { Command } from 'commander';
import { action, newCommand, type Surroundings } from '../command.ts';
import { withControl } from '../control.ts';
import { isPlainPassword } from '../plain-password.ts';

export function addServerCommand(surroundings: Surroundings): Command {
  return newCommand('add-server', 'Add a source server: one INSERT into source_servers')
    .argument('<name>', 'a name of your choice')
    .argument('<connection>', "connection string; write passwords as '${env:NAME}' or '${file:/path}'")
    .action(
      action<{ json?: boolean }, [name: string, connection: string]>(
        surroundings,
        'add-server',
        async ({ environment, output }, _options, name, connection) => {
          const { engineOf } = await import('../../engines/registry.ts');
          const engine = engineOf(connection);
          engine.check(connection);
          const serverId = await withControl(environment, (control) => control.operator.addServer(name, connection));
          if (isPlainPassword(connection)) {
            output.note(
              'The password is stored as it is. ${env:NAME}, ${file:/path} or sluice secret encrypt keep it out of the table.',
            );
          }
          return {
            summary: `Added server ${name} as number ${serverId} (${engine.name}).`,
            result: { serverId, name, engine: engine.name },
          };
        },
      ),
    );
}
