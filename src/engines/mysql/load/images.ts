/** Rows of the change stream as LOAD DATA takes them, from where they lie in what was read (binlog/images.ts). */
import type { UpsertImages } from '../../../model/keyed-changes.ts';
import { commonFormat, endOfValue, isNullAt, type BinlogRows, type RowFormat } from '../binlog/images.ts';
import { escapesIn, imageText, writeEscaped, type ImageText } from './image-text.ts';
import type { ValueWriter } from './values.ts';

const CHUNK_BYTES = 64 * 1024;
/** From this size on it is worth to count what is escaped: twice the size is much. */
const LARGE_VALUE = 64 * 1024;

/** A carried column: where it lies in the rows, and how it is written. */
interface Written {
  readonly at: number;
  /** Null: by way of its cell. */
  readonly text: ImageText | null;
  readonly writer: ValueWriter;
}

/** Throws what a value is refused by, with the number of its column. */
export type Refuse = (column: number, error: unknown) => unknown;

/** Null: the rows are not of this form, or not all of the same. */
export function imageLines(
  upserts: UpsertImages,
  writers: readonly ValueWriter[],
  options: { readonly first: number; readonly end: number; readonly refuse: Refuse },
): Generator<{ readonly lines: Buffer; readonly rows: number }, void, void> | null {
  const { images, columns } = upserts;
  const format = commonFormat(images);
  if (format === null || columns.length !== writers.length) return null;
  const written = writers.map((writer, i): Written => {
    const at = columns[i] ?? -1;
    const column = format.columns[at];
    return { at, text: writer.takesText && column ? imageText(column) : null, writer };
  });
  return linesOf(upserts, format, written, options);
}

function* linesOf(
  { images, rows }: UpsertImages,
  format: RowFormat,
  written: readonly Written[],
  { first, end, refuse }: Parameters<typeof imageLines>[2],
): Generator<{ readonly lines: Buffer; readonly rows: number }, void, void> {
  const { sizes, nullBytes, readers } = format;
  const width = sizes.length;
  // By column of the row: where its value begins (−1: NULL), and where it ends.
  const starts = new Int32Array(width);
  const ends = new Int32Array(width);
  let out = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  let to = 0;
  let held = 0;
  const room = (bytes: number) => {
    if (to + bytes <= out.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(2 * out.length, to + bytes));
    out.copy(larger, 0, 0, to);
    out = larger;
  };
  for (let i = first; i < end; i++) {
    const image = images[i] as BinlogRows;
    const row = rows[i] ?? 0;
    const buffer = image.buffers[row] ?? out;
    const start = image.starts[row] ?? 0;
    let at = start + nullBytes;
    let most = 16;
    for (let column = 0; column < width; column++) {
      if (isNullAt(buffer, start, column)) {
        starts[column] = -1;
        continue;
      }
      starts[column] = at;
      at = endOfValue(buffer, at, sizes[column] ?? 0);
      ends[column] = at;
    }
    for (const { at: column, text } of written) {
      most += 3;
      const from = starts[column] ?? -1;
      if (text === null || from < 0) continue;
      const to = ends[column] ?? from;
      most += to - from > LARGE_VALUE ? to - from + escapesIn(buffer, from, to) : text.most(to - from);
    }
    if (held > 0 && to + most > CHUNK_BYTES) {
      yield { lines: out.subarray(0, to), rows: held };
      out = Buffer.allocUnsafeSlow(CHUNK_BYTES);
      to = held = 0;
    }
    room(most);
    for (let c = 0; c < written.length; c++) {
      if (c > 0) out[to++] = 0x09;
      const each = written[c];
      const from = starts[each?.at ?? 0] ?? -1;
      if (each === undefined || from < 0) {
        out[to++] = 0x5c;
        out[to++] = 0x4e;
      } else if (each.text !== null) to = each.text.write(buffer, from, ends[each.at] ?? from, out, to);
      else {
        let text: string | null;
        try {
          text = each.writer.text(readers[each.at]?.({ buffer, at: from }) ?? null);
        } catch (error) {
          throw refuse(c, error);
        }
        const bytes = Buffer.from(text ?? '', 'utf8');
        room(most + 2 * bytes.length);
        to = text === null ? to + out.write('\\N', to, 'latin1') : writeEscaped(bytes, 0, bytes.length, out, to);
      }
    }
    out[to++] = 0x0a;
    held++;
  }
  if (held > 0) yield { lines: out.subarray(0, to), rows: held };
}
