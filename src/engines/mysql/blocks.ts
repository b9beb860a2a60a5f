/** Reading stored blocks (staged pieces, backlogs), one at a time: invariant 7. */
import { SluiceError } from '../../model/errors.ts';
import type { StoredBlock } from '../contract.ts';
import { numberOf } from '../row-values.ts';
import type { Session } from './connection.ts';

/** The first block that `source` (FROM … WHERE …) has behind `after`, by seq; null when there is none. */
export async function readBlock(
  session: Session,
  doing: string,
  source: string,
  after: number,
): Promise<StoredBlock | null> {
  const [row] = await session.query(
    doing,
    `SELECT seq, changes, block ${source} AND seq > ${after} ORDER BY seq LIMIT 1`,
  );
  if (!row) return null;
  const bytes = row['block'];
  if (!(bytes instanceof Uint8Array)) throw new SluiceError('INTERNAL', `could not ${doing}: a block is not bytes`);
  return { seq: numberOf(row, 'seq') ?? 0, changes: numberOf(row, 'changes') ?? 0, bytes };
}
