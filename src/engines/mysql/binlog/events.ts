/** Events of the binary log, as far as a change stream needs them (MySQL Internals, "Replication Protocol"; MariaDB, "Replication Protocol"). */
import { isAscii } from 'node:buffer';
import { inflateSync } from 'node:zlib';
import { SluiceError } from '../../../model/errors.ts';
import { ENUM_TYPE, isCharacterType, metadataLength, NUMERIC_TYPES, SET_TYPE, type LogColumn } from './columns.ts';
import { decoderOf } from './values.ts';

export const HEADER_BYTES = 19;

export const EVENT = {
  query: 2,
  rotate: 4,
  format: 15,
  xid: 16,
  tableMap: 19,
  incident: 26,
  heartbeat: 27,
  gtid: 33,
  anonymousGtid: 34,
  xaPrepare: 38,
  partialUpdate: 39,
  transactionPayload: 40,
  heartbeat2: 41,
  taggedGtid: 42,
  annotate: 160,
  checkpoint: 161,
  mariaGtid: 162,
  gtidList: 163,
  compressedQuery: 165,
} as const;

export interface EventHeader {
  readonly timestamp: number;
  readonly type: number;
  readonly serverId: number;
  /** Where the next event begins; 0 for events that are not in the file. */
  readonly end: number;
}

export function readHeader(event: Buffer): EventHeader {
  return {
    timestamp: event.readUInt32LE(0),
    type: event[4] ?? 0,
    serverId: event.readUInt32LE(5),
    end: event.readUInt32LE(13),
  };
}

export type RowsKind = 'insert' | 'update' | 'delete';
/** Rows events by type: version 1 (MariaDB), version 2 (MySQL), MariaDB's compressed ones of both. */
export interface RowsEvent {
  readonly kind: RowsKind;
  readonly version: 1 | 2;
  readonly compressed: boolean;
}

/** Rows events by type: of version 1 (MariaDB), version 2 (MySQL), MariaDB's compressed ones of both. */
export const ROWS: ReadonlyMap<number, RowsEvent> = new Map(
  (['insert', 'update', 'delete'] as const).flatMap((kind, i): [number, RowsEvent][] => [
    [23 + i, { kind, version: 1, compressed: false }],
    [30 + i, { kind, version: 2, compressed: false }],
    [166 + i, { kind, version: 1, compressed: true }],
    [169 + i, { kind, version: 2, compressed: true }],
  ]),
);

export function readRotate(event: Buffer): { file: string; offset: number } {
  return {
    offset: Number(event.readBigUInt64LE(HEADER_BYTES)),
    file: event.toString('utf8', HEADER_BYTES + 8),
  };
}

export interface MariaGtid {
  readonly gtid: string;
  /** No commit follows: the one statement is the transaction. */
  readonly standalone: boolean;
  readonly preparedXa: boolean;
}

export function readMariaGtid(event: Buffer, serverId: number): MariaGtid {
  const sequence = event.readBigUInt64LE(HEADER_BYTES);
  const domain = event.readUInt32LE(HEADER_BYTES + 8);
  const flags = event[HEADER_BYTES + 12] ?? 0;
  return {
    gtid: `${domain}-${serverId}-${sequence}`,
    standalone: (flags & 1) !== 0,
    preparedXa: (flags & 64) !== 0,
  };
}

export function readQuery(event: Buffer, compressed: boolean): { schema: string; sql: string } {
  const schemaLength = event[HEADER_BYTES + 8] ?? 0;
  const statusLength = event.readUInt16LE(HEADER_BYTES + 11);
  const schemaAt = HEADER_BYTES + 13 + statusLength;
  const body = event.subarray(schemaAt + schemaLength + 1);
  return {
    schema: event.toString('utf8', schemaAt, schemaAt + schemaLength),
    sql: (compressed ? uncompress(body) : body).toString('utf8'),
  };
}

/** MariaDB's form: a byte with the algorithm and the width of the length, the length (big-endian), zlib data. */
export function uncompress(data: Buffer): Buffer {
  const width = (data[0] ?? 0) & 0x07;
  if (((data[0] ?? 0) & 0x70) !== 0) throw malformed('a compression that is not known');
  return inflateSync(data.subarray(1 + width), { maxOutputLength: data.readUIntBE(1, width) + 1 });
}

/** A length-encoded integer at `at`: its value, and where what follows begins. */
export function lengthEncoded(data: Buffer, at: number): { value: number; next: number } {
  const first = data[at] ?? 0;
  if (first < 0xfb) return { value: first, next: at + 1 };
  const width = first === 0xfc ? 2 : first === 0xfd ? 3 : 8;
  const value = width === 8 ? Number(data.readBigUInt64LE(at + 1)) : data.readUIntLE(at + 1, width);
  return { value, next: at + 1 + width };
}

export interface TableMap {
  readonly id: number;
  readonly schema: string;
  readonly table: string;
  /** Null: the event does not describe its columns (`binlog_row_metadata` is not FULL). */
  readonly columns: readonly LogColumn[] | null;
}

export function tableIdOf(event: Buffer): number {
  return event.readUIntLE(HEADER_BYTES, 6);
}

/** Schema and table only: most tables of a server are not of the stream. */
export function readTableName(event: Buffer): { schema: string; table: string; next: number } {
  let at = HEADER_BYTES + 8;
  const schemaLength = event[at++] ?? 0;
  const schema = event.toString('utf8', at, at + schemaLength);
  at += schemaLength + 1;
  const tableLength = event[at++] ?? 0;
  const table = event.toString('utf8', at, at + tableLength);
  return { schema, table, next: at + tableLength + 1 };
}

/** `charsets`: character set by collation id. */
export function readTableMap(event: Buffer, charsets: ReadonlyMap<number, string>): TableMap {
  const { schema, table, next } = readTableName(event);
  const count = lengthEncoded(event, next);
  const types = [...event.subarray(count.next, count.next + count.value)];
  const metaLength = lengthEncoded(event, count.next + count.value);
  const metas: number[] = [];
  let at = metaLength.next;
  for (const [i, type] of types.entries()) {
    const width = metadataLength(type);
    if (type === 254) {
      const [real, length] = [event[at] ?? 0, event[at + 1] ?? 0];
      metas.push((real << 8) | length);
      // A long CHAR hides bits of its length in the type.
      types[i] = (real & 0x30) === 0x30 ? real : 254;
    } else metas.push(width === 2 ? event.readUInt16LE(at) : width === 1 ? (event[at] ?? 0) : 0);
    at += width;
  }
  at = metaLength.next + metaLength.value + ((count.value + 7) >> 3);
  const fields = new Map<number, Buffer>();
  while (at < event.length) {
    const field = event[at] ?? 0;
    const length = lengthEncoded(event, at + 1);
    fields.set(field, event.subarray(length.next, length.next + length.value));
    at = length.next + length.value;
  }
  return { id: tableIdOf(event), schema, table, columns: describe(types, metas, fields, charsets) };
}

/** Fields of the optional metadata (MySQL 8.0.1, MariaDB 10.5). */
const FIELD = {
  signedness: 1,
  defaultCharset: 2,
  columnCharset: 3,
  names: 4,
  setLabels: 5,
  enumLabels: 6,
  enumDefaultCharset: 10,
  enumCharset: 11,
} as const;

function describe(
  types: readonly number[],
  metas: readonly number[],
  fields: ReadonlyMap<number, Buffer>,
  charsets: ReadonlyMap<number, string>,
): LogColumn[] | null {
  const names = fields.get(FIELD.names);
  if (!names) return null;
  const nameList = strings(names);
  const isLabelled = (type: number) => type === ENUM_TYPE || type === SET_TYPE;
  const unsigned = signedness(fields.get(FIELD.signedness));
  const collations = collationsOf(fields.get(FIELD.defaultCharset), fields.get(FIELD.columnCharset));
  const labelCollations = collationsOf(fields.get(FIELD.enumDefaultCharset), fields.get(FIELD.enumCharset));
  const enums = labelLists(fields.get(FIELD.enumLabels));
  const sets = labelLists(fields.get(FIELD.setLabels));
  const seen = { numeric: 0, character: 0, labelled: 0, enum: 0, set: 0 };
  const charsetOf = (collation: number | undefined): string | null => {
    const charset = collation === undefined ? 'utf8mb4' : (charsets.get(collation) ?? `of collation ${collation}`);
    return charset === 'binary' ? null : charset;
  };
  return types.map((type, i) => {
    let labels: readonly string[] = [];
    let charset: string | null = null;
    if (isLabelled(type)) {
      const charsetName = charsetOf(labelCollations(seen.labelled++)) ?? 'binary';
      const raw = type === ENUM_TYPE ? enums[seen.enum++] : sets[seen.set++];
      if (decoderOf(charsetName) === null && (raw ?? []).some((label) => !isAscii(label))) charset = charsetName;
      labels = (raw ?? []).map((label) => decodeLabel(label, charsetName));
    } else if (isCharacterType(type)) charset = charsetOf(collations(seen.character++));
    const isNumeric = NUMERIC_TYPES.has(type);
    return {
      name: nameList[i] ?? '',
      type,
      meta: metas[i] ?? 0,
      unsigned: isNumeric && unsigned(seen.numeric++),
      charset,
      labels,
    };
  });
}

/** One bit for each numeric column, the first in the highest. */
function signedness(field: Buffer | undefined): (index: number) => boolean {
  return (index) => (((field?.[index >> 3] ?? 0) >> (7 - (index & 7))) & 1) === 1;
}

/** Collation of the n-th character column: one default with its exceptions, or a list. */
function collationsOf(byDefault: Buffer | undefined, list: Buffer | undefined): (index: number) => number | undefined {
  const numbers = (field: Buffer) => {
    const all: number[] = [];
    for (let at = 0; at < field.length;) {
      const { value, next } = lengthEncoded(field, at);
      all.push(value);
      at = next;
    }
    return all;
  };
  if (list) {
    const all = numbers(list);
    return (index) => all[index];
  }
  if (!byDefault) return () => undefined;
  const [common, ...pairs] = numbers(byDefault);
  const exceptions = new Map<number, number>();
  for (let i = 0; i + 1 < pairs.length; i += 2) exceptions.set(pairs[i] ?? 0, pairs[i + 1] ?? 0);
  return (index) => exceptions.get(index) ?? common;
}

function strings(field: Buffer): string[] {
  const all: string[] = [];
  for (let at = 0; at < field.length;) {
    const { value, next } = lengthEncoded(field, at);
    all.push(field.toString('utf8', next, next + value));
    at = next + value;
  }
  return all;
}

function labelLists(field: Buffer | undefined): Buffer[][] {
  const lists: Buffer[][] = [];
  if (!field) return lists;
  for (let at = 0; at < field.length;) {
    const count = lengthEncoded(field, at);
    at = count.next;
    const labels: Buffer[] = [];
    for (let i = 0; i < count.value; i++) {
      const { value, next } = lengthEncoded(field, at);
      labels.push(field.subarray(next, next + value));
      at = next + value;
    }
    lists.push(labels);
  }
  return lists;
}

function decodeLabel(label: Buffer, charset: string): string {
  return decoderOf(charset)?.(label) ?? label.toString('utf8');
}

export function malformed(what: string): SluiceError {
  return new SluiceError('INTERNAL', `the binary log holds ${what}`);
}
