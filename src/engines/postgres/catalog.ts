/** Describes tables from PostgreSQL's system catalogs (manual, chapter "System Catalogs"): any number of them in one round trip. */
import { displayName, type Column, type Index, type Key, type Table, type TableName } from '../../model/tables.ts';
import type { Catalog } from '../contract.ts';
import type { Connection } from './connection.ts';
import { quoteTable } from './sql.ts';
import { constantOf } from './defaults.ts';
import { ENGINE, isLooseType, logicalType, type PgType } from './types.ts';

/**
 * One row with one JSON document, so that a thousand tables are still one answer. Names are bound as two arrays. Works on
 * 14 to 18; what a later version added (virtual columns, not-null constraints that are not validated) is asked for in words
 * that are harmless on an older one.
 *
 * The sizes and index definitions take ACCESS SHARE locks for a moment, so a table that somebody holds exclusively would be
 * waited for: the first CTE limits that to five seconds for this statement (set_config with is_local).
 */
const DESCRIBE = `
WITH RECURSIVE settings AS MATERIALIZED (
  SELECT pg_catalog.set_config('lock_timeout', '5s', true) AS lock_timeout
), wanted AS (
  SELECT w.schema, w.name, w.n
  FROM settings, unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(schema, name, n)
  WHERE settings.lock_timeout <> ''
), rel AS MATERIALIZED (
  SELECT w.n, c.oid, c.relkind, c.reltuples, s.nspname, c.relname
  FROM wanted w
  JOIN pg_catalog.pg_namespace s ON s.nspname = w.schema
  JOIN pg_catalog.pg_class c ON c.relnamespace = s.oid AND c.relname = w.name
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
), att AS MATERIALIZED (
  SELECT DISTINCT ON (a.attrelid, a.attnum) a.*
  FROM rel JOIN pg_catalog.pg_attribute a ON a.attrelid = rel.oid
  WHERE a.attnum > 0 AND NOT a.attisdropped
), typ(oid) AS (
  SELECT atttypid FROM att
  UNION
  SELECT part.oid
  FROM typ JOIN pg_catalog.pg_type t ON t.oid = typ.oid
  CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) AS part(oid)
  WHERE part.oid <> 0
)
SELECT pg_catalog.json_build_object(
  'types', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', t.oid::bigint, 'schema', n.nspname, 'name', t.typname, 'kind', t.typtype, 'element', t.typelem::bigint,
      'array', t.typarray::bigint, 'base', t.typbasetype::bigint, 'baseModifier', t.typtypmod, 'notNull', t.typnotnull,
      'labels', (SELECT pg_catalog.json_agg(e.enumlabel ORDER BY e.enumsortorder)
                 FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)))
    FROM typ JOIN pg_catalog.pg_type t ON t.oid = typ.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace),
  'tables', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'n', rel.n, 'oid', rel.oid::text, 'kind', rel.relkind,
      'storage', CASE WHEN rel.relkind = 'r' THEN pg_catalog.pg_relation_filenode(rel.oid)::text END,
      'columns', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
          'number', a.attnum, 'name', a.attname, 'type', a.atttypid::bigint, 'modifier', a.atttypmod,
          'native', pg_catalog.format_type(a.atttypid, a.atttypmod),
          'notNull', a.attnotnull AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_constraint k
            WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND NOT k.convalidated AND k.conkey = ARRAY[a.attnum]),
          'generated', a.attgenerated, 'identity', a.attidentity,
          'missing', a.atthasmissing,
          'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid), 'looseCollation', NOT coalesce(co.collisdeterministic, true),
          'collation', CASE WHEN a.attcollation <> t.typcollation
            THEN pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) END)
          ORDER BY a.attnum)
        FROM att a
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
        LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
        WHERE a.attrelid = rel.oid),
      'indexes', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
          'name', ic.relname, 'unique', i.indisunique, 'primary', i.indisprimary,
          'sound', i.indisvalid AND i.indisready AND i.indislive, 'immediate', i.indimmediate,
          'plain', i.indexprs IS NULL, 'partial', i.indpred IS NOT NULL,
          'numbers', (SELECT pg_catalog.json_agg(c.number ORDER BY c.place)
                      FROM pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS c(number, place)
                      WHERE c.place <= i.indnkeyatts),
          'columns', (SELECT pg_catalog.json_agg(pg_catalog.pg_get_indexdef(i.indexrelid, place, true) ORDER BY place)
                      FROM pg_catalog.generate_series(1, i.indnkeyatts) AS place),
          'looseCollation', EXISTS (
            SELECT FROM pg_catalog.unnest(i.indcollation::oid[]) AS used(oid)
            JOIN pg_catalog.pg_collation co ON co.oid = used.oid WHERE NOT co.collisdeterministic),
          'definition', pg_catalog.pg_get_indexdef(i.indexrelid))
          ORDER BY i.indisprimary DESC, ic.relname COLLATE "C")
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
        WHERE i.indrelid = rel.oid),
      'triggers', (
        SELECT pg_catalog.json_agg(g.tgname ORDER BY g.tgname COLLATE "C") FROM pg_catalog.pg_trigger g
        WHERE g.tgrelid = rel.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D'),
      'foreignKeys', (
        SELECT pg_catalog.json_agg(k.conname ORDER BY k.conname COLLATE "C") FROM pg_catalog.pg_constraint k
        WHERE k.conrelid = rel.oid AND k.contype = 'f'),
      'referencedBy', (
        SELECT pg_catalog.json_agg(n.nspname || '.' || c.relname || '.' || k.conname ORDER BY n.nspname, c.relname, k.conname)
        FROM pg_catalog.pg_constraint k
        JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE k.confrelid = rel.oid AND k.conrelid <> rel.oid AND k.contype = 'f' AND k.conparentid = 0),
      'leaves', (
        SELECT pg_catalog.json_build_object(
          'rows', pg_catalog.sum(leaf.reltuples) FILTER (WHERE leaf.reltuples >= 0),
          'bytes', pg_catalog.sum(pg_catalog.pg_table_size(leaf.oid)))
        FROM pg_catalog.pg_class leaf
        WHERE leaf.relkind IN ('r', 'm') AND (leaf.oid = rel.oid OR leaf.oid IN (
          SELECT p.relid FROM pg_catalog.pg_partition_tree(rel.oid) p WHERE p.isleaf AND rel.relkind = 'p'))))
      ORDER BY rel.n)
    FROM rel)
) AS described`;

interface RawColumn {
  readonly number: number;
  readonly name: string;
  readonly type: number;
  readonly modifier: number;
  readonly native: string;
  readonly notNull: boolean;
  readonly generated: '' | 's' | 'v';
  readonly identity: '' | 'a' | 'd';
  /** Rows older than the column have its default without having been written. */
  readonly missing: boolean;
  readonly default: string | null;
  readonly collation: string | null;
  /** Nondeterministic: different byte strings are equal. */
  readonly looseCollation: boolean;
}

interface RawIndex {
  readonly name: string;
  readonly unique: boolean;
  readonly primary: boolean;
  readonly sound: boolean;
  readonly immediate: boolean;
  readonly plain: boolean;
  readonly partial: boolean;
  readonly numbers: readonly number[];
  readonly columns: readonly string[];
  readonly looseCollation: boolean;
  readonly definition: string;
}

interface RawTable {
  readonly n: number;
  readonly oid: string;
  readonly kind: string;
  readonly storage: string | null;
  readonly columns: readonly RawColumn[] | null;
  readonly indexes: readonly RawIndex[] | null;
  readonly triggers: readonly string[] | null;
  readonly foreignKeys: readonly string[] | null;
  readonly referencedBy: readonly string[] | null;
  readonly leaves: { readonly rows: number | null; readonly bytes: number | null };
}

type Types = ReadonlyMap<number, PgType>;

export class PostgresCatalog implements Catalog {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Throws TIMEOUT when somebody holds one of the tables exclusively for more than five seconds. */
  async describe(names: readonly TableName[]): Promise<(Table | null)[]> {
    if (names.length === 0) return [];
    const rows = await this.#connection.query('describe tables', DESCRIBE, [
      names.map((name) => name.schema),
      names.map((name) => name.table),
    ]);
    const described = JSON.parse(rows[0]?.['described'] ?? '{}') as {
      types: PgType[] | null;
      tables: RawTable[] | null;
    };
    const types: Types = new Map((described.types ?? []).map((type) => [type.oid, type]));
    const byNumber = new Map((described.tables ?? []).map((table) => [table.n, table]));
    return names.map((name, index) => {
      const raw = byNumber.get(index + 1);
      return raw ? table(name, raw, types) : null;
    });
  }

  async isEmpty(name: TableName): Promise<boolean> {
    const rows = await this.#connection.query(
      `look whether ${displayName(name)} is empty`,
      `SELECT 1 AS found FROM ${quoteTable(name)} LIMIT 1`,
    );
    return rows.length === 0;
  }
}

function table(name: TableName, raw: RawTable, types: Types): Table {
  const columns = raw.columns ?? [];
  const byNumber = new Map(columns.map((column) => [column.number, column]));
  const indexes = raw.indexes ?? [];
  const asKey = indexes.filter((index) => index.unique && index.plain && !index.partial);
  const keys = asKey.map((index) => key(index, byNumber, types));
  const usable = new Set(keys.filter((found) => found.usable).map((found) => found.name));
  return {
    engine: ENGINE,
    name,
    id: raw.oid,
    kind: raw.kind === 'r' ? 'table' : raw.kind === 'p' ? 'partitioned' : 'other',
    columns: columns.map((column) => describeColumn(column, types)),
    keys,
    indexes: indexes
      .filter((index) => index.sound && !usable.has(index.name))
      .map((index): Index => ({
        name: index.name,
        columns: names(index, byNumber),
        unique: index.unique,
        definition: index.definition,
        plain: index.plain && !index.partial && / USING btree /.test(index.definition),
      })),
    triggers: raw.triggers ?? [],
    foreignKeys: raw.foreignKeys ?? [],
    referencedBy: raw.referencedBy ?? [],
    estimatedRows: raw.leaves.rows === null ? null : Math.round(raw.leaves.rows),
    bytes: raw.leaves.bytes ?? 0,
    storage: raw.storage,
  };
}

/** Key columns by name; an expression as the server prints it. */
function names(index: RawIndex, columns: ReadonlyMap<number, RawColumn>): string[] {
  return index.numbers.map((number, place) => columns.get(number)?.name ?? index.columns[place] ?? '');
}

function key(index: RawIndex, columns: ReadonlyMap<number, RawColumn>, types: Types): Key {
  const parts = index.numbers.flatMap((number) => columns.get(number) ?? []);
  return {
    name: index.name,
    columns: parts.map((column) => column.name),
    primary: index.primary,
    usable:
      index.sound &&
      index.immediate &&
      parts.length === index.numbers.length &&
      parts.every((column) => column.notNull && column.generated !== 'v'),
    // The index's collation decides what is unique, the column's what a join finds equal.
    loose: index.looseCollation || parts.some((column) => column.looseCollation || isLooseType(types, column.type)),
  };
}

function describeColumn(column: RawColumn, types: Types): Column {
  const generated = { s: 'STORED', v: 'VIRTUAL', '': null }[column.generated];
  const constant = generated === null ? constantOf(column.default) : null;
  return {
    name: column.name,
    nativeType: column.native,
    type: logicalType(types, column.type, column.modifier, column.native),
    nullable: !column.notNull && !domainRefusesNull(types, column.type),
    generated: generated === null ? null : `(${column.default ?? ''}) ${generated}`,
    identity: column.identity === 'a' ? 'always' : column.identity === 'd' ? 'by default' : null,
    default: generated === null ? column.default : null,
    ...(constant === null ? {} : { constant }),
    collation: column.collation,
    id: String(column.number),
    streamType: `${column.type}:${column.modifier}`,
    filled: column.missing,
  };
}

function domainRefusesNull(types: Types, oid: number): boolean {
  for (let type = types.get(oid); type?.kind === 'd'; type = types.get(type.base)) if (type.notNull) return true;
  return false;
}
