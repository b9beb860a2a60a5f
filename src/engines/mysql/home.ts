/**
 * What Sluice keeps in a destination database: tables whose names begin with `sluice_` (PROTOCOL, Rows that coordinate), because a
 * database has no schemas in it. All of InnoDB, whatever the server's default is: the position commits with the data (invariant 2).
 */
import { createHash } from 'node:crypto';
import { HOME } from '../home-tables.ts';
import { numberOf } from '../row-values.ts';
import type { TableName } from '../../model/tables.ts';
import type { Connection } from './connection.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';

export const LEFT_OUT = { leftOut: 'sluice_left_out', generations: 'sluice_generations', quoteLiteral };

const OPTIONS = 'ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin';

const TABLES: Readonly<Record<string, string>> = {
  // One row per stream and apply group. `has_renames`: a swap of one of its mappings was decided and its table may not be renamed yet.
  positions: `stream varchar(300) NOT NULL, apply_group varchar(128) NOT NULL, epoch bigint NOT NULL, position longtext NOT NULL,
     route_version bigint NOT NULL DEFAULT 1, has_renames tinyint NOT NULL DEFAULT 0, owner_session bigint unsigned NULL,
     updated_at datetime(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), PRIMARY KEY (stream, apply_group)`,
  // Pieces of a transaction too large for memory; they belong to one epoch.
  pieces: `stream varchar(300) NOT NULL, apply_group varchar(128) NOT NULL, epoch bigint NOT NULL, seq bigint NOT NULL AUTO_INCREMENT,
     changes int NOT NULL, block longblob NOT NULL, PRIMARY KEY (stream, apply_group, epoch, seq), KEY seq (seq)`,
  // `copy_table`: the number in the staging table's name; `reserved`: one that is being made; `pending_rename`: a staging table that is
  // the live one already, but for its name.
  generations: `mapping_uid varchar(64) NOT NULL PRIMARY KEY, stream varchar(300) NULL, apply_group varchar(128) NULL,
     last_generation int NOT NULL DEFAULT 0, reserved int NULL, live_generation int NULL, live_route longtext NULL,
     is_live tinyint NOT NULL DEFAULT 0, copy_generation int NULL, copy_table int NULL, copy_route longtext NULL,
     copy_request bigint NULL, copy_epoch bigint NOT NULL DEFAULT 0, copy_plan longtext NULL, is_indexed tinyint NOT NULL DEFAULT 0,
     backlog varchar(4) NULL, backlog_generation int NULL, folded_seq bigint NOT NULL DEFAULT 0, finished_request bigint NULL,
     pending_rename varchar(64) NULL, updated_at datetime(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), KEY stream (stream, apply_group)`,
  chunks: `mapping_uid varchar(64) NOT NULL, generation int NOT NULL, chunk int NOT NULL, row_count bigint NOT NULL,
     PRIMARY KEY (mapping_uid, generation, chunk)`,
  // Rows of the live generation of which a newer state was refused (left-out.ts).
  left_out: `mapping_uid varchar(64) NOT NULL, generation int NOT NULL, key_hash varchar(64) NOT NULL,
     PRIMARY KEY (mapping_uid, key_hash)`,
  // Sessions that copy, by a lock that each holds as long as it lives (locks.ts).
  copiers: `mapping_uid varchar(64) NOT NULL, session_lock varchar(64) NOT NULL, PRIMARY KEY (mapping_uid, session_lock)`,
};

/** Where a table of home-tables.ts is here. */
export function own(name: TableName): TableName {
  return { schema: '', table: `${HOME}_${name.table}` };
}

/** The name of a server-wide lock (GET_LOCK, at most 64 characters) for something of this database. */
export function lockName(connection: Connection, kind: 'prepare' | 'group' | 'mapping', id: string): string {
  // Some servers fold the case of databases' names; two databases that share a lock wait for each other now and then, no more.
  const place = (connection.database ?? '').toLowerCase();
  return `sluice.${createHash('sha256')
    .update(JSON.stringify([place, kind, id]))
    .digest('hex')
    .slice(0, 48)}`;
}

/** Creates what is missing. Idempotent; an existing home costs one query. */
export async function prepareHome(connection: Connection): Promise<void> {
  const names = Object.keys(TABLES);
  const list = names.map((name) => quoteLiteral(`${HOME}_${name}`)).join(', ');
  const [present] = await connection.query(
    'look for Sluice’s tables in the destination',
    `SELECT COUNT(*) AS n FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN (${list})`,
  );
  if (numberOf(present, 'n') === names.length) return;
  const lock = quoteLiteral(lockName(connection, 'prepare', ''));
  await connection.use(async (session) => {
    await session.query('wait for others who create Sluice’s tables', `SELECT GET_LOCK(${lock}, 60) AS got`);
    try {
      await session.run(
        'create Sluice’s tables in the destination',
        names.map(
          (name) =>
            `CREATE TABLE IF NOT EXISTS ${quoteIdentifier(`${HOME}_${name}`)} (${TABLES[name] ?? ''}) ${OPTIONS}`,
        ),
      );
    } finally {
      if (!session.lost) await session.run('let others create Sluice’s tables', [`DO RELEASE_LOCK(${lock})`]);
    }
  });
}

export function createBacklogSql(table: TableName): string {
  return `CREATE TABLE ${quoteTable(table)} (seq bigint NOT NULL AUTO_INCREMENT PRIMARY KEY, bytes int NOT NULL, changes int NOT NULL,
    block longblob NOT NULL) ${OPTIONS}`;
}
