import type { Command } from 'commander';
import { demoLive, demoOnce, type DemoResult, type DemoScreen } from '../../demo/demo.ts';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';
import type { Outcome } from '../envelope.ts';
import { table, type Output } from '../output.ts';
import { untilInterrupted } from '../signals.ts';

interface Options {
  json?: boolean;
  once?: boolean;
  seed: string;
}

export function demoCommand(surroundings: Surroundings): Command {
  return newCommand('demo', 'Two embedded databases, the service between them, a writer, and a live view')
    .option('--once', 'unattended: copy, change, kill -9, restart, verify, compare, exit')
    .option('--seed <number>', "of the writer's random changes", '1')
    .action(
      action<Options>(surroundings, 'demo', async ({ output }, options) => {
        const seed = Number(options.seed);
        if (!Number.isSafeInteger(seed)) throw new SluiceError('CONFIG_INVALID', '--seed is not a number');
        return untilInterrupted(async (signal) => {
          const play = options.once === true ? demoOnce : demoLive;
          return outcomeOf(await play({ screen: screenOn(output, options.once !== true), signal, seed }));
        });
      }),
    );
}

function outcomeOf(result: DemoResult): Outcome {
  const lines = [
    '',
    ...table(
      ['table', 'source rows', 'copy rows', 'source checksum', 'copy checksum', ''],
      result.tables.map((one) => [
        one.table,
        one.sourceRows,
        one.destinationRows,
        one.sourceChecksum,
        one.destinationChecksum,
        one.equal ? 'equal' : 'DIFFERENT',
      ]),
    ),
    ...result.verifications.map(
      (one) => `verification of ${one.table}: ${one.status}, ${one.rows} rows, ${one.mismatches} differ`,
    ),
    '',
  ];
  const { changes } = result;
  const all = changes.inserted + changes.updated + changes.deleted + changes.rekeyed;
  if (result.equal) {
    return {
      summary: `Equal by checksum: ${result.rows} rows copied in ${result.copySeconds} s, ${all} changes followed, ${result.kills} ${result.kills === 1 ? 'kill' : 'kills'}.`,
      result,
      lines,
    };
  }
  const summary = 'Source and copy differ, or a verification did not pass.';
  return { summary, result, lines, error: new SluiceError('VERIFICATION_FAILED', summary) };
}

function screenOn(output: Output, live: boolean): DemoScreen {
  return {
    say: (text) => output.note(text),
    paint: live && output.interactive ? (lines) => output.repaint(lines) : null,
  };
}
