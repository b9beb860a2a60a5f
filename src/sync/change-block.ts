/**
 * Changes of one table as bytes, for backlogs and staged pieces: opaque to the destination, the same for every engine, and
 * readable after an upgrade (the first byte is the format's version). Text may come back as its UTF-8 bytes (DESIGN §5 allows
 * either).
 */
import { emptyTableChanges, type ChangeCell, type ChangeRelation, type TableChanges } from '../model/changes.ts';
import { SluiceError } from '../model/errors.ts';

const FORMAT = 1;
const NULL = -1;
const ABSENT = -2;

/** What Buffer's own toString calls after checking its arguments; the checks cost as much as a short cell. */
interface FastBuffer extends Buffer {
  utf8Slice(start: number, end: number): string;
}

interface Header {
  readonly relation: ChangeRelation;
  readonly visibility: readonly string[];
  readonly changes: number;
  readonly hasAbsent: boolean;
  readonly hasUnread?: boolean;
  /** Columns whose cells are all text here: they come back as strings, which take less memory than views of a block. */
  readonly text?: readonly boolean[];
}

/** Splits the changes into blocks of about `maxBytes` each (a single larger row makes a larger block), in order. */
export function* encodeBlocks(changes: TableChanges, maxBytes: number): Generator<{ bytes: Buffer; changes: number }> {
  const width = changes.relation.columns.length;
  let first = 0;
  while (first < changes.ops.length) {
    let size = 0;
    let last = first;
    while (last < changes.ops.length && (last === first || size < maxBytes)) {
      size +=
        2 +
        rowSize(changes.cells, changes.before[last] ?? -1, width) +
        rowSize(changes.cells, changes.after[last] ?? -1, width);
      last++;
    }
    yield { bytes: encodeRange(changes, first, last, size), changes: last - first };
    first = last;
  }
}

export function decodeBlock(bytes: Uint8Array): TableChanges {
  const buffer = bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer[0] !== FORMAT)
    throw new SluiceError('INTERNAL', `a stored block has format ${buffer[0]}, which this version does not know`);
  const headerEnd = 5 + buffer.readUInt32LE(1);
  const header = JSON.parse(buffer.toString('utf8', 5, headerEnd)) as Header;
  const changes = emptyTableChanges(header.relation);
  changes.hasAbsent = header.hasAbsent;
  changes.hasUnread = header.hasUnread === true;
  changes.visibility.push(...header.visibility);
  const width = header.relation.columns.length;
  const isText = header.text ?? [];
  let at = headerEnd;
  const row = (): number => {
    const start = changes.cells.length;
    for (let c = 0; c < width; c++) {
      const length = buffer.readInt32LE(at);
      at += 4;
      if (length === NULL) changes.cells.push(null);
      else if (length === ABSENT) changes.cells.push(undefined);
      else {
        changes.cells.push(
          isText[c] ? (buffer as FastBuffer).utf8Slice(at, at + length) : buffer.subarray(at, at + length),
        );
        at += length;
      }
    }
    return start;
  };
  for (let i = 0; i < header.changes; i++) {
    changes.ops.push(buffer[at] as TableChanges['ops'][number]);
    const rows = buffer[at + 1] ?? 0;
    at += 2;
    changes.before.push(rows & 1 ? row() : -1);
    changes.after.push(rows & 2 ? row() : -1);
  }
  return changes;
}

function encodeRange(changes: TableChanges, first: number, last: number, size: number): Buffer {
  const width = changes.relation.columns.length;
  const text = new Array<boolean>(width).fill(true);
  for (let i = first; i < last; i++) {
    noteBytes(changes.cells, changes.before[i] ?? -1, text);
    noteBytes(changes.cells, changes.after[i] ?? -1, text);
  }
  const header: Header = {
    relation: changes.relation,
    visibility: changes.visibility,
    changes: last - first,
    hasAbsent: changes.hasAbsent,
    ...(changes.hasUnread ? { hasUnread: true } : {}),
    text,
  };
  const head = Buffer.from(JSON.stringify(header), 'utf8');
  const buffer = Buffer.allocUnsafe(5 + head.length + size);
  buffer[0] = FORMAT;
  buffer.writeUInt32LE(head.length, 1);
  head.copy(buffer, 5);
  let at = 5 + head.length;
  const row = (start: number) => {
    for (let c = 0; c < width; c++) {
      const cell = changes.cells[start + c];
      if (cell === null) at = buffer.writeInt32LE(NULL, at);
      else if (cell === undefined) at = buffer.writeInt32LE(ABSENT, at);
      else if (typeof cell === 'string') {
        const length = buffer.write(cell, at + 4, 'utf8');
        buffer.writeInt32LE(length, at);
        at += 4 + length;
      } else {
        at = buffer.writeInt32LE(cell.length, at);
        buffer.set(cell, at);
        at += cell.length;
      }
    }
  };
  for (let i = first; i < last; i++) {
    const before = changes.before[i] ?? -1;
    const after = changes.after[i] ?? -1;
    buffer[at++] = changes.ops[i] ?? 0;
    buffer[at++] = (before >= 0 ? 1 : 0) | (after >= 0 ? 2 : 0);
    if (before >= 0) row(before);
    if (after >= 0) row(after);
  }
  return buffer;
}

/** Clears the columns in which the row has bytes. */
function noteBytes(cells: readonly ChangeCell[], start: number, text: boolean[]): void {
  if (start < 0) return;
  for (let c = 0; c < text.length; c++) {
    const cell = cells[start + c];
    if (cell && typeof cell !== 'string') text[c] = false;
  }
}

function rowSize(cells: readonly ChangeCell[], start: number, width: number): number {
  if (start < 0) return 0;
  let size = 4 * width;
  for (let c = 0; c < width; c++) {
    const cell = cells[start + c];
    if (cell) size += typeof cell === 'string' ? Buffer.byteLength(cell, 'utf8') : cell.length;
  }
  return size;
}
