/** Values of row images (MySQL Internals, "Rows Event"; sql/log_event.cc, log_event_print_value) as the exact cells that rows.ts makes of the server's text. */
import { SluiceError } from '../../../model/errors.ts';
import type { ChangeCell } from '../../../model/changes.ts';
import { float32Text, float64Text } from '../../float-text.ts';
import { stringLength, TYPE, UTF8, valueSize, type LogColumn } from './columns.ts';
import { jsonText } from './json.ts';
import { bitsText, wellKnownBinary, withoutFractionZeros } from '../cells.ts';
import { imageText } from '../load/image-text.ts';
import { singleByteDecoder } from './single-byte-text.ts';

/** What Buffer's own toString calls after checking its arguments; the checks cost as much as a short cell. */
interface FastBuffer extends Buffer {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
}

export interface Cursor {
  readonly buffer: Buffer;
  at: number;
}

export type ValueReader = (cursor: Cursor) => ChangeCell;

/** Throws CAPABILITY_MISSING for a type whose form in the log is not known. */
export function valueReader(column: LogColumn): ValueReader {
  const { type, meta, unsigned } = column;
  switch (type) {
    case TYPE.tiny:
      return integer(1, unsigned);
    case TYPE.short:
      return integer(2, unsigned);
    case TYPE.int24:
      return integer(3, unsigned);
    case TYPE.long:
      return integer(4, unsigned);
    case TYPE.longlong:
    case TYPE.newdecimal:
    case TYPE.date:
    case TYPE.datetime2:
      return written(column);
    case TYPE.float:
      return (c) => withoutSign(float32Text(c.buffer.readFloatLE(skip(c, 4))));
    case TYPE.double:
      return (c) => withoutSign(float64Text(c.buffer.readDoubleLE(skip(c, 8))));
    case TYPE.year:
      return (c) => {
        const year = c.buffer[skip(c, 1)] ?? 0;
        return year === 0 ? '0' : String(1900 + year);
      };
    case TYPE.time:
      return (c) => {
        const value = c.buffer.readIntLE(skip(c, 3), 3);
        const [sign, all] = value < 0 ? ['-', -value] : ['', value];
        return `${sign}${clock(Math.trunc(all / 10_000), Math.trunc(all / 100) % 100, all % 100)}`;
      };
    case TYPE.datetime:
      return (c) => {
        const text = digits(c.buffer.readBigUInt64LE(skip(c, 8)), 14);
        return text.replace(/^(....)(..)(..)(..)(..)(..)$/, '$1-$2-$3 $4:$5:$6');
      };
    case TYPE.timestamp:
      return (c) => instant(c.buffer.readUInt32LE(skip(c, 4)), '');
    case TYPE.timestamp2:
      return (c) => {
        const seconds = c.buffer.readUInt32BE(skip(c, 4));
        return instant(seconds, fraction(c, meta));
      };
    case TYPE.time2:
      return time2(meta);
    case TYPE.bit: {
      const bits = (meta >> 8) * 8 + (meta & 0xff);
      const bytes = (bits + 7) >> 3;
      if (bits === 1) return (c) => (c.buffer[skip(c, 1)] === 1 ? 't' : 'f');
      return (c) => bitsText(c.buffer.subarray(skip(c, bytes), c.at));
    }
    case TYPE.enum:
      // Labels that are not read (LogColumn.charset).
      if (column.charset !== null) return (c) => void skip(c, meta & 0xff);
      return (c) => {
        const index = c.buffer.readUIntLE(skip(c, meta & 0xff), meta & 0xff);
        return index === 0 ? '' : (column.labels[index - 1] ?? '');
      };
    case TYPE.set:
      if (column.charset !== null) return (c) => void skip(c, meta & 0xff);
      return (c) => {
        const size = meta & 0xff;
        let members = 0n;
        for (let i = size - 1, at = skip(c, size); i >= 0; i--)
          members = (members << 8n) | BigInt(c.buffer[at + i] ?? 0);
        return column.labels.filter((_, i) => (members >> BigInt(i)) & 1n).join(',');
      };
    case TYPE.varchar:
    case TYPE.varString:
      return text(column, () => (meta > 255 ? 2 : 1));
    case TYPE.string:
      return column.charset === null
        ? fixedBytes(stringLength(meta))
        : text(column, () => (stringLength(meta) > 255 ? 2 : 1));
    case TYPE.blob:
      return text(column, () => meta);
    case TYPE.geometry:
      return (c) => wellKnownBinary(lengthPrefixed(c, meta));
    case TYPE.json:
      return (c) => jsonText(lengthPrefixed(c, meta));
    default:
      throw new SluiceError(
        'CAPABILITY_MISSING',
        `column ${column.name}: type ${type} of the binary log cannot be read`,
        {
          hint: 'Leave the column out of the mapping, or copy the table without changes (cdc_enabled = 0).',
        },
      );
  }
}

/** Of text that is ASCII: longer than any. */
const SCRATCH = Buffer.allocUnsafeSlow(128);

/** What is loaded without a string in between is one here. */
function written(column: LogColumn): ValueReader {
  const text = imageText(column);
  const size = valueSize(column);
  return (c) => {
    const at = skip(c, size);
    const end = text?.write(c.buffer, at, at + size, SCRATCH, 0) ?? 0;
    return (SCRATCH as FastBuffer).latin1Slice(0, end);
  };
}

function skip(cursor: Cursor, bytes: number): number {
  const { at } = cursor;
  cursor.at += bytes;
  return at;
}

function integer(bytes: number, unsigned: boolean): ValueReader {
  return unsigned
    ? (c) => String(c.buffer.readUIntLE(skip(c, bytes), bytes))
    : (c) => String(c.buffer.readIntLE(skip(c, bytes), bytes));
}

/** The server prints minus zero as zero. */
function withoutSign(text: string): string {
  return text === '-0' ? '0' : text;
}

function digits(value: number | bigint, width: number): string {
  return String(value).padStart(width, '0');
}

function clock(hours: number, minutes: number, seconds: number): string {
  return `${digits(hours, 2)}:${digits(minutes, 2)}:${digits(seconds, 2)}`;
}

/** `.123456` of the given number of digits; '' for none. Big-endian, two digits a byte. */
function fraction(cursor: Cursor, precision: number): string {
  const bytes = (precision + 1) >> 1;
  if (bytes === 0) return '';
  return `.${digits(cursor.buffer.readUIntBE(skip(cursor, bytes), bytes), bytes * 2)}`;
}

/** Seconds since 1970; 0 is the zero date. */
function instant(seconds: number, rest: string): string {
  if (seconds === 0 && !/[1-9]/.test(rest)) return '0000-00-00 00:00:00+00';
  const text = new Date(seconds * 1000).toISOString();
  return `${withoutFractionZeros(`${text.slice(0, 10)} ${text.slice(11, 19)}${rest}`)}+00`;
}

/** Hours, minutes, seconds and fraction as one number around a middle, negative values as its complement. */
function time2(precision: number): ValueReader {
  const fractionBytes = (precision + 1) >> 1;
  const scale = 2 ** (8 * fractionBytes);
  return (c) => {
    const bytes = 3 + fractionBytes;
    const value = c.buffer.readUIntBE(skip(c, bytes), bytes) - 0x800000 * scale;
    const all = Math.abs(value);
    const whole = Math.floor(all / scale);
    const rest = fractionBytes === 0 ? '' : `.${digits(all % scale, fractionBytes * 2)}`;
    const text = `${clock(whole >> 12, (whole >> 6) & 63, whole & 63)}${rest}`;
    return `${value < 0 ? '-' : ''}${withoutFractionZeros(text)}`;
  };
}

function lengthPrefixed(cursor: Cursor, bytes: number): Buffer {
  const length = cursor.buffer.readUIntLE(skip(cursor, bytes), bytes);
  const start = skip(cursor, length);
  return cursor.buffer.subarray(start, start + length);
}

/** BINARY(n): its trailing zero bytes are not in the log. */
function fixedBytes(length: number): ValueReader {
  return (c) => {
    const padded = Buffer.alloc(length);
    lengthPrefixed(c, length > 255 ? 2 : 1).copy(padded);
    return padded;
  };
}

function text(column: LogColumn, lengthBytes: () => number): ValueReader {
  const bytes = lengthBytes();
  if (column.charset === null) return (c) => Buffer.from(lengthPrefixed(c, bytes));
  if (UTF8.has(column.charset))
    return (c) => {
      const length = c.buffer.readUIntLE(skip(c, bytes), bytes);
      const start = skip(c, length);
      return (c.buffer as FastBuffer).utf8Slice(start, start + length);
    };
  const decode = decoderOf(column.charset);
  return (c) => {
    const value = lengthPrefixed(c, bytes);
    return decode === null ? undefined : decode(value);
  };
}

/**
 * The server's latin1 is Windows 1252, and what that leaves open is the control character of that number. (TextDecoder takes the
 * name and decodes ISO 8859-1 on some versions of Node.)
 */
const CP1252 = [...'€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ'];
const C1 = /[\u0080-\u009f]/g;

/** Null for a character set whose every character is not known to be mapped as the server maps it: such values are fetched from the row. */
export function decoderOf(charset: string): ((bytes: Buffer) => string) | null {
  switch (charset) {
    case 'utf8':
    case 'utf8mb3':
    case 'utf8mb4':
    case 'ascii':
      return (bytes) => bytes.toString('utf8');
    case 'latin1':
      return (bytes) =>
        bytes.toString('latin1').replace(C1, (character) => CP1252[character.charCodeAt(0) - 0x80] ?? character);
    case 'ucs2':
    case 'utf16':
      return (bytes) => Buffer.from(bytes).swap16().toString('utf16le');
    case 'utf16le':
      return (bytes) => bytes.toString('utf16le');
    case 'utf32':
      return (bytes) => {
        let out = '';
        for (let at = 0; at + 4 <= bytes.length; at += 4) out += String.fromCodePoint(bytes.readUInt32BE(at));
        return out;
      };
    default:
      return singleByteDecoder(charset);
  }
}
