import type { Command } from 'commander';
import { action, newCommand, type Surroundings } from '../command.ts';
import { withControl } from '../control.ts';

export function migrateCommand(surroundings: Surroundings): Command {
  return newCommand('migrate', 'Create or upgrade the control database').action(
    action<{ json?: boolean }>(surroundings, 'migrate', async ({ environment }) => {
      const result = await withControl(environment, (control) => control.migrate(), { check: false });
      const database = environment.controlDatabase;
      const summary =
        result.applied.length === 0
          ? `The control database ${database} is up to date (version ${result.to}).`
          : `The control database ${database} went from version ${result.from} to ${result.to}.`;
      return { summary, result: { database, ...result } };
    }),
  );
}
