import type { Command } from 'commander';
import type { DataflowUpgrade } from '../../control/index.ts';
import { SluiceError } from '../../model/errors.ts';
import { action, newCommand, type Surroundings } from '../command.ts';
import { withControl } from '../control.ts';
import type { Outcome } from '../envelope.ts';

interface Options {
  readonly json?: boolean;
  readonly fromDataflow?: boolean;
  readonly dryRun?: boolean;
}

export function migrateCommand(surroundings: Surroundings): Command {
  return newCommand('migrate', 'Create or upgrade the control database')
    .option('--from-dataflow', 'turn the database of dbaops-dataflow into ours, in place; its tables are kept')
    .option('--dry-run', 'with --from-dataflow: only say what would be done')
    .action(
      action<Options>(surroundings, 'migrate', async ({ environment }, { fromDataflow = false, dryRun = false }) => {
        const database = environment.controlDatabase;
        if (dryRun && !fromDataflow)
          throw new SluiceError('CONFIG_INVALID', '--dry-run is for --from-dataflow', {
            hint: 'sluice migrate --help',
          });
        if (fromDataflow) {
          const work = (control: Control) => control.migrateFromDataflow({ dryRun });
          return told(database, dryRun, await withControl(environment, work, { check: false }));
        }
        const result = await withControl(environment, (control) => control.migrate(), { check: false });
        const summary =
          result.applied.length === 0
            ? `The control database ${database} is up to date (version ${result.to}).`
            : `The control database ${database} went from version ${result.from} to ${result.to}.`;
        return { summary, result: { database, ...result } };
      }),
    );
}

type Control = Parameters<Parameters<typeof withControl>[1]>[0];

function told(database: string, dryRun: boolean, upgrade: DataflowUpgrade): Outcome {
  const result = { database, dryRun, ...upgrade };
  if (upgrade.layout === null) return { summary: `The database ${database} was upgraded before.`, result };
  const would = dryRun ? 'would be ' : '';
  const rows = new Map<string, number>();
  for (const { to, rows: more } of upgrade.carried) rows.set(to, (rows.get(to) ?? 0) + more);
  const lines = [
    ...upgrade.renamed.map(({ from, to }) => `${from}: ${would}kept as ${to}`),
    ...[...rows].map(([table, n]) => `${table}: ${n} rows ${would}carried over`),
    ...upgrade.left.map(({ from, rows: n }) => `${from}: ${n} rows stay in dataflow_${from} only: ${WHY[from] ?? ''}`),
    ...(dryRun ? [] : AFTERWARDS),
    '',
  ];
  const mappings = rows.get('table_mappings') ?? 0;
  const summary = dryRun
    ? `The database ${database} is of the generation with ${upgrade.layout}; ${mappings} mappings would be carried over. Nothing was done.`
    : `The database ${database} was upgraded; ${mappings} mappings were carried over.`;
  return { summary, result, lines };
}

const WHY: Readonly<Record<string, string>> = {
  table_mappings: 'they name a server that is gone',
  config: 'there are no such settings here',
};

const AFTERWARDS = [
  'Stop the other tool before `sluice run`. Each mapping is copied once; rows of its destination stay until the copy replaces them.',
  'The kept tables hold the passwords in plain text as before: drop them when you no longer need them, and see `sluice secret encrypt`.',
];
