/**
 * XA transactions (MySQL Reference Manual, "XA Transaction Statements"; MariaDB since 10.5): their rows are logged with XA PREPARE, and whether
 * they count is a statement that comes later, with other transactions in between, perhaps after a restart, perhaps never. Their rows
 * are kept as events until then, within a limit; what is beyond it, or came before the reader began, is read again from the log
 * (prepared-xa-log.ts). Nothing of it is part of a position: the log itself holds what is prepared.
 */
import { EVENT, HEADER_BYTES, readHeader, readQuery, readTableName, ROWS, tableIdOf } from './events.ts';
import type { LogPlace } from './position.ts';
import type { WantedSchemas } from './wanted-schemas.ts';

/** Bytes of events that are kept of all prepared transactions together. */
const KEPT_BYTES = 4 << 20;
/** What an event costs besides its bytes. */
const EVENT_BYTES = 100;

export interface PreparedXa {
  /** Where it begins in the log. */
  readonly place: LogPlace;
  /** What it did to wanted databases; null: that is in the log only. */
  readonly events: readonly Buffer[] | null;
}

/** One phase: what is "prepared" is committed (XA COMMIT … ONE PHASE; MariaDB logs it as any other transaction). */
export function readXaPrepare(event: Buffer): { xid: string; isOnePhase: boolean } {
  const at = HEADER_BYTES + 1;
  const [global, branch] = [event.readUInt32LE(at + 4), event.readUInt32LE(at + 8)];
  const part = (from: number, length: number) => event.toString('hex', at + 12 + from, at + 12 + from + length);
  return {
    xid: xidText(part(0, global), part(global, branch), String(event.readUInt32LE(at))),
    isOnePhase: event[HEADER_BYTES] !== 0,
  };
}

export interface XaStatement {
  readonly verb: 'START' | 'END' | 'COMMIT' | 'ROLLBACK';
  readonly xid: string;
}

/** As servers log them, whatever was typed: `XA COMMIT X'74776f',X'62',7`. */
export function xaStatement(sql: string): XaStatement | null {
  if (!sql.startsWith('XA ')) return null;
  const [, verb, global, branch, format] =
    /^XA (START|END|COMMIT|ROLLBACK) X'([0-9a-f]*)',X'([0-9a-f]*)',(\d+)\s*$/i.exec(sql) ?? [];
  if (verb === undefined || global === undefined || branch === undefined || format === undefined) return null;
  return { verb: verb.toUpperCase() as XaStatement['verb'], xid: xidText(global, branch, format) };
}

/** One text for each transaction, wherever its identifier is read. */
export function xidText(global: string, branch: string, format: string): string {
  return `${global}:${branch}:${format}`.toLowerCase();
}

/** The transactions of a log that are prepared and not decided, as far as it was read. */
export class PreparedXas {
  readonly #schemas: WantedSchemas;
  readonly #open = new Map<string, PreparedXa>();
  #bytes = 0;
  /** Of the transaction in hand. */
  #begun: LogPlace | null = null;
  /** Null: too much. */
  #events: Buffer[] | null = null;
  #eventBytes = 0;
  readonly #wanted = new Set<number>();

  constructor(schemas: WantedSchemas) {
    this.#schemas = schemas;
  }

  /** The events that come are those of a transaction that may only be prepared. */
  get isCollecting(): boolean {
    return this.#begun !== null;
  }

  begin(place: LogPlace): void {
    this.#begun = place;
    this.#events = [];
    this.#eventBytes = 0;
    this.#wanted.clear();
  }

  /** An event of it, without checksum. The buffer is the socket's. */
  add(event: Buffer): void {
    if (this.#events === null || !this.#isWanted(event)) return;
    this.#eventBytes += event.length + EVENT_BYTES;
    if (this.#bytes + this.#eventBytes > KEPT_BYTES) this.#events = null;
    else this.#events.push(Buffer.from(event));
  }

  /** Its end. */
  end(): PreparedXa | null {
    if (this.#begun === null) return null;
    const prepared = { place: this.#begun, events: this.#events };
    this.#begun = this.#events = null;
    return prepared;
  }

  keep(xid: string, prepared: PreparedXa): void {
    this.take(xid);
    this.#open.set(xid, prepared);
    this.#bytes += bytesOf(prepared);
  }

  /** One that was prepared before everything that is known here. */
  keepOlder(xid: string, place: LogPlace): void {
    if (!this.#open.has(xid)) this.#open.set(xid, { place, events: null });
  }

  /** It is decided. Null: it was prepared before the log was read. */
  take(xid: string): PreparedXa | null {
    const prepared = this.#open.get(xid);
    if (prepared === undefined) return null;
    this.#open.delete(xid);
    this.#bytes -= bytesOf(prepared);
    return prepared;
  }

  #isWanted(event: Buffer): boolean {
    const { type } = readHeader(event);
    if (type === EVENT.tableMap) {
      const isWanted = this.#schemas.nameOf(readTableName(event).schema) !== null;
      if (isWanted) this.#wanted.add(tableIdOf(event));
      return isWanted;
    }
    if (ROWS.has(type) || type === EVENT.partialUpdate) return this.#wanted.has(tableIdOf(event));
    // Statements instead of rows, of a session that logs them so.
    if (type === EVENT.query || type === EVENT.compressedQuery)
      return xaStatement(readQuery(event, type === EVENT.compressedQuery).sql) === null;
    return false;
  }
}

function bytesOf({ events }: PreparedXa): number {
  return (events ?? []).reduce((sum, event) => sum + event.length + EVENT_BYTES, 0);
}
