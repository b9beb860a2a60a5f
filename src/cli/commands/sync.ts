import { userInfo } from 'node:os';
import type { Command } from 'commander';
import type { ControlDatabase, FullSyncRequest } from '../../control/index.ts';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';
import { displayName, findMapping, withControl } from '../control.ts';
import type { Outcome } from '../envelope.ts';
import type { Output } from '../output.ts';
import { untilInterrupted } from '../signals.ts';

export function syncCommand(surroundings: Surroundings): Command {
  return newCommand('sync', 'Request a full sync of a mapping and wait for it')
    .argument('<mapping>', 'its number, or its table')
    .option('--no-wait', 'only make the request')
    .action(
      action<{ json?: boolean; wait: boolean }, [mapping: string]>(
        surroundings,
        'sync',
        async ({ environment, output }, options, text) =>
          withControl(environment, async (control) => {
            const mapping = findMapping(await control.operator.health(), text);
            const uid = await uidOf(control, mapping.mappingId);
            const { requestId, created } = await control.requests.create({
              mappingId: mapping.mappingId,
              mappingUid: uid,
              reason: 'cli',
              requestedBy: userInfo().username,
            });
            const made = created
              ? `Requested a full sync of ${displayName(mapping)}`
              : 'A full sync was waiting already';
            if (!options.wait) return { summary: `${made} (request ${requestId}).`, result: { requestId, created } };
            output.note(`${made} (request ${requestId}). Ctrl-C stops waiting, not the sync.`);
            return untilInterrupted((signal) => waitFor(control, output, mapping.mappingId, uid, requestId, signal));
          }),
      ),
    );
}

async function waitFor(
  control: ControlDatabase,
  output: Output,
  mappingId: number,
  mappingUid: string,
  requestId: number,
  signal: AbortSignal,
): Promise<Outcome> {
  const started = Date.now();
  let bar: ReturnType<Output['progress']> | null = null;
  for (;;) {
    const request = (await control.requests.list({ mappingUid })).find((one) => one.requestId === requestId);
    if (request === undefined)
      throw new SluiceError('CANCELLED', `request ${requestId} is gone: the mapping was deleted`);
    if (request.status === 'running') {
      const mapping = (await control.operator.health()).find((one) => one.mappingId === mappingId);
      if (mapping?.fullSync) {
        bar ??= output.progress(displayName(mapping), mapping.fullSync.rowsEstimated);
        bar.update(mapping.fullSync.rows, mapping.fullSync.rowsEstimated);
      }
    } else if (request.status !== 'queued') {
      bar?.finish(request.rowsCopied ?? 0);
      return outcomeOf(request);
    }
    if (signal.aborted) {
      return { summary: `Request ${requestId} is ${request.status}; it goes on without us.`, result: request };
    }
    if (request.status === 'queued' && Date.now() - started > 15_000 && (await nobodyRuns(control))) {
      throw new SluiceError('TIMEOUT', `request ${requestId} waits, and no service is running to serve it`, {
        hint: 'Start one with sluice run; the request stays.',
        retry: 'never',
      });
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function outcomeOf(request: FullSyncRequest): Outcome {
  const rows = request.rowsCopied ?? 0;
  if (request.status === 'completed') {
    const ms = (request.finishedAt?.getTime() ?? 0) - (request.startedAt?.getTime() ?? 0);
    return { summary: `Copied ${rows} rows in ${(ms / 1000).toFixed(1)} s.`, result: request };
  }
  const summary =
    `Request ${request.requestId} ${request.status}: ${request.errorCode ?? ''} ${request.errorMessage ?? ''}`.trim();
  return {
    summary,
    result: request,
    error: new SluiceError(request.status === 'cancelled' ? 'CANCELLED' : 'INTERNAL', summary),
  };
}

async function uidOf(control: ControlDatabase, mappingId: number): Promise<string> {
  const plan = await control.readPlanRows();
  const row = 'mappings' in plan ? plan.mappings.find((one) => one.mappingId === mappingId) : undefined;
  if (row) return row.mappingUid;
  const invalid = 'invalid' in plan ? plan.invalid.find((one) => one.mappingId === mappingId) : undefined;
  throw new SluiceError('MAPPING_INVALID', invalid?.message ?? `mapping ${mappingId} was deleted`, {
    hint: invalid?.hint,
  });
}

async function nobodyRuns(control: ControlDatabase): Promise<boolean> {
  const leases = await control.leases.list();
  return leases.every((lease) => lease.expired);
}
