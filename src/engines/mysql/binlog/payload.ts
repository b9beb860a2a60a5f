/**
 * Compressed transactions of MySQL (Transaction_payload_event; `binlog_transaction_compression`): all events of one transaction, as
 * one. They are decompressed as they are taken, so that no more than zstd's window and one event is held besides what came.
 */
import { Decompress } from 'fzstd';
import { SluiceError } from '../../../model/errors.ts';
import { HEADER_BYTES, lengthEncoded, malformed } from './events.ts';

/** Fields of the event: type, length, value, each a length-encoded integer, up to the end mark; then the payload. */
const FIELD = { end: 0, compression: 2 } as const;
const COMPRESSION = { zstd: 0, none: 255 } as const;

/** Compressed bytes that are decompressed at once. */
const STEP_BYTES = 16 * 1024;
/** Where an event's header says its length. */
const LENGTH_AT = 9;

export function payloadEvents(event: Buffer): Iterator<Buffer> {
  let at = HEADER_BYTES;
  let compression: number = COMPRESSION.none;
  for (;;) {
    const type = lengthEncoded(event, at);
    at = type.next;
    if (type.value === FIELD.end) break;
    const length = lengthEncoded(event, at);
    if (type.value === FIELD.compression) compression = lengthEncoded(event, length.next).value;
    at = length.next + length.value;
    if (at >= event.length) throw malformed('a compressed transaction without an end mark');
  }
  const payload = event.subarray(at);
  if (compression === COMPRESSION.none) return eventsIn([payload]);
  if (compression === COMPRESSION.zstd) return eventsIn(decompressed(payload));
  throw new SluiceError('CAPABILITY_MISSING', `the binary log is compressed by algorithm ${compression}`, {
    hint: 'SET GLOBAL binlog_transaction_compression = OFF;',
  });
}

function* decompressed(payload: Buffer): Generator<Buffer, void, void> {
  let made: Buffer[] = [];
  const stream = new Decompress((data) => made.push(Buffer.from(data)));
  for (let at = 0; at < payload.length; at += STEP_BYTES) {
    stream.push(payload.subarray(at, at + STEP_BYTES), at + STEP_BYTES >= payload.length);
    yield* made;
    made = [];
  }
}

function* eventsIn(parts: Iterable<Buffer>): Generator<Buffer, void, void> {
  let held: Buffer = Buffer.alloc(0);
  for (const part of parts) {
    held = held.length === 0 ? part : Buffer.concat([held, part]);
    let at = 0;
    while (held.length - at >= HEADER_BYTES) {
      const length = held.readUInt32LE(at + LENGTH_AT);
      if (length < HEADER_BYTES) throw malformed('an event shorter than its header');
      if (held.length - at < length) break;
      yield held.subarray(at, at + length);
      at += length;
    }
    held = held.subarray(at);
  }
  if (held.length > 0) throw malformed('a compressed transaction that ends within an event');
}
