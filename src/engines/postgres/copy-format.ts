/**
 * The text format of COPY (manual: COPY, "Text Format") to and from cells. Columns are parted by tabs, rows by newlines, NULL
 * is `\N`, and backslash, tab, newline, CR, \b, \f, \v are written with a backslash; nothing else is. Binary columns are
 * cells of raw bytes here and hex there (`\x…`, whose backslash is escaped as well).
 */
import { SluiceError } from '../../model/errors.ts';
import type { Cell, ChangeCell, RowBatch } from '../../model/changes.ts';
import type { UpsertImages } from '../../model/keyed-changes.ts';

const HEADER = 5;
const TAB = 0x09;
const NEWLINE = 0x0a;
const BACKSLASH = 0x5c;
const LETTER_N = 0x4e;
/** Size of a CopyData message at which it is sent. */
const FRAME = 64 * 1024;

/** Byte → the letter behind the backslash, 0 for a byte that stands for itself. */
const ESCAPES = new Uint8Array(256);
for (const [byte, letter] of [
  [0x08, 'b'],
  [TAB, 't'],
  [NEWLINE, 'n'],
  [0x0b, 'v'],
  [0x0c, 'f'],
  [0x0d, 'r'],
  [BACKSLASH, '\\'],
] as const)
  ESCAPES[byte] = letter.charCodeAt(0);

/** Printable ASCII without the backslash: its characters are its bytes. */
const PLAIN = /^[ -[\]-~]*$/;
const NEEDS_ESCAPE = /[\\\b\t\n\v\f\r]/;

/** What Buffer's own write calls after checking its arguments. */
interface FastBuffer extends Buffer {
  latin1Write(text: string, offset: number, length: number): number;
}

const LONE_SURROGATE = /\p{Surrogate}/u;

/**
 * Cells to CopyData messages of COPY text. `binary[c]`: column c is of type bytes, its cells are raw bytes. One encoder per
 * COPY; the buffers it hands out are not used again.
 */
export class CopyTextEncoder {
  readonly #binary: readonly boolean[];
  #buffer = Buffer.allocUnsafeSlow(FRAME * 2);
  #at = HEADER;

  constructor(binary: readonly boolean[]) {
    this.#binary = binary;
  }

  /**
   * Encodes rows; yields the messages that became full. Throws ROW_REFUSED for text that UTF-8 cannot hold (a lone surrogate),
   * which Node would silently replace.
   */
  *encode(batch: RowBatch): Generator<Buffer, void, void> {
    const width = this.#binary.length;
    const cells = batch.cells;
    for (let row = 0, cell = 0; row < batch.rows; row++) {
      for (let column = 0; column < width; column++, cell++) {
        if (column > 0) this.#byte(TAB);
        this.#cell(cells[cell] ?? null, column);
        if (this.#at >= FRAME && column + 1 < width) yield this.#take();
      }
      this.#byte(NEWLINE);
      if (this.#at >= FRAME) yield this.#take();
    }
  }

  /** Rows as they came, by the lines that they write of themselves, else by their cells. None of the columns is of bytes. */
  *encodeImages({ images, rows, columns }: UpsertImages, first: number, end: number): Generator<Buffer, void, void> {
    const row: ChangeCell[] = [];
    for (let i = first; i < end; i++) {
      const from = images[i];
      const at = rows[i] ?? 0;
      let written = -1;
      if (from?.line && from.mostLine) {
        this.#room(from.mostLine(at, columns) + 1);
        written = from.line(at, columns, this.#buffer, this.#at);
      }
      if (written >= 0) {
        this.#at = written;
        this.#byte(NEWLINE);
        if (this.#at >= FRAME) yield this.#take();
      } else {
        row.length = 0;
        from?.append(at, row);
        yield* this.encode({ columns: [], rows: 1, cells: columns.map((column) => row[column] ?? null) });
      }
    }
  }

  /** The last, not full message; null when there is nothing left. */
  flush(): Buffer | null {
    return this.#at > HEADER ? this.#take() : null;
  }

  #take(): Buffer {
    const framed = this.#buffer.subarray(0, this.#at);
    framed[0] = 0x64;
    framed.writeUInt32BE(this.#at - 1, 1);
    this.#buffer = Buffer.allocUnsafeSlow(FRAME * 2);
    this.#at = HEADER;
    return framed;
  }

  /** Makes room for `bytes` more. */
  #room(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#buffer.length * 2, this.#at + bytes));
    this.#buffer.copy(larger, 0, 0, this.#at);
    this.#buffer = larger;
  }

  #byte(byte: number): void {
    this.#room(1);
    this.#buffer[this.#at++] = byte;
  }

  #cell(cell: Cell, column: number): void {
    if (cell === null) {
      this.#room(2);
      this.#buffer[this.#at++] = BACKSLASH;
      this.#buffer[this.#at++] = LETTER_N;
    } else if (this.#binary[column]) this.#hex(cell);
    else if (typeof cell === 'string') this.#text(cell);
    else this.#escaped(cell);
  }

  #text(text: string): void {
    const length = text.length;
    // Worst cases: three UTF-8 bytes a UTF-16 unit, or every byte escaped.
    this.#room(length * 3);
    const buffer = this.#buffer;
    if (length <= 32) {
      let at = this.#at;
      let i = 0;
      for (; i < length; i++) {
        const code = text.charCodeAt(i);
        if (code >= 0x80) break;
        const letter = ESCAPES[code] ?? 0;
        if (letter !== 0) {
          buffer[at++] = BACKSLASH;
          buffer[at++] = letter;
        } else buffer[at++] = code;
      }
      if (i === length) {
        this.#at = at;
        return;
      }
    }
    if (PLAIN.test(text)) {
      this.#at += (buffer as FastBuffer).latin1Write(text, this.#at, length);
      return;
    }
    if (NEEDS_ESCAPE.test(text)) {
      if (LONE_SURROGATE.test(text)) throw loneSurrogate();
      this.#escaped(Buffer.from(text));
      return;
    }
    const written = this.#buffer.write(text, this.#at, 'utf8');
    if (written !== text.length && LONE_SURROGATE.test(text)) throw loneSurrogate();
    this.#at += written;
  }

  /** UTF-8 bytes of text. */
  #escaped(bytes: Uint8Array): void {
    this.#room(bytes.length * 2);
    const buffer = this.#buffer;
    let at = this.#at;
    for (const byte of bytes) {
      const letter = ESCAPES[byte] ?? 0;
      if (letter !== 0) {
        buffer[at++] = BACKSLASH;
        buffer[at++] = letter;
      } else buffer[at++] = byte;
    }
    this.#at = at;
  }

  #hex(cell: string | Uint8Array): void {
    if (typeof cell === 'string') throw new SluiceError('INTERNAL', 'text was given for a binary column');
    this.#room(cell.length * 2 + 3);
    const hex = `\\\\x${Buffer.from(cell.buffer, cell.byteOffset, cell.byteLength).toString('hex')}`;
    this.#at += this.#buffer.write(hex, this.#at, 'latin1');
  }
}

function loneSurrogate(): SluiceError {
  return new SluiceError('ROW_REFUSED', 'a text value has half of a surrogate pair, which UTF-8 cannot hold');
}

/** The letter behind a backslash → its byte; a letter that is not listed stands for itself. */
const UNESCAPES = Uint8Array.from({ length: 256 }, (_, byte) => byte);
for (const [byte, letter] of ESCAPES.entries()) if (letter !== 0) UNESCAPES[letter] = byte;

/** The cells of a row (without its newline) that has backslashes or binary columns. */
function escapedRow(row: Buffer, binary: readonly boolean[], cells: Cell[]): number {
  const plain = Buffer.allocUnsafe(row.length);
  let to = 0;
  let from = 0; // where the field begins in `plain`
  let fields = 0;
  let isNull = false;
  for (let at = 0; at <= row.length; at++) {
    const byte = row[at] ?? TAB; // the row's end ends a field, too
    if (byte === TAB) {
      if (isNull) cells.push(null);
      else if (binary[fields]) cells.push(Buffer.from(plain.toString('latin1', from + 2, to), 'hex'));
      else cells.push(plain.toString('utf8', from, to));
      fields++;
      from = to;
      isNull = false;
    } else if (byte === BACKSLASH) {
      const letter = row[++at] ?? BACKSLASH;
      if (letter === LETTER_N) isNull = true;
      else plain[to++] = UNESCAPES[letter] ?? letter;
    } else plain[to++] = byte;
  }
  return fields;
}

/** bytea's hex form (`\x…`) as bytes. */
export function bytesFromHex(text: string): Uint8Array {
  return Buffer.from(text.slice(2), 'hex');
}

export function bytesToHex(bytes: Uint8Array): string {
  return `\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`;
}

/** Small, so that cells are gone before the garbage collector has to move them. */
const BATCH_BYTES = 32 * 1024;

/**
 * CopyData messages of COPY text to row batches of about `batchBytes`. A server sends one row per message (manual, "Message
 * Formats"); rows that arrive in several messages (copy-protocol.ts cuts large ones) are put together first.
 */
export async function* decodeCopyText(
  messages: AsyncIterable<Buffer>,
  columns: readonly string[],
  binary: readonly boolean[],
  batchBytes = BATCH_BYTES,
): AsyncGenerator<RowBatch, void, void> {
  const anyBinary = binary.includes(true);
  let cells: Cell[] = [];
  let rows = 0;
  let bytes = 0;
  let parts: Buffer[] = [];
  const add = (row: Buffer): void => {
    rows++;
    // A table of no columns sends empty lines: rows without cells.
    if (columns.length === 0) return;
    let fields: number;
    if (anyBinary || row.includes(BACKSLASH)) fields = escapedRow(row, binary, cells);
    else {
      const texts = row.toString('utf8').split('\t');
      for (const text of texts) cells.push(text);
      fields = texts.length;
    }
    if (fields !== columns.length)
      throw new SluiceError('INTERNAL', `COPY sent ${fields} columns, expected ${columns.length}`);
  };
  for await (const data of messages) {
    for (let at = 0; at < data.length;) {
      const end = at + 1 + data.readUInt32BE(at + 1);
      // Only the end of a row is a bare newline; inside a value it is written \n.
      if (data[end - 1] !== NEWLINE) {
        if (end - at > HEADER) parts.push(data.subarray(at + HEADER, end));
      } else if (parts.length > 0) {
        parts.push(data.subarray(at + HEADER, end - 1));
        add(Buffer.concat(parts));
        parts = [];
      } else add(data.subarray(at + HEADER, end - 1));
      bytes += end - at;
      at = end;
      if (bytes >= batchBytes && rows > 0 && parts.length === 0) {
        yield { columns, rows, cells };
        cells = [];
        rows = 0;
        bytes = 0;
      }
    }
  }
  if (rows > 0) yield { columns, rows, cells };
}
