/**
 * A session that the server sends its binary log to (COM_BINLOG_DUMP). The driver carries the packets; its own reader would make
 * objects of the events. Events wait here within a limit of bytes: then the socket is paused, and the server waits.
 */
import { SluiceError } from '../../../model/errors.ts';
import type { Session } from '../connection.ts';
import {
  driverOf,
  EOF,
  ERR,
  PACKET_HEADER_BYTES,
  writeCommand,
  type DriverConnection,
  type ReceivedPacket,
} from '../driver-commands.ts';
import { classify } from '../errors.ts';
import type { GtidSet } from './gtid-set.ts';

const COM_BINLOG_DUMP = 0x12;
const COM_BINLOG_DUMP_GTID = 0x1e;

/** Events that wait to be decoded before the socket is paused: whoever reads ahead decodes them as they come. */
const WAITING_BYTES = 1 << 20;

/** Asks for the log from a place on. */
export function dumpCommand(place: { readonly file: string; readonly offset: number }, slaveId: number): Buffer {
  const command = Buffer.alloc(11);
  command[0] = COM_BINLOG_DUMP;
  command.writeUInt32LE(place.offset, 1);
  command.writeUInt32LE(slaveId, 7);
  return Buffer.concat([command, Buffer.from(place.file, 'utf8')]);
}

/** Asks MySQL for every transaction that is not of the set (COM_BINLOG_DUMP_GTID: flags, id, no file, its beginning, the set). */
export function dumpGtidCommand(has: GtidSet, slaveId: number): Buffer {
  const set = has.encode();
  const command = Buffer.alloc(23);
  command[0] = COM_BINLOG_DUMP_GTID;
  command.writeUInt32LE(slaveId, 3);
  command.writeBigUInt64LE(4n, 11);
  command.writeUInt32LE(set.length, 19);
  return Buffer.concat([command, set]);
}

export class BinlogConnection {
  readonly session: Session;
  readonly #doing: string;
  readonly #queue: Buffer[] = [];
  #bytes = 0;
  #paused = false;
  #error: SluiceError | null = null;
  #wake: (() => void) | null = null;
  /** When something last came, by `performance.now`. */
  heardAt = performance.now();

  constructor(session: Session, doing: string) {
    this.session = session;
    this.#doing = doing;
  }

  /** Sends a command that asks for the log. The server answers with events, or with an error that the first `take` throws. */
  start(command: Buffer): void {
    const driver = driverOf(this.session);
    const packet = Buffer.concat([Buffer.alloc(PACKET_HEADER_BYTES), command]);
    this.session.onEnd(() => this.#fail(this.session.failure(this.#doing, this.session.lost)));
    driver.addCommand({
      onResult: (error: unknown) => this.#fail(this.session.failure(this.#doing, error)),
      execute: (received) => {
        if (received) return this.#receive(received, driver);
        writeCommand(driver, packet);
        return false;
      },
    });
  }

  /** The next event, if one is here. */
  take(): Buffer | null {
    const event = this.#queue.shift();
    if (event === undefined) {
      if (this.#error) throw this.#error;
      return null;
    }
    this.#bytes -= event.length;
    if (this.#paused && this.#bytes < WAITING_BYTES / 2) {
      this.#paused = false;
      // Not heard because we did not listen.
      this.heardAt = performance.now();
      driverOf(this.session).stream.resume();
    }
    return event;
  }

  /** Ends a `wait`. */
  nudge(): void {
    this.#wake?.();
  }

  /** Resolves when an event or the end is here, or after `ms`. */
  async wait(ms: number): Promise<void> {
    if (this.#queue.length > 0 || this.#error) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = null;
  }

  #receive(packet: ReceivedPacket, driver: DriverConnection): boolean {
    this.heardAt = performance.now();
    const { buffer, offset, end } = packet;
    const first = buffer[offset];
    if (first === ERR) {
      this.#fail(classify(packet.asError(driver.clientEncoding), this.#doing));
      return true;
    }
    if (first === EOF && end - offset < 9) {
      this.#fail(new SluiceError('CONNECTION_LOST', `could not ${this.#doing}: the server ended the log`));
      return true;
    }
    // A view of the socket's buffer: it is read soon, and the queue is limited.
    this.#queue.push(buffer.subarray(offset + 1, end));
    this.#bytes += end - offset;
    if (!this.#paused && this.#bytes >= WAITING_BYTES) {
      this.#paused = true;
      driver.stream.pause();
    }
    this.#wake?.();
    return false;
  }

  #fail(error: SluiceError): void {
    this.#error ??= error;
    this.#wake?.();
  }
}
