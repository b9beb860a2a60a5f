import { expect } from 'chai';
import type { RowStream } from '../../../src/engines/contract.ts';
import { loadRows, loadTarget } from '../../../src/engines/sqlserver/loader.ts';
import type { Cell, RowBatch } from '../../../src/model/changes.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';

const dbo = (table: string) => ({ schema: 'dbo', table });
const long = process.env['SLUICE_TEST_LONG'] !== undefined;

interface Watched {
  readonly rows: RowStream;
  handed: number;
  returned: boolean;
}

/** Batches made on demand; notes how many rows were handed out and whether it was let go. */
function made(columns: readonly string[], batchRows: number, batches: number, row: (n: number) => Cell[]): Watched {
  const watched: Watched = {
    handed: 0,
    returned: false,
    rows: {
      format: 'cells',
      batches: {
        [Symbol.asyncIterator]: () => ({
          next: async () => {
            await new Promise((resolve) => setImmediate(resolve));
            if (watched.handed >= batches * batchRows) return { done: true as const, value: undefined };
            const cells: Cell[] = [];
            for (let i = 0; i < batchRows; i++) cells.push(...row(watched.handed++));
            return { done: false as const, value: { columns, rows: batchRows, cells } satisfies RowBatch };
          },
          return: async () => {
            watched.returned = true;
            return { done: true as const, value: undefined };
          },
        }),
      },
    },
  };
  return watched;
}

const one = (columns: readonly string[], cells: Cell[]) => made(columns, 1, 1, () => cells).rows;

describe('SQL Server loader, streams', () => {
  let database: SqlServerTestDatabase;
  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this), 'streams');
  });
  after(() => database?.drop());

  const counted = async (table: string) => {
    const [row] = await database.query(`SELECT COUNT(*) AS n FROM dbo.${table}`);
    return Number(row?.['n']);
  };

  it('F33: a row of 1,000 columns, a value of 64 MB of bytes, one of text', async function () {
    this.timeout(60_000);
    const size = (long ? 64 : 16) * 1024 * 1024;
    const names = Array.from({ length: 998 }, (_, i) => ({ name: `c${i}` }));
    await database.query(
      `CREATE TABLE dbo.wide (${names.map(({ name }) => `${name} int`).join(', ')}, b varbinary(max), t nvarchar(max))`,
    );
    const bytes = new Uint8Array(size).map((_, i) => (i * 7919) >> 3);
    const text = '0123456789äöü€'.repeat(size / 4 / 14);
    const columns = [...names, { name: 'b' }, { name: 't' }];
    const cells: Cell[] = [...names.map((_, i) => String(i)), bytes, text];
    await database.connection.use((session) =>
      loadRows(
        session,
        dbo('wide'),
        columns,
        one(
          columns.map(({ name }) => name),
          cells,
        ),
      ),
    );
    const [row] = await database.query('SELECT c0, c997, b, t FROM dbo.wide');
    expect([row?.['c0'], row?.['c997']]).to.deep.equal([0, 997]);
    expect(Buffer.from(bytes).equals(row?.['b'] as Uint8Array)).to.equal(true);
    expect(row?.['t'] === text).to.equal(true);
  });

  it('F40: rows of a source that fails half-way do not stay, and its own error is told', async () => {
    await database.query('CREATE TABLE dbo.half (a nvarchar(100))');
    const session = await database.connection.open();
    const rows = made(['a'], 1000, 100, (n) => {
      if (n === 60_500) throw new Error('the source is gone');
      return ['x'.repeat(100)];
    });
    const error = await session
      .transaction(() => loadRows(session, dbo('half'), [{ name: 'a' }], rows.rows))
      .catch((thrown: unknown) => thrown as Error);
    expect(error).to.include({ message: 'the source is gone' });
    expect(rows.returned).to.equal(true);
    expect(session.lost).to.not.equal(null);
    expect(await counted('half')).to.equal(0);
  });

  it('F36 F40: a refused value far behind ends the session; one among the first rows costs nothing', async () => {
    await database.query('CREATE TABLE dbo.far (a nvarchar(100))');
    for (const [bad, options, survives] of [
      [30, {}, true],
      [30_000, {}, false],
      [30_000, { checkFirst: true }, true],
    ] as const) {
      const session = await database.connection.open();
      const rows = made(['a'], 1000, 40, (n) => [n === bad ? 'y'.repeat(101) : 'x'.repeat(100)]);
      const error = await session
        .transaction(() => loadRows(session, dbo('far'), [{ name: 'a' }], rows.rows, options))
        .catch((thrown: unknown) => thrown as { code: string });
      expect(error).to.include({ code: 'ROW_REFUSED' });
      expect(rows.returned).to.equal(true);
      expect(session.lost === null).to.equal(survives);
      if (survives) await database.connection.release(session);
      expect(await counted('far')).to.equal(0);
    }
  });

  it('F40: a session killed in mid-load is CONNECTION_LOST, and the source is let go', async () => {
    await database.query('CREATE TABLE dbo.killed (a nvarchar(100))');
    const session = await database.connection.open();
    const [id] = await session.query('ask for the session', 'SELECT @@SPID AS id');
    const rows = made(['a'], 1000, 1_000_000, () => ['x'.repeat(100)]);
    const work = session
      .transaction(() => loadRows(session, dbo('killed'), [{ name: 'a' }], rows.rows))
      .catch((thrown: unknown) => thrown as { code: string });
    while (rows.handed < 50_000) await new Promise((resolve) => setTimeout(resolve, 10));
    await database.query(`KILL ${Number(id?.['id'])}`);
    expect(await work).to.include({ code: 'CONNECTION_LOST' });
    expect(rows.returned).to.equal(true);
    expect(await counted('killed')).to.equal(0);
  });

  it('F43: a destination that stops taking rows stops the source: what is in flight is bounded', async () => {
    await database.query('CREATE TABLE dbo.slow (a nvarchar(1000))');
    const session = await database.connection.open();
    const target = await loadTarget(session, dbo('slow'), [{ name: 'a' }]);
    const blocker = await database.connection.open();
    await blocker.run('lock the table', ['BEGIN TRANSACTION', 'ALTER TABLE dbo.slow ADD other int NULL']);
    const rows = made(['a'], 100, 200, () => ['x'.repeat(1000)]);
    const work = session.transaction(() => loadRows(session, dbo('slow'), [{ name: 'a' }], rows.rows, { target }));
    for (let last = -1; last !== rows.handed || rows.handed === 0;) {
      last = rows.handed;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    // 2 KB a row, 40 MB in all: what is held before sending, a block or two, and buffers of the driver and of two sockets.
    expect(rows.handed).to.be.lessThan(6000);
    await blocker.run('let go', ['ROLLBACK TRANSACTION']);
    expect(await work).to.equal(20_000);
    expect(await counted('slow')).to.equal(20_000);
    await Promise.all([session, blocker].map((each) => database.connection.release(each)));
  });

  it('F43: many small rows stay a stream: memory is not a matter of their number', async function () {
    this.timeout(120_000);
    await database.query('CREATE TABLE dbo.many (id bigint, at datetime2(6), t nvarchar(40), d decimal(18,4))');
    const columns = ['id', 'at', 't', 'd'];
    const total = long ? 1_000_000 : 150_000;
    let peak = 0;
    const rows = made(columns, 1000, total / 1000, (n) => {
      if (n % 10_000 === 0) {
        const { external, heapUsed } = process.memoryUsage();
        peak = Math.max(peak, external + heapUsed);
      }
      return [String(n), '2024-02-29 12:00:00.123456', `row ${n}`, `${n}.5`];
    });
    const { external, heapUsed } = process.memoryUsage();
    const loaded = await database.connection.use((session) =>
      session.transaction(() =>
        loadRows(
          session,
          dbo('many'),
          columns.map((name) => ({ name })),
          rows.rows,
          { tableLock: true },
        ),
      ),
    );
    expect(loaded).to.equal(total);
    const [row] = await database.query('SELECT COUNT(*) AS n, CAST(SUM(d) AS varchar(40)) AS s FROM dbo.many');
    expect([Number(row?.['n']), row?.['s']]).to.deep.equal([total, `${(total * (total - 1)) / 2 + total / 2}.0000`]);
    expect(peak - external - heapUsed).to.be.lessThan(150 * 1024 * 1024);
  });
});
