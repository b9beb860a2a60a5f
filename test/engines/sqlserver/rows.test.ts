import { expect } from 'chai';
import { readRows } from '../../../src/engines/sqlserver/rows.ts';
import type { Session } from '../../../src/engines/sqlserver/connection.ts';
import { selectExpression } from '../../../src/engines/sqlserver/types.ts';
import { SluiceError } from '../../../src/model/errors.ts';
import type { Cell } from '../../../src/model/changes.ts';
import { skip } from '../../support/skip.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';

/** A native type, T-SQL for values of it, and the cells they are. */
type Case = readonly [type: string, ...values: readonly (readonly [sql: string, cell: Cell])[]];

const text = (value: string) => `N'${value.replaceAll("'", "''")}'`;
const same = (...values: string[]) => values.map((value) => [`'${value}'`, value] as const);
const bytes = (...values: number[]) => Uint8Array.from(values);

const CASES: readonly Case[] = [
  ['bit', ['0', 'f'], ['1', 't']],
  ['tinyint', ...same('0', '255')],
  ['smallint', ...same('-32768', '32767')],
  ['int', ...same('-2147483648', '2147483647', '0')],
  ['bigint', ...same('-9223372036854775808', '9223372036854775807', '9007199254740993', '-9007199254740993', '-1')],
  [
    'decimal(38,10)',
    ...same('9999999999999999999999999999.9999999999', '-9999999999999999999999999999.9999999999', '0.0000000001'),
    ['0', '0.0000000000'],
  ],
  ['decimal(38,38)', ...same('-0.00000000000000000000000000000000000001')],
  ['numeric(18,0)', ...same('-999999999999999999', '0')],
  ['decimal(9,2)', ...same('-1234567.89', '0.05', '-0.05')],
  ['money', ...same('-922337203685477.5808', '922337203685477.5807', '0.0001', '-0.0001'), ['5', '5.0000']],
  ['smallmoney', ...same('-214748.3648', '214748.3647')],
  [
    'real',
    ['0.1', '0.1'],
    ['16777217', '1.6777216e+07'],
    ['3.4028235E38', '3.4028235e+38'],
    ['1E-45', '1e-45'],
    ['123456', '123456'],
  ],
  [
    'float',
    ['0.1E0', '0.1'],
    ['1.7976931348623157E308', '1.7976931348623157e+308'],
    ['5E-324', '5e-324'],
    ['123456789012345.0E0', '123456789012345'],
    ['1E15', '1e+15'],
    ['-1E-5', '-1e-05'],
  ],
  ['date', ...same('0001-01-01', '9999-12-31', '2000-02-29', '1900-03-01')],
  ['time(0)', ...same('23:59:59', '00:00:00')],
  ['time(3)', ...same('12:34:56.007'), ["'00:00:00.100'", '00:00:00.1']],
  ['time(6)', ...same('23:59:59.999999')],
  ['smalldatetime', ...same('1900-01-01 00:00:00', '2079-06-06 23:59:00')],
  ['datetime', ...same('1753-01-01 00:00:00', '9999-12-31 23:59:59.997', '2024-02-29 12:00:00.003')],
  ['datetime2(0)', ...same('0001-01-01 00:00:00', '9999-12-31 23:59:59')],
  ['datetime2(6)', ...same('9999-12-31 23:59:59.999999', '2024-03-31 02:30:00.000001')],
  [
    'datetimeoffset(6)',
    ["'2024-01-01 00:30:00.5 +05:30'", '2024-01-01 00:30:00.5+05:30'],
    ["'2024-01-01 00:30:00 +00:00'", '2024-01-01 00:30:00+00'],
    ["'2024-12-31 23:59:59.999999 -14:00'", '2024-12-31 23:59:59.999999-14'],
    ["'2024-01-01 00:00:00 +14:00'", '2024-01-01 00:00:00+14'],
  ],
  ['char(5)', ["'ab'", 'ab   '], ["''", '     ']],
  ['varchar(20)', ["''", ''], ["'NULL'", 'NULL'], ["'a\tb\\'", 'a\tb\\'], [text('é€'), 'é€']],
  ['varchar(max)', ["REPLICATE(CAST('x' AS varchar(max)), 100000)", 'x'.repeat(100_000)]],
  ['nchar(4)', [text('é😀'), 'é😀 ']],
  [
    'nvarchar(50)',
    [text(`a'"\r\n\t\\N`), `a'"\r\n\t\\N`],
    [text('e\u0301 😀 中 \u200b'), 'e\u0301 😀 中 \u200b'],
    [text('a  '), 'a  '],
  ],
  ['nvarchar(max)', ["REPLICATE(CAST(N'ж' AS nvarchar(max)), 100000)", 'ж'.repeat(100_000)], ["N''", '']],
  ['text', ["'plain'", 'plain']],
  ['ntext', [text('чай'), 'чай']],
  ['binary(4)', ['0x01', bytes(1, 0, 0, 0)]],
  ['varbinary(10)', ['0x', bytes()], ['0x00FF80', bytes(0, 255, 128)]],
  [
    'varbinary(max)',
    ['CAST(REPLICATE(CAST(0x41 AS varchar(max)), 70000) AS varbinary(max))', Buffer.alloc(70_000, 65)],
  ],
  ['image', ['CAST(0x00FF AS varbinary(10))', bytes(0, 255)]],
  [
    'uniqueidentifier',
    ["'01234567-89AB-CDEF-0123-456789ABCDEF'", '01234567-89ab-cdef-0123-456789abcdef'],
    ["'00000000-0000-0000-0000-0000000000FF'", '00000000-0000-0000-0000-0000000000ff'],
  ],
  ['xml', ['\'<a b="1">x</a>\'', '<a b="1">x</a>']],
];

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

  for (const [type, ...values] of CASES) {
    it(`F30 F31 F32 F33 F34: ${type}`, async () => {
      const inserts = values.map(([sql], i) => `INSERT INTO v VALUES (${i}, ${sql});`);
      await database.query(
        `DROP TABLE IF EXISTS v; CREATE TABLE v (i int NOT NULL, v ${type} NULL);
         ${inserts.join(' ')} INSERT INTO v VALUES (${values.length}, NULL)`,
      );
      const { cells } = await read(`SELECT ${selectExpression(type, 'v')} AS v FROM v ORDER BY i`);
      const wanted = values.map(([, cell]) => (cell instanceof Uint8Array ? Uint8Array.from(cell) : cell));
      expect(cells).to.deep.equal([...wanted, null]);
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
