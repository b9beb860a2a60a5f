import { expect } from 'chai';
import type { ChangeReader, ChangeSource } from '../../src/engines/contract.ts';
import { Op, type ChangePiece } from '../../src/model/changes.ts';
import type { Position } from '../../src/model/position.ts';
import type { Table } from '../../src/model/tables.ts';
import {
  cellText,
  createItems,
  insertItems,
  numbers,
  type ContractDatabase,
  type EngineUnderTest,
} from './engine-under-test.ts';
import { skip } from '../support/skip.ts';

const STREAM = 'contract/1/changes';

export function changesSuite(engine: EngineUnderTest): void {
  describe('as source: changes', () => {
    let database: ContractDatabase;
    let source: ChangeSource;
    let table: Table;
    let start: Position;
    let reader: ChangeReader | null;

    beforeEach(async () => {
      database = await engine.database();
      table = await createItems(database);
      if (!database.handle.changes) throw new Error('this engine has no change stream');
      source = database.handle.changes;
      await database.capture?.(table.name);
      // As it is recorded now.
      table = (await database.handle.catalog.describe([table.name]))[0] ?? table;
      ({ start } = await source.prepare(STREAM));
      await source.include(STREAM, table, ['id']);
      reader = null;
    });
    afterEach(async () => {
      await reader?.stop();
      await source.drop(STREAM);
      await database.drop();
    });

    const open = async (from: Position, maxBytes = 1 << 20) => {
      reader = await source.read(STREAM, from, {
        maxChanges: 1000,
        maxBytes,
        idleProgressMs: () => 100,
        pollMs: () => 100,
      });
      return reader.pieces[Symbol.asyncIterator]();
    };
    /** Pieces until one satisfies `enough`. */
    const until = async (pieces: AsyncIterator<ChangePiece>, enough: (all: ChangePiece[]) => boolean) => {
      const all: ChangePiece[] = [];
      while (!enough(all)) {
        const next = await pieces.next();
        if (next.done) throw new Error('the stream ended');
        all.push(next.value);
      }
      return all;
    };
    const changesIn = (pieces: readonly ChangePiece[]) =>
      pieces.flatMap((piece) =>
        piece.tables.flatMap((changes) =>
          changes.ops.map((op, i) => {
            const row = op === Op.Delete ? (changes.before[i] ?? -1) : (changes.after[i] ?? -1);
            return `${op}:${row < 0 ? '' : cellText(changes.cells[row])}`;
          }),
        ),
      );
    const count = (pieces: readonly ChangePiece[]) => pieces.reduce((sum, piece) => sum + piece.changes, 0);

    it('shows what was committed, in order, and from the end of a piece on again nothing of it (F05, F06)', async () => {
      const name = database.quote(table.name);
      await insertItems(database, table.name, [1, 2, 3]);
      await database.execute(`UPDATE ${name} SET v = 'u' WHERE id = 2`);
      await database.execute(`DELETE FROM ${name} WHERE id = 3`);
      const seen = await until(await open(start), (all) => count(all) >= 5);
      expect(changesIn(seen)).to.deep.equal(['1:1', '1:2', '1:3', '2:2', '3:3']);
      const end = seen.at(-1)?.end;
      expect(end).to.not.equal(null);
      expect(source.compare(end as Position, start)).to.equal('after');
      await reader?.stop();
      await insertItems(database, table.name, [4]);
      const again = await until(await open(end as Position), (all) => count(all) >= 1);
      expect(changesIn(again)).to.deep.equal(['1:4']);
    });

    it('F02: keeps what is not acknowledged, however often it was read', async () => {
      await insertItems(database, table.name, [1]);
      await until(await open(start), (all) => count(all) >= 1);
      await reader?.stop();
      expect(changesIn(await until(await open(start), (all) => count(all) >= 1))).to.deep.equal(['1:1']);
    });

    it('F20: a key change carries the old key', async () => {
      await insertItems(database, table.name, [1]);
      await database.execute(`UPDATE ${database.quote(table.name)} SET id = 2 WHERE id = 1`);
      const [, moved] = (await until(await open(start), (all) => count(all) >= 2)).flatMap((piece) =>
        piece.tables.flatMap((changes) =>
          changes.ops.map((op, i) => ({ op, changes, before: changes.before[i] ?? -1, after: changes.after[i] ?? -1 })),
        ),
      );
      // An update with both keys, or a delete and an insert: either way the old key is said.
      expect(moved && moved.before >= 0 ? cellText(moved.changes.cells[moved.before]) : null).to.equal('1');
    });

    it('F12: a quiet source still shows progress, up to the end it names', async () => {
      const pieces = await open(start);
      const end = await source.end();
      const seen = await until(pieces, (all) =>
        all.some((piece) => piece.end !== null && source.compare(piece.end, end) !== 'before'),
      );
      expect(count(seen)).to.equal(0);
    });

    it('F43: a transaction larger than the limit comes in pieces; only its last one has an end', async () => {
      await insertItems(database, table.name, numbers(1, 400), 'v', 'x'.repeat(500));
      const pieces = await open(start, 64 * 1024);
      const seen = await until(pieces, (all) => count(all) >= 400 && all.at(-1)?.end !== null);
      expect(seen.filter((piece) => piece.changes > 0).length).to.be.greaterThan(1);
      expect(new Set(changesIn(seen)).size).to.equal(400);
    });

    it('F26: what was committed before a column went is a piece without what came after', async function () {
      // Where a table is recorded by itself, what is recorded does not follow its columns.
      if (database.capture) skip(this, 'this engine’s record of a table keeps its columns');
      await insertItems(database, table.name, [1, 2]);
      const name = database.quote(table.name);
      await database.execute(`UPDATE ${name} SET v = 'old'`);
      await database.execute(`ALTER TABLE ${name} DROP COLUMN v`);
      await database.execute(`UPDATE ${name} SET id = 3 WHERE id = 2`);
      const all = await until(await open(start), (pieces) => pieces.reduce((n, { changes }) => n + changes, 0) >= 5);
      const widths = all
        .map(({ tables }) => tables.map(({ relation }) => relation.columns.includes('v')).join())
        .filter((each) => each !== '');
      // What was committed before may come in several pieces, on a busy machine.
      expect(widths.filter((each, i) => each !== widths[i - 1])).to.deep.equal(['true', 'false']);
    });

    it('what was changed before the table was included is visible to who reads now', async () => {
      await database.execute(`INSERT INTO ${database.quote(table.name)} (id) VALUES (1)`);
      await source.include(STREAM, table, ['id']);
      expect(await database.rows(table.name, ['id'])).to.deep.equal([['1']]);
    });
  });
}
