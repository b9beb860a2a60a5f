/** What all commands share: their surroundings, `--json`, and how an outcome becomes output and an exit code. */
import { Command } from 'commander';
import { toSluiceError } from '../model/errors.ts';
import { createLogger, type Logger } from '../log/logger.ts';
import { redact } from '../model/redact.ts';
import { readEnvironment, type Environment, type Variables } from './environment.ts';
import { envelopeOf, exitCodeOf, failureOf, type ExitCode, type Outcome } from './envelope.ts';
import { Output, type Terminal } from './output.ts';

/** Given to the program by main.ts, and by tests with streams and variables of their own. */
export interface Surroundings extends Terminal {
  readonly variables: Variables;
  readonly directory: string;
  readonly stdin: NodeJS.ReadStream | NodeJS.ReadableStream;
  /** Set by the command that ran. */
  exitCode: ExitCode;
}

/** What a command's body works with. */
export interface Work {
  readonly output: Output;
  readonly environment: Environment;
  readonly log: Logger;
  readonly directory: string;
  readonly stdin: NodeJS.ReadStream | NodeJS.ReadableStream;
}

export function newCommand(name: string, description: string): Command {
  return new Command(name).description(description).option('--json', 'answer with one JSON object on stdout');
}

/**
 * Wraps a body into a commander action. Whatever it throws becomes the error of the envelope, or one line with the hint
 * below it. `name` is the command as typed (`secret encrypt`).
 */
export function action<Options extends { json?: boolean }, Args extends (string | undefined)[] = []>(
  surroundings: Surroundings,
  name: string,
  body: (work: Work, options: Options, ...args: Args) => Promise<Outcome>,
): (...given: unknown[]) => Promise<void> {
  return async (...given) => {
    // commander calls with the arguments, then the options, then the command itself.
    const options = given[given.length - 2] as Options;
    const args = given.slice(0, -2) as Args;
    const output = new Output(surroundings, options.json === true);
    try {
      const environment = readEnvironment(surroundings.variables);
      const log = createLogger({
        level: environment.logLevel,
        format: environment.logFormat,
        stream: surroundings.stderr,
      });
      const { directory, stdin } = surroundings;
      const outcome = await body({ output, environment, log, directory, stdin }, options, ...args);
      output.close();
      if (output.json) output.envelope(envelopeOf(name, outcome));
      else {
        const { summary } = envelopeOf(name, outcome);
        for (const line of outcome.lines ?? []) output.line(redact(line));
        output.line(summary);
        if (outcome.error?.hint) output.note(redact(`hint: ${outcome.error.hint}`));
      }
      surroundings.exitCode = exitCodeOf(outcome.error);
    } catch (thrown) {
      output.close();
      fail(surroundings, output, name, thrown);
    }
  };
}

/** Prints a failure and sets the exit code. */
export function fail(surroundings: Surroundings, output: Output, name: string, thrown: unknown): void {
  const error = toSluiceError(thrown);
  const envelope = failureOf(name, error);
  if (output.json) output.envelope(envelope);
  else {
    output.note(`${error.code}: ${envelope.summary}`);
    if (envelope.error?.hint) output.note(`  hint: ${envelope.error.hint}`);
    const { cause } = error;
    if (error.code === 'INTERNAL' && cause instanceof Error && cause.stack) output.note(redact(cause.stack));
  }
  surroundings.exitCode = exitCodeOf(error);
}
