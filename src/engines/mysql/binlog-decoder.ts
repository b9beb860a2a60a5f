/** Events of the binary log to changes of one database's tables. Each table map event describes its own columns: no schema is remembered. */
import { emptyTableChanges, Op, type ChangeCell, type ChangeRelation, type TableChanges } from '../../model/changes.ts';
import { SluiceError } from '../../model/errors.ts';
import {
  EVENT,
  HEADER_BYTES,
  malformed,
  readHeader,
  readMariaGtid,
  readQuery,
  readRotate,
  readTableMap,
  readTableName,
  ROWS,
  tableIdOf,
  truncatedTable,
  uncompress,
  lengthEncoded,
  type EventHeader,
  type RowsEvent,
} from './binlog-events.ts';
import { valueReader, type Cursor, type ValueReader } from './binlog-values.ts';
import { tableId } from './catalog.ts';
import { GtidState, type LogPlace } from './position.ts';

/** Approximate memory of a cell besides its text. */
const CELL_BYTES = 48;
/** No key column is longer (InnoDB's limit in bytes): a longer value of an old row is not needed. */
const MAX_KEY_BYTES = 3072;

/** What an event was for the stream. */
/** `Statement`: it may have changed a table's columns, and is complete. */
export const Step = { None: 0, Begin: 1, Commit: 2, Idle: 3, Statement: 4 } as const;
export type Step = (typeof Step)[keyof typeof Step];

interface Followed {
  readonly relation: ChangeRelation;
  readonly readers: readonly ValueReader[];
}

export interface DecoderOptions {
  /** Tables of this database only. */
  readonly database: string;
  readonly charsets: ReadonlyMap<number, string>;
  /** Until the first file says whether it has them: TCP and TLS have their own, so they are not computed again. */
  readonly hasChecksums: boolean;
  /** Columns of a table as it is now, for a TRUNCATE of one that no event has described yet; null: it is gone. */
  readonly columnsOf: (table: string) => Promise<readonly string[] | null>;
}

export class BinlogDecoder {
  readonly #options: DecoderOptions;
  /** By the event's table id; null: of another database. */
  readonly #tables = new Map<number, Followed | null>();
  readonly #byName = new Map<string, Followed>();
  #open = new Map<Followed, TableChanges>();
  #pending: MariaTransaction | null = null;
  #inTransaction = false;
  #hasChecksums: boolean;
  #sawAbsent = false;
  /** After the last event. */
  place: LogPlace;
  readonly gtids: GtidState;

  tables: TableChanges[] = [];
  bytes = 0;
  changes = 0;
  transactions = 0;
  committedAt: number | null = null;

  constructor(from: LogPlace & { gtids: string }, options: DecoderOptions) {
    this.#options = options;
    this.#hasChecksums = options.hasChecksums;
    this.place = { file: from.file, offset: from.offset };
    this.gtids = new GtidState(from.gtids);
  }

  get inTransaction(): boolean {
    return this.#inTransaction;
  }

  /** Everything decoded since the last call. */
  take(): Pick<BinlogDecoder, 'tables' | 'bytes' | 'changes' | 'transactions' | 'committedAt'> {
    const { tables, bytes, changes, transactions, committedAt } = this;
    this.tables = [];
    this.#open = new Map();
    this.bytes = this.changes = this.transactions = 0;
    this.committedAt = null;
    return { tables, bytes, changes, transactions, committedAt };
  }

  async decode(received: Buffer): Promise<Step> {
    const header = readHeader(received);
    if (header.type === EVENT.format) {
      // Its last five bytes are the algorithm of the file's checksums and its own.
      this.#hasChecksums = received[received.length - 5] === 1;
      return this.#advance(header, this.#inTransaction ? Step.None : Step.Idle);
    }
    const event = this.#hasChecksums ? received.subarray(0, received.length - 4) : received;
    if (header.type === EVENT.rotate) {
      const next = readRotate(event);
      this.place = next.file === this.place.file && header.end === 0 ? this.place : next;
      this.#tables.clear();
      return Step.Idle;
    }
    if (header.type === EVENT.heartbeat) return this.#inTransaction ? Step.None : this.#advance(header, Step.Idle);
    const rows = ROWS.get(header.type);
    if (rows) {
      this.#rows(event, rows);
      return this.#advance(header, Step.None);
    }
    switch (header.type) {
      case EVENT.tableMap:
        this.#describe(event);
        return this.#advance(header, Step.None);
      case EVENT.mariaGtid:
        return this.#begin(event, header);
      case EVENT.query:
      case EVENT.compressedQuery:
        return this.#query(event, header);
      case EVENT.xid:
        return this.#commit(header);
      case EVENT.xaPrepare:
      case EVENT.partialUpdate:
      case EVENT.transactionPayload:
      case EVENT.gtid:
      case EVENT.anonymousGtid:
        throw new SluiceError(
          'CAPABILITY_MISSING',
          `the binary log holds an event of type ${header.type}, which is not read`,
        );
      default:
        return this.#advance(header, this.#inTransaction ? Step.None : Step.Idle);
    }
  }

  #advance(header: EventHeader, step: Step): Step {
    // Events that the server makes up for us have no place in the file.
    if (header.end > 0) this.place = { file: this.place.file, offset: header.end };
    return step;
  }

  #begin(event: Buffer, header: EventHeader): Step {
    const { gtid, standalone, preparedXa } = readMariaGtid(event, header.serverId);
    if (preparedXa)
      throw new SluiceError('CAPABILITY_MISSING', 'the source uses XA transactions, whose changes are not read', {
        hint: 'Commit without XA at the source, or copy its tables without changes (cdc_enabled = 0).',
      });
    const start = this.place;
    this.#pending = { gtid, standalone, token: `${start.file}:${start.offset}` };
    this.#inTransaction = true;
    this.#advance(header, Step.Begin);
    return Step.Begin;
  }

  #commit(header: EventHeader): Step {
    if (this.#pending) this.gtids.add(this.#pending.gtid);
    this.#pending = null;
    this.#inTransaction = false;
    this.transactions++;
    this.committedAt = header.timestamp * 1000;
    this.#tables.clear();
    return this.#advance(header, Step.Commit);
  }

  async #query(event: Buffer, header: EventHeader): Promise<Step> {
    const { schema, sql } = readQuery(event, header.type === EVENT.compressedQuery);
    const word = /^\s*(COMMIT|ROLLBACK)\s*$/i.test(sql);
    if (word) return this.#commit(header);
    const truncated = truncatedTable(sql, schema);
    if (truncated?.schema === this.#options.database) await this.#truncate(truncated.table);
    if (this.#pending?.standalone !== true) return this.#advance(header, Step.None);
    this.#commit(header);
    return truncated === null ? Step.Statement : Step.Commit;
  }

  async #truncate(table: string): Promise<void> {
    let followed = this.#byName.get(table);
    if (!followed) {
      const columns = await this.#options.columnsOf(table);
      if (columns === null) return;
      followed = { relation: this.#relation(table, columns), readers: [] };
    }
    const changes = this.#changesOf(followed);
    changes.ops.push(Op.Truncate);
    changes.before.push(-1);
    changes.after.push(-1);
    this.changes++;
    this.bytes += CELL_BYTES;
  }

  #relation(table: string, columns: readonly string[]): ChangeRelation {
    const { database } = this.#options;
    const columnTypes = columns.map(() => '');
    return { name: { schema: '', table }, id: tableId(database, table), columns, columnTypes };
  }

  #describe(event: Buffer): void {
    const id = tableIdOf(event);
    if (this.#tables.has(id)) return;
    if (readTableName(event).schema !== this.#options.database) {
      this.#tables.set(id, null);
      return;
    }
    const { table, columns } = readTableMap(event, this.#options.charsets);
    if (columns === null)
      throw new SluiceError('CDC_NOT_READY', `the binary log does not describe the columns of ${table}`, {
        hint: 'SET GLOBAL binlog_row_metadata = FULL; and write it into the server’s configuration.',
      });
    const names = columns.map((column) => column.name);
    const known = this.#byName.get(table);
    const followed = { relation: this.#relation(table, names), readers: columns.map(valueReader) };
    // The same columns are the same relation, though labels and types may have changed.
    const isSame = known !== undefined && JSON.stringify(known.relation.columns) === JSON.stringify(names);
    const kept: Followed = isSame ? { relation: known.relation, readers: followed.readers } : followed;
    const open = known === undefined ? undefined : this.#open.get(known);
    if (isSame && open) this.#open.set(kept, open);
    this.#byName.set(table, kept);
    this.#tables.set(id, kept);
  }

  #changesOf(followed: Followed): TableChanges {
    const open = this.#open.get(followed);
    if (open) return open;
    const made = emptyTableChanges(followed.relation);
    this.tables.push(made);
    this.#open.set(followed, made);
    return made;
  }

  #rows(event: Buffer, { kind, version, compressed }: RowsEvent): void {
    const followed = this.#tables.get(tableIdOf(event));
    if (followed === null) return;
    if (followed === undefined) throw malformed('rows of a table that was not described');
    let at = HEADER_BYTES + 8;
    if (version === 2) at += event.readUInt16LE(at);
    const count = lengthEncoded(event, at);
    const bitmap = (count.value + 7) >> 3;
    const images = kind === 'update' ? 2 : 1;
    for (let i = 0; i < images * bitmap; i++) {
      const bits = Math.min(8, count.value - (i % bitmap) * 8);
      if (((event[count.next + i] ?? 0) & ((1 << bits) - 1)) !== (1 << bits) - 1)
        throw new SluiceError(
          'CDC_NOT_READY',
          `the binary log does not hold whole rows of ${followed.relation.name.table}`,
          {
            hint: 'SET GLOBAL binlog_row_image = FULL; sessions that have set it otherwise must be reopened.',
          },
        );
    }
    const data = event.subarray(count.next + images * bitmap);
    const cursor = { buffer: compressed ? uncompress(data) : data, at: 0 };
    const changes = this.#changesOf(followed);
    const token = this.#pending?.token;
    if (token !== undefined && changes.visibility.at(-1) !== token) changes.visibility.push(token);
    const start = changes.cells.length;
    while (cursor.at < cursor.buffer.length) {
      const before = kind === 'insert' ? -1 : this.#row(cursor, followed.readers, changes.cells, true);
      const after = kind === 'delete' ? -1 : this.#row(cursor, followed.readers, changes.cells, false);
      changes.ops.push(kind === 'insert' ? Op.Insert : kind === 'update' ? Op.Update : Op.Delete);
      changes.before.push(before);
      changes.after.push(after);
      this.changes++;
    }
    changes.hasAbsent ||= this.#sawAbsent;
    this.#sawAbsent = false;
    this.bytes += cursor.buffer.length + (changes.cells.length - start) * CELL_BYTES;
  }

  /** Reads one row image; returns where its first cell is. */
  #row(cursor: Cursor, readers: readonly ValueReader[], cells: ChangeCell[], isOld: boolean): number {
    const first = cells.length;
    const nulls = cursor.at;
    cursor.at += (readers.length + 7) >> 3;
    for (let i = 0; i < readers.length; i++) {
      const isNull = (((cursor.buffer[nulls + (i >> 3)] ?? 0) >> (i & 7)) & 1) === 1;
      const cell = isNull ? null : readers[i]?.(cursor);
      if (cell === undefined && !isOld) this.#sawAbsent = true;
      cells.push(isOld && cell != null && cell.length > MAX_KEY_BYTES ? undefined : cell);
    }
    return first;
  }
}

interface MariaTransaction {
  readonly gtid: string;
  readonly standalone: boolean;
  /** Where it begins: a snapshot behind that place sees it. */
  readonly token: string;
}
