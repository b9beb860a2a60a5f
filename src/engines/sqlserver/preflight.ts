/** What a SQL Server lacks for its role, each with the statements that mend it (manual: "Enable and disable change data capture"). */
import type { Finding } from '../../model/findings.ts';
import { displayName, tableKey, type TableName } from '../../model/tables.ts';
import type { Preflight } from '../contract.ts';
import { capturedColumns, type CapturedColumn } from './capture-instances.ts';
import { readHealth, type CaptureHealth } from './capture-health.ts';
import { chainOf } from './captures.ts';
import type { Connection, Row } from './connection.ts';
import { anotherName, disableTable, enableTable, ENABLE_DATABASE, grantCapture } from './source-state.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';

/** SQL Server 2019. A stand-in calls itself older, and Azure has versions of its own (editions 5 and 8). */
const MINIMUM_VERSION = 15;
const SHORT_RETENTION_SECONDS = 24 * 3600;
/** The default of `max text repl size`: an INSERT of more into a captured table fails at the source (error 7139). */
const TEXT_LIMIT = 65_536;

const SERVER = `
SELECT CAST(DB_NAME() AS nvarchar(128)) AS database_name, CAST(USER_NAME() AS nvarchar(128)) AS user_name, CAST(SUSER_SNAME() AS nvarchar(128)) AS login_name,
  CAST(SERVERPROPERTY('ProductMajorVersion') AS nvarchar(20)) AS major, CAST(SERVERPROPERTY('EngineEdition') AS int) AS edition,
  CAST(SERVERPROPERTY('BabelfishVersion') AS nvarchar(20)) AS stand_in,
  CASE WHEN IS_SRVROLEMEMBER('sysadmin') = 1 OR IS_MEMBER('db_owner') = 1 THEN 1 ELSE 0 END AS owner,
  CAST(DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS nvarchar(20)) AS updateability,
  HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') AS sees_database,
  HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'CREATE SCHEMA') AS may_create,
  (SELECT TOP (1) CAST(c.value_in_use AS bigint) FROM sys.configurations c WHERE c.configuration_id = 1536) AS text_limit`;

/** One row a table; `id` is NULL for what is missing or hidden. */
const tablesSql = (names: readonly TableName[]) => `
SELECT w.n AS n, OBJECT_ID(w.t) AS id, HAS_PERMS_BY_NAME(w.t, N'OBJECT', N'SELECT') AS readable,
  (SELECT COUNT(*) FROM sys.partitions p WHERE p.object_id = OBJECT_ID(w.t) AND p.index_id IN (0, 1)) AS partitions,
  (SELECT COUNT(*) FROM sys.columns c WHERE c.object_id = OBJECT_ID(w.t)
     AND (c.max_length = -1 OR TYPE_NAME(c.system_type_id) IN (N'text', N'ntext', N'image', N'xml'))) AS large_columns
FROM (VALUES ${names.map((name, n) => `(${n}, ${quoteLiteral(quoteTable(name))})`).join(', ')}) AS w(n, t) ORDER BY w.n`;

const switchSql = (ids: readonly number[]) =>
  `SELECT c.object_id AS id, c.partition_switch AS allowed FROM cdc.change_tables c WHERE c.object_id IN (${ids.join(', ')})`;

const columnsSql = (ids: readonly number[]) =>
  `SELECT c.object_id AS id, CAST(c.name AS nvarchar(128)) AS name FROM sys.columns c
   WHERE c.object_id IN (${ids.join(', ')}) AND c.is_computed = 0 AND TYPE_NAME(c.system_type_id) <> N'timestamp'`;

export class SqlServerPreflight implements Preflight {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async source(tables: readonly TableName[], options: { cdc: boolean }): Promise<Finding[]> {
    const facts = await this.#server();
    const findings = versionFindings(facts);
    const rows = tables.length === 0 ? [] : await this.#connection.query('check the source tables', tablesSql(tables));
    const present: TableName[] = [];
    for (const [n, name] of tables.entries()) {
      const row = rows[n];
      if (row?.['id'] == null)
        findings.push(
          finding(
            'SOURCE_TABLE_MISSING',
            `table ${displayName(name)} does not exist in ${facts.database}, or user ${facts.user} may not see it`,
            [`GRANT SELECT ON ${quoteTable(name)} TO ${quoteIdentifier(facts.user)};`],
          ),
        );
      else {
        present.push(name);
        if (row['readable'] !== 1)
          findings.push(
            finding('PERMISSION_DENIED', `user ${facts.user} may not read ${displayName(name)}`, [
              `GRANT SELECT ON ${quoteTable(name)} TO ${quoteIdentifier(facts.user)};`,
            ]),
          );
      }
    }
    if (!options.cdc) return findings;
    const large = tables.filter((_, n) => Number(rows[n]?.['large_columns'] ?? 0) > 0);
    if (facts.textLimit !== null && facts.textLimit >= 0 && facts.textLimit <= TEXT_LIMIT && large.length > 0)
      findings.push(
        finding(
          'CDC_NOT_READY',
          `values of more than ${facts.textLimit} bytes cannot be written to ${large.map(displayName).join(', ')} while it is captured (max text repl size)`,
          [`EXEC sp_configure 'max text repl size (B)', -1; RECONFIGURE;`],
          'warning',
        ),
      );
    const partitioned = tables.filter((_, n) => Number(rows[n]?.['partitions'] ?? 0) > 1);
    findings.push(...(await this.#capture(facts, present, partitioned)));
    return findings;
  }

  async destination(): Promise<Finding[]> {
    const facts = await this.#server();
    const findings = versionFindings(facts);
    if (facts.isReadOnly)
      findings.push(
        finding('PERMISSION_DENIED', `database ${facts.database} is read-only here: it cannot be a destination`),
      );
    else if (!facts.isOwner && !facts.mayCreateSchema)
      findings.push(
        finding(
          'PERMISSION_DENIED',
          `user ${facts.user} may not create the schema "sluice" in database ${facts.database}`,
          [`ALTER ROLE db_owner ADD MEMBER ${quoteIdentifier(facts.user)};`],
        ),
      );
    return findings;
  }

  /** Statements in the order in which they must run: the database first, then rights in the schema that it makes, then tables. */
  async #capture(facts: Facts, tables: readonly TableName[], partitioned: readonly TableName[]): Promise<Finding[]> {
    const health = await readHealth(this.#connection, tables);
    const { state } = health;
    const findings: Finding[] = [];
    const primary = facts.isReadOnly ? '; this is a read-only replica: run it on the primary' : '';
    if (!state.isCdcEnabled)
      findings.push(
        finding('CDC_NOT_READY', `change data capture is not enabled for database ${facts.database}${primary}`, [
          `USE ${quoteIdentifier(facts.database)};`,
          ENABLE_DATABASE,
        ]),
      );
    // The schema's owner and whoever owns the database may read it already.
    if (state.isHidden || (!state.isCdcEnabled && !facts.isOwner))
      findings.push(
        finding(
          'PERMISSION_DENIED',
          `user ${facts.user} may not read schema cdc, where changes are recorded${primary}`,
          [grantCapture(facts.user)],
        ),
      );
    if (!facts.seesDatabase)
      findings.push(
        finding(
          'PERMISSION_DENIED',
          `user ${facts.user} may not see the end of the log nor errors of the capture job: copies end a little later, and such an error shows as silence only`,
          [`GRANT VIEW DATABASE STATE TO ${quoteIdentifier(facts.user)};`],
          'info',
        ),
      );
    if (state.isCdcEnabled) findings.push(...health.stream, ...retentionFindings(health));
    if (state.isHidden) return findings;
    const instances = state.instances.filter(({ table }) => tables.some((name) => isSame(table, name)));
    const columns = await capturedColumns(
      this.#connection,
      instances.map(({ id }) => id),
    );
    const ids = instances.map(({ id }) => id);
    const switches =
      ids.length > 0 && partitioned.length > 0
        ? await this.#connection.query('check partition switching', switchSql(ids))
        : [];
    const held =
      instances.length === 0
        ? []
        : await this.#connection.query('check captured columns', columnsSql(instances.map(({ sourceId }) => sourceId)));
    for (const name of tables) {
      const own = instances.filter(({ table }) => isSame(table, name));
      const current = chainOf(own, columns).at(-1) ?? own.at(-1);
      if (!current) {
        findings.push(
          finding('CDC_NOT_READY', `changes of ${displayName(name)} are not captured${primary}`, [enableTable(name)]),
        );
        continue;
      }
      if (columns.get(current.id)?.length === 0) {
        findings.push(
          finding(
            'PERMISSION_DENIED',
            `user ${facts.user} may not read the change table of ${displayName(name)}${primary}`,
            [grantCapture(facts.user)],
          ),
        );
        continue;
      }
      const missing = missingColumns(held, current.sourceId, columns.get(current.id) ?? []);
      if (missing.length > 0)
        findings.push(
          finding(
            'SCHEMA_MISMATCH',
            `capture instance ${current.name} of ${displayName(name)} does not hold ${missing.join(', ')}${primary}`,
            [
              ...(own.length > 1
                ? own.filter(({ id }) => id !== current.id).map((old) => disableTable(name, old.name))
                : []),
              enableTable(name, anotherName(name, own)),
            ],
          ),
        );
      const isSwitched = switches.some((row) => Number(row['id']) === current.id && row['allowed'] === true);
      if (isSwitched && partitioned.some((each) => isSame(each, name)))
        findings.push(
          finding(
            'CDC_NOT_READY',
            `partitions of ${displayName(name)} can be switched in and out, which no change tells of${primary}`,
            [disableTable(name, current.name), enableTable(name).replace(/;$/, ', @allow_partition_switch = 0;')],
            'warning',
          ),
        );
    }
    for (const { finding: found } of health.tables) findings.push(found);
    return findings;
  }

  async #server(): Promise<Facts> {
    const [row = {}] = await this.#connection.query('check the server', SERVER);
    return {
      database: String(row['database_name'] ?? ''),
      user: String(row['user_name'] ?? ''),
      major: Number(row['major'] ?? 0),
      isOwnVersioned: row['stand_in'] != null || [5, 8].includes(Number(row['edition'])),
      isOwner: row['owner'] === 1,
      isReadOnly: row['updateability'] === 'READ_ONLY',
      seesDatabase: row['sees_database'] === 1,
      mayCreateSchema: row['may_create'] === 1,
      textLimit: row['text_limit'] == null ? null : Number(row['text_limit']),
    };
  }
}

interface Facts {
  readonly database: string;
  readonly user: string;
  readonly major: number;
  /** Its version does not say what it can do. */
  readonly isOwnVersioned: boolean;
  readonly isOwner: boolean;
  readonly isReadOnly: boolean;
  readonly seesDatabase: boolean;
  readonly mayCreateSchema: boolean;
  /** Null: not visible. Negative: none. */
  readonly textLimit: number | null;
}

function finding(
  code: Finding['code'],
  message: string,
  fixSql: readonly string[] = [],
  severity: Finding['severity'] = 'error',
): Finding {
  return { code, severity, message, fixSql };
}

function versionFindings(facts: Facts): Finding[] {
  if (facts.isOwnVersioned || facts.major >= MINIMUM_VERSION) return [];
  return [finding('CAPABILITY_MISSING', 'SQL Server is older than 2019, the oldest version supported')];
}

function retentionFindings({ retentionSeconds }: CaptureHealth): Finding[] {
  if (retentionSeconds === null || retentionSeconds >= SHORT_RETENTION_SECONDS) return [];
  return [
    finding(
      'CDC_NOT_READY',
      `changes are kept for ${Math.round(retentionSeconds / 60)} minutes only: a longer interruption is a gap`,
      [`EXEC sys.sp_cdc_change_job @job_type = N'cleanup', @retention = 4320; -- minutes`],
      'warning',
    ),
  ];
}

function missingColumns(rows: readonly Row[], sourceId: number, held: readonly CapturedColumn[]): string[] {
  return rows
    .filter((row) => Number(row['id']) === sourceId)
    .map((row) => String(row['name']))
    .filter((name) => !held.some((column) => column.name === name));
}

/** As most databases' collations compare names. */
function isSame(a: TableName, b: TableName): boolean {
  return tableKey(a).toLowerCase() === tableKey(b).toLowerCase();
}
