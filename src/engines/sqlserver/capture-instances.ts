/**
 * What the source says of its capture: how far it has come, which capture instances there are, and what they hold (SQL Server
 * manual, "Change data capture tables"). Everything is read from schema cdc itself: `SELECT ON SCHEMA::cdc` is all a login needs.
 */
import { SluiceError } from '../../model/errors.ts';
import type { TableName } from '../../model/tables.ts';
import type { Connection, Row, Session } from './connection.ts';
import { lsnBytes, lsnOf, type Incarnation, type Lsn } from './position.ts';
import { quoteIdentifier } from './sql.ts';
import { nativeTypeOf } from './types.ts';

export interface CaptureInstance {
  /** Object id of the change table: another one under the same name is another instance (F13). */
  readonly id: number;
  readonly name: string;
  readonly sourceId: number;
  readonly table: TableName;
  /** Low endpoint: changes below it were discarded, or were never captured. Null: not established yet. */
  readonly min: Lsn | null;
  /** Orders the (at most two) instances of a table. */
  readonly createdAt: number;
}

/** A row of `cdc.lsn_time_mapping`. */
export interface Captured {
  readonly lsn: Lsn;
  /** By the server's own clock and zone, ms. */
  readonly time: number;
}

export interface SourceState extends Incarnation {
  readonly isCdcEnabled: boolean;
  /** CDC is on, but this login may not read schema cdc. */
  readonly isHidden: boolean;
  /** The database user of our login. */
  readonly user: string;
  /** The server's local time, ms, and what makes UTC of such. */
  readonly now: number;
  readonly toUtc: number;
  /** The highest LSN captured, idle rows included. */
  readonly last: Captured | null;
  readonly instances: readonly CaptureInstance[];
}

/** One look at the source: how far the next read goes, and what moved. */
export interface Look extends SourceState {
  /** End of the next read; null: nothing new. */
  readonly to: Captured | null;
  /** Transactions up to there. */
  readonly transactions: number;
  /** Ids of those instances asked about that hold changes up to there. */
  readonly moved: ReadonlySet<number>;
  /** Of the instances whose columns were asked for; none where nothing is new. */
  readonly columns: CapturedColumns;
}

/** Azure SQL Database (edition 5) has no recovery forks to show; others show them to who may see definitions. */
const DATABASE = `
SELECT N'database' AS what, d.is_cdc_enabled AS enabled, d.create_date AS created, GETDATE() AS now, GETUTCDATE() AS utc,
  OBJECT_ID(N'cdc.lsn_time_mapping') AS mapping, CAST(USER_NAME() AS nvarchar(128)) AS user_name
FROM sys.databases d WHERE d.database_id = DB_ID();
IF CAST(SERVERPROPERTY('EngineEdition') AS int) <> 5
  SELECT N'fork' AS what, CONVERT(nvarchar(36), r.recovery_fork_guid) AS fork FROM sys.database_recovery_status r WHERE r.database_id = DB_ID();`;

const LAST = `SELECT TOP (1) N'last' AS what, m.start_lsn AS lsn, m.tran_end_time AS ended FROM cdc.lsn_time_mapping m ORDER BY m.start_lsn DESC;`;

/** After everything else of a look (invariant 5): cleanup raises start_lsn before it deletes. */
const INSTANCES = `
SELECT N'instance' AS what, c.object_id AS id, c.source_object_id AS source, CAST(c.capture_instance AS nvarchar(128)) AS name, c.start_lsn AS lsn,
  c.create_date AS created, CAST(OBJECT_SCHEMA_NAME(c.source_object_id) AS nvarchar(128)) AS schema_name,
  CAST(OBJECT_NAME(c.source_object_id) AS nvarchar(128)) AS table_name
FROM cdc.change_tables c;`;

/** What `stateOf` reads. */
export const STATE = `${DATABASE} IF OBJECT_ID(N'cdc.lsn_time_mapping') IS NOT NULL BEGIN ${LAST} ${INSTANCES} END;`;

/** Branches of one UNION ALL: few enough to compile at once. */
const PROBES = 50;

export function stateOf(rows: readonly Row[]): SourceState {
  const database = rows.find((row) => row['what'] === 'database');
  if (!database) throw new SluiceError('INTERNAL', 'the server does not describe its own database');
  const last = rows.find((row) => row['what'] === 'last');
  const fork = rows.find((row) => row['what'] === 'fork')?.['fork'];
  const now = timeOf(database['now']);
  return {
    isCdcEnabled: database['enabled'] === true,
    user: String(database['user_name'] ?? ''),
    isHidden: database['enabled'] === true && database['mapping'] === null,
    database: timeOf(database['created']).toString(36),
    fork: typeof fork === 'string' ? fork.toUpperCase() : null,
    now,
    toUtc: timeOf(database['utc']) - now,
    last: last ? captured(last) : null,
    instances: instancesOf(rows),
  };
}

function instancesOf(rows: readonly Row[]): CaptureInstance[] {
  return rows.flatMap((row) => {
    const { schema_name: schema, table_name: table } = row;
    // Not visible to this login: not a table that it could copy either.
    if (row['what'] !== 'instance' || typeof schema !== 'string' || typeof table !== 'string') return [];
    return [
      {
        id: Number(row['id']),
        name: String(row['name']),
        sourceId: Number(row['source']),
        table: { schema, table },
        min: row['lsn'] instanceof Uint8Array ? lsnOf(row['lsn']) : null,
        createdAt: timeOf(row['created']),
      },
    ];
  });
}

function captured(row: Row): Captured {
  const { lsn } = row;
  if (!(lsn instanceof Uint8Array)) throw new SluiceError('INTERNAL', 'the server sent no LSN');
  return { lsn: lsnOf(lsn), time: timeOf(row['ended']) };
}

function timeOf(value: Row[string] | undefined): number {
  return value instanceof Date ? value.getTime() : 0;
}

/** The state of the source in one round trip. */
export async function readState(connection: Connection | Session): Promise<SourceState> {
  return stateOf(await connection.query('look at the change capture of the source', `SET NOCOUNT ON; ${STATE}`));
}

/** How far a look goes: `limit` transactions from `from`, and not beyond `stop`. */
export interface LookRange {
  readonly from: Lsn;
  readonly stop: Lsn | null;
  readonly limit: number;
}

/**
 * One round trip (DESIGN §4): how far capture has come, what moved among `known`, the columns of `columnsOf` (ids), and then each
 * instance's low endpoint.
 */
export async function look(
  session: Session,
  range: LookRange,
  known: readonly CaptureInstance[],
  columnsOf: readonly number[] = [],
): Promise<Look> {
  const probes: string[] = [];
  for (let at = 0; at < known.length; at += PROBES) {
    const branches = known
      .slice(at, at + PROBES)
      .map(
        ({ id, name }) =>
          `SELECT N'moved' AS what, ${id} AS id WHERE EXISTS (SELECT 1 FROM ${changeTable(name)} c WHERE c.[__$start_lsn] > @low AND c.[__$start_lsn] <= @high)`,
      );
    probes.push(`${branches.join(' UNION ALL ')};`);
  }
  const rows = await session.query(
    'look for changes at the source',
    `SET NOCOUNT ON; DECLARE @low binary(10), @top binary(10), @high binary(10), @ended datetime, @transactions int;
     SELECT @low = CAST(@from AS binary(10)), @top = CAST(@stop AS binary(10));
     ${DATABASE}
     IF OBJECT_ID(N'cdc.lsn_time_mapping') IS NOT NULL
     BEGIN
       ${LAST}
       SELECT TOP (1) @high = w.start_lsn, @ended = w.tran_end_time FROM (
         SELECT TOP (@limit) m.start_lsn, m.tran_end_time FROM cdc.lsn_time_mapping m
         WHERE m.start_lsn > @low AND m.start_lsn <= @top ORDER BY m.start_lsn) w ORDER BY w.start_lsn DESC;
       IF @high IS NOT NULL
       BEGIN
         SELECT @transactions = COUNT(*) FROM cdc.lsn_time_mapping m WHERE m.start_lsn > @low AND m.start_lsn <= @high AND m.tran_id <> 0x00;
         SELECT N'to' AS what, @high AS lsn, @ended AS ended, @transactions AS transactions;
         IF @transactions > 0 BEGIN SELECT N'moved' AS what, 0 AS id WHERE 1 = 0; ${probes.join('\n')} ${columnsOf.length > 0 ? columnsSql(columnsOf) : ''} END
       END
       ${INSTANCES}
     END`,
    { from: lsnBytes(range.from), stop: lsnBytes(range.stop ?? 'F'.repeat(20)), limit: range.limit },
  );
  const to = rows.find((row) => row['what'] === 'to');
  return {
    ...stateOf(rows),
    to: to ? captured(to) : null,
    transactions: Number(to?.['transactions'] ?? 0),
    moved: new Set(rows.flatMap((row) => (row['what'] === 'moved' ? [Number(row['id'])] : []))),
    columns: to ? columnsOfRows(columnsOf, rows) : new Map<number, CapturedColumn[]>(),
  };
}

/** The last commit below `below` and above `above`; null: there is none. */
export async function commitBefore(session: Session, above: Lsn, below: Lsn): Promise<Captured | null> {
  const [row] = await session.query(
    'look for the end of a transaction',
    `SELECT TOP (1) m.start_lsn AS lsn, m.tran_end_time AS ended FROM cdc.lsn_time_mapping m
     WHERE m.start_lsn > CAST(@above AS binary(10)) AND m.start_lsn < CAST(@below AS binary(10)) ORDER BY m.start_lsn DESC`,
    { above: lsnBytes(above), below: lsnBytes(below) },
  );
  return row ? captured(row) : null;
}

export interface CapturedColumn {
  /** As the source's table has it now. */
  readonly name: string;
  /** Of the change table's column: what is selected. */
  readonly column: string;
  readonly nativeType: string;
  /** Bit of `__$update_mask`, from 1. */
  readonly ordinal: number;
  /** NULL in an update may mean that it did not change. */
  readonly isLarge: boolean;
  /** In the primary key or a unique index of the source's table. */
  readonly isKey: boolean;
}

export type CapturedColumns = ReadonlyMap<number, readonly CapturedColumn[]>;

/** The columns of these instances that hold values of their own, by instance, in one round trip. */
export async function capturedColumns(
  connection: Connection | Session,
  ids: readonly number[],
): Promise<CapturedColumns> {
  const rows = ids.length === 0 ? [] : await connection.query('read the captured columns', columnsSql(ids));
  return columnsOfRows(ids, rows);
}

function columnsSql(ids: readonly number[]): string {
  const list = ids.join(', ');
  // Of CLR types only the user type says which one it is.
  return `SELECT N'column' AS what, cc.object_id AS id, cc.column_ordinal AS ordinal, CAST(cc.column_name AS nvarchar(128)) AS captured, cc.column_id AS source_column,
       CAST(COALESCE(s.name, cc.column_name) AS nvarchar(128)) AS name, s.is_computed AS computed, TYPE_NAME(s.system_type_id) AS source_type,
       CASE c.system_type_id WHEN 240 THEN TYPE_NAME(c.user_type_id) ELSE TYPE_NAME(c.system_type_id) END AS type_name,
       c.max_length AS max_length, c.precision AS precision_digits, c.scale AS scale_digits
     FROM cdc.captured_columns cc
     JOIN cdc.change_tables t ON t.object_id = cc.object_id
     JOIN sys.columns c ON c.object_id = cc.object_id AND c.name = cc.column_name
     LEFT JOIN sys.columns s ON s.object_id = t.source_object_id AND s.column_id = cc.column_id
     WHERE cc.object_id IN (${list}) ORDER BY cc.object_id, cc.column_ordinal;
     SELECT DISTINCT N'key' AS what, t.object_id AS id, ic.column_id AS source_column
     FROM cdc.change_tables t
     JOIN sys.indexes i ON i.object_id = t.source_object_id AND i.is_unique = 1
     JOIN sys.index_columns ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id AND ic.is_included_column = 0
     WHERE t.object_id IN (${list});`;
}

function columnsOfRows(ids: readonly number[], rows: readonly Row[]): CapturedColumns {
  const columns = new Map<number, CapturedColumn[]>(ids.map((id) => [id, []]));
  const keys = new Set(
    rows.filter((row) => row['what'] === 'key').map((row) => `${String(row['id'])}.${String(row['source_column'])}`),
  );
  for (const row of rows) {
    // Computed columns are NULL in change tables; a rowversion is the source's own.
    if (row['what'] !== 'column' || row['computed'] === true || row['source_type'] === 'timestamp') continue;
    const name = String(row['type_name']);
    const maxLength = Number(row['max_length']);
    columns.get(Number(row['id']))?.push({
      name: String(row['name']),
      column: String(row['captured']),
      nativeType: nativeTypeOf({
        name,
        maxLength,
        precision: Number(row['precision_digits']),
        scale: Number(row['scale_digits']),
      }),
      ordinal: Number(row['ordinal']),
      isLarge: maxLength === -1 || LARGE.has(name),
      isKey: keys.has(`${String(row['id'])}.${String(row['source_column'])}`),
    });
  }
  return columns;
}

const LARGE: ReadonlySet<string> = new Set(['text', 'ntext', 'image', 'xml', 'json', 'geometry', 'geography']);

export function changeTable(instance: string): string {
  return `[cdc].${quoteIdentifier(`${instance}_CT`)}`;
}
