/**
 * Named points at which a test may kill, freeze or fail the process: `SLUICE_FAILPOINTS=name=kill` or `name=kill:3` (the third
 * time), `name=error`, `name=sleep:500` (every time, ms); several separated by commas. Without the variable a point costs one comparison.
 */
import { SluiceError } from './errors.ts';

export const FAILPOINTS = [
  /** The destination's transaction is complete but for its commit. */
  'stream.before-commit',
  /** The destination has committed; nobody else knows yet. */
  'stream.after-commit',
  /** The source was told. */
  'stream.after-acknowledge',
  /** Some of a large transaction is applied, its end is not read. */
  'stream.part-applied',
  /** A piece of a large transaction is stored, its end is not. */
  'stream.piece-staged',
  /** The generation and its backlog exist, nothing is copied. */
  'copy.opened',
  'copy.included',
  /** A chunk and its mark are committed. */
  'copy.chunk-loaded',
  'copy.key-built',
  'copy.folded',
  'copy.compared',
  /** The rows are in an existing empty table, uncommitted. */
  'copy.filled',
  /** Where a rename commits by itself: the swap is decided, the name is still the staging table's. */
  'copy.renaming',
  /** … the table has its name, and it is not noted. */
  'copy.renamed',
  /** The new rows are in place; the request is not yet finished in the control database. */
  'copy.swapped',
  /** Tables of the tool used before are renamed, ours are made, some rows are carried over; nothing is committed. */
  'control.carried',
  'request.created',
  'trigger.reset',
] as const;
export type Failpoint = (typeof FAILPOINTS)[number];

interface Action {
  readonly kind: 'kill' | 'error' | 'sleep';
  readonly argument: number;
  hits: number;
}

const actions = new Map<string, Action>();
for (const spec of (process.env['SLUICE_FAILPOINTS'] ?? '').split(',').filter(Boolean)) {
  const [name = '', action = ''] = spec.split('=');
  const [kind = '', argument] = action.split(':');
  if (kind === 'kill' || kind === 'error' || kind === 'sleep')
    actions.set(name, { kind, argument: Number(argument ?? 1), hits: 0 });
}

export async function failpoint(name: Failpoint): Promise<void> {
  if (actions.size === 0) return;
  const action = actions.get(name);
  if (!action) return;
  action.hits++;
  if (action.kind === 'sleep') return new Promise((resolve) => setTimeout(resolve, action.argument));
  if (action.hits !== action.argument) return;
  if (action.kind === 'kill') process.kill(process.pid, 'SIGKILL');
  throw new SluiceError('INTERNAL', `failpoint ${name}`);
}
