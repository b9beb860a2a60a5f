/**
 * Bulk loading: LOAD DATA LOCAL from a stream, or INSERTs of bound values where the server does not allow it (local_infile). With LOCAL
 * the server adjusts what does not fit and passes over duplicate keys, and says so in warnings: any other warning than a
 * duplicate key that was expected refuses the load (invariant 6). The caller undoes it.
 */
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import type { Cell } from '../../../model/changes.ts';
import { SluiceError } from '../../../model/errors.ts';
import { displayName, type Column, type TableName } from '../../../model/tables.ts';
import type { UpsertImages } from '../../../model/keyed-changes.ts';
import type { RowStream } from '../../contract.ts';
import { numberOf } from '../../row-values.ts';
import type { Parameter, Session } from '../connection.ts';
import { errorNumber } from '../errors.ts';
import { imageLines } from './images.ts';
import { Batches, type BatchPart } from './parts.ts';
import { refused, valueWriter, type ValueWriter } from './values.ts';
import { quoteIdentifier, quoteTable } from '../sql.ts';

export type LoadColumn = Pick<Column, 'name' | 'nativeType'>;

export interface LoadOptions {
  /** Rows whose key is there already are passed over. */
  readonly skipDuplicates?: boolean;
  /** … or take the place of those that have it. */
  readonly replace?: boolean;
}

export interface Loaded {
  readonly rows: number;
  /** Rows that took the place of others that were not the same. */
  readonly replaced: number;
}

const DUPLICATE = 1062;
/** The server or the client does not allow LOAD DATA LOCAL. */
const NOT_ALLOWED: ReadonlySet<number> = new Set([1148, 3948, 4166]);

const CHUNK_CHARACTERS = 64 * 1024;
/**
 * Of one statement that passes over duplicate keys: each is a warning, of which the server keeps 65,535 and counts no more either (the protocol
 * has 16 bits for it). An UPDATE of a table that is being copied moves all of its rows to another chunk.
 */
const MOST_DUPLICATES = 60_000;
/** Of one INSERT; the protocol counts placeholders in 16 bits. */
const INSERT_ROWS = 500;
const INSERT_BYTES = 1024 * 1024;
const PLACEHOLDERS = 65_535;

/**
 * Loads rows in the session's open transaction; resolves to how many the stream had. `columns` are in the order of the stream's
 * columns. Throws ROW_REFUSED for values that a column does not hold, and what the stream throws: then some rows may be in.
 */
export async function loadRows(
  session: Session,
  table: TableName,
  columns: readonly LoadColumn[],
  rows: RowStream,
  options: LoadOptions = {},
): Promise<Loaded> {
  if (!('batches' in rows)) throw new SluiceError('INTERNAL', `could not load rows: unknown lane ${rows.format}`);
  const source = rows.batches[Symbol.asyncIterator]();
  try {
    return await new Load(session, table, columns, options).run(new Batches(source));
  } finally {
    // Also when the load never began: a stream that nobody reads would keep its session and its transaction.
    await source.return?.();
  }
}

/** As `loadRows`, upserts `first` to before `end` as they came; null: they are not of a form that is written from, or not to this server. */
export async function loadImages(
  session: Session,
  table: TableName,
  columns: readonly LoadColumn[],
  upserts: UpsertImages,
  range: { readonly first: number; readonly end: number },
  options: LoadOptions = {},
): Promise<Loaded | null> {
  return new Load(session, table, columns, options).runImages(upserts, range);
}

class Load {
  readonly #session: Session;
  readonly #table: string;
  readonly #display: string;
  readonly #columns: readonly LoadColumn[];
  readonly #writers: readonly ValueWriter[];
  readonly #options: LoadOptions;
  #rows = 0;
  #replaced = 0;

  constructor(session: Session, table: TableName, columns: readonly LoadColumn[], options: LoadOptions) {
    this.#session = session;
    this.#table = quoteTable(table);
    this.#display = displayName(table);
    this.#columns = columns;
    this.#writers = columns.map(valueWriter);
    this.#options = options;
  }

  async run(batches: Batches): Promise<Loaded> {
    const most = this.#options.skipDuplicates ? MOST_DUPLICATES : Number.POSITIVE_INFINITY;
    while (await batches.hasMore())
      if (!(await this.#loadInfile((failed) => this.#lines(batches.take(most), failed))))
        await this.#insertAll(batches.take(Number.POSITIVE_INFINITY));
    return { rows: this.#rows, replaced: this.#replaced };
  }

  async runImages(
    upserts: UpsertImages,
    range: { readonly first: number; readonly end: number },
  ): Promise<Loaded | null> {
    const refuse = (column: number, error: unknown) => refused(this.#display, this.#columns[column]?.name ?? '', error);
    const lines = imageLines(upserts, this.#writers, { ...range, refuse });
    if (lines === null || !(await this.#loadInfile((failed) => this.#paced(lines, failed)))) return null;
    return { rows: this.#rows, replaced: this.#replaced };
  }

  /** False: the server does not allow it, and nothing of `lines` was taken. */
  async #loadInfile(lines: (failed: (error: unknown) => void) => AsyncGenerator<Buffer, void, void>): Promise<boolean> {
    if (!this.#session.kind.allowsInfile) return false;
    const forget = noteListeners((this.#session.driver as unknown as { stream: Socket }).stream);
    const before = this.#rows;
    let isAsked = false;
    let failure: { readonly error: unknown } | null = null;
    let stream: Readable | null = null;
    const file = () => {
      isAsked = true;
      const all = lines((error) => (failure = { error }));
      return (stream = Readable.from(all, { objectMode: false, highWaterMark: CHUNK_CHARACTERS }));
    };
    try {
      const { rows, warnings } = await this.#session.change(this.#doing, this.#loadSql(), [], file);
      if (failure !== null) throw (failure as { readonly error: unknown }).error;
      await this.#requireAll(rows, warnings, this.#rows - before);
      return true;
    } catch (error) {
      forget();
      if (failure !== null) throw (failure as { readonly error: unknown }).error;
      if (isAsked || !NOT_ALLOWED.has(errorNumber(error) ?? 0)) throw error;
      this.#session.kind.allowsInfile = false;
      return false;
    } finally {
      (stream as Readable | null)?.destroy();
    }
  }

  get #doing(): string {
    return `load rows into ${this.#display}`;
  }

  #loadSql(): string {
    const targets = this.#columns.map((column, i) =>
      this.#writers[i]?.expression ? `@sluice_${i}` : quoteIdentifier(column.name),
    );
    const set = this.#columns.flatMap((column, i) => {
      const expression = this.#writers[i]?.expression;
      return expression ? [`${quoteIdentifier(column.name)} = ${expression(`@sluice_${i}`)}`] : [];
    });
    return `LOAD DATA LOCAL INFILE 'rows' ${this.#options.replace ? 'REPLACE ' : ''}INTO TABLE ${this.#table} CHARACTER SET utf8mb4
      FIELDS TERMINATED BY 0x09 ESCAPED BY 0x5C LINES TERMINATED BY 0x0A (${targets.join(', ')})${set.length > 0 ? ` SET ${set.join(', ')}` : ''}`;
  }

  /** No faster than the connection takes it: the driver does not wait for its socket (invariant 7). */
  async *#lines(parts: AsyncIterable<BatchPart>, failed: (error: unknown) => void): AsyncGenerator<Buffer, void, void> {
    const socket = (this.#session.driver as unknown as { stream: Socket }).stream;
    try {
      let lines = '';
      for await (const { batch, from, end } of parts) {
        for (let row = from; row < end; row++) {
          lines += this.#line(batch.cells, row * this.#columns.length);
          this.#rows++;
          if (lines.length < CHUNK_CHARACTERS) continue;
          yield Buffer.from(lines, 'utf8');
          lines = '';
          if (socket.writableNeedDrain) await drained(socket);
        }
      }
      if (lines !== '') yield Buffer.from(lines, 'utf8');
    } catch (error) {
      failed(error);
    }
  }

  async *#paced(
    chunks: Generator<{ readonly lines: Buffer; readonly rows: number }, void, void>,
    failed: (error: unknown) => void,
  ): AsyncGenerator<Buffer, void, void> {
    const socket = (this.#session.driver as unknown as { stream: Socket }).stream;
    try {
      for (const { lines, rows } of chunks) {
        this.#rows += rows;
        yield lines;
        if (socket.writableNeedDrain) await drained(socket);
      }
    } catch (error) {
      failed(error);
    }
  }

  #line(cells: readonly Cell[], at: number): string {
    let line = '';
    for (let i = 0; i < this.#writers.length; i++) {
      if (i > 0) line += '\t';
      const text = this.#text(cells[at + i] ?? null, i);
      if (text === null) line += '\\N';
      else line += this.#writers[i]?.isFree && SPECIAL.test(text) ? text.replace(EACH_SPECIAL, escaped) : text;
    }
    return `${line}\n`;
  }

  #text(cell: Cell, i: number): string | null {
    if (cell === null) return null;
    try {
      return this.#writers[i]?.text(cell) ?? null;
    } catch (error) {
      throw refused(this.#display, this.#columns[i]?.name ?? '', error);
    }
  }

  async #insertAll(parts: AsyncIterable<BatchPart>): Promise<void> {
    const width = this.#columns.length;
    const most = Math.max(1, Math.min(INSERT_ROWS, Math.floor(PLACEHOLDERS / width)));
    let values: Parameter[] = [];
    let size = 0;
    for await (const { batch, from, end } of parts) {
      for (let row = from; row < end; row++) {
        for (let i = 0; i < width; i++) {
          const text = this.#text(batch.cells[row * width + i] ?? null, i);
          size += text?.length ?? 1;
          values.push(text);
        }
        this.#rows++;
        if (values.length < most * width && size < INSERT_BYTES) continue;
        await this.#insert(values, most);
        values = [];
        size = 0;
      }
    }
    if (values.length > 0) await this.#insert(values, most);
  }

  async #insert(values: readonly Parameter[], most: number): Promise<void> {
    const count = values.length / this.#columns.length;
    const names = this.#columns.map((column) => quoteIdentifier(column.name)).join(', ');
    const row = `(${this.#writers.map((writer) => writer.expression?.('?') ?? '?').join(', ')})`;
    const { skipDuplicates, replace } = this.#options;
    const sql = `${replace ? 'REPLACE' : skipDuplicates ? 'INSERT IGNORE' : 'INSERT'} INTO ${this.#table} (${names}) VALUES ${Array(count).fill(row).join(', ')}`;
    const { rows, warnings } = await this.#session.change(this.#doing, sql, values);
    await this.#requireAll(rows, warnings, count);
    // Only statements of the usual size come again.
    if (count !== most) this.#session.driver.unprepare(sql);
  }

  async #requireAll(rows: number, warnings: number, sent: number): Promise<void> {
    if (warnings === 0 && rows === sent) return;
    // A row that takes the place of another counts twice.
    if (this.#options.replace && warnings === 0 && rows > sent) {
      this.#replaced += rows - sent;
      return;
    }
    const found = await this.#session.query('read warnings', 'SHOW WARNINGS');
    const numbers = found.map((row) => numberOf(row, 'Code') ?? 0);
    const others = numbers.filter((number) => number !== DUPLICATE);
    const isAllKnown = warnings === numbers.length && sent - rows === numbers.length - others.length;
    if (this.#options.skipDuplicates && others.length === 0 && isAllKnown) return;
    const [number = DUPLICATE] = others.length > 0 ? others : numbers;
    throw new SluiceError('ROW_REFUSED', `could not ${this.#doing}: error ${number}`, {
      isConflict: number === DUPLICATE,
    });
  }
}

const SPECIAL = /[\\\t\n\0]/;
const EACH_SPECIAL = /[\\\t\n\0]/g;

function escaped(character: string): string {
  return character === '\t' ? '\\t' : character === '\n' ? '\\n' : character === '\0' ? '\\0' : '\\\\';
}

/** The driver listens to its socket while it sends a file, and forgets to stop when the server refuses what came. */
function noteListeners(socket: Socket): () => void {
  const events = ['pause', 'drain'] as const;
  const before = new Set(events.flatMap((event) => socket.listeners(event)));
  return () => {
    for (const event of events)
      for (const listener of socket.listeners(event))
        if (!before.has(listener)) socket.off(event, listener as () => void);
  };
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off('drain', done);
      socket.off('close', done);
      resolve();
    };
    socket.on('drain', done);
    socket.on('close', done);
  });
}
