/** Events of the binary log to changes of the wanted databases' tables, transaction by transaction. */
import type { AlteredTable, TableCaptures, TableChanges } from '../../../model/changes.ts';
import { SluiceError } from '../../../model/errors.ts';
import { EVENT, readHeader, readQuery, readRotate, ROWS, type EventHeader } from './events.ts';
import { anotherLog, incident, notRows } from './gaps.ts';
import { rowStatement, tableStatement } from './ddl-statement.ts';
import { payloadEvents } from './payload.ts';
import { RowDecoder, type RowOptions } from './rows.ts';
import { BEGINNINGS, readBeginning, type Transaction } from './transaction.ts';
import { PreparedXas, readXaPrepare, xaStatement, type PreparedXa, type XaStatement } from './xa.ts';
import { compareLogPlaces, gtidState, type GtidState, type LogPlace } from './position.ts';
import type { WantedSchemas } from './wanted-schemas.ts';

/**
 * What an event was for the stream. `Statement`: it may have changed a table's columns, and is complete. `Decided`: an XA transaction is committed, whose events come
 * now (`decided`).
 */
export const Step = { None: 0, Begin: 1, Commit: 2, Idle: 3, Statement: 4, Decided: 5 } as const;
export type Step = (typeof Step)[keyof typeof Step];

export interface DecoderOptions extends RowOptions {
  readonly isMariaDb: boolean;
  /** Until the first file says whether it has them: TCP and TLS have their own, so they are not computed again. */
  readonly hasChecksums: boolean;
}

/** An XA transaction whose commit was read. */
export interface DecidedXa {
  readonly xid: string;
  /** Null: it was prepared before the reader began. */
  readonly prepared: PreparedXa | null;
  /** Of the event that decided it. */
  readonly header: EventHeader;
}

export class BinlogDecoder {
  readonly #isMariaDb: boolean;
  readonly #schemas: WantedSchemas;
  readonly #rows: RowDecoder;
  readonly xas: PreparedXas;
  #decided: DecidedXa | null = null;
  #pending: Transaction | null = null;
  #hasChecksums: boolean;
  /** Not the one that the reader was begun in. */
  #isNewFile = false;
  /** Where the compressed transaction ends that the events are of; null: they are of the file itself. */
  #payloadEnd: number | null = null;
  /** After the last event. */
  place: LogPlace;
  readonly gtids: GtidState;

  transactions = 0;
  committedAt: number | null = null;
  altered: AlteredTable[] = [];

  constructor(from: LogPlace & { gtids: string }, options: DecoderOptions) {
    this.#isMariaDb = options.isMariaDb;
    this.#schemas = options.schemas;
    this.#rows = new RowDecoder(options);
    this.xas = new PreparedXas(options.schemas);
    this.#hasChecksums = options.hasChecksums;
    this.place = { file: from.file, offset: from.offset };
    this.gtids = gtidState(options.isMariaDb, from.gtids);
  }

  get inTransaction(): boolean {
    return this.#pending !== null;
  }

  /** Its events are to be given to `replay` before anything else is decoded. */
  get decided(): DecidedXa | null {
    return this.#decided;
  }

  get changes(): number {
    return this.#rows.changes;
  }

  get bytes(): number {
    return this.#rows.bytes;
  }

  /** Everything decoded since the last call. */
  take(): Pick<BinlogDecoder, 'bytes' | 'changes' | 'transactions' | 'committedAt'> & {
    tables: TableChanges[];
    schemas: ReadonlySet<string>;
    captures?: TableCaptures;
    altered?: readonly AlteredTable[];
  } {
    const { transactions, committedAt } = this;
    this.transactions = 0;
    this.committedAt = null;
    const altered = this.inTransaction ? [] : this.altered.splice(0);
    // A table that cannot be read is told with the end of the transaction: only then is anything committed.
    const captures = this.inTransaction ? undefined : this.#rows.takeUnread();
    return {
      ...this.#rows.take(),
      schemas: this.#schemas.all,
      transactions,
      committedAt,
      ...(captures ? { captures } : {}),
      ...(altered.length > 0 ? { altered } : {}),
    };
  }

  /** The events of a compressed transaction, to be decoded one after the other; null: it is none. */
  expand(received: Buffer): Iterator<Buffer> | null {
    const header = readHeader(received);
    if (header.type !== EVENT.transactionPayload) return null;
    this.#payloadEnd = header.end;
    return payloadEvents(this.#withoutChecksum(received));
  }

  /** A promise only where the server must be asked: an event costs less than one. */
  decode(received: Buffer): Step | Promise<Step> {
    const header = readHeader(received);
    if (header.type === EVENT.format) {
      // Its last five bytes are the algorithm of the file's checksums and its own.
      this.#hasChecksums = received[received.length - 5] === 1;
      if (!this.gtids.inFile(header.timestamp, this.#isNewFile)) throw anotherLog();
      return this.#advance(header, this.inTransaction ? Step.None : Step.Idle);
    }
    // Those of a compressed transaction have none of their own.
    const event = this.#payloadEnd === null ? this.#withoutChecksum(received) : received;
    const isOutside = BEGINNINGS.has(header.type) || header.type === EVENT.rotate;
    if (this.xas.isCollecting && !isOutside) return this.#collect(event, header);
    const rows = this.#rowsOf(event, header);
    if (rows !== null)
      return rows ? rows.then(() => this.#advance(header, Step.None)) : this.#advance(header, Step.None);
    switch (header.type) {
      case EVENT.mariaGtid:
      case EVENT.gtid:
      case EVENT.taggedGtid:
      case EVENT.anonymousGtid:
        return this.#begin(event, header, received.length);
      case EVENT.query:
      case EVENT.compressedQuery:
        return this.#query(event, header);
      case EVENT.xid:
        return this.#commit(header);
      case EVENT.rotate: {
        const next = readRotate(event);
        // A reader that starts by GTIDs begins in front of what it has.
        if (!(compareLogPlaces(next, this.place) <= 0)) {
          this.#isNewFile = next.file !== this.place.file;
          this.place = next;
        }
        this.#rows.forgetTables();
        return Step.Idle;
      }
      case EVENT.heartbeat:
      case EVENT.heartbeat2:
        return this.inTransaction ? Step.None : this.#advance(header, Step.Idle);
      case EVENT.incident:
        throw incident();
      default:
        return this.#advance(header, this.inTransaction ? Step.None : Step.Idle);
    }
  }

  /** What a table map or rows event holds. Null: it is another one. */
  #rowsOf(event: Buffer, { type }: EventHeader): Promise<void> | null | undefined {
    const rows = ROWS.get(type);
    if (rows) this.#rows.rows(event, rows, this.#pending?.token ?? null);
    else if (type === EVENT.tableMap) return this.#rows.describe(event);
    else if (type === EVENT.partialUpdate) this.#rows.partialUpdate(event);
    else return null;
    return undefined;
  }

  /** An event of a transaction that is perhaps only prepared. */
  #collect(event: Buffer, header: EventHeader): Step {
    if (header.type !== EVENT.xaPrepare) {
      this.xas.add(event);
      return this.#advance(header, Step.None);
    }
    const { xid, isOnePhase } = readXaPrepare(event);
    const prepared = this.xas.end();
    if (isOnePhase) return this.#decide({ xid, prepared, header });
    if (prepared) this.xas.keep(xid, prepared);
    return this.#end(header, Step.Idle);
  }

  #decide(decided: DecidedXa): Step {
    if (decided.prepared?.events?.length === 0) return this.#commit(decided.header);
    if (this.#pending) this.#pending.token = `${decided.xid}@${this.#pending.token}`;
    this.#decided = decided;
    this.#rows.forgetTables();
    return Step.Decided;
  }

  /** An event of the transaction that was decided, without checksum, from wherever it was kept. */
  replay(event: Buffer): Promise<unknown> | undefined {
    const header = readHeader(event);
    const rows = this.#rowsOf(event, header);
    if (rows !== null) return rows;
    const isCompressed = header.type === EVENT.compressedQuery;
    if (header.type !== EVENT.query && !isCompressed) return undefined;
    const { schema, sql } = readQuery(event, isCompressed);
    return xaStatement(sql) ? undefined : this.#statement(sql, schema);
  }

  /** All of it was replayed. `lost`: it is no longer anywhere (invariant 5). */
  endReplay(lost: SluiceError | null): Step {
    const header = this.#decided?.header;
    if (!header) throw new SluiceError('INTERNAL', 'no XA transaction was decided');
    this.#decided = null;
    if (lost) for (const schema of this.#schemas.all) this.#rows.missed({ schema, table: null }, lost);
    return this.#commit(header);
  }

  #withoutChecksum(received: Buffer): Buffer {
    return this.#hasChecksums ? received.subarray(0, received.length - 4) : received;
  }

  #advance(header: EventHeader, step: Step): Step {
    // Events that the server makes up for us have no place in the file, nor have those of a compressed transaction.
    if (this.#payloadEnd === null && header.end > this.place.offset)
      this.place = { file: this.place.file, offset: header.end };
    return step;
  }

  #begin(event: Buffer, header: EventHeader, length: number): Step {
    if (header.end > 0 && header.end - length < this.place.offset) throw anotherLog();
    this.#pending = readBeginning(event, header, this.place, length);
    if (this.#pending.isPrepared) this.xas.begin(this.#pending.beginsAt);
    else this.xas.end();
    return this.#advance(header, Step.Begin);
  }

  #commit(header: EventHeader): Step {
    this.transactions++;
    this.committedAt = header.timestamp * 1000;
    return this.#end(header, Step.Commit);
  }

  #end(header: EventHeader, step: Step): Step {
    if (this.#pending?.gtid != null) this.gtids.add(this.#pending.gtid);
    else this.gtids.addAnonymous();
    this.#pending = null;
    this.#rows.forgetTables();
    const end = this.#payloadEnd ?? header.end;
    this.#payloadEnd = null;
    return this.#advance({ ...header, end }, step);
  }

  #query(event: Buffer, header: EventHeader): Step | Promise<Step> {
    const { schema, sql } = readQuery(event, header.type === EVENT.compressedQuery);
    if (/^\s*(COMMIT|ROLLBACK)\s*$/i.test(sql)) return this.#commit(header);
    const xa = xaStatement(sql);
    if (xa && this.#pending) return this.#xa(xa, this.#pending, header);
    if (!this.#isMariaDb && this.#pending?.standalone === null) {
      this.#pending.standalone = !/^\s*BEGIN\s*$/i.test(sql);
      if (!this.#pending.standalone) return this.#advance(header, Step.None);
    }
    return this.#statement(sql, schema).then((isTruncate) => {
      if (this.#pending?.standalone !== true) return this.#advance(header, Step.None);
      this.#commit(header);
      return isTruncate ? Step.Commit : Step.Statement;
    });
  }

  /** Where it is not within a transaction that is collected. */
  #xa({ verb, xid }: XaStatement, pending: Transaction, header: EventHeader): Step {
    if (verb === 'COMMIT') return this.#decide({ xid, prepared: this.xas.take(xid), header });
    if (verb === 'ROLLBACK') {
      this.xas.take(xid);
      return this.#end(header, Step.Idle);
    }
    // MySQL begins it so, what MariaDB says in the GTID event.
    this.xas.begin(pending.beginsAt);
    pending.standalone = false;
    return this.#advance(header, Step.None);
  }

  /** True: a TRUNCATE. */
  async #statement(sql: string, schema: string): Promise<boolean> {
    const statement = tableStatement(sql, schema);
    const isTruncate = statement?.verb === 'TRUNCATE';
    if (statement && !isTruncate) this.#rows.forgetTypes();
    else if (!statement) this.#statementOfRows(sql, schema);
    for (const { schema: named, table } of statement?.tables ?? []) {
      const schema = this.#schemas.nameOf(named);
      if (schema === null) continue;
      if (isTruncate && table !== null) await this.#rows.truncate({ schema, table: this.#schemas.fold(table) });
      else if (statement) this.altered.push({ schema, table, verb: statement.verb });
    }
    return isTruncate;
  }

  /** invariant 5: the rows that it changed are not in the log. */
  #statementOfRows(sql: string, schema: string): void {
    const statement = rowStatement(sql, schema);
    for (const { schema: named, table } of statement?.tables ?? []) {
      const name = this.#schemas.nameOf(named);
      if (name !== null) this.#rows.missed({ schema: name, table }, notRows(statement?.verb ?? ''));
    }
  }
}
