/** Rows events to changes of tables. Each table map event describes its own columns: no schema is remembered. */
import {
  emptyTableChanges,
  Op,
  type ChangeRelation,
  type TableCaptures,
  type TableChanges,
} from '../../../model/changes.ts';
import { SluiceError, toSluiceError } from '../../../model/errors.ts';
import { displayName, tableKey, type TableName } from '../../../model/tables.ts';
import { ImageChanges } from '../../image-changes.ts';
import {
  HEADER_BYTES,
  lengthEncoded,
  malformed,
  readTableMap,
  readTableName,
  tableIdOf,
  uncompress,
  type RowsEvent,
} from './events.ts';
import { mayBeOwnType, ownTypeReader } from './own-types.ts';
import { BinlogRows, rowFormat, type RowFormat } from './images.ts';
import type { LogColumn } from './columns.ts';
import { valueReader, type ValueReader } from './values.ts';
import { isCurrent, isVersioned, mayBeVersioned } from './versions.ts';
import { tableId } from '../catalog.ts';
import type { NamedTable } from './ddl-statement.ts';
import type { WantedSchemas } from './wanted-schemas.ts';

/** Approximate memory of a cell besides its text. */
const CELL_BYTES = 48;

/** Bytes of the descriptions of tables that are remembered. */
const DESCRIPTION_BYTES = 4 << 20;

interface Followed {
  /** `tableKey` of its name. */
  readonly key: string;
  readonly relation: ChangeRelation;
  readonly format: RowFormat;
  /** Rows that the table had are among those of its events (binlog/versions.ts). */
  readonly isVersioned: boolean;
}

/** What a table map event is about. */
interface Described {
  readonly id: number;
  /** All that it says, but for the id. */
  readonly words: string;
  readonly name: TableName;
  /** As `Table.id`. */
  readonly identity: string;
}

interface DescribedTable {
  /** As `Table.id`. */
  readonly id: string;
  readonly columns: readonly string[];
  /** Native types, by column. */
  readonly types: ReadonlyMap<string, string>;
}

export interface RowOptions {
  /** Tables of these databases only. */
  readonly schemas: WantedSchemas;
  readonly charsets: ReadonlyMap<number, string>;
  /**
   * A table as it is now, for a TRUNCATE of one that no event has described yet, and for columns that are bytes in the log only; null: it
   * is gone.
   */
  readonly describe: (table: TableName) => Promise<DescribedTable | null>;
}

export class RowDecoder {
  readonly #options: RowOptions;
  /** By the event's table id; null: of another database, or one that cannot be read. */
  readonly #tables = new Map<number, Followed | null>();
  readonly #byName = new Map<string, Followed>();
  /** By what a table map event says, but for the table's id; null: of another database. */
  readonly #described = new Map<string, Followed | null>();
  #describedBytes = 0;
  #open = new Map<Followed, ImageChanges<BinlogRows>>();
  /** Tables whose rows could not be read, since the last complete piece, by `#place`. */
  #unread = new Map<string, SluiceError>();
  /** … and by the table id of those that were described. */
  readonly #unreadable = new Map<number, { name: TableName; why: SluiceError }>();
  readonly #types = new Map<string, ReadonlyMap<string, string>>();

  tables: TableChanges[] = [];
  bytes = 0;
  changes = 0;

  constructor(options: RowOptions) {
    this.#options = options;
  }

  /** Everything since the last call. */
  take(): { tables: TableChanges[]; bytes: number; changes: number } {
    const { tables, bytes, changes } = this;
    this.tables = [];
    this.#open = new Map();
    this.bytes = this.changes = 0;
    return { tables, bytes, changes };
  }

  /** What was not read since the last call; undefined: nothing. (invariant 8: its mappings stop alone.) */
  takeUnread(): TableCaptures | undefined {
    if (this.#unread.size === 0) return undefined;
    const unread = this.#unread;
    this.#unread = new Map();
    const gap = ({ schema, table }: TableName) =>
      unread.get(this.#place({ schema, table })) ?? unread.get(this.#place({ schema, table: null })) ?? null;
    return { gap, successor: () => null };
  }

  /** Rows of the table were changed and are not here. */
  missed(name: NamedTable, why: SluiceError): void {
    this.#unread.set(this.#place(name), why);
  }

  #place({ schema, table }: NamedTable): string {
    return JSON.stringify([schema, table === null ? null : this.#options.schemas.fold(table)]);
  }

  /** Table ids are of one file, and of one transaction at least. */
  forgetTables(): void {
    this.#tables.clear();
    this.#unreadable.clear();
  }

  /** A statement may have changed them. */
  forgetTypes(): void {
    this.#types.clear();
    this.#described.clear();
  }

  /** A promise only where the server must be asked. */
  describe(event: Buffer): Promise<void> | undefined {
    const id = tableIdOf(event);
    if (this.#tables.has(id)) return undefined;
    // Each transaction describes its tables anew, mostly in the same words.
    const words = event.toString('latin1', HEADER_BYTES + 8);
    const known = this.#described.get(words);
    if (known !== undefined) {
      if (known) this.#byName.set(known.key, known);
      this.#tables.set(id, known);
      return undefined;
    }
    this.#describedBytes += words.length;
    if (this.#describedBytes > DESCRIPTION_BYTES) {
      this.#described.clear();
      this.#describedBytes = words.length;
    }
    const logged = readTableName(event);
    const schema = this.#options.schemas.nameOf(logged.schema);
    if (schema === null) {
      this.#described.set(words, null);
      this.#tables.set(id, null);
      return undefined;
    }
    const name = { schema, table: this.#options.schemas.fold(logged.table) };
    const { columns } = readTableMap(event, this.#options.charsets);
    if (columns === null) {
      this.#cannotRead(
        id,
        name,
        new SluiceError('GAP', `the binary log does not describe the columns of ${displayName(name)}`, {
          hint: 'SET GLOBAL binlog_row_metadata = FULL; and write it into the server’s configuration. Then set is_full_sync = 1.',
        }),
      );
      return undefined;
    }
    return this.#describeTable(
      { id, words, name, identity: tableId(this.#options.schemas.fold(logged.schema), name.table) },
      columns,
    );
  }

  async #describeTable({ id, words, name, identity }: Described, columns: readonly LogColumn[]): Promise<void> {
    const names = columns.map((column) => column.name);
    const types = columns.some(mayBeOwnType) || mayBeVersioned(columns) ? await this.#typesOf(name, columns) : null;
    let readers: readonly ValueReader[];
    try {
      readers = columns.map((column) => {
        const reader = valueReader(column);
        return (types && ownTypeReader(types.get(column.name), reader)) ?? reader;
      });
    } catch (error) {
      this.#cannotRead(id, name, toSluiceError(error));
      return;
    }
    const key = tableKey(name);
    const known = this.#byName.get(key);
    // The same columns are the same relation, though labels and types may have changed.
    const isSame = known !== undefined && JSON.stringify(known.relation.columns) === JSON.stringify(names);
    const relation = isSame ? known.relation : relationOf(name, identity, names);
    const kept: Followed = {
      key,
      relation,
      format: rowFormat(columns, readers),
      isVersioned: types !== null && isVersioned(columns, types),
    };
    this.#byName.set(key, kept);
    this.#described.set(words, kept);
    this.#tables.set(id, kept);
  }

  #cannotRead(id: number, name: TableName, why: SluiceError): void {
    this.#tables.set(id, null);
    this.#unreadable.set(id, { name, why });
  }

  /** Asked once for a table with these columns: a statement that changes their types has the table copied again. */
  async #typesOf(table: TableName, columns: readonly LogColumn[]): Promise<ReadonlyMap<string, string>> {
    const place = JSON.stringify([tableKey(table), columns.map(({ name, meta }) => [name, meta])]);
    const known = this.#types.get(place);
    if (known) return known;
    const found = (await this.#options.describe(table))?.types ?? new Map<string, string>();
    this.#types.set(place, found);
    return found;
  }

  /** `token`: of the transaction. */
  rows(event: Buffer, { kind, version, compressed }: RowsEvent, token: string | null): void {
    const id = tableIdOf(event);
    const followed = this.#tables.get(id);
    if (followed === null) {
      const unreadable = this.#unreadable.get(id);
      if (unreadable) this.missed(unreadable.name, unreadable.why);
      return;
    }
    if (followed === undefined) throw malformed('rows of a table that was not described');
    let at = HEADER_BYTES + 8;
    if (version === 2) at += event.readUInt16LE(at);
    const count = lengthEncoded(event, at);
    const bitmap = (count.value + 7) >> 3;
    const images = kind === 'update' ? 2 : 1;
    for (let i = 0; i < images * bitmap; i++) {
      const bits = Math.min(8, count.value - (i % bitmap) * 8);
      if (((event[count.next + i] ?? 0) & ((1 << bits) - 1)) !== (1 << bits) - 1) {
        this.#isPartial(followed, 'rows', 'SET GLOBAL binlog_row_image = FULL;');
        return;
      }
    }
    const data = event.subarray(count.next + images * bitmap);
    const buffer = compressed ? uncompress(data) : data;
    const changes = this.#changesOf(followed);
    if (token !== null && changes.visibility.at(-1) !== token) changes.visibility.push(token);
    const { rows, ops, before, after } = changes;
    const width = followed.relation.columns.length;
    let made = 0;
    for (let from = 0; from < buffer.length;) {
      let [old, now] = [-1, -1];
      if (kind !== 'insert') {
        old = rows.count * width;
        from = rows.add(buffer, from, true);
        if (followed.isVersioned && !isCurrent(buffer, from)) old = rows.dropLast();
      }
      if (kind !== 'delete') {
        now = rows.count * width;
        from = rows.add(buffer, from, false);
        if (followed.isVersioned && !isCurrent(buffer, from)) now = rows.dropLast();
      }
      if (from > buffer.length) throw malformed('a row that is longer than its event');
      if (old < 0 && now < 0) continue;
      before.push(old);
      after.push(now);
      ops.push(old < 0 ? Op.Insert : now < 0 ? Op.Delete : Op.Update);
      made++;
    }
    this.changes += made;
    // As much as their cells would take, for whoever asks for them.
    this.bytes += buffer.length + made * images * width * CELL_BYTES;
  }

  /** An update that holds parts of JSON documents (MySQL's binlog_row_value_options). */
  partialUpdate(event: Buffer): void {
    const followed = this.#tables.get(tableIdOf(event));
    if (followed) this.#isPartial(followed, 'JSON documents', "SET GLOBAL binlog_row_value_options = '';");
  }

  /** invariant 8: what a session leaves out of the log is missing from its table's changes, and from no other's. */
  #isPartial({ relation: { name } }: Followed, what: string, statement: string): void {
    this.missed(
      name,
      new SluiceError('GAP', `the binary log does not hold whole ${what} of ${displayName(name)}`, {
        hint: `${statement} Sessions that have set it otherwise must be reopened. Then set is_full_sync = 1.`,
      }),
    );
  }

  async truncate(name: TableName): Promise<void> {
    const followed = this.#byName.get(tableKey(name));
    const changes = followed ? this.#changesOf(followed) : await this.#changesOfUnseen(name);
    if (changes === null) return;
    changes.ops.push(Op.Truncate);
    changes.before.push(-1);
    changes.after.push(-1);
    this.changes++;
    this.bytes += CELL_BYTES;
  }

  #changesOf(followed: Followed): ImageChanges<BinlogRows> {
    const open = this.#open.get(followed);
    if (open) return open;
    const made = new ImageChanges(followed.relation, new BinlogRows(followed.format));
    made.hasAbsent = made.hasUnread = followed.format.mayLack;
    // What is of another form from here on stays behind what came before.
    for (const other of this.#open.keys()) if (other.key === followed.key) this.#open.delete(other);
    this.tables.push(made);
    this.#open.set(followed, made);
    return made;
  }

  async #changesOfUnseen(name: TableName): Promise<TableChanges | null> {
    const found = await this.#options.describe(name);
    if (found === null) return null;
    const made = emptyTableChanges(relationOf(name, found.id, found.columns));
    this.tables.push(made);
    return made;
  }
}

/** `id`: of the database's own name, whatever it is wanted by. */
function relationOf(name: TableName, id: string, columns: readonly string[]): ChangeRelation {
  return { name, id, columns, columnTypes: columns.map(() => '') };
}
