#!/usr/bin/env node
import { fail, type Surroundings } from './command.ts';
import { loadEnvFile } from './environment.ts';
import { Output } from './output.ts';
import { runProgram } from './program.ts';

const surroundings: Surroundings = {
  stdout: process.stdout,
  stderr: process.stderr,
  stdin: process.stdin,
  variables: process.env,
  directory: process.cwd(),
  exitCode: 0,
};
try {
  loadEnvFile(surroundings.directory);
  await runProgram(process.argv.slice(2), surroundings);
} catch (thrown) {
  fail(surroundings, new Output(surroundings, process.argv.includes('--json')), '', thrown);
}
process.exitCode = surroundings.exitCode;
