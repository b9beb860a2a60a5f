/** Commits that the log holds before anybody can see them: tried by writers that commit all the while. */
import { expect } from 'chai';
import type { Position } from '../../../src/model/position.ts';
import type { MysqlTestDatabase } from '../../support/mysql.ts';
import { seenIn, STREAM, type Stream } from './stream.ts';

export interface Load {
  readonly writers: number;
  /** Commits a row with this id to the table. */
  readonly insert: (id: number) => Promise<unknown>;
  /** How often the table is included. */
  readonly inclusions: number;
  /** How often a copy begins. */
  readonly starts: number;
}

/**
 * What was read can be fetched, whatever was read when the table was included is visible then, and what a copy does not see comes behind
 * its position. `name`: of a table with a key `id`.
 */
export async function expectNothingUnseen(
  database: MysqlTestDatabase,
  stream: Stream,
  name: string,
  { writers, insert, inclusions, starts }: Load,
): Promise<void> {
  const [table] = await stream.handle.catalog.describe([{ schema: '', table: name }]);
  const { snapshot } = stream.handle;
  if (!table || !snapshot) throw new Error('not there');
  const visible = async () => new Set((await database.query(`SELECT id FROM ${name}`)).map((row) => String(row['id'])));
  const reader = await stream.source.read(STREAM, await stream.start(), {
    ...{ maxChanges: 1, maxBytes: 1 << 20, idleProgressMs: () => 10, pollMs: () => 10 },
  });
  let stop = false;
  const writing = Array.from({ length: writers }, async (_, w) => {
    for (let i = 0; !stop; i++) await insert(w * 1_000_000 + i);
  });
  try {
    const read = new Set<string>();
    let rounds = 0;
    for await (const piece of reader.pieces) {
      const ids = seenIn([piece]).map(({ after }) => String(after?.['id']));
      for (const id of ids) read.add(id);
      if (piece.changes === 0 || piece.end === null) continue;
      const tokens = piece.tables.flatMap(({ visibility }) => visibility);
      const fetched = await snapshot.fetchRows(
        table,
        ['id'],
        ['id'],
        ids.map((id) => [id]),
        tokens,
      );
      expect(fetched.cells).to.have.members(ids);
      await stream.source.include(STREAM, table, ['id']);
      const there = await visible();
      expect([...read].filter((id) => !there.has(id))).to.deep.equal([]);
      if (++rounds === inclusions) break;
    }
    const copies: { position: Position; copied: Set<string> }[] = [];
    for (let round = 0; round < starts; round++) {
      const position = await stream.start();
      copies.push({ position, copied: await visible() });
    }
    stop = true;
    await Promise.all(writing);
    const all = await visible();
    for (const { position, copied } of copies) {
      const missing = [...all].filter((id) => !copied.has(id));
      if (missing.length === 0) continue;
      const seen = new Set(seenIn(await stream.read(position, missing.length)).map(({ after }) => after?.['id']));
      expect(missing.filter((id) => !seen.has(id))).to.deep.equal([]);
    }
  } finally {
    stop = true;
    await Promise.all(writing);
    await reader.stop();
  }
}
