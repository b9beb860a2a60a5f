/**
 * Decoder of pgoutput, protocol version 1 (manual: "Logical Replication Message Formats"). One pass over each message, which
 * notes where its rows lie; nothing is allocated for a change but those notes, and what was read stays as long as they do.
 */
import { Op, type ChangeRelation, type TableChanges } from '../../model/changes.ts';
import { SluiceError } from '../../model/errors.ts';
import { ImageChanges } from '../image-changes.ts';
import { NULL_VALUE, PgoutputRows, Row, TEXT_VALUE, UNCHANGED_VALUE, type RowFormat } from './pgoutput-rows.ts';

/** What a message did, so that its caller knows when a piece may end. */
/** `Described`: a relation is not what it was for the changes decoded before. */
export const Step = { None: 0, Change: 1, Commit: 2, Described: 3 } as const;
export type Step = (typeof Step)[keyof typeof Step];

export interface DecoderOptions {
  /**
   * The server's encoding is SQL_ASCII: its text is any bytes and may not be UTF-8, so cells are delivered as bytes
   * instead of being repaired into other text (invariant 6).
   */
  readonly textAsBytes?: boolean;
  /** Object ids of types whose text is bytea's: bytea itself and domains over it. */
  readonly byteaTypes?: ReadonlySet<number>;
}

/** What was decoded so far, taken out of the decoder. */
export interface Taken {
  readonly tables: TableChanges[];
  /** LSN behind the last commit; null inside a transaction. */
  readonly end: bigint | null;
  readonly bytes: number;
  readonly changes: number;
  readonly transactions: number;
  readonly committedAt: number | null;
}

/** A relation as the stream described it last. */
interface Described {
  readonly relation: ChangeRelation;
  readonly format: RowFormat;
  /** Its changes in the piece under way. */
  open: Open | null;
}

/** A table's changes, and where those of completed transactions end in them (the mark). */
interface Open {
  readonly described: Described;
  readonly changes: ImageChanges<PgoutputRows>;
  markOps: number;
  markRows: number;
  markVisibility: number;
  markAbsent: boolean;
  /** Has changes behind the mark. */
  touched: boolean;
  absentSinceMark: boolean;
}

/** Approximate memory of a cell besides its text: slot, header and padding. */
const CELL_BYTES = 32;
const CHANGE_BYTES = 24;
const BYTEA = 17;
/** 2000-01-01 in ms since 1970: PostgreSQL counts microseconds from there. */
export const POSTGRES_EPOCH_MS = 946_684_800_000;

export class PgoutputDecoder {
  readonly #textAsBytes: boolean;
  readonly #byteaTypes: ReadonlySet<number>;
  readonly #relations = new Map<number, Described>();
  /** In order of first change. */
  #open: Open[] = [];
  #at = 0;
  #xid = 0;
  /** Of the transaction under way, then of the last one that ended. */
  #committedAt: number | null = null;
  #markCommittedAt: number | null = null;
  #markEnd = 0n;
  #markBytes = 0;
  #markChanges = 0;
  #sawAbsent = false;

  /** Approximate memory of everything decoded and not taken. */
  bytes = 0;
  /** Changes decoded and not taken. */
  changes = 0;
  /** Transactions completed and not taken. */
  completed = 0;
  inTransaction = false;

  constructor(options: DecoderOptions = {}) {
    this.#textAsBytes = options.textAsBytes ?? false;
    this.#byteaTypes = options.byteaTypes ?? new Set([BYTEA]);
  }

  /**
   * Decodes the one message at [start, end) of `buffer`, which must not be written to afterwards. Throws INTERNAL for what the
   * protocol does not have.
   */
  decode(buffer: Buffer, start: number, end: number): Step {
    this.#at = start + 1;
    switch (buffer[start]) {
      case 0x49: // 'I'
        return this.#insert(buffer);
      case 0x55: // 'U'
        return this.#update(buffer);
      case 0x44: // 'D'
        return this.#delete(buffer);
      case 0x42: // 'B': final LSN, commit time, xid
        this.inTransaction = true;
        this.#committedAt = readTime(buffer, start + 9);
        this.#xid = buffer.readUInt32BE(start + 17);
        return Step.None;
      case 0x43: // 'C': flags, commit LSN, end LSN, commit time
        this.#commit(buffer.readBigUInt64BE(start + 10));
        return Step.Commit;
      case 0x52: // 'R'
        return this.#describe(buffer);
      case 0x54: // 'T'
        return this.#truncate(buffer);
      case 0x59: // 'Y': a type's name; relations already name their types by id
      case 0x4f: // 'O': where a replicated transaction came from
      case 0x4d: // 'M': a logical message
        return Step.None;
      default:
        throw malformed(`unknown message type 0x${(buffer[start] ?? 0).toString(16)} of ${end - start} bytes`);
    }
  }

  /** Everything up to the last commit; what follows stays. Null: no transaction was completed. */
  takeCompleted(): Taken | null {
    if (this.completed === 0) return null;
    const tables: TableChanges[] = [];
    const rest: Open[] = [];
    for (const open of this.#open) {
      open.described.open = null;
      if (open.touched) {
        const tail = split(open);
        rest.push(tail);
        open.described.open = tail;
        if (open.markOps === 0) continue;
      }
      tables.push(open.changes);
    }
    const taken: Taken = {
      tables,
      end: this.#markEnd,
      bytes: this.#markBytes,
      changes: this.#markChanges,
      transactions: this.completed,
      committedAt: this.#markCommittedAt,
    };
    this.#open = rest;
    this.bytes -= this.#markBytes;
    this.changes -= this.#markChanges;
    this.#clearMark();
    return taken;
  }

  /** Everything, the beginning of an unfinished transaction included: the piece ends inside it. */
  takeOpen(): Taken {
    const taken: Taken = {
      tables: this.#open.map((open) => open.changes),
      end: this.inTransaction ? null : this.#markEnd,
      bytes: this.bytes,
      changes: this.changes,
      transactions: this.completed,
      committedAt: this.#committedAt,
    };
    for (const open of this.#open) open.described.open = null;
    this.#open = [];
    this.bytes = 0;
    this.changes = 0;
    this.#clearMark();
    return taken;
  }

  #clearMark(): void {
    this.#markBytes = 0;
    this.#markChanges = 0;
    this.completed = 0;
  }

  #commit(end: bigint): void {
    this.inTransaction = false;
    this.completed++;
    this.#markEnd = end;
    this.#markBytes = this.bytes;
    this.#markChanges = this.changes;
    this.#markCommittedAt = this.#committedAt;
    for (const open of this.#open) {
      if (!open.touched) continue;
      open.markOps = open.changes.ops.length;
      open.markRows = open.changes.rows.count;
      open.markVisibility = open.changes.visibility.length;
      open.markAbsent = open.changes.hasAbsent;
      open.touched = false;
      open.absentSinceMark = false;
    }
  }

  #describe(buffer: Buffer): Step {
    const oid = buffer.readUInt32BE(this.#at);
    this.#at += 4;
    // An empty namespace is pg_catalog.
    const schema = this.#text(buffer) || 'pg_catalog';
    const table = this.#text(buffer);
    this.#at += 1; // the replica identity's kind: its columns carry a flag each
    const width = buffer.readUInt16BE(this.#at);
    this.#at += 2;
    const columns: string[] = [];
    const columnTypes: string[] = [];
    const identity: boolean[] = [];
    const binary: boolean[] = [];
    for (let column = 0; column < width; column++) {
      identity.push(((buffer[this.#at] ?? 0) & 1) === 1);
      this.#at += 1;
      columns.push(this.#text(buffer));
      const type = buffer.readUInt32BE(this.#at);
      columnTypes.push(`${type}:${buffer.readInt32BE(this.#at + 4)}`);
      binary.push(this.#byteaTypes.has(type));
      this.#at += 8;
    }
    // The server describes a relation again after every invalidation, mostly without a difference.
    const known = this.#relations.get(oid);
    if (
      known?.relation.name.schema === schema &&
      known.relation.name.table === table &&
      same(known.relation.columns, columns) &&
      same(known.relation.columnTypes, columnTypes) &&
      same(known.format.identity, identity)
    )
      return Step.None;
    const relation: ChangeRelation = { name: { schema, table }, id: String(oid), columns, columnTypes };
    const format = { identity, binary, textAsBytes: this.#textAsBytes };
    this.#relations.set(oid, { relation, format, open: null });
    return known === undefined ? Step.None : Step.Described;
  }

  #insert(buffer: Buffer): Step {
    const open = this.#table(buffer);
    this.#at += 1; // 'N'
    const { changes } = open;
    changes.ops.push(Op.Insert);
    changes.before.push(-1);
    changes.after.push(this.#row(buffer, open, false));
    return Step.Change;
  }

  #update(buffer: Buffer): Step {
    const open = this.#table(buffer);
    const { changes } = open;
    let before = -1;
    const kind = buffer[this.#at];
    this.#at += 1;
    if (kind === 0x4b || kind === 0x4f) {
      before = this.#row(buffer, open, kind === 0x4b);
      this.#at += 1; // 'N'
    }
    this.#sawAbsent = false;
    const after = this.#row(buffer, open, false);
    if (this.#sawAbsent) this.#absent(open, before, after);
    changes.ops.push(Op.Update);
    changes.before.push(before);
    changes.after.push(after);
    return Step.Change;
  }

  /** The after-row has unchanged large values that were not sent: the before-row may hold them. */
  #absent(open: Open, before: number, after: number): void {
    const { changes, described } = open;
    const { rows: images, visibility } = changes;
    const width = described.format.identity.length;
    const row = after / width;
    images.kinds[row] = before < 0 ? Row.Absent : Row.AbsentAfterBefore;
    let absent = false;
    for (let column = 0; column < width && !absent; column++) absent = images.cell(row, column) === undefined;
    if (!absent) return;
    changes.hasAbsent = true;
    open.absentSinceMark = true;
    const token = String(this.#xid);
    if (visibility.at(-1) !== token) visibility.push(token);
  }

  #delete(buffer: Buffer): Step {
    const open = this.#table(buffer);
    const keyOnly = buffer[this.#at] === 0x4b;
    this.#at += 1;
    const { changes } = open;
    changes.ops.push(Op.Delete);
    changes.before.push(this.#row(buffer, open, keyOnly));
    changes.after.push(-1);
    return Step.Change;
  }

  /** One TRUNCATE names every table it emptied, those reached by CASCADE included. */
  #truncate(buffer: Buffer): Step {
    const count = buffer.readUInt32BE(this.#at);
    this.#at += 5; // the options are CASCADE and RESTART IDENTITY: neither changes which rows are left
    for (let index = 0; index < count; index++) {
      const { changes } = this.#table(buffer);
      changes.ops.push(Op.Truncate);
      changes.before.push(-1);
      changes.after.push(-1);
    }
    return Step.Change;
  }

  /** Reads a relation's id and gives the table that takes its next change; counts the change. */
  #table(buffer: Buffer): Open {
    const oid = buffer.readUInt32BE(this.#at);
    this.#at += 4;
    const described = this.#relations.get(oid);
    if (described === undefined) throw malformed(`a change of relation ${oid}, which was not described`);
    let open = described.open;
    if (open === null) {
      open = openTable(described, new ImageChanges(described.relation, new PgoutputRows(described.format)));
      described.open = open;
      this.#open.push(open);
    }
    open.touched = true;
    this.changes++;
    this.bytes += CHANGE_BYTES;
    return open;
  }

  /** Notes a tuple and returns where its cells begin among all. `keyOnly`: columns outside the identity are sent as NULL but mean absent. */
  #row(buffer: Buffer, open: Open, keyOnly: boolean): number {
    const { rows: images } = open.changes;
    const width = open.described.format.identity.length;
    let at = this.#at;
    let bytes = 0;
    if (buffer.readUInt16BE(at) !== width) throw malformed(`a row of ${buffer.readUInt16BE(at)} columns, not ${width}`);
    at += 2;
    const row = images.buffers.push(buffer) - 1;
    images.starts.push(at);
    images.kinds.push(keyOnly ? Row.KeyOnly : Row.Whole);
    for (let column = 0; column < width; column++) {
      const kind = buffer[at++];
      if (kind === TEXT_VALUE) {
        const length = buffer.readUInt32BE(at);
        at += 4 + length;
        bytes += length + CELL_BYTES;
      } else {
        if (kind === UNCHANGED_VALUE) this.#sawAbsent = true;
        else if (kind !== NULL_VALUE) throw malformed(`a value of unknown kind 0x${(kind ?? 0).toString(16)}`);
        bytes += 8;
      }
    }
    this.#at = at;
    this.bytes += bytes;
    return row * width;
  }

  /** A zero-terminated string. */
  #text(buffer: Buffer): string {
    const end = buffer.indexOf(0, this.#at);
    const text = buffer.toString('utf8', this.#at, end);
    this.#at = end + 1;
    return text;
  }
}

function openTable(described: Described, changes: ImageChanges<PgoutputRows>): Open {
  return {
    described,
    changes,
    markOps: 0,
    markRows: 0,
    markVisibility: 0,
    markAbsent: false,
    touched: false,
    absentSinceMark: false,
  };
}

/** Cuts what lies behind the mark off `open` and returns it as a table of its own. */
function split(open: Open): Open {
  const { changes, markOps, markRows } = open;
  const cut = markRows * open.described.format.identity.length;
  const shift = (offset: number) => (offset < 0 ? offset : offset - cut);
  const tail = new ImageChanges(
    changes.relation,
    changes.rows.splice(markRows),
    changes.ops.splice(markOps),
    changes.before.splice(markOps).map(shift),
    changes.after.splice(markOps).map(shift),
    changes.visibility.splice(open.markVisibility),
  );
  tail.hasAbsent = open.absentSinceMark;
  changes.hasAbsent = open.markAbsent;
  const rest = openTable(open.described, tail);
  rest.touched = true;
  rest.absentSinceMark = open.absentSinceMark;
  return rest;
}

/** A timestamp of the protocol as ms since 1970. */
function readTime(buffer: Buffer, at: number): number {
  const micros = buffer.readInt32BE(at) * 0x100000000 + buffer.readUInt32BE(at + 4);
  return Math.round(micros / 1000) + POSTGRES_EPOCH_MS;
}

function same<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

function malformed(what: string): SluiceError {
  return new SluiceError('INTERNAL', `the change stream cannot be decoded: ${what}`);
}
