/** Statements that are sent before the ones before them were answered, so that the server always has the next one. */
import type { SluiceError } from '../../../model/errors.ts';
import type { Session } from '../connection.ts';
import { driverOf, ERR, PACKET_HEADER_BYTES, writeCommand, type ReceivedPacket } from '../driver-commands.ts';
import { classify } from '../errors.ts';

const COM_QUERY = 0x03;
const COM_STMT_EXECUTE = 0x17;
const MYSQL_TYPE_BLOB = 0xfc;

/** The packet of a statement without values. */
export function queryPacket(text: string): Buffer {
  const packet = Buffer.alloc(PACKET_HEADER_BYTES + 1 + Buffer.byteLength(text));
  packet[PACKET_HEADER_BYTES] = COM_QUERY;
  packet.write(text, PACKET_HEADER_BYTES + 1);
  return packet;
}

/** Of an execution, before its value (MySQL Internals, COM_STMT_EXECUTE): the statement's number, flags, one execution, no NULL, a new type. */
const EXECUTE_BYTES = PACKET_HEADER_BYTES + 1 + 4 + 1 + 4 + 1 + 1 + 2;
/** A length in three bytes, and what says so. */
const LENGTH_BYTES = 4;
/** Where the value begins in the packet of a statement with one value. */
export const VALUE_AT = EXECUTE_BYTES + LENGTH_BYTES;

/** A prepared statement with one value, text in ASCII. */
export class ExecutePacket {
  readonly #statement: number;

  private constructor(statement: number) {
    this.#statement = statement;
  }

  /** The session keeps the statement until it ends. */
  static async prepare(session: Session, doing: string, text: string): Promise<ExecutePacket> {
    if (session.lost) throw session.failure(doing, session.lost);
    return new Promise((resolve, reject) => {
      const off = session.onEnd(() => reject(session.failure(doing, session.lost)));
      session.driver.prepare(text, (error, statement) => {
        off();
        // What the driver's own declaration leaves out.
        if (error) reject(session.failure(doing, error));
        else resolve(new ExecutePacket((statement as unknown as { readonly id: number }).id));
      });
    });
  }

  /** Writes what goes before the value, which lies in `packet` from VALUE_AT on and fills the rest of it: less than 16 MiB. */
  write(packet: Buffer): Buffer {
    let at = PACKET_HEADER_BYTES;
    packet[at] = COM_STMT_EXECUTE;
    at = packet.writeUInt32LE(this.#statement, at + 1);
    packet[at] = 0;
    at = packet.writeUInt32LE(1, at + 1);
    packet[at] = 0;
    packet[at + 1] = 1;
    at = packet.writeUInt16LE(MYSQL_TYPE_BLOB, at + 2);
    packet[at] = 0xfd;
    packet.writeUIntLE(packet.length - VALUE_AT, at + 1, 3);
    return packet;
  }
}

/** Packets that wait at the server behind the one it is at. */
const AHEAD = 2;
/** So many buffers are enough for any number of packets: a packet is asked for when no more than AHEAD of them are in use. */
export const PIPELINE_BUFFERS = AHEAD + 1;

/**
 * Sends the packets in order, each as soon as there are fewer than AHEAD in front of the one that the server is at: statements that
 * give no rows. Throws the first error of the server's, after what was sent meanwhile was answered too: the caller's transaction is
 * given up by then, and nothing of it may commit by itself.
 */
export async function pipeline(session: Session, doing: string, packets: Iterator<Buffer>): Promise<void> {
  if (session.lost) throw session.failure(doing, session.lost);
  const driver = driverOf(session);
  let failed: SluiceError | null = null;
  let unanswered = 0;
  await new Promise<void>((resolve, reject) => {
    const off = session.onEnd(() => reject(session.failure(doing, session.lost)));
    const send = (): boolean => {
      while (failed === null && unanswered <= AHEAD) {
        const next = packets.next();
        if (next.done === true) break;
        unanswered++;
        writeCommand(driver, next.value);
      }
      if (unanswered > 0) return false;
      off();
      resolve();
      return true;
    };
    driver.addCommand({
      onResult: (error) => {
        off();
        reject(session.failure(doing, error));
      },
      execute: (packet: ReceivedPacket | undefined) => {
        if (packet) {
          unanswered--;
          if (packet.buffer[packet.offset] === ERR) failed ??= classify(packet.asError(driver.clientEncoding), doing);
        }
        const isOver = send();
        // An answer has the number behind its command's, whatever was sent since.
        driver.sequenceId = 1;
        return isOver;
      },
    });
  });
  if (failed !== null) throw failed as SluiceError;
}
