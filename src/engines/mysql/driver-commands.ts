/** Commands that the driver has no words for: it carries their packets, and what they mean is ours (mysql2, lib/base/connection.js). */
import type { Socket } from 'node:net';
import type { Session } from './connection.ts';

/** What the first byte of an answer says. */
export const ERR = 0xff;
export const EOF = 0xfe;

/** Of a packet: three bytes of length and a number. */
export const PACKET_HEADER_BYTES = 4;

/** A packet of the server's. It is the driver's own, and another one when `execute` has returned. */
export interface ReceivedPacket {
  readonly buffer: Buffer;
  /** Where what it says begins and ends in `buffer`. */
  readonly offset: number;
  readonly end: number;
  asError(encoding: string): Error;
}

export interface DriverCommand {
  /** The connection failed before the command was over. */
  readonly onResult: (error: unknown) => void;
  /** Called without a packet when it is the command's turn, then for each packet. True: the command is over. */
  execute(packet: ReceivedPacket | undefined): boolean;
}

/** What we rely on in the driver's connection (unchanged since its first version). */
export interface DriverConnection {
  readonly clientEncoding: string;
  readonly stream: Socket;
  sequenceId: number;
  _resetSequenceId(): void;
  writePacket(packet: unknown): void;
  addCommand(command: DriverCommand): void;
}

export function driverOf(session: Session): DriverConnection {
  return session.driver as unknown as DriverConnection;
}

/** Writes `packet`: PACKET_HEADER_BYTES of room, then a command, less than 16 MiB in all. It stays as it is until the server has answered. */
export function writeCommand(driver: DriverConnection, packet: Buffer): void {
  driver._resetSequenceId();
  driver.writePacket({
    buffer: packet,
    length: () => packet.length,
    writeHeader: (sequence: number) => {
      packet.writeUIntLE(packet.length - PACKET_HEADER_BYTES, 0, 3);
      packet[3] = sequence;
    },
  });
}
