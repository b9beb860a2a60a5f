/**
 * The change stream of a server: its binary log, of which the changes of the wanted databases are handed out. Nothing is made at the
 * source, and nothing is acknowledged to it: what it still has is checked on every start (invariant 5).
 */
import { SluiceError } from '../../model/errors.ts';
import type { Position, PositionOrder } from '../../model/position.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import type { ChangeSource, ReadOptions, SourceObject, StreamHealth } from '../contract.ts';
import { gap, type Start } from './binlog/binary-log.ts';
import { dumpCommand, dumpGtidCommand } from './binlog/connection.ts';
import { BinlogDecoder } from './binlog/decoder.ts';
import { decoderOf } from './binlog/values.ts';
import { describeTables } from './catalog.ts';
import { MysqlChangeReader } from './change-reader.ts';
import type { Connection, Session } from './connection.ts';
import { binaryLogOf } from './binlog/log-of-server.ts';
import { askForLog, leaveLog } from './binlog/log-session.ts';
import { logSettings } from './binlog/log-settings.ts';
import { comparePositions, formatPosition, parsePosition } from './binlog/position.ts';
import { PreparedXaLog } from './binlog/prepared-xa-log.ts';
import { WantedSchemas } from './binlog/wanted-schemas.ts';
import { parseNativeType } from './types.ts';

/** Native types whose form in the log is not told apart there from bytes. */
const UNREADABLE: ReadonlySet<string> = new Set(['vector']);

/** A key is read from the log, or its row cannot be found: other values of such character sets are fetched. */
function requireReadableKey(table: Table, key: readonly string[]): void {
  const columns = table.columns.filter(
    ({ name, collation }) =>
      key.includes(name) &&
      collation !== null &&
      collation !== 'binary' &&
      decoderOf(collation.split('_')[0] ?? '') === null,
  );
  if (columns.length === 0) return;
  throw new SluiceError(
    'CAPABILITY_MISSING',
    `${displayName(table.name)}: the key’s character set is not read from the binary log (${columns.map((column) => column.name).join(', ')})`,
    {
      hint: 'Copy the table without changes (cdc_enabled = 0), or convert the column: ALTER TABLE … MODIFY … CHARACTER SET utf8mb4.',
    },
  );
}

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
      const log = binaryLogOf(session);
      return formatPosition(await log.visiblePlace(session, await log.identity(session)));
    });
    return { start, floor: null, created: false, objects: [] };
  }

  async read(_stream: string, from: Position, options: ReadOptions): Promise<MysqlChangeReader> {
    const place = parsePosition(from);
    if (place === null) throw gap('the stored position is not one of this engine');
    const session = await this.#connection.open();
    try {
      const log = binaryLogOf(session);
      const server = await log.identity(session);
      if (server !== place.server) throw gap('the source is another server than the one it was');
      await this.#check(session);
      const start = await log.find(session, place);
      const decoder = await this.#decoder(session, start, options.schemas ?? ['']);
      const connection = await askForLog(session, (id) =>
        start.by === null ? dumpCommand(start.place, id) : dumpGtidCommand(start.by, id),
      );
      const preparedLog = new PreparedXaLog(this.#connection, decoder.xas);
      const release = async () => {
        await Promise.all([preparedLog.close(), leaveLog(this.#connection, session)]);
      };
      return new MysqlChangeReader({ connection, decoder, preparedLog, server, release }, start.place, options);
    } catch (error) {
      await leaveLog(this.#connection, session);
      throw error;
    }
  }

  /** The log holds every table already; what was committed before must be visible to who reads next. */
  async include(_stream: string, table: Table, key?: readonly string[]): Promise<{ objects: SourceObject[] }> {
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
    requireReadableKey(table, key ?? table.keys.find((each) => each.primary)?.columns ?? []);
    await this.#connection.use(async (session) => {
      await binaryLogOf(session).waitUntilVisible(session, 'include a table in the stream');
    });
    return { objects: [] };
  }

  exclude(): Promise<void> {
    return Promise.resolve();
  }

  end(): Promise<Position> {
    return this.#connection.use(async (session) => {
      // A log that holds no rows would be waited for in vain.
      await this.#check(session);
      const log = binaryLogOf(session);
      return formatPosition(await log.end(session, await log.identity(session)));
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
    if (!finding) return;
    const { code, message, fixSql, losesChanges } = finding;
    throw new SluiceError(code, message, { hint: fixSql.join(' '), losesChanges });
  }

  async #decoder(session: Session, { place, gtids }: Start, schemas: readonly string[]): Promise<BinlogDecoder> {
    const rows = await session.query('read the server’s collations', binaryLogOf(session).collationsSql);
    const [log] = await session.query('read the log’s checksums', 'SELECT @@global.binlog_checksum AS checksum');
    const charsets = new Map(rows.map((row) => [Number(row['id']), String(row['name'])]));
    const { database } = this.#connection;
    return new BinlogDecoder(
      { ...place, gtids },
      {
        isMariaDb: session.kind.isMariaDb,
        schemas: new WantedSchemas(schemas, database, session.kind.foldsNames),
        charsets,
        hasChecksums: log?.['checksum'] !== 'NONE',
        describe: (table) =>
          this.#connection.use(async (other) => {
            const [now] = await describeTables(other, [table], database);
            if (!now) return null;
            const types = new Map(now.columns.map((column) => [column.name, column.nativeType]));
            return { id: now.id, columns: [...types.keys()], types };
          }),
      },
    );
  }
}
