/**
 * Compares the last rows by key of a mapping's two tables (DESIGN §3, MD5 verification): checksums per block by each database
 * itself, row checksums only where blocks differ, and every difference looked at again before it counts, because rows change
 * while they are compared (F60).
 */
import { createHash } from 'node:crypto';
import type { Cell } from '../model/changes.ts';
import { SluiceError } from '../model/errors.ts';
import type { Checksummer, ChecksumRequest, EngineDatabase, Route, RowChecksum } from '../engines/contract.ts';

export interface RecentVerification {
  readonly sourceMd5: string;
  readonly destMd5: string;
  readonly sourceRows: number;
  readonly destRows: number;
  readonly compared: number;
  readonly mismatches: readonly { readonly kind: 'missing' | 'extra' | 'different'; readonly key: readonly Cell[] }[];
}

/** How often, and after which pause, a difference is looked at again: longer than changes usually are on their way. */
const RECHECKS_MS = [500, 2000, 5000, 10_000];

export async function verifyRecent(options: {
  source: EngineDatabase;
  destination: EngineDatabase;
  route: Route;
  rows: number;
  signal: AbortSignal;
  /** Known to differ: they are not waited for when nothing else does. */
  isExplained?: (keys: readonly (readonly Cell[])[]) => Promise<boolean>;
  /** For tests: pauses before each re-check, ms. */
  rechecksMs?: readonly number[];
}): Promise<RecentVerification> {
  const source = options.source.checksum;
  const destination = options.destination.checksum;
  if (!source || !destination)
    throw new SluiceError('CAPABILITY_MISSING', 'these engines cannot be compared by checksums');
  const { route } = options;
  const limits = { limit: options.rows, blockRows: Math.max(100, Math.ceil(options.rows / 64)) };
  const columns = route.columns;
  const ask: ChecksumRequest = {
    table: route.source,
    columns: columns.map((column) => column.source),
    key: route.key,
    ...limits,
  };
  const target = (name: string) => columns.find((column) => column.source === name)?.target ?? name;
  const answer: ChecksumRequest = {
    table: route.target,
    columns: columns.map((column) => column.target),
    key: route.key.map(target),
    ...limits,
  };
  const [left, right] = await Promise.all([source.recent(ask), destination.recent(answer)]);
  const sum = (blocks: readonly { rows: number }[]) => blocks.reduce((rows, block) => rows + block.rows, 0);
  const result = {
    sourceMd5: joined(left),
    destMd5: joined(right),
    sourceRows: sum(left),
    destRows: sum(right),
    compared: Math.max(sum(left), sum(right)),
  };
  if (result.sourceMd5 === result.destMd5) return { ...result, mismatches: [] };
  let suspects = await differingKeys(source, destination, ask, answer, left, right);
  for (const pause of options.rechecksMs ?? RECHECKS_MS) {
    if (suspects.length === 0 || options.signal.aborted) break;
    await new Promise((resolve) => setTimeout(resolve, pause));
    suspects = await stillDiffering(source, destination, ask, answer, suspects);
    if (suspects.length > 0 && (await options.isExplained?.(suspects))) break;
  }
  const mismatches = await kinds(source, destination, ask, answer, suspects);
  return { ...result, mismatches };
}

/** One MD5 over the blocks': it is compared, and it fits verification_logs. */
function joined(blocks: readonly { md5: string }[]): string {
  return createHash('md5')
    .update(blocks.map((block) => block.md5).join(' '))
    .digest('hex');
}

type Keys = readonly (readonly Cell[])[];

/** Keys of rows that only one side has, or that differ, within blocks whose checksums differ. */
async function differingKeys(
  source: Checksummer,
  destination: Checksummer,
  ask: ChecksumRequest,
  answer: ChecksumRequest,
  left: Awaited<ReturnType<Checksummer['recent']>>,
  right: Awaited<ReturnType<Checksummer['recent']>>,
): Promise<Keys> {
  const known = new Set(right.map((block) => `${keyOf(block.first)} ${keyOf(block.last)} ${block.md5}`));
  const rightKnown = new Set(left.map((block) => `${keyOf(block.first)} ${keyOf(block.last)} ${block.md5}`));
  const suspects = new Map<string, readonly Cell[]>();
  const collect = async (blocks: typeof left, equal: ReadonlySet<string>) => {
    for (const block of blocks) {
      if (equal.has(`${keyOf(block.first)} ${keyOf(block.last)} ${block.md5}`)) continue;
      const range = { from: block.first, to: block.last };
      const [ours, theirs] = await Promise.all([
        source.rows({ ...ask, ...range }),
        destination.rows({ ...answer, ...range }),
      ]);
      for (const key of differences(ours, theirs)) suspects.set(keyOf(key), key);
    }
  };
  await collect(left, known);
  await collect(right, rightKnown);
  return [...suspects.values()];
}

async function stillDiffering(
  source: Checksummer,
  destination: Checksummer,
  ask: ChecksumRequest,
  answer: ChecksumRequest,
  keys: Keys,
): Promise<Keys> {
  const [ours, theirs] = await Promise.all([source.rowsByKey(ask, keys), destination.rowsByKey(answer, keys)]);
  return differences(ours, theirs);
}

async function kinds(
  source: Checksummer,
  destination: Checksummer,
  ask: ChecksumRequest,
  answer: ChecksumRequest,
  keys: Keys,
): Promise<RecentVerification['mismatches']> {
  if (keys.length === 0) return [];
  const [ours, theirs] = await Promise.all([source.rowsByKey(ask, keys), destination.rowsByKey(answer, keys)]);
  const left = byKey(ours);
  const right = byKey(theirs);
  return differences(ours, theirs).map((key) => {
    const text = keyOf(key);
    if (!right.has(text)) return { kind: 'missing' as const, key };
    return { kind: left.has(text) ? ('different' as const) : ('extra' as const), key };
  });
}

function differences(ours: readonly RowChecksum[], theirs: readonly RowChecksum[]): Keys {
  const left = byKey(ours);
  const right = byKey(theirs);
  return [
    ...ours.filter((row) => right.get(keyOf(row.key)) !== row.md5),
    ...theirs.filter((row) => !left.has(keyOf(row.key))),
  ].map((row) => row.key);
}

function byKey(rows: readonly RowChecksum[]): Map<string, string> {
  return new Map(rows.map((row) => [keyOf(row.key), row.md5]));
}

function keyOf(key: readonly Cell[]): string {
  return JSON.stringify(key.map((cell) => (cell instanceof Uint8Array ? Buffer.from(cell).toString('latin1') : cell)));
}
