/** What a PostgreSQL server lacks for its role, each with the statements that mend it (manual: "Logical Replication", Configuration and Security). */
import type { Finding } from '../../model/findings.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import type { Preflight } from '../contract.ts';
import type { Connection, Row } from './connection.ts';
import { quoteIdentifier } from './sql.ts';
import { tableFindings } from './preflight-tables.ts';

/** One row. The membership is asked for by name because Amazon's role exists only there. */
const SERVER = `
  SELECT current_setting('server_version_num')::int / 10000 AS major, current_setting('server_version') AS version,
    current_setting('wal_level') AS wal_level, pg_catalog.pg_is_in_recovery() AS recovery,
    r.rolname AS role, r.rolsuper AS super,
    r.rolsuper OR r.rolreplication OR EXISTS (
      SELECT FROM pg_catalog.pg_roles g
      WHERE g.rolname = 'rds_replication' AND pg_catalog.pg_has_role(r.oid, g.oid, 'USAGE')) AS replication,
    pg_catalog.current_database() AS database,
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create,
    current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS free_slots,
    current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders()) AS free_senders,
    EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.slot_name LIKE 'sluice%' OR s.slot_name = $1) AS has_slot,
    EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE p.pubname = $2) AS has_publication
  FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`;

/** One row a table that was asked for and exists. */
const TABLES = `
  SELECT (w.n - 1)::text AS i, c.relkind AS kind, c.relpersistence AS persistence, c.relreplident AS identity,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
    pg_catalog.has_schema_privilege(s.oid, 'USAGE') AS usage,
    pg_catalog.has_table_privilege(c.oid, 'SELECT') OR NOT EXISTS (
      SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')) AS readable,
    pg_catalog.row_security_active(c.oid) AS filtered,
    EXISTS (SELECT FROM pg_catalog.pg_publication_tables p
            WHERE p.pubname = $3 AND p.schemaname = s.nspname AND p.tablename = c.relname) AS published,
    (SELECT i.indexrelid::regclass::text FROM pg_catalog.pg_index i
     WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid) AS primary_key,
    (SELECT ic.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
     WHERE i.indrelid = c.oid AND i.indisunique AND NOT i.indisprimary AND i.indisvalid AND i.indimmediate
       AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS (
         SELECT FROM pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(number, place)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
         WHERE k.place <= i.indnkeyatts AND NOT a.attnotnull)
     ORDER BY ic.relname COLLATE "C" LIMIT 1) AS unique_index,
    (SELECT ic.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
     WHERE i.indrelid = c.oid AND i.indisreplident) AS identity_index,
    (SELECT EXISTS (
       SELECT FROM pg_catalog.unnest(p.indkey::smallint[]) AS k(number) WHERE k.number <> ALL (i.indkey::smallint[]))
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_index p ON p.indrelid = i.indrelid AND p.indisprimary
     WHERE i.indrelid = c.oid AND i.indisreplident) AS key_outside,
    (SELECT pg_catalog.string_agg(pg_catalog.format('ALTER TABLE %I.%I REPLICA IDENTITY %s;', ln.nspname, leaf.relname,
       CASE WHEN pk.indexrelid IS NULL THEN 'FULL' ELSE 'DEFAULT' END), E'\\n' ORDER BY leaf.oid)
     FROM pg_catalog.pg_partition_tree(c.oid) p
     JOIN pg_catalog.pg_class leaf ON leaf.oid = p.relid JOIN pg_catalog.pg_namespace ln ON ln.oid = leaf.relnamespace
     LEFT JOIN pg_catalog.pg_index pk ON pk.indrelid = leaf.oid AND pk.indisprimary
     WHERE p.isleaf AND c.relkind = 'p'
       AND (leaf.relreplident = 'n' OR leaf.relreplident = 'd' AND pk.indexrelid IS NULL)) AS leaf_fixes
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(schema, name, n)
  JOIN pg_catalog.pg_namespace s ON s.nspname = w.schema
  JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')`;

/** The oldest version this engine is tested with: TID range scans, pgoutput's streaming and truncate came by then. */
const MINIMUM_VERSION = 14;

export class PostgresPreflight implements Preflight {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async source(tables: readonly TableName[], options: { cdc: boolean }): Promise<Finding[]> {
    const { publication, slot } = this.#connection.options;
    const facts = await this.#server(slot, publication);
    const findings = versionFindings(facts);
    const role = facts['role'] ?? '';
    if (options.cdc) findings.push(...replicationFindings(facts, { publication, slot }));
    if (tables.length === 0) return findings;
    const rows = await this.#connection.query('check the source tables', TABLES, [
      tables.map((name) => name.schema),
      tables.map((name) => name.table),
      publication ?? '',
    ]);
    const byIndex = new Map(rows.map((row) => [Number(row['i']), row]));
    for (const [i, name] of tables.entries()) {
      const row = byIndex.get(i);
      if (!row)
        findings.push(
          finding(
            'SOURCE_TABLE_MISSING',
            'error',
            `table ${displayName(name)} does not exist in ${this.#connection.database}`,
          ),
        );
      else findings.push(...tableFindings(name, row, { role, publication, cdc: options.cdc }));
    }
    return findings;
  }

  async destination(): Promise<Finding[]> {
    const facts = await this.#server(null, null);
    const findings = versionFindings(facts);
    const role = quoteIdentifier(facts['role'] ?? '');
    const database = quoteIdentifier(facts['database'] ?? '');
    if (facts['recovery'] === 't')
      findings.push(
        finding('PERMISSION_DENIED', 'error', 'the destination is a standby (in recovery) and takes no writes', []),
      );
    const [schema] = await this.#connection.query(
      'check the schema sluice',
      `SELECT coalesce(bool_or(pg_catalog.has_schema_privilege(oid, 'CREATE')), false) AS may_create
       FROM pg_catalog.pg_namespace WHERE nspname = 'sluice'`,
    );
    if (facts['may_create'] !== 't' && schema?.['may_create'] !== 't')
      findings.push(
        finding(
          'PERMISSION_DENIED',
          'error',
          `role ${role} may not create the schema "sluice" in database ${database}`,
          [`GRANT CREATE ON DATABASE ${database} TO ${role};`],
        ),
      );
    if (!(await this.#maySuspend(facts)))
      findings.push(
        finding(
          'DESTINATION_GUARDED',
          'warning',
          `role ${role} may not set session_replication_role: triggers and foreign keys of the destination act on every row`,
          [
            Number(facts['major']) >= 15
              ? `GRANT SET ON PARAMETER session_replication_role TO ${role};`
              : `ALTER ROLE ${role} SUPERUSER;`,
          ],
        ),
      );
    return findings;
  }

  async #maySuspend(facts: Row): Promise<boolean> {
    if (facts['super'] === 't') return true;
    if (Number(facts['major']) < 15) return false; // before 15 there is no such grant, and the function is missing
    const [row] = await this.#connection.query(
      'check the right to set session_replication_role',
      `SELECT pg_catalog.has_parameter_privilege('session_replication_role', 'SET') AS may_set`,
    );
    return row?.['may_set'] === 't';
  }

  async #server(slot: string | null, publication: string | null): Promise<Row> {
    const [row] = await this.#connection.query('check the server', SERVER, [slot ?? '', publication ?? '']);
    return row ?? {};
  }
}

function finding(
  code: Finding['code'],
  severity: Finding['severity'],
  message: string,
  fixSql: readonly string[] = [],
): Finding {
  return { code, severity, message, fixSql };
}

function versionFindings(facts: Row): Finding[] {
  if (Number(facts['major']) >= MINIMUM_VERSION) return [];
  const message = `PostgreSQL ${facts['version'] ?? '?'} is older than ${MINIMUM_VERSION}, the oldest version supported`;
  return [finding('CAPABILITY_MISSING', 'error', message)];
}

function replicationFindings(facts: Row, given: { publication: string | null; slot: string | null }): Finding[] {
  const findings: Finding[] = [];
  const role = quoteIdentifier(facts['role'] ?? '');
  const database = quoteIdentifier(facts['database'] ?? '');
  if (facts['wal_level'] !== 'logical')
    findings.push(
      finding(
        'CDC_NOT_READY',
        'error',
        `wal_level is ${facts['wal_level'] ?? '?'}; changes are decoded at "logical" only`,
        [
          'ALTER SYSTEM SET wal_level = logical;',
          '-- then restart the server (Amazon RDS: rds.logical_replication = 1 in the parameter group)',
        ],
      ),
    );
  if (facts['replication'] !== 't')
    findings.push(
      finding('PERMISSION_DENIED', 'error', `role ${role} may not replicate`, [
        `ALTER ROLE ${role} REPLICATION;`,
        `-- Amazon RDS: GRANT rds_replication TO ${role};`,
      ]),
    );
  if (given.publication === null) {
    if (facts['may_create'] !== 't')
      findings.push(
        finding('PERMISSION_DENIED', 'error', `role ${role} may not create a publication in database ${database}`, [
          `GRANT CREATE ON DATABASE ${database} TO ${role};`,
        ]),
      );
  } else if (facts['has_publication'] !== 't')
    findings.push(
      finding(
        'CDC_NOT_READY',
        'error',
        `publication ${given.publication}, named in the connection string, does not exist`,
        [`CREATE PUBLICATION ${quoteIdentifier(given.publication)};`],
      ),
    );
  // A stream that has its slot goes on when all others are taken.
  const severity = facts['has_slot'] === 't' ? 'warning' : 'error';
  for (const [fact, setting, what] of [
    ['free_slots', 'max_replication_slots', 'replication slot'],
    ['free_senders', 'max_wal_senders', 'WAL sender'],
  ] as const)
    if (Number(facts[fact]) < 1)
      findings.push(
        finding('CDC_SLOTS_EXHAUSTED', severity, `no ${what} is free (${setting})`, [
          `ALTER SYSTEM SET ${setting} = …;`,
          '-- then restart the server, or drop slots that nobody needs: SELECT * FROM pg_replication_slots WHERE NOT active;',
        ]),
      );
  return findings;
}
