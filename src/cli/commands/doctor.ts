import type { Command } from 'commander';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';
import { findMapping, withControl } from '../control.ts';
import { linesOf, type Diagnosis } from '../diagnosis.ts';
import type { Examination } from '../doctor.ts';
import type { Outcome } from '../envelope.ts';

export function doctorCommand(surroundings: Surroundings): Command {
  return newCommand('doctor', 'Check servers and mappings; print what is missing and the SQL that fixes it')
    .argument('[mapping]', 'only this mapping: its number, or its table')
    .action(
      action<{ json?: boolean }, [mapping: string | undefined]>(
        surroundings,
        'doctor',
        async ({ environment }, _options, text) =>
          withControl(environment, async (control) => {
            const only = text === undefined ? null : findMapping(await control.operator.health(), text).mappingId;
            const { examine } = await import('../doctor.ts');
            return outcomeOf(await examine(control, environment.destinationUrl ?? '', only));
          }),
      ),
    );
}

function outcomeOf(examination: Examination): Outcome {
  const { diagnoses, databases, mappings } = examination;
  const errors = diagnoses.filter((one) => one.severity === 'error');
  const warnings = diagnoses.filter((one) => one.severity === 'warning').length;
  const checked = `${mappings} enabled mappings on ${databases} databases checked`;
  const summary =
    errors.length + warnings === 0
      ? `All is well: ${checked}.`
      : `${errors.length} errors, ${warnings} warnings; ${checked}.`;
  const lines = [...diagnoses].sort((a, b) => rank(a) - rank(b)).flatMap(linesOf);
  const [first] = errors;
  if (!first) return { summary, result: examination, lines };
  return { summary, result: examination, lines, error: new SluiceError(first.code, first.message) };
}

function rank(one: Diagnosis): number {
  return ['error', 'warning', 'info'].indexOf(one.severity);
}
