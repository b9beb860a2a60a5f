/** The source's trigger column (`full_sync_trigger_column`): polled for many tables at once, set back to 0. */
import { SluiceError } from '../model/errors.ts';
import { displayName, type TableName } from '../model/tables.ts';
import type { TriggerSource } from './contract.ts';

export interface Watched {
  readonly name: TableName;
  readonly column: string;
}

/** `Known`: what an engine knows of a column that is there and may be read. */
export interface TriggerStatements<Known> {
  /**
   * The columns as they are now; null: missing, or not for us to read. `again`: a statement over several tables has failed, so that
   * rights which the catalog does not tell are tried out, table by table.
   */
  look(watched: readonly Watched[], again: boolean): Promise<(Known | null)[]>;
  /** A SELECT of `place` as `i`, when a row's column is 1/true. By the column's own type, so that an index can serve it. */
  flippedSql(watched: Watched, known: Known, place: number): string;
  select(sql: string): Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** What a missing table or column, a missing right, or a column of another type now, leads to. */
  isAboutOneTable(error: unknown): boolean;
  reset(watched: Watched, known: Known): Promise<void>;
  /** How the login gets what `reset` lacked; null: it failed for another reason. */
  resetHint(error: unknown, watched: Watched, known: Known): string | null;
}

/** What is missing is looked for again after this. */
const MISSING_FOR_MS = 60_000;

/**
 * After the first look, one round trip for all tables. Which columns exist and may be read is remembered, and asked again only when
 * the statement fails (and every minute for what is missing): one table must not keep the others from being seen.
 */
export class TriggerColumns<Known> implements TriggerSource {
  readonly #statements: TriggerStatements<Known>;
  readonly #known = new Map<string, { readonly column: Known | null; readonly at: number }>();

  constructor(statements: TriggerStatements<Known>) {
    this.#statements = statements;
  }

  /** False for a table or column that is missing or that we may not read. */
  async flipped(tables: readonly Watched[]): Promise<boolean[]> {
    if (tables.length === 0) return [];
    try {
      await this.#learn(tables, false);
      return await this.#ask(tables);
    } catch (error) {
      if (!this.#statements.isAboutOneTable(error)) throw error;
      await this.#learn(tables, true);
      return this.#ask(tables);
    }
  }

  /** Throws TRIGGER_RESET_DENIED when the login may not update the column or the server is read-only. */
  async reset(table: TableName, column: string): Promise<void> {
    const watched = { name: table, column };
    await this.#learn([watched], false);
    const known = this.#column(watched);
    if (known === null)
      throw new SluiceError('SOURCE_TABLE_MISSING', `${displayName(table)} has no readable column ${column}`);
    try {
      await this.#statements.reset(watched, known);
    } catch (cause) {
      const hint = this.#statements.resetHint(cause, watched, known);
      if (hint === null) throw cause;
      throw new SluiceError(
        'TRIGGER_RESET_DENIED',
        `${displayName(table)}: column ${column} could not be set back to 0`,
        { hint, cause },
      );
    }
  }

  async #ask(tables: readonly Watched[]): Promise<boolean[]> {
    const parts: string[] = [];
    for (const [place, watched] of tables.entries()) {
      const known = this.#column(watched);
      if (known !== null) parts.push(this.#statements.flippedSql(watched, known, place));
    }
    const result = tables.map(() => false);
    if (parts.length === 0) return result;
    for (const row of await this.#statements.select(parts.join(' UNION ALL '))) result[Number(row['i'])] = true;
    return result;
  }

  async #learn(tables: readonly Watched[], again: boolean): Promise<void> {
    const now = performance.now();
    const asked = tables.filter((watched) => {
      const known = this.#known.get(keyOf(watched));
      return again || !known || (known.column === null && now - known.at > MISSING_FOR_MS);
    });
    if (asked.length === 0) return;
    const columns = await this.#statements.look(asked, again);
    for (const [i, watched] of asked.entries())
      this.#known.set(keyOf(watched), { column: columns[i] ?? null, at: now });
  }

  #column(watched: Watched): Known | null {
    return this.#known.get(keyOf(watched))?.column ?? null;
  }
}

function keyOf(watched: Watched): string {
  return JSON.stringify([watched.name.schema, watched.name.table, watched.column]);
}
