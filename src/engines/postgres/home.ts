/**
 * What Sluice keeps in a destination database: schema `sluice` (PROTOCOL, Rows that coordinate). All of it is logged: what
 * a server crash empties must not count as loaded or stored.
 */
import type { TableName } from '../../model/tables.ts';
import type { Connection } from './connection.ts';
import { quoteLiteral, quoteTable } from './sql.ts';

export const LEFT_OUT = { leftOut: 'sluice.left_out', generations: 'sluice.generations', quoteLiteral };

/** Serializes `prepare` between processes: any number nobody else is likely to use. */
const PREPARE_LOCK = 7_301_514_620_447_001;

const STATEMENTS = [
  `CREATE SCHEMA IF NOT EXISTS sluice`,
  // One row per stream and apply group. Updated by every commit: a low fillfactor keeps the updates on one page.
  `CREATE TABLE IF NOT EXISTS sluice.positions (
     stream text NOT NULL, apply_group text NOT NULL,
     epoch bigint NOT NULL, position text NOT NULL, route_version bigint NOT NULL DEFAULT 1,
     owner_session text, updated_at timestamptz NOT NULL DEFAULT now(),
     PRIMARY KEY (stream, apply_group)) WITH (fillfactor = 10)`,
  // Pieces of a transaction too large for memory; they belong to one epoch.
  `CREATE TABLE IF NOT EXISTS sluice.pieces (
     stream text NOT NULL, apply_group text NOT NULL, epoch bigint NOT NULL,
     seq bigint GENERATED ALWAYS AS IDENTITY, changes integer NOT NULL, block bytea NOT NULL,
     PRIMARY KEY (stream, apply_group, epoch, seq))`,
  `ALTER TABLE sluice.pieces ALTER COLUMN block SET STORAGE EXTERNAL`,
  `CREATE TABLE IF NOT EXISTS sluice.generations (
     mapping_uid text PRIMARY KEY, stream text, apply_group text,
     last_generation integer NOT NULL DEFAULT 0,
     live_generation integer, live_route jsonb, is_live boolean NOT NULL DEFAULT false,
     copy_generation integer, copy_route jsonb, copy_request bigint, copy_epoch bigint NOT NULL DEFAULT 0,
     copy_session text, copy_plan jsonb, is_key_built boolean NOT NULL DEFAULT false, is_indexed boolean NOT NULL DEFAULT false,
     backlog text CHECK (backlog IN ('copy', 'hold')), backlog_generation integer,
     folded_seq bigint NOT NULL DEFAULT 0, finished_request bigint, updated_at timestamptz NOT NULL DEFAULT now())`,
  `CREATE INDEX IF NOT EXISTS generations_by_group ON sluice.generations (stream, apply_group)`,
  `CREATE TABLE IF NOT EXISTS sluice.chunks (
     mapping_uid text NOT NULL, generation integer NOT NULL, chunk integer NOT NULL, rows bigint NOT NULL,
     PRIMARY KEY (mapping_uid, generation, chunk))`,
  // Rows of the live generation of which a newer state was refused (left-out.ts).
  `CREATE TABLE IF NOT EXISTS sluice.left_out (
     mapping_uid text NOT NULL, generation integer NOT NULL, key_hash text NOT NULL, PRIMARY KEY (mapping_uid, key_hash))`,
];

/** Creates what is missing. Idempotent; an existing home costs one query. */
export async function prepareHome(connection: Connection): Promise<void> {
  const [present] = await connection.query(
    'look for schema sluice in the destination',
    `SELECT count(*) AS n FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
      WHERE s.nspname = 'sluice' AND c.relname IN ('positions', 'pieces', 'generations', 'chunks', 'left_out')`,
  );
  if (present?.['n'] === '5') return;
  await connection.use((session) =>
    session.transaction('BEGIN', async () => {
      await session.run('create schema sluice in the destination', [
        `SELECT pg_advisory_xact_lock(${PREPARE_LOCK})`,
        ...STATEMENTS,
      ]);
    }),
  );
}

/** Blocks are kept uncompressed: compressing costs more than the disk. (STORAGE within CREATE TABLE came with version 16.) */
export function createBacklogSql(table: TableName): string[] {
  return [
    `CREATE TABLE ${quoteTable(table)} (
       seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, bytes integer NOT NULL, changes integer NOT NULL, block bytea NOT NULL)`,
    `ALTER TABLE ${quoteTable(table)} ALTER COLUMN block SET STORAGE EXTERNAL`,
  ];
}
