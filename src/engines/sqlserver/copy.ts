/** One full copy at the destination: chunks into a staging table, key, folds, and the swap (PROTOCOL, A copy and The swap). */
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { RowBatch } from '../../model/changes.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import { hasNewerCopier } from '../backlog-fold.ts';
import { oneBatch } from '../apply-plan.ts';
import { stagedColumns, stagedKey } from '../staged-columns.ts';
import { refusalOf } from '../trial.ts';
import { copyRouteOf } from '../stored-route.ts';
import type { Chunk, ChunkPlan, CopySession, GenerationRequest, RowStream } from '../contract.ts';
import { SqlServerCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { indexSql, keySql, ownDesign } from './ddl.ts';
import { compareSql, DIFFERENCE, emptyDifferenceSql, insertSql, replaceSql, type Swap } from './difference.ts';
import { beginFill } from './fill.ts';
import { SqlServerFold } from './fold.ts';
import { requireUnguarded } from './guards.ts';
import { MAPPING } from './hold.ts';
import { stagingOf } from './home.ts';
import { loadRows } from './loader.ts';
import { Locker, mappingLock } from './locks.ts';
import { flagOf, numberOf, textOf } from '../row-values.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';
import { stagingSql } from './staging.ts';
import { TableApplier } from './table-applier.ts';

export class SqlServerCopy extends SqlServerFold implements CopySession {
  readonly #request: GenerationRequest;
  readonly #loaders: { readonly session: Session; readonly locker: Locker }[] = [];
  #plan: ChunkPlan | null = null;
  #planRead = false;
  /**
   * `absent`: renamed into place; `filled`: the rows are in, uncommitted; a table: replaced by difference. Null: `compare` has not
   * run in this session.
   */
  #swap: 'absent' | 'filled' | Table | null = null;

  constructor(
    connection: Connection,
    session: Session,
    locker: Locker,
    request: GenerationRequest,
    generation: number,
  ) {
    super(connection, session, locker, {
      mappingUid: request.mappingUid,
      generation,
      copyEpoch: request.copyEpoch,
      stream: request.stream,
      group: request.group,
      route: copyRouteOf(request, generation),
      target: stagingOf({ target: request.target, likeLive: request.live !== null }, request.mappingUid, generation),
    });
    this.#request = request;
  }

  async plan(): Promise<ChunkPlan | null> {
    if (!this.#planRead) {
      const stored = textOf(await this.#generation('read the chunk plan', 'copy_plan'), 'copy_plan');
      this.#plan = stored === null ? null : (JSON.parse(stored) as ChunkPlan);
      this.#planRead = true;
    }
    return this.#plan;
  }

  async savePlan(plan: ChunkPlan): Promise<void> {
    await this.#update('save the chunk plan', 'copy_plan = @value', JSON.stringify(plan));
    this.#plan = plan;
    this.#planRead = true;
  }

  async loadedChunks(): Promise<ReadonlyMap<number, number>> {
    const rows = await this.session.query(
      'read which chunks are in',
      `SELECT chunk, rows FROM sluice.chunks WHERE ${MAPPING} AND generation = @generation`,
      { uid: this.options.mappingUid, generation: this.options.generation },
    );
    return new Map(rows.map((row) => [numberOf(row, 'chunk') ?? 0, numberOf(row, 'rows') ?? 0]));
  }

  async restart(): Promise<void> {
    await this.session.transaction(async () => {
      await this.locker.lock(mappingLock(this.options.mappingUid));
      await this.#update('start the copy again', 'copy_plan = NULL, is_key_built = 0, is_indexed = 0, folded_seq = 0');
      await this.#discardChunks();
      // Its key goes with the rows: loading is faster without, and a key loaded twice must not fail.
      await this.session.run('make the staging table anew', [
        `DROP TABLE ${quoteTable(this.options.target)}`,
        ...stagingSql(this.#request, this.options.target),
      ]);
    });
    this.#plan = null;
    await this.forgetTarget();
  }

  load(chunk: Chunk, rows: RowStream): Promise<number> {
    return this.unlessEnded(() => this.#load(chunk, rows));
  }

  async #load(chunk: Chunk, rows: RowStream): Promise<number> {
    const loader = await this.#loader();
    const { session } = loader;
    const { mappingUid, generation, copyEpoch, target, route } = this.options;
    try {
      await session.run('begin a transaction', ['BEGIN TRANSACTION']);
      const loaded = await loadRows(session, target, stagedColumns(this.#request), rows, { tableLock: true });
      // Lock, check, mark and commit in one batch: a copier that freezes here holds nothing. Its successor, which takes the lock to
      // become the copier, sees the mark or has fenced it.
      const marked = await session.query(
        'mark a chunk as loaded',
        `${Locker.lockSql(mappingLock(mappingUid))};
         INSERT INTO sluice.chunks (mapping_uid, generation, chunk, rows)
         SELECT mapping_uid, copy_generation, ${chunk.id}, ${loaded} FROM sluice.generations
          WHERE mapping_uid = ${quoteLiteral(mappingUid)} AND copy_generation = ${generation} AND copy_epoch = ${copyEpoch};
         DECLARE @marked int = @@ROWCOUNT;
         IF @marked = 1 COMMIT TRANSACTION ELSE ROLLBACK TRANSACTION;
         SELECT @marked AS marked`,
      );
      if (!marked.some((row) => numberOf(row, 'marked') === 1)) throw hasNewerCopier(route.target);
      this.#loaders.push(loader);
      return loaded;
    } catch (error) {
      session.destroy();
      await this.connection.release(session);
      await loader.locker.close();
      throw error;
    }
  }

  refusal(rows: RowBatch): Promise<SluiceError | null> {
    return this.unlessEnded(async () => {
      const loader = await this.#loader();
      const { session } = loader;
      try {
        await session.run('begin a trial', ['BEGIN TRANSACTION']);
        const stream = { format: 'cells', batches: oneBatch(rows) } as const;
        // Most is refused before anything is sent; what the server refuses costs the session.
        const refused = await refusalOf(() =>
          loadRows(session, this.options.target, stagedColumns(this.#request), stream, {
            tableLock: true,
            checkFirst: true,
          }),
        );
        if (session.lost) throw refused ?? new SluiceError('CONNECTION_LOST', 'the session of a trial was lost');
        await session.run('end a trial', ['IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION']);
        this.#loaders.push(loader);
        return refused;
      } catch (error) {
        session.destroy();
        await this.connection.release(session);
        await loader.locker.close();
        if (hasCode(error, 'ROW_REFUSED')) return error;
        throw error;
      }
    });
  }

  async buildKey(): Promise<void> {
    if (flagOf(await this.#generation('look whether the key is built', 'is_key_built'), 'is_key_built')) return;
    const build = this.#keySql();
    // Key and mark commit together: a copier that dies in between must not find a key it does not know of. An index comes with its statistics.
    const work = () =>
      this.session.transaction(async () => {
        if (build.length > 0) await this.session.run('build the key', build);
        await this.#update('note that the key is built', 'is_key_built = 1');
      });
    await this.unlessEnded(async () => {
      try {
        await work();
      } catch (error) {
        if (!hasCode(error, 'ROW_REFUSED')) throw error;
        await this.#dropDuplicates();
        await work();
      }
    });
  }

  async buildIndexes(): Promise<void> {
    // Only a table that is renamed into place needs them; a live table keeps its own.
    const live = liveIdSql(this.options.route.target);
    const row = await this.#generation('look whether the indexes are built', `is_indexed, ${live} AS live`);
    if (numberOf(row, 'live') !== null || flagOf(row, 'is_indexed')) return;
    const statements = indexSql(ownDesign(this.#request.design), this.options.target);
    await this.unlessEnded(() =>
      this.session.transaction(async () => {
        if (statements.length > 0) await this.session.run('build the indexes', statements);
        await this.#update('note that the indexes are built', 'is_indexed = 1');
      }),
    );
    await this.forgetTarget();
  }

  async compare(): Promise<{ differing: number }> {
    const [there] = await this.session.query(
      'look for the live table',
      `SELECT ${liveIdSql(this.options.route.target)} AS live`,
    );
    const live = numberOf(there, 'live') === null ? null : await this.#describeLive();
    this.#swap = live ?? 'absent';
    const swap = this.#swapOf();
    if (live && (await this.unlessEnded(() => this.#fill(live)))) {
      this.#swap = 'filled';
      return { differing: 0 };
    }
    if (!live || swap.key.length === 0) return { differing: 0 };
    await this.session.run('make room for differing keys', emptyDifferenceSql(swap.key));
    await this.session.run('compare the copy with the live table', compareSql(swap));
    const [row] = await this.session.query('count the differing keys', `SELECT COUNT(*) AS n FROM ${DIFFERENCE}`);
    return { differing: numberOf(row, 'n') ?? 0 };
  }

  /** Only while no stream applies to the table: one that holds the position must never wait for what is uncommitted here. */
  async #fill(live: Table): Promise<boolean> {
    if (live.kind === 'other') return false;
    const [row] = await this.session.query(
      'look how far the backlog was folded',
      `SELECT folded_seq FROM sluice.generations WHERE ${MAPPING} AND is_live = 0`,
      { uid: this.options.mappingUid },
    );
    if (!row || !(await new SqlServerCatalog(this.connection).isEmpty(live.name))) return false;
    requireUnguarded(live);
    const { columns, key } = this.options.route;
    const applier = new TableApplier(this.session, live, columns, key, false);
    if (this.options.stream !== null) await applier.prepare();
    const insert = insertSql(this.#swapOf(), live, `FROM ${quoteTable(this.options.target)} AS s`);
    if (!(await beginFill(this.session, quoteTable(live.name), insert))) {
      await applier.dropStages();
      return false;
    }
    this.filling = { applier, folded: numberOf(row, 'folded_seq') ?? 0 };
    return true;
  }

  override async close(): Promise<void> {
    await Promise.all(this.#loaders.splice(0).map(({ locker }) => locker.leave()));
    await super.close();
  }

  /** Every key folded since the comparison began is compared again under the lock (PROTOCOL, The swap). */
  protected override async applied(changes: KeyedChanges, applier: TableApplier): Promise<void> {
    if (this.#swap === null || this.#swap === 'absent' || this.#swap === 'filled') return;
    const { key, live } = this.#swapOf();
    if (changes.truncate)
      // Whatever the live table holds that the copy no longer does must be compared as well.
      await this.session.run('compare every live row again', [
        `INSERT INTO ${DIFFERENCE} SELECT ${key.map((column) => quoteIdentifier(column.name)).join(', ')} FROM ${quoteTable(live)}`,
      ]);
    await applier.recordKeys(changes, DIFFERENCE);
  }

  protected override async replace(): Promise<void> {
    const { target } = this.options.route;
    if (this.#swap === null) throw new SluiceError('INTERNAL', 'finish needs compare first');
    if (this.#swap === 'absent') {
      await this.session.run(`put ${displayName(target)} in place`, [
        `EXEC sp_rename @objname = ${quoteLiteral(quoteTable(this.options.target))}, @newname = ${quoteLiteral(target.table)}, @objtype = N'OBJECT'`,
      ]);
    } else if (this.#swap === 'filled') {
      await this.session.run('drop the staging table', [`DROP TABLE ${quoteTable(this.options.target)}`]);
    } else {
      const [row] =
        this.options.route.key.length === 0
          ? [{ n: 1 }]
          : await this.session.query('look whether anything differs', `SELECT TOP (1) 1 AS n FROM ${DIFFERENCE}`);
      await this.session.run(`replace the rows of ${displayName(target)}`, [
        ...(row ? replaceSql(this.#swapOf(), this.#swap) : []),
        `DROP TABLE ${quoteTable(this.options.target)}`,
      ]);
    }
    await this.#discardChunks();
    await this.#update(
      'finish the generation',
      `live_generation = copy_generation, live_route = copy_route, is_live = CASE WHEN stream IS NULL THEN 0 ELSE 1 END,
       finished_request = copy_request, copy_generation = NULL, copy_route = NULL, copy_request = NULL, copy_plan = NULL,
       backlog = NULL, backlog_generation = NULL`,
    );
  }

  #swapOf(): Swap {
    return {
      live: this.options.route.target,
      staging: this.options.target,
      columns: stagedColumns(this.#request),
      key: stagedKey(this.#request),
    };
  }

  #keySql(): string[] {
    if (this.#request.live === null) return keySql(ownDesign(this.#request.design), this.options.target);
    const key = stagedKey(this.#request).map((column) => quoteIdentifier(column.name));
    return key.length === 0
      ? []
      : [`ALTER TABLE ${quoteTable(this.options.target)} ADD PRIMARY KEY (${key.join(', ')})`];
  }

  async #describeLive(): Promise<Table | null> {
    const [table = null] = await new SqlServerCatalog(this.connection).describe([this.options.route.target]);
    return table;
  }

  /** One row per key: any of a key's rows will do, the fold corrects it (PROTOCOL, A copy, 3). */
  async #dropDuplicates(): Promise<void> {
    const staging = quoteTable(this.options.target);
    const columns = stagedColumns(this.#request);
    const list = columns.map((column) => quoteIdentifier(column.name)).join(', ');
    const key = stagedKey(this.#request).map((column) => quoteIdentifier(column.name));
    const same = key.map((name) => `d.${name} = s.${name}`).join(' AND ');
    const identity = (state: string) =>
      this.#request.live === null &&
      ownDesign(this.#request.design).declared.some((column) => column.clauses.startsWith(' IDENTITY'))
        ? [`SET IDENTITY_INSERT ${staging} ${state}`]
        : [];
    await this.session.transaction(async () => {
      await this.session.run('reduce keys loaded twice', [
        `DROP TABLE IF EXISTS #duplicates`,
        `SELECT ${list} INTO #duplicates FROM (
           SELECT ${list}, ROW_NUMBER() OVER (PARTITION BY ${key.join(', ')} ORDER BY ${key.join(', ')}) AS sluice_place,
                  COUNT(*) OVER (PARTITION BY ${key.join(', ')}) AS sluice_rows FROM ${staging}) AS d
          WHERE sluice_rows > 1 AND sluice_place = 1`,
        `DELETE s FROM ${staging} AS s INNER JOIN #duplicates AS d ON ${same}`,
        ...identity('ON'),
        `INSERT INTO ${staging} (${list}) SELECT ${list} FROM #duplicates`,
        ...identity('OFF'),
        `DROP TABLE #duplicates`,
      ]);
    });
  }

  async #loader(): Promise<{ session: Session; locker: Locker }> {
    const idle = this.#loaders.pop();
    if (idle && !idle.session.lost) return idle;
    await idle?.locker.close();
    const session = await this.connection.take();
    try {
      const locker = await Locker.of(this.connection, session, 0);
      await locker.announceCopier(this.options.mappingUid);
      return { session, locker };
    } catch (error) {
      await this.connection.release(session);
      throw error;
    }
  }

  async #generation(doing: string, column: string) {
    const [row] = await this.session.query(doing, `SELECT ${column} FROM sluice.generations WHERE ${MAPPING}`, {
      uid: this.options.mappingUid,
    });
    return row;
  }

  async #discardChunks(): Promise<void> {
    await this.session.query('discard chunk marks', `DELETE FROM sluice.chunks WHERE ${MAPPING}`, {
      uid: this.options.mappingUid,
    });
  }

  /** Writes to the generation row as this copier; FENCED when it is no longer. `@value`: the value, if any. */
  async #update(doing: string, set: string, value: string | null = null): Promise<void> {
    const { mappingUid, generation, copyEpoch } = this.options;
    const rows = await this.session.query(
      doing,
      `UPDATE sluice.generations SET ${set}, updated_at = SYSUTCDATETIME() OUTPUT inserted.mapping_uid AS mapping_uid
        WHERE ${MAPPING} AND copy_generation = @generation AND copy_epoch = @epoch`,
      { uid: mappingUid, generation, epoch: copyEpoch, value },
    );
    if (rows.length === 0) throw hasNewerCopier(this.options.route.target);
  }
}

/** The object id of what has the table's name; describing it takes longer. */
function liveIdSql(target: TableName): string {
  const name = quoteLiteral(quoteTable(target));
  return `COALESCE(OBJECT_ID(${name}, N'U'), OBJECT_ID(${name}, N'V'))`;
}
