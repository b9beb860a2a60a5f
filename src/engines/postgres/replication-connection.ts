/**
 * The walsender's side of a session (manual: "Streaming Replication Protocol"): after START_REPLICATION the socket is ours, and
 * CopyData frames are cut here, because pg's parser makes an object and a copy for each.
 */
import type { Socket } from 'node:net';
import { SluiceError } from '../../model/errors.ts';
import type { Session } from './connection.ts';
import { classify } from './errors.ts';
import { POSTGRES_EPOCH_MS } from './pgoutput.ts';

export interface ReplicationHandlers {
  /** One message of the output plugin, at [start, end). The buffer may be kept: it is not written to again. */
  data(buffer: Buffer, start: number, end: number): void;
  /** The server has sent everything up to `walEnd`. */
  keepalive(walEnd: bigint, replyRequested: boolean): void;
  /** What one read of the socket held has been handed over. */
  chunk(): void;
  /** The stream ended without being asked to; at most once, and nothing comes after it. */
  failed(error: SluiceError): void;
}

/** How long `finish` waits for the server's answer, ms. In the middle of a large transaction the server does not listen. */
const FINISH_MS = 1_000;

/** A replication stream that runs. Not for concurrent callers. */
export class ReplicationConnection {
  readonly #socket: Socket;
  readonly #session: Session;
  readonly #handlers: ReplicationHandlers;
  readonly #doing: string;
  /** The beginning of a frame's five-byte header. */
  #head: Buffer | null = null;
  /** A frame that spans several reads: its bytes, as far as they have come. */
  #frame: Buffer | null = null;
  #have = 0;
  #state: 'starting' | 'running' | 'finishing' | 'over' = 'starting';
  #started: { resolve: () => void; reject: (error: SluiceError) => void } | null = null;
  #finished: (() => void) | null = null;
  /** When the server was last heard, ms (monotonic). */
  heardAt = performance.now();

  private constructor(session: Session, handlers: ReplicationHandlers, doing: string) {
    this.#session = session;
    this.#socket = (session.client as unknown as { connection: { stream: Socket } }).connection.stream;
    this.#handlers = handlers;
    this.#doing = doing;
  }

  /**
   * Sends `command` (START_REPLICATION …) and resolves when the server streams. Rejects with the server's classified
   * error. `doing` completes "could not …". The session must be idle and is used up.
   */
  static async start(
    session: Session,
    command: string,
    doing: string,
    handlers: ReplicationHandlers,
  ): Promise<ReplicationConnection> {
    const connection = new ReplicationConnection(session, handlers, doing);
    const socket = connection.#socket;
    socket.removeAllListeners('data'); // pg's parser; its listeners for errors and the end stay
    socket.on('data', (chunk: Buffer) => connection.#read(chunk));
    socket.on('error', (error) => connection.#fail(classify(error, doing)));
    socket.on('close', () =>
      connection.#fail(new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was closed`)),
    );
    await new Promise<void>((resolve, reject) => {
      connection.#started = { resolve, reject };
      const text = Buffer.from(`${command}\0`, 'utf8');
      const head = Buffer.alloc(5);
      head[0] = 0x51; // 'Q'
      head.writeUInt32BE(text.length + 4, 1);
      socket.write(Buffer.concat([head, text]));
    });
    return connection;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.heardAt = performance.now(); // nothing could be heard meanwhile
    this.#socket.resume();
  }

  /** Standby status update. `lsn`: everything at or below it may be forgotten by the server; 0 says nothing. */
  sendStatus(lsn: bigint, requestReply: boolean): void {
    if (this.#state !== 'running' || !this.#socket.writable) return;
    const message = Buffer.allocUnsafe(39);
    message[0] = 0x64; // 'd'
    message.writeUInt32BE(38, 1);
    message[5] = 0x72; // 'r'
    // Written = flushed = applied: claiming to have received more than is durable would gain nothing, and with all three
    // behind, the walsender tells its position by itself whenever it falls asleep.
    message.writeBigUInt64BE(lsn, 6);
    message.writeBigUInt64BE(lsn, 14);
    message.writeBigUInt64BE(lsn, 22);
    message.writeBigInt64BE(BigInt(Date.now() - POSTGRES_EPOCH_MS) * 1000n, 30);
    message[38] = requestReply ? 1 : 0;
    this.#socket.write(message);
  }

  /** CopyDone, waits a moment for the server to agree, ends the session. What still arrives is thrown away. False: it did not agree in time. */
  async finish(): Promise<boolean> {
    if (this.#state !== 'running') return this.#state === 'over';
    this.#state = 'finishing';
    const agreed = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), FINISH_MS);
      this.#finished = () => {
        clearTimeout(timer);
        resolve(true);
      };
      this.#socket.write(Buffer.from([0x63, 0, 0, 0, 4])); // 'c'
      this.#socket.resume();
    });
    this.#state = 'over';
    if (agreed) await this.#session.end();
    else this.#session.destroy();
    return agreed;
  }

  /** Ends at once, without a word to the server. */
  destroy(): void {
    this.#state = 'over';
    this.#session.destroy();
  }

  #fail(error: SluiceError): void {
    if (this.#state === 'over') return;
    const before = this.#state;
    this.#state = 'over';
    this.#session.destroy();
    if (before === 'starting') this.#started?.reject(error);
    else if (before === 'finishing') this.#finished?.();
    else this.#handlers.failed(error);
  }

  #read(chunk: Buffer): void {
    this.heardAt = performance.now();
    if (this.#state === 'over') return;
    try {
      this.#cut(chunk);
      if (this.#state === 'running') this.#handlers.chunk();
    } catch (error) {
      this.#fail(classify(error, this.#doing));
    }
  }

  /** Cuts a read of the socket into frames: type, length (its own four bytes included), payload. */
  #cut(chunk: Buffer): void {
    let at = 0;
    if (this.#frame !== null) {
      const copied = chunk.copy(this.#frame, this.#have);
      this.#have += copied;
      if (this.#have < this.#frame.length) return;
      const frame = this.#frame;
      this.#frame = null;
      at = copied;
      this.#handle(frame, 0, frame.length);
    } else if (this.#head !== null) {
      chunk = Buffer.concat([this.#head, chunk]);
      this.#head = null;
    }
    const size = chunk.length;
    while (size - at >= 5) {
      const end = at + 1 + chunk.readUInt32BE(at + 1);
      if (end > size) {
        // Of its full size at once, so that a value of many megabytes is copied one time only.
        this.#frame = Buffer.allocUnsafeSlow(end - at);
        this.#have = chunk.copy(this.#frame, 0, at);
        return;
      }
      this.#handle(chunk, at, end);
      at = end;
    }
    if (at < size) this.#head = Buffer.from(chunk.subarray(at));
  }

  #handle(buffer: Buffer, start: number, end: number): void {
    if (this.#state === 'over') return;
    switch (buffer[start]) {
      case 0x64: // CopyData
        if (this.#state !== 'running') return;
        if (buffer[start + 5] === 0x77) {
          // 'w': start and end of the data in the log, server's clock, then the plugin's message
          this.#handlers.data(buffer, start + 30, end);
        } else if (buffer[start + 5] === 0x6b) {
          // 'k': end of the log sent, server's clock, reply requested
          this.#handlers.keepalive(buffer.readBigUInt64BE(start + 6), buffer[start + 22] === 1);
        }
        return;
      case 0x57: // CopyBothResponse
        this.#state = 'running';
        this.#started?.resolve();
        return;
      case 0x45: // ErrorResponse
        this.#fail(classify(errorFields(buffer, start + 5, end), this.#doing));
        return;
      case 0x43: // CommandComplete, or …
      case 0x5a: // … ReadyForQuery: asked for by us, or the server shuts down and has nothing more to send
        if (this.#state === 'finishing') {
          if (buffer[start] === 0x5a) this.#finished?.();
        } else
          this.#fail(
            new SluiceError('SERVER_BUSY', `could not ${this.#doing}: the server ended the stream (shutting down)`),
          );
        return;
      default: // CopyDone of the server, notices, parameter changes
    }
  }
}

/** The fields of an ErrorResponse that `classify` looks at, in the driver's form. */
function errorFields(buffer: Buffer, start: number, end: number): { code: string; message: string } {
  const fields = { code: '', message: '' };
  for (let at = start; at < end && buffer[at] !== 0;) {
    const stop = buffer.indexOf(0, at);
    const value = buffer.toString('utf8', at + 1, stop);
    if (buffer[at] === 0x43) fields.code = value;
    else if (buffer[at] === 0x4d) fields.message = value;
    at = stop + 1;
  }
  return fields;
}
