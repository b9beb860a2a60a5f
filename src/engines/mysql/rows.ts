/**
 * Rows of users' tables as cells: every value exact, in batches of bounded size, no faster than they are taken (invariants 6 and 7).
 * The driver sends the statement and reads the headers; the row packets of the text protocol are read here (MySQL Internals, "Text
 * Resultset Row": each value a length and the server's own text), because the driver makes numbers, dates and objects of them.
 */
import type { Socket } from 'node:net';
import type { Cell, RowBatch } from '../../model/changes.ts';
import { SluiceError } from '../../model/errors.ts';
import type { Column } from '../../model/tables.ts';
import { cellReader, type CellReader } from './cells.ts';
import type { Session } from './connection.ts';
import { cellForm, type CellForm } from './types.ts';

export interface ReadColumn {
  readonly name: string;
  readonly form: CellForm;
}

export function readColumns(columns: readonly Column[]): ReadColumn[] {
  return columns.map((column) => ({ name: column.name, form: cellForm(column.nativeType) }));
}

/** Batches that wait for their reader before the socket is paused. */
const WAITING = 2;
const BATCH_BYTES = 256 * 1024;

/** What we rely on in the driver (its Query command and Packet, unchanged since 1.0). */
interface Packet {
  readonly buffer: Buffer;
  readonly offset: number;
  readonly end: number;
  isEOF(): boolean;
}
type RowState = (this: unknown, packet: Packet, connection: unknown) => unknown;
interface QueryCommand {
  row: RowState;
}

/** Collects rows of one result set. */
class RowCollector {
  readonly #names: readonly string[];
  readonly #readers: readonly CellReader[];
  #cells: Cell[] = [];
  #rows = 0;
  #bytes = 0;

  constructor(columns: readonly ReadColumn[]) {
    this.#names = columns.map((column) => column.name);
    this.#readers = columns.map((column) => cellReader(column.form));
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(packet: Packet): void {
    const { buffer, offset, end } = packet;
    const row = buffer.toString('latin1', offset, end);
    const length = end - offset;
    const cells = this.#cells;
    const readers = this.#readers;
    let at = 0;
    for (let i = 0; i < readers.length; i++) {
      let size = row.charCodeAt(at++);
      if (size === 0xfb) {
        cells.push(null);
        continue;
      }
      if (size > 0xfb) {
        const width = size === 0xfc ? 2 : size === 0xfd ? 3 : 8;
        size = width === 8 ? Number(buffer.readBigUInt64LE(offset + at)) : buffer.readUIntLE(offset + at, width);
        at += width;
      }
      const to = at + size;
      const reader = readers[i];
      if (to > length || reader === undefined) throw malformed();
      cells.push(reader(row, at, to, buffer, offset));
      at = to;
    }
    if (at !== length) throw malformed();
    this.#rows++;
    this.#bytes += length;
  }

  take(): RowBatch | null {
    if (this.#rows === 0) return null;
    const batch = { columns: this.#names, rows: this.#rows, cells: this.#cells };
    this.#cells = [];
    this.#rows = 0;
    this.#bytes = 0;
    return batch;
  }
}

function malformed(): SluiceError {
  return new SluiceError('INTERNAL', 'a row of the server is not of the columns that were asked for');
}

/**
 * Sends one SELECT without bound values and yields its rows; `columns` are those it selects, in order. Not reading to the end
 * destroys the session (a result cannot be called off politely).
 */
export async function* readRows(
  session: Session,
  doing: string,
  sql: string,
  columns: readonly ReadColumn[],
): AsyncGenerator<RowBatch, void, void> {
  if (session.lost) throw session.failure(doing, session.lost);
  const collector = new RowCollector(columns);
  const queue: RowBatch[] = [];
  let failed: SluiceError | null = null;
  let ended = false;
  let paused = false;
  let wake: (() => void) | null = null;
  const signal = () => {
    wake?.();
    wake = null;
  };
  const socket = (session.driver as unknown as { stream: Socket }).stream;
  const command = session.driver.query({ sql }, (error) => {
    if (error) {
      if (error.fatal) session.lost ??= error;
      failed ??= session.failure(doing, error);
    }
    const last = collector.take();
    if (last) queue.push(last);
    ended = true;
    signal();
  }) as unknown as QueryCommand;
  const forget = session.onEnd(signal);
  const finish = command.row;
  command.row = function (packet, connection) {
    if (packet.isEOF()) return finish.call(this, packet, connection);
    if (failed === null) {
      try {
        collector.add(packet);
      } catch (error) {
        failed = error instanceof SluiceError ? error : session.failure(doing, error);
        signal();
      }
      if (collector.bytes >= BATCH_BYTES) {
        const batch = collector.take();
        if (batch) queue.push(batch);
        if (!paused && queue.length >= WAITING) {
          paused = true;
          socket.pause();
        }
        signal();
      }
    }
    return command.row;
  };
  try {
    for (;;) {
      const batch = queue.shift();
      if (batch !== undefined) {
        if (paused && queue.length < WAITING) {
          paused = false;
          socket.resume();
        }
        yield batch;
        continue;
      }
      if (failed !== null) throw failed as SluiceError;
      if (ended) return;
      if (session.lost) throw session.failure(doing, session.lost);
      await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    forget();
    if (!ended) session.destroy();
  }
}
