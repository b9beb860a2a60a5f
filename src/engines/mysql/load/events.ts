/**
 * Rows of another server's binary log as row events: a BINLOG statement, which MariaDB takes from two variables, so that the rows are bound and
 * never part of a statement's text (invariant 11; mariadb.com/docs, "BINLOG"). It costs the server two thirds of what LOAD DATA does. Events
 * know columns by their places and convert nothing that anybody would notice, so that they are used where the table is, now and until the
 * transaction ends, exactly what the rows need; what they did is counted afterwards. The login needs BINLOG REPLAY.
 */
import { hasCode, SluiceError } from '../../../model/errors.ts';
import type { UpsertImages } from '../../../model/keyed-changes.ts';
import { displayName, type Table, type TableName } from '../../../model/tables.ts';
import { numberOf, textOf } from '../../row-values.ts';
import { base64Length, writeBase64 } from './base64.ts';
import { commonFormat, type RowFormat } from '../binlog/images.ts';
import { describeTables } from '../catalog.ts';
import type { Row, Session } from '../connection.ts';
import { errorNumber } from '../errors.ts';
import { holdsBytesOf } from './log-types.ts';
import { ExecutePacket, pipeline, PIPELINE_BUFFERS, queryPacket, VALUE_AT } from './pipeline.ts';
import {
  eventStatements,
  fits,
  formatDescription,
  LARGEST_EVENTS,
  type EventRows,
  type EventTarget,
} from './row-events.ts';
import { quoteTable } from '../sql.ts';

/** Fewer are quicker as text than it takes to look at the table. */
const LEAST_ROWS = 200;
/** Words of a table's definition by which a row is more than the values that come, or is looked at before it is taken. */
const MORE_THAN_VALUES =
  /\b(CHECK|GENERATED|VIRTUAL|STORED|PERSISTENT|INVISIBLE|VERSIONING|PERIOD|COMPRESSED)\b|\bAS \(/i;
/** The login has not the right to; the server knows no such statement. */
const NOT_ALLOWED: ReadonlySet<number> = new Set([1064, 1227]);
const NO_SUCH_SAVEPOINT = 1305;
const COUNTERS = `SHOW SESSION STATUS WHERE Variable_name IN ('Handler_write', 'Handler_update')`;

const PACKET_BYTES = VALUE_AT + base64Length(LARGEST_EVENTS);

interface Sender {
  /** Takes the rows. */
  readonly setRows: ExecutePacket;
  readonly apply: Buffer;
  /** Where events are made … */
  readonly out: Buffer;
  /** … and the packets that hold them. */
  readonly buffers: Buffer[];
}

/** Of sessions that know how events are laid out. */
const senders = new WeakMap<Session, Sender>();

interface Layout {
  /** As the server prints it. */
  readonly definition: string;
  /** Of the rows. */
  readonly format: RowFormat;
  /** Null: events are not for this table. */
  readonly target: EventTarget | null;
}

export class EventLoader {
  readonly #session: Session;
  readonly #name: TableName;
  readonly #columns: readonly string[];
  readonly #key: readonly string[];
  #layout: Layout | null = null;
  #takesUpdates = true;
  #takesInserts = true;

  /** `columns`: the table's, in the order of the upserts' cells. */
  constructor(session: Session, name: TableName, columns: readonly string[], key: readonly string[]) {
    this.#session = session;
    this.#name = name;
    this.#columns = columns;
    this.#key = key;
  }

  /**
   * Inserts the first `inserts` upserts and updates those from there to before `count`. How many are in, from the first; what is not is
   * for another way, to which `savepoint`, set just before, leads back.
   */
  async load(
    upserts: UpsertImages,
    { inserts, count, savepoint }: { readonly inserts: number; readonly count: number; readonly savepoint: string },
  ): Promise<number> {
    const session = this.#session;
    const end = this.#takesUpdates ? count : inserts;
    if (!session.kind.allowsEvents || !this.#takesInserts || end < LEAST_ROWS) return 0;
    const format = commonFormat(upserts.images);
    if (format === null || upserts.columns.some((at, i) => at !== i) || format.columns.length !== this.#columns.length)
      return 0;
    try {
      const before = await this.#look(format);
      const target = this.#layout?.target;
      const rows = { upserts, format, inserts: Math.min(inserts, end), count: end };
      if (before === null || !target || !fits(target, rows)) return 0;
      await this.#send(target, rows);
      const after = countersOf(await session.query('count rows', COUNTERS));
      // Also where the server is set to pass over what does not match (slave_exec_mode), or leaves tables out.
      if (after.written - before.written === rows.inserts && after.updated - before.updated === end - rows.inserts)
        return end;
    } catch (error) {
      if (session.lost || !hasCode(error, 'ROW_REFUSED', 'INTERNAL', 'PERMISSION_DENIED', 'CONFIG_INVALID'))
        throw error;
      if (NOT_ALLOWED.has(errorNumber(error) ?? 0)) session.kind.allowsEvents = false;
    }
    // A row is there that should not be, or is not there.
    if (end > inserts) this.#takesUpdates = false;
    else this.#takesInserts = false;
    await this.#back(savepoint);
    return 0;
  }

  /** From now on the table stays as it is until the transaction ends. Null: events are not for it. */
  async #look(format: RowFormat): Promise<Counters | null> {
    const table = quoteTable(this.#name);
    const [, shown = [], settings = [], counters = []] = await this.#session.batch('look at the table', [
      `SELECT 1 FROM ${table} LIMIT 0`,
      `SHOW CREATE TABLE ${table}`,
      'SELECT @@max_allowed_packet AS packet, DATABASE() AS name',
      COUNTERS,
    ]);
    const definition = (textOf(shown[0], 'Create Table') ?? '').replace(/ AUTO_INCREMENT=\d+/, '');
    if (this.#layout?.definition !== definition || this.#layout.format !== format) {
      const schema = this.#name.schema === '' ? (textOf(settings[0], 'name') ?? '') : this.#name.schema;
      const [described] = await describeTables(this.#session, [{ ...this.#name, schema }], schema);
      const isPlain = described && !MORE_THAN_VALUES.test(definition);
      this.#layout = { definition, format, target: isPlain ? this.#targetOf(described, format) : null };
    }
    if (!this.#layout.target || (numberOf(settings[0], 'packet') ?? 0) < 2 * PACKET_BYTES) return null;
    if (!senders.has(this.#session)) senders.set(this.#session, await makeSender(this.#session));
    return countersOf(counters);
  }

  #targetOf(table: Table, { columns: logged }: RowFormat): EventTarget | null {
    const { columns, keys, name } = table;
    if (table.kind !== 'table' || columns.length !== logged.length || columns.length !== this.#columns.length)
      return null;
    for (const [i, column] of columns.entries()) {
      const source = logged[i];
      if (!source || column.name !== this.#columns[i] || column.generated !== null || !holdsBytesOf(column, source))
        return null;
    }
    const primary = keys.find((key) => key.primary);
    const key = (primary?.columns ?? []).map((each) => columns.findIndex((column) => column.name === each));
    if (key.length !== this.#key.length || !primary?.columns.every((each) => this.#key.includes(each))) return null;
    return { ...name, nullable: columns.map((column) => column.nullable), key };
  }

  /** In the order of the statements. After an error some of those behind it were tried too: the savepoint takes all of them back. */
  #send(target: EventTarget, rows: EventRows): Promise<void> {
    const { setRows, apply, out, buffers } = this.#sender();
    function* packets() {
      let turn = 0;
      for (const events of eventStatements(target, rows, out)) {
        const buffer = (buffers[turn++ % PIPELINE_BUFFERS] ??= Buffer.allocUnsafeSlow(PACKET_BYTES));
        yield setRows.write(buffer.subarray(0, writeBase64(events, buffer, VALUE_AT)));
        yield apply;
      }
    }
    return pipeline(this.#session, `apply rows to ${displayName(this.#name)}`, packets());
  }

  #sender(): Sender {
    const sender = senders.get(this.#session);
    if (!sender)
      throw new SluiceError('INTERNAL', 'rows are sent to a session that does not know how they are laid out');
    return sender;
  }

  async #back(savepoint: string): Promise<void> {
    try {
      await this.#session.run('go back to a savepoint', [`ROLLBACK TO SAVEPOINT ${savepoint}`]);
    } catch (error) {
      if (errorNumber(error) !== NO_SUCH_SAVEPOINT) throw error;
      throw new SluiceError('DEADLOCK', 'the server had ended the transaction', { cause: error });
    }
  }
}

async function makeSender(session: Session): Promise<Sender> {
  await session.run('say how events are laid out', [
    `BINLOG '${formatDescription().toString('base64')}'`,
    `SET @sluice_rest = ''`,
  ]);
  return {
    setRows: await ExecutePacket.prepare(session, 'send rows', 'SET @sluice_rows = ?'),
    apply: queryPacket('BINLOG @sluice_rows, @sluice_rest'),
    out: Buffer.allocUnsafeSlow(LARGEST_EVENTS),
    buffers: [],
  };
}

interface Counters {
  readonly written: number;
  readonly updated: number;
}

function countersOf(rows: readonly Row[]): Counters {
  const of = (name: string) =>
    numberOf(
      rows.find((row) => row['Variable_name'] === name),
      'Value',
    ) ?? Number.NaN;
  return { written: of('Handler_write'), updated: of('Handler_update') };
}
