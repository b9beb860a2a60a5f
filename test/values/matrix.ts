/** One source table mapped to two destination tables, one made by Sluice and one made before; and their exact comparison. */
import type { TestDatabase } from '../support/postgres.ts';
import { eventually, type World } from '../support/service.ts';
import type { TypeCase } from '../engines/postgres/values.ts';

/** What both ends must agree on to print the same text; the binary images need nothing. */
const SETTINGS = `SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'`;

export class Matrix {
  readonly #world: World;
  readonly #table: string;
  readonly #cases: readonly TypeCase[];
  readonly #rows: number;
  /** Whether `record_send` gives the same bytes in both databases: it holds object ids, so built-in types only. */
  readonly #image: boolean;
  mappings: number[] = [];

  constructor(world: World, table: string, cases: readonly TypeCase[], options: { image: boolean }) {
    this.#world = world;
    this.#table = table;
    this.#cases = cases;
    this.#rows = Math.max(...cases.map((one) => one.values.length)) + 1;
    this.#image = options.image;
  }

  get name(): string {
    return this.#table;
  }

  get given(): string {
    return `${this.#table}_given`;
  }

  createSql(table = this.#table): string {
    return `CREATE TABLE public."${table}" (id int PRIMARY KEY, ${this.#cases.map((one, i) => `c${i} ${one.type}`).join(', ')})`;
  }

  /** Row r has the r-th value of every type; the last row is all NULL. */
  insertSql(offset: number): string {
    const rows = Array.from({ length: this.#rows }, (_, row) => `(${offset + row}, ${this.#values(row).join(', ')})`);
    return `INSERT INTO public."${this.#table}" VALUES ${rows.join(', ')}`;
  }

  /** Every row at `offset` gets another row's values: no column keeps what it had, NULLs included. */
  rotateSql(offset: number): string[] {
    return Array.from({ length: this.#rows }, (_, row) => {
      const set = this.#values((row + 1) % this.#rows).map((value, i) => `c${i} = ${value}`);
      return `UPDATE public."${this.#table}" SET ${set.join(', ')} WHERE id = ${offset + row}`;
    });
  }

  async map(): Promise<void> {
    await this.#world.destination.query(this.createSql(this.given));
    this.mappings = [
      await this.#world.map(this.#table),
      await this.#world.map(this.#table, { dest_table: this.given }),
    ];
    for (const mapping of this.mappings) await this.#world.state(mapping, 'streaming');
  }

  /** Both copies equal the source, cell by cell, as text and as binary images; `rows` guards against comparing nothing. */
  async equal(sets: number): Promise<void> {
    await eventually(async () => {
      const source = await this.#read(this.#world.source, this.#table);
      if (source.size !== sets * this.#rows) throw new Error(`${source.size} rows at the source`);
      for (const table of [this.#table, this.given])
        this.#compare(table, source, await this.#read(this.#world.destination, table));
    }, 15_000);
  }

  #compare(table: string, source: Map<string, string[]>, copy: Map<string, string[]>): void {
    if (copy.size !== source.size) throw new Error(`${table}: ${copy.size} rows, source ${source.size}`);
    for (const [id, cells] of source) {
      const found = copy.get(id) ?? [];
      cells.forEach((cell, i) => {
        if (found[i] === cell) return;
        const type = this.#cases[i]?.type ?? 'binary image';
        throw new Error(
          `${table}, row ${id}, ${type}: source ${cell.slice(0, 200)}, copy ${String(found[i]).slice(0, 200)}`,
        );
      });
    }
  }

  async #read(database: TestDatabase, table: string): Promise<Map<string, string[]>> {
    await database.query(SETTINGS);
    const text = this.#cases.map((_, i) => `coalesce(quote_literal(c${i}::text), 'NULL')`);
    const image = this.#image ? [`encode(record_send(t), 'hex')`] : [];
    const rows = await database.query<{ id: number; cells: string[] }>(
      `SELECT id, ARRAY[${[...text, ...image].join(', ')}] AS cells FROM public."${table}" t`,
    );
    return new Map(rows.map((row) => [String(row.id), row.cells]));
  }

  #values(row: number): string[] {
    return this.#cases.map((one) => (row < one.values.length ? `(${one.values[row] ?? 'NULL'})::${one.type}` : 'NULL'));
  }
}
