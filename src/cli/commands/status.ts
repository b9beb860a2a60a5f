import type { Command } from 'commander';
import type { MappingHealth } from '../../control/index.ts';
import { action, newCommand, type Surroundings } from '../command.ts';
import { displayName, findMapping, withControl } from '../control.ts';
import { duration, table } from '../output.ts';

export function statusCommand(surroundings: Surroundings): Command {
  return newCommand('status', 'Show the mappings: state, lag, rows, last error')
    .argument('[mapping]', 'only this mapping: its number, or its table')
    .action(
      action<{ json?: boolean }, [mapping: string | undefined]>(
        surroundings,
        'status',
        async ({ environment }, _options, mapping) =>
          withControl(environment, async (control) => {
            const all = await control.operator.health();
            const shown = mapping === undefined ? all : [findMapping(all, mapping)];
            return { summary: summaryOf(shown), result: { mappings: shown }, lines: linesOf(shown) };
          }),
      ),
    );
}

function summaryOf(all: readonly MappingHealth[]): string {
  if (all.length === 0) return 'There are no mappings yet: INSERT INTO table_mappings, or sluice add-table.';
  const states = new Map<string, number>();
  for (const { state } of all) states.set(state, (states.get(state) ?? 0) + 1);
  const counts = [...states].map(([state, count]) => `${count} ${state}`);
  return `${all.length} ${all.length === 1 ? 'mapping' : 'mappings'}: ${counts.join(', ')}.`;
}

function linesOf(all: readonly MappingHealth[]): string[] {
  if (all.length === 0) return [];
  // Of sources that record changes by a job of their own, or keep them for some time only.
  const captures = all.some((one) => one.captureLagSeconds !== null);
  const discards = all.some((one) => one.retentionHeadroomSeconds !== null);
  const seconds = (value: number | null) => (value === null ? '' : duration(value));
  const rows = all.map((one) => [
    one.mappingId,
    displayName(one),
    one.enabled ? one.state : `${one.state} (disabled)`,
    seconds(one.lagSeconds),
    ...(captures ? [seconds(one.captureLagSeconds)] : []),
    ...(discards ? [seconds(one.retentionHeadroomSeconds)] : []),
    one.inserted,
    one.updated,
    one.deleted,
    one.failed,
    one.verificationStatus ?? '',
  ]);
  const of = [...(captures ? ['capture lag'] : []), ...(discards ? ['headroom'] : [])];
  const head = ['id', 'mapping', 'state', 'lag', ...of, 'inserted', 'updated', 'deleted', 'failed', 'verified'];
  return [...table(head, rows), ...all.flatMap(details), ''];
}

function details(one: MappingHealth): string[] {
  const lines: string[] = [];
  if (one.fullSync) {
    const { rows, rowsEstimated, phase, secondsLeft } = one.fullSync;
    const share = rowsEstimated === null ? `${rows} rows` : `${rows} of about ${rowsEstimated} rows`;
    const left = secondsLeft === null ? '' : `, ${duration(secondsLeft)} left`;
    lines.push(`${displayName(one)}: full sync, ${phase}, ${share}${left}`);
  }
  if (one.errorCode !== null) {
    lines.push(`${displayName(one)}: ${one.errorCode}: ${one.errorMessage ?? ''}`);
    if (one.errorHint !== null) lines.push(`  hint: ${one.errorHint}`);
    if (one.retryAt !== null) lines.push(`  tried again at ${one.retryAt.toISOString()}`);
  }
  if (one.warning !== null) {
    lines.push(`${displayName(one)}: warning: ${one.warning}`);
    if (one.warningHint !== null) lines.push(`  hint: ${one.warningHint}`);
  }
  return lines;
}
