import { expect } from 'chai';
import type { Checksummer, ChecksumRequest } from '../../src/engines/contract.ts';
import type { Table } from '../../src/model/tables.ts';
import {
  createItems,
  insertItems,
  ITEM_COLUMNS,
  numbers,
  type ContractDatabase,
  type EngineUnderTest,
} from './engine-under-test.ts';

export function checksumSuite(engine: EngineUnderTest): void {
  describe('checksum', () => {
    let database: ContractDatabase;
    let checksum: Checksummer;
    let tables: Table[];
    beforeEach(async () => {
      database = await engine.database();
      tables = [await createItems(database, 'one'), await createItems(database, 'two')];
      for (const table of tables) await insertItems(database, table.name, numbers(1, 300));
      if (!database.handle.checksum) throw new Error('this engine has no checksums');
      checksum = database.handle.checksum;
    });
    afterEach(() => database.drop());

    const request = (n: number): ChecksumRequest => {
      const table = tables[n];
      if (!table) throw new Error('no table');
      return { table: table.name, columns: ITEM_COLUMNS, key: ['id'], limit: 200, blockRows: 50 };
    };
    const sums = async (n: number) => (await checksum.recent(request(n))).map((block) => block.md5);

    it('is equal for equal rows, over the last rows only', async () => {
      expect(await sums(0)).to.deep.equal(await sums(1));
      expect(await sums(0)).to.have.length(4);
      await database.execute(
        `UPDATE ${database.quote({ schema: database.schema, table: 'two' })} SET v = 'other' WHERE id = 5`,
      );
      expect(await sums(0)).to.deep.equal(await sums(1));
    });

    for (const [what, set] of [
      ['one character', `v = 'V150'`],
      ['NULL for an empty text', `v = NULL`],
      ['a text that moved to the next column', `v = 'v150big', big = '150'`],
    ] as const) {
      it(`F61: differs for ${what}`, async () => {
        await database.execute(
          `UPDATE ${database.quote({ schema: database.schema, table: 'two' })} SET ${set} WHERE id = 150`,
        );
        expect(await sums(0)).to.not.deep.equal(await sums(1));
        const keys = [['149'], ['150']];
        const [left, right] = [await checksum.rowsByKey(request(0), keys), await checksum.rowsByKey(request(1), keys)];
        const md5 = (rows: typeof left, id: string) => rows.find((row) => String(row.key[0]) === id)?.md5;
        expect(md5(left, '149')).to.equal(md5(right, '149'));
        expect(md5(left, '150')).to.not.equal(md5(right, '150'));
      });
    }

    it('tells NULL from empty text', async () => {
      await database.execute(
        `UPDATE ${database.quote({ schema: database.schema, table: 'one' })} SET v = '' WHERE id = 150`,
      );
      await database.execute(
        `UPDATE ${database.quote({ schema: database.schema, table: 'two' })} SET v = NULL WHERE id = 150`,
      );
      expect(await sums(0)).to.not.deep.equal(await sums(1));
    });
  });
}
