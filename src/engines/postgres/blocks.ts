/** Reading stored blocks (staged pieces, backlogs) as bytes: the driver would make text of them, twice their size, and limited in length. */
import type { StoredBlock } from '../contract.ts';
import { startCopyOut } from './copy-out.ts';
import { HEADER } from './copy-protocol.ts';
import type { Session } from './connection.ts';

/** Of COPY's binary format: signature, flags, length of the extension. */
const FILE_HEADER = 19;

/** The first block that `source` (FROM … WHERE …) has behind `after`, by seq; null when there is none. */
export async function readBlock(
  session: Session,
  doing: string,
  source: string,
  after: number,
): Promise<StoredBlock | null> {
  const select = `SELECT seq, changes, block ${source} AND seq > ${after} ORDER BY seq LIMIT 1`;
  const { data } = await startCopyOut(session, doing, `COPY (${select}) TO STDOUT (FORMAT binary)`);
  const parts: Buffer[] = [];
  for await (const messages of data) {
    for (let at = 0; at < messages.length;) {
      const end = at + 1 + messages.readUInt32BE(at + 1);
      parts.push(messages.subarray(at + HEADER, end));
      at = end;
    }
  }
  const file = parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts);
  // Each row: number of fields, then length and bytes of each; −1 fields end the file.
  if (file.readInt16BE(FILE_HEADER) < 0) return null;
  const seq = Number(file.readBigInt64BE(FILE_HEADER + 6));
  const changes = file.readInt32BE(FILE_HEADER + 18);
  const length = file.readInt32BE(FILE_HEADER + 22);
  const start = FILE_HEADER + 26;
  return { seq, changes, bytes: file.subarray(start, start + length) };
}
