/** Polls the change tables of a database and hands out what it finds, piece by piece, within bounded memory. */
import type { ChangePiece } from '../../model/changes.ts';
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { ChangeReader, ReadOptions } from '../contract.ts';
import {
  capturedColumns,
  commitBefore,
  look,
  type Captured,
  type CapturedColumns,
  type CaptureInstance,
  type Look,
  type SourceState,
} from './capture-instances.ts';
import { Captures, chainOf, segmentsOf } from './captures.ts';
import { ChangePages } from './change-pages.ts';
import { ChangeRows } from './change-rows.ts';
import type { Connection, Session } from './connection.ts';
import { errorNumber } from './errors.ts';
import { formatPosition, parsePosition, type Lsn, type Place } from './position.ts';
import { requireHistory } from './source-state.ts';

/** How often what depends on time is looked at, ms. */
const TICK_MS = 50;
/**
 * A source that has just changed is asked again after so long, then after twice as long whenever there is nothing, up to the polling
 * interval: what is written in quick succession does not wait for a whole interval each time, and a quiet source is asked once in it.
 */
const BUSY_POLL_MS = 50;
/** A change table that vanished, a deadlock with the cleanup job: what was read is read again, so often in a row. */
const MAX_RETRIES = 5;
const MAX_TRANSACTIONS = 100_000;
/** Instances whose columns are asked for in advance, with the look behind a piece. */
const MAX_EXPECTED = 10;
/** Of the transactions that fill a piece, so many are looked for the next time. */
const FILLING = 0.8;
/** A piece that holds so much of what it may is not worth another page. */
const FULL = 0.8;
const INVALID_OBJECT = 208;
/** How long the short statements of a poll may take, ms. */
const SILENCE_MS = 60_000;

/** Read, but not handed out: nothing of ours changed up to there. */
interface Idle {
  readonly end: Captured;
  readonly captures: Captures;
}

export class SqlServerChangeReader implements ChangeReader {
  readonly pieces: AsyncIterable<ChangePiece>;
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #options: ReadOptions;
  /** LSNs that no piece may reach across, in order. */
  readonly #breaks: readonly Lsn[];
  #from: Place;
  /** Everything up to here was read. */
  #read: Lsn;
  /** End of the last piece handed out: what the gap checks begin at. */
  #handedOut: Captured;
  #known: readonly CaptureInstance[];
  /** What a row took the last time, by instance. */
  readonly #rowBytes = new Map<number, number>();
  /** Transactions that one look covers at most: as many as fit. */
  #limit: number;
  #idle: Idle | null = null;
  /** The look behind the last piece, where it found more; of use until `until`. */
  #seen: { readonly look: Look; readonly until: number } | null = null;
  #idleAt = performance.now();
  #stopped: Promise<void> | null = null;
  /** The next piece, being read while the last one is written. */
  #ahead: Promise<IteratorResult<ChangePiece>> | null = null;
  /**
   * Of a piece; as much again is read ahead. Beyond its rows a piece costs a look, a page and a commit, which on a stand-in are a third
   * of 8 MiB: half of this made changes a quarter slower.
   */
  readonly #maxBytes: number;
  /** The source holds more than the last piece that was made. */
  #isMoreWaiting = false;
  /** Some pieces of a transaction were handed out. */
  #isInside = false;

  /** `state`: checked against `from` already. */
  constructor(connection: Connection, session: Session, from: Place, state: SourceState, options: ReadOptions) {
    this.#connection = connection;
    this.#session = session;
    this.#options = options;
    this.#from = from;
    this.#read = from.lsn;
    this.#handedOut = from;
    this.#known = state.instances;
    this.#limit = Math.max(1, options.maxChanges);
    this.#maxBytes = options.maxBytes;
    this.#breaks = (options.breakAt ?? []).flatMap((position) => parsePosition(position)?.lsn ?? []).sort();
    const pieces = this.#run();
    // Leaving a loop over it early ends nothing: `stop` does.
    this.pieces = { [Symbol.asyncIterator]: () => ({ next: () => this.#next(pieces) }) };
  }

  /** Nothing is kept at the source because of us. */
  acknowledge(): void {
    return;
  }

  stop(): Promise<void> {
    this.#stopped ??= (async () => {
      // Whatever is being read is not wanted any more.
      this.#session.destroy();
      await this.#connection.release(this.#session);
    })();
    return this.#stopped;
  }

  /**
   * While a piece is being written the next one is read, when it waits already. Otherwise what changes meanwhile is read when it is
   * asked for, in one piece.
   */
  async #next(pieces: AsyncIterator<ChangePiece>): Promise<IteratorResult<ChangePiece>> {
    const ahead = this.#ahead;
    this.#ahead = null;
    const result = await (ahead ?? this.#pull(pieces));
    if (result.done !== true && this.#isMoreWaiting) {
      this.#ahead = this.#pull(pieces);
      // Told to who asks for it.
      this.#ahead.catch(() => undefined);
    }
    return result;
  }

  async #pull(pieces: AsyncIterator<ChangePiece>): Promise<IteratorResult<ChangePiece>> {
    if (this.#stopped !== null) return { done: true, value: undefined };
    try {
      return await pieces.next();
    } catch (error) {
      if (this.#stopped !== null) return { done: true, value: undefined };
      throw error;
    }
  }

  /** A connection that stalls without closing is lost (F41). */
  async #answered<T>(work: Promise<T>): Promise<T> {
    const timer = setTimeout(() => this.#session.destroy(), SILENCE_MS);
    try {
      return await work;
    } finally {
      clearTimeout(timer);
    }
  }

  async *#run(): AsyncGenerator<ChangePiece, void, void> {
    let failures = 0;
    let wait = BUSY_POLL_MS;
    while (this.#stopped === null) {
      const polledAt = performance.now();
      let isBehind = false;
      try {
        const before = this.#seen;
        this.#seen = null;
        const seen = before && polledAt < before.until ? before.look : await this.#look(this.#read);
        isBehind = seen.to !== null && seen.last !== null && seen.last.lsn > seen.to.lsn;
        this.#isMoreWaiting = isBehind;
        wait = seen.moved.size > 0 ? BUSY_POLL_MS : Math.min(wait * 2, this.#options.pollMs());
        if (seen.moved.size > 0 && seen.to !== null) {
          for await (const piece of this.#changes(seen, seen.to, before === null)) yield this.#handOut(piece);
          isBehind ||= this.#seen !== null;
        } else if (seen.to !== null) {
          this.#read = seen.to.lsn;
          const columns = await this.#columns(seen);
          this.#idle = { end: seen.to, captures: new Captures(seen.instances, this.#handedOut.lsn, columns) };
        }
        failures = 0;
      } catch (error) {
        // Of what was handed out nothing can be taken back: who reads starts again.
        if (this.#isInside || !isPassing(error) || ++failures > MAX_RETRIES) throw readError(error);
        this.#known = [];
        this.#seen = null;
        continue;
      }
      const askedAt = performance.now();
      do {
        const idle = this.#dueProgress();
        if (idle) yield this.#handOut(idle);
        if (isBehind) break;
        await new Promise((resolve) => setTimeout(resolve, TICK_MS));
      } while (
        this.#stopped === null &&
        performance.now() - askedAt < wait &&
        performance.now() - polledAt < this.#options.pollMs()
      );
    }
  }

  /**
   * Asks what there is behind `from`, until every instance that is there was asked about. It takes nothing, so that it is asked again
   * where an instance was dropped meanwhile, anybody's perhaps: what was read for a piece stays good.
   */
  async #look(from: Lsn, columnsOf: readonly number[] = []): Promise<Look> {
    for (let failures = 0; ;) {
      const range = { from, stop: this.#breaks.find((each) => each > from) ?? null, limit: this.#limit };
      const known = this.#known;
      let seen: Look;
      try {
        seen = await this.#answered(look(this.#session, range, known, columnsOf));
      } catch (error) {
        if (!isPassing(error) || ++failures > MAX_RETRIES) throw error;
        this.#known = [];
        continue;
      }
      requireHistory(seen, { ...this.#from, lsn: this.#handedOut.lsn });
      this.#from = { ...this.#from, fork: seen.fork ?? this.#from.fork };
      this.#known = seen.instances;
      if (seen.to === null || seen.instances.every(({ id }) => known.some((each) => each.id === id))) return seen;
    }
  }

  /**
   * What changed up to `to`, or as much of it as may be held: pieces of one large transaction, or one of whole ones. `isFirst`: whoever
   * writes has nothing to do yet, and gets a smaller one sooner.
   */
  async *#changes(seen: Look, to: Captured, isFirst: boolean): AsyncGenerator<ChangePiece, void, void> {
    let maxBytes = isFirst ? this.#maxBytes / 4 : this.#maxBytes;
    const columns = await this.#columns(seen);
    const jobs = this.#jobs(seen, columns, to.lsn);
    const held = () => jobs.reduce((sum, job) => sum + job.rows.bytes, 0);
    let end = to;
    for (const job of jobs) {
      job.cut(end.lsn);
      while (!job.isDone) {
        await job.next(this.#session, Math.max(maxBytes - held(), maxBytes / 4));
        if (held() < FULL * maxBytes) continue;
        if (job.isDone && job === jobs.at(-1)) break;
        // A transaction whose end is not known to have been read goes into the next piece.
        const beyond = job.isDone ? job.rows.middleLsn : job.rows.lastLsn;
        if (beyond === null) continue;
        const cut = await commitBefore(this.#session, this.#read, beyond);
        // One transaction that only a whole piece holds is no large one, which would be kept before it is applied.
        if (cut === null && maxBytes < this.#maxBytes) {
          maxBytes = this.#maxBytes;
          continue;
        }
        this.#learn(jobs);
        if (cut === null) {
          yield* this.#largeTransaction(seen, columns, beyond);
          return;
        }
        end = cut;
        for (const each of jobs) each.cut(end.lsn);
        // What a page leaves for the next one is sorted again by servers that sort.
        const filling = FILLING * (this.#maxBytes / maxBytes);
        this.#limit = Math.max(1, ...jobs.map((each) => Math.floor(each.rows.transactions * filling)));
      }
    }
    if (end === to && held() > 0) {
      // As many as these would fill a piece with; those that come may be larger, so that there are never more than twice as many at once.
      const filling = Math.ceil((FILLING * this.#maxBytes * Math.max(1, seen.transactions)) / held());
      this.#limit = Math.min(MAX_TRANSACTIONS, this.#limit * 2, filling);
    }
    const transactions = end === to ? seen.transactions : 1;
    yield await this.#complete(jobs, columns, end, transactions);
  }

  /** One transaction that is more than may be held: in parts, each of which ends inside it but the last. */
  async *#largeTransaction(seen: Look, columns: CapturedColumns, lsn: Lsn): AsyncGenerator<ChangePiece, void, void> {
    const jobs = this.#jobs(seen, columns, lsn);
    this.#isMoreWaiting = true;
    for (const job of jobs) {
      while (!job.isDone) {
        await job.next(this.#session, this.#maxBytes / 4);
        if (job.rows.bytes < this.#maxBytes / 4) continue;
        this.#isInside = true;
        yield pieceOf([job], null, 0, null);
      }
    }
    const after = await commitBefore(this.#session, this.#read, next(lsn));
    yield await this.#complete(jobs, columns, after ?? { lsn, time: seen.now }, 1);
    this.#isInside = false;
  }

  /** invariant 5: after the last page it is asked again whether anything was discarded meanwhile; and, in the same round trip, what is next. */
  async #complete(
    jobs: readonly ChangePages[],
    columns: CapturedColumns,
    end: Captured,
    transactions: number,
  ): Promise<ChangePiece> {
    const seen = await this.#look(end.lsn, columns.size <= MAX_EXPECTED ? [...columns.keys()] : []);
    const piece = pieceOf(jobs, this.#position(end), transactions, end.time + seen.toUtc);
    this.#learn(jobs);
    this.#read = end.lsn;
    this.#seen = seen.moved.size > 0 ? { look: seen, until: performance.now() + this.#options.pollMs() } : null;
    this.#isMoreWaiting = this.#seen !== null;
    return { ...piece, captures: new Captures(seen.instances, this.#handedOut.lsn, columns) };
  }

  #learn(jobs: readonly ChangePages[]): void {
    for (const { rows, rowBytes } of jobs) if (rowBytes !== null) this.#rowBytes.set(rows.instance.id, rowBytes);
  }

  /** Of the instances that moved, and of all where one follows another. */
  async #columns(seen: Look): Promise<CapturedColumns> {
    const pairs = seen.instances.filter((one) =>
      seen.instances.some((other) => other.id !== one.id && other.sourceId === one.sourceId),
    );
    const ids = [...new Set([...seen.moved, ...pairs.map(({ id }) => id)])];
    return ids.every((id) => seen.columns.has(id)) ? seen.columns : capturedColumns(this.#session, ids);
  }

  #jobs(seen: Look, columns: CapturedColumns, to: Lsn): ChangePages[] {
    const tables = new Map<number, CaptureInstance[]>();
    for (const instance of seen.instances)
      tables.set(instance.sourceId, [...(tables.get(instance.sourceId) ?? []), instance]);
    // A page costs a look at everything that is to be read where the server sorts it, so that they should be few.
    const pageBytes = seen.moved.size > 1 ? this.#maxBytes / 2 : this.#maxBytes;
    return [...tables.values()].flatMap((instances) =>
      segmentsOf(chainOf(instances, columns), this.#read, to)
        .filter(({ instance }) => seen.moved.has(instance.id))
        .map((segment) => {
          const rows = new ChangeRows(segment.instance, columns.get(segment.instance.id) ?? []);
          return new ChangePages(rows, segment, pageBytes, this.#rowBytes.get(segment.instance.id));
        }),
    );
  }

  /** Idle progress, when it is due; also where there is none, because who reads does other things between two pieces. */
  #dueProgress(): ChangePiece | null {
    if (performance.now() < this.#idleAt + this.#options.idleProgressMs()) return null;
    const { end, captures } = this.#idle ?? { end: this.#handedOut };
    const piece = pieceOf([], this.#position(end), 0, null);
    return captures ? { ...piece, captures } : piece;
  }

  #handOut(piece: ChangePiece): ChangePiece {
    if (piece.end !== null) {
      this.#handedOut = parsePosition(piece.end) ?? this.#handedOut;
      this.#idle = null;
      this.#idleAt = performance.now();
    }
    return piece;
  }

  #position(end: Captured) {
    return formatPosition({ ...this.#from, lsn: end.lsn, time: end.time, beyond: false });
  }
}

/** Takes what the jobs have read. */
function pieceOf(
  jobs: readonly ChangePages[],
  end: ChangePiece['end'],
  transactions: number,
  committedAt: number | null,
): ChangePiece {
  const taken = jobs.flatMap((job) => job.rows.take() ?? []);
  return {
    tables: taken.map(({ changes }) => changes),
    end,
    bytes: taken.reduce((sum, { bytes }) => sum + bytes, 0),
    changes: taken.reduce((sum, { changes }) => sum + changes.ops.length, 0),
    transactions,
    committedAt,
  };
}

/** The LSN after `lsn`. */
function next(lsn: Lsn): Lsn {
  return (BigInt(`0x${lsn}`) + 1n).toString(16).toUpperCase().padStart(20, '0');
}

/** Things that another look settles. */
function isPassing(error: unknown): boolean {
  return hasCode(error, 'DEADLOCK') || errorNumber(error) === INVALID_OBJECT;
}

/** The numbers' usual meaning is that of a destination. */
function readError(error: unknown): unknown {
  if (!(error instanceof SluiceError) || errorNumber(error) !== INVALID_OBJECT) return error;
  return new SluiceError('CDC_NOT_READY', error.message, { hint: error.hint ?? undefined, cause: error });
}
