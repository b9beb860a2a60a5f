/** Tables as members of a publication: whether they are in it, and whether their identity lets changes be followed. */
import type { Finding } from '../../model/findings.ts';
import { displayName, type TableName } from '../../model/tables.ts';
import type { Row } from './connection.ts';
import { quoteTable } from './sql.ts';

/** What the catalog says of a table as a member of a publication. */
export interface Member {
  readonly name: TableName;
  /** Null: there is no such table, or we may not see it. */
  readonly oid: string | null;
  /** False: an unlogged or temporary table, whose changes are in no log. */
  readonly logged: boolean;
  readonly published: boolean;
  /** Columns that the publication sends; null: all (or a server that cannot choose). */
  readonly sentColumns: readonly string[] | null;
  readonly rowFilter: boolean;
  /** Columns of the replica identity; 'full': all. An empty list: no identity, updates and deletes are refused. */
  readonly identity: readonly string[] | 'full';
  /** Primary key columns in order; empty: none. */
  readonly primaryKey: readonly string[];
  /** A partition whose identity lacks columns that the table's has; its name as SQL. */
  readonly weakPartition: string | null;
  /** A unique index that could be the identity, as SQL. */
  readonly candidate: string | null;
}

/**
 * Facts of the tables named by $1 (schemas) and $2 (tables) as members of publication $3, one row each in that order (`ord`).
 * Also part of `health`'s one round trip.
 */
export const MEMBERS = `
  SELECT n.ord, n.sch, n.tab, c.oid::text AS oid, c.relpersistence::text AS persistence,
    (p.row IS NOT NULL)::text AS published, (p.row -> 'attnames')::text AS sent, (p.row ->> 'rowfilter' IS NOT NULL)::text AS filtered,
    i.kind AS identity_kind, i.columns::text AS identity,
    to_json(ARRAY(SELECT a.attname::text FROM pg_index x, unnest(x.indkey::int2[]) WITH ORDINALITY k(num, pos)
      JOIN pg_attribute a ON a.attnum = k.num WHERE x.indrelid = c.oid AND x.indisprimary AND a.attrelid = c.oid
      AND k.pos <= x.indnkeyatts ORDER BY k.pos))::text AS primary_key,
    (SELECT x.indexrelid::regclass::text FROM pg_index x WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid
       AND x.indimmediate AND x.indpred IS NULL AND x.indexprs IS NULL AND NOT EXISTS (SELECT FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum = ANY (x.indkey) AND NOT a.attnotnull)
     ORDER BY x.indisprimary DESC, x.indexrelid LIMIT 1) AS candidate,
    (SELECT t.relid::regclass::text FROM pg_partition_tree(c.oid) t, LATERAL (${identityOf('t.relid')}) l
     WHERE t.isleaf AND t.relid <> c.oid AND l.kind <> 'f'
       AND (i.kind = 'f' OR l.columns::text = '[]' OR NOT l.columns::jsonb @> i.columns::jsonb) LIMIT 1) AS weak
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY n(sch, tab, ord)
  LEFT JOIN (pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace) ON s.nspname = n.sch AND c.relname = n.tab
    AND c.relkind IN ('r', 'p')
  LEFT JOIN LATERAL (SELECT to_jsonb(v) AS row FROM pg_publication_tables v
    WHERE v.pubname = $3 AND v.schemaname = n.sch AND v.tablename = n.tab) p ON true
  LEFT JOIN LATERAL (${identityOf('c.oid')}) i ON true
  ORDER BY n.ord`;

/** A relation's replica identity: `kind` as pg_class.relreplident, `columns` as a JSON array (empty: none). */
function identityOf(relation: string): string {
  return `SELECT r.relreplident::text AS kind, to_json(ARRAY(SELECT a.attname::text FROM pg_index x
      JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1])
      WHERE x.indrelid = r.oid AND x.indisvalid AND x.indimmediate
        AND CASE r.relreplident WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE false END)) AS columns
    FROM pg_class r WHERE r.oid = ${relation}`;
}

/** Reads a row of MEMBERS. */
export function member(row: Row): Member {
  const list = (text: string | null | undefined) => JSON.parse(text ?? '[]') as string[];
  return {
    name: { schema: row['sch'] ?? '', table: row['tab'] ?? '' },
    oid: row['oid'] ?? null,
    logged: row['persistence'] === 'p',
    published: row['published'] === 'true',
    sentColumns: row['sent'] ? list(row['sent']) : null,
    rowFilter: row['filtered'] === 'true',
    identity: row['identity_kind'] === 'f' ? 'full' : list(row['identity']),
    primaryKey: list(row['primary_key']),
    weakPartition: row['weak'] ?? null,
    candidate: row['candidate'] ?? null,
  };
}

/** What is wrong with a table as something to follow; null: nothing. `key`: the columns that changes are matched by, if known. */
export function memberFinding(table: Member, key: readonly string[] | null): Finding | null {
  if (table.oid === null) return null;
  const quoted = quoteTable(table.name);
  const name = displayName(table.name);
  const fix = (relation: string) =>
    table.primaryKey.length > 0 && (key === null || same(key, table.primaryKey))
      ? `ALTER TABLE ${relation} REPLICA IDENTITY DEFAULT`
      : `ALTER TABLE ${relation} REPLICA IDENTITY FULL`;
  if (!table.logged) {
    return {
      code: 'CDC_NOT_READY',
      severity: 'error',
      message: `${name} is unlogged: its changes are in no log`,
      fixSql: [`ALTER TABLE ${quoted} SET LOGGED`],
    };
  }
  if (table.identity !== 'full' && table.identity.length === 0) {
    return {
      code: 'CDC_NOT_READY',
      severity: 'error',
      message: `${name} has no replica identity: once published, the server would refuse its updates and deletes`,
      fixSql: [
        table.primaryKey.length === 0 && table.candidate !== null
          ? `ALTER TABLE ${quoted} REPLICA IDENTITY USING INDEX ${indexName(table.candidate)}`
          : fix(quoted),
      ],
    };
  }
  const wanted = key ?? (table.primaryKey.length > 0 ? table.primaryKey : null);
  if (table.identity !== 'full' && wanted !== null && !covers(table.identity, wanted)) {
    return {
      code: 'CDC_NOT_READY',
      // Without a key named, another one than the primary key may be meant.
      severity: key === null ? 'warning' : 'error',
      message: `the replica identity of ${name} lacks key columns: ${wanted.filter((column) => !table.identity.includes(column)).join(', ')}`,
      fixSql: [fix(quoted)],
    };
  }
  if (table.weakPartition !== null) {
    return {
      code: 'CDC_NOT_READY',
      severity: 'error',
      message: `partition ${table.weakPartition} of ${name} has another replica identity than the table`,
      fixSql: [
        table.identity === 'full'
          ? `ALTER TABLE ${table.weakPartition} REPLICA IDENTITY FULL`
          : fix(table.weakPartition),
      ],
    };
  }
  return null;
}

/** REPLICA IDENTITY USING INDEX takes the index's name without its schema; regclass prints it with one. */
function indexName(regclass: string): string {
  return /^(?:"(?:[^"]|"")*"|[^".]+)\.(.+)$/s.exec(regclass)?.[1] ?? regclass;
}

function same(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && covers(a, b);
}

function covers(all: readonly string[], some: readonly string[]): boolean {
  return some.every((column) => all.includes(column));
}
