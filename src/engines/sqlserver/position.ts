/**
 * Positions of a SQL Server stream: `ms1:<database>:<recovery fork>:<LSN, 20 hex digits>:<commit time>`. The first two are the
 * source's incarnation (invariant 5). An LSN is binary(10) and is compared as bytes (F07): fixed-length hex text orders the same.
 * The commit time (ms, by the server's own clock and zone, as `cdc.lsn_time_mapping` has it) orders positions against an `end`
 * that is known as a moment only.
 */
import type { Position, PositionOrder } from '../../model/position.ts';

/** 20 upper-case hex digits. */
export type Lsn = string;

export const ZERO_LSN: Lsn = '0'.repeat(20);

/** Which database it is, and on which path of its recovery. */
export interface Incarnation {
  /** When the database was created or renamed here: what every login may see. */
  readonly database: string;
  /** `recovery_fork_guid`: another one after each restore that is not the log's own end. Null: the login may not see it. */
  readonly fork: string | null;
}

export interface Place extends Incarnation {
  readonly lsn: Lsn;
  /** `tran_end_time` of the LSN, ms. */
  readonly time: number;
  /** Not a place but the first one above this LSN whose commit is later than `time`. */
  readonly beyond?: boolean;
}

const FORM = /^ms1:([^:]+):([^:]+):(\+?)([0-9A-F]{20}):(\d+)$/;
const UNSEEN = '-';

export function formatPosition(place: Place): Position {
  const { database, fork, lsn, time, beyond = false } = place;
  return `ms1:${database}:${fork ?? UNSEEN}:${beyond ? '+' : ''}${lsn}:${time}` as Position;
}

/** Null: not a position that this version wrote. */
export function parsePosition(position: Position): Place | null {
  const [, database, fork, beyond, lsn, time] = FORM.exec(position) ?? [];
  if (database === undefined || fork === undefined || lsn === undefined || time === undefined) return null;
  return { database, fork: fork === UNSEEN ? null : fork, lsn, time: Number(time), beyond: beyond === '+' };
}

/** Forks are asked first: replicas of one database differ in when it was created there. */
export function isSameHistory(a: Incarnation, b: Incarnation): boolean {
  return a.fork !== null && b.fork !== null ? a.fork === b.fork : a.database === b.database;
}

export function comparePositions(a: Position, b: Position): PositionOrder {
  const left = parsePosition(a);
  const right = parsePosition(b);
  if (left === null || right === null || !isSameHistory(left, right)) return 'unordered';
  if (left.beyond === right.beyond) {
    const byTime = left.beyond ? Math.sign(left.time - right.time) : 0;
    if (byTime !== 0) return byTime < 0 ? 'before' : 'after';
    if (left.lsn === right.lsn) return 'equal';
    return left.lsn < right.lsn ? 'before' : 'after';
  }
  if (right.beyond) return isBeyond(left, right) ? 'after' : 'before';
  return isBeyond(right, left) ? 'before' : 'after';
}

function isBeyond(place: Place, mark: Place): boolean {
  return place.lsn > mark.lsn && place.time > mark.time;
}

export function lsnOf(bytes: Uint8Array): Lsn {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex').toUpperCase().padStart(20, '0');
}

export function lsnBytes(lsn: Lsn): Uint8Array {
  return Buffer.from(lsn, 'hex');
}

/** As the server's views print it: `VLF:block:slot`. */
export function displayLsn(lsn: Lsn): string {
  return `${lsn.slice(0, 8)}:${lsn.slice(8, 16)}:${lsn.slice(16)}`;
}

/** The text of `sys.dm_db_log_stats`; null: not an LSN. */
export function parseDisplayedLsn(text: string): Lsn | null {
  const parts = /^([0-9a-f]{8}):([0-9a-f]{8}):([0-9a-f]{4})$/i.exec(text.trim());
  return parts ? parts.slice(1).join('').toUpperCase() : null;
}
