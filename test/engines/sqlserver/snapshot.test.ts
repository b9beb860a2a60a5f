import { expect } from 'chai';
import { SqlServerCatalog } from '../../../src/engines/sqlserver/catalog.ts';
import { SqlServerSnapshot } from '../../../src/engines/sqlserver/snapshot.ts';
import type { RowStream } from '../../../src/engines/contract.ts';
import { hasCode } from '../../../src/model/errors.ts';
import type { Table } from '../../../src/model/tables.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';

const ROWS = 400;

/** Columns and key; T-SQL for the i-th row's key values, which are all different. */
const KEYS: [what: string, columns: string, key: string, values: (i: number) => string][] = [
  ['int', 'a int NOT NULL', 'a', (i) => String(i - 200)],
  [
    'composite, not in front, of two orders',
    'x int NULL, a nvarchar(20) NOT NULL, b smallint NOT NULL',
    'a DESC, b',
    (i) => `NULL, N'k${i % 7}', ${i}`,
  ],
  ['uniqueidentifier', 'a uniqueidentifier NOT NULL', 'a', () => 'NEWID()'],
  ['decimal', 'a decimal(38,10) NOT NULL', 'a', (i) => `${i - 200}.0000000001`],
  ['money', 'a money NOT NULL', 'a', (i) => `${i - 200}.0001`],
  ['float', 'a float NOT NULL', 'a', (i) => `${i}E0 / 7`],
  ['bigint beyond a double', 'a bigint NOT NULL', 'a', (i) => `9223372036854775000 + ${i}`],
  ['datetime', 'a datetime NOT NULL', 'a', (i) => `DATEADD(second, ${i}, '2024-02-29 12:00:00.003')`],
  [
    'datetime2',
    'a datetime2(6) NOT NULL',
    'a',
    (i) => `DATEADD(second, ${i}, CAST('1800-01-01 00:00:00.000001' AS datetime2(6)))`,
  ],
  [
    'datetimeoffset',
    'a datetimeoffset(6) NOT NULL',
    'a',
    (i) => `DATEADD(second, ${i}, CAST('2024-01-01 00:00:00.000001 +05:30' AS datetimeoffset(6)))`,
  ],
  ['date', 'a date NOT NULL', 'a', (i) => `DATEADD(day, ${i}, CAST('1999-12-01' AS date))`],
  ['time', 'a time(3) NOT NULL', 'a', (i) => `DATEADD(second, ${i}, CAST('00:00:00.007' AS time(3)))`],
  [
    'text, any case, not Latin',
    'a nvarchar(30) NOT NULL',
    'a',
    (i) => `N'${['Я', 'ä', 'Z', 'a', '中', '-'][i % 6] ?? ''}${i}'`,
  ],
  ['varchar of a code page', 'a varchar(30) NOT NULL', 'a', (i) => `N'é${i}'`],
  ['char, padded', 'a char(10) NOT NULL', 'a', (i) => `'c${i}'`],
  ['binary', 'a varbinary(8) NOT NULL', 'a', (i) => `CAST(${i + 1} AS varbinary(8))`],
];

describe('SQL Server snapshot', () => {
  let database: SqlServerTestDatabase;
  let snapshot: SqlServerSnapshot;

  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this));
    snapshot = new SqlServerSnapshot(database.connection);
  });
  after(() => database?.drop());

  const make = async (columns: string, key: string | null, values: (i: number) => string): Promise<Table> => {
    const primary = key === null ? '' : `, CONSTRAINT pk PRIMARY KEY (${key})`;
    const rows = Array.from({ length: ROWS }, (_, i) => `INSERT INTO t SELECT ${values(i)}, ${i};`);
    await database.query(
      `DROP VIEW IF EXISTS seen; DROP TABLE IF EXISTS t; CREATE TABLE t (${columns}, n int NOT NULL${primary}); ${rows.join(' ')}`,
    );
    return described('t');
  };
  const described = async (table: string): Promise<Table> => {
    const [found] = await new SqlServerCatalog(database.connection).describe([{ schema: 'dbo', table }]);
    if (!found) throw new Error(`no ${table}`);
    return found;
  };
  const numbersOf = async (rows: RowStream): Promise<number[]> => {
    if (!('batches' in rows)) throw new Error('expected cells');
    const found: number[] = [];
    for await (const { columns, cells } of rows.batches)
      for (let at = columns.indexOf('n'); at < cells.length; at += columns.length) found.push(Number(cells[at]));
    return found;
  };
  const sorted = (all: number[]) => all.sort((a, b) => a - b);
  const everyRow = Array.from({ length: ROWS }, (_, i) => i);

  for (const [what, columns, key, values] of KEYS)
    it(`F25: chunks by a key of ${what} hold every row once; rows are fetched by it`, async () => {
      const table = await make(columns, key, values);
      const plan = await snapshot.planChunks(table, { targetBytes: 1500 });
      expect(plan.chunks.length).to.be.greaterThan(3);
      const all: number[] = [];
      const sizes: number[] = [];
      for (const chunk of plan.chunks) {
        const rows = await numbersOf(await snapshot.readChunk(table, plan.layout, chunk, ['n'], 'cells'));
        sizes.push(rows.length);
        all.push(...rows);
      }
      expect(sorted(all)).to.deep.equal(everyRow);
      expect(Math.max(...sizes)).to.be.lessThan(ROWS / 2);
      const names = table.keys[0]?.columns ?? [];
      const keys: (string | Uint8Array | null)[][] = [];
      for await (const { chunk, rows } of snapshot.readWhole(table, plan, names, 'cells')) {
        if (!('batches' in rows)) throw new Error('expected cells');
        for await (const batch of rows.batches)
          for (let at = 0; at < batch.cells.length && chunk.id < 2; at += names.length)
            keys.push(batch.cells.slice(at, at + names.length));
      }
      const asked = keys.slice(0, 20);
      const found = await snapshot.fetchRows(table, [...names, 'n'], names, [...asked, ...asked]);
      expect(found.rows).to.equal(20);
      const text = (cells: readonly unknown[]) => JSON.stringify(cells);
      const rows = Array.from({ length: 20 }, (_, i) =>
        text(found.cells.slice(i * (names.length + 1), (i + 1) * (names.length + 1) - 1)),
      );
      expect(rows.sort()).to.deep.equal(asked.map(text).sort());
    });

  it('F25: a table without a key is one chunk, and so are a view and a small table', async () => {
    const table = await make('a nvarchar(10) NULL', null, (i) => `N'${i}'`);
    await database.query('CREATE VIEW seen AS SELECT n FROM t');
    for (const one of [table, await described('seen')]) {
      const plan = await snapshot.planChunks(one, { targetBytes: 1000 });
      expect(plan.chunks).to.have.length(1);
      const [chunk] = plan.chunks;
      if (!chunk) throw new Error('no chunk');
      const rows = await numbersOf(await snapshot.readChunk(one, plan.layout, chunk, ['n'], 'cells'));
      expect(sorted(rows)).to.deep.equal(everyRow);
    }
  });

  it('reads the whole in one snapshot: what commits meanwhile is not in it', async () => {
    const table = await make('a int NOT NULL', 'a', String);
    const plan = await snapshot.planChunks(table, { targetBytes: 2000 });
    const all: number[] = [];
    for await (const { chunk, rows } of snapshot.readWhole(table, plan, ['a', 'n'], 'cells')) {
      all.push(...(await numbersOf(rows)));
      if (chunk.id === 0)
        await database.query(`INSERT INTO t VALUES (100000, 100000); DELETE FROM t WHERE a = ${ROWS - 1}`);
    }
    expect(sorted(all)).to.deep.equal(everyRow);
  });

  it('F44: writers do not wait for a chunk that is being read slowly', async () => {
    const table = await make(
      'a int NOT NULL, big nvarchar(max) NULL',
      'a',
      (i) => `${i}, REPLICATE(CAST(N'x' AS nvarchar(max)), 20000)`,
    );
    const plan = await snapshot.planChunks(table, { targetBytes: 1e9 });
    const [chunk] = plan.chunks;
    if (!chunk) throw new Error('no chunk');
    const rows = await snapshot.readChunk(table, plan.layout, chunk, ['big', 'n'], 'cells');
    if (!('batches' in rows)) throw new Error('expected cells');
    let seen = 0;
    for await (const batch of rows.batches) {
      if (seen === 0) await database.query('SET LOCK_TIMEOUT 2000; UPDATE t SET n = n + 1');
      seen += batch.rows;
    }
    expect(seen).to.equal(ROWS);
  });

  it('a table that is gone, or lost a column', async () => {
    const table = await make('a int NOT NULL', 'a', String);
    const plan = await snapshot.planChunks(table, { targetBytes: 1e9 });
    const [chunk] = plan.chunks;
    if (!chunk) throw new Error('no chunk');
    const reading = async () => numbersOf(await snapshot.readChunk(table, plan.layout, chunk, ['a', 'n'], 'cells'));
    const codeOf = (work: Promise<unknown>) =>
      work.then(
        () => null,
        (error: unknown) =>
          hasCode(error, 'SCHEMA_CHANGED') || hasCode(error, 'SOURCE_TABLE_MISSING') ? error.code : error,
      );
    await database.query(`ALTER TABLE t DROP COLUMN n`);
    expect(await codeOf(reading())).to.equal('SCHEMA_CHANGED');
    await database.query('DROP TABLE t');
    expect(await codeOf(reading())).to.equal('SOURCE_TABLE_MISSING');
    expect(await codeOf(snapshot.fetchRows(table, ['a'], ['a'], [['1']]))).to.equal('SOURCE_TABLE_MISSING');
  });
});
