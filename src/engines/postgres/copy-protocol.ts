/**
 * COPY over a session as raw protocol bytes; this file has what both directions share, and the way in (manual: "Message Flow", COPY Operations; "Message Formats", CopyData).
 *
 * A CopyData message looks the same in both directions: `d`, a 4-byte length that includes itself, payload. So what one
 * server sends is what another accepts, and the byte lane hands the source's buffers to the destination's socket without
 * decoding or copying them.
 *
 * Memory: at most `IN_FLIGHT` bytes and one buffer wait between the writer and its socket (invariant 7).
 */
import { SluiceError } from '../../model/errors.ts';
import type { Session } from './connection.ts';
import { classify } from './errors.ts';

const IN_FLIGHT = 512 * 1024;
/** Bytes before a message's payload: its letter and length. */
export const HEADER = 5;

export const COPY_DATA = 0x64; // d
export const COPY_DONE = 0x63; // c
const COPY_FAIL = 0x66; // f

export type DataListener = (data: Buffer) => void;

export interface Socket {
  write(data: Uint8Array, done?: (error?: Error | null) => void): boolean;
  on(event: 'data', listener: DataListener): unknown;
  removeListener(event: 'data', listener: DataListener): unknown;
  listeners(event: 'data'): unknown[];
  pause(): unknown;
  resume(): unknown;
}

/** What pg hands to a query object; the parts of it that are used here. */
export interface WireConnection {
  readonly stream: Socket;
  query(text: string): void;
}

/** The part of the driver's protocol for query objects ("submittable") that both directions share. */
export abstract class CopyQuery {
  /** The driver gives its own results a type parser unless this is set. */
  readonly text: string;
  /** From `COPY n`. */
  rows = 0;

  constructor(text: string) {
    this.text = text;
  }

  abstract submit(connection: WireConnection): void;
  abstract handleError(error: Error): void;
  abstract handleReadyForQuery(): void;

  handleCommandComplete(message: { text?: string }): void {
    const found = /^COPY (\d+)/.exec(message.text ?? '');
    if (found) this.rows = Number(found[1]);
  }

  // Never sent in answer to a COPY; present because the driver calls them without asking.
  handleRowDescription(): void {}
  handleDataRow(): void {}
  handleEmptyQuery(): void {}
  handleParseComplete(): void {}
  handlePortalSuspended(): void {}
  handleCopyData(): void {}
  handleCopyInResponse(_connection?: WireConnection): void {}
}

class CopyInQuery extends CopyQuery {
  connection: WireConnection | null = null;
  #ready = false;
  #finished = false;
  #error: Error | null = null;
  #inFlight = 0;
  #wake: (() => void) | null = null;

  override submit(connection: WireConnection): void {
    this.connection = connection;
    connection.query(this.text);
  }

  override handleCopyInResponse(): void {
    this.#ready = true;
    this.#wakeUp();
  }

  override handleError(error: Error): void {
    this.#error ??= error;
    this.#wakeUp();
  }

  override handleReadyForQuery(): void {
    this.#finished = true;
    this.#wakeUp();
  }

  get failed(): boolean {
    return this.#error !== null;
  }

  started(): Promise<void> {
    return this.#until(() => this.#ready);
  }

  finished(): Promise<void> {
    return this.#until(() => this.#finished);
  }

  /** Hands bytes to the socket; waits while too many are on their way. */
  async send(data: Uint8Array): Promise<void> {
    if (this.#error) throw this.#error;
    this.#inFlight += data.length;
    this.connection?.stream.write(data, () => {
      this.#inFlight -= data.length;
      if (this.#inFlight < IN_FLIGHT) this.#wakeUp();
    });
    if (this.#inFlight >= IN_FLIGHT) await this.#until(() => this.#inFlight < IN_FLIGHT);
  }

  async #until(reached: () => boolean): Promise<void> {
    while (this.#error === null && !reached()) await new Promise<void>((resolve) => (this.#wake = resolve));
    if (this.#error) throw this.#error;
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}

/** A running `COPY … FROM STDIN`. One caller at a time. */
export interface CopyIn {
  /**
   * Sends complete CopyData messages; resolves when there is room for more. Throws the server's error as soon as it is
   * known. The buffer must not be changed afterwards: it may still be on its way.
   */
  write(framed: Uint8Array): Promise<void>;
  /** Ends the COPY; resolves to the number of rows that went in. */
  end(): Promise<number>;
  /** Gives up: the server discards the rows, and an open transaction is aborted. Never throws. */
  fail(): Promise<void>;
}

/** Starts `COPY … FROM STDIN`; resolves when the server is ready for rows. */
export async function copyIn(session: Session, sql: string, doing = 'load rows'): Promise<CopyIn> {
  assertAlive(session, doing);
  const query = new CopyInQuery(sql);
  void session.client.query(query as unknown as Parameters<typeof session.client.query>[0]);
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw failure(session, doing, error);
    }
  };
  await guarded(() => query.started());
  return {
    write: (framed) => guarded(() => query.send(framed)),
    end: () =>
      guarded(async () => {
        await query.send(Buffer.from([COPY_DONE, 0, 0, 0, 4]));
        await query.finished();
        return query.rows;
      }),
    fail: async () => {
      if (query.failed || session.lost) return;
      try {
        const reason = Buffer.from('the rows could not be read at the source\0');
        const message = Buffer.allocUnsafe(HEADER + reason.length);
        message[0] = COPY_FAIL;
        message.writeUInt32BE(reason.length + 4, 1);
        reason.copy(message, HEADER);
        await query.send(message);
        await query.finished();
      } catch {
        // 57014, as asked for
      }
    },
  };
}

export function assertAlive(session: Session, doing: string): void {
  if (session.lost)
    throw new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was lost`, { cause: session.lost });
}

export function failure(session: Session, doing: string, error: unknown): SluiceError {
  if (session.lost && !(error instanceof SluiceError))
    return new SluiceError('CONNECTION_LOST', `could not ${doing}: the connection was lost`, { cause: error });
  return classify(error, doing);
}
