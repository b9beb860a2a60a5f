/** Reads change tables, page by page: no statement runs for long, so that cleanup and whoever disables capture never wait for us. */
import type { Parameters, Session } from './connection.ts';
import { changeTable } from './capture-instances.ts';
import type { ChangeRows } from './change-rows.ts';
import { BOOKKEEPING, bytesOf, type RowPlace } from './change-rows.ts';
import { lsnBytes, type Lsn } from './position.ts';
import { readRows } from './rows.ts';
import { quoteIdentifier } from './sql.ts';
import { isTransportable, selectExpression } from './types.ts';

/** What a row is taken for before the first page. */
const ROW_BYTES = 1000;
const MAX_FIRST_ROWS = 500;
const MAX_ROWS = 50_000;
/** An update has two; a page of its first one alone would hold nothing. */
const MIN_ROWS = 2;
/** Rows of a page for each of the page before: what turns out to be larger than that is sent for nothing. */
const MAX_GROWTH = 8;
/** Of a page's bytes, so many times as many are taken. */
const MOST = 1.5;
/** What is taken from the wire at once, at most. */
const BATCH_BYTES = 256 * 1024;

/** Goes through the changes of one instance with `low` < LSN <= `high`, in order, into `rows`. */
export class ChangePages {
  readonly rows: ChangeRows;
  readonly low: Lsn;
  #high: Lsn;
  readonly #select: string;
  readonly #pageBytes: number;
  #rowBytes: number | null;
  #size: number;
  /** Where the next page begins; null: at the beginning. */
  #place: RowPlace | null = null;
  /** The rest of the transaction of `#place` comes first: a seek of its own, so that a large one is not scanned from its start. */
  #inside = false;
  #done = false;

  /** `rowBytes`: what a row took the last time, where that is known. */
  constructor(rows: ChangeRows, range: { low: Lsn; high: Lsn }, pageBytes: number, rowBytes: number | null = null) {
    this.rows = rows;
    this.low = range.low;
    this.#high = range.high;
    this.#pageBytes = pageBytes;
    this.#rowBytes = rowBytes;
    this.#size = rowsFor(pageBytes, rowBytes ?? ROW_BYTES, rowBytes === null ? MAX_FIRST_ROWS : MAX_ROWS);
    const columns = [
      ...BOOKKEEPING.map((name) => `c.[${name}]`),
      // Of a captured table that nobody maps, or whose mapping has failed by it: the stream is everybody's (invariant 8).
      ...rows.columns.map(({ nativeType, column }) =>
        isTransportable(nativeType)
          ? selectExpression(nativeType, `c.${quoteIdentifier(column)}`)
          : 'CAST(NULL AS varbinary(1))',
      ),
    ];
    this.#select = `SELECT ${columns.map((column, i) => `${column} AS c${i}`).join(', ')} FROM ${changeTable(rows.instance.name)} c`;
  }

  /** What a row took in the last page; null: none was read. */
  get rowBytes(): number | null {
    return this.#rowBytes;
  }

  /** Everything up to `high` was read. */
  get isDone(): boolean {
    return this.#done;
  }

  /** Only what lies up to `lsn`, of what was read too. */
  cut(lsn: Lsn): void {
    if (lsn >= this.#high) return;
    this.#high = lsn;
    const last = this.rows.last;
    this.rows.trim(lsn);
    if (last !== null && last.lsn > lsn) this.#done = true;
  }

  /**
   * One page, of about `room` bytes at most. Rows that are larger than those before end it early: what more the server sends is read
   * again in smaller pages.
   */
  async next(session: Session, room: number): Promise<void> {
    const pageBytes = Math.min(this.#pageBytes, room);
    const wanted = Math.min(this.#size, rowsFor(pageBytes, this.#rowBytes ?? ROW_BYTES, MAX_ROWS));
    const before = this.rows.bytes;
    let count = 0;
    let isFull = false;
    try {
      for await (const batch of readRows(session, `read changes of ${this.rows.instance.name}`, this.#text(), {
        parameters: this.#parameters(wanted),
        leading: BOOKKEEPING.length,
        batchBytes: Math.min(BATCH_BYTES, pageBytes),
      })) {
        if (this.rows.bytes - before >= pageBytes * MOST) {
          isFull = true;
          continue;
        }
        this.rows.add(batch);
        count += batch.rows;
        isFull = count >= wanted;
      }
    } catch (error) {
      // What the session is asked next must not lack rows (a server may keep the setting when a batch fails).
      if (!session.lost) await session.run('read all rows again', ['SET ROWCOUNT 0']).catch(() => session.destroy());
      throw error;
    }
    this.rows.endPage();
    this.#place = this.rows.last ?? this.#place;
    if (count > 0) {
      this.#rowBytes = Math.max(1, (this.rows.bytes - before) / count);
      this.#size = rowsFor(this.#pageBytes, this.#rowBytes, Math.min(MAX_ROWS, wanted * MAX_GROWTH));
    }
    if (isFull) this.#inside = true;
    else if (this.#inside && this.#place !== null && this.#place.lsn < this.#high) this.#inside = false;
    else this.#done = true;
  }

  /** Not TOP, for which a stand-in's planner goes through all of the change table; here both are the first rows of its clustered index. */
  #text(): string {
    const order = 'ORDER BY c.[__$start_lsn], c.[__$command_id], c.[__$seqval], c.[__$operation]';
    const where =
      this.#place === null || !this.#inside
        ? 'c.[__$start_lsn] > CAST(@low AS binary(10)) AND c.[__$start_lsn] <= CAST(@high AS binary(10))'
        : 'c.[__$start_lsn] = CAST(@low AS binary(10)) AND c.[__$command_id] >= @command AND (c.[__$command_id] > @command' +
          ' OR c.[__$seqval] > CAST(@sequence AS binary(10)) OR (c.[__$seqval] = CAST(@sequence AS binary(10)) AND c.[__$operation] > @operation))';
    return `SET ROWCOUNT @rows; ${this.#select} WHERE ${where} ${order}; SET ROWCOUNT 0`;
  }

  #parameters(rows: number): Parameters {
    const place = this.#place;
    if (place === null || !this.#inside)
      return { rows, low: lsnBytes(place?.lsn ?? this.low), high: lsnBytes(this.#high) };
    return {
      rows,
      low: lsnBytes(place.lsn),
      command: Number(place.command),
      sequence: bytesOf(place.sequence),
      operation: Number(place.operation),
    };
  }
}

function rowsFor(pageBytes: number, rowBytes: number, mostRows: number): number {
  return Math.max(MIN_ROWS, Math.min(mostRows, Math.ceil(pageBytes / rowBytes)));
}
