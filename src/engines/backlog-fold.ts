/** Folding a backlog into a table (PROTOCOL, A copy, 4–6): what is so whatever the engine. */
import { SluiceError } from '../model/errors.ts';
import { displayName, type TableName } from '../model/tables.ts';
import type { FoldWork, Route, StoredBlock } from './contract.ts';

export interface FoldOptions {
  readonly mappingUid: string;
  /** Of the backlog. */
  readonly generation: number;
  readonly copyEpoch: number;
  readonly stream: string | null;
  readonly group: string;
  readonly route: Route;
  /** What is folded into: the copy's staging table, or a held mapping's own. */
  readonly target: TableName;
}

type Apply = Parameters<FoldWork>[1];
type Missing = Parameters<FoldWork>[2];
type Attempt = Parameters<FoldWork>[3];
type LeftOut = Parameters<FoldWork>[4];

/**
 * Gives `fold` the blocks behind `folded`, at most about `maxBytes` of them, within the transaction that is open. Resolves to how many
 * there were and how far the backlog is folded now.
 */
export async function foldWaiting(
  backlog: {
    readonly folded: number;
    readonly maxBytes: number;
    /** The first block behind a seq; null: there is none. */
    readonly next: (after: number) => Promise<StoredBlock | null>;
  },
  fold: FoldWork,
  into: { readonly apply: Apply; readonly missing: Missing; readonly attempt: Attempt; readonly leftOut: LeftOut },
): Promise<{ count: number; last: number }> {
  let count = 0;
  let last = backlog.folded;
  let bytes = 0;
  async function* blocks(): AsyncGenerator<StoredBlock> {
    while (bytes < backlog.maxBytes) {
      const block = await backlog.next(last);
      if (!block) return;
      last = block.seq;
      bytes += block.bytes.length;
      count++;
      yield block;
    }
  }
  await fold(blocks(), into.apply, into.missing, into.attempt, into.leftOut);
  return { count, last };
}

/** The mapping's generation row has another copier's epoch, or is gone (invariant 9). */
export function hasNewerCopier(target: TableName): SluiceError {
  return new SluiceError('FENCED', `the copy to ${displayName(target)} has a newer copier`);
}

/** A reset of the group, or a newer copier, has taken the backlog away or ended the copier's session. */
export function wasEnded(target: TableName, cause: unknown): SluiceError {
  return new SluiceError('FENCED', `the copy to ${displayName(target)} was ended by somebody else`, { cause });
}
