/** Prepared XA transactions of which nothing is kept here: found in the log, file by file backwards, and read again from it. */
import { SluiceError } from '../../../model/errors.ts';
import { logFiles } from './binary-log.ts';
import { dumpCommand, type BinlogConnection } from './connection.ts';
import { EVENT, readHeader, readQuery, readRotate, type EventHeader } from './events.ts';
import { lostXa } from './gaps.ts';
import { payloadEvents } from './payload.ts';
import { readXaPrepare, xaStatement, type PreparedXa, type PreparedXas } from './xa.ts';
import type { Connection, Session } from '../connection.ts';
import { askForLog, checkSilence, leaveLog } from './log-session.ts';
import { compareLogPlaces, type LogPlace } from './position.ts';

/** Events of a file begin here. */
const FIRST = 4;
const TICK_MS = 1000;

interface Logged {
  readonly header: EventHeader;
  /** Without checksum. */
  readonly event: Buffer;
  readonly place: LogPlace;
}

export class PreparedXaLog {
  readonly #connection: Connection;
  readonly #xas: PreparedXas;
  /** What was searched lies behind it; null: nothing was. */
  #searched: LogPlace | null = null;
  #session: Session | null = null;
  #isClosed = false;

  constructor(connection: Connection, xas: PreparedXas) {
    this.#connection = connection;
    this.#xas = xas;
  }

  /** What the transaction did, in order. Throws GAP: the log no longer has it (invariant 5). `before`: it was prepared there. */
  async *events(xid: string, prepared: PreparedXa | null, before: LogPlace): AsyncGenerator<Buffer, void, void> {
    const found = prepared ?? (await this.#find(xid, before));
    if (found === null) throw lostXa();
    if (found.events !== null) {
      yield* found.events;
      return;
    }
    for await (const { header, event } of this.#read(found.place, null)) {
      if (header.type === EVENT.xaPrepare) return;
      if (header.type === EVENT.transactionPayload) yield* iterated(payloadEvents(event));
      else yield event;
      if (header.type === EVENT.transactionPayload) return;
    }
    throw new SluiceError('INTERNAL', 'the binary log holds a prepared transaction without an end');
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#leave();
  }

  async #leave(): Promise<void> {
    const session = this.#session;
    this.#session = null;
    if (session) await leaveLog(this.#connection, session);
  }

  /**
   * What was searched is not searched again: what is open in it is known then. Unless the transaction is nowhere: a reader that begins
   * by GTIDs is not sent all that lies behind the first one.
   */
  async #find(xid: string, before: LogPlace): Promise<PreparedXa | null> {
    let isAnew = this.#searched === null;
    for (;;) {
      const found = this.#xas.take(xid);
      if (found) return found;
      const end: LogPlace = this.#searched ?? before;
      const files = await this.#connection.use(logFiles);
      const file = files.findLast((each) => compareLogPlaces({ file: each.file, offset: FIRST }, end) < 0)?.file;
      if (file !== undefined) {
        const start = { file, offset: FIRST };
        for (const [each, place] of await this.#openIn(start, end)) this.#xas.keepOlder(each, place);
        this.#searched = start;
      } else if (isAnew) return null;
      else {
        this.#searched = null;
        isAnew = true;
      }
    }
  }

  /** Transactions prepared there and not decided in the same file. */
  async #openIn(start: LogPlace, end: LogPlace): Promise<Map<string, LogPlace>> {
    const open = new Map<string, LogPlace>();
    let begun = start;
    for await (const { header, event, place } of this.#read(start, end)) {
      switch (header.type) {
        case EVENT.mariaGtid:
        case EVENT.gtid:
        case EVENT.taggedGtid:
        case EVENT.anonymousGtid:
          begun = place;
          break;
        case EVENT.xaPrepare:
          open.set(readXaPrepare(event).xid, begun);
          break;
        case EVENT.query:
        case EVENT.compressedQuery: {
          const statement = xaStatement(readQuery(event, header.type === EVENT.compressedQuery).sql);
          if (statement?.verb === 'COMMIT' || statement?.verb === 'ROLLBACK') open.delete(statement.xid);
          break;
        }
        case EVENT.transactionPayload: {
          // It begins with what it is; one that is committed in one phase is found by nobody.
          const first = payloadEvents(event).next();
          const isStatement = first.done !== true && readHeader(first.value).type === EVENT.query;
          const statement = isStatement ? xaStatement(readQuery(first.value, false).sql) : null;
          if (statement) open.set(statement.xid, begun);
          break;
        }
      }
    }
    return open;
  }

  /** Events from `start` on, of its file, as far as `end`, where there is one. */
  async *#read(start: LogPlace, end: LogPlace | null): AsyncGenerator<Logged, void, void> {
    const session = await this.#connection.open();
    this.#session = session;
    try {
      if (this.#isClosed) throw new SluiceError('CANCELLED', 'the reader of the binary log was stopped');
      const log = await askForLog(session, (id) => dumpCommand(start, id));
      let hasChecksums: boolean | null = null;
      for (;;) {
        const received = await next(log);
        const header = readHeader(received);
        if (header.type === EVENT.format) hasChecksums = received[received.length - 5] === 1;
        // Before the file's own description comes its name, which is known.
        if (hasChecksums === null) continue;
        const event = hasChecksums ? received.subarray(0, received.length - 4) : received;
        if (header.type === EVENT.rotate && readRotate(event).file !== start.file) return;
        if (header.end === 0 || header.type === EVENT.format) continue;
        const place = { file: start.file, offset: header.end - received.length };
        if (place.offset < start.offset) continue;
        if (end !== null && compareLogPlaces(place, end) >= 0) return;
        yield { header, event, place };
      }
    } finally {
      await this.#leave();
    }
  }
}

async function next(log: BinlogConnection): Promise<Buffer> {
  for (;;) {
    const event = log.take();
    if (event) return event;
    await log.wait(TICK_MS);
    checkSilence(log);
  }
}

function* iterated(events: Iterator<Buffer>): Generator<Buffer, void, void> {
  for (let next = events.next(); next.done !== true; next = events.next()) yield next.value;
}
