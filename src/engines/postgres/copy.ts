/** One full copy at the destination: chunks into a staging table, key, folds, and the swap (PROTOCOL, A copy and The swap). */
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { RowBatch } from '../../model/changes.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import { displayName, type Table } from '../../model/tables.ts';
import type { Chunk, ChunkPlan, CopySession, GenerationRequest, RowStream } from '../contract.ts';
import { PostgresCatalog } from './catalog.ts';
import type { Connection, Session } from './connection.ts';
import { indexSql, keySql, ownDesign, renameIndexesSql } from './ddl.ts';
import { BOUND_TABLE_LOCKS, PostgresFold } from './fold.ts';
import { backlogTable, stagingTable } from '../home-tables.ts';
import { hasNewerCopier } from '../backlog-fold.ts';
import { oneBatch } from '../apply-plan.ts';
import { stagedColumns, stagedKey } from '../staged-columns.ts';
import { refusalOf } from '../trial.ts';
import { copyRouteOf } from '../stored-route.ts';
import { loadRows } from './loader.ts';
import { requireUnguarded, suspend } from './guards.ts';
import { beginFill } from './fill.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { beginApplying, TableApplier } from './table-applier.ts';

/** Keys in which staging and live table differ, or may by now: temporary, of the copier's session. */
const DIFFERENCE = 'pg_temp.difference';

export class PostgresCopy extends PostgresFold implements CopySession {
  readonly #request: GenerationRequest;
  #plan: ChunkPlan | null = null;
  #planRead = false;
  /**
   * `absent`: renamed into place; `filled`: the rows are in, uncommitted; `compared`: replaced by difference. Null: `compare` has
   * not run in this session.
   */
  #swap: 'absent' | 'filled' | 'compared' | null = null;

  constructor(connection: Connection, session: Session, request: GenerationRequest, generation: number) {
    super(connection, session, {
      mappingUid: request.mappingUid,
      generation,
      copyEpoch: request.copyEpoch,
      lockWaitMs: request.lockWaitMs,
      stream: request.stream,
      group: request.group,
      route: copyRouteOf(request, generation),
      target: stagingTable(request.mappingUid, generation),
    });
    this.#request = request;
  }

  async plan(): Promise<ChunkPlan | null> {
    if (!this.#planRead) {
      const [row] = await this.session.query(
        'read the chunk plan',
        `SELECT copy_plan FROM sluice.generations WHERE mapping_uid = $1`,
        [this.options.mappingUid],
      );
      this.#plan = row?.['copy_plan'] ? (JSON.parse(row['copy_plan']) as ChunkPlan) : null;
      this.#planRead = true;
    }
    return this.#plan;
  }

  async savePlan(plan: ChunkPlan): Promise<void> {
    await this.#update('save the chunk plan', 'copy_plan = $4', '', [JSON.stringify(plan)]);
    this.#plan = plan;
    this.#planRead = true;
  }

  async loadedChunks(): Promise<ReadonlyMap<number, number>> {
    const rows = await this.session.query(
      'read which chunks are in',
      `SELECT chunk, rows FROM sluice.chunks WHERE mapping_uid = $1 AND generation = $2`,
      [this.options.mappingUid, this.options.generation],
    );
    return new Map(rows.map((row) => [Number(row['chunk']), Number(row['rows'])]));
  }

  async restart(): Promise<void> {
    await this.session.transaction('BEGIN', async () => {
      await this.#update(
        'start the copy again',
        'copy_plan = NULL, is_key_built = false, is_indexed = false, folded_seq = 0',
      );
      await this.session.query('discard chunk marks', `DELETE FROM sluice.chunks WHERE mapping_uid = $1`, [
        this.options.mappingUid,
      ]);
      // Its key goes with the rows: loading is faster without, and a key loaded twice must not fail.
      const [key] = await this.session.query(
        'look for the staging table’s key',
        `SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype IN ('p', 'u')`,
        [quoteTable(this.options.target)],
      );
      await this.session.run('empty the staging table', [
        `TRUNCATE ${quoteTable(this.options.target)}`,
        ...(key
          ? [`ALTER TABLE ${quoteTable(this.options.target)} DROP CONSTRAINT ${quoteIdentifier(key['conname'] ?? '')}`]
          : []),
      ]);
    });
    this.#plan = null;
  }

  async load(chunk: Chunk, rows: RowStream): Promise<number> {
    // No trigger and no foreign key is on a staging table, so any session will do.
    const session = await this.connection.take();
    try {
      const count = await session.transaction('BEGIN', async () => {
        const loaded = await loadRows(session, this.options.target, stagedColumns(this.#request), rows);
        const marked = await session.query(
          'mark a chunk as loaded',
          `INSERT INTO sluice.chunks (mapping_uid, generation, chunk, rows)
           SELECT mapping_uid, copy_generation, $4::int, $5::bigint FROM sluice.generations
            WHERE mapping_uid = $1 AND copy_generation = $2 AND copy_epoch = $3 FOR SHARE RETURNING chunk`,
          [this.options.mappingUid, this.options.generation, this.options.copyEpoch, chunk.id, loaded],
        );
        if (marked.length === 0) throw hasNewerCopier(this.options.route.target);
        return loaded;
      });
      await this.connection.giveBack(session);
      return count;
    } catch (error) {
      session.destroy();
      await this.connection.release(session);
      throw error;
    }
  }

  async refusal(rows: RowBatch): Promise<SluiceError | null> {
    const session = await this.connection.take();
    try {
      await session.run('begin a trial', ['BEGIN']);
      const refused = await refusalOf(() =>
        loadRows(session, this.options.target, stagedColumns(this.#request), {
          format: 'cells',
          batches: oneBatch(rows),
        }),
      );
      await session.run('end a trial', ['ROLLBACK']);
      await this.connection.giveBack(session);
      return refused;
    } catch (error) {
      session.destroy();
      await this.connection.release(session);
      throw error;
    }
  }

  async buildKey(): Promise<void> {
    const [row] = await this.session.query(
      'look whether the key is built',
      `SELECT is_key_built FROM sluice.generations WHERE mapping_uid = $1`,
      [this.options.mappingUid],
    );
    if (row?.['is_key_built'] === 't') return;
    const build = this.#keySql();
    // Key and mark commit together: a copier that dies in between must not find a key it does not know of.
    const work = () =>
      this.session.transaction('BEGIN', async () => {
        if (build.length > 0) {
          await this.session.run('build the key', [`SET LOCAL maintenance_work_mem = '256MB'`, ...build]);
        }
        await this.session.run('gather statistics', [`ANALYZE ${quoteTable(this.options.target)}`]);
        await this.#update('note that the key is built', 'is_key_built = true');
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
    if (await this.#hasLive()) return;
    const [row] = await this.session.query(
      'look whether the indexes are built',
      `SELECT is_indexed FROM sluice.generations WHERE mapping_uid = $1`,
      [this.options.mappingUid],
    );
    if (row?.['is_indexed'] === 't') return;
    const statements = indexSql(ownDesign(this.#request.design), this.options.target);
    await this.unlessEnded(() =>
      this.session.transaction('BEGIN', async () => {
        if (statements.length > 0) await this.session.run('build the indexes', statements);
        await this.#update('note that the indexes are built', 'is_indexed = true');
      }),
    );
    await this.forgetTarget();
  }

  async compare(): Promise<{ differing: number }> {
    const live = (await this.#hasLive()) ? await this.#describeLive() : null;
    if (!live) {
      this.#swap = 'absent';
      return { differing: 0 };
    }
    if (await this.unlessEnded(() => this.#fill(live))) {
      this.#swap = 'filled';
      return { differing: 0 };
    }
    this.#swap = 'compared';
    if (this.options.route.key.length === 0) return { differing: 0 };
    const key = stagedKey(this.#request);
    await this.session.run('make room for differing keys', [
      `DROP TABLE IF EXISTS ${DIFFERENCE}`,
      `CREATE TEMP TABLE difference (${key.map((column, i) => `k${i + 1} ${column.nativeType}`).join(', ')})`,
    ]);
    const names = stagedColumns(this.#request).map((column) => quoteIdentifier(column.name));
    const list = (alias: string) => `ROW(${names.map((name) => `${alias}.${name}`).join(', ')})`;
    const join = key
      .map((column) => `l.${quoteIdentifier(column.name)} = s.${quoteIdentifier(column.name)}`)
      .join(' AND ');
    const first = quoteIdentifier(key[0]?.name ?? '');
    // Images are compared (the operator *<>, which ROW() *<> ROW() would take apart): 1.0 and 1.00 differ, and so do types without an equality of their own (json).
    const [, , , differing = 0] = await this.session.run('compare the copy with the live table', [
      `SET enable_hashjoin = on`,
      `SET enable_mergejoin = on`,
      `SET enable_seqscan = on`,
      `INSERT INTO ${DIFFERENCE} SELECT ${key.map((column) => `coalesce(l.${quoteIdentifier(column.name)}, s.${quoteIdentifier(column.name)})`).join(', ')}
         FROM ${quoteTable(this.options.route.target)} l FULL JOIN ${quoteTable(this.options.target)} s ON ${join}
        WHERE l.${first} IS NULL OR s.${first} IS NULL OR record_image_ne(${list('l')}, ${list('s')})`,
      `SET enable_hashjoin = off`,
      `SET enable_mergejoin = off`,
      `SET enable_seqscan = off`,
    ]);
    return { differing };
  }

  /** Only while no stream applies to the table: one that holds the position row must never wait for what is uncommitted here. */
  async #fill(live: Table): Promise<boolean> {
    if (live.kind === 'other') return false;
    const [row] = await this.session.query(
      'look how far the backlog was folded',
      `SELECT folded_seq FROM sluice.generations WHERE mapping_uid = $1 AND NOT is_live`,
      [this.options.mappingUid],
    );
    if (!row || !(await new PostgresCatalog(this.connection).isEmpty(live.name))) return false;
    await requireUnguarded(live, () => suspend(this.session));
    const columns = stagedColumns(this.#request).map((column) => column.name);
    if (!(await beginFill(this.session, live.name, this.options.target, columns))) return false;
    const applier = new TableApplier(this.session, live, this.options.route.columns, this.options.route.key, false);
    beginApplying(this.session);
    if (this.options.stream !== null) await applier.prepare();
    this.filling = { applier, folded: Number(row['folded_seq'] ?? 0) };
    return true;
  }

  /** Every key folded since the comparison began is compared again under the lock (PROTOCOL, The swap). */
  protected override async applied(changes: KeyedChanges, applier: TableApplier): Promise<void> {
    if (this.#swap !== 'compared') return;
    if (changes.truncate) {
      // Whatever the live table holds that the copy no longer does must be compared as well.
      const key = stagedKey(this.#request).map((column) => quoteIdentifier(column.name));
      await this.session.run('compare every live row again', [
        `INSERT INTO ${DIFFERENCE} SELECT ${key.join(', ')} FROM ${quoteTable(this.options.route.target)}`,
      ]);
    }
    await applier.recordKeys(changes, DIFFERENCE);
  }

  protected override async replace(): Promise<void> {
    const { mappingUid, generation, stream, group } = this.options;
    if (this.#swap === null) throw new SluiceError('INTERNAL', 'finish needs compare first');
    await this.session.run(`put the rows of ${displayName(this.options.route.target)} in place`, [
      BOUND_TABLE_LOCKS,
      ...this.#swapSql(),
      ...(stream === null ? [] : [`DROP TABLE ${quoteTable(backlogTable(mappingUid, generation))}`]),
    ]);
    await this.#update(
      'finish the generation',
      `live_generation = copy_generation, live_route = copy_route, is_live = stream IS NOT NULL, finished_request = copy_request,
       copy_generation = NULL, copy_route = NULL, copy_request = NULL, copy_plan = NULL, copy_session = NULL, backlog = NULL, backlog_generation = NULL`,
      `WITH marks AS (DELETE FROM sluice.chunks WHERE mapping_uid = $1),
         announced AS (UPDATE sluice.positions SET route_version = route_version + 1 WHERE stream = $4 AND apply_group = $5)`,
      [stream, group],
    );
  }

  #swapSql(): string[] {
    const { target } = this.options.route;
    const staging = quoteTable(this.options.target);
    if (this.#swap === 'filled') return [`DROP TABLE ${staging}`];
    if (this.#swap === 'compared') return [...this.#differenceSql(), `DROP TABLE ${staging}`];
    return [
      `CREATE SCHEMA IF NOT EXISTS ${quoteIdentifier(target.schema)}`,
      // First out of our schema, under a name that is ours: its new name may be that of one of our own tables.
      `ALTER TABLE ${staging} SET SCHEMA ${quoteIdentifier(target.schema)}`,
      renameIndexesSql({ schema: target.schema, table: this.options.target.table }, target.table),
      `ALTER TABLE ${quoteTable({ schema: target.schema, table: this.options.target.table })} RENAME TO ${quoteIdentifier(target.table)}`,
    ];
  }

  /** Deletes, updates and inserts what still differs: grants, views, keys and readers never notice. */
  #differenceSql(): string[] {
    const live = quoteTable(this.options.route.target);
    const staging = quoteTable(this.options.target);
    const columns = stagedColumns(this.#request).map((column) => quoteIdentifier(column.name));
    const names = columns.join(', ');
    const values = columns.map((name) => `s.${name}`).join(', ');
    if (this.options.route.key.length === 0) {
      return [
        `DELETE FROM ${live}`,
        `INSERT INTO ${live} (${names}) OVERRIDING SYSTEM VALUE SELECT ${values} FROM ${staging} s`,
      ];
    }
    const key = stagedKey(this.#request).map((column) => quoteIdentifier(column.name));
    const keys = `(SELECT DISTINCT ${key.map((_, i) => `k${i + 1}`).join(', ')} FROM ${DIFFERENCE}) d`;
    const on = (alias: string) => key.map((name, i) => `${alias}.${name} = d.k${i + 1}`).join(' AND ');
    const differs = `record_image_ne(ROW(${columns.map((name) => `t.${name}`).join(', ')}), ROW(${values}))`;
    return [
      `DELETE FROM ${live} t USING ${keys} WHERE ${on('t')} AND NOT EXISTS (SELECT 1 FROM ${staging} s WHERE ${on('s')})`,
      // A row that changes a unique column is deleted and inserted, so that two rows may exchange their values (F24). So is every
      // row of a table with GENERATED ALWAYS AS IDENTITY, which takes no update.
      ...(this.#hasOtherUnique || stagedColumns(this.#request).some((column) => column.identity === 'always')
        ? [`DELETE FROM ${live} t USING ${keys} JOIN ${staging} s ON ${on('s')} WHERE ${on('t')} AND ${differs}`]
        : [
            `UPDATE ${live} t SET ${columns.map((name) => `${name} = s.${name}`).join(', ')} FROM ${keys} JOIN ${staging} s ON ${on('s')} WHERE ${on('t')} AND ${differs}`,
          ]),
      `INSERT INTO ${live} (${names}) OVERRIDING SYSTEM VALUE SELECT ${values} FROM ${keys} JOIN ${staging} s ON ${on('s')}
        WHERE NOT EXISTS (SELECT 1 FROM ${live} t WHERE ${on('t')})`,
    ];
  }

  #hasOtherUnique = false;

  #keySql(): string[] {
    if (this.#request.live === null) return keySql(ownDesign(this.#request.design), this.options.target);
    if (this.options.route.key.length === 0) return [];
    const key = stagedKey(this.#request).map((column) => quoteIdentifier(column.name));
    return [`ALTER TABLE ${quoteTable(this.options.target)} ADD PRIMARY KEY (${key.join(', ')})`];
  }

  /** Cheaper than a description. */
  async #hasLive(): Promise<boolean> {
    const { schema, table } = this.options.route.target;
    const [row] = await this.session.query(
      'look whether the table is there',
      `SELECT 1 AS found FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
        WHERE s.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')`,
      [schema, table],
    );
    return row !== undefined;
  }

  async #describeLive(): Promise<Table | null> {
    const [table = null] = await new PostgresCatalog(this.connection).describe([this.options.route.target]);
    this.#hasOtherUnique = table !== null && (table.keys.length > 1 || table.indexes.some((index) => index.unique));
    return table;
  }

  /** One row per key: any of a key's rows will do, the fold corrects it (PROTOCOL, A copy, 3). */
  async #dropDuplicates(): Promise<void> {
    const staging = quoteTable(this.options.target);
    const key = stagedKey(this.#request)
      .map((column) => quoteIdentifier(column.name))
      .join(', ');
    await this.session.run('reduce keys loaded twice', [
      `SET enable_seqscan = on`,
      `SET enable_hashjoin = on`,
      `DELETE FROM ${staging} t USING (SELECT ctid AS place, row_number() OVER (PARTITION BY ${key}) AS n FROM ${staging}) d WHERE t.ctid = d.place AND d.n > 1`,
      `SET enable_seqscan = off`,
      `SET enable_hashjoin = off`,
    ]);
  }

  /** Writes to the generation row as this copier; FENCED when it is no longer. `and`: a WITH that goes along; `values`: from `$4` on. */
  async #update(doing: string, set: string, and = '', values: readonly unknown[] = []): Promise<void> {
    const { mappingUid, generation, copyEpoch } = this.options;
    const rows = await this.session.query(
      doing,
      `${and} UPDATE sluice.generations SET ${set}, updated_at = now() WHERE mapping_uid = $1 AND copy_generation = $2 AND copy_epoch = $3 RETURNING mapping_uid`,
      [mappingUid, generation, copyEpoch, ...values],
    );
    if (rows.length === 0) throw hasNewerCopier(this.options.route.target);
  }
}
