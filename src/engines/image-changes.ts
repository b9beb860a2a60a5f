/** Changes whose rows are kept in the form in which they were read (model/changes.ts, RowImages), whatever that form is. */
import type { Cell, ChangeCell, ChangeRelation, Op, RowBatch, RowImages, TableChanges } from '../model/changes.ts';
import type { UpsertImages } from '../model/keyed-changes.ts';
import { SluiceError } from '../model/errors.ts';

export interface StoredRows extends RowImages {
  readonly count: number;
}

/**
 * Changes whose rows lie where they were read, until somebody asks for cells: they are made all at once, and what was read is
 * let go.
 */
export class ImageChanges<Rows extends StoredRows> implements TableChanges {
  readonly relation: ChangeRelation;
  readonly ops: Op[];
  readonly before: number[];
  readonly after: number[];
  readonly visibility: string[];
  hasAbsent = false;
  hasUnread = false;
  #rows: Rows | null;
  #cells: ChangeCell[] | null = null;

  constructor(
    relation: ChangeRelation,
    rows: Rows,
    ops: Op[] = [],
    before: number[] = [],
    after: number[] = [],
    visibility: string[] = [],
  ) {
    this.relation = relation;
    this.#rows = rows;
    this.ops = ops;
    this.before = before;
    this.after = after;
    this.visibility = visibility;
  }

  get images(): Rows | undefined {
    return this.#rows ?? undefined;
  }

  /** For whoever still adds rows. */
  get rows(): Rows {
    if (this.#rows === null) throw new SluiceError('INTERNAL', 'rows are added to changes whose cells were made');
    return this.#rows;
  }

  /** Not to be asked for while rows are still added. */
  get cells(): ChangeCell[] {
    if (this.#cells === null) {
      const { rows } = this;
      this.#cells = [];
      for (let row = 0; row < rows.count; row++) rows.append(row, this.#cells);
      this.#rows = null;
    }
    return this.#cells;
  }
}

/** Rows whose cells are made at once: few, so that they are gone before anybody has to keep track of them. */
const STEP = 256;

/** The cells of rows `first` to before `end`, all of which are whole, in batches: for a destination that has no other use for how they came. */
export async function* imageBatches(
  { images, rows, columns, relation }: UpsertImages,
  names: readonly string[],
  first: number,
  end: number,
): AsyncGenerator<RowBatch, void, void> {
  const row: ChangeCell[] = [];
  for (let from = first; from < end; from += STEP) {
    const cells: Cell[] = [];
    const to = Math.min(end, from + STEP);
    for (let i = from; i < to; i++) {
      row.length = 0;
      images[i]?.append(rows[i] ?? 0, row);
      for (const column of columns) cells.push(row[column] ?? null);
    }
    if (row.length !== relation.columns.length)
      throw new SluiceError('INTERNAL', 'a row has another number of columns');
    yield { columns: names, rows: to - from, cells };
  }
}
