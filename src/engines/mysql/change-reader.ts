/** Reads the binary log piece by piece, within bounded memory. Nothing is acknowledged: the server keeps its log by its own rules. */
import type { ChangePiece } from '../../model/changes.ts';
import { SluiceError } from '../../model/errors.ts';
import type { Position } from '../../model/position.ts';
import type { ChangeReader, ReadOptions } from '../contract.ts';
import type { BinlogConnection } from './binlog-connection.ts';
import { Step, type BinlogDecoder } from './binlog-decoder.ts';
import {
  compareLogPlaces,
  comparePlaces,
  formatPosition,
  parsePosition,
  type LogPlace,
  type Place,
} from './position.ts';

/** How often what depends on time is looked at, at least, ms. */
const TICK_MS = 100;

export interface ReaderSetup {
  readonly connection: BinlogConnection;
  readonly decoder: BinlogDecoder;
  readonly server: string;
  /** A server that says nothing for so long although it promised heartbeats is lost, ms. */
  readonly silenceMs: number;
  readonly release: () => Promise<void>;
}

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
  /** End of the last piece; what was asked for to begin with. */
  #made: LogPlace;
  #idleAt = performance.now();
  #isStopped = false;
  #isReading = false;

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

  acknowledge(position: Position): void {
    if (parsePosition(position)?.server !== this.#setup.server)
      throw new SluiceError('INTERNAL', `position ${position} is not of this stream and cannot be acknowledged`);
  }

  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#setup.connection.session.destroy();
    await this.#setup.release();
  }

  async #next(): Promise<IteratorResult<ChangePiece>> {
    if (this.#isReading) throw new SluiceError('INTERNAL', 'a change stream has one consumer');
    this.#isReading = true;
    try {
      const value = await this.#read();
      return value === null ? { done: true, value: undefined } : { done: false, value };
    } catch (error) {
      if (this.#isStopped) return { done: true, value: undefined };
      throw error;
    } finally {
      this.#isReading = false;
    }
  }

  async #read(): Promise<ChangePiece | null> {
    const { connection, decoder } = this.#setup;
    for (;;) {
      if (this.#isStopped) return null;
      const event = this.#event();
      if (event === null) {
        const ready = this.#waiting();
        if (ready) return ready;
        await connection.wait(Math.min(TICK_MS, Math.max(1, this.#idleDue())));
        this.#checkSilence();
        continue;
      }
      if (!decoder.inTransaction && this.#isBreak()) {
        this.#held = event;
        return this.#cut(decoder.place);
      }
      const expanded = decoder.expand(event);
      if (expanded) {
        this.#expanded = expanded;
        continue;
      }
      const step = await decoder.decode(event);
      // What was committed before is applied by the columns that it was made with.
      if (step === Step.Statement && (decoder.changes > 0 || decoder.altered.length > 0))
        return this.#cut(decoder.place);
      if (step === Step.Commit && decoder.changes >= this.#options.maxChanges) return this.#cut(decoder.place);
      if (decoder.bytes >= this.#options.maxBytes) return this.#cut(decoder.inTransaction ? null : decoder.place);
    }
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

  /** What can be handed out while nothing more is here. */
  #waiting(): ChangePiece | null {
    const { decoder } = this.#setup;
    if (decoder.inTransaction) return null;
    if (decoder.transactions > 0 && decoder.changes > 0) return this.#cut(decoder.place);
    // Also where the source stands still: whoever reads looks after destinations that are away between two pieces.
    return this.#idleDue() <= 0 ? this.#cut(decoder.place) : null;
  }

  #idleDue(): number {
    return this.#idleAt + this.#options.idleProgressMs() - performance.now();
  }

  /** `end` null: inside a transaction. */
  #cut(end: LogPlace | null): ChangePiece {
    const { decoder, server } = this.#setup;
    this.#idleAt = performance.now();
    const taken = decoder.take();
    if (end !== null) this.#made = end;
    const position = end === null ? null : formatPosition({ server, ...end, gtids: decoder.gtids.toString() });
    return { ...taken, end: position, committedAt: taken.changes > 0 ? taken.committedAt : null };
  }

  #checkSilence(): void {
    const { connection, silenceMs } = this.#setup;
    if (performance.now() - connection.heardAt <= silenceMs) return;
    connection.session.destroy();
    throw new SluiceError(
      'CONNECTION_LOST',
      `the source has sent nothing of its binary log for ${Math.round(silenceMs / 1000)} s`,
    );
  }
}
