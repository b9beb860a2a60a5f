/** Events of the binary log to changes of the wanted databases' tables, transaction by transaction. */
import type { AlteredTable, TableCaptures, TableChanges } from '../../model/changes.ts';
import { SluiceError } from '../../model/errors.ts';
import { EVENT, readHeader, readMariaGtid, readQuery, readRotate, ROWS, type EventHeader } from './binlog-events.ts';
import { rowStatement, tableStatement } from './ddl-statement.ts';
import { readMysqlGtid, readTaggedGtid } from './binlog-gtids.ts';
import { payloadEvents } from './binlog-payload.ts';
import { RowDecoder, type RowOptions } from './binlog-rows.ts';
import { compareLogPlaces, gtidState, type GtidState, type LogPlace } from './position.ts';
import type { WantedSchemas } from './wanted-schemas.ts';

/** What an event was for the stream. */
/** `Statement`: it may have changed a table's columns, and is complete. */
export const Step = { None: 0, Begin: 1, Commit: 2, Idle: 3, Statement: 4 } as const;
export type Step = (typeof Step)[keyof typeof Step];

export interface DecoderOptions extends RowOptions {
  readonly isMariaDb: boolean;
  /** Until the first file says whether it has them: TCP and TLS have their own, so they are not computed again. */
  readonly hasChecksums: boolean;
}

interface Transaction {
  /** Null: the server does not number it. */
  readonly gtid: string | null;
  /** No commit follows: its one statement is all of it. Null: its first statement will tell. */
  standalone: boolean | null;
  /** What a snapshot is asked for that is to see it. */
  readonly token: string;
}

export class BinlogDecoder {
  readonly #isMariaDb: boolean;
  readonly #schemas: WantedSchemas;
  readonly #rows: RowDecoder;
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
    this.#hasChecksums = options.hasChecksums;
    this.place = { file: from.file, offset: from.offset };
    this.gtids = gtidState(options.isMariaDb, from.gtids);
  }

  get inTransaction(): boolean {
    return this.#pending !== null;
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
    const rows = ROWS.get(header.type);
    if (rows) {
      this.#rows.rows(event, rows, this.#pending?.token ?? null);
      return this.#advance(header, Step.None);
    }
    switch (header.type) {
      case EVENT.tableMap: {
        const described = this.#rows.describe(event);
        if (described) return described.then(() => this.#advance(header, Step.None));
        return this.#advance(header, Step.None);
      }
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
      case EVENT.xaPrepare:
        throw preparedXa();
      case EVENT.partialUpdate:
        this.#rows.partialUpdate(event);
        return this.#advance(header, Step.None);
      case EVENT.incident:
        throw new SluiceError('GAP', 'the source says that its binary log lacks changes (an incident event)', {
          hint: 'on_gap = resync copies the tables again.',
        });
      default:
        return this.#advance(header, this.inTransaction ? Step.None : Step.Idle);
    }
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
    this.#pending = this.#transaction(event, header);
    return this.#advance(header, Step.Begin);
  }

  #transaction(event: Buffer, header: EventHeader): Transaction {
    const token = `${this.place.file}:${this.place.offset}`;
    if (header.type === EVENT.mariaGtid) {
      const { gtid, standalone, preparedXa: isPrepared } = readMariaGtid(event, header.serverId);
      if (isPrepared) throw preparedXa();
      return { gtid, standalone, token };
    }
    if (header.type === EVENT.anonymousGtid) return { gtid: null, standalone: null, token };
    const gtid = header.type === EVENT.gtid ? readMysqlGtid(event) : readTaggedGtid(event);
    return { gtid, standalone: null, token };
  }

  #commit(header: EventHeader): Step {
    if (this.#pending?.gtid != null) this.gtids.add(this.#pending.gtid);
    else this.gtids.addAnonymous();
    this.#pending = null;
    this.transactions++;
    this.committedAt = header.timestamp * 1000;
    this.#rows.forgetTables();
    const end = this.#payloadEnd ?? header.end;
    this.#payloadEnd = null;
    return this.#advance({ ...header, end }, Step.Commit);
  }

  #query(event: Buffer, header: EventHeader): Step | Promise<Step> {
    const { schema, sql } = readQuery(event, header.type === EVENT.compressedQuery);
    if (/^\s*(COMMIT|ROLLBACK)\s*$/i.test(sql)) return this.#commit(header);
    if (!this.#isMariaDb && this.#pending?.standalone === null) {
      if (/^\s*XA\s/i.test(sql)) throw preparedXa();
      this.#pending.standalone = !/^\s*BEGIN\s*$/i.test(sql);
      if (!this.#pending.standalone) return this.#advance(header, Step.None);
    }
    return this.#statement(sql, schema).then((isTruncate) => {
      if (this.#pending?.standalone !== true) return this.#advance(header, Step.None);
      this.#commit(header);
      return isTruncate ? Step.Commit : Step.Statement;
    });
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

function notRows(verb: string): SluiceError {
  return new SluiceError('GAP', `the source’s log holds a statement (${verb}) instead of the rows that it changed`, {
    hint: "SET GLOBAL binlog_format = 'ROW'; sessions that have set it otherwise, or were opened before, must be reopened. Then set is_full_sync = 1.",
  });
}

function anotherLog(): SluiceError {
  return new SluiceError('GAP', 'the source’s log is another one than it was: the source was restored or replaced', {
    hint: 'on_gap = resync copies the tables again.',
  });
}

function preparedXa(): SluiceError {
  return new SluiceError('CAPABILITY_MISSING', 'the source uses XA transactions, whose changes are not read', {
    hint: 'Commit without XA at the source, or copy its tables without changes (cdc_enabled = 0).',
  });
}
