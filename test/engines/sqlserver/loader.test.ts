import { expect } from 'chai';
import type { RowStream } from '../../../src/engines/contract.ts';
import type { Session } from '../../../src/engines/sqlserver/connection.ts';
import { loadRows, loadTarget, type LoadOptions, type LoadTable } from '../../../src/engines/sqlserver/loader.ts';
import type { Cell, RowBatch } from '../../../src/model/changes.ts';
import { skip } from '../../support/skip.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';
import { LOADING } from './loader-values.ts';
import { cellPrinted, comparable, printedSql, SERVER_VALUES } from './values.ts';

const dbo = (table: string) => ({ schema: 'dbo', table });

function cellsOf(columns: readonly string[], ...batches: (readonly Cell[])[]): RowStream {
  const made = batches.map((cells): RowBatch => ({ columns, rows: cells.length / columns.length, cells }));
  return {
    format: 'cells',
    batches: (async function* () {
      yield* made;
    })(),
  };
}

const failureOf = (work: Promise<unknown>) =>
  work.then(
    () => ({ code: 'no error', message: '' }),
    (error: { code?: string; message: string }) => ({ code: error.code ?? '', message: error.message }),
  );

describe('SQL Server loader', () => {
  let database: SqlServerTestDatabase;
  let session: Session;
  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this), 'loader');
  });
  after(() => database?.drop());
  beforeEach(async () => {
    session = await database.connection.open();
  });
  afterEach(() => database.connection.release(session));

  const load = (table: LoadTable, columns: readonly string[], rows: RowStream, options: LoadOptions = {}) =>
    loadRows(
      session,
      table,
      columns.map((name) => ({ name })),
      rows,
      options,
    );

  /** What is given is read back as the cell it is, by the server's own print. */
  const roundTrip = async (type: string, pairs: readonly (readonly [given: Cell, read: Cell])[]) => {
    await session.run('make a table', [`DROP TABLE IF EXISTS #one`, `CREATE TABLE #one (n int, v ${type} NULL)`]);
    const cells = pairs.flatMap(([cell], i) => [String(i), cell]);
    expect(await load('#one', ['n', 'v'], cellsOf(['n', 'v'], [...cells, '1000', null]))).to.equal(pairs.length + 1);
    const found = await session.query('read', `SELECT ${printedSql(type, 'v')} AS v FROM #one ORDER BY n`);
    expect(found.map((row) => comparable(type, cellPrinted(type, row['v'])))).to.deep.equal(
      [...pairs.map(([, read]) => read), null].map((cell) => comparable(type, cell)),
    );
  };

  for (const { type, values, sqlServerOnly } of SERVER_VALUES) {
    const isBeyond = ({ beyond }: (typeof values)[number]) => beyond !== undefined || sqlServerOnly === true;
    const pairs = (some: typeof values) => some.map(({ cell }) => [cell, cell] as const);
    const held = values.filter((value) => !isBeyond(value));
    const others = values.filter(isBeyond);
    if (held.length > 0)
      it(`F30 F31 F32 F33 F34: ${type} is read back as it was loaded`, () =>
        roundTrip(type, [...pairs(held), ...(LOADING[type]?.spellings ?? [])]));
    if (others.length > 0)
      it(`F30 F31 F32: ${type}, what only SQL Server takes`, async function () {
        if (database.server.kind === 'babelfish') skip(this, 'Babelfish does not take these values');
        await roundTrip(type, pairs(others));
      });
  }

  it('F36: what does not fit is refused, never changed; the transaction goes on and no value is told', async () => {
    const others: string[] = [];
    await session.run('begin', ['CREATE TABLE #kept (n int)', 'BEGIN TRANSACTION', 'INSERT INTO #kept VALUES (1)']);
    for (const [type, { refused = [] }] of Object.entries(LOADING)) {
      await session.run('make a table', [`DROP TABLE IF EXISTS #one`, `CREATE TABLE #one (n int, v ${type} NULL)`]);
      const known = SERVER_VALUES.find((one) => one.type === type);
      expect(known, type).to.not.equal(undefined);
      const first = known?.values.find(({ beyond }) => beyond === undefined)?.cell ?? null;
      for (const cell of refused) {
        const { code, message } = await failureOf(
          load('#one', ['n', 'v'], cellsOf(['n', 'v'], ['1', first], ['2', cell])),
        );
        const told = typeof cell === 'string' && cell.length > 2 && message.replace(type, '').includes(cell);
        if (code !== 'ROW_REFUSED' || told) others.push(`${type} ${String(cell)}: ${code} ${message}`);
      }
      const [left] = await session.query('count', 'SELECT COUNT(*) AS n FROM #one');
      if (Number(left?.['n']) !== 0) others.push(`${type}: rows stayed`);
    }
    await session.run('commit', ['COMMIT TRANSACTION']);
    expect(others).to.deep.equal([]);
    expect(await session.query('count', 'SELECT n FROM #kept')).to.deep.equal([{ n: 1 }]);
  });

  it('F35: NULL into a column with a default stays NULL; into one that is NOT NULL it is refused', async () => {
    await session.run('make a table', [
      `CREATE TABLE dbo.defaults (a int NULL DEFAULT 7, b nvarchar(5) NOT NULL DEFAULT N'x')`,
    ]);
    await load(dbo('defaults'), ['a', 'b'], cellsOf(['a', 'b'], [null, '', '1', 'y']));
    expect(await database.query('SELECT a, b FROM dbo.defaults ORDER BY b')).to.deep.equal([
      { a: null, b: '' },
      { a: 1, b: 'y' },
    ]);
    const { code, message } = await failureOf(
      loadRows(
        session,
        dbo('defaults'),
        [{ name: 'a' }, { name: 'b', nullable: false }],
        cellsOf(['a', 'b'], ['1', null]),
      ),
    );
    expect([code, message]).to.deep.equal([
      'ROW_REFUSED',
      'could not load rows into dbo.defaults: a value of column b is refused: it is NULL, which the column is not',
    ]);
  });

  it('F45: identity columns take what they are given; triggers do not fire; columns of odd names, some left out', async () => {
    const odd = `odd "na'me. é`;
    await database.query(
      `CREATE TABLE dbo.identities (id int IDENTITY(1,1), [${odd}] nvarchar(5) COLLATE Latin1_General_BIN2, rest int DEFAULT 3)`,
    );
    await database.query('CREATE TABLE dbo.fired (n int)');
    await database.query(`CREATE TRIGGER dbo.fire ON dbo.identities AFTER INSERT AS INSERT INTO dbo.fired VALUES (1)`);
    const columns = [
      { name: odd, default: null },
      { name: 'id', default: null },
    ];
    await loadRows(session, dbo('identities'), columns, cellsOf([odd, 'id'], ['x', '41', 'y', '7']), {
      tableLock: true,
    });
    expect(await database.query(`SELECT id, [${odd}] AS o, rest FROM dbo.identities ORDER BY id`)).to.deep.equal([
      { id: 7, o: 'y', rest: 3 },
      { id: 41, o: 'x', rest: 3 },
    ]);
    expect(await database.query('SELECT n FROM dbo.fired')).to.deep.equal([]);
  });

  it('a described table is loaded again and again without another question, in one transaction', async () => {
    await session.run('make a table', [
      'CREATE TABLE #often (n int NOT NULL, t varchar(20) COLLATE Cyrillic_General_CI_AS)',
    ]);
    const target = await loadTarget(session, '#often', [{ name: 'n' }, { name: 't' }]);
    await session.transaction(async () => {
      for (let i = 0; i < 20; i++)
        await load('#often', ['n', 't'], cellsOf(['n', 't'], [String(i), 'жук']), { target });
    });
    expect(await session.query('count', `SELECT COUNT(*) AS n, MIN(t) AS t FROM #often`)).to.deep.equal([
      { n: 20, t: 'жук' },
    ]);
    expect(await load('#often', ['n', 't'], cellsOf(['n', 't']), { target })).to.equal(0);
  });

  it('what is not there: the table, a column', async () => {
    await database.query('CREATE TABLE dbo.narrow (a int)');
    const missing = await failureOf(load(dbo('nowhere'), ['a'], cellsOf(['a'], ['1'])));
    expect(missing.code).to.equal('DESTINATION_TABLE_MISSING');
    expect((await failureOf(load(dbo('narrow'), ['b'], cellsOf(['b'], ['1'])))).code).to.equal('SCHEMA_CHANGED');
  });

  it('a row of another is refused by the server: a conflict', async () => {
    await database.query('CREATE TABLE dbo.uniques (a int PRIMARY KEY)');
    // Without a transaction Babelfish keeps what came before the failure.
    const work = session.transaction(() => load(dbo('uniques'), ['a'], cellsOf(['a'], ['1', '2', '1'])));
    const error = await work.catch((thrown: unknown) => thrown as { code: string; isConflict: boolean });
    expect(error).to.include({ code: 'ROW_REFUSED', isConflict: true });
    expect(await database.query('SELECT a FROM dbo.uniques')).to.deep.equal([]);
  });
});
