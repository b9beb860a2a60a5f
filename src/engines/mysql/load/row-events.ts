/**
 * Rows as events of a binary log, as the BINLOG statement takes them (MySQL Internals, "Table Map Event", "Rows Event"; MariaDB,
 * "BINLOG"): what goes to the destination are the bytes that came from the source, and nothing is made of a value on the way.
 */
import type { UpsertImages } from '../../../model/keyed-changes.ts';
import type { LogColumn } from '../binlog/columns.ts';
import { endOfValue, type BinlogRows, type RowFormat } from '../binlog/images.ts';

const EVENT = { formatDescription: 15, tableMap: 19, write: 23, update: 24 } as const;
const HEADER_BYTES = 19;
/** Of the number of the table and the flags. */
const POST_HEADER_BYTES = 8;
/** The statement's last event; foreign keys are not checked. */
const FLAG = { last: 1, noForeignKeys: 2 } as const;
/** Of the rows of one statement: each is several buffers at the server, and a pause until the next comes. */
const STATEMENT_BYTES = 256 * 1024;
const LARGEST_ROW = 128 * 1024;
/** More than InnoDB's longest key has. */
const KEY_BYTES = 8192;
/** What goes before the rows: the table with its columns. */
const MAX_MAP_BYTES = 32 * 1024;
/** The events of one statement at most. */
export const LARGEST_EVENTS = MAX_MAP_BYTES + STATEMENT_BYTES + 2 * LARGEST_ROW + KEY_BYTES;

/** The table that the rows go into. */
export interface EventTarget {
  readonly schema: string;
  readonly table: string;
  /** By column: it takes NULL. */
  readonly nullable: readonly boolean[];
  /** Places of the columns of the primary key. */
  readonly key: readonly number[];
}

function header(type: number, length: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes[4] = type;
  bytes.writeUInt32LE(length, 9);
  return bytes;
}

/**
 * What tells a session how events are laid out, and that they have no checksums. It has no time and no place in a log: with one it would
 * end the open transaction (log_event_server.cc, `Format_description_log_event::do_apply_event`).
 */
export function formatDescription(): Buffer {
  // By type, as MySQL 5.6 has them; of the rows' types and the table map 8, of what a BINLOG statement never holds nothing that counts.
  const lengths = Buffer.alloc(35);
  lengths.set([
    56,
    13,
    0,
    8,
    0,
    18,
    0,
    4,
    4,
    4,
    4,
    18,
    0,
    0,
    57 + 35,
    0,
    4,
    26,
    8,
    0,
    0,
    0,
    8,
    8,
    8,
    2,
    0,
    0,
    0,
    10,
    10,
    10,
  ]);
  const body = Buffer.alloc(57);
  body.writeUInt16LE(4, 0);
  body.write('10.6.0-MariaDB', 2, 'latin1');
  body[56] = HEADER_BYTES;
  // The last: which checksums there are (none), and room for one.
  const checksum = Buffer.alloc(5);
  const length = HEADER_BYTES + body.length + lengths.length + checksum.length;
  return Buffer.concat([header(EVENT.formatDescription, length), body, lengths, checksum]);
}

function tableMap({ schema, table, nullable }: EventTarget, columns: readonly LogColumn[]): Buffer {
  const name = (text: string) => {
    const bytes = Buffer.from(text, 'utf8');
    return Buffer.concat([Buffer.of(bytes.length), bytes, Buffer.of(0)]);
  };
  const nullBits = Buffer.alloc((columns.length + 7) >> 3);
  nullable.forEach((each, i) => {
    if (each) nullBits[i >> 3] = (nullBits[i >> 3] ?? 0) | (1 << (i & 7));
  });
  const metas = Buffer.concat(columns.map(metadata));
  const types = columns.map(({ type }) => (type === 247 || type === 248 ? 254 : type));
  const body = Buffer.concat([
    postHeader(1),
    name(schema),
    name(table),
    lengthEncoded(columns.length),
    Buffer.from(types),
    lengthEncoded(metas.length),
    metas,
    nullBits,
  ]);
  return Buffer.concat([header(EVENT.tableMap, HEADER_BYTES + body.length), body]);
}

function metadata({ type, meta }: LogColumn): Buffer {
  switch (type) {
    // The type, then the length.
    case 247:
    case 248:
    case 254:
      return Buffer.of(meta >> 8, meta & 0xff);
    case 15:
    case 246:
      return Buffer.of(meta & 0xff, meta >> 8);
    case 4:
    case 5:
    case 17:
    case 18:
    case 19:
    case 252:
      return Buffer.of(meta);
    default:
      return Buffer.alloc(0);
  }
}

function lengthEncoded(value: number): Buffer {
  return value < 251 ? Buffer.of(value) : Buffer.of(252, value & 0xff, value >> 8);
}

function postHeader(flags: number): Buffer {
  const bytes = Buffer.alloc(POST_HEADER_BYTES);
  bytes[0] = 1;
  bytes.writeUInt16LE(flags, 6);
  return bytes;
}

/** A bit for each of these columns. */
function bitmap(width: number, has: (column: number) => boolean): Buffer {
  const bits = Buffer.alloc((width + 7) >> 3);
  for (let i = 0; i < width; i++) if (has(i)) bits[i >> 3] = (bits[i >> 3] ?? 0) | (1 << (i & 7));
  return bits;
}

/** What the events hold. */
export interface EventRows {
  readonly upserts: UpsertImages;
  readonly format: RowFormat;
  /** The first so many are inserted, the others updated under their key. */
  readonly inserts: number;
  readonly count: number;
}

/** No row lies in a form that the table does not take: NULL where it takes none, or too large. */
export function fits(target: EventTarget, { upserts: { images, rows }, format, count }: EventRows): boolean {
  const { nullBytes } = format;
  const refused = bitmap(target.nullable.length, (column) => target.nullable[column] !== true);
  for (let i = 0; i < count; i++) {
    const image = images[i] as BinlogRows;
    const row = rows[i] ?? 0;
    const buffer = image.buffers[row];
    const start = image.starts[row] ?? 0;
    if (buffer === undefined || (image.ends[row] ?? 0) - start > LARGEST_ROW) return false;
    for (let at = 0; at < nullBytes; at++) if (((buffer[start + at] ?? 0) & (refused[at] ?? 0)) !== 0) return false;
  }
  return true;
}

/** The rows in pieces of STATEMENT_BYTES, each a whole statement's events, and each in the same `out` (LARGEST_EVENTS). */
export function* eventStatements(target: EventTarget, rows: EventRows, out: Buffer): Generator<Buffer, void, void> {
  const map = tableMap(target, rows.format.columns);
  const width = rows.format.columns.length;
  const all = bitmap(width, () => true);
  const keyOnly = bitmap(width, (column) => target.key.includes(column));
  const [inserts, updates] = [
    [lengthEncoded(width), all],
    [lengthEncoded(width), keyOnly, all],
  ];
  yield* statements(map, EVENT.write, Buffer.concat(inserts), rows, { first: 0, end: rows.inserts, key: null }, out);
  const range = { first: rows.inserts, end: rows.count, key: target.key };
  yield* statements(map, EVENT.update, Buffer.concat(updates), rows, range, out);
}

interface Range {
  readonly first: number;
  readonly end: number;
  /** Of rows that are updated: the key's columns, which come first. */
  readonly key: readonly number[] | null;
}

function* statements(
  map: Buffer,
  type: number,
  columns: Buffer,
  { upserts: { images, rows }, format }: EventRows,
  { first, end, key }: Range,
  out: Buffer,
): Generator<Buffer, void, void> {
  const prefix = map.length + HEADER_BYTES + POST_HEADER_BYTES + columns.length;
  map.copy(out);
  postHeader(FLAG.last | FLAG.noForeignKeys).copy(out, map.length + HEADER_BYTES);
  columns.copy(out, prefix - columns.length);
  const finished = (to: number) => {
    header(type, to - map.length).copy(out, map.length);
    return out.subarray(0, to);
  };
  const keys = key === null ? null : new KeyWriter(format, key);
  let to = prefix;
  for (let i = first; i < end;) {
    const image = images[i] as BinlogRows;
    const row = rows[i] ?? 0;
    const buffer = image.buffers[row] ?? out;
    const start = image.starts[row] ?? 0;
    let rowEnd = image.ends[row] ?? 0;
    i++;
    if (keys) to = keys.write(buffer, start, out, to);
    else
      // Rows of one event lie behind each other.
      while (i < end && rowEnd - start < LARGEST_ROW) {
        const next = rows[i] ?? 0;
        if (images[i] !== image || image.buffers[next] !== buffer || image.starts[next] !== rowEnd) break;
        rowEnd = image.ends[next] ?? 0;
        i++;
      }
    to += buffer.copy(out, to, start, rowEnd);
    if (to < prefix + STATEMENT_BYTES) continue;
    yield finished(to);
    to = prefix;
  }
  if (to > prefix) yield finished(to);
}

/** The row that is looked for: no NULLs, and the key alone. */
class KeyWriter {
  readonly #format: RowFormat;
  readonly #key: ReadonlySet<number>;
  readonly #last: number;
  readonly #nullBytes: number;

  constructor(format: RowFormat, key: readonly number[]) {
    this.#format = format;
    this.#key = new Set(key);
    this.#last = Math.max(...key);
    this.#nullBytes = (key.length + 7) >> 3;
  }

  write(source: Buffer, row: number, out: Buffer, to: number): number {
    const { sizes, nullBytes } = this.#format;
    out.fill(0, to, to + this.#nullBytes);
    to += this.#nullBytes;
    let at = row + nullBytes;
    for (let column = 0; column <= this.#last; column++) {
      if ((((source[row + (column >> 3)] ?? 0) >> (column & 7)) & 1) === 1) continue;
      const end = endOfValue(source, at, sizes[column] ?? 0);
      if (this.#key.has(column)) to += source.copy(out, to, at, end);
      at = end;
    }
    return to;
  }
}
