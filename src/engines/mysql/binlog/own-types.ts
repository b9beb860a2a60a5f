/**
 * MariaDB's own types, which its log holds as BINARY of their length: what they are is asked of the catalog. As the server prints
 * them (sql/sql_type_uuid.h, sql/sql_type_inet.cc of MariaDB).
 */
import type { LogColumn } from './columns.ts';
import type { ValueReader } from './values.ts';

const STRING = 254;
const READERS: Readonly<Record<string, { readonly bytes: number; readonly text: (value: Buffer) => string }>> = {
  uuid: { bytes: 16, text: uuidText },
  inet6: { bytes: 16, text: inet6Text },
  inet4: { bytes: 4, text: (value) => value.join('.') },
};

/** The column may be of such a type. */
export function mayBeOwnType({ type, charset, meta }: LogColumn): boolean {
  return type === STRING && charset === null && ((meta & 0xff) === 16 || (meta & 0xff) === 4);
}

/** Null: `native` is no such type. `bytes` reads the column as BINARY. */
export function ownTypeReader(native: string | undefined, bytes: ValueReader): ValueReader | null {
  const found = READERS[native ?? ''];
  if (!found) return null;
  return (cursor) => {
    const value = bytes(cursor);
    return value instanceof Uint8Array && value.length === found.bytes ? found.text(Buffer.from(value)) : value;
  };
}

/**
 * Of versions 1 to 5 the node comes first and the time last, so that rows of one node lie together; others are kept as they are written. (Before
 * 10.11.5 all were turned round, in tables that have not been rebuilt since: those of later versions are misread then.)
 */
function uuidText(kept: Buffer): string {
  const [variant = 0, version = 0] = [kept[6], kept[8]];
  const isTurned = (variant & 0x80) !== 0 && version > 0 && version <= 0x80;
  const bytes = isTurned
    ? Buffer.concat([
        kept.subarray(12, 16),
        kept.subarray(10, 12),
        kept.subarray(8, 10),
        kept.subarray(6, 8),
        kept.subarray(0, 6),
      ])
    : kept;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** The first of the longest runs of zero words is left out; the last two words are an IPv4 address where it is compatible or mapped. */
function inet6Text(value: Buffer): string {
  const words = Array.from({ length: 8 }, (_, i) => value.readUInt16BE(i * 2));
  let gap = { at: -1, length: 0 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (at + length < 8 && words[at + length] === 0) length++;
    if (length > gap.length) gap = { at, length };
    at += length;
  }
  const isV4 = gap.at === 0 && (gap.length === 6 || (gap.length === 5 && words[5] === 0xffff));
  const hex = (from: number, to: number) => words.slice(from, to).map((word) => word.toString(16));
  const tail = isV4
    ? [...hex(gap.length, 6), value.subarray(12).join('.')].join(':')
    : hex(gap.at + gap.length, 8).join(':');
  return gap.length === 0 ? hex(0, 8).join(':') : `${hex(0, gap.at).join(':')}::${tail}`;
}
