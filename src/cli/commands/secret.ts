import { Command } from 'commander';
import { encryptSecret } from '../../control/index.ts';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';

export function secretCommand(surroundings: Surroundings): Command {
  // Not an argument: those are seen by everyone who may list processes, and stay in the shell's history.
  const encrypt = newCommand('encrypt', 'Encrypt a password or connection string read from standard input').action(
    action<{ json?: boolean }>(surroundings, 'secret encrypt', async ({ environment, output, stdin }) => {
      if ('isTTY' in stdin && stdin.isTTY)
        output.note('Type the secret, then Enter and Ctrl-D (it is shown as you type):');
      const plain = (await textOf(stdin)).replace(/\r?\n$/, '');
      if (plain === '') {
        throw new SluiceError('CONFIG_INVALID', 'there was no secret on standard input', {
          hint: "For example: printf %s 'the password' | sluice secret encrypt",
        });
      }
      const encrypted = encryptSecret(plain, environment.secretKey ?? undefined);
      return {
        summary: encrypted,
        result: { encrypted },
        verbatim: true,
      };
    }),
  );
  return new Command('secret').description('Secrets in the control database').addCommand(encrypt);
}

async function textOf(stream: NodeJS.ReadableStream): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(Buffer.from(piece as string | Uint8Array));
  return Buffer.concat(pieces).toString('utf8');
}
