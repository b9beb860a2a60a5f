/** SQL Server as a destination: groups with their positions, copies, and what Sluice keeps here. */
import { SluiceError } from '../../model/errors.ts';
import type { Position } from '../../model/position.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import { backlogTable } from '../home-tables.ts';
import type { StoredRoute } from '../stored-route.ts';
import type { Destination, GroupApplier, GroupState, Remedies, Suspends, TableDesign } from '../contract.ts';
import { takeGroup } from './applier.ts';
import type { Connection } from './connection.ts';
import { SqlServerCopies } from './copies.ts';
import { design } from './ddl.ts';
import { GROUP } from './hold.ts';
import { prepareHome, stagingOf } from './home.ts';
import { groupLock, Locker, mappingLock, pastFrozenWriters } from './locks.ts';
import { remedies } from './reshape.ts';
import { flagOf, numberOf, textOf } from '../row-values.ts';
import { quoteTable } from './sql.ts';

export class SqlServerDestination implements Destination {
  readonly copies: SqlServerCopies;
  readonly remedies: Remedies = remedies;
  readonly #connection: Connection;
  #preparing: Promise<void> | null = null;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.copies = new SqlServerCopies(connection);
  }

  /** Whoever asks at the same time shares the answer: the first copies into a database begin together. */
  prepare(): Promise<void> {
    this.#preparing ??= prepareHome(this.#connection).finally(() => (this.#preparing = null));
    return this.#preparing;
  }

  /** The broker's GUID is the database's own and goes with it; a copy restored beside it keeps it under another name. */
  async identity(): Promise<string> {
    const [row] = await this.#connection.query(
      'identify the destination',
      `SELECT COALESCE(CAST(service_broker_guid AS nvarchar(40)), @@SERVERNAME + N'/' + CONVERT(nvarchar(33), create_date, 126)) AS id,
              LOWER(name) AS name FROM sys.databases WHERE name = DB_NAME()`,
    );
    return `sqlserver:${textOf(row, 'id') ?? ''}/${textOf(row, 'name') ?? ''}`;
  }

  /** Names are compared as the database compares constants: by its own collation. */
  async foldsNames(): Promise<boolean> {
    const [row] = await this.#connection.query(
      'look how names are compared',
      `SELECT CASE WHEN N'a' = N'A' THEN 1 ELSE 0 END AS folds`,
    );
    return flagOf(row, 'folds');
  }

  async groups(stream: string): Promise<GroupState[]> {
    const rows = await pastFrozenWriters(this.#connection, () =>
      this.#connection.query(
        'read the positions',
        `SELECT apply_group, epoch, position, route_version FROM sluice.positions
          WHERE stream = CAST(@stream AS nvarchar(300)) ORDER BY apply_group`,
        { stream },
      ),
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
    const session = await this.#connection.open();
    let locker: Locker | null = null;
    try {
      const mine = (locker = await Locker.of(this.#connection, session, options.lockWaitMs));
      await session.transaction(async () => {
        await mine.lock(groupLock(stream, group));
        const [row] = await session.query(
          'reset the group',
          `UPDATE sluice.positions SET epoch = @epoch, position = @position, route_version = route_version + 1, owner_session = NULL,
              updated_at = SYSUTCDATETIME() OUTPUT inserted.epoch AS epoch WHERE ${GROUP} AND epoch < @epoch`,
          { stream, group, epoch, position },
        );
        if (!row) throw new SluiceError('FENCED', `the group ${group} of ${stream} has a newer owner`);
        const list = () =>
          session.query(
            'list the group’s mappings',
            `SELECT mapping_uid, backlog_generation FROM sluice.generations WHERE ${GROUP} ORDER BY mapping_uid`,
            { stream, group },
          );
        for (const mapping of await list()) await mine.lock(mappingLock(textOf(mapping, 'mapping_uid') ?? ''));
        const backlogs = (await list()).flatMap((mapping) => {
          const generation = numberOf(mapping, 'backlog_generation');
          return generation === null ? [] : [backlogTable(textOf(mapping, 'mapping_uid') ?? '', generation)];
        });
        if (backlogs.length > 0)
          await session.run(
            'drop the backlogs',
            backlogs.map((table) => `DROP TABLE IF EXISTS ${quoteTable(table)}`),
          );
        // An unfinished copy's request is forgotten as well: it starts anew, with a new staging table.
        await session.query(
          'end what was live',
          `UPDATE sluice.generations SET is_live = 0, live_generation = NULL, backlog = NULL, backlog_generation = NULL,
              copy_request = NULL, copy_epoch = copy_epoch + 1, updated_at = SYSUTCDATETIME() WHERE ${GROUP}`,
          { stream, group },
        );
      });
    } finally {
      await this.#connection.release(session);
      await locker?.close();
    }
  }

  async dropGroup(stream: string, group: string): Promise<void> {
    const named = { stream, group };
    const rows = await this.#connection.query(
      'list the group’s mappings',
      `SELECT mapping_uid FROM sluice.generations WHERE ${GROUP}`,
      named,
    );
    for (const row of rows) await this.copies.forget(textOf(row, 'mapping_uid') ?? '');
    await this.#connection.query('drop staged pieces', `DELETE FROM sluice.pieces WHERE ${GROUP}`, named);
    await this.#connection.query('drop the group', `DELETE FROM sluice.positions WHERE ${GROUP}`, named);
    for (const table of ['locks', 'lockers'])
      await this.#connection.query(
        'drop the group’s lock',
        `DELETE FROM sluice.${table} WHERE name = CAST(@name AS nvarchar(440))`,
        {
          name: groupLock(stream, group),
        },
      );
  }

  lanes(): readonly string[] {
    return [];
  }

  design(source: Table, target: TableName, key: readonly string[]): TableDesign {
    return design(source, target, key);
  }

  /** There is no session for which they do not fire (guards.ts). */
  suspends(): Promise<Suspends> {
    return Promise.resolve({ triggers: false, foreignKeys: false });
  }

  async inventory(): Promise<{ stream: string | null; mappingUid: string | null; objects: string[] }[]> {
    const generations = await this.#connection.query(
      'list what is kept here',
      `SELECT stream, mapping_uid, copy_generation, copy_route, backlog_generation FROM sluice.generations`,
    );
    const positions = await this.#connection.query(
      'list the groups',
      `SELECT stream, apply_group FROM sluice.positions`,
    );
    return [
      ...generations.map((row) => {
        const mappingUid = textOf(row, 'mapping_uid') ?? '';
        const copy = numberOf(row, 'copy_generation');
        const route = textOf(row, 'copy_route');
        const backlog = numberOf(row, 'backlog_generation');
        return {
          stream: textOf(row, 'stream'),
          mappingUid,
          objects: [
            ...(copy === null || route === null
              ? []
              : [displayName(stagingOf(JSON.parse(route) as StoredRoute, mappingUid, copy))]),
            ...(backlog === null ? [] : [displayName(backlogTable(mappingUid, backlog))]),
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
