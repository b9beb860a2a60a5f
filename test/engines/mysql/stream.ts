/** A change stream as tests read it. */
import type { ChangeReader, ChangeSource, EngineDatabase, ReadOptions } from '../../../src/engines/contract.ts';
import { engineOf } from '../../../src/engines/registry.ts';
import type { ChangePiece } from '../../../src/model/changes.ts';
import type { SluiceError } from '../../../src/model/errors.ts';
import type { Position } from '../../../src/model/position.ts';
import { shown } from './values.ts';

export const STREAM = 'test/1/changes';

/** A change as text: operation, table, and the columns with their values. */
export interface Seen {
  readonly op: number;
  readonly table: string;
  readonly before: Record<string, string | null | undefined> | null;
  readonly after: Record<string, string | null | undefined> | null;
}

export function seenIn(pieces: readonly ChangePiece[]): Seen[] {
  return pieces.flatMap((piece) =>
    piece.tables.flatMap(({ relation, ops, before, after, cells }) => {
      const row = (start: number) =>
        start < 0
          ? null
          : Object.fromEntries(
              relation.columns.map((name, i) => {
                const cell = cells[start + i];
                return [name, cell === undefined ? undefined : shown(cell)];
              }),
            );
      return ops.map((op, i) => ({
        op,
        table: relation.name.table,
        before: row(before[i] ?? -1),
        after: row(after[i] ?? -1),
      }));
    }),
  );
}

export class Stream {
  readonly source: ChangeSource;
  readonly handle: EngineDatabase;
  reader: ChangeReader | null = null;

  constructor(url: string, serverWide = false) {
    this.handle = engineOf(url).open({
      connectionString: url,
      database: null,
      serverWide,
      installation: { uid: 'test' },
      applicationName: 'sluice tests',
    });
    if (!this.handle.changes) throw new Error('no changes');
    this.source = this.handle.changes;
  }

  async start(): Promise<Position> {
    return (await this.source.prepare(STREAM)).start;
  }

  /** Pieces from `from` on, until there are `count` changes and the transaction has ended. */
  async read(from: Position, count: number, options: Partial<ReadOptions> = {}): Promise<ChangePiece[]> {
    this.reader = await this.source.read(STREAM, from, {
      maxChanges: 1000,
      maxBytes: 1 << 20,
      idleProgressMs: () => 100,
      pollMs: () => 100,
      ...options,
    });
    const pieces: ChangePiece[] = [];
    let changes = 0;
    try {
      for await (const piece of this.reader.pieces) {
        pieces.push(piece);
        changes += piece.changes;
        if (changes >= count && piece.end !== null) break;
      }
    } finally {
      await this.reader.stop();
    }
    return pieces;
  }

  async close(): Promise<void> {
    await this.reader?.stop();
    await this.handle.close();
  }
}

export async function failure(work: Promise<unknown>): Promise<SluiceError> {
  const thrown: unknown = await work.then(
    () => null,
    (error: unknown) => error,
  );
  if (thrown === null) throw new Error('nothing was thrown');
  return thrown as SluiceError;
}
