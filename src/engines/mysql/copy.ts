/** One full copy at the destination: chunks into a staging table, folds, and the swap (PROTOCOL, A copy and The swap). */
import { SluiceError } from '../../model/errors.ts';
import type { RowBatch } from '../../model/changes.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import type { Table, TableName } from '../../model/tables.ts';
import { hasNewerCopier } from '../backlog-fold.ts';
import { flagOf, numberOf, textOf } from '../row-values.ts';
import { oneBatch } from '../apply-plan.ts';
import { stagedColumns, stagedKey } from '../staged-columns.ts';
import { refusalOf } from '../trial.ts';
import { copyRouteOf } from '../stored-route.ts';
import type { Chunk, ChunkPlan, CopySession, GenerationRequest, RowStream } from '../contract.ts';
import { MysqlCatalog } from './catalog.ts';
import type { Connection, Parameter, Row, Session } from './connection.ts';
import { createTableSql, indexSql, ownDesign } from './ddl.ts';
import { compareSql, DIFFERENCE, emptyDifferenceSql, insertSql, replaceSql, type Swap } from './difference.ts';
import { stagedType } from './exact.ts';
import { beginFill } from './fill.ts';
import { MysqlFold } from './fold.ts';
import { reserve, stagingOf } from './generations.ts';
import { requireWritable } from './guards.ts';
import { lockGeneration } from './hold.ts';
import { loadRows } from './load/loader.ts';
import { Locker } from './locks.ts';
import { forceKey } from './ranges.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from './sql.ts';
import { settle, settleGroup, exists } from './swaps.ts';
import { TableApplier } from './table-applier.ts';
import { BEGIN, inTransaction, openWriter } from './transactions.ts';
import { errorNumber } from './errors.ts';

/** Bad null: how a statement below says that it is not for this copier any more. */
const NOT_NULL = 1048;

interface Loader {
  readonly session: Session;
  readonly locker: Locker;
}

/** The table a copy is loaded into: like the live one where there is one, so that rows go over without a conversion; else as designed. */
export function stagingSql(request: GenerationRequest, name: TableName): string {
  if (request.live === null) return createTableSql(ownDesign(request.design), name);
  const key = stagedKey(request).map((column) => column.name);
  const declared = stagedColumns(request).map(
    (column) =>
      `${quoteIdentifier(column.name)} ${stagedType(column)} ${key.includes(column.name) ? 'NOT NULL' : 'NULL'}`,
  );
  if (key.length > 0) declared.push(`PRIMARY KEY (${key.map(quoteIdentifier).join(', ')})`);
  return `CREATE TABLE ${quoteTable(name)} (${declared.join(', ')}) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4`;
}

export class MysqlCopy extends MysqlFold implements CopySession {
  readonly #request: GenerationRequest;
  readonly #loaders: Loader[] = [];
  #staging: TableName;
  #plan: ChunkPlan | null = null;
  #planRead = false;
  /**
   * `absent`: renamed into place; `filled`: the rows are in, uncommitted; a table: replaced by difference. Null: `compare` has not
   * run in this session.
   */
  #swap: 'absent' | 'filled' | Table | null = null;
  #byKey: Swap['byKey'] = { live: '', staging: '' };

  /** `number`: in the staging table's name. */
  constructor(
    connection: Connection,
    session: Session,
    locker: Locker,
    request: GenerationRequest,
    of: { readonly generation: number; readonly number: number },
  ) {
    const target = stagingOf(request.target, request.mappingUid, of.number);
    super(connection, session, locker, {
      mappingUid: request.mappingUid,
      generation: of.generation,
      copyEpoch: request.copyEpoch,
      stream: request.stream,
      group: request.group,
      route: copyRouteOf(request, of.generation),
      target,
    });
    this.#request = request;
    this.#staging = target;
  }

  protected override get target(): TableName {
    return this.#staging;
  }

  async plan(): Promise<ChunkPlan | null> {
    if (!this.#planRead) {
      const stored = textOf(await this.#generation('read the chunk plan'), 'copy_plan');
      this.#plan = stored === null ? null : (JSON.parse(stored) as ChunkPlan);
      this.#planRead = true;
    }
    return this.#plan;
  }

  async savePlan(plan: ChunkPlan): Promise<void> {
    await this.#update('save the chunk plan', 'copy_plan = ?', [JSON.stringify(plan)]);
    this.#plan = plan;
    this.#planRead = true;
  }

  async loadedChunks(): Promise<ReadonlyMap<number, number>> {
    const rows = await this.session.query(
      'read which chunks are in',
      'SELECT chunk, row_count FROM sluice_chunks WHERE mapping_uid = ? AND generation = ?',
      [this.options.mappingUid, this.options.generation],
    );
    return new Map(rows.map((row) => [numberOf(row, 'chunk') ?? 0, numberOf(row, 'row_count') ?? 0]));
  }

  /** Another, empty table takes the staging table's place: emptying this one would commit before the marks of its chunks are gone. */
  async restart(): Promise<void> {
    const { mappingUid } = this.options;
    const { session } = this;
    await this.unlessEnded(async () => {
      const number = await reserve(session, mappingUid);
      const next = stagingOf(this.#request.target, mappingUid, number);
      await session.run('make another staging table', [
        `DROP TABLE IF EXISTS ${quoteTable(next)}`,
        stagingSql(this.#request, next),
      ]);
      await inTransaction(
        session,
        async () => {
          await lockGeneration(session, this.locker, mappingUid);
          await this.#update(
            'start the copy again',
            'copy_plan = NULL, is_indexed = 0, folded_seq = 0, copy_table = ?, reserved = NULL',
            [number],
          );
          await this.#discardChunks();
        },
        { locker: this.locker },
      );
      await session.run('drop the former staging table', [`DROP TABLE IF EXISTS ${quoteTable(this.#staging)}`]);
      this.#staging = next;
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
    const { mappingUid, generation, copyEpoch, route } = this.options;
    try {
      await session.run('begin a transaction', BEGIN);
      // A key that was loaded before stays as it was: any of a key's rows will do, the fold corrects it (PROTOCOL, A copy, 3).
      const { rows: loaded } = await loadRows(session, this.#staging, stagedColumns(this.#request), rows, {
        skipDuplicates: true,
      });
      // Lock, check, mark and commit in one round trip: a copier that freezes here holds nothing. Its successor, which takes the row to
      // become the copier, sees the mark or has fenced it.
      await session.run('mark a chunk as loaded', [
        'RELEASE SAVEPOINT sluice_whole',
        `INSERT INTO sluice_chunks (mapping_uid, generation, chunk, row_count) VALUES (${quoteLiteral(mappingUid)},
           (SELECT copy_generation FROM sluice_generations WHERE mapping_uid = ${quoteLiteral(mappingUid)}
             AND copy_generation = ${generation} AND copy_epoch = ${copyEpoch} FOR UPDATE), ${chunk.id}, ${loaded})`,
        'COMMIT',
        'SET autocommit = 1',
      ]);
      this.#loaders.push(loader);
      return loaded;
    } catch (error) {
      session.destroy();
      await this.connection.release(session);
      await loader.locker.retract();
      if (errorNumber(error) === NOT_NULL) throw hasNewerCopier(route.target);
      throw error;
    }
  }

  refusal(rows: RowBatch): Promise<SluiceError | null> {
    return this.unlessEnded(async () => {
      const loader = await this.#loader();
      const { session } = loader;
      try {
        await session.run('begin a trial', BEGIN);
        const stream = { format: 'cells', batches: oneBatch(rows) } as const;
        const refused = await refusalOf(() =>
          loadRows(session, this.#staging, stagedColumns(this.#request), stream, { skipDuplicates: true }),
        );
        await session.run('end a trial', ['ROLLBACK', 'SET autocommit = 1']);
        this.#loaders.push(loader);
        return refused;
      } catch (error) {
        session.destroy();
        await this.connection.release(session);
        await loader.locker.retract();
        throw error;
      }
    });
  }

  /** The staging table has had its key from the beginning. */
  buildKey(): Promise<void> {
    return Promise.resolve();
  }

  async buildIndexes(): Promise<void> {
    // Only a table that is renamed into place needs them; a live table keeps its own.
    const row = await this.#generation('look whether the indexes are built');
    if (flagOf(row, 'is_indexed') || (await exists(this.session, this.options.route.target))) return;
    const statements = indexSql(ownDesign(this.#request.design), this.#staging);
    await this.unlessEnded(async () => {
      if (statements.length > 0 && !(await this.#hasIndexes())) await this.session.run('build the indexes', statements);
      await this.#update('note that the indexes are built', 'is_indexed = 1', []);
    });
    await this.forgetTarget();
  }

  /** One statement makes them all, or none. */
  async #hasIndexes(): Promise<boolean> {
    const [described] = await new MysqlCatalog(this.connection).describe([this.#staging]);
    const [first] = ownDesign(this.#request.design).indexes;
    return [...(described?.indexes ?? []), ...(described?.keys ?? [])].some((index) => index.name === first?.name);
  }

  async compare(): Promise<{ differing: number }> {
    const { target } = this.options.route;
    const described = await new MysqlCatalog(this.connection).describe([target, this.#staging]);
    const [live = null, staging = null] = described;
    const keyNames = stagedKey(this.#request).map((column) => column.name);
    const hint = (table: Table | null) => (table === null ? '' : forceKey(table, keyNames));
    this.#byKey = { live: hint(live), staging: hint(staging) };
    this.#swap = live ?? 'absent';
    const swap = this.#swapOf();
    if (live) requireWritable(live);
    if (live && (await this.unlessEnded(() => this.#fill(live)))) {
      this.#swap = 'filled';
      return { differing: 0 };
    }
    if (!live || swap.key.length === 0) return { differing: 0 };
    await this.session.run('make room for differing keys', emptyDifferenceSql(swap.key));
    const counts = await this.session.run('compare the copy with the live table', compareSql(swap));
    return { differing: counts.reduce((sum, count) => sum + count, 0) };
  }

  /** Only while no stream applies to the table: one that holds the position must never wait for what is uncommitted here. */
  async #fill(live: Table): Promise<boolean> {
    if (live.kind === 'other') return false;
    const row = await this.#generation('look how far the backlog was folded');
    if (flagOf(row, 'is_live') || !(await new MysqlCatalog(this.connection).isEmpty(live.name))) return false;
    const { columns, key } = this.options.route;
    const applier = new TableApplier(this.session, live, columns, key, false);
    if (this.options.stream !== null) await applier.prepare();
    const insert = insertSql(this.#swapOf(), `FROM ${quoteTable(this.#staging)} AS s`);
    if (!(await beginFill(this.session, live.name, insert))) {
      await applier.dropStages();
      return false;
    }
    this.filling = { applier, folded: numberOf(row, 'folded_seq') ?? 0 };
    return true;
  }

  override async close(): Promise<void> {
    await Promise.all(
      this.#loaders.splice(0).map(async ({ session, locker }) => {
        await this.connection.release(session);
        await locker.retract();
      }),
    );
    await super.close();
  }

  /** Every key folded since the comparison began is compared again under the lock (PROTOCOL, The swap). */
  protected override async applied(changes: KeyedChanges, applier: TableApplier): Promise<void> {
    if (this.#swap === null || this.#swap === 'absent' || this.#swap === 'filled') return;
    const { key, live } = this.#swapOf();
    if (changes.truncate)
      // Whatever the live table holds that the copy no longer does must be compared as well.
      await this.session.run('compare every live row again', [
        `INSERT INTO ${quoteTable(DIFFERENCE)} SELECT ${key.map((column) => quoteIdentifier(column.name)).join(', ')} FROM ${quoteTable(live)}`,
      ]);
    await applier.recordKeys(changes, DIFFERENCE);
  }

  protected override async replace(): Promise<void> {
    if (this.#swap === null) throw new SluiceError('INTERNAL', 'finish needs compare first');
    if (this.#swap !== 'absent' && this.#swap !== 'filled')
      await this.session.run('replace the rows', replaceSql(this.#swapOf(), this.#swap));
    await this.#discardChunks();
    const isAbsent = this.#swap === 'absent';
    await this.#update(
      'finish the generation',
      `live_generation = copy_generation, live_route = copy_route, is_live = IF(stream IS NULL, 0, 1), finished_request = copy_request,
       pending_rename = ?, copy_generation = NULL, copy_table = NULL, copy_route = NULL, copy_request = NULL, copy_plan = NULL,
       reserved = NULL, backlog = NULL, backlog_generation = NULL`,
      [isAbsent ? this.#staging.table : null],
    );
    const { stream, group } = this.options;
    if (isAbsent && stream !== null)
      await this.session.query(
        'note that a swap is to be finished',
        'UPDATE sluice_positions SET has_renames = 1 WHERE stream = ? AND apply_group = ?',
        [stream, group],
      );
  }

  /** The swap is decided, and nobody has taken the lock since: the name follows. */
  protected override async swapped(): Promise<void> {
    if (this.#swap !== 'absent') return;
    const { stream, group } = this.options;
    if (stream !== null) return settleGroup(this.session, stream, group);
    const row = await this.#generation('read the generation');
    if (row) await settle(this.session, row);
  }

  #swapOf(): Swap {
    return {
      live: this.options.route.target,
      staging: this.#staging,
      columns: stagedColumns(this.#request),
      key: stagedKey(this.#request),
      byKey: this.#byKey,
    };
  }

  async #loader(): Promise<Loader> {
    const idle = this.#loaders.pop();
    if (idle && !idle.session.lost) return idle;
    await idle?.locker.retract();
    const session = await openWriter(this.connection, { patient: true });
    try {
      const locker = new Locker(this.connection, session, 0);
      await locker.announceCopier(this.options.mappingUid);
      return { session, locker };
    } catch (error) {
      await this.connection.release(session);
      throw error;
    }
  }

  async #generation(doing: string): Promise<Row | undefined> {
    const [row] = await this.session.query(doing, 'SELECT * FROM sluice_generations WHERE mapping_uid = ?', [
      this.options.mappingUid,
    ]);
    return row;
  }

  async #discardChunks(): Promise<void> {
    await this.session.query('discard chunk marks', 'DELETE FROM sluice_chunks WHERE mapping_uid = ?', [
      this.options.mappingUid,
    ]);
  }

  /** Writes to the generation row as this copier; FENCED when it is no longer. */
  async #update(doing: string, set: string, values: readonly Parameter[]): Promise<void> {
    const { mappingUid, generation, copyEpoch } = this.options;
    const { rows } = await this.session.change(
      doing,
      `UPDATE sluice_generations SET ${set}, updated_at = NOW(3) WHERE mapping_uid = ? AND copy_generation = ? AND copy_epoch = ?`,
      [...values, mappingUid, generation, copyEpoch],
    );
    if (rows === 0) throw hasNewerCopier(this.options.route.target);
  }
}
