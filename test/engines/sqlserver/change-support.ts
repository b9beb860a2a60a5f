/** What tests of the change stream share. */
import { SqlServerChanges } from '../../../src/engines/sqlserver/changes.ts';
import type { ChangeReader, ReadOptions } from '../../../src/engines/contract.ts';
import { Op, type ChangeCell, type ChangePiece } from '../../../src/model/changes.ts';
import type { Position } from '../../../src/model/position.ts';
import type { SqlServerTestDatabase } from '../../support/sqlserver.ts';

export const STREAM = 'test/1/changes';

const READ: ReadOptions = { maxChanges: 10_000, maxBytes: 16 << 20, idleProgressMs: () => 50, pollMs: () => 50 };

/** `I:1,a` · `U:1>2,b` (old cells before `>`) · `D:1`; absent cells are `~`, NULL is `null`. */
export function shown(pieces: readonly ChangePiece[]): string[] {
  return pieces.flatMap(({ tables }) =>
    tables.flatMap(({ relation, ops, before, after, cells }) =>
      ops.map((op, i) => {
        const row = (at: number | undefined) =>
          at === undefined || at < 0
            ? ''
            : cells
                .slice(at, at + relation.columns.length)
                .map(cellText)
                .join(',');
        const old = row(before[i]);
        if (op === Op.Delete) return `D:${old}`;
        return op === Op.Insert ? `I:${row(after[i])}` : `U:${old === '' ? '' : `${old}>`}${row(after[i])}`;
      }),
    ),
  );
}

function cellText(cell: ChangeCell): string {
  if (cell === undefined) return '~';
  if (cell === null) return 'null';
  return typeof cell === 'string' ? cell : Buffer.from(cell).toString('utf8');
}

export interface Following {
  readonly reader: ChangeReader;
  /** Pieces until one of them satisfies `enough`. */
  until(enough: (all: ChangePiece[]) => boolean): Promise<ChangePiece[]>;
  /** Pieces until they hold so many changes and the last has an end. */
  changes(count: number): Promise<ChangePiece[]>;
}

export async function follow(
  changes: SqlServerChanges,
  from: Position,
  options: Partial<ReadOptions> = {},
): Promise<Following> {
  const reader = await changes.read(STREAM, from, { ...READ, ...options });
  const pieces = reader.pieces[Symbol.asyncIterator]();
  const until = async (enough: (all: ChangePiece[]) => boolean) => {
    const all: ChangePiece[] = [];
    while (!enough(all)) {
      const next = await pieces.next();
      if (next.done) throw new Error('the stream ended');
      all.push(next.value);
    }
    return all;
  };
  return {
    reader,
    until,
    changes: (count) =>
      until(
        (all) =>
          all.reduce((sum, piece) => sum + piece.changes, 0) >= count && all.at(-1)?.end !== null && all.length > 0,
      ),
  };
}

export function changesOf(database: SqlServerTestDatabase): SqlServerChanges {
  return new SqlServerChanges(database.connection);
}
