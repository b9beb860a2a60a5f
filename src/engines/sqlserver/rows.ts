/** Rows of users' tables as cells: every value exact, in batches of bounded size, no faster than they are taken (invariants 6 and 7). */
import { SluiceError } from '../../model/errors.ts';
import type { RowBatch } from '../../model/changes.ts';
import type { Parameters, Session } from './connection.ts';
import { RowExtractor, type ResultRows } from './tds/rows.ts';

export interface ReadRowsOptions {
  readonly parameters?: Parameters;
  /** Bytes on the wire at which a batch is handed out; a row that is larger is a batch of its own. */
  readonly batchBytes?: number;
  /**
   * Only so many columns, the first ones, become cells, bytes among them as text of one character a byte, which is cheap for what is only
   * compared; the others stay as they came (`rests`).
   */
  readonly leading?: number;
}

/** Batches that wait for the reader while the next one is being parsed. */
const WAITING = 2;

/**
 * Sends a batch and yields the rows of its result sets as cells. Columns of users' tables are selected by `selectExpression`
 * (types.ts); of anything else any type will do but char and varchar with more than ASCII in them, text, ntext, image, sql_variant and CLR types.
 * What is not read to the end leaves the session lost: release it.
 */
export async function* readRows(
  session: Session,
  doing: string,
  text: string,
  options: ReadRowsOptions = {},
): AsyncGenerator<ResultRows, void, void> {
  const queue: ResultRows[] = [];
  let abandoned = false;
  let ended = false;
  let failed: { readonly error: unknown } | null = null;
  let wakeReader: (() => void) | null = null;
  let wakeParser: (() => void) | null = null;
  const take = async (rows: ResultRows): Promise<void> => {
    if (abandoned) return;
    queue.push(rows);
    wakeReader?.();
    if (queue.length >= WAITING) await new Promise<void>((resolve) => (wakeParser = resolve));
  };
  const extractor = new RowExtractor(take, options.batchBytes ?? 256 * 1024, options.leading);
  session.extract(doing, text, options.parameters ?? {}, extractor).then(
    () => {
      ended = true;
      wakeReader?.();
    },
    (error: unknown) => {
      failed = { error };
      ended = true;
      wakeReader?.();
    },
  );
  try {
    for (;;) {
      const rows = queue.shift();
      if (rows !== undefined) {
        (wakeParser as (() => void) | null)?.();
        wakeParser = null;
        yield rows;
        continue;
      }
      if (failed !== null) throw (failed as { readonly error: unknown }).error;
      if (ended) return;
      await new Promise<void>((resolve) => (wakeReader = resolve));
      wakeReader = null;
    }
  } finally {
    if (!ended) {
      abandoned = true;
      session.destroy();
      (wakeParser as (() => void) | null)?.();
    }
  }
}

/** The rows of a statement with one result set. `columns`: names for its columns, which a stand-in would fold. */
export async function* readCells(
  session: Session,
  doing: string,
  text: string,
  columns: readonly string[],
  options: ReadRowsOptions = {},
): AsyncGenerator<RowBatch, void, void> {
  for await (const { width, rows, cells } of readRows(session, doing, text, options)) {
    if (width !== columns.length)
      throw new SluiceError('INTERNAL', `the server sent ${width} columns, expected ${columns.length}`);
    yield { columns, rows, cells };
  }
}
