/** GTID events of MySQL (libs/mysql/binlog/event/control_events.h, Gtid_event). */
import { HEADER_BYTES, malformed } from './events.ts';
import { gtidText, uuidText } from './gtid-set.ts';

/** A byte of flags, the UUID, the number. */
export function readMysqlGtid(event: Buffer): string {
  const uuid = event.subarray(HEADER_BYTES + 1, HEADER_BYTES + 17);
  return gtidText({ origin: uuidText(uuid), number: event.readBigInt64LE(HEADER_BYTES + 17) });
}

/**
 * With a tag (8.3 and newer): a message of the server's serialization library (libs/mysql/serialization), which is its version, its
 * size, the last field that may not be ignored, and then fields with their numbers: flags, UUID, number, tag, …
 */
export function readTaggedGtid(event: Buffer): string {
  const reader = new VariableReader(event, HEADER_BYTES);
  for (let i = 0; i < 3; i++) reader.unsigned();
  const fields: Record<number, () => void> = {
    0: () => void reader.unsigned(),
    1: () => (uuid = Buffer.from(Array.from({ length: 16 }, () => Number(reader.unsigned())))),
    2: () => (number = reader.signed()),
    3: () => (tag = reader.text()),
  };
  let uuid = Buffer.alloc(0);
  let number = 0n;
  let tag = '';
  for (let field = 0; field <= 3; field++) {
    if (reader.unsigned() !== BigInt(field)) throw malformed('a GTID whose fields are not known');
    fields[field]?.();
  }
  return gtidText({ origin: tag === '' ? uuidText(uuid) : `${uuidText(uuid)}:${tag}`, number });
}

/** Integers of one to nine bytes, little-endian: so many lowest bits as are set say how many bytes follow the first. */
class VariableReader {
  readonly #data: Buffer;
  #at: number;

  constructor(data: Buffer, at: number) {
    this.#data = data;
    this.#at = at;
  }

  unsigned(): bigint {
    const first = this.#data[this.#at] ?? 0;
    let more = 0;
    while (more < 8 && ((first >> more) & 1) === 1) more++;
    let value = 0n;
    for (let i = more; i >= 0; i--) value = (value << 8n) | BigInt(this.#data[this.#at + i] ?? 0);
    this.#at += more + 1;
    // Eight of them leave no bit of the first byte.
    return more === 8 ? value >> 8n : value >> BigInt(more + 1);
  }

  /** The lowest bit is the sign; a negative number is its complement. */
  signed(): bigint {
    const value = this.unsigned();
    return (value & 1n) === 0n ? value >> 1n : -(value >> 1n) - 1n;
  }

  text(): string {
    const length = Number(this.unsigned());
    this.#at += length;
    return this.#data.toString('latin1', this.#at - length, this.#at);
  }
}
