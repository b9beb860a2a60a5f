/**
 * Set-based apply of collapsed changes to one table, on one session, inside the caller's transaction: bulk load to temporary
 * tables, then delete, update, insert by join, no MERGE. Used by the live stream (target: the live table) and by folds
 * (target: the copy's staging table).
 */
import type { Cell } from '../../model/changes.ts';
import type { KeyedChanges } from '../../model/keyed-changes.ts';
import { displayName, type Table, type TableName } from '../../model/tables.ts';
import { ApplyPlan, oneBatch, present, requireFilled } from '../apply-plan.ts';
import type { ApplyCounts, RouteColumn } from '../contract.ts';
import type { Row, Session } from './connection.ts';
import { differsSql, isExact, of, stagedType } from './exact.ts';
import { hasCapturedRows, loadImages, loadRows, loadTarget, type LoadTarget } from './loader.ts';
import { numberOf } from '../row-values.ts';
import { quoteIdentifier, quoteTable } from './sql.ts';

/**
 * Rows one statement touches at most. From 5,000 locks of a statement on one index on SQL Server takes the whole table instead
 * (manual, Transaction locking and row versioning guide), and every reader waits; a row here costs its own lock and at most its page's.
 */
const STATEMENT_ROWS = 2000;

/** Temporary tables a session keeps; past that the least recently used are dropped. */
const MAX_STAGED_TABLES = 64;

interface Staged {
  next: number;
  readonly recent: Set<TableApplier>;
}
/** By the scope of the session. */
const stagedBy = new WeakMap<object, Staged>();

interface Stage {
  readonly name: `#${string}`;
  readonly columns: readonly { readonly name: string }[];
  readonly target: LoadTarget;
}

export class TableApplier {
  readonly #session: Session;
  readonly #target: string;
  readonly #name: TableName;
  readonly #plan: ApplyPlan;
  readonly #doing: string;
  readonly #hasIdentity: boolean;
  /** The target is always exactly where the changes begin, so that a row made by them is not there yet. */
  readonly #isExact: boolean;
  #upsertStage: Stage | null = null;
  #deleteStage: Stage | null = null;
  #absentStage: Stage | null = null;

  /**
   * `table`: the target as it is described now. `columns`: source and target names in the order of the cells. `key`: the source
   * names of the key columns. `isExact`: not so a table that is still being copied.
   */
  constructor(
    session: Session,
    table: Table,
    columns: readonly RouteColumn[],
    key: readonly string[],
    isExact: boolean,
  ) {
    this.#session = session;
    this.#isExact = isExact;
    this.#name = table.name;
    this.#doing = `apply changes to ${displayName(table.name)}`;
    this.#target = quoteTable(table.name);
    this.#plan = new ApplyPlan(table, columns, key, (column) => column.identity === null);
    this.#hasIdentity = this.#plan.columns.some((column) => column.identity !== null);
  }

  /** Makes the temporary tables now, outside a transaction whose rollback would take them away again. */
  async prepare(): Promise<void> {
    await this.#deletes();
    await this.#upserts();
    await this.#absents();
  }

  async apply(changes: KeyedChanges): Promise<ApplyCounts> {
    const counts: ApplyCounts = { inserted: 0, updated: 0, deleted: 0 };
    if (changes.truncate) {
      // Not TRUNCATE, which would wait for every reader, and show those with an older snapshot an empty table (F49).
      const [row] = await this.#session.query(this.#doing, `DELETE FROM ${this.#target}; SELECT @@ROWCOUNT AS deleted`);
      counts.deleted += numberOf(row, 'deleted') ?? 0;
    }
    if (changes.deleteCount > 0)
      await this.#load(await this.#deletes(), numbered(changes.deletes.map(present), this.#plan.key.length));
    if (changes.upsertCount > 0) {
      await this.#loadUpserts(await this.#upserts(), changes);
      if (changes.hasAbsent) await this.#fillAbsent(changes);
    }
    if (changes.deleteCount + changes.upsertCount === 0) return counts;
    const [row] = await this.#runSteps(await this.#applySql(changes));
    const moved = numberOf(row, 'moved') ?? 0;
    counts.deleted += numberOf(row, 'deleted') ?? 0;
    // Deleted to be inserted again: an update for whoever counts.
    counts.updated += (numberOf(row, 'updated') ?? 0) + moved;
    counts.inserted += (numberOf(row, 'inserted') ?? 0) - moved;
    return counts;
  }

  /** Places of those keys that have no row in the table. */
  async missing(keys: readonly (readonly Cell[])[]): Promise<number[]> {
    if (keys.length === 0) return [];
    const stage = await this.#deletes();
    await this.#load(stage, numbered(keys.flat(), this.#plan.key.length));
    const rows = await this.#session.query(
      `look for rows of ${displayName(this.#name)}`,
      `SELECT s.n AS n FROM ${stage.name} AS s WHERE NOT EXISTS (SELECT 1 FROM ${this.#target} AS t WHERE ${this.#join('t', 's', 'k')}) OPTION (LOOP JOIN);
       TRUNCATE TABLE ${stage.name}`,
    );
    return rows.map((row) => (numberOf(row, 'n') ?? 0) - 1);
  }

  /** Adds the keys of `changes` to a temporary table of keys (`k1 …`): which keys a fold touched since a comparison began. */
  async recordKeys(changes: KeyedChanges, into: `#${string}`): Promise<void> {
    const columns = this.#plan.key.map((_, i) => ({ name: `k${i + 1}` }));
    await loadCells(this.#session, into, columns, this.#plan.keysOf(changes));
  }

  /** Frees its temporary tables; they are made again when needed. */
  async dropStages(): Promise<void> {
    const names = [this.#upsertStage, this.#deleteStage, this.#absentStage].flatMap((stage) => stage?.name ?? []);
    this.#upsertStage = null;
    this.#deleteStage = null;
    this.#absentStage = null;
    if (names.length > 0)
      await this.#session.run('drop temporary tables', [`DROP TABLE IF EXISTS ${names.join(', ')}`]);
  }

  async #runSteps(sql: string): Promise<Row[]> {
    try {
      return await this.#session.query(this.#doing, sql);
    } catch (error) {
      // A session can have one such table, and keeps it when the batch fails.
      if (this.#hasIdentity && !this.#session.lost)
        await this.#session.run('protect the identity column', [this.#identityInsert('OFF')]).catch(() => undefined);
      throw error;
    }
  }

  /** One batch: a statement for every so many rows of a step, the steps one after another. Leaves the temporary tables empty. */
  async #applySql(changes: KeyedChanges): Promise<string> {
    const sql = [`DECLARE @n int, @deleted int = 0, @moved int = 0, @updated int = 0, @inserted int = 0`];
    const inParts = (first: number, last: number, statement: string, count: string) =>
      `SET @n = ${first};
       WHILE @n <= ${last} BEGIN ${statement}; SET ${count} = ${count} + @@ROWCOUNT; SET @n = @n + ${STATEMENT_ROWS} END`;
    const part = `s.n BETWEEN @n AND @n + ${STATEMENT_ROWS - 1}`;
    // From the few rows of the batch to their keys, whatever is believed of a table that was empty a moment ago.
    const seek = 'OPTION (LOOP JOIN, FORCE ORDER)';
    const { columns, unique } = this.#plan;
    if (changes.deleteCount > 0) {
      const stage = (await this.#deletes()).name;
      const from = `FROM ${stage} AS s INNER JOIN ${this.#target} AS t ON ${this.#join('t', 's', 'k')}`;
      sql.push(inParts(1, changes.deleteCount, `DELETE t ${from} WHERE ${part} ${seek}`, '@deleted'));
      sql.push(`TRUNCATE TABLE ${stage}`);
    }
    const count = changes.upsertCount;
    if (count > 0) {
      const stage = (await this.#upserts()).name;
      const from = `FROM ${stage} AS s INNER JOIN ${this.#target} AS t ON ${this.#join('t', 's', 'c')}`;
      const newCount = this.#isExact ? changes.newCount : 0;
      if (unique.length > 0 && count > newCount) {
        const watched = unique.flatMap((at) => columns[at] ?? []);
        const moved = differsSql(watched, of('t'), (_, i) => `s.c${(unique[i] ?? 0) + 1}`);
        sql.push(inParts(newCount + 1, count, `DELETE t ${from} WHERE ${part} AND ${moved} ${seek}`, '@moved'));
      }
      const set = this.#assignments();
      const update = `UPDATE t SET ${set.join(', ')} ${from} WHERE ${part} ${seek}`;
      if (set.length > 0 && count > newCount) sql.push(inParts(newCount + 1, count, update, '@updated'));
      const names = columns.map((column) => quoteIdentifier(column.name)).join(', ');
      const values = columns.map((_, i) => `s.c${i + 1}`).join(', ');
      const insert = `INSERT INTO ${this.#target} (${names}) SELECT ${values} FROM ${stage} AS s WHERE ${part}
         AND NOT EXISTS (SELECT 1 FROM ${this.#target} AS t WHERE ${this.#join('t', 's', 'c')}) OPTION (LOOP JOIN)`;
      if (this.#hasIdentity) sql.push(this.#identityInsert('ON'));
      sql.push(inParts(1, count, insert, '@inserted'));
      if (this.#hasIdentity) sql.push(this.#identityInsert('OFF'));
      // Rows that somebody else put there under a new row's key.
      if (set.length > 0 && newCount > 0)
        sql.push(`IF @updated + @inserted < ${count} BEGIN ${inParts(1, newCount, update, '@updated')} END`);
      sql.push(`TRUNCATE TABLE ${stage}`);
    }
    sql.push(`SELECT @deleted AS deleted, @moved AS moved, @updated AS updated, @inserted AS inserted`);
    return sql.join(';\n');
  }

  #identityInsert(state: 'ON' | 'OFF'): string {
    return `SET IDENTITY_INSERT ${this.#target} ${state}`;
  }

  /** Key columns too, where what is equal to the index need not be the same. Identity columns take no update. */
  #assignments(): string[] {
    return this.#plan.columns.flatMap((column, at) =>
      column.identity !== null || (this.#plan.keyAt.includes(at) && isExact(column))
        ? []
        : [`${quoteIdentifier(column.name)} = s.c${at + 1}`],
    );
  }

  /** Absent values come from the row under the old key, read before it is deleted (PROTOCOL, Changes). */
  async #fillAbsent(changes: KeyedChanges): Promise<void> {
    const stage = await this.#upserts();
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
      return `c${at + 1} = CASE WHEN SUBSTRING(a.absent, ${at + 1}, 1) = N'1' THEN t.${name} ELSE s.c${at + 1} END`;
    });
    const [row] = await this.#session.query(
      `read unchanged values of ${displayName(this.#name)}`,
      `UPDATE s SET ${set.join(', ')} FROM ${stage.name} AS s INNER JOIN ${absent.name} AS a ON a.n = s.n
        INNER JOIN ${this.#target} AS t ON ${this.#join('t', 'a', 'k')};
       SELECT @@ROWCOUNT AS filled; TRUNCATE TABLE ${absent.name}`,
    );
    requireFilled(this.#name, rows, numberOf(row, 'filled') ?? 0);
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

  /** n: the row's number, by which large batches are taken in parts; k1 …: a key. */
  async #deletes(): Promise<Stage> {
    return (this.#deleteStage ??= await this.#create(
      ['n', ...this.#plan.key.map((_, i) => `k${i + 1}`)],
      ['int', ...this.#plan.key.map(stagedType)],
    ));
  }

  /** n; c1 …: the row. */
  async #upserts(): Promise<Stage> {
    return (this.#upsertStage ??= await this.#create(
      ['n', ...this.#plan.columns.map((_, i) => `c${i + 1}`)],
      ['int', ...this.#plan.columns.map(stagedType)],
    ));
  }

  /** n: of an upsert; `absent`: which of its cells are (text of 0 and 1); k1 …: the key it had before. */
  async #absents(): Promise<Stage> {
    return (this.#absentStage ??= await this.#create(
      ['n', 'absent', ...this.#plan.key.map((_, i) => `k${i + 1}`)],
      ['int', 'nvarchar(1024) COLLATE DATABASE_DEFAULT', ...this.#plan.key.map(stagedType)],
    ));
  }

  async #create(names: readonly string[], types: readonly string[]): Promise<Stage> {
    const { scope } = this.#session;
    const staged = stagedBy.get(scope) ?? { next: 1, recent: new Set() };
    stagedBy.set(scope, staged);
    staged.recent.delete(this);
    staged.recent.add(this);
    if (staged.recent.size > MAX_STAGED_TABLES) {
      const [oldest] = staged.recent;
      if (oldest) {
        staged.recent.delete(oldest);
        await oldest.dropStages();
      }
    }
    const name: `#${string}` = `#s${staged.next++}`;
    const declared = names.map(
      (column, i) => `${column} ${types[i] ?? ''}${i === 0 ? ' NOT NULL PRIMARY KEY' : ' NULL'}`,
    );
    await this.#session.run('create a temporary table', [`CREATE TABLE ${name} (${declared.join(', ')})`]);
    const columns = names.map((column) => ({ name: column }));
    return { name, columns, target: await loadTarget(this.#session, name, columns) };
  }

  /** As they came where that can be, else their cells, NULL for absent ones. */
  async #loadUpserts(stage: Stage, changes: KeyedChanges): Promise<void> {
    const { images, upsertCount } = changes;
    if (images && hasCapturedRows(images)) {
      const rows = { images, first: 0, end: upsertCount, isNumbered: true };
      await loadImages(this.#session, stage.target, rows);
      return;
    }
    const cells = changes.hasAbsent
      ? changes.upserts.map((cell) => cell ?? null)
      : (changes.upserts as readonly Cell[]);
    await this.#load(stage, numbered(cells, this.#plan.columns.length));
  }

  #load(stage: Stage, cells: readonly Cell[]): Promise<void> {
    return loadCells(this.#session, stage.name, stage.columns, cells, stage.target);
  }
}

/** Refused values are found before anything is sent: session and transaction go on without them. */
async function loadCells(
  session: Session,
  table: `#${string}`,
  columns: readonly { readonly name: string }[],
  cells: readonly Cell[],
  target?: LoadTarget,
): Promise<void> {
  const batch = { columns: columns.map((column) => column.name), rows: cells.length / columns.length, cells };
  const options = target === undefined ? { checkFirst: true } : { checkFirst: true, target };
  await loadRows(session, table, columns, { format: 'cells', batches: oneBatch(batch) }, options);
}

/** Rows with their number, from 1, as the first cell. */
function numbered(cells: readonly Cell[], width: number): Cell[] {
  const rows: Cell[] = [];
  for (let at = 0; at < cells.length; at++) {
    if (at % width === 0) rows.push(String(at / width + 1));
    rows.push(cells[at] ?? null);
  }
  return rows;
}
