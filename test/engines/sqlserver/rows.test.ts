import { expect } from 'chai';
import { readRows } from '../../../src/engines/sqlserver/rows.ts';
import type { Session } from '../../../src/engines/sqlserver/connection.ts';
import { selectExpression } from '../../../src/engines/sqlserver/types.ts';
import { SluiceError } from '../../../src/model/errors.ts';
import type { Cell } from '../../../src/model/changes.ts';
import { skip } from '../../support/skip.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';
import { SERVER_VALUES, sqlOf, type ServerValue } from './values.ts';

/** A column's type without its collation. */
const native = (type: string) => type.replace(/ COLLATE .*/, '');

describe('SQL Server rows as cells', () => {
  let database: SqlServerTestDatabase;
  let session: Session | undefined;

  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this));
  });
  after(() => database?.drop());
  beforeEach(async () => {
    if (!session || session.lost) session = await database.connection.open();
  });

  const held = (): Session => {
    if (!session) throw new Error('no session');
    return session;
  };
  const read = async (sql: string, batchBytes?: number) => {
    const cells: Cell[] = [];
    const batches: number[] = [];
    for await (const rows of readRows(held(), 'read', sql, batchBytes === undefined ? {} : { batchBytes })) {
      for (const cell of rows.cells) cells.push(cell instanceof Uint8Array ? Uint8Array.from(cell) : cell);
      batches.push(rows.rows);
    }
    return { cells, batches };
  };

  for (const { type, values, sqlServerOnly } of SERVER_VALUES) {
    const isBeyond = ({ beyond }: ServerValue) => beyond === 'hold' || sqlServerOnly === true;
    const readBack = async (some: readonly ServerValue[]) => {
      const inserts = some.map((value, i) => `INSERT INTO v VALUES (${i}, ${sqlOf(type, value)});`);
      await database.query(
        `DROP TABLE IF EXISTS v; CREATE TABLE v (i int NOT NULL, v ${type} NULL);
         ${inserts.join(' ')} INSERT INTO v VALUES (${some.length}, NULL)`,
      );
      const { cells } = await read(`SELECT ${selectExpression(native(type), 'v')} AS v FROM v ORDER BY i`);
      const wanted = some.map(({ cell }) => (cell instanceof Uint8Array ? Uint8Array.from(cell) : cell));
      expect(cells).to.deep.equal([...wanted, null]);
    };
    const held = values.filter((value) => !isBeyond(value));
    const others = values.filter(isBeyond);
    if (held.length > 0) it(`F30 F31 F32 F33 F34: ${type}`, () => readBack(held));
    if (others.length > 0)
      it(`F30 F31 F32: ${type}, what only SQL Server holds`, async function () {
        if (database.server.kind === 'babelfish') skip(this, 'Babelfish does not hold these values');
        await readBack(others);
      });
  }

  it('F33: a value of many packets, between others, NULLs in every place', async () => {
    const big = 3_000_000;
    const { cells } = await read(
      `SELECT 1 AS a, CAST(NULL AS int) AS b, REPLICATE(CAST(N'ß' AS nvarchar(max)), ${big}) AS c, CAST(NULL AS nvarchar(max)) AS d, 2 AS e
       UNION ALL SELECT NULL, 5, N'', N'x', NULL ORDER BY b`,
    );
    expect(cells.map((cell) => (typeof cell === 'string' && cell.length > 10 ? cell.length : cell))).to.deep.equal([
      '1',
      null,
      big,
      null,
      '2',
      null,
      '5',
      '',
      'x',
      null,
    ]);
    expect(cells[2]).to.equal('ß'.repeat(big));
  });

  it('several result sets, batches of bounded size, the session stays usable', async () => {
    await database.query('DROP TABLE IF EXISTS n; CREATE TABLE n (i int, t nvarchar(100))');
    const values = Array.from({ length: 1000 }, (_, i) => `(${i}, N'row ${i}')`).join(', ');
    await database.query(`INSERT INTO n VALUES ${values}`);
    const { cells, batches } = await read('SELECT i, t FROM n ORDER BY i; SELECT 7 AS x', 2000);
    expect(cells).to.have.length(2001);
    expect(cells[1998]).to.equal('999');
    expect(cells[2000]).to.equal('7');
    expect(batches.length).to.be.greaterThan(10);
    expect(await held().query('go on', 'SELECT 1 AS one')).to.deep.equal([{ one: 1 }]);
  });

  it('F41: an error in the middle arrives, behind the rows before it, and the session goes on', async () => {
    const seen: unknown[] = [];
    try {
      for await (const rows of readRows(held(), 'read', 'SELECT 1 AS a; SELECT 1 / 0 AS b')) seen.push(...rows.cells);
      expect.fail('no error');
    } catch (error) {
      expect(error).to.be.instanceOf(SluiceError);
    }
    expect(seen).to.deep.equal(['1']);
    expect(await held().query('go on', 'SELECT 1 AS one')).to.deep.equal([{ one: 1 }]);
  });

  it('what is not read to the end ends the session, not the process', async () => {
    const rows = 'SELECT a.v FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS a(v)';
    const many = `SELECT REPLICATE(N'x', 3000) AS t FROM (${rows}) a CROSS JOIN (${rows}) b CROSS JOIN (${rows}) c`;
    for await (const batch of readRows(held(), 'read', many, { batchBytes: 1000 })) {
      expect(batch.rows).to.equal(1);
      break;
    }
    expect(held().lost).to.not.equal(null);
  });

  it('F41: an answer that the driver cannot read ends the session, not the process', async function () {
    if (database.server.kind === 'sqlserver') return skip(this, 'only a stand-in sends such an answer');
    // A stand-in counts bytes where it should count characters of a column's name.
    await database.query('DROP TABLE IF EXISTS odd; CREATE TABLE odd ([a 😀é中] int)');
    const error: unknown = await held()
      .query('read', 'SELECT * FROM odd')
      .catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(SluiceError);
    expect(held().lost).to.not.equal(null);
    session = await database.connection.open();
    expect((await read('SELECT [a 😀é中] AS c0 FROM odd')).cells).to.deep.equal([]);
  });

  it('text of a code page that was not made Unicode is an error, not a guess', async () => {
    const error: unknown = await read(`SELECT CAST(N'é' AS varchar(10)) AS t`).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).to.be.instanceOf(SluiceError);
    expect((error as SluiceError).code).to.equal('INTERNAL');
    expect(held().lost).to.not.equal(null);
  });
});
