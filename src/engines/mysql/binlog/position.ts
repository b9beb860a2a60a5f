/**
 * Positions in a binary log: `my1:<server>:<file>:<offset, 20 digits>:<GTIDs>`. The server is its own identity (MariaDB:
 * `server_uid`; MySQL: `server_uuid`), the GTIDs what the log holds up to there: with both, the same file and offset on another
 * history is recognised (invariant 5). MariaDB's GTIDs are a state (`domain-server-sequence` of each domain), and the place orders
 * positions; MySQL's are a set, and it is the set that orders them, where there is one.
 */
import type { Position, PositionOrder } from '../../../model/position.ts';
import { GtidSet } from './gtid-set.ts';

export interface LogPlace {
  /** File name as SHOW BINARY LOGS prints it: a base name, a point, a number that grows and gains digits. */
  readonly file: string;
  readonly offset: number;
}

export interface Place extends LogPlace {
  readonly server: string;
  /**
   * MariaDB: by domain, joined by commas. MySQL: a GTID set; where the server does not number its transactions, when the
   * file was made, or ''.
   */
  readonly gtids: string;
}

const FORM = /^my1:([^:]*):([^:]+):(\d{20}):([0-9a-z,:_-]*)$/;

export function formatPosition({ server, file, offset, gtids }: Place): Position {
  return `my1:${encodeURIComponent(server)}:${encodeURIComponent(file)}:${String(offset).padStart(20, '0')}:${gtids}` as Position;
}

/** Null: not a position that this version wrote. */
export function parsePosition(position: Position): Place | null {
  const [, server, file, offset, gtids] = FORM.exec(position) ?? [];
  if (server === undefined || file === undefined || offset === undefined || gtids === undefined) return null;
  return { server: decodeURIComponent(server), file: decodeURIComponent(file), offset: Number(offset), gtids };
}

/** MySQL's GTID sets begin with a UUID. */
export function isGtidSet(gtids: string): boolean {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-/.test(gtids);
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

/** Negative, zero, positive; NaN: not ordered. Of one server. */
export function comparePlaces(a: Omit<Place, 'server'>, b: Omit<Place, 'server'>): number {
  if (!isGtidSet(a.gtids) || !isGtidSet(b.gtids)) return compareLogPlaces(a, b);
  if (a.gtids === b.gtids) return 0;
  const [left, right] = [new GtidSet(a.gtids), new GtidSet(b.gtids)];
  const [isBehind, isAhead] = [right.includes(left), left.includes(right)];
  if (isBehind && isAhead) return 0;
  return isBehind ? -1 : isAhead ? 1 : NaN;
}

export function comparePositions(a: Position, b: Position): PositionOrder {
  const [left, right] = [parsePosition(a), parsePosition(b)];
  if (left === null || right === null || left.server !== right.server) return 'unordered';
  const order = comparePlaces(left, right);
  if (Number.isNaN(order)) return 'unordered';
  return order < 0 ? 'before' : order > 0 ? 'after' : 'equal';
}

/** What a log holds, as it grows. */
export interface GtidState {
  add(gtid: string): void;
  /** A transaction without a number came: from now on there is no saying what the log holds. */
  addAnonymous(): void;
  /** A file begins, or is gone on with, that was made then (seconds since 1970). False: it is another file than the one that was read. */
  inFile(madeAt: number, isNew: boolean): boolean;
  toString(): string;
}

/** Of a MariaDB log: the last transaction of each domain. */
class MariaDbGtids implements GtidState {
  readonly #last = new Map<number, string>();

  constructor(text: string) {
    for (const gtid of text.split(',').filter(Boolean)) this.add(gtid);
  }

  add(gtid: string): void {
    this.#last.set(Number(gtid.split('-')[0]), gtid);
  }

  addAnonymous(): void {
    // Every transaction of MariaDB has one.
  }

  inFile(): boolean {
    return true;
  }

  toString(): string {
    return [...this.#last.entries()]
      .sort(([a], [b]) => a - b)
      .map(([, gtid]) => gtid)
      .join(',');
  }
}

const FILE = 'file-';

/** Of a MySQL log: a set; without GTIDs all that can be told is when the file was made, so that another of its name is recognised. */
class MysqlGtids implements GtidState {
  #set: GtidSet | null;
  #madeAt: string;
  #text: string | null = null;

  constructor(text: string) {
    this.#set = isGtidSet(text) ? new GtidSet(text) : null;
    this.#madeAt = text.startsWith(FILE) ? text.slice(FILE.length) : '';
  }

  add(gtid: string): void {
    const colon = gtid.lastIndexOf(':');
    this.#set?.add({ origin: gtid.slice(0, colon), number: BigInt(gtid.slice(colon + 1)) });
    this.#text = null;
  }

  addAnonymous(): void {
    this.#set = null;
    this.#text = null;
  }

  inFile(madeAt: number, isNew: boolean): boolean {
    const isSame = isNew || this.#madeAt === '' || this.#madeAt === String(madeAt);
    this.#madeAt = String(madeAt);
    this.#text = null;
    return isSame;
  }

  toString(): string {
    return (this.#text ??= this.#set?.toString() ?? (this.#madeAt === '' ? '' : `${FILE}${this.#madeAt}`));
  }
}

export function gtidState(isMariaDb: boolean, text: string): GtidState {
  return isMariaDb ? new MariaDbGtids(text) : new MysqlGtids(text);
}
