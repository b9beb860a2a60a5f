/** MySQL's sets of global transaction identifiers: `uuid:1-5:7,uuid:tag:1-3` (MySQL Reference Manual, "GTID Format and Storage"). */
import { SluiceError } from '../../../model/errors.ts';

/** From and to, both of the set. */
type Interval = readonly [from: bigint, to: bigint];

/** One transaction: who committed it first (`uuid` or `uuid:tag`), and its number there. */
export interface Gtid {
  readonly origin: string;
  readonly number: bigint;
}

export function gtidText({ origin, number }: Gtid): string {
  return `${origin}:${number}`;
}

export class GtidSet {
  /** By origin, in order, none of them next to another. */
  readonly #intervals = new Map<string, Interval[]>();

  /** As the server prints it, and as `toString` does. */
  constructor(text: string) {
    for (const part of text.replace(/\s/g, '').toLowerCase().split(',').filter(Boolean)) {
      const [uuid = '', ...rest] = part.split(':');
      let origin = uuid;
      for (const each of rest) {
        const [, from, to] = /^(\d+)(?:-(\d+))?$/.exec(each) ?? [];
        // What is not numbers is a tag, for the intervals behind it.
        if (from === undefined) origin = `${uuid}:${each}`;
        else this.#insert(origin, [BigInt(from), BigInt(to ?? from)]);
      }
    }
  }

  get isEmpty(): boolean {
    return this.#intervals.size === 0;
  }

  add({ origin, number }: Gtid): void {
    const last = this.#intervals.get(origin)?.at(-1);
    // The common case: the next one.
    if (last !== undefined && last[1] + 1n === number) this.#intervals.get(origin)?.splice(-1, 1, [last[0], number]);
    else this.#insert(origin, [number, number]);
  }

  has({ origin, number }: Gtid): boolean {
    return (this.#intervals.get(origin) ?? []).some(([from, to]) => from <= number && number <= to);
  }

  /** All of `other` is in this one. */
  includes(other: GtidSet): boolean {
    for (const [origin, intervals] of other.#intervals) {
      const own = this.#intervals.get(origin) ?? [];
      if (!intervals.every(([from, to]) => own.some(([low, high]) => low <= from && to <= high))) return false;
    }
    return true;
  }

  toString(): string {
    return [...this.#intervals.entries()]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([origin, intervals]) => [origin, ...intervals.map(([a, b]) => (a === b ? `${a}` : `${a}-${b}`))].join(':'))
      .join(',');
  }

  /** As COM_BINLOG_DUMP_GTID takes it (sql/rpl_gtid_set.cc, Gtid_set::encode; the form with tags is of 8.3 and newer). */
  encode(): Buffer {
    const hasTags = [...this.#intervals.keys()].some((origin) => origin.includes(':'));
    const count = BigInt(this.#intervals.size);
    const parts = [uint64(hasTags ? (1n << 56n) | (count << 8n) | 1n : count)];
    for (const [origin, intervals] of [...this.#intervals.entries()].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const [uuid = '', tag = ''] = origin.split(':');
      parts.push(Buffer.from(uuid.replaceAll('-', ''), 'hex'));
      // A length below 128 has one byte: its lowest bit says that no other follows.
      if (hasTags) parts.push(Buffer.from([tag.length << 1]), Buffer.from(tag, 'latin1'));
      parts.push(uint64(BigInt(intervals.length)));
      for (const [from, to] of intervals) parts.push(uint64(from), uint64(to + 1n));
    }
    return Buffer.concat(parts);
  }

  #insert(origin: string, added: Interval): void {
    let [from, to] = added;
    const kept: Interval[] = [];
    for (const each of this.#intervals.get(origin) ?? []) {
      if (each[1] + 1n < from || to + 1n < each[0]) kept.push(each);
      else [from, to] = [each[0] < from ? each[0] : from, each[1] > to ? each[1] : to];
    }
    kept.push([from, to]);
    this.#intervals.set(
      origin,
      kept.sort(([a], [b]) => (a < b ? -1 : 1)),
    );
  }
}

function uint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

/** The sixteen bytes of a UUID as the server prints it. */
export function uuidText(bytes: Buffer): string {
  if (bytes.length !== 16) throw new SluiceError('INTERNAL', 'the binary log holds a GTID without a UUID');
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
