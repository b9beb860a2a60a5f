/** The command line as a whole; main.ts runs it on the process, tests run it on streams of their own. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { SluiceError } from '../model/errors.ts';
import { fail, type Surroundings } from './command.ts';
import { Output } from './output.ts';
import { addServerCommand } from './commands/add-server.ts';
import { addTableCommand } from './commands/add-table.ts';
import { demoCommand } from './commands/demo.ts';
import { doctorCommand } from './commands/doctor.ts';
import { migrateCommand } from './commands/migrate.ts';
import { runCommand } from './commands/run.ts';
import { secretCommand } from './commands/secret.ts';
import { statusCommand } from './commands/status.ts';
import { syncCommand } from './commands/sync.ts';
import { verifyCommand } from './commands/verify.ts';

/** Runs `sluice <args>`. Never throws for what a user did; the exit code is left in `surroundings`. */
export async function runProgram(args: readonly string[], surroundings: Surroundings): Promise<void> {
  const program = new Command('sluice')
    .description('Keeps copies of database tables in step: full copies, live changes, proof by checksum, run from SQL.')
    .version(version());
  for (const make of [
    runCommand,
    migrateCommand,
    doctorCommand,
    statusCommand,
    syncCommand,
    verifyCommand,
    addServerCommand,
    addTableCommand,
    secretCommand,
    demoCommand,
  ]) {
    program.addCommand(make(surroundings));
  }
  const json = args.includes('--json');
  for (const command of everyCommand(program)) {
    command.exitOverride().configureOutput({
      writeOut: (text) => surroundings.stdout.write(text),
      writeErr: (text) => {
        if (!json) surroundings.stderr.write(text);
      },
    });
  }
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) throw thrown;
    surroundings.exitCode = thrown.exitCode === 0 ? 0 : 2;
    // Without --json commander has already said it.
    if (thrown.exitCode !== 0 && json) {
      const error = new SluiceError('CONFIG_INVALID', thrown.message, { hint: 'See sluice --help.' });
      fail(surroundings, new Output(surroundings, true), args.find((arg) => !arg.startsWith('-')) ?? '', error);
    }
  }
}

function everyCommand(command: Command): Command[] {
  return [command, ...command.commands.flatMap((sub) => everyCommand(sub))];
}

function version(): string {
  // The same place from src/cli and from dist/cli.
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
