/** Changes whose rows are kept in the form in which they were read (model/changes.ts, RowImages), whatever that form is. */
import type { ChangeCell, ChangeRelation, Op, RowImages, TableChanges } from '../model/changes.ts';
import { SluiceError } from '../model/errors.ts';

export interface StoredRows extends RowImages {
  /** Every row's cells, one after the other. */
  cells(): ChangeCell[];
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
      this.#cells = this.rows.cells();
      this.#rows = null;
    }
    return this.#cells;
  }
}
