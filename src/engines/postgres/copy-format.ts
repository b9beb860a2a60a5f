/**
 * The text format of COPY (manual: COPY, "Text Format") to and from cells. Columns are parted by tabs, rows by newlines, NULL
 * is `\N`, and backslash, tab, newline, CR, \b, \f, \v are written with a backslash; nothing else is. Binary columns are
 * cells of raw bytes here and hex there (`\x…`, whose backslash is escaped as well).
 */
import { SluiceError } from '../../model/errors.ts';
import type { Cell, RowBatch } from '../../model/changes.ts';

const HEADER = 5;
const TAB = 0x09;
const NEWLINE = 0x0a;
const BACKSLASH = 0x5c;
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

const HEX = Buffer.from('0123456789abcdef', 'latin1');
const NEEDS_ESCAPE = /[\\\b\t\n\v\f\r]/;
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
      this.#buffer[this.#at++] = 0x4e; // N
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
    if (NEEDS_ESCAPE.test(text)) {
      text = text.replace(/[\\\b\t\n\v\f\r]/g, (c) => `\\${String.fromCharCode(ESCAPES[c.charCodeAt(0)] ?? 0)}`);
      this.#room(text.length * 3);
    }
    const written = this.#buffer.write(text, this.#at, 'utf8');
    if (written !== text.length && LONE_SURROGATE.test(text))
      throw new SluiceError('ROW_REFUSED', 'a text value has half of a surrogate pair, which UTF-8 cannot hold');
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
    const buffer = this.#buffer;
    let at = this.#at;
    buffer[at++] = BACKSLASH;
    buffer[at++] = BACKSLASH;
    buffer[at++] = 0x78; // x
    for (const byte of cell) {
      buffer[at++] = HEX[byte >> 4] ?? 0;
      buffer[at++] = HEX[byte & 15] ?? 0;
    }
    this.#at = at;
  }
}

const UNESCAPED: Readonly<Record<string, string>> = {
  b: '\b',
  t: '\t',
  n: '\n',
  v: '\v',
  f: '\f',
  r: '\r',
};

/** A text value of COPY without its backslashes. */
function unescape(text: string): string {
  return text.replace(/\\(.)/gs, (_, letter: string) => UNESCAPED[letter] ?? letter);
}

/** bytea's hex form (`\x…`) as bytes. */
export function bytesFromHex(text: string): Uint8Array {
  return Buffer.from(text.slice(2), 'hex');
}

export function bytesToHex(bytes: Uint8Array): string {
  return `\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`;
}

/**
 * CopyData messages of COPY text to row batches of about `batchBytes`. A server sends one row per message (manual, "Message
 * Formats"); rows that arrive in several messages (copy-protocol.ts cuts large ones) are put together first.
 */
export async function* decodeCopyText(
  messages: AsyncIterable<Buffer>,
  columns: readonly string[],
  binary: readonly boolean[],
  batchBytes = 1024 * 1024,
): AsyncGenerator<RowBatch, void, void> {
  const anyBinary = binary.includes(true);
  let cells: Cell[] = [];
  let rows = 0;
  let bytes = 0;
  let parts: Buffer[] = [];
  const row = (line: string): void => {
    // A table of no columns sends empty lines: rows without cells.
    if (columns.length > 0) {
      const fields = line.split('\t');
      if (fields.length !== columns.length)
        throw new SluiceError('INTERNAL', `COPY sent ${fields.length} columns, expected ${columns.length}`);
      if (!anyBinary && !line.includes('\\')) for (const field of fields) cells.push(field);
      else
        for (const [column, field] of fields.entries()) {
          if (field === '\\N') cells.push(null);
          else if (binary[column]) cells.push(bytesFromHex(field.slice(1)));
          else cells.push(field.includes('\\') ? unescape(field) : field);
        }
    }
    rows++;
  };
  for await (const data of messages) {
    for (let at = 0; at < data.length;) {
      const end = at + 1 + data.readUInt32BE(at + 1);
      // Only the end of a row is a bare newline; inside a value it is written \n.
      if (data[end - 1] !== NEWLINE) {
        if (end - at > HEADER) parts.push(data.subarray(at + HEADER, end));
      } else if (parts.length > 0) {
        parts.push(data.subarray(at + HEADER, end - 1));
        row(Buffer.concat(parts).toString('utf8'));
        parts = [];
      } else row(data.toString('utf8', at + HEADER, end - 1));
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
