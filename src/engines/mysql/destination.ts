/** MySQL and MariaDB as a destination: groups with their positions, copies, and what Sluice keeps here. */
import { SluiceError } from '../../model/errors.ts';
import type { Position } from '../../model/position.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import { backlogTable, HOME, stagingTable } from '../home-tables.ts';
import { numberOf, textOf } from '../row-values.ts';
import type { Destination, GroupApplier, GroupState, Remedies, Suspends, TableDesign } from '../contract.ts';
import { takeGroup } from './applier.ts';
import type { Connection } from './connection.ts';
import { MysqlCopies } from './copies.ts';
import { design } from './ddl.ts';
import { sweep } from './generations.ts';
import { lockGeneration } from './hold.ts';
import { own, prepareHome } from './home.ts';
import { Locker } from './locks.ts';
import { remediesFor } from './reshape.ts';
import { settleGroup } from './swaps.ts';
import { inTransaction, openWriter } from './transactions.ts';

export class MysqlDestination implements Destination {
  readonly copies: MysqlCopies;
  readonly remedies: Remedies;
  readonly #connection: Connection;
  #preparing: Promise<void> | null = null;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.remedies = remediesFor(connection);
    this.copies = new MysqlCopies(connection);
  }

  /** Whoever asks at the same time shares the answer: the first copies into a database begin together. */
  prepare(): Promise<void> {
    this.#preparing ??= prepareHome(this.#connection).finally(() => (this.#preparing = null));
    return this.#preparing;
  }

  /** MariaDB's `server_uid`, MySQL's `server_uuid`; older servers have neither, but a name and a port. */
  async identity(): Promise<string> {
    const rows = await this.#connection.query(
      'identify the destination',
      `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uid', 'server_uuid', 'hostname', 'port')`,
    );
    const values = new Map(rows.map((row) => [textOf(row, 'Variable_name'), textOf(row, 'Value')]));
    const [named] = await this.#connection.query('ask for the database', 'SELECT DATABASE() AS name');
    const server =
      values.get('server_uid') ??
      values.get('server_uuid') ??
      `${values.get('hostname') ?? ''}:${values.get('port') ?? ''}`;
    const database = textOf(named, 'name') ?? '';
    return `mysql:${server}/${(await this.foldsNames()) ? database.toLowerCase() : database}`;
  }

  foldsNames(): Promise<boolean> {
    return this.#connection.use((session) => Promise.resolve(session.kind.foldsNames));
  }

  async groups(stream: string): Promise<GroupState[]> {
    const rows = await this.#connection.query(
      'read the positions',
      'SELECT apply_group, epoch, position, route_version FROM sluice_positions WHERE stream = ? ORDER BY apply_group',
      [stream],
    );
    return rows.map((row) => ({
      stream,
      group: textOf(row, 'apply_group') ?? '',
      epoch: numberOf(row, 'epoch') ?? 0,
      position: textOf(row, 'position') as Position,
      routeVersion: numberOf(row, 'route_version') ?? 0,
    }));
  }

  takeGroup(options: Parameters<Destination['takeGroup']>[0]): Promise<GroupApplier | null> {
    return takeGroup(this.#connection, options);
  }

  async resetGroup(options: Parameters<Destination['resetGroup']>[0]): Promise<void> {
    const { stream, group, epoch, position } = options;
    const session = await openWriter(this.#connection, { patient: false });
    const locker = new Locker(this.#connection, session, options.lockWaitMs);
    try {
      await locker.group(stream, group);
      await settleGroup(session, stream, group);
      const mappings = await inTransaction(
        session,
        async () => {
          const { rows } = await session.change(
            'reset the group',
            `UPDATE sluice_positions SET epoch = ?, position = ?, route_version = route_version + 1, owner_session = NULL, updated_at = NOW(3)
              WHERE stream = ? AND apply_group = ? AND epoch < ?`,
            [epoch, position, stream, group, epoch],
          );
          if (rows === 0) throw new SluiceError('FENCED', `the group ${group} of ${stream} has a newer owner`);
          const listed = await session.query(
            'list the group’s mappings',
            'SELECT mapping_uid FROM sluice_generations WHERE stream = ? AND apply_group = ? ORDER BY mapping_uid',
            [stream, group],
          );
          const uids = listed.map((row) => textOf(row, 'mapping_uid') ?? '');
          for (const uid of uids) await lockGeneration(session, locker, uid);
          // An unfinished copy's request is forgotten as well: it starts anew, with a new staging table.
          await session.query(
            'end what was live',
            `UPDATE sluice_generations SET is_live = 0, live_generation = NULL, backlog = NULL, backlog_generation = NULL, copy_request = NULL,
                copy_epoch = copy_epoch + 1, updated_at = NOW(3) WHERE stream = ? AND apply_group = ?`,
            [stream, group],
          );
          return uids;
        },
        { locker },
      );
      for (const uid of mappings) {
        await locker.endCopiers(uid);
        await sweep(session, uid, []);
      }
    } finally {
      await this.#connection.release(session);
    }
  }

  async dropGroup(stream: string, group: string): Promise<void> {
    const rows = await this.#connection.query(
      'list the group’s mappings',
      'SELECT mapping_uid FROM sluice_generations WHERE stream = ? AND apply_group = ?',
      [stream, group],
    );
    for (const row of rows) await this.copies.forget(textOf(row, 'mapping_uid') ?? '');
    for (const table of ['pieces', 'positions'])
      await this.#connection.query(
        'drop the group',
        `DELETE FROM ${HOME}_${table} WHERE stream = ? AND apply_group = ?`,
        [stream, group],
      );
  }

  lanes(): readonly string[] {
    return [];
  }

  design(source: Table, target: TableName, key: readonly string[]): TableDesign {
    return design(source, target, key, this.#connection.kind);
  }

  /** Foreign keys are (foreign_key_checks); triggers fire for everyone. */
  suspends(): Promise<Suspends> {
    return Promise.resolve({ triggers: false, foreignKeys: true });
  }

  async inventory(): Promise<{ stream: string | null; mappingUid: string | null; objects: string[] }[]> {
    const generations = await this.#connection.query(
      'list what is kept here',
      'SELECT stream, mapping_uid, copy_table, backlog_generation FROM sluice_generations',
    );
    const positions = await this.#connection.query(
      'list the groups',
      'SELECT stream, apply_group FROM sluice_positions',
    );
    return [
      ...generations.map((row) => {
        const mappingUid = textOf(row, 'mapping_uid') ?? '';
        const copy = numberOf(row, 'copy_table');
        const backlog = numberOf(row, 'backlog_generation');
        return {
          stream: textOf(row, 'stream'),
          mappingUid,
          objects: [
            ...(copy === null ? [] : [displayName(own(stagingTable(mappingUid, copy)))]),
            ...(backlog === null ? [] : [displayName(own(backlogTable(mappingUid, backlog)))]),
          ],
        };
      }),
      ...positions.map((row) => ({
        stream: textOf(row, 'stream'),
        mappingUid: null,
        objects: [`position of group ${textOf(row, 'apply_group') ?? ''}`],
      })),
    ];
  }
}
