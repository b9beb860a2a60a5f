/** A stream of batches that several statements take from, one after another. */
import type { RowBatch } from '../../../model/changes.ts';

/** Rows `from` to before `end` of a batch. */
export interface BatchPart {
  readonly batch: RowBatch;
  readonly from: number;
  readonly end: number;
}

export class Batches {
  readonly #source: AsyncIterator<RowBatch>;
  /** The batch in hand, and how far it was taken. */
  #batch: RowBatch | null = null;
  #at = 0;

  constructor(source: AsyncIterator<RowBatch>) {
    this.#source = source;
  }

  async hasMore(): Promise<boolean> {
    while (this.#batch === null || this.#at >= this.#batch.rows) {
      const next = await this.#source.next();
      if (next.done) return false;
      this.#batch = next.value;
      this.#at = 0;
    }
    return true;
  }

  /** The next rows, at most so many. */
  async *take(most: number): AsyncGenerator<BatchPart, void, void> {
    let left = most;
    while (left > 0 && (await this.hasMore())) {
      const batch = this.#batch;
      if (batch === null) return;
      const from = this.#at;
      const end = Math.min(batch.rows, from + left);
      this.#at = end;
      left -= end - from;
      yield { batch, from, end };
    }
  }
}
