/**
 * Rows of the change stream as COPY … BINARY takes them (manual: COPY, "Binary Format"), without cells in between: half the
 * server's work on a row is reading text. For tables all of whose columns are of types whose text is written here as binary;
 * the others go as cells.
 */
import type { UpsertImages } from '../../model/keyed-changes.ts';
import type { Column } from '../../model/tables.ts';
import type { LogicalType } from '../../model/types.ts';
import {
  mostBytes,
  writeBoolean,
  writeBytea,
  writeDate,
  writeFloat32,
  writeFloat64,
  writeInt16,
  writeInt32,
  writeInt64Text,
  writeJsonb,
  writeNumeric,
  writeText,
  writeTime,
  writeTimestampWithoutZone,
  writeTimestampWithZone,
  writeUuid,
  type ValueWriter,
} from './binary-values.ts';
import { HEADER } from './copy-protocol.ts';
import { NULL_VALUE, PgoutputRows } from './pgoutput-rows.ts';
import { binaryFormat } from './types.ts';

/** Size of a CopyData message; a larger row makes a larger one. */
const FRAME = 64 * 1024;
/** Signature, flags, length of the header's extension. */
const FILE_HEADER = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1');

/** Object ids of the source's types (pg_type.dat, fixed since they exist) whose text a writer reads. */
const INTEGERS = [21, 23, 20];
const READS: Readonly<Partial<Record<LogicalType['kind'], readonly number[]>>> = {
  boolean: [16],
  int: INTEGERS,
  decimal: [...INTEGERS, 1700],
  float: [700, 701],
  date: [1082],
  time: [1083],
  timestamp: [1114],
  timestamptz: [1184],
  uuid: [2950],
};

function writerOf(type: LogicalType): ValueWriter | null {
  switch (type.kind) {
    case 'int':
      return type.bits === 16 ? writeInt16 : type.bits === 32 ? writeInt32 : writeInt64Text;
    case 'float':
      return type.bits === 32 ? writeFloat32 : writeFloat64;
    case 'json':
      return type.binary ? writeJsonb : writeText;
    case 'text':
    case 'enum':
      return writeText;
    case 'boolean':
      return writeBoolean;
    case 'decimal':
      return writeNumeric;
    case 'bytes':
      return writeBytea;
    case 'date':
      return writeDate;
    case 'time':
      return writeTime;
    case 'timestamp':
      return writeTimestampWithoutZone;
    case 'timestamptz':
      return writeTimestampWithZone;
    case 'uuid':
      return writeUuid;
    default:
      return null;
  }
}

/** The source's text of its type is what the writer for `type` reads. */
function reads(type: LogicalType, sourceType: number, isBytea: boolean): boolean {
  if (isBytea || type.kind === 'bytes') return isBytea && type.kind === 'bytes';
  return READS[type.kind]?.includes(sourceType) ?? true;
}

/** The writer of each of the images' columns; null: some column of `columns` (in the same order) cannot be written so. */
export function binaryWriters(images: UpsertImages, columns: readonly Column[]): ValueWriter[] | null {
  const [rows] = images.images;
  if (!(rows instanceof PgoutputRows) || images.columns.length !== columns.length) return null;
  const writers: ValueWriter[] = [];
  for (const [i, column] of columns.entries()) {
    const at = images.columns[i] ?? -1;
    const [sourceType = ''] = (images.relation.columnTypes[at] ?? '').split(':');
    const writer = writerOf(column.type);
    if (writer === null || binaryFormat(column) === null) return null;
    if (!reads(column.type, Number(sourceType), rows.format.binary[at] === true)) return null;
    writers.push(writer);
  }
  return writers;
}

/** Rows `first` to before `end` of `images` as the CopyData messages of one COPY. */
export async function* binaryFrames(
  { images, rows, columns, relation }: UpsertImages,
  writers: readonly ValueWriter[],
  first: number,
  end: number,
): AsyncGenerator<Buffer, void, void> {
  const width = relation.columns.length;
  const starts = new Int32Array(width);
  const lengths = new Int32Array(width);
  let out = Buffer.allocUnsafeSlow(FRAME);
  let at = HEADER + FILE_HEADER.copy(out, HEADER);
  const taken = () => {
    const framed = out.subarray(0, at);
    framed[0] = 0x64;
    framed.writeUInt32BE(at - 1, 1);
    return framed;
  };
  for (let i = first; i < end; i++) {
    const image = images[i] as PgoutputRows;
    const row = rows[i] ?? 0;
    const buffer = image.buffers[row] ?? FILE_HEADER;
    let from = image.starts[row] ?? 0;
    let most = 2;
    for (let column = 0; column < width; column++) {
      // Rows of images are whole: text or NULL.
      if (buffer[from] === NULL_VALUE) {
        lengths[column] = -1;
        from++;
        most += 4;
      } else {
        const length = buffer.readUInt32BE(from + 1);
        starts[column] = from + 5;
        lengths[column] = length;
        from += 5 + length;
        most += 4 + mostBytes(length);
      }
    }
    if (at + most > out.length) {
      if (at > HEADER) yield taken();
      out = Buffer.allocUnsafeSlow(Math.max(FRAME, HEADER + most));
      at = HEADER;
    }
    out[at++] = writers.length >> 8;
    out[at++] = writers.length & 0xff;
    for (let c = 0; c < writers.length; c++) {
      const column = columns[c] ?? 0;
      const length = lengths[column] ?? -1;
      if (length < 0) {
        at = out.writeInt32BE(-1, at);
        continue;
      }
      const start = starts[column] ?? 0;
      const written = writers[c]?.(buffer, start, start + length, out, at + 4) ?? at + 4;
      out.writeInt32BE(written - at - 4, at);
      at = written;
    }
  }
  if (at + 2 > out.length) {
    yield taken();
    out = Buffer.allocUnsafeSlow(HEADER + 2);
    at = HEADER;
  }
  at = out.writeInt16BE(-1, at);
  yield taken();
}
