import { Readable, Writable } from 'node:stream';
import type { Surroundings } from '../../src/cli/command.ts';
import type { Envelope } from '../../src/cli/envelope.ts';
import type { Variables } from '../../src/cli/environment.ts';
import { runProgram } from '../../src/cli/program.ts';

export interface CliRun {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  /** stdout as the envelope of `--json`. */
  envelope(): Envelope;
}

/** Runs `sluice <args>` in this process, with these environment variables and nothing else. */
export async function sluice(args: string[], variables: Variables = {}, input = ''): Promise<CliRun> {
  const stdout = collector();
  const stderr = collector();
  const surroundings: Surroundings = {
    stdout: stdout.stream,
    stderr: stderr.stream,
    stdin: Readable.from([input]),
    variables,
    directory: process.cwd(),
    exitCode: 0,
  };
  await runProgram(args, surroundings);
  return {
    exitCode: surroundings.exitCode,
    stdout: stdout.text(),
    stderr: stderr.text(),
    envelope: () => JSON.parse(stdout.text()) as Envelope,
  };
}

function collector(): { stream: Writable; text: () => string } {
  let text = '';
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      text += chunk.toString('utf8');
      done();
    },
  });
  return { stream, text: () => text };
}
