/**
 * `COPY … TO STDOUT` as the bytes that come over the wire (see copy-protocol.ts). While rows come in, the driver's parser is
 * detached from the socket, because it would make an object of every row; here only the messages' lengths are read.
 *
 * Memory: at most `BUFFERED` bytes and one read of the socket wait for the reader; then the socket is paused, and the server
 * waits (invariant 7). A row larger than `LARGE_MESSAGE` is passed on in several CopyData messages, whose boundaries mean nothing
 * to a server that reads.
 */
import {
  assertAlive,
  COPY_DATA,
  COPY_DONE,
  CopyQuery,
  failure,
  HEADER,
  type DataListener,
  type Socket,
  type WireConnection,
} from './copy-protocol.ts';
import type { Session } from './connection.ts';

const BUFFERED = 512 * 1024;
const LARGE_MESSAGE = 256 * 1024;

const COPY_OUT_RESPONSE = 0x48; // H
const NOTICE = 0x4e; // N
const PARAMETER_STATUS = 0x53; // S
const NOTIFICATION = 0x41; // A

/** Cuts the byte stream of a socket into runs of complete CopyData messages. */
class CopyOutQuery extends CopyQuery {
  readonly #queue: Buffer[] = [];
  #queued = 0;
  #paused = false;
  #socket: Socket | null = null;
  #driver: DataListener | null = null;
  /** The beginning of a message whose rest has not come. */
  #partial: Buffer | null = null;
  /** Payload bytes still to come of a large message that is passed on in pieces. */
  #largeRest = 0;
  #started = false;
  #finished = false;
  #error: Error | null = null;
  #wake: (() => void) | null = null;
  readonly #onData: DataListener = (data) => this.#receive(data);

  override submit(connection: WireConnection): void {
    const socket = connection.stream;
    const driver = socket.listeners('data')[0];
    this.#socket = socket;
    this.#driver = driver as DataListener;
    socket.on('data', this.#onData);
    socket.removeListener('data', this.#driver);
    connection.query(this.text);
  }

  override handleError(error: Error): void {
    this.#error ??= error;
    this.#detach();
    this.#wakeUp();
  }

  override handleReadyForQuery(): void {
    this.#finished = true;
    this.#wakeUp();
  }

  /** Resolves when the server has begun to send, i.e. it holds its locks and has planned the query. */
  async started(): Promise<void> {
    while (!this.#started && !this.#finished && this.#error === null) await this.#sleep();
    if (this.#error) throw this.#error;
  }

  /** The next run of messages; null at the end of the COPY, after the server is ready for the next query. */
  async next(): Promise<Buffer | null> {
    for (;;) {
      if (this.#error) throw this.#error;
      const data = this.#queue.shift();
      if (data) {
        this.#queued -= data.length;
        if (this.#paused && this.#queued < BUFFERED / 2) {
          this.#paused = false;
          this.#socket?.resume();
        }
        return data;
      }
      if (this.#finished) return null;
      await this.#sleep();
    }
  }

  #sleep(): Promise<void> {
    return new Promise((resolve) => (this.#wake = resolve));
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }

  #push(data: Buffer): void {
    this.#queue.push(data);
    this.#queued += data.length;
    if (!this.#paused && this.#queued >= BUFFERED) {
      this.#paused = true;
      this.#socket?.pause();
    }
  }

  #receive(data: Buffer): void {
    let at = 0;
    if (this.#partial) {
      const joined = this.#join(this.#partial, data);
      if (joined === null) return;
      at = joined;
    }
    while (this.#largeRest > 0 && at < data.length) at = this.#passLarge(data, at);
    const from = at;
    let end = at; // end of the run of complete CopyData messages that starts at `from`
    while (data.length - end >= HEADER) {
      const length = data.readUInt32BE(end + 1) + 1;
      if (data[end] !== COPY_DATA) {
        if (end > from) this.#push(data.subarray(from, end));
        if (data.length - end < length) {
          this.#partial = Buffer.from(data.subarray(end));
          this.#wakeUp();
          return;
        }
        const rest = this.#control(data, end, length);
        if (rest !== null) this.#receive(rest);
        this.#wakeUp();
        return;
      }
      if (data.length - end < length) break;
      end += length;
    }
    if (end > from) this.#push(from === 0 && end === data.length ? data : data.subarray(from, end));
    if (end < data.length) this.#keep(data.subarray(end));
    this.#wakeUp();
  }

  /** Completes the message that began in an earlier buffer. Returns where `data` goes on; null: still not complete. */
  #join(partial: Buffer, data: Buffer): number | null {
    if (partial.length < HEADER) {
      // Too short to know the length: one byte run of both is rare and small.
      const both = Buffer.concat([partial, data]);
      this.#partial = null;
      this.#receive(both);
      return null;
    }
    const length = partial.readUInt32BE(1) + 1;
    const missing = length - partial.length;
    if (data.length < missing) {
      this.#partial = Buffer.concat([partial, data]);
      return null;
    }
    const message = Buffer.concat([partial, data.subarray(0, missing)], length);
    this.#partial = null;
    if (message[0] === COPY_DATA) {
      this.#push(message);
      return missing;
    }
    const rest = this.#control(Buffer.concat([message, data.subarray(missing)]), 0, length);
    if (rest !== null) this.#receive(rest);
    this.#wakeUp();
    return null;
  }

  /** Keeps the beginning of a message; of a large one, what is there goes on as a message of its own. */
  #keep(data: Buffer): void {
    const large = data.length >= HEADER && data[0] === COPY_DATA && data.readUInt32BE(1) > LARGE_MESSAGE;
    if (!large) {
      this.#partial = Buffer.from(data);
      return;
    }
    this.#largeRest = data.readUInt32BE(1) - 4;
    if (data.length > HEADER) this.#passLarge(data, HEADER);
  }

  /** Passes on what `data` has of the large message from `at`, framed anew. Returns where the rest of `data` begins. */
  #passLarge(data: Buffer, at: number): number {
    const bytes = Math.min(this.#largeRest, data.length - at);
    const framed = Buffer.allocUnsafe(HEADER + bytes);
    framed[0] = COPY_DATA;
    framed.writeUInt32BE(bytes + 4, 1);
    data.copy(framed, HEADER, at, at + bytes);
    this.#largeRest -= bytes;
    this.#push(framed);
    return at + bytes;
  }

  /** A message that is not CopyData. Returns what follows it; null: the driver reads on from here. */
  #control(data: Buffer, at: number, length: number): Buffer | null {
    const code = data[at];
    const after = data.subarray(at + length);
    if (code === COPY_OUT_RESPONSE) {
      this.#started = true;
      return after;
    }
    if (code === COPY_DONE) return after;
    if (code === NOTICE || code === PARAMETER_STATUS || code === NOTIFICATION) {
      this.#driver?.(data.subarray(at, at + length));
      return after;
    }
    // CommandComplete, ErrorResponse or something unexpected: the driver knows what to make of it and of ReadyForQuery.
    const driver = this.#driver;
    this.#detach();
    driver?.(data.subarray(at));
    return null;
  }

  /** Gives the socket back to the driver's parser. */
  #detach(): void {
    if (!this.#socket || !this.#driver) return;
    this.#socket.on('data', this.#driver);
    this.#socket.removeListener('data', this.#onData);
    this.#driver = null;
    this.#socket.resume();
    this.#paused = false;
  }
}

export interface CopyOut {
  /** Buffers of complete CopyData messages as they came. Not iterating to the end destroys the session. */
  readonly data: AsyncIterable<Buffer>;
}

/**
 * Runs `COPY … TO STDOUT`; resolves when the server begins to send. Errors before that (locks, rights, planning) reject,
 * later ones are thrown by the iteration; after either the session can be used again unless it is lost. `doing` completes "could not …".
 */
export async function startCopyOut(session: Session, doing: string, sql: string): Promise<CopyOut> {
  assertAlive(session, doing);
  const query = new CopyOutQuery(sql);
  void session.client.query(query as unknown as Parameters<typeof session.client.query>[0]);
  try {
    await query.started();
  } catch (error) {
    throw failure(session, doing, error);
  }
  return { data: messages(session, doing, query) };
}

async function* messages(session: Session, doing: string, query: CopyOutQuery): AsyncGenerator<Buffer, void, void> {
  let complete = false;
  try {
    for (;;) {
      const data = await query.next();
      if (data === null) break;
      yield data;
    }
    complete = true;
  } catch (error) {
    complete = true; // the server has ended the COPY itself
    throw failure(session, doing, error);
  } finally {
    if (!complete) session.destroy();
  }
}

/** `startCopyOut` for callers that only iterate. */
export async function* copyOut(session: Session, sql: string): AsyncGenerator<Buffer, void, void> {
  const started = await startCopyOut(session, 'copy rows out', sql);
  yield* started.data;
}
