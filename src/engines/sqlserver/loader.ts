/**
 * Bulk loading by INSERT BULK. The driver keeps the connection and its packets; the rows are encoded here (tds/bulk-*.ts), because
 * the driver's own bulk load loses digits. A value that its column does not hold exactly is refused before it is sent.
 */
import { SluiceError } from '../../model/errors.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import type { RowBatch } from '../../model/changes.ts';
import type { UpsertImages } from '../../model/keyed-changes.ts';
import type { RowStream } from '../contract.ts';
import { CapturedRows } from './captured-rows.ts';
import { bulkColumn, type BulkColumn, type WireColumn } from './tds/bulk-columns.ts';
import { columnMetadata, done, RefusedCell, RowEncoder } from './tds/bulk-rows.ts';
import type { Session } from './connection.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** A table, or a temporary one of the session (`#name`). */
export type LoadTable = TableName | `#${string}`;

/** A column to load into. */
export interface LoadColumn {
  readonly name: string;
  /** False: NULL is refused. Not every server says so of its columns, or checks it of a bulk load. */
  readonly nullable?: boolean;
  /** Null: it has none. */
  readonly default?: string | null;
}

export interface LoadOptions {
  /**
   * A bulk update lock on the whole table instead of row locks: for tables of ours that nobody else reads or writes (copies).
   */
  readonly tableLock?: boolean;
  /**
   * Nothing is sent before every row was encoded, so that a refused value costs nothing: transaction and session go on. The
   * rows are all in memory meanwhile. Otherwise this holds for the first `HELD` bytes.
   */
  readonly checkFirst?: boolean;
  /** What `loadTarget` said of the table before: saves a round trip. */
  readonly target?: LoadTarget;
}

/** A table's columns as the server describes them on the wire; holds while neither table nor columns change. */
export interface LoadTarget {
  readonly name: string;
  readonly display: string;
  readonly columns: readonly BulkColumn[];
  /** INSERT BULK without its options. */
  readonly statement: string;
  /** A column may have a default, which NULL is not to become. */
  readonly keepNulls: boolean;
}

const HELD = 1024 * 1024;
/** Rows encoded before finished blocks are handed on. */
const STEP = 256;

/** Asks for the columns' wire types. DESTINATION_TABLE_MISSING, SCHEMA_CHANGED when table or columns are not there. */
export async function loadTarget(
  session: Session,
  table: LoadTable,
  columns: readonly LoadColumn[],
): Promise<LoadTarget> {
  const display = typeof table === 'string' ? table : displayName(table);
  const name = typeof table === 'string' ? quoteIdentifier(table) : quoteTable(table);
  const list = columns.map((column) => quoteIdentifier(column.name)).join(', ');
  let found: readonly WireColumn[] = [];
  await session.stream(`describe ${display}`, `SELECT TOP (0) ${list} FROM ${name}`, (request) =>
    request.on('columnMetadata', (described) => {
      found = Object.values(described);
    }),
  );
  const database = session.driver.databaseCollation?.toBuffer() ?? null;
  // Names as they were asked for: a server may fold their case.
  const bulk = found.map((column, i) => {
    const { name: asked = '', nullable = true } = columns[i] ?? {};
    const made = bulkColumn({ ...column, colName: asked }, database);
    return { ...made, nullable: made.nullable && nullable };
  });
  if (bulk.length !== columns.length) throw new SluiceError('INTERNAL', `${display}: its columns were not described`);
  const collations = bulk.some((column) => column.collated) ? await collationNames(session, table) : new Map();
  const declared = bulk.map((column) => {
    const collation: unknown = column.collated ? collations.get(column.name.toLowerCase()) : undefined;
    const collate = typeof collation === 'string' ? ` COLLATE ${collation}` : '';
    return `${quoteIdentifier(column.name)} ${column.declaration}${collate}`;
  });
  return {
    name,
    display,
    columns: bulk,
    statement: `INSERT BULK ${name} (${declared.join(', ')})`,
    keepNulls: columns.some((column) => column.default !== null),
  };
}

async function collationNames(session: Session, table: LoadTable): Promise<Map<string, string>> {
  const temporary = typeof table === 'string';
  const rows = await session.query(
    'look up collations',
    `SELECT LOWER(name) AS name, collation_name FROM ${temporary ? 'tempdb.' : ''}sys.columns
      WHERE object_id = OBJECT_ID(@name) AND collation_name IS NOT NULL`,
    { name: temporary ? `tempdb..${quoteIdentifier(table)}` : quoteTable(table) },
  );
  return new Map(rows.map((row) => [String(row['name']), String(row['collation_name'])]));
}

/**
 * Loads rows in the session's open transaction (without one, Babelfish keeps part of a load that fails); resolves to their number. `columns` are in the order of the
 * stream's columns. Triggers do not fire, constraints are not checked, NULL stays NULL, identity columns take what they are given.
 * Throws ROW_REFUSED for a value that a column does not hold, and what the stream throws, which is cancelled. When something
 * had been sent by then the session is lost (`Session.lost`), and with it its transaction; else both go on.
 */
export async function loadRows(
  session: Session,
  table: LoadTable,
  columns: readonly LoadColumn[],
  rows: RowStream,
  options: LoadOptions = {},
): Promise<number> {
  if (!('batches' in rows)) throw new SluiceError('INTERNAL', `could not load rows: unknown lane ${rows.format}`);
  const source = rows.batches[Symbol.asyncIterator]();
  let exhausted = false;
  try {
    const target = options.target ?? (await loadTarget(session, table, columns));
    const load = new Load(session, target, options);
    try {
      for (;;) {
        const next = await source.next();
        if (next.done) break;
        await load.add(next.value);
      }
      exhausted = true;
      return await load.end();
    } catch (error) {
      throw await load.fail(error);
    }
  } finally {
    // Also when the load never began: a stream that nobody reads would keep its session and its transaction.
    if (!exhausted) await source.return?.();
  }
}

/** The rows are as our own source had them: `loadImages` takes them. */
export function hasCapturedRows({ images }: UpsertImages): boolean {
  return images.every((rows) => rows instanceof CapturedRows);
}

/**
 * As `loadRows`, of rows `first` to before `end` as they came. `isNumbered`: the table's first column, an int, gets their numbers, from 1.
 * They are sent while they are being written. A value that is refused ends the load early, with whole rows: the session and its transaction
 * go on, but the table holds rows of it until that is undone.
 */
export async function loadImages(
  session: Session,
  target: LoadTarget,
  rows: { readonly images: UpsertImages; readonly first: number; readonly end: number; readonly isNumbered: boolean },
): Promise<number> {
  const load = new Load(session, target, {});
  try {
    await load.addImages(rows.images, rows.first, rows.end, rows.isNumbered);
    return await load.end();
  } catch (error) {
    throw await load.fail(error);
  }
}

class Load {
  readonly #session: Session;
  readonly #target: LoadTarget;
  readonly #options: LoadOptions;
  readonly #encoder: RowEncoder;
  readonly #message = new Blocks();
  #held: Buffer[] = [];
  #heldBytes = 0;
  #sent: Promise<number> | null = null;

  constructor(session: Session, target: LoadTarget, options: LoadOptions) {
    this.#session = session;
    this.#target = target;
    this.#options = options;
    this.#encoder = new RowEncoder(target.columns);
  }

  get #doing(): string {
    return `load rows into ${this.#target.display}`;
  }

  async add(batch: RowBatch): Promise<void> {
    for (let row = 0; row < batch.rows; row += STEP) {
      this.#encoder.add(batch, row, Math.min(row + STEP, batch.rows));
      for (const block of this.#encoder.out.take()) await this.#hand(block);
    }
  }

  async addImages(
    { images, rows, columns }: UpsertImages,
    first: number,
    end: number,
    isNumbered: boolean,
  ): Promise<void> {
    for (let i = first; i < end; i++) {
      const from = images[i];
      if (!(from instanceof CapturedRows))
        throw new SluiceError('INTERNAL', `row ${i} did not come from a change table`);
      const row = rows[i] ?? 0;
      this.#encoder.addRest(from.batchOf(row), from.indexOf(row), columns, isNumbered ? i - first + 1 : null);
      if ((i - first) % STEP !== STEP - 1) continue;
      if (this.#sent === null) await this.#begin();
      for (const block of this.#encoder.out.take()) await this.#message.write(block);
    }
  }

  async #hand(block: Buffer): Promise<void> {
    if (this.#sent === null) {
      this.#held.push(block);
      this.#heldBytes += block.length;
      if (this.#options.checkFirst || this.#heldBytes < HELD) return;
      await this.#begin();
    } else await this.#message.write(block);
  }

  async #begin(): Promise<void> {
    const { statement, name, columns, keepNulls } = this.#target;
    // KEEP_NULLS keeps defaults from columns that are not loaded, too, so it is asked for only where it matters.
    // Neither FIRE_TRIGGERS nor CHECK_CONSTRAINTS: the rows are what the source holds.
    const wanted = [...(keepNulls ? ['KEEP_NULLS'] : []), ...(this.#options.tableLock ? ['TABLOCK'] : [])];
    const full = wanted.length === 0 ? statement : `${statement} WITH (${wanted.join(', ')})`;
    this.#sent = this.#session.bulkLoad(this.#doing, full, this.#message);
    this.#sent.catch((error: unknown) => this.#message.abort(error));
    await this.#message.write(columnMetadata(columns, name));
    for (const block of this.#held) await this.#message.write(block);
    this.#held = [];
  }

  async end(): Promise<number> {
    for (const block of this.#encoder.out.take(true)) await this.#hand(block);
    if (this.#encoder.rows === 0) return 0;
    if (this.#sent === null) await this.#begin();
    await this.#message.write(done());
    this.#message.end();
    const taken = await this.#sent;
    this.#encoder.out.release();
    if (taken !== this.#encoder.rows)
      throw new SluiceError(
        'INTERNAL',
        `${this.#encoder.rows} rows were sent to ${this.#target.display}, ${taken} taken`,
      );
    return this.#encoder.rows;
  }

  /** False: the server does not take what was encoded. */
  async #endEarly(): Promise<boolean> {
    if (this.#sent === null) return true;
    try {
      await this.end();
      return true;
    } catch {
      return false;
    }
  }

  /** What to throw. Nothing goes on once this has resolved. */
  async fail(error: unknown): Promise<unknown> {
    const isEnded = error instanceof RefusedCell && error.isRowEnded && (await this.#endEarly());
    if (this.#sent !== null && !isEnded) {
      this.#session.destroy();
      this.#message.abort(error);
      await this.#sent.catch(() => undefined);
    }
    if (!(error instanceof RefusedCell)) return error;
    return new SluiceError(
      'ROW_REFUSED',
      `could not ${this.#doing}: a value of column ${error.column} is refused: ${error.message}`,
    );
  }
}

/** Blocks handed from one side to the other, one at a time: writing waits until the block before was taken. */
class Blocks implements AsyncIterable<Buffer> {
  #next: Buffer | null = null;
  #ended = false;
  #failure: { error: unknown } | null = null;
  #reader: (() => void) | null = null;
  #writer: (() => void) | null = null;

  async write(block: Buffer): Promise<void> {
    while (this.#next !== null && this.#failure === null)
      await new Promise<void>((resolve) => (this.#writer = resolve));
    if (this.#failure) throw this.#failure.error;
    this.#next = block;
    this.#reader?.();
  }

  end(): void {
    this.#ended = true;
    this.#reader?.();
  }

  /** Both sides get the error. */
  abort(error: unknown): void {
    this.#failure ??= { error };
    this.#reader?.();
    this.#writer?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, void> {
    for (;;) {
      if (this.#failure) throw this.#failure.error;
      if (this.#next !== null) {
        const block = this.#next;
        this.#next = null;
        this.#writer?.();
        yield block;
      } else if (this.#ended) return;
      else await new Promise<void>((resolve) => (this.#reader = resolve));
    }
  }

  toString(): string {
    return 'rows of a bulk load';
  }
}
