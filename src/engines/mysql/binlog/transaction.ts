/** How transactions begin in the log, in each of its forms. */
import { EVENT, readMariaGtid, type EventHeader } from './events.ts';
import { readMysqlGtid, readTaggedGtid } from './gtids.ts';
import type { LogPlace } from './position.ts';

/** Events that begin a transaction, whatever became of the one before. */
export const BEGINNINGS: ReadonlySet<number> = new Set([
  EVENT.mariaGtid,
  EVENT.gtid,
  EVENT.taggedGtid,
  EVENT.anonymousGtid,
]);

export interface Transaction {
  /** Null: the server does not number it. */
  readonly gtid: string | null;
  /** No commit follows: its one statement is all of it. Null: its first statement will tell. */
  standalone: boolean | null;
  /** Its rows are only prepared (XA). MySQL says so with its first statement. */
  readonly isPrepared: boolean;
  /** What a snapshot is asked for that is to see it: where it begins; behind the identifier, where it commits an XA transaction. */
  token: string;
  readonly beginsAt: LogPlace;
}

/** `at`: the end of the event before. `length`: of this one, with its checksum. */
export function readBeginning(event: Buffer, header: EventHeader, at: LogPlace, length: number): Transaction {
  const token = `${at.file}:${at.offset}`;
  const beginsAt = { file: at.file, offset: header.end > 0 ? header.end - length : at.offset };
  if (header.type === EVENT.mariaGtid) {
    const { gtid, standalone, preparedXa } = readMariaGtid(event, header.serverId);
    return { gtid, standalone, isPrepared: preparedXa, token, beginsAt };
  }
  const unnumbered = { gtid: null, standalone: null, isPrepared: false, token, beginsAt };
  if (header.type === EVENT.anonymousGtid) return unnumbered;
  return { ...unnumbered, gtid: header.type === EVENT.gtid ? readMysqlGtid(event) : readTaggedGtid(event) };
}

/** Of tokens: the XA transaction that was committed, if it was one, and where that begins. */
export function readToken(token: string): LogPlace & { xid: string | null } {
  const [, xid = null, file = '', offset = ''] = /^(?:([0-9a-f]*:[0-9a-f]*:\d+)@)?(.*):(\d+)$/.exec(token) ?? [];
  return { xid, file, offset: Number(offset) };
}
