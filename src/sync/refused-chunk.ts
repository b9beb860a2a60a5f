/**
 * Rows of a copy that the staging table does not take, looked for batch by batch: a value that the destination has no place for
 * (U+0000, a day before the calendar) costs its row, not the table (DESIGN §7).
 */
import { createHash } from 'node:crypto';
import type { Cell, RowBatch } from '../model/changes.ts';
import type { SluiceError } from '../model/errors.ts';
import { halve } from './halving.ts';
import { legible, tooManyRefused, type RefusedRow, type Sparing } from './refused-rows.ts';

export interface Sieve {
  /** Source names of the key's columns; none: a row is named by a checksum, because its values are kept only where the mapping allows it. */
  readonly key: readonly string[];
  /** Of a table without a key: how many of the refused rows had this checksum, so that each of them counts. */
  readonly alike: Map<string, number>;
  /** Why rows are not taken; null: they are (`CopySession.refusal`). */
  readonly refusal: (rows: RowBatch) => Promise<SluiceError | null>;
  readonly sparing: Sparing;
  /** Throws when the copy is to end: a search may take long. */
  readonly check: () => void;
}

/** The batches without the refused rows, which are kept first. Throws ROW_REFUSED when they are more than allowed. */
export async function* sift(batches: AsyncIterable<RowBatch>, sieve: Sieve): AsyncGenerator<RowBatch, void, void> {
  for await (const batch of batches) {
    const refused = await refusedIn(batch, sieve);
    if (refused.size === 0) {
      yield batch;
      continue;
    }
    const rows = [...refused].map(([row, reason]) => refusedRow(batch, row, reason, sieve));
    const [first] = rows;
    if (first && !(await sieve.sparing.record(rows))) throw tooManyRefused(first.reason);
    if (refused.size < batch.rows) yield without(batch, refused);
  }
}

/** Numbers of the rows that are not taken, and why; no more than one past what is allowed. */
async function refusedIn(batch: RowBatch, { refusal, sparing, check }: Sieve): Promise<Map<number, SluiceError>> {
  const refused = new Map<number, SluiceError>();
  await halve(
    0,
    batch.rows,
    (first, end) => {
      check();
      return refusal(slice(batch, first, end));
    },
    (row, reason) => refused.set(row, reason).size <= sparing.limit,
  );
  return refused;
}

function slice({ columns, cells, rows }: RowBatch, first: number, end: number): RowBatch {
  if (first === 0 && end === rows) return { columns, cells, rows };
  return { columns, rows: end - first, cells: cells.slice(first * columns.length, end * columns.length) };
}

function without({ columns, cells, rows }: RowBatch, refused: ReadonlyMap<number, unknown>): RowBatch {
  const width = columns.length;
  const kept: Cell[] = [];
  for (let row = 0; row < rows; row++)
    if (!refused.has(row)) for (let at = row * width; at < (row + 1) * width; at++) kept.push(cells[at] ?? null);
  return { columns, rows: rows - refused.size, cells: kept };
}

function refusedRow({ columns, cells }: RowBatch, row: number, reason: SluiceError, sieve: Sieve): RefusedRow {
  const at = row * columns.length;
  const values = Object.fromEntries(columns.map((name, i) => [name, legible(cells[at + i])]));
  const key = sieve.key.length > 0 ? sieve.key.map((name) => values[name] ?? null) : standIn(values, sieve.alike);
  return { operation: 'upsert', key, reason, values };
}

/** The same in every attempt of a copy, which meets the same rows again. */
function standIn(values: RefusedRow['values'], alike: Sieve['alike']): Cell[] {
  const checksum = createHash('sha256').update(JSON.stringify(values)).digest('hex').slice(0, 32);
  const number = (alike.get(checksum) ?? 0) + 1;
  alike.set(checksum, number);
  return [checksum, String(number)];
}
