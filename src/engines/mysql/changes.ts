/**
 * The change stream of a database of MariaDB: the server's binary log, of which the changes of this database are handed out. Nothing is made
 * at the source, and nothing is acknowledged to it: what it still has is checked on every start (invariant 5).
 */
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { Position, PositionOrder } from '../../model/position.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import type { ChangeSource, ReadOptions, SourceObject, StreamHealth } from '../contract.ts';
import { BinlogConnection } from './binlog-connection.ts';
import { BinlogDecoder } from './binlog-decoder.ts';
import { describeTables } from './catalog.ts';
import { MysqlChangeReader } from './change-reader.ts';
import type { Connection, Session } from './connection.ts';
import { logSettings } from './log-settings.ts';
import { comparePositions, formatPosition, parsePosition, type LogPlace, type Place } from './position.ts';
import { snapshotPlace, waitForSnapshot } from './snapshot-place.ts';
import { parseNativeType } from './types.ts';

/** The server sends a heartbeat when it has nothing else, ms. */
const HEARTBEAT_MS = 2_000;
const SILENCE_MS = 60_000;

/** Native types whose form in the log is not told apart there from bytes. */
const UNREADABLE: ReadonlySet<string> = new Set(['uuid', 'inet4', 'inet6', 'vector']);

export class MysqlChanges implements ChangeSource {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  compare(a: Position, b: Position): PositionOrder {
    return comparePositions(a, b);
  }

  incarnation(position: Position): string {
    return parsePosition(position)?.server ?? '';
  }

  display(position: Position): string {
    const place = parsePosition(position);
    return place === null ? position : `${place.file}:${place.offset}`;
  }

  async prepare(): Promise<{ start: Position; floor: Position | null; created: boolean; objects: SourceObject[] }> {
    const start = await this.#connection.use(async (session) => {
      await this.#check(session);
      const server = await serverOf(session);
      const place = await snapshotPlace(session);
      const gtids = await gtidsAt(session, place);
      if (gtids === null) throw new SluiceError('INTERNAL', 'the server does not know its own log’s end');
      return formatPosition({ server, ...place, gtids });
    });
    return { start, floor: null, created: false, objects: [] };
  }

  async read(_stream: string, from: Position, options: ReadOptions): Promise<MysqlChangeReader> {
    const place = parsePosition(from);
    if (place === null) throw gap('the stored position is not one of this engine');
    const session = await this.#connection.open();
    const { id } = session;
    // A reader that is gone is noticed with the next heartbeat only, and its file could not be purged until then.
    const release = async () => {
      await this.#connection.release(session);
      await this.#connection.query('end the reader', `KILL CONNECTION ${id}`).catch(() => undefined);
    };
    try {
      const server = await serverOf(session);
      if (server !== place.server) throw gap('the source is another server than the one it was');
      await this.#check(session);
      const start = await this.#find(session, place);
      const decoder = await this.#decoder(session, start, place.gtids);
      await session.run('set up the reader of the binary log', [
        `SET @master_binlog_checksum = @@global.binlog_checksum, @mariadb_slave_capability = 4, @master_heartbeat_period = ${HEARTBEAT_MS * 1_000_000}`,
      ]);
      const connection = new BinlogConnection(session, 'read the binary log', options.maxBytes);
      connection.start(start, slaveId());
      const setup = { connection, decoder, server, silenceMs: SILENCE_MS, release };
      return new MysqlChangeReader(setup, start, options);
    } catch (error) {
      session.destroy();
      await release();
      throw error;
    }
  }

  /** The log holds every table already; what was committed before must be visible to who reads next. */
  async include(_stream: string, table: Table): Promise<{ objects: SourceObject[] }> {
    const unreadable = table.columns.filter((column) => UNREADABLE.has(parseNativeType(column.nativeType).name));
    if (unreadable.length > 0) {
      const names = unreadable.map((column) => `${column.name} (${column.nativeType})`).join(', ');
      throw new SluiceError(
        'CAPABILITY_MISSING',
        `${displayName(table.name)}: changes of ${names} cannot be read from the binary log`,
        {
          hint: 'Copy the table without changes (cdc_enabled = 0).',
        },
      );
    }
    await this.#connection.use(async (session) => {
      const end = await endOfLog(session);
      await waitForSnapshot(session, end, 'include a table in the stream');
      await session.run('include a table in the stream', ['ROLLBACK']);
    });
    return { objects: [] };
  }

  exclude(): Promise<void> {
    return Promise.resolve();
  }

  end(): Promise<Position> {
    return this.#connection.use(async (session) => {
      const server = await serverOf(session);
      return formatPosition({ server, ...(await endOfLog(session)), gtids: '' });
    });
  }

  async health(_stream: string, _tables: readonly TableName[]): Promise<StreamHealth> {
    const findings = await this.#connection.use((session) => logSettings(session));
    return {
      retainedBytes: null,
      headroomBytes: null,
      stream: findings.filter((each) => each.severity === 'error'),
      tables: [],
    };
  }

  drop(): Promise<void> {
    return Promise.resolve();
  }

  async #check(session: Session): Promise<void> {
    const [finding] = (await logSettings(session)).filter((each) => each.severity === 'error');
    if (finding) throw new SluiceError(finding.code, finding.message, { hint: finding.fixSql.join(' ') });
  }

  /**
   * Where to start: the stored place, if the log up to there is the one that was stored. A file that was purged after it had been read
   * to its end is no loss: then the next one begins with the same state (F12).
   */
  async #find(session: Session, place: Place): Promise<LogPlace> {
    const gtids = await gtidsAt(session, place);
    if (gtids === place.gtids) return place;
    const files = (await session.query('list the binary logs', 'SHOW BINARY LOGS')).map((row) =>
      String(row['Log_name']),
    );
    if (gtids === null && !files.includes(place.file)) {
      const [first] = files;
      if (
        first !== undefined &&
        (await gtidsAt(session, { file: first, offset: 4 })) === place.gtids &&
        place.gtids !== ''
      )
        return { file: first, offset: 4 };
      throw gap(
        `binary log ${place.file} is no longer on the server: it was purged, or the server’s log was begun anew`,
      );
    }
    if (gtids === null)
      throw gap(
        `the stored position ${place.file}:${place.offset} lies beyond the end of the source’s log: the source was restored`,
      );
    throw gap(
      `at ${place.file}:${place.offset} the source’s log is another one than it was: the source was restored or replaced`,
    );
  }

  async #decoder(session: Session, start: LogPlace, gtids: string): Promise<BinlogDecoder> {
    const rows = await session.query(
      'read the server’s collations',
      'SELECT ID AS id, CHARACTER_SET_NAME AS name FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY WHERE ID IS NOT NULL',
    );
    const [log] = await session.query('read the log’s checksums', 'SELECT @@global.binlog_checksum AS checksum');
    const charsets = new Map(rows.map((row) => [Number(row['id']), String(row['name'])]));
    const { database } = this.#connection;
    return new BinlogDecoder(
      { ...start, gtids },
      {
        database: database ?? '',
        charsets,
        hasChecksums: log?.['checksum'] !== 'NONE',
        columnsOf: (table) =>
          this.#connection.use(async (other) => {
            const [now] = await describeTables(other, [{ schema: '', table }], database);
            return now?.columns.map((column) => column.name) ?? null;
          }),
      },
    );
  }
}

function gap(reason: string): SluiceError {
  return new SluiceError('GAP', reason, { hint: 'on_gap = resync copies the tables again.' });
}

async function serverOf(session: Session): Promise<string> {
  const [row] = await session.query(
    'identify the server',
    'SELECT @@global.server_uid AS uid, @@global.server_id AS id',
  );
  return `${String(row?.['uid'])}/${String(row?.['id'])}`;
}

/** The log's GTID state at a place; null: the log has no such place. */
async function gtidsAt(session: Session, place: LogPlace): Promise<string | null> {
  const [row] = await session
    .query('look a place of the binary log up', 'SELECT BINLOG_GTID_POS(?, CAST(? AS UNSIGNED)) AS gtids', [
      place.file,
      place.offset,
    ])
    .catch((error: unknown) => {
      if (hasCode(error, 'CONNECTION_LOST')) throw error;
      return [];
    });
  const gtids = row?.['gtids'];
  return gtids === null || gtids === undefined ? null : gtids.toString().split(',').sort(byDomain).join(',');
}

function byDomain(a: string, b: string): number {
  return Number(a.split('-')[0]) - Number(b.split('-')[0]);
}

/** The written end of the log: at or behind everything that is visible. */
async function endOfLog(session: Session): Promise<LogPlace> {
  const [row] = await session.query('find the end of the binary log', 'SHOW MASTER STATUS');
  if (!row)
    throw new SluiceError('CDC_NOT_READY', 'the source writes no binary log', {
      hint: 'Start the server with log_bin.',
    });
  return { file: String(row['File']), offset: Number(row['Position']) };
}

/** Each reader announces another replica: two of one number would end each other. */
function slaveId(): number {
  return 0x8000_0000 + Math.floor(Math.random() * 0x7fff_fffe);
}
