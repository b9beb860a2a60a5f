/** PostgreSQL as a destination: groups with their positions, copies, and what Sluice keeps here. */
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { Position } from '../../model/position.ts';
import type { Table, TableName } from '../../model/tables.ts';
import type { Destination, GroupApplier, GroupState, Remedies, Suspends, TableDesign } from '../contract.ts';
import { takeGroup } from './applier.ts';
import type { Connection } from './connection.ts';
import { PostgresCopies } from './copies.ts';
import { design } from './ddl.ts';
import { backlogTable } from '../home-tables.ts';
import { prepareHome } from './home.ts';
import { lanesOf } from './loader.ts';
import { endCopier, pastFrozenHolders } from './locks.ts';
import { remediesFor } from './reshape.ts';
import { quoteTable } from './sql.ts';

/** How long schema sluice counts as being there: short, because a database may be restored or made anew. */
const PREPARED_MS = 1000;
/** An address may lead to another server after a while. */
const IDENTITY_MS = 10_000;

export class PostgresDestination implements Destination {
  readonly copies: PostgresCopies;
  readonly remedies: Remedies;
  readonly #connection: Connection;
  #identity: { readonly id: string; readonly at: number } | null = null;
  #preparedAt = -Infinity;
  #preparing: Promise<void> | null = null;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.remedies = remediesFor(connection);
    this.copies = new PostgresCopies(connection);
  }

  /** Asked for by every step of every mapping: what was just seen is not looked for again. */
  async prepare(): Promise<void> {
    if (performance.now() - this.#preparedAt < PREPARED_MS) return;
    this.#preparing ??= prepareHome(this.#connection).finally(() => (this.#preparing = null));
    await this.#preparing;
    this.#preparedAt = performance.now();
  }

  async identity(): Promise<string> {
    if (this.#identity !== null && performance.now() - this.#identity.at < IDENTITY_MS) return this.#identity.id;
    const [row] = await this.#connection.query(
      'identify the destination',
      `SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || oid AS id FROM pg_database WHERE datname = current_database()`,
    );
    this.#identity = { id: `postgres:${row?.['id'] ?? ''}`, at: performance.now() };
    return this.#identity.id;
  }

  async groups(stream: string): Promise<GroupState[]> {
    const rows = await this.#connection.query(
      'read the positions',
      `SELECT apply_group, epoch, position, route_version FROM sluice.positions WHERE stream = $1 ORDER BY apply_group`,
      [stream],
    );
    return rows.map((row) => ({
      stream,
      group: row['apply_group'] ?? '',
      epoch: Number(row['epoch']),
      position: row['position'] as Position,
      routeVersion: Number(row['route_version']),
    }));
  }

  takeGroup(options: Parameters<Destination['takeGroup']>[0]): Promise<GroupApplier | null> {
    return takeGroup(this.#connection, options);
  }

  async resetGroup(options: Parameters<Destination['resetGroup']>[0]): Promise<void> {
    const { stream, group, epoch, position } = options;
    const session = await this.#connection.open();
    try {
      await pastFrozenHolders(this.#connection, session, options.lockWaitMs, () =>
        session.transaction('BEGIN', async () => {
          const [row] = await session.query(
            'reset the group',
            `UPDATE sluice.positions SET epoch = $3, position = $4, route_version = route_version + 1, owner_session = NULL, updated_at = now()
              WHERE stream = $1 AND apply_group = $2 AND epoch < $3 RETURNING epoch`,
            [stream, group, epoch, position],
          );
          if (!row) throw new SluiceError('FENCED', `the group ${group} of ${stream} has a newer owner`);
          const mappings = await session.query(
            'lock the group’s mappings',
            `SELECT mapping_uid, backlog_generation FROM sluice.generations WHERE stream = $1 AND apply_group = $2 ORDER BY mapping_uid FOR UPDATE`,
            [stream, group],
          );
          const backlogs = mappings.filter((mapping) => mapping['backlog_generation'] !== null);
          if (backlogs.length > 0) {
            for (const mapping of backlogs) await endCopier(this.#connection, session, mapping['mapping_uid'] ?? '');
            await session.run(
              'drop the backlogs',
              backlogs.map(
                (mapping) =>
                  `DROP TABLE IF EXISTS ${quoteTable(backlogTable(mapping['mapping_uid'] ?? '', Number(mapping['backlog_generation'])))}`,
              ),
            );
          }
          // An unfinished copy's request is forgotten as well: it starts anew, with a new staging table.
          await session.query(
            'end what was live',
            `UPDATE sluice.generations SET is_live = false, live_generation = NULL, backlog = NULL, backlog_generation = NULL, copy_request = NULL,
                copy_epoch = copy_epoch + 1, updated_at = now() WHERE stream = $1 AND apply_group = $2`,
            [stream, group],
          );
        }),
      );
    } finally {
      await this.#connection.release(session);
    }
  }

  async dropGroup(stream: string, group: string): Promise<void> {
    const rows = await this.#connection.query(
      'list the group’s mappings',
      `SELECT mapping_uid FROM sluice.generations WHERE stream = $1 AND apply_group = $2`,
      [stream, group],
    );
    for (const row of rows) await this.copies.forget(row['mapping_uid'] ?? '');
    await this.#connection.query(
      'drop staged pieces',
      `DELETE FROM sluice.pieces WHERE stream = $1 AND apply_group = $2`,
      [stream, group],
    );
    await this.#connection.query(
      'drop the group',
      `DELETE FROM sluice.positions WHERE stream = $1 AND apply_group = $2`,
      [stream, group],
    );
  }

  lanes(table: Table, columns: readonly string[]): readonly string[] {
    return lanesOf(table, columns);
  }

  design(source: Table, target: TableName, key: readonly string[]): TableDesign {
    return design(source, target, key);
  }

  async suspends(): Promise<Suspends> {
    try {
      await this.#connection.use((session) =>
        session.run('look whether triggers can be suspended', [
          'BEGIN',
          'SET LOCAL session_replication_role = replica',
          'ROLLBACK',
        ]),
      );
      return { triggers: true, foreignKeys: true };
    } catch (error) {
      if (hasCode(error, 'PERMISSION_DENIED')) return { triggers: false, foreignKeys: false };
      throw error;
    }
  }

  async inventory(): Promise<{ stream: string | null; mappingUid: string | null; objects: string[] }[]> {
    const rows = await this.#connection.query(
      'list what is kept here',
      `SELECT stream, mapping_uid,
              CASE WHEN copy_generation IS NOT NULL THEN format('sluice.stage_%s_%s', left(encode(sha256(mapping_uid::bytea), 'hex'), 16), copy_generation) END AS staging,
              CASE WHEN backlog_generation IS NOT NULL THEN format('sluice.backlog_%s_%s', left(encode(sha256(mapping_uid::bytea), 'hex'), 16), backlog_generation) END AS backlog
         FROM sluice.generations
       UNION ALL SELECT stream, NULL, 'position of group ' || apply_group, NULL FROM sluice.positions`,
    );
    return rows.map((row) => ({
      stream: row['stream'] ?? null,
      mappingUid: row['mapping_uid'] ?? null,
      objects: [row['staging'], row['backlog']].filter((name) => name != null),
    }));
  }
}
