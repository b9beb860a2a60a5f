/**
 * Values as a result set has them (MS-TDS 2.2.5) written as a bulk load takes them, which mostly is the same bytes: nothing is made of
 * them in between where both columns hold the same values in the same form.
 */
import type { RowBuffer } from './bulk-buffer.ts';
import type { BulkColumn } from './bulk-columns.ts';
import { DECIMAL_SIZE } from './bulk-numbers.ts';
import { cellOf, MAX_SIZE, type ReadColumn } from './read-columns.ts';

/** Writes the value of a row's rest that begins at `at`, which is not NULL, and ends before `end`. */
export type ValueCopier = (out: RowBuffer, buffer: Buffer, at: number, end: number) => void;

/** Types of the protocol. */
const GUID = 0x24;
const INT_N = 0x26;
const DATE = 0x28;
const TIME = 0x29;
const DATETIME2 = 0x2a;
const DATETIMEOFFSET = 0x2b;
const BIT_N = 0x68;
const DECIMAL_N = 0x6a;
const NUMERIC_N = 0x6c;
const FLOAT_N = 0x6d;
const DATETIME_N = 0x6f;
const VARBINARY = 0xa5;
const VARCHAR = 0xa7;
const BINARY = 0xad;
const CHAR = 0xaf;
const NVARCHAR = 0xe7;
const NCHAR = 0xef;

/** Types of columns that are never NULL: what their values are framed as where they may be. */
const NULLABLE_OF: ReadonlyMap<number, number> = new Map([
  [0x30, INT_N],
  [0x32, BIT_N],
  [0x34, INT_N],
  [0x38, INT_N],
  [0x3a, DATETIME_N],
  [0x3b, FLOAT_N],
  [0x3d, DATETIME_N],
  [0x3e, FLOAT_N],
  [0x7f, INT_N],
]);

/** By cell where the bytes are not the same, so that any column goes into any other that takes its text. */
export function valueCopier(from: ReadColumn, to: BulkColumn): ValueCopier {
  return sameBytes(from, to) ?? byCell(from, to);
}

function byCell(from: ReadColumn, to: BulkColumn): ValueCopier {
  return (out, buffer, at) => {
    const cell = cellOf(from, buffer, at);
    if (cell !== null) to.write(out, cell);
  };
}

function sameBytes(from: ReadColumn, to: BulkColumn): ValueCopier | null {
  const [type = 0, first = 0, second = 0, third = 0] = to.typeInfo;
  const size = first + second * 256;
  switch (type) {
    case INT_N:
    case FLOAT_N:
    case DATETIME_N:
    case BIT_N:
    case GUID:
      if ((NULLABLE_OF.get(from.type) ?? from.type) !== type || from.size !== first) return null;
      return from.framing === 'fixed' ? copyFixed : copy;
    case DATE:
      return from.type === DATE ? copy : null;
    case TIME:
    case DATETIME2:
    case DATETIMEOFFSET:
      return from.type === type && from.scale === first ? copy : null;
    case DECIMAL_N:
      if (from.type !== DECIMAL_N && from.type !== NUMERIC_N) return null;
      return from.precision <= second && from.scale === third ? copyDecimal : null;
    case NVARCHAR:
    case NCHAR:
      if (!isUnicode(from)) return null;
      return size === MAX_SIZE ? partsCopier(from, to) : from.size <= size ? copy : null;
    case VARCHAR:
    case CHAR:
      return isUnicode(from) && size !== MAX_SIZE && from.framing === 'short'
        ? asciiCopier(size, byCell(from, to))
        : null;
    case VARBINARY:
      if (from.type !== VARBINARY && from.type !== BINARY) return null;
      return size === MAX_SIZE ? partsCopier(from, to) : from.size <= size ? copy : null;
    default:
      return null;
  }
}

function isUnicode({ type }: ReadColumn): boolean {
  return type === NVARCHAR || type === NCHAR;
}

/** Up to here a loop costs less than a call, which makes an object of the part that it copies. */
const FEW = 256;

const copy: ValueCopier = (out, buffer, at, end) => {
  out.reserve(end - at);
  const { bytes } = out;
  let to = out.at;
  if (end - at > FEW) {
    buffer.copy(bytes, to, at, end);
    to += end - at;
  } else for (let i = at; i < end; i++) bytes[to++] = buffer[i] ?? 0;
  out.at = to;
};

/** A value whose length the source's column says, not itself. */
const copyFixed: ValueCopier = (out, buffer, at, end) => {
  out.reserve(1 + end - at);
  out.bytes[out.at++] = end - at;
  copy(out, buffer, at, end);
};

/** Magnitudes may be shorter than a bulk load has them. Zero has no sign. */
const copyDecimal: ValueCopier = (out, buffer, at, end) => {
  out.reserve(1 + DECIMAL_SIZE);
  const { bytes } = out;
  const start = out.at;
  let digits = 0;
  let to = start + 2;
  for (let i = at + 2; i < end; i++) {
    const byte = buffer[i] ?? 0;
    digits |= byte;
    bytes[to++] = byte;
  }
  bytes[start] = DECIMAL_SIZE;
  bytes[start + 1] = digits === 0 ? 1 : (buffer[at + 1] ?? 0);
  out.at = start + 1 + DECIMAL_SIZE;
  bytes.fill(0, to, out.at);
};

/** For columns in a code page, all of which hold ASCII as it is. */
function asciiCopier(size: number, other: ValueCopier): ValueCopier {
  return (out, buffer, at, end) => {
    const length = (end - at - 2) >> 1;
    if (length > size) {
      other(out, buffer, at, end);
      return;
    }
    out.reserve(2 + length);
    const { bytes } = out;
    let to = out.at + 2;
    for (let i = at + 2; i < end; i += 2) {
      const low = buffer[i] ?? 0;
      if (low >= 0x80 || buffer[i + 1] !== 0) {
        other(out, buffer, at, end);
        return;
      }
      bytes[to++] = low;
    }
    bytes[out.at] = length & 0xff;
    bytes[out.at + 1] = length >> 8;
    out.at = to;
  };
}

const PARTS_HEADER = 8;
/** The server did not know the length when it began. */
const UNKNOWN_LENGTH = 0xffff_ffff_ffff_fffen;

/** Into a column of a max type. */
function partsCopier(from: ReadColumn, to: BulkColumn): ValueCopier {
  if (from.framing === 'parts') {
    const other = byCell(from, to);
    return (out, buffer, at, end) => {
      if (buffer.readBigUInt64LE(at) === UNKNOWN_LENGTH) other(out, buffer, at, end);
      else out.append(buffer.subarray(at, end));
    };
  }
  return (out, buffer, at, end) => {
    const length = end - at - 2;
    out.reserve(PARTS_HEADER + length + 8);
    out.at = out.bytes.writeUInt32LE(length, out.at);
    out.at = out.bytes.writeUInt32LE(0, out.at);
    if (length > 0) {
      out.at = out.bytes.writeUInt32LE(length, out.at);
      copy(out, buffer, at + 2, end);
    }
    out.at = out.bytes.writeUInt32LE(0, out.at);
  };
}
