import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import type { Command } from 'commander';
import { resolveSecrets, type ControlDatabase } from '../../control/index.ts';
import type { Logger } from '../../log/logger.ts';
import { hasCode } from '../../model/errors.ts';
import { Service } from '../../service/service.ts';
import { action, newCommand, type Surroundings, type Work } from '../command.ts';
import { openControl } from '../control.ts';
import type { EmbeddedPostgres } from '../../embedded/postgres.ts';
import { startUnder } from '../embedded.ts';
import type { Environment } from '../environment.ts';
import type { Outcome } from '../envelope.ts';
import { untilInterrupted } from '../signals.ts';

const RECONNECT_MS = 2000;

/**
 * What lives in the heap is bounded by settings; garbage is not: V8 lets a heap grow to several times what lives in it before it
 * looks. Collected at 1.4 times, the process stays within what the settings say (F43).
 */
const HEAP_GROWTH = '--heap-growing-percent=40';

export function runCommand(surroundings: Surroundings): Command {
  return newCommand('run', 'Run the service: copy, follow changes, verify, until it is stopped')
    .option('--embedded', 'use an embedded PostgreSQL under ./.sluice/ as the control server')
    .action(
      action<{ json?: boolean; embedded?: boolean }>(surroundings, 'run', async (work, options) =>
        untilInterrupted(async (signal) => {
          if (!options.embedded) return serve(work.environment, work.log, signal);
          const server = await startUnder(work.directory);
          try {
            announce(work, server);
            return await serve({ ...work.environment, destinationUrl: server.url() }, work.log, signal);
          } finally {
            await server.stop();
          }
        }),
      ),
    );
}

/** Other terminals need the address: for psql, and for the other commands. */
function announce({ output, environment }: Work, server: EmbeddedPostgres): void {
  output.note(`Embedded PostgreSQL: psql ${server.url(environment.controlDatabase)}`);
  output.note(`For the other commands: export DEST_URL=${server.url('')}`);
}

async function serve(environment: Environment, log: Logger, signal: AbortSignal): Promise<Outcome> {
  setFlagsFromString(HEAP_GROWTH);
  const control = await openPatiently(environment, log, signal);
  if (control === null) return { summary: 'Stopped before the control database answered.', result: null };
  try {
    const migrated = await control.migrate();
    if (migrated.applied.length > 0) log.info('control database migrated', { from: migrated.from, to: migrated.to });
    const service = new Service({
      control,
      controlServerUrl: await resolveSecrets(environment.destinationUrl ?? ''),
      logger: log,
    });
    const stop = () => {
      log.info('stopping: finishing the work in hand');
      service.stop();
    };
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
    await service.run();
    return { summary: 'Stopped.', result: null };
  } finally {
    await control.close();
  }
}

/** A control database that is away is waited for, said once (F55); anything else is for the person to correct. Null: stopped. */
async function openPatiently(
  environment: Environment,
  log: Logger,
  signal: AbortSignal,
): Promise<ControlDatabase | null> {
  let said = false;
  while (!signal.aborted) {
    try {
      return await openControl(environment);
    } catch (error) {
      if (!hasCode(error, 'CONTROL_UNREACHABLE')) throw error;
      if (!said) log.warn('the control database does not answer; waiting for it', { error });
      said = true;
      await sleep(RECONNECT_MS, undefined, { signal }).catch(() => undefined);
    }
  }
  return null;
}
