/** Reads a replication slot piece by piece, within bounded memory, and acknowledges what was stored. */
import type { ChangePiece, TableChanges } from '../../model/changes.ts';
import { SluiceError } from '../../model/errors.ts';
import type { Position } from '../../model/position.ts';
import type { ChangeReader, ReadOptions } from '../contract.ts';
import type { Session } from './connection.ts';
import { streamError } from './change-errors.ts';
import { Step, type PgoutputDecoder, type Taken } from './pgoutput.ts';
import { formatPosition, parsePosition, type Lineage, type Place } from './position.ts';
import { ReplicationConnection } from './replication-connection.ts';

/** How often what depends on time is looked at, at least, ms. */
const TICK_MS = 250;
/** First byte of pgoutput's Begin message. */
const BEGIN = 0x42;

export interface ReaderSetup {
  readonly slot: string;
  readonly silenceMs: number;
  readonly statusMs: number;
  /** Ends a walsender that does not listen, over another session. */
  readonly terminate: (pid: number) => Promise<void>;
}

/**
 * Reads ahead of its consumer by at most `maxBytes`: then the socket is paused, and the server waits, kept content by status
 * updates from a timer.
 */
export class PostgresChangeReader implements ChangeReader {
  readonly #decoder: PgoutputDecoder;
  readonly #from: Place;
  readonly #lineage: Lineage;
  readonly #options: ReadOptions;
  readonly #setup: ReaderSetup;
  /** Positions that no piece may reach across, in order. */
  readonly #breaks: bigint[];
  #stream: ReplicationConnection | null = null;
  #pid = 0;
  /** Completes "could not …". */
  readonly #doing: string;
  readonly #queue: ChangePiece[] = [];
  #queuedBytes = 0;
  #paused = false;
  #waiting: { resolve: (result: IteratorResult<ChangePiece>) => void; reject: (error: SluiceError) => void } | null =
    null;
  #error: SluiceError | null = null;
  #stopped: Promise<void> | null = null;
  /** A check for "nothing more in the socket" is due. */
  #flushing = false;
  /** End of the last completed piece made, and of the last handed out. */
  #made: bigint;
  #handedOut: bigint;
  /** The last piece handed out ends inside a transaction. */
  #inside = false;
  /** A piece of the transaction being decoded was made already: its end must be handed out even if nothing more is in it. */
  #begun = false;
  #acknowledged: bigint;
  /** Where the server is while nothing of ours happens. */
  #idle: bigint | null = null;
  #idleAt = performance.now();
  /** Acknowledgements are held back until the slot was checked. */
  #going = false;
  #statusDue = false;
  #statusAt = 0;
  #timer: NodeJS.Timeout | null = null;
  /** Requests for a reply in quick succession: the server is shutting down and waits for us. */
  #urgentSince: number | null = null;
  #requestedAt = 0;

  readonly pieces: AsyncIterable<ChangePiece>;

  constructor(decoder: PgoutputDecoder, from: Place, lineage: Lineage, options: ReadOptions, setup: ReaderSetup) {
    this.#decoder = decoder;
    this.#from = from;
    this.#lineage = lineage;
    this.#options = options;
    this.#setup = setup;
    this.#breaks = (options.breakAt ?? [])
      .flatMap((position) => parsePosition(position)?.lsn ?? [])
      .sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    this.#doing = `read replication slot ${setup.slot}`;
    this.#made = this.#handedOut = this.#acknowledged = from.lsn;
    // Leaving a loop over it early ends nothing: what was read must still be acknowledged, and `stop` ends the session.
    this.pieces = { [Symbol.asyncIterator]: () => ({ next: () => this.#next() }) };
  }

  /** Resolves once the server streams; nothing is acknowledged before `go`. */
  async start(session: Session, command: string): Promise<void> {
    this.#pid = session.pid;
    this.#stream = await ReplicationConnection.start(session, command, this.#doing, {
      data: (buffer, start, end) => this.#data(buffer, start, end),
      keepalive: (walEnd, replyRequested) => this.#keepalive(walEnd, replyRequested),
      chunk: () => this.#chunk(),
      failed: (error) => this.#fail(streamError(error, this.#setup.slot)),
    });
  }

  go(): void {
    this.#going = true;
    this.#send(true);
    this.#tick();
  }

  async abandon(): Promise<void> {
    this.#end();
    if (!(await this.#stream?.finish())) await this.#setup.terminate(this.#pid);
  }

  /** Never beyond what was handed out, and never backwards; sent together with others of the same turn. */
  acknowledge(position: Position): void {
    const place = parsePosition(position);
    if (place?.systemId !== this.#from.systemId || !this.#lineage.contains(place, this.#from.timeline)) {
      throw new SluiceError('INTERNAL', `position ${position} is not of this stream and cannot be acknowledged`);
    }
    // A position above what was read is another reader's: acknowledging it would skip what this one has not handed out.
    const lsn = place.lsn < this.#handedOut ? place.lsn : this.#handedOut;
    if (lsn <= this.#acknowledged) return;
    this.#acknowledged = lsn;
    this.#sendSoon();
  }

  stop(): Promise<void> {
    this.#stopped ??= (async () => {
      this.#end();
      if (this.#error === null) {
        this.#send(false);
        // In the middle of a large transaction the server does not listen: the slot must be free when we return.
        if (!(await this.#stream?.finish())) await this.#setup.terminate(this.#pid);
      }
      this.#waiting?.resolve({ done: true, value: undefined });
      this.#waiting = null;
    })();
    return this.#stopped;
  }

  #end(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#queue.length = 0;
  }

  #fail(error: SluiceError): void {
    if (this.#error !== null || this.#stopped !== null) return;
    this.#error = error;
    this.#end();
    this.#waiting?.reject(error);
    this.#waiting = null;
  }

  // --- from the socket -------------------------------------------------------------------------------------------------

  #data(buffer: Buffer, start: number, end: number): void {
    const decoder = this.#decoder;
    if (this.#breaks.length > 0 && buffer[start] === BEGIN) this.#breakBefore(buffer.readBigUInt64BE(start + 1));
    const step = decoder.decode(buffer, start, end);
    if (step === Step.None) return;
    // What was committed before is applied by the columns that it was made with.
    if (step === Step.Described) this.#cut(true);
    else if (step === Step.Commit && this.#begun) this.#cut(true);
    else if (step === Step.Commit && decoder.changes === 0) {
      // Nothing of ours in it (servers before 15 send empty transactions): it is progress, not a piece.
      const taken = decoder.takeCompleted();
      if (taken?.end) this.#idle = taken.end;
    } else if (decoder.bytes >= this.#pieceBytes()) this.#cut(step === Step.Commit);
    // While the consumer is busy the piece grows: the more waits, the fewer commits it takes.
    else if (step === Step.Commit && decoder.changes >= this.#options.maxChanges && this.#waiting !== null)
      this.#cut(true);
  }

  /** A transaction begins whose commit record is at `lsn`: what is complete is a piece by itself if a break lies between. */
  #breakBefore(lsn: bigint): void {
    let crossed = false;
    for (let next = this.#breaks[0]; next !== undefined && next <= lsn; next = this.#breaks[0]) {
      this.#breaks.shift();
      crossed = true;
    }
    if (crossed) this.#cut(true);
  }

  /** Makes pieces of what was decoded: of completed transactions first, then of a transaction too large for memory. */
  #cut(atCommit: boolean): void {
    const completed = this.#decoder.takeCompleted();
    if (completed) {
      this.#enqueue(completed);
      this.#begun = false;
    }
    if (!atCommit && this.#decoder.bytes >= this.#pieceBytes()) {
      this.#enqueue(this.#decoder.takeOpen());
      this.#begun = true;
    }
  }

  #enqueue(taken: Taken): void {
    const end = taken.end === null ? null : formatPosition({ ...this.#from, lsn: taken.end });
    if (taken.end !== null) this.#made = taken.end;
    this.#queue.push({ ...taken, end });
    this.#queuedBytes += taken.bytes;
  }

  #keepalive(walEnd: bigint, replyRequested: boolean): void {
    // Inside a transaction it says nothing: the server sends it between two of our rows too.
    if (!this.#decoder.inTransaction && walEnd > this.#made) this.#idle = walEnd;
    if (replyRequested) this.#requested();
  }

  /** A server that shuts down asks again at once after each answer, until everything is acknowledged. */
  #requested(): void {
    const now = performance.now();
    if (now - this.#requestedAt > 300) this.#urgentSince = null;
    else this.#urgentSince ??= now;
    this.#requestedAt = now;
    if (this.#urgentSince === null) this.#sendSoon();
    else if (now - this.#urgentSince > 5_000) {
      // Nobody stores our progress: do not hold up the shutdown. What is not acknowledged is sent again.
      this.#stream?.destroy();
      this.#fail(new SluiceError('SERVER_BUSY', `could not ${this.#doing}: the server is shutting down`));
    } else setTimeout(() => this.#sendSoon(), 50);
  }

  #chunk(): void {
    if (this.#waiting !== null && !this.#flushing) {
      this.#flushing = true;
      // After the poll phase: whatever the socket held has been read by then.
      setImmediate(() => {
        this.#flushing = false;
        this.#deliver();
      });
    }
    if (!this.#paused && this.#buffered() >= this.#aheadBytes()) {
      this.#paused = true;
      this.#stream?.pause();
    }
  }

  /** Size of a piece that ends inside a transaction: once it must be taken apart, small parts cost no more and hold less. */
  #pieceBytes(): number {
    return this.#begun ? this.#options.maxBytes / 4 : this.#options.maxBytes;
  }

  /** The consumer holds a piece as well: what it may take next is half of what may be held, unless one transaction needs it all. */
  #aheadBytes(): number {
    const ready = this.#queue.length > 0 || this.#decoder.completed > 0;
    return ready ? this.#options.maxBytes / 2 : this.#pieceBytes();
  }

  #buffered(): number {
    return this.#queuedBytes + this.#decoder.bytes;
  }

  // --- to the consumer -------------------------------------------------------------------------------------------------

  #next(): Promise<IteratorResult<ChangePiece>> {
    if (this.#error !== null) return Promise.reject(this.#error);
    if (this.#stopped !== null) return Promise.resolve({ done: true, value: undefined });
    if (this.#waiting !== null) {
      return Promise.reject(new SluiceError('INTERNAL', 'a change stream has one consumer'));
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#deliver();
    });
  }

  #deliver(): void {
    const waiting = this.#waiting;
    if (waiting === null || !this.#going) return;
    if (this.#queue.length === 0) {
      const completed = this.#decoder.takeCompleted();
      if (completed) this.#enqueue(completed);
    }
    let piece = this.#queue.shift();
    if (piece !== undefined) this.#queuedBytes -= piece.bytes;
    else piece = this.#progress();
    if (piece === undefined) return;
    this.#inside = piece.end === null;
    const lsn = piece.end === null ? null : parsePosition(piece.end)?.lsn;
    if (lsn) this.#handedOut = lsn;
    this.#idleAt = performance.now();
    this.#waiting = null;
    waiting.resolve({ done: false, value: piece });
    if (this.#paused && this.#buffered() < this.#aheadBytes()) {
      this.#paused = false;
      this.#stream?.resume();
    }
  }

  /** Idle progress, when it is due. */
  #progress(): ChangePiece | undefined {
    if (this.#idle === null || this.#inside || this.#decoder.inTransaction) return undefined;
    if (this.#idle <= this.#made) {
      this.#idle = null;
      return undefined;
    }
    const due = this.#idleAt + this.#options.idleProgressMs();
    if (this.#urgentSince === null && performance.now() < due) return undefined;
    const lsn = this.#idle;
    this.#idle = null;
    this.#made = lsn;
    const tables: TableChanges[] = [];
    const end = formatPosition({ ...this.#from, lsn });
    return { tables, end, bytes: 0, changes: 0, transactions: 0, committedAt: null };
  }

  // --- to the server ---------------------------------------------------------------------------------------------------

  #send(requestReply: boolean): void {
    if (!this.#going) return;
    this.#statusDue = false;
    this.#statusAt = performance.now();
    this.#stream?.sendStatus(this.#acknowledged, requestReply);
  }

  #sendSoon(): void {
    if (this.#statusDue) return;
    this.#statusDue = true;
    setImmediate(() => {
      if (this.#statusDue && this.#error === null && this.#stopped === null) this.#send(false);
    });
  }

  /** Everything that depends on time: status updates, requests for progress, silence. */
  #tick(): void {
    if (this.#error !== null || this.#stopped !== null) return;
    const now = performance.now();
    const interval = this.#options.idleProgressMs();
    const period = Math.min(Math.max(interval / 2, 20), this.#setup.statusMs);
    // The interval may become shorter at any moment (somebody waits for progress now): it is asked for often.
    const tick = Math.min(period, TICK_MS);
    if (!this.#paused && this.#stream !== null && now - this.#stream.heardAt > this.#setup.silenceMs) {
      this.#stream.destroy();
      this.#fail(
        new SluiceError(
          'CONNECTION_LOST',
          `could not ${this.#doing}: the server has said nothing for ${Math.round(this.#setup.silenceMs / 1000)} s`,
        ),
      );
      return;
    }
    const wantsProgress =
      this.#idle === null && !this.#decoder.inTransaction && now - this.#idleAt >= interval - period;
    const sinceStatus = now - this.#statusAt;
    if ((wantsProgress && sinceStatus >= period - 10) || sinceStatus >= this.#setup.statusMs - 10) this.#send(true);
    this.#deliver();
    this.#timer = setTimeout(() => this.#tick(), tick);
  }
}
