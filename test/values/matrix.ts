/**
 * The value matrix of a pair of databases: every type's values through a full copy, the change stream and a backlog, each value in a
 * row of its own, so that one that the destination cannot hold takes no other with it. Both ends are read by what the databases
 * themselves print.
 */
import { expect } from 'chai';
import { eventually, type World } from '../support/service.ts';

export interface MatrixValue {
  /** An expression of the source. */
  readonly sql: string;
  /** What both ends must print; absent: what the source prints. */
  readonly printed?: string;
  /** The destination has no place for it: the row is left out (F36). */
  readonly isRefused?: boolean;
}

export interface MatrixColumn {
  readonly type: string;
  readonly values: readonly MatrixValue[];
}

export const NULL = 'NULL';

/** What is printed of each column, by id; in a form that is the same at both ends. */
export type Print = (table: string) => Promise<Map<number, readonly string[]>>;

export interface MatrixEnd {
  readonly execute: (sql: string) => Promise<unknown>;
  readonly print: Print;
  /** `table` quoted, with its schema. */
  readonly quote: (table: string) => string;
}

export interface MatrixPair {
  readonly table: string;
  readonly columns: readonly MatrixColumn[];
  readonly source: MatrixEnd;
  readonly destination: MatrixEnd;
  /** Maps the table, once or into several; to be called when it has rows. */
  readonly map: () => Promise<readonly { readonly mapping: number; readonly table: string }[]>;
  readonly state: (mapping: number, state: string) => Promise<void>;
  readonly enable: (mappings: readonly number[], enabled: 0 | 1) => Promise<void>;
  /** Of changes to arrive. */
  readonly patience: number;
}

/** How the service of a world is asked; with patience enough for a busy machine. */
export function controlledBy(world: World, seconds: number): Pick<MatrixPair, 'state' | 'enable' | 'patience'> {
  return {
    state: (mapping, state) => world.state(mapping, state, seconds),
    enable: (mappings, enabled) =>
      world.control
        .query('UPDATE table_mappings SET is_enabled = $2 WHERE mapping_id = ANY ($1)', [mappings, enabled])
        .then(() => undefined),
    patience: seconds * 1000,
  };
}

/** Waits until the mapping has failed: its code, its message, and what was logged of it (the schema check's words). */
export async function refusal(world: World, mapping: number, seconds: number): Promise<string> {
  await world.state(mapping, 'failed', seconds);
  const rows = await world.control.query<{ said: string }>(
    `SELECT concat_ws(' ', s.error_code, s.error_message, (SELECT string_agg(l.log_message, ' ') FROM sync_logs l WHERE l.mapping_id = m.mapping_id)) AS said
       FROM table_mappings m JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1`,
    [mapping],
  );
  return rows[0]?.said ?? '';
}

/** The values of a row: of one column, or of every column its first (`all`); null: NULL. */
interface Row {
  readonly column: number | 'all' | null;
  readonly value: number | null;
}

export class Matrix {
  readonly #pair: MatrixPair;
  /** What the source holds, and what the destination must: a row that it refuses stays as it was. */
  readonly #rows = new Map<number, { source: Row; destination: Row | null }>();
  #mapped: readonly { readonly mapping: number; readonly table: string }[] = [];

  constructor(pair: MatrixPair) {
    this.#pair = pair;
  }

  get refused(): number {
    return [...this.#rows.values()].filter(({ source, destination }) => source !== destination).length;
  }

  createSql(table = this.#pair.table): string {
    const columns = this.#pair.columns.map(({ type }, i) => `c${i} ${type} NULL`).join(', ');
    return `CREATE TABLE ${this.#pair.source.quote(table)} (id int NOT NULL PRIMARY KEY, ${columns})`;
  }

  async throughEverything(): Promise<void> {
    const { state, enable } = this.#pair;
    await this.#insert(0, { refused: false });
    this.#mapped = await this.#pair.map();
    const mappings = this.#mapped.map(({ mapping }) => mapping);
    for (const mapping of mappings) await state(mapping, 'streaming');
    await this.#equal('copied');

    await this.#insert(1000, { refused: true });
    await this.#rotate(0, 1000);
    await this.#equal('streamed');

    await enable(mappings, 0);
    for (const mapping of mappings) await state(mapping, 'paused');
    await this.#insert(2000, { refused: true });
    await this.#rotate(1000, 2000);
    await enable(mappings, 1);
    for (const mapping of mappings) await state(mapping, 'streaming');
    await this.#equal('kept while paused');
  }

  /** A row for each value, and one of NULLs. */
  async #insert(offset: number, options: { refused: boolean }): Promise<void> {
    const { columns, source, table } = this.#pair;
    const statements = [`INSERT INTO ${source.quote(table)} (id) VALUES (${offset})`];
    this.#rows.set(offset, same({ column: null, value: null }));
    let id = offset;
    columns.forEach(({ values }, column) =>
      values.forEach((value, n) => {
        id++;
        if (value.isRefused && !options.refused) return;
        statements.push(`INSERT INTO ${source.quote(table)} (id, c${column}) VALUES (${id}, ${value.sql})`);
        const row: Row = { column, value: n };
        this.#rows.set(id, { source: row, destination: value.isRefused ? null : row });
      }),
    );
    for (const sql of inBatches(statements)) await source.execute(sql);
  }

  /** Every value becomes the next of its column, the last NULL; the row of NULLs gets the first value of every column. */
  async #rotate(from: number, to: number): Promise<void> {
    const { columns, source, table } = this.#pair;
    const statements: string[] = [];
    for (const [id, row] of this.#rows) {
      if (id < from || id >= to) continue;
      const { column, value } = row.source;
      if (column === 'all') continue;
      if (column === null || value === null) {
        const set = columns.map(({ values }, i) => `c${i} = ${values.find((one) => !one.isRefused)?.sql ?? 'NULL'}`);
        statements.push(`UPDATE ${source.quote(table)} SET ${set.join(', ')} WHERE id = ${id}`);
        this.#rows.set(id, same({ column: 'all', value: null }));
        continue;
      }
      const next = columns[column]?.values[value + 1];
      statements.push(`UPDATE ${source.quote(table)} SET c${column} = ${next?.sql ?? 'NULL'} WHERE id = ${id}`);
      const now: Row = { column, value: next ? value + 1 : null };
      this.#rows.set(id, { source: now, destination: next?.isRefused ? row.destination : now });
    }
    for (const sql of inBatches(statements)) await source.execute(sql);
  }

  async #equal(how: string): Promise<void> {
    const { source, destination, table, patience } = this.#pair;
    const here = await source.print(table);
    const printed = this.#printed(here);
    const width = this.#pair.columns.length;
    expect(here.size, `${table}: rows at the source`).to.equal(this.#rows.size);
    for (const [id, row] of this.#rows)
      this.#compare(`${table}, source, ${how}`, id, row.source, here.get(id), printed);
    for (const { table: copy } of this.#mapped)
      await eventually(async () => {
        const there = await destination.print(copy);
        const expected = [...this.#rows].filter(([, row]) => row.destination !== null);
        for (const [id, row] of expected)
          if (row.destination) this.#compare(`${copy}, ${how}`, id, row.destination, there.get(id), printed);
        // What is printed besides, such as the row's binary image.
        for (const [id, row] of expected)
          if (
            row.destination === row.source &&
            String(there.get(id)?.slice(width)) !== String(here.get(id)?.slice(width))
          )
            throw new Error(`${copy}, ${how}, row ${id}: another binary image`);
        for (const id of there.keys())
          if (!this.#rows.get(id)?.destination)
            throw new Error(`${copy}, ${how}: ${this.#told(id)} should not be there`);
      }, patience);
  }

  /** By column and value: as the list says, else as the source prints it. */
  #printed(here: ReadonlyMap<number, readonly string[]>): (column: number, value: number) => string {
    const known = new Map<string, string>();
    this.#pair.columns.forEach(({ values }, column) =>
      values.forEach(({ printed }, value) => {
        if (printed !== undefined) known.set(`${column}/${value}`, printed);
      }),
    );
    for (const [id, { source }] of this.#rows) {
      if (typeof source.column !== 'number' || source.value === null) continue;
      const place = `${source.column}/${source.value}`;
      const found = here.get(id)?.[source.column];
      if (found !== undefined && !known.has(place)) known.set(place, found);
    }
    return (column, value) => known.get(`${column}/${value}`) ?? '(not seen)';
  }

  #told(id: number): string {
    const { column, value } = this.#rows.get(id)?.source ?? { column: null, value: null };
    const one = typeof column === 'number' ? this.#pair.columns[column] : undefined;
    return `row ${id}, ${one?.type ?? 'all columns'} ${value === null ? NULL : (one?.values[value]?.sql ?? '')}`;
  }

  #compare(
    where: string,
    id: number,
    row: Row,
    found: readonly string[] | undefined,
    printed: (column: number, value: number) => string,
  ): void {
    this.#pair.columns.forEach(({ type, values }, column) => {
      const first = values.findIndex((one) => !one.isRefused);
      const value = row.column === 'all' ? (first < 0 ? null : first) : row.column === column ? row.value : null;
      const expected = value === null ? NULL : printed(column, value);
      if (found?.[column] !== expected)
        throw new Error(`${where}, row ${id}, ${type}: ${shown(found?.[column])} instead of ${shown(expected)}`);
    });
  }
}

const same = (row: Row) => ({ source: row, destination: row });
const shown = (text: string | undefined) => (text === undefined ? 'nothing' : text.slice(0, 200));

/** Statements together, as far as a batch of them is still short. */
function inBatches(statements: readonly string[]): string[] {
  const batches: string[] = [];
  let batch = '';
  for (const statement of statements) {
    if (batch.length + statement.length > 400_000 && batch !== '') {
      batches.push(batch);
      batch = '';
    }
    batch += `${statement};\n`;
  }
  return batch === '' ? batches : [...batches, batch];
}
