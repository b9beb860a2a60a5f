import { expect } from 'chai';
import type { Chunk, ChunkPlan, SnapshotSource } from '../../src/engines/contract.ts';
import { hasCode } from '../../src/model/errors.ts';
import type { Table } from '../../src/model/tables.ts';
import {
  cellText,
  createItems,
  insertItems,
  ITEM_COLUMNS,
  numbers,
  type ContractDatabase,
  type EngineUnderTest,
} from './engine-under-test.ts';

export function snapshotSuite(engine: EngineUnderTest): void {
  describe('as source: snapshot', () => {
    let database: ContractDatabase;
    let source: SnapshotSource;
    let table: Table;

    beforeEach(async () => {
      database = await engine.database();
      table = await createItems(database);
      await insertItems(database, table.name, numbers(1, 3000), 'v', 'x'.repeat(200));
      [table = table] = (await database.handle.catalog.describe([table.name])).filter((found) => found !== null);
      if (!database.handle.snapshot) throw new Error('this engine has no snapshots');
      source = database.handle.snapshot;
    });
    afterEach(() => database.drop());

    const read = async (plan: ChunkPlan, chunk: Chunk): Promise<string[]> => {
      const stream = await source.readChunk(table, plan.layout, chunk, ITEM_COLUMNS, 'cells');
      const ids: string[] = [];
      if (!('batches' in stream)) throw new Error('expected cells');
      for await (const batch of stream.batches) {
        for (let row = 0; row < batch.rows; row++) ids.push(String(cellText(batch.cells[row * batch.columns.length])));
      }
      return ids;
    };

    it('splits a table into chunks that together hold every row once, in any order', async () => {
      const plan = await source.planChunks(table, { targetBytes: 100_000 });
      expect(plan.chunks.length).to.be.greaterThan(2);
      const ids: string[] = [];
      for (const chunk of [...plan.chunks].reverse()) ids.push(...(await read(plan, chunk)));
      expect(ids.map(Number).sort((a, b) => a - b)).to.deep.equal(numbers(1, 3000));
    });

    it('a row behind the last chunk’s bounds is not lost', async () => {
      const plan = await source.planChunks(table, { targetBytes: 100_000 });
      await insertItems(database, table.name, numbers(5001, 5100), 'v', 'x'.repeat(200));
      const ids = new Set<number>();
      for (const chunk of plan.chunks) for (const id of await read(plan, chunk)) ids.add(Number(id));
      for (const id of numbers(5001, 5100)) expect(ids.has(id)).to.equal(true);
    });

    it('bounds can be stored as text and given back', async () => {
      const plan = JSON.parse(JSON.stringify(await source.planChunks(table, { targetBytes: 100_000 }))) as ChunkPlan;
      const [first] = plan.chunks;
      if (!first) throw new Error('no chunk');
      expect((await read(plan, first)).length).to.be.greaterThan(0);
    });

    it('rows that moved start the copy again, never silently', async () => {
      const plan = await source.planChunks(table, { targetBytes: 100_000 });
      await engine.rewrite(database, table.name);
      const last = plan.chunks.at(-1);
      if (!last) throw new Error('no chunk');
      const error: unknown = await read(plan, last).then(
        () => null,
        (thrown: unknown) => thrown,
      );
      expect(hasCode(error, 'COPY_RESTARTED')).to.equal(true);
    });

    it('a table that is dropped before its rows are read is never said to be a destination’s', async () => {
      const plan = await source.planChunks(table, { targetBytes: 10_000_000 });
      await database.execute(`DROP TABLE ${database.quote(table.name)}`);
      const readWhole = async () => {
        for await (const { rows } of source.readWhole(table, plan, ITEM_COLUMNS, 'cells'))
          if ('batches' in rows) for await (const batch of rows.batches) expect(batch.rows).to.equal(0);
      };
      const errors = await Promise.all(
        [
          read(plan, plan.chunks[0] as Chunk),
          readWhole(),
          source.fetchRows(table, ITEM_COLUMNS, ['id'], [['7']], []),
        ].map((work) =>
          work.then(
            () => null,
            (thrown: unknown) => thrown,
          ),
        ),
      );
      for (const error of errors)
        expect(hasCode(error, 'SOURCE_TABLE_MISSING', 'COPY_RESTARTED'), String(error)).to.equal(true);
    });

    it('F44: a reader that was left in the middle holds nothing', async () => {
      const plan = await source.planChunks(table, { targetBytes: 10_000_000 });
      const [chunk] = plan.chunks;
      if (!chunk) throw new Error('no chunk');
      const stream = await source.readChunk(table, plan.layout, chunk, ITEM_COLUMNS, 'cells');
      if (!('batches' in stream)) throw new Error('expected cells');
      for await (const batch of stream.batches) {
        expect(batch.rows).to.be.greaterThan(0);
        break;
      }
      await database.execute(`DROP TABLE ${database.quote(table.name)}`);
    });

    it('fetches the present rows of keys, and leaves out those that are not there', async () => {
      const found = await source.fetchRows(table, ITEM_COLUMNS, ['id'], [['7'], ['999999'], ['12']], []);
      const ids = numbers(0, found.rows - 1).map((row) => cellText(found.cells[row * 3]));
      expect(ids.sort()).to.deep.equal(['12', '7']);
    });
  });
}
