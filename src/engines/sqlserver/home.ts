/**
 * What Sluice keeps in a destination database: schema `sluice` (PROTOCOL, Rows that coordinate). Keys are compared by their code
 * points whatever the database's collation; they stay within the 900 bytes of a clustered key.
 */
import { HOME, stagingTable } from '../home-tables.ts';
import type { StoredRoute } from '../stored-route.ts';
import type { TableName } from '../../model/tables.ts';
import type { Connection } from './connection.ts';
import { numberOf } from '../row-values.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';

export const LEFT_OUT = { leftOut: 'sluice.left_out', generations: 'sluice.generations', quoteLiteral };

const EXACT = 'COLLATE Latin1_General_BIN2';

const TABLES: Readonly<Record<string, string>> = {
  // One row per stream and apply group.
  positions: `stream nvarchar(300) ${EXACT} NOT NULL, apply_group nvarchar(128) ${EXACT} NOT NULL,
     epoch bigint NOT NULL, position nvarchar(max) ${EXACT} NOT NULL, route_version bigint NOT NULL DEFAULT 1,
     owner_session nvarchar(60) NULL, updated_at datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME(),
     PRIMARY KEY (stream, apply_group)`,
  // Pieces of a transaction too large for memory; they belong to one epoch.
  pieces: `stream nvarchar(300) ${EXACT} NOT NULL, apply_group nvarchar(128) ${EXACT} NOT NULL, epoch bigint NOT NULL,
     seq bigint IDENTITY(1,1) NOT NULL, changes int NOT NULL, block varbinary(max) NOT NULL,
     PRIMARY KEY (stream, apply_group, epoch, seq)`,
  generations: `mapping_uid nvarchar(64) ${EXACT} NOT NULL PRIMARY KEY,
     stream nvarchar(300) ${EXACT} NULL, apply_group nvarchar(128) ${EXACT} NULL, last_generation int NOT NULL DEFAULT 0,
     live_generation int NULL, live_route nvarchar(max) ${EXACT} NULL, is_live bit NOT NULL DEFAULT 0,
     copy_generation int NULL, copy_route nvarchar(max) ${EXACT} NULL, copy_request bigint NULL,
     copy_epoch bigint NOT NULL DEFAULT 0, copy_plan nvarchar(max) ${EXACT} NULL,
     is_key_built bit NOT NULL DEFAULT 0, is_indexed bit NOT NULL DEFAULT 0,
     backlog nvarchar(4) ${EXACT} NULL CHECK (backlog IN (N'copy', N'hold')), backlog_generation int NULL,
     folded_seq bigint NOT NULL DEFAULT 0, finished_request bigint NULL,
     updated_at datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME()`,
  chunks: `mapping_uid nvarchar(64) ${EXACT} NOT NULL, generation int NOT NULL, chunk int NOT NULL, rows bigint NOT NULL,
     PRIMARY KEY (mapping_uid, generation, chunk)`,
  // Rows of the live generation of which a newer state was refused (left-out.ts).
  left_out: `mapping_uid nvarchar(64) ${EXACT} NOT NULL, generation int NOT NULL, key_hash nvarchar(64) ${EXACT} NOT NULL,
     PRIMARY KEY (mapping_uid, key_hash)`,
  // What is locked in place of a position's or a generation's row (locks.ts), and which sessions may hold it.
  locks: `name nvarchar(440) ${EXACT} NOT NULL PRIMARY KEY, held bit NOT NULL DEFAULT 0`,
  lockers: `name nvarchar(440) ${EXACT} NOT NULL, session nvarchar(60) ${EXACT} NOT NULL, is_copier bit NOT NULL DEFAULT 0,
     PRIMARY KEY NONCLUSTERED (name, session)`,
};

/** Creates what is missing. Idempotent; an existing home costs one query. */
export async function prepareHome(connection: Connection): Promise<void> {
  const names = Object.keys(TABLES);
  const [present] = await connection.query(
    'look for schema sluice in the destination',
    `SELECT COUNT(*) AS n FROM (VALUES ${names.map((name) => `(OBJECT_ID(N'sluice.${name}', N'U'))`).join(', ')}) AS v(id) WHERE v.id IS NOT NULL`,
  );
  if (numberOf(present, 'n') === names.length) return;
  await connection.use(async (session) => {
    // Of the session, so that statements which cannot be in a transaction may follow; it goes with the session.
    await session.run('wait for others who create schema sluice', [
      `EXEC sp_getapplock @Resource = N'sluice.prepare', @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 60000`,
    ]);
    try {
      await session.run('create schema sluice in the destination', [
        createSchemaSql(HOME),
        ...names.map(
          (name) => `IF OBJECT_ID(N'sluice.${name}', N'U') IS NULL CREATE TABLE sluice.${name} (${TABLES[name] ?? ''})`,
        ),
      ]);
    } finally {
      if (!session.lost)
        await session.run('let others create schema sluice', [
          `EXEC sp_releaseapplock @Resource = N'sluice.prepare', @LockOwner = N'Session'`,
        ]);
    }
  });
}

/** CREATE SCHEMA must be a batch of its own. */
export function createSchemaSql(schema: string): string {
  return `IF SCHEMA_ID(${quoteLiteral(schema)}) IS NULL EXEC (${quoteLiteral(`CREATE SCHEMA ${quoteIdentifier(schema)}`)})`;
}

export function createBacklogSql(table: TableName): string {
  return `CREATE TABLE ${quoteTable(table)} (
    seq bigint IDENTITY(1,1) NOT NULL PRIMARY KEY, bytes int NOT NULL, changes int NOT NULL, block varbinary(max) NOT NULL)`;
}

/**
 * A copy's staging table. One that will become the table itself is made in that table's schema, so that renaming is all there is to
 * do: ALTER SCHEMA … TRANSFER would drop its permissions, and other servers of this dialect lack it.
 */
export function stagingOf(
  route: Pick<StoredRoute, 'target' | 'likeLive'>,
  mappingUid: string,
  generation: number,
): TableName {
  const own = stagingTable(mappingUid, generation);
  return route.likeLive === true ? own : { schema: route.target.schema, table: `${HOME}_${own.table}` };
}
