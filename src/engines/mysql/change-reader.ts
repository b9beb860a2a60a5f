/** Reads the binary log piece by piece, within bounded memory. Nothing is acknowledged: the server keeps its log by its own rules. */
import { setImmediate } from 'node:timers/promises';
import type { ChangePiece } from '../../model/changes.ts';
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { Position } from '../../model/position.ts';
import type { ChangeReader, ReadOptions } from '../contract.ts';
import type { BinlogConnection } from './binlog/connection.ts';
import { Step, type BinlogDecoder, type DecidedXa } from './binlog/decoder.ts';
import { checkSilence } from './binlog/log-session.ts';
import {
  compareLogPlaces,
  comparePlaces,
  formatPosition,
  parsePosition,
  type LogPlace,
  type Place,
} from './binlog/position.ts';
import type { PreparedXaLog } from './binlog/prepared-xa-log.ts';

/** How often what depends on time is looked at, at least, ms. */
const TICK_MS = 100;
/** How long events are decoded before what else has come has its turn (a destination's answer: the destination waits for what follows). */
const TURN_MS = 1;

export interface ReaderSetup {
  readonly connection: BinlogConnection;
  readonly decoder: BinlogDecoder;
  readonly preparedLog: PreparedXaLog;
  readonly server: string;
  readonly release: () => Promise<void>;
}

/** Reads ahead of its consumer by at most `maxBytes`: then the socket is paused, and the server waits. */
export class MysqlChangeReader implements ChangeReader {
  readonly pieces: AsyncIterable<ChangePiece>;
  readonly #setup: ReaderSetup;
  readonly #options: ReadOptions;
  /** Places that no piece may reach across, in order. */
  readonly #breaks: Place[];
  /** An event that begins behind a break waits until what was before it is handed out. */
  #held: Buffer | null = null;
  /** Of a compressed transaction. */
  #expanded: Iterator<Buffer> | null = null;
  /** Events of the XA transaction that was decided. */
  #replayed: AsyncIterator<Buffer, void> | null = null;
  /** Pieces that wait for the consumer. */
  readonly #queue: ChangePiece[] = [];
  #queuedBytes = 0;
  /** The last piece made ends inside a transaction. */
  #isBegun = false;
  /** End of the last piece made; what was asked for to begin with. */
  #made: LogPlace;
  #idleAt = performance.now();
  #isStopped = false;
  #isReading = false;
  /** Why reading ended; told once what was read before is handed out. */
  #failure: { readonly error: unknown } | null = null;
  /** The consumer, when it waits for a piece. */
  #consumer: (() => void) | null = null;
  /** The reading, when it waits for the consumer. */
  #wake: (() => void) | null = null;

  constructor(setup: ReaderSetup, from: LogPlace, options: ReadOptions) {
    this.#setup = setup;
    this.#options = options;
    this.#made = from;
    this.#breaks = (options.breakAt ?? [])
      .flatMap((position) => parsePosition(position) ?? [])
      .filter((place) => comparePlaces(place, { ...from, gtids: setup.decoder.gtids.toString() }) > 0)
      .sort(comparePlaces);
    this.pieces = { [Symbol.asyncIterator]: () => ({ next: () => this.#next() }) };
  }

  get isReady(): boolean {
    return this.#queue.length > 0;
  }

  acknowledge(position: Position): void {
    if (parsePosition(position)?.server !== this.#setup.server)
      throw new SluiceError('INTERNAL', `position ${position} is not of this stream and cannot be acknowledged`);
  }

  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#setup.connection.session.destroy();
    this.#callConsumer();
    this.#wake?.();
    await this.#setup.release();
  }

  async #next(): Promise<IteratorResult<ChangePiece>> {
    if (this.#consumer !== null) throw new SluiceError('INTERNAL', 'a change stream has one consumer');
    if (!this.#isReading) {
      this.#isReading = true;
      void this.#readAhead();
    }
    while (this.#queue.length === 0 && this.#failure === null && !this.#isStopped) {
      const waiting = new Promise<void>((resolve) => (this.#consumer = resolve));
      // What was put off because nobody waited may be a piece now.
      this.#setup.connection.nudge();
      this.#wake?.();
      await waiting;
    }
    if (this.#isStopped) return { done: true, value: undefined };
    const value = this.#queue.shift();
    if (value === undefined) throw this.#failure?.error;
    this.#queuedBytes -= value.bytes;
    this.#wake?.();
    this.#idleAt = performance.now();
    return { done: false, value };
  }

  async #readAhead(): Promise<void> {
    try {
      let since = performance.now();
      while (!this.#isStopped) {
        await this.#step();
        if (performance.now() - since < TURN_MS) continue;
        await setImmediate();
        since = performance.now();
      }
    } catch (error) {
      this.#failure = { error };
      this.#callConsumer();
    }
  }

  #callConsumer(): void {
    const call = this.#consumer;
    this.#consumer = null;
    call?.();
  }

  /** Decodes one event, or waits: for one, or for the consumer. */
  async #step(): Promise<void> {
    const { connection, decoder } = this.#setup;
    if (this.#queuedBytes + decoder.bytes >= this.#aheadBytes() && this.#consumer === null) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = null;
      return;
    }
    if (decoder.decided) {
      this.#cutAfter(await this.#replay(decoder.decided));
      return;
    }
    const event = this.#event();
    if (event === null) {
      if (this.#consumer !== null && this.#flush()) return;
      await connection.wait(Math.min(TICK_MS, Math.max(1, this.#idleDue())));
      checkSilence(connection);
      return;
    }
    if (!decoder.inTransaction && this.#isBreak()) {
      this.#held = event;
      this.#cut(decoder.place);
      return;
    }
    const expanded = decoder.expand(event);
    if (expanded) {
      this.#expanded = expanded;
      return;
    }
    const decoded = decoder.decode(event);
    this.#cutAfter(typeof decoded === 'number' ? decoded : await decoded);
  }

  /** An event of the XA transaction that was committed; behind the last one it is complete. */
  async #replay({ xid, prepared }: DecidedXa): Promise<Step> {
    const { decoder, preparedLog } = this.#setup;
    this.#replayed ??= preparedLog.events(xid, prepared, decoder.place)[Symbol.asyncIterator]();
    let lost: SluiceError | null = null;
    try {
      const next = await this.#replayed.next();
      if (next.done !== true) {
        await decoder.replay(next.value);
        return Step.None;
      }
    } catch (error) {
      if (!hasCode(error, 'GAP')) throw error;
      lost = error;
    }
    this.#replayed = null;
    return decoder.endReplay(lost);
  }

  #cutAfter(step: Step): void {
    const { decoder } = this.#setup;
    // What was committed before is applied by the columns that it was made with.
    if (step === Step.Statement && (decoder.changes > 0 || decoder.altered.length > 0)) this.#cut(decoder.place);
    else if (decoder.bytes >= this.#pieceBytes()) this.#cut(decoder.inTransaction ? null : decoder.place);
    // While the consumer is busy the piece grows: the more waits, the fewer commits it takes.
    else if (step === Step.Commit && this.#isEnough()) this.#cut(decoder.place);
  }

  #isEnough(): boolean {
    const { decoder } = this.#setup;
    return this.#consumer === null
      ? decoder.bytes >= this.#options.maxBytes / 2
      : decoder.changes >= this.#options.maxChanges;
  }

  /** The consumer holds a piece as well: what it may take next is half of what may be held, unless one transaction needs it all. */
  #aheadBytes(): number {
    return this.#queue.length > 0 ? this.#options.maxBytes / 2 : this.#pieceBytes();
  }

  /** Size of a piece that ends inside a transaction: once it must be taken apart, small parts cost no more and hold less. */
  #pieceBytes(): number {
    return this.#isBegun ? this.#options.maxBytes / 4 : this.#options.maxBytes;
  }

  #event(): Buffer | null {
    const held = this.#held;
    this.#held = null;
    if (held) return held;
    const next = this.#expanded?.next();
    if (next && !next.done) return next.value;
    this.#expanded = null;
    return this.#setup.connection.take();
  }

  /** Has the decoder come to a place that a group stands at? */
  #isBreak(): boolean {
    const [next] = this.#breaks;
    const { place, gtids } = this.#setup.decoder;
    if (next === undefined || comparePlaces(next, { ...place, gtids: gtids.toString() }) > 0) return false;
    this.#breaks.shift();
    return compareLogPlaces(this.#made, place) < 0;
  }

  /** Makes a piece of what can be handed out while nothing more is here; false: there is nothing. */
  #flush(): boolean {
    const { decoder } = this.#setup;
    if (decoder.inTransaction) return false;
    const isComplete = decoder.transactions > 0 && decoder.changes > 0;
    // Also where the source stands still: whoever reads looks after destinations that are away between two pieces.
    if (!isComplete && this.#idleDue() > 0) return false;
    this.#cut(decoder.place);
    return true;
  }

  #idleDue(): number {
    return this.#idleAt + this.#options.idleProgressMs() - performance.now();
  }

  /** `end` null: inside a transaction. */
  #cut(end: LogPlace | null): void {
    const { decoder, server } = this.#setup;
    const taken = decoder.take();
    if (end !== null) this.#made = end;
    const position = end === null ? null : formatPosition({ server, ...end, gtids: decoder.gtids.toString() });
    this.#queue.push({ ...taken, end: position, committedAt: taken.changes > 0 ? taken.committedAt : null });
    this.#queuedBytes += taken.bytes;
    this.#isBegun = end === null;
    this.#callConsumer();
  }
}
