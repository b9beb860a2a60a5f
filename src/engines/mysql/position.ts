/**
 * Positions in a binary log: `my1:<server>:<file>:<offset, 20 digits>:<GTID state>`. The server is its own identity (MariaDB:
 * `server_uid`), the GTID state what the log holds up to there: with both, the same file and offset on another history is recognised
 * (`BINLOG_GTID_POS` of the place must be the state that was stored; invariant 5).
 */
import type { Position, PositionOrder } from '../../model/position.ts';

export interface LogPlace {
  /** File name as SHOW BINARY LOGS prints it: a base name, a point, a number that grows and gains digits. */
  readonly file: string;
  readonly offset: number;
}

export interface Place extends LogPlace {
  readonly server: string;
  /** MariaDB: `domain-server-sequence` for each domain, by domain, joined by commas. */
  readonly gtids: string;
}

const FORM = /^my1:([^:]*):([^:]+):(\d{20}):([0-9,-]*)$/;

export function formatPosition({ server, file, offset, gtids }: Place): Position {
  return `my1:${encodeURIComponent(server)}:${encodeURIComponent(file)}:${String(offset).padStart(20, '0')}:${gtids}` as Position;
}

/** Null: not a position that this version wrote. */
export function parsePosition(position: Position): Place | null {
  const [, server, file, offset, gtids] = FORM.exec(position) ?? [];
  if (server === undefined || file === undefined || offset === undefined || gtids === undefined) return null;
  return { server: decodeURIComponent(server), file: decodeURIComponent(file), offset: Number(offset), gtids };
}

/** `binlog.999999` comes before `binlog.1000000` (F07). NaN: the base name differs. */
export function compareLogPlaces(a: LogPlace, b: LogPlace): number {
  const [left, right] = [fileNumber(a.file), fileNumber(b.file)];
  if (left.base !== right.base) return NaN;
  return left.number === right.number ? a.offset - b.offset : left.number - right.number;
}

function fileNumber(file: string): { base: string; number: number } {
  const point = file.lastIndexOf('.');
  return { base: file.slice(0, point), number: Number(file.slice(point + 1)) };
}

export function comparePositions(a: Position, b: Position): PositionOrder {
  const [left, right] = [parsePosition(a), parsePosition(b)];
  if (left === null || right === null || left.server !== right.server) return 'unordered';
  const order = compareLogPlaces(left, right);
  if (Number.isNaN(order)) return 'unordered';
  return order < 0 ? 'before' : order > 0 ? 'after' : 'equal';
}

/** The GTID state of a MariaDB log as it grows: the last transaction of each domain. */
export class GtidState {
  readonly #last = new Map<number, string>();

  constructor(text: string) {
    for (const gtid of text.split(',').filter(Boolean)) this.add(gtid);
  }

  add(gtid: string): void {
    this.#last.set(Number(gtid.split('-')[0]), gtid);
  }

  toString(): string {
    return [...this.#last.entries()]
      .sort(([a], [b]) => a - b)
      .map(([, gtid]) => gtid)
      .join(',');
  }
}
