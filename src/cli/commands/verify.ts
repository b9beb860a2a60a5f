import type { Command } from 'commander';
import type { ControlDatabase } from '../../control/index.ts';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings, type Work } from '../command.ts';
import { displayName, findMapping, withControl } from '../control.ts';
import type { Outcome } from '../envelope.ts';
import { untilInterrupted } from '../signals.ts';

export function verifyCommand(surroundings: Surroundings): Command {
  return newCommand('verify', 'Compare source and destination of a mapping by checksum, now')
    .argument('<mapping>', 'its number, or its table')
    .action(
      action<{ json?: boolean }, [mapping: string]>(surroundings, 'verify', async (work, _options, text) =>
        withControl(work.environment, (control) => untilInterrupted((signal) => verify(work, control, text, signal))),
      ),
    );
}

/** As the service does it every few minutes, with the same rows in verification_logs; the service need not run. */
async function verify(work: Work, control: ControlDatabase, text: string, signal: AbortSignal): Promise<Outcome> {
  const { makePlan } = await import('../planning.ts');
  const { VerificationSchedule } = await import('../../service/verification-schedule.ts');
  const mapping = findMapping(await control.operator.health(), text);
  const { plan, fleet } = await makePlan(control, work.environment.destinationUrl ?? '');
  try {
    const problem = plan.problems.find((one) => one.row.mappingId === mapping.mappingId);
    if (problem) throw problem.error;
    const planned = plan.mappings.find((one) => one.row.mappingId === mapping.mappingId);
    if (!planned)
      throw new SluiceError('MAPPING_INVALID', `${displayName(mapping)} cannot be understood`, {
        hint: 'See sluice doctor.',
      });
    const { settings } = await control.readSettings();
    const before = await control.operator.lastVerification(mapping.mappingId);
    const verifier = new VerificationSchedule({ control, fleet, logger: work.log, settings: () => settings });
    await verifier.verify(planned, signal);
    const result = await control.operator.lastVerification(mapping.mappingId);
    if (!result || result.verificationId === before?.verificationId) {
      throw new SluiceError(
        'CONFIG_INVALID',
        `${displayName(mapping)} has no copy to compare yet (it is ${mapping.state})`,
        {
          hint: 'Wait until sluice status shows it as streaming.',
        },
      );
    }
    const took = ((result.durationMs ?? 0) / 1000).toFixed(1);
    if (result.mismatches === 0) {
      return { summary: `The newest ${result.compared} rows are equal (${took} s).`, result };
    }
    const isRefused = result.status === 'PARTIAL';
    const summary = `${result.mismatches} of the newest ${result.compared} rows differ.${result.details === null ? '' : ` ${result.details}`}`;
    const hint = isRefused
      ? `SELECT key_text, reason FROM dead_letters WHERE mapping_id = ${mapping.mappingId}; mend the destination or these rows of the source. A copy alone would not bring them.`
      : `SELECT * FROM verification_mismatches WHERE verification_id = ${result.verificationId}; sluice sync ${mapping.mappingId} copies the table again.`;
    return { summary, result, error: new SluiceError('VERIFICATION_FAILED', summary, { hint }) };
  } finally {
    await fleet.close();
  }
}
