/** Short-hand for changes in unit tests: `changesOf(['id', 'v'], [['I', null, ['1', 'a']], ['D', ['1', undefined], null]])`. */
import { emptyTableChanges, Op, type ChangeCell, type TableChanges } from '../../src/model/changes.ts';

const OPS = { I: Op.Insert, U: Op.Update, D: Op.Delete, T: Op.Truncate } as const;
export type ChangeSpec = readonly [keyof typeof OPS, readonly ChangeCell[] | null, readonly ChangeCell[] | null];

export function changesOf(
  columns: readonly string[],
  specs: readonly ChangeSpec[],
  visibility: readonly string[] = [],
): TableChanges {
  const changes = emptyTableChanges({
    name: { schema: 'public', table: 't' },
    id: '1',
    columns,
    columnTypes: columns.map(() => '25:-1'),
  });
  for (const [op, before, after] of specs) {
    changes.ops.push(OPS[op]);
    for (const [row, at] of [
      [before, changes.before],
      [after, changes.after],
    ] as const) {
      at.push(row ? changes.cells.length : -1);
      if (row) {
        changes.cells.push(...row);
        if (row === after && row.includes(undefined)) changes.hasAbsent = true;
      }
    }
  }
  changes.visibility.push(...visibility);
  return changes;
}
