/**
 * Set-based apply of collapsed changes to one table, on one session, inside the caller's transaction: load to temporary
 * staging tables, then delete, update, insert by join. Used by the live stream (target: the live table) and by folds
 * (target: the copy's staging table).
 */
import { hasCode } from '../../model/errors.ts';
import type { Cell } from '../../model/changes.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import { displayName, type Column, type Table, type TableName } from '../../model/tables.ts';
import { addCounts, ApplyPlan, oneBatch, present, requireFilled } from '../apply-plan.ts';
import type { ApplyCounts, RouteColumn } from '../contract.ts';
import type { Session } from './connection.ts';
import { binaryFrames, binaryWriters } from './binary-rows.ts';
import { keyText } from './fetch.ts';
import { imageFrames, loadRows } from './loader.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';
import { imageBatches } from '../image-changes.ts';
import { copyLanes, TEXT_LANE } from './types.ts';

/**
 * What returned from COMMIT has reached the disk, whatever the server's default is: positions are acknowledged by it. The joins go from a staging table, which has no statistics, to the target's key index, always: a planner that guesses
 * otherwise reads the whole target for a batch of ten rows.
 */
export const APPLY_SETTINGS = [
  'SET enable_hashjoin = off',
  'SET enable_mergejoin = off',
  'SET enable_seqscan = off',
  'SET jit = off',
  `SELECT set_config('synchronous_commit', 'local', false) WHERE current_setting('synchronous_commit') = 'off'`,
];

/** Staging tables a session keeps; past that the least recently used are dropped. ON COMMIT empties every one of them. */
const MAX_STAGED_TABLES = 64;

/** Of a session: the number of the next staging table, who has some, and which hold rows of the transaction under way. */
const stagedBy = new WeakMap<Session, { next: number; recent: Set<TableApplier>; filled: Set<string> }>();

export class TableApplier {
  readonly #session: Session;
  readonly #target: string;
  readonly #name: TableName;
  readonly #plan: ApplyPlan;
  readonly #doing: string;
  /** Rows that are new go into the table without a look at what it holds. */
  #insertsDirectly: boolean;
  #upsertStage: string | null = null;
  #deleteStage: string | null = null;
  #absentStage: string | null = null;

  /**
   * `table`: the target as it is described now. `columns`: source and target names in the order of the cells.
   * `key`: the source names of the key columns. `isExact`: the table is always exactly where the changes begin, so that a row made by
   * them cannot be there yet (not so a table that is still being copied).
   */
  constructor(
    session: Session,
    table: Table,
    columns: readonly RouteColumn[],
    key: readonly string[],
    isExact: boolean,
  ) {
    this.#session = session;
    this.#name = table.name;
    this.#insertsDirectly = isExact;
    this.#doing = `apply changes to ${displayName(table.name)}`;
    this.#target = quoteTable(table.name);
    this.#plan = new ApplyPlan(table, columns, key, (column) => column.identity !== 'always');
  }

  /** Makes the temporary tables now, outside a transaction whose rollback would take them away again. */
  async prepare(): Promise<void> {
    this.#deleteStage ??= await this.#create(this.#deleteColumns().map(declaration));
    this.#upsertStage ??= await this.#create(this.#upsertColumns().map(declaration));
    this.#absentStage ??= await this.#createAbsent();
  }

  async apply(changes: KeyedChanges): Promise<ApplyCounts> {
    const counts: ApplyCounts = { inserted: 0, updated: 0, deleted: 0 };
    const width = this.#plan.columns.length;
    if (changes.truncate) {
      // Not TRUNCATE: a reader with an older snapshot would see the table empty in the middle of its transaction (F49).
      const [rows = 0] = await this.#session.run(this.#doing, [`DELETE FROM ${this.#target}`]);
      counts.deleted += rows;
    }
    const newCount = this.#insertsDirectly ? changes.newCount : 0;
    if (changes.upsertCount > newCount || changes.deleteCount > 0) {
      addCounts(counts, await this.#applyStaged(changes, newCount));
    }
    if (newCount > 0) {
      if (await this.#insertDirectly(changes, newCount)) counts.inserted += newCount;
      else {
        const upserts = changes.upserts.slice(0, newCount * width);
        const rest = { upserts, images: null, upsertCount: newCount, deletes: [], deleteCount: 0, hasAbsent: false };
        addCounts(counts, await this.#applyStaged({ ...changes, ...rest }, 0));
      }
    }
    return counts;
  }

  /** Deletes, and the upserts behind the first `newCount`: those that may have a row already. */
  async #applyStaged(changes: KeyedChanges, newCount: number): Promise<ApplyCounts> {
    const counts: ApplyCounts = { inserted: 0, updated: 0, deleted: 0 };
    const steps: { sql: string; counts: keyof ApplyCounts | null }[] = [];
    const deleteStage = changes.deleteCount > 0 ? await this.#stageDeletes(changes) : null;
    const upserts = changes.upsertCount - newCount;
    const stage = upserts > 0 ? await this.#stageUpserts(changes, newCount) : null;
    if (stage !== null && changes.hasAbsent) await this.#fillAbsent(changes, stage);
    if (deleteStage !== null) {
      steps.push({
        sql: `DELETE FROM ${this.#target} t USING ${deleteStage} s WHERE ${this.#join('t', 's', 'k')}`,
        counts: 'deleted',
      });
    }
    if (stage !== null) {
      if (this.#plan.unique.length > 0) steps.push({ sql: this.#deleteMovedUnique(stage), counts: null });
      steps.push({ sql: this.#update(stage), counts: 'updated' });
    }
    const touched = await this.#session.run(
      this.#doing,
      steps.map((step) => step.sql),
    );
    steps.forEach((step, i) => {
      if (step.counts) counts[step.counts] += touched[i] ?? 0;
      else {
        // Deleted to be inserted again: an update for whoever counts.
        counts.updated += touched[i] ?? 0;
        counts.inserted -= touched[i] ?? 0;
      }
    });
    if (stage !== null && (touched.at(-1) ?? 0) < upserts) {
      const [inserted = 0] = await this.#session.run(this.#doing, [this.#insert(stage)]);
      counts.inserted += inserted;
    }
    return counts;
  }

  /** Loads new rows into the table itself. False: the table does not take them this way, and nothing has happened. */
  async #insertDirectly(changes: KeyedChanges, newCount: number): Promise<boolean> {
    const session = this.#session;
    try {
      await this.#loadUpserts(this.#name, this.#plan.columns, changes, 0, newCount, 'SAVEPOINT new_rows');
      await session.run(this.#doing, ['RELEASE SAVEPOINT new_rows']);
      return true;
    } catch (error) {
      if (session.lost || !hasCode(error, 'ROW_REFUSED', 'INTERNAL')) throw error;
      // A row that somebody else put there, a view, row security: the way through the staging table says what is wrong, if anything is.
      this.#insertsDirectly = false;
      await session.run(this.#doing, ['ROLLBACK TO SAVEPOINT new_rows']);
      return false;
    }
  }

  /** Places of those keys that have no row in the table. */
  async missing(keys: readonly (readonly Cell[])[]): Promise<number[]> {
    // One array a key column: the statement stays the same however many keys there are (invariant 11).
    const arrays = this.#plan.key.map((column, i) => keys.map((cells) => keyText(cells[i] ?? null, column)));
    const given = this.#plan.key.map((column, i) => `$${i + 1}::text[]::${column.nativeType}[]`).join(', ');
    const names = this.#plan.key.map((_, i) => `k${i + 1}`).join(', ');
    const rows = await this.#session.query(
      `look for rows of ${displayName(this.#name)}`,
      `SELECT s.place FROM unnest(${given}) WITH ORDINALITY AS s(${names}, place)
        WHERE NOT EXISTS (SELECT FROM ${this.#target} t WHERE ${this.#join('t', 's', 'k')})`,
      arrays,
    );
    return rows.map((row) => Number(row['place']) - 1);
  }

  /** Adds the keys of `changes` to a table of keys (`k1 …`): which keys a fold touched since a comparison began. */
  async recordKeys(changes: KeyedChanges, into: string): Promise<void> {
    const cells = this.#plan.keysOf(changes);
    await this.#load(temporary(into), this.#deleteColumns(), cells);
  }

  async #stageDeletes(changes: KeyedChanges): Promise<string> {
    const columns = this.#deleteColumns();
    this.#deleteStage ??= await this.#create(columns.map(declaration));
    await this.#fill(this.#deleteStage, columns, changes.deletes.map(present));
    return this.#deleteStage;
  }

  async #stageUpserts(changes: KeyedChanges, newCount: number): Promise<string> {
    const columns = this.#upsertColumns();
    this.#upsertStage ??= await this.#create(columns.map(declaration));
    const before = this.#beforeFilling(this.#upsertStage);
    const table = temporary(this.#upsertStage);
    await this.#loadUpserts(table, columns, changes, newCount, changes.upsertCount, before);
    return this.#upsertStage;
  }

  /** Notes which upserts have absent cells, and the key under which the target has them; returns how many there are. */
  async #stageAbsent(changes: KeyedChanges): Promise<{ stage: string; rows: number }> {
    this.#absentStage ??= await this.#createAbsent();
    const cells: Cell[] = [];
    let rows = 0;
    for (const { absent, key, base } of this.#plan.absentOf(changes)) {
      rows++;
      cells.push(absent, ...key, ...base);
    }
    await this.#fill(this.#absentStage, this.#absentColumns(), cells);
    return { stage: this.#absentStage, rows };
  }

  /** k1 …: a key. */
  #deleteColumns(): Column[] {
    return this.#plan.key.map((column, i) => ({ ...column, name: `k${i + 1}` }));
  }

  /** c1 …: the row, and nothing else: a table may have as many columns as the server allows. */
  #upsertColumns(): Column[] {
    return this.#plan.columns.map((column, i) => ({ ...column, name: `c${i + 1}` }));
  }

  /** `absent`: which of a row's cells are (text of 0 and 1); n1 …: its key; k1 …: the key it had before. */
  #absentColumns(): Column[] {
    return [
      { ...textColumn, name: 'absent' },
      ...this.#plan.key.map((column, i) => ({ ...column, name: `n${i + 1}` })),
      ...this.#deleteColumns(),
    ];
  }

  /** With an index on the row's key, by which the upserts find their entry. */
  #createAbsent(): Promise<string> {
    return this.#create([
      ...this.#absentColumns().map(declaration),
      `PRIMARY KEY (${this.#plan.key.map((_, i) => `n${i + 1}`).join(', ')})`,
    ]);
  }

  /** Absent values come from the row under the old key, read before it is deleted (PROTOCOL, Changes). */
  async #fillAbsent(changes: KeyedChanges, stage: string): Promise<void> {
    const set = this.#plan.absentColumns(changes).map((at) => {
      const column = this.#plan.columns[at];
      return `c${at + 1} = CASE WHEN substr(a.absent, ${at + 1}, 1) = '1' THEN t.${quoteIdentifier(column?.name ?? '')} ELSE s.c${at + 1} END`;
    });
    const absent = await this.#stageAbsent(changes);
    const own = this.#plan.keyAt.map((at, i) => `a.n${i + 1} = s.c${at + 1}`).join(' AND ');
    const [filled = 0] = await this.#session.run(`read unchanged values of ${displayName(this.#name)}`, [
      `UPDATE ${stage} s SET ${set.join(', ')} FROM ${absent.stage} a, ${this.#target} t WHERE ${own} AND ${this.#join('t', 'a', 'k')}`,
    ]);
    requireFilled(this.#name, absent.rows, filled);
  }

  #deleteMovedUnique(stage: string): string {
    const moved = this.#plan.unique.map(
      (at) => `t.${quoteIdentifier(this.#plan.columns[at]?.name ?? '')} IS DISTINCT FROM s.c${at + 1}`,
    );
    return `DELETE FROM ${this.#target} t USING ${stage} s WHERE ${this.#join('t', 's', 'c')} AND (${moved.join(' OR ')})`;
  }

  #update(stage: string): string {
    // Key columns too: what is equal to the index need not be the same text. GENERATED ALWAYS AS IDENTITY takes no update.
    const set = this.#plan.columns.flatMap((column, i) =>
      column.identity === 'always' ? [] : [`${quoteIdentifier(column.name)} = s.c${i + 1}`],
    );
    if (set.length === 0) return `SELECT 1 FROM ${this.#target} t, ${stage} s WHERE ${this.#join('t', 's', 'c')}`;
    return `UPDATE ${this.#target} t SET ${set.join(', ')} FROM ${stage} s WHERE ${this.#join('t', 's', 'c')}`;
  }

  #insert(stage: string): string {
    const names = this.#plan.columns.map((column) => quoteIdentifier(column.name)).join(', ');
    const values = this.#plan.columns.map((_, i) => `s.c${i + 1}`).join(', ');
    return `INSERT INTO ${this.#target} (${names}) OVERRIDING SYSTEM VALUE SELECT ${values} FROM ${stage} s
      WHERE NOT EXISTS (SELECT 1 FROM ${this.#target} t WHERE ${this.#join('t', 's', 'c')})`;
  }

  /** Key equality; `prefix` c: the row's own columns of the upsert stage, k: the key columns k1 … */
  #join(target: string, stage: string, prefix: 'c' | 'k'): string {
    return this.#plan.key
      .map(
        (column, i) =>
          `${target}.${quoteIdentifier(column.name)} = ${stage}.${prefix}${(prefix === 'c' ? (this.#plan.keyAt[i] ?? 0) : i) + 1}`,
      )
      .join(' AND ');
  }

  async #create(columns: readonly string[]): Promise<string> {
    const staged = stagedBy.get(this.#session) ?? { next: 1, recent: new Set(), filled: new Set() };
    stagedBy.set(this.#session, staged);
    staged.recent.delete(this);
    staged.recent.add(this);
    if (staged.recent.size > MAX_STAGED_TABLES) {
      const [oldest] = staged.recent;
      if (oldest) {
        staged.recent.delete(oldest);
        await oldest.dropStages();
      }
    }
    const name = `s${staged.next++}`;
    await this.#session.run('create a temporary staging table', [
      `CREATE TEMP TABLE ${name} (${columns.join(', ')}) ON COMMIT DELETE ROWS`,
    ]);
    return `pg_temp.${name}`;
  }

  /** Frees its temporary tables; they are made again when needed. */
  async dropStages(): Promise<void> {
    const names = [this.#upsertStage, this.#deleteStage, this.#absentStage].filter((name) => name !== null);
    this.#upsertStage = null;
    this.#deleteStage = null;
    this.#absentStage = null;
    if (names.length > 0)
      await this.#session.run('drop temporary staging tables', [`DROP TABLE IF EXISTS ${names.join(', ')}`]);
  }

  /** Puts rows into a staging table, in place of those that an earlier batch of the same transaction left there. */
  async #fill(stage: string, columns: readonly Column[], cells: readonly Cell[]): Promise<void> {
    await this.#load(temporary(stage), columns, cells, this.#beforeFilling(stage));
  }

  #beforeFilling(stage: string): string | null {
    const staged = stagedBy.get(this.#session);
    const before = staged?.filled.has(stage) ? `TRUNCATE ${stage}` : null;
    staged?.filled.add(stage);
    return before;
  }

  /** Upserts `first` to before `end`: as they came where that can be, else their cells, NULL for absent ones. */
  async #loadUpserts(
    table: TableName,
    columns: readonly Column[],
    changes: KeyedChanges,
    first: number,
    end: number,
    before: string | null,
  ): Promise<void> {
    const { images } = changes;
    const writers = images ? binaryWriters(images, columns) : null;
    const [lane] = copyLanes(columns);
    if (images && writers && lane !== undefined) {
      const bytes = binaryFrames(images, writers, first, end);
      await loadRows(this.#session, table, columns, { format: lane, bytes }, before);
      return;
    }
    if (images && columns.every((column) => column.type.kind !== 'bytes')) {
      const bytes = imageFrames(images, first, end);
      await loadRows(this.#session, table, columns, { format: TEXT_LANE, bytes }, before);
      return;
    }
    if (images) {
      const names = columns.map((column) => column.name);
      const batches = imageBatches(images, names, first, end);
      await loadRows(this.#session, table, columns, { format: 'cells', batches }, before);
      return;
    }
    const width = columns.length;
    const all = changes.upserts;
    const part = end * width - first * width === all.length ? all : all.slice(first * width, end * width);
    const cells = changes.hasAbsent ? part.map((cell) => cell ?? null) : (part as readonly Cell[]);
    await this.#load(table, columns, cells, before);
  }

  async #load(
    table: TableName,
    columns: readonly Column[],
    cells: readonly Cell[],
    before: string | null = null,
  ): Promise<void> {
    const batch = { columns: columns.map((column) => column.name), rows: cells.length / columns.length, cells };
    await loadRows(this.#session, table, columns, { format: 'cells', batches: oneBatch(batch) }, before);
  }
}

/** To be called when a transaction begins in which batches are applied: its staging tables are empty. */
export function beginApplying(session: Session): void {
  stagedBy.get(session)?.filled.clear();
}

function temporary(stage: string): TableName {
  const [schema = 'pg_temp', table = ''] = stage.split('.');
  return { schema, table };
}

function declaration(column: Column): string {
  return `${column.name} ${column.nativeType}`;
}

const textColumn: Column = {
  name: '',
  nativeType: 'text',
  type: { kind: 'text', length: null, fixed: false, nul: false },
  nullable: true,
  generated: null,
  identity: null,
  default: null,
  collation: null,
};
