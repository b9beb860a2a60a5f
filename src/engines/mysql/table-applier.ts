/**
 * Set-based apply of collapsed changes to one table, on one session, inside the caller's transaction: load to temporary tables,
 * then delete, update, insert by join. Rows that are whole replace those under their key as they are loaded, where the key's index is the
 * table's only unique one and nothing else is in a row: anywhere else REPLACE touches other rows, or more of one.
 * Used by the live stream (target: the live table) and by folds (target: the copy's staging table).
 *
 * A temporary table is named once in a statement (MySQL cannot open one twice), and is emptied by DELETE: TRUNCATE would commit.
 */
import type { Cell } from '../../model/changes.ts';
import { hasCode, SluiceError } from '../../model/errors.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import { addCounts, ApplyPlan, oneBatch, present, requireFilled } from '../apply-plan.ts';
import type { ApplyCounts, RouteColumn } from '../contract.ts';
import { numberOf } from '../row-values.ts';
import type { Session } from './connection.ts';
import { differsSql, isExact, of, stagedType } from './exact.ts';
import { EventLoader } from './load/events.ts';
import { loadImages, loadRows, type LoadColumn, type Loaded, type LoadOptions } from './load/loader.ts';
import { mayReplace, withoutDeletes } from './load/replacing.ts';
import { forceKey } from './ranges.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/** Temporary tables a session keeps; past that the least recently used are dropped. */
const MAX_STAGED_TABLES = 64;

interface Staged {
  next: number;
  readonly recent: Set<TableApplier>;
}
const stagedBy = new WeakMap<Session, Staged>();

interface Stage {
  readonly table: TableName;
  readonly name: string;
  readonly columns: readonly LoadColumn[];
}

export class TableApplier {
  readonly #session: Session;
  readonly #target: string;
  /** The target as `t`, to find rows by the key. */
  readonly #byKey: string;
  readonly #name: TableName;
  readonly #plan: ApplyPlan;
  readonly #doing: string;
  /** Rows that are new go into the table without a look at what it holds. */
  #insertsDirectly: boolean;
  /** Whole rows go into the table itself, in place of those that have their key. */
  #replacesDirectly: boolean;
  /** A row that is no new one has the place of another, as far as whoever counts is concerned. */
  readonly #isExactTable: boolean;
  readonly #events: EventLoader;
  #upsertStage: Stage | null = null;
  #deleteStage: Stage | null = null;
  #absentStage: Stage | null = null;

  /**
   * `table`: the target as it is described now. `columns`: source and target names in the order of the cells. `key`: the source
   * names of the key columns. `isExact`: the table is always exactly where the changes begin, so that a row made by them is not there
   * yet; not so a table that is still being copied.
   */
  constructor(
    session: Session,
    table: Table,
    columns: readonly RouteColumn[],
    key: readonly string[],
    isExactTable: boolean,
  ) {
    this.#session = session;
    this.#insertsDirectly = this.#isExactTable = isExactTable;
    this.#name = table.name;
    this.#doing = `apply changes to ${displayName(table.name)}`;
    this.#target = quoteTable(table.name);
    this.#plan = new ApplyPlan(table, columns, key, () => true);
    const keyNames = this.#plan.key.map((column) => column.name);
    this.#byKey = `${this.#target} AS t${forceKey(table, keyNames)}`;
    this.#replacesDirectly = mayReplace(table, this.#plan);
    const names = (all: readonly { readonly name: string }[]) => all.map((column) => column.name);
    this.#events = new EventLoader(session, table.name, names(this.#plan.columns), names(this.#plan.key));
  }

  /** Makes the temporary tables now: one that is missing in the middle of an attempt would be missing after it as well. */
  async prepare(): Promise<void> {
    await this.#deletes();
    await this.#upserts();
    await this.#absents();
  }

  async apply(changes: KeyedChanges): Promise<ApplyCounts> {
    const counts: ApplyCounts = { inserted: 0, updated: 0, deleted: 0 };
    // Not TRUNCATE, which commits, and shows readers with an older snapshot an error (F49).
    if (changes.truncate) {
      const [deleted = 0] = await this.#session.run(this.#doing, [`DELETE FROM ${this.#target}`]);
      counts.deleted += deleted;
    }
    if (this.#replacesDirectly && !changes.hasAbsent && changes.upsertCount > 0) {
      if (changes.deleteCount > 0) addCounts(counts, await this.#applyStaged(changes, changes.upsertCount));
      const loaded = await this.#loadDirectly(changes, changes.upsertCount, true);
      if (loaded) {
        // Those that are as they were say nothing of themselves.
        const updated = this.#isExactTable ? loaded.rows - changes.newCount : loaded.replaced;
        addCounts(counts, { inserted: loaded.rows - updated, updated, deleted: 0 });
        return counts;
      }
      addCounts(counts, await this.#applyStaged(withoutDeletes(changes), 0));
      this.#replacesDirectly = false;
      return counts;
    }
    const newCount = this.#insertsDirectly ? changes.newCount : 0;
    if (changes.deleteCount > 0 || changes.upsertCount > newCount)
      addCounts(counts, await this.#applyStaged(changes, newCount));
    if (newCount === 0) return counts;
    if (await this.#loadDirectly(changes, newCount, false)) counts.inserted += newCount;
    else {
      this.#insertsDirectly = false;
      const upserts = changes.upserts.slice(0, newCount * this.#plan.columns.length);
      const rest = { upserts, upsertCount: newCount, hasAbsent: false };
      addCounts(counts, await this.#applyStaged({ ...withoutDeletes(changes), ...rest }, 0));
    }
    return counts;
  }

  /** Deletes, and the upserts behind the first `newCount`: those that may have a row already. */
  async #applyStaged(changes: KeyedChanges, newCount: number): Promise<ApplyCounts> {
    const steps: { readonly sql: string; readonly count: 'deleted' | 'moved' | 'updated' | null }[] = [];
    const { length: width } = this.#plan.columns;
    const upserts = changes.upsertCount - newCount;
    const deleteStage = changes.deleteCount > 0 ? await this.#deletes() : null;
    if (deleteStage) {
      await this.#load(deleteStage, numbered(changes.deletes.map(present), this.#plan.key.length, 1));
      steps.push({ sql: `DELETE t ${this.#from(deleteStage, 'k')}`, count: 'deleted' });
    }
    const stage = upserts > 0 ? await this.#upserts() : null;
    if (stage) {
      const part = changes.upserts.slice(newCount * width).map((cell) => cell ?? null);
      await this.#load(stage, numbered(part, width, newCount + 1));
      if (changes.hasAbsent) await this.#fillAbsent(changes, stage);
      const { unique, columns } = this.#plan;
      if (unique.length > 0) {
        const watched = unique.flatMap((at) => columns[at] ?? []);
        const moved = differsSql(watched, of('t'), (_, i) => `s.c${(unique[i] ?? 0) + 1}`);
        steps.push({ sql: `DELETE t ${this.#from(stage, 'c')} WHERE ${moved}`, count: 'moved' });
      }
      steps.push({ sql: this.#update(stage), count: 'updated' });
    }
    const touched = await this.#session.run(
      this.#doing,
      steps.map((step) => step.sql),
    );
    const sum = (count: string) => steps.reduce((n, step, i) => n + (step.count === count ? (touched[i] ?? 0) : 0), 0);
    const counts: ApplyCounts = { inserted: 0, updated: sum('updated') + sum('moved'), deleted: sum('deleted') };
    const emptied = [stage, deleteStage].flatMap((each) => (each ? [`DELETE FROM ${each.name}`] : []));
    if (stage && sum('updated') < upserts) {
      const [, inserted = 0] = await this.#session.run(this.#doing, [...this.#insert(stage), ...emptied]);
      // Deleted to be inserted again: an update for whoever counts.
      counts.inserted = inserted - sum('moved');
    } else await this.#session.run(this.#doing, emptied);
    return counts;
  }

  /**
   * Loads the first `count` upserts into the table itself. Null: the table does not take them this way, and nothing has happened: a row that
   * somebody else put there, a value that it does not hold. The way through the temporary table says what is wrong, if anything is.
   */
  async #loadDirectly(changes: KeyedChanges, count: number, replace: boolean): Promise<Loaded | null> {
    const session = this.#session;
    const { columns } = this.#plan;
    await session.run('set a savepoint', ['SAVEPOINT sluice_new_rows']);
    try {
      const { images } = changes;
      // Rows go in as they came, as far as they can. Of a table that is being copied nobody knows which rows it has.
      const inserts = Math.min(changes.newCount, count);
      const range = { inserts, count, savepoint: 'sluice_new_rows' };
      const first = images && this.#isExactTable ? await this.#events.load(images, range) : 0;
      if (first === count) return { rows: count, replaced: 0 };
      const rest = { first, end: count };
      const loaded = images && (await loadImages(session, this.#name, columns, images, rest, { replace }));
      if (loaded) return { rows: first + loaded.rows, replaced: loaded.replaced };
      if (first > 0) throw new SluiceError('INTERNAL', 'only some of the rows could be loaded as they came');
      const all = changes.upserts as readonly Cell[];
      const width = columns.length;
      const cells = all.length === count * width ? all : all.slice(0, count * width);
      return await loadCells(session, this.#name, columns, cells, { replace });
    } catch (error) {
      if (session.lost || !hasCode(error, 'ROW_REFUSED', 'INTERNAL')) throw error;
      await session.run(this.#doing, ['ROLLBACK TO SAVEPOINT sluice_new_rows']);
      return null;
    }
  }

  /** Places of those keys that have no row in the table. */
  async missing(keys: readonly (readonly Cell[])[]): Promise<number[]> {
    if (keys.length === 0) return [];
    const stage = await this.#deletes();
    await this.#load(stage, numbered(keys.flat(), this.#plan.key.length, 1));
    const first = quoteIdentifier(this.#plan.key[0]?.name ?? '');
    const [rows = []] = await this.#session.batch(`look for rows of ${displayName(this.#name)}`, [
      `SELECT s.n AS n FROM ${stage.name} AS s LEFT JOIN ${this.#byKey} ON ${this.#join('t', 's', 'k')} WHERE t.${first} IS NULL`,
      `DELETE FROM ${stage.name}`,
    ]);
    return rows.map((row) => (numberOf(row, 'n') ?? 0) - 1);
  }

  /** Adds the keys of `changes` to a temporary table of keys (`k1 …`): which keys a fold touched since a comparison began. */
  async recordKeys(changes: KeyedChanges, into: TableName): Promise<void> {
    const columns = this.#plan.key.map((column, i) => ({ name: `k${i + 1}`, nativeType: column.nativeType }));
    await loadCells(this.#session, into, columns, this.#plan.keysOf(changes));
  }

  /** Frees its temporary tables; they are made again when needed. */
  async dropStages(): Promise<void> {
    const names = [this.#upsertStage, this.#deleteStage, this.#absentStage].flatMap((stage) => stage?.name ?? []);
    this.#upsertStage = null;
    this.#deleteStage = null;
    this.#absentStage = null;
    if (names.length > 0)
      await this.#session.run('drop temporary tables', [`DROP TEMPORARY TABLE IF EXISTS ${names.join(', ')}`]);
  }

  /** Key columns too, where what is equal to the index need not be the same. */
  #update(stage: Stage): string {
    const set = this.#plan.columns.flatMap((column, at) =>
      this.#plan.keyAt.includes(at) && isExact(column) ? [] : [`t.${quoteIdentifier(column.name)} = s.c${at + 1}`],
    );
    if (set.length === 0) return `SELECT 1 ${this.#from(stage, 'c')}`;
    return `UPDATE ${stage.name} AS s STRAIGHT_JOIN ${this.#byKey} ON ${this.#join('t', 's', 'c')} SET ${set.join(', ')}`;
  }

  /** Two statements: rows that are there by now leave the stage, the others go in. */
  #insert(stage: Stage): string[] {
    const names = this.#plan.columns.map((column) => quoteIdentifier(column.name)).join(', ');
    const values = this.#plan.columns.map((_, i) => `s.c${i + 1}`).join(', ');
    return [
      `DELETE s ${this.#from(stage, 'c')}`,
      `INSERT INTO ${this.#target} (${names}) SELECT ${values} FROM ${stage.name} AS s`,
    ];
  }

  /** From the few rows of the batch to their keys in the target, whatever is believed of either. */
  #from(stage: Stage, prefix: 'c' | 'k'): string {
    return `FROM ${stage.name} AS s STRAIGHT_JOIN ${this.#byKey} ON ${this.#join('t', 's', prefix)}`;
  }

  /** Absent values come from the row under the old key, read before it is deleted (PROTOCOL, Changes). */
  async #fillAbsent(changes: KeyedChanges, stage: Stage): Promise<void> {
    const absent = await this.#absents();
    const cells: Cell[] = [];
    let rows = 0;
    for (const { row, absent: which, base } of this.#plan.absentOf(changes)) {
      rows++;
      cells.push(String(row + 1), which, ...base);
    }
    await this.#load(absent, cells);
    const set = this.#plan.absentColumns(changes).map((at) => {
      const name = quoteIdentifier(this.#plan.columns[at]?.name ?? '');
      return `s.c${at + 1} = IF(SUBSTRING(a.absent, ${at + 1}, 1) = '1', t.${name}, s.c${at + 1})`;
    });
    const [filled = 0] = await this.#session.run(`read unchanged values of ${displayName(this.#name)}`, [
      `UPDATE ${absent.name} AS a STRAIGHT_JOIN ${stage.name} AS s ON s.n = a.n
        STRAIGHT_JOIN ${this.#byKey} ON ${this.#join('t', 'a', 'k')} SET ${set.join(', ')}`,
      `DELETE FROM ${absent.name}`,
    ]);
    requireFilled(this.#name, rows, filled);
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

  /** n: the row's number; k1 …: a key. */
  async #deletes(): Promise<Stage> {
    return (this.#deleteStage ??= await this.#create([NUMBER, ...this.#keyColumns()]));
  }

  /** n; c1 …: the row. */
  async #upserts(): Promise<Stage> {
    const columns = this.#plan.columns.map((column, i) => ({
      name: `c${i + 1}`,
      nativeType: column.nativeType,
      as: stagedType(column),
    }));
    return (this.#upsertStage ??= await this.#create([NUMBER, ...columns]));
  }

  /** n: of an upsert; `absent`: which of its cells are (text of 0 and 1); k1 …: the key it had before. */
  async #absents(): Promise<Stage> {
    const which = { name: 'absent', nativeType: 'varchar(1024)', as: 'varchar(1024) CHARACTER SET ascii' };
    return (this.#absentStage ??= await this.#create([NUMBER, which, ...this.#keyColumns()]));
  }

  #keyColumns(): StageColumn[] {
    return this.#plan.key.map((column, i) => ({
      name: `k${i + 1}`,
      nativeType: column.nativeType,
      as: stagedType(column),
    }));
  }

  async #create(columns: readonly StageColumn[]): Promise<Stage> {
    const staged = stagedBy.get(this.#session) ?? { next: 1, recent: new Set() };
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
    const table: TableName = { schema: '', table: `sluice_s${staged.next++}` };
    const name = quoteTable(table);
    const declared = columns.map(
      (column, i) => `${column.name} ${column.as}${i === 0 ? ' NOT NULL PRIMARY KEY' : ' NULL'}`,
    );
    await this.#session.run('create a temporary table', [
      `CREATE TEMPORARY TABLE ${name} (${declared.join(', ')}) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4`,
    ]);
    return { table, name, columns };
  }

  async #load(stage: Stage, cells: readonly Cell[]): Promise<void> {
    await loadCells(this.#session, stage.table, stage.columns, cells);
  }
}

interface StageColumn extends LoadColumn {
  /** As it is declared. */
  readonly as: string;
}

const NUMBER: StageColumn = { name: 'n', nativeType: 'int', as: 'int' };

function loadCells(
  session: Session,
  table: TableName,
  columns: readonly LoadColumn[],
  cells: readonly Cell[],
  options: LoadOptions = {},
): Promise<Loaded> {
  const batch = { columns: columns.map((column) => column.name), rows: cells.length / columns.length, cells };
  return loadRows(session, table, columns, { format: 'cells', batches: oneBatch(batch) }, options);
}

/** Rows with their number, from `first`, as the first cell. */
function numbered(cells: readonly Cell[], width: number, first: number): Cell[] {
  const rows: Cell[] = [];
  for (let at = 0; at < cells.length; at++) {
    if (at % width === 0) rows.push(String(at / width + first));
    rows.push(cells[at] ?? null);
  }
  return rows;
}
