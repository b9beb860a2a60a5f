import { expect } from 'chai';
import type { CapturedColumn } from '../../../src/engines/sqlserver/capture-instances.ts';
import { CapturedRows } from '../../../src/engines/sqlserver/captured-rows.ts';
import type { Session } from '../../../src/engines/sqlserver/connection.ts';
import { loadImages, loadTarget } from '../../../src/engines/sqlserver/loader.ts';
import { readRows } from '../../../src/engines/sqlserver/rows.ts';
import type { BulkColumn } from '../../../src/engines/sqlserver/tds/bulk-columns.ts';
import { RefusedCell, RowEncoder } from '../../../src/engines/sqlserver/tds/bulk-rows.ts';
import { partsOf } from '../../../src/engines/sqlserver/tds/read-columns.ts';
import type { RowRests } from '../../../src/engines/sqlserver/tds/row-rests.ts';
import { selectExpression } from '../../../src/engines/sqlserver/types.ts';
import type { Cell, ChangeCell } from '../../../src/model/changes.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';
import { SERVER_VALUES, sqlOf } from './values.ts';

/** Types that a stand-in has, with values that it holds. */
const CASES = SERVER_VALUES.filter(({ sqlServerOnly }) => sqlServerOnly !== true).flatMap(({ type, values }) => {
  const held = values.filter(({ beyond }) => beyond !== 'hold');
  return held.length > 0 ? [{ type, values: held }] : [];
});
/** Without its collation. */
const native = (type: string) => type.replace(/ COLLATE .*/, '');

const column = (name: string, some: Partial<CapturedColumn> = {}): CapturedColumn => ({
  name,
  column: name,
  nativeType: 'int',
  ordinal: 1,
  isLarge: false,
  isKey: false,
  ...some,
});

/** What a bulk load is sent for a row, or why it is not. Parts may be cut in other places. */
function sent(to: BulkColumn, add: (encoder: RowEncoder) => void): string {
  const encoder = new RowEncoder([to]);
  try {
    add(encoder);
  } catch (error) {
    if (error instanceof RefusedCell) return `refused: ${error.message}`;
    throw error;
  }
  const bytes = Buffer.concat(encoder.out.take(true));
  if (to.null.length !== 8 || bytes.equals(Buffer.concat([Buffer.from([0xd1]), to.null]))) return bytes.toString('hex');
  const parts: Buffer[] = [];
  const end = 1 + partsOf(bytes, 1);
  for (let at = 9; at < end; at += 4 + bytes.readUInt32LE(at))
    parts.push(bytes.subarray(at + 4, at + 4 + bytes.readUInt32LE(at)));
  return `${bytes.toString('hex', 0, 9)} ${Buffer.concat(parts).toString('hex')} ${bytes.toString('hex', end)}`;
}

describe('rows of change tables as they came', () => {
  let database: SqlServerTestDatabase;
  let session: Session;
  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this), 'captured');
    session = await database.connection.open();
  });
  after(async () => {
    if (session) await database.connection.release(session);
    await database?.drop();
  });

  const cellsOf = async (sql: string) => {
    const cells: Cell[] = [];
    for await (const batch of readRows(session, 'read', sql)) cells.push(...batch.cells);
    return cells;
  };
  const restsOf = async (sql: string, batchBytes = 256 * 1024) => {
    const rests: RowRests[] = [];
    const leading: Cell[] = [];
    for await (const batch of readRows(session, 'read', sql, { leading: 1, batchBytes })) {
      if (batch.rests) rests.push(batch.rests);
      leading.push(...batch.cells);
    }
    return { rests, leading };
  };
  const captured = (columns: readonly CapturedColumn[], rests: readonly RowRests[]) => {
    const rows = new CapturedRows(columns);
    for (const batch of rests) for (let i = 0; i < batch.starts.length; i++) rows.pushNew(batch, i);
    return rows;
  };
  /** A row's line without its escapes. */
  const lineOf = (rows: CapturedRows, row: number, columns: readonly number[] = [0]): string | null => {
    const out = Buffer.alloc(rows.mostLine(row, columns));
    const end = rows.line(row, columns, out, 0);
    if (end < 0) return 'by its cells';
    const line = out.toString('utf8', 0, end);
    const letters: Readonly<Record<string, string>> = { t: '\t', n: '\n', r: '\r', '0': '\0' };
    return line === '\\N' ? null : line.replace(/\\(.)/gs, (_, letter: string) => letters[letter] ?? letter);
  };
  const appended = (rows: CapturedRows, row: number) => {
    const cells: ChangeCell[] = [];
    rows.append(row, cells);
    return cells;
  };

  it('F30 F31 F32 F33 F34: every value has the cell it has when it is read at once, and is sent to every type as that cell would be', async () => {
    const names = CASES.map((_, i) => `v${i}`);
    await session.run('make a table', [
      `CREATE TABLE #all (${CASES.map(({ type }, i) => `v${i} ${type} NULL`).join(', ')})`,
    ]);
    const { columns } = await loadTarget(
      session,
      '#all',
      names.map((name) => ({ name })),
    );
    let same = 0;
    for (const { type, values } of CASES) {
      const inserts = values.map((value, i) => `INSERT INTO #one VALUES (${i}, ${sqlOf(type, value)})`);
      await session.run('fill a table', [
        'DROP TABLE IF EXISTS #one',
        `CREATE TABLE #one (i int NOT NULL, v ${type} NULL)`,
        ...inserts,
        `INSERT INTO #one VALUES (${values.length}, NULL)`,
      ]);
      const select = `${selectExpression(native(type), 'v')} AS v`;
      const cells = await cellsOf(`SELECT ${select} FROM #one ORDER BY i`);
      const { rests, leading } = await restsOf(`SELECT i, ${select} FROM #one ORDER BY i`);
      expect(leading).to.deep.equal(cells.map((_, i) => String(i)));
      const rows = captured([column('v')], rests);
      for (const [row, cell] of cells.entries()) {
        expect(appended(rows, row), type).to.deep.equal([cell]);
        expect(rows.cell(row, 0), type).to.deep.equal(cell);
        const isLine = cell === null || (typeof cell === 'string' && cell.length < 1000);
        expect(lineOf(rows, row), type).to.be.oneOf(isLine ? [cell] : [cell, 'by its cells']);
        for (const [i, to] of columns.entries()) {
          const asCell = sent(to, (encoder) => encoder.add({ columns: ['v'], rows: 1, cells: [cell] }, 0, 1));
          const asItCame = sent(to, (encoder) => encoder.addRest(rows.batchOf(row), rows.indexOf(row), [0], null));
          expect(asItCame, `${type} row ${row} into ${CASES[i]?.type}`).to.equal(asCell);
          same++;
        }
      }
    }
    expect(same).to.be.greaterThan(5000);
  });

  it('F32: text as a line: every character, escaped where it would end a field; half a pair goes by its cell', async () => {
    const text = Array.from({ length: 0x500 }, (_, i) => String.fromCharCode(i + 1)).join('') + '€\uffff😀\u{10ffff}é';
    await session.run('fill a table', [
      'DROP TABLE IF EXISTS #text',
      'CREATE TABLE #text (t nvarchar(4000), u nvarchar(max), n decimal(9,3), d datetime2(3))',
    ]);
    await session.run('fill', ["INSERT INTO #text VALUES (@text, @text, -0.005, '2024-01-02T03:04:05.060')"], { text });
    const { rests } = await restsOf('SELECT 1 AS i, t, u, n, d FROM #text');
    const [batch] = rests;
    if (!batch) throw new Error('no rows');
    const rows = captured(
      ['t', 'u', 'n', 'd'].map((name) => column(name)),
      rests,
    );
    expect(lineOf(rows, 0, [0])).to.equal(text);
    const out = Buffer.alloc(rows.mostLine(0, [0, 2, 3]));
    expect(out.toString('utf8', 0, rows.line(0, [3, 2], out, 0))).to.equal('2024-01-02 03:04:05.06\t-0.005');
    // A stand-in holds no half pair: of a whole one the second half is made a first one, in place.
    const at = batch.buffers[0]?.indexOf(Buffer.from('😀', 'utf16le')) ?? -1;
    batch.buffers[0]?.writeUInt16LE(0xd83d, at + 2);
    expect(rows.line(0, [0], out, 0)).to.equal(-1);
  });

  it('F36: a refused value among rows that are being sent ends the load, not the session or its transaction', async () => {
    const digits = '(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS';
    const { rests } = await restsOf(
      `SELECT 1 AS i, CASE WHEN a.d = 7 AND b.d = 7 AND c.d = 9 THEN N'Ж' ELSE N'plain' END AS t, NEWID() AS g FROM ${digits} a(d) CROSS JOIN ${digits} b(d) CROSS JOIN ${digits} c(d) ORDER BY c.d, b.d, a.d`,
    );
    const rows = captured([column('t'), column('g')], rests);
    await session.run('make tables', [
      'CREATE TABLE #rows (n int, g uniqueidentifier NULL, t varchar(8) COLLATE Latin1_General_CI_AS NULL, v int NULL)',
      'CREATE TABLE #kept (n int)',
      'BEGIN TRANSACTION',
      'INSERT INTO #kept VALUES (1)',
    ]);
    const target = await loadTarget(
      session,
      '#rows',
      ['n', 'g', 't'].map((name) => ({ name })),
    );
    const images = {
      relation: { name: { schema: 'dbo', table: 't' }, id: '1', columns: ['t', 'g'], columnTypes: ['', ''] },
      columns: [1, 0],
      images: Array.from({ length: rows.count }, () => rows),
      rows: Array.from({ length: rows.count }, (_, i) => i),
    };
    const load = (end: number) => loadImages(session, target, { images, first: 0, end, isNumbered: true });
    const failure = await load(1000).then(
      () => null,
      (error: { code?: string; message: string }) => error,
    );
    expect(failure).to.include({ code: 'ROW_REFUSED' });
    expect(failure?.message).to.include('column t');
    expect(session.lost).to.equal(null);
    expect(await session.query('look', 'SELECT COUNT(*) AS n FROM #kept')).to.deep.equal([{ n: 1 }]);
    // The rows before it were sent, as said; who loads undoes them.
    await session.run('empty', ['TRUNCATE TABLE #rows']);
    expect(await load(970)).to.equal(970);
    expect(await session.query('look', 'SELECT COUNT(*) AS n, COUNT(g) AS g, MAX(t) AS t FROM #rows')).to.deep.equal([
      { n: 970, g: 970, t: 'plain' },
    ]);
    await session.run('commit', ['COMMIT TRANSACTION']);
  });

  it('F33: rows cut by packets and batches anywhere, large values among them', async () => {
    const digits = '(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS';
    const sql = `SELECT a.d + 10 * b.d + 100 * c.d AS i, CAST(NULL AS int) AS n, REPLICATE(CAST(N'ß' AS nvarchar(max)), 7 * (a.d + 10 * b.d) * (a.d + 10 * b.d)) AS t,
        CAST(a.d AS bigint) AS k FROM ${digits} a(d) CROSS JOIN ${digits} b(d) CROSS JOIN ${digits} c(d) ORDER BY i`;
    const { rests } = await restsOf(sql, 100_000);
    expect(rests.length).to.be.greaterThan(10);
    const rows = captured([column('n'), column('t', { isLarge: true }), column('k')], rests);
    expect(rows.count).to.equal(1000);
    for (let i = 0; i < 1000; i++)
      expect(appended(rows, i)).to.deep.equal([null, 'ß'.repeat(7 * (i % 100) ** 2), String(i % 10)]);
    expect(rows.integer(999, 2)).to.equal(9);
  });

  it('a key is the integer that its text is, of at most nine digits, else nothing', async () => {
    const { rests } = await restsOf(
      `SELECT 1 AS i, CAST(-999999999 AS bigint) AS a, CAST(1000000000 AS int) AS b, CAST(255 AS tinyint) AS c, CAST(-7 AS smallint) AS d, N'5' AS e, CAST(NULL AS int) AS f, CAST(9007199254740993 AS bigint) AS g`,
    );
    const rows = captured(
      ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((name) => column(name)),
      rests,
    );
    const integers = [0, 1, 2, 3, 4, 5, 6].map((at) => rows.integer(0, at));
    expect(integers).to.deep.equal([-999999999, null, 255, -7, null, null, null]);
  });

  it('F22: a large value that is NULL and did not change is absent, of a row that went only the key is told', async () => {
    const columns = [
      column('k', { isKey: true, ordinal: 1 }),
      column('t', { isLarge: true, ordinal: 2 }),
      column('v', { ordinal: 3 }),
    ];
    const { rests } = await restsOf(`SELECT 0 AS i, 1 AS k, CAST(NULL AS nvarchar(max)) AS t, CAST(NULL AS int) AS v`);
    const [batch] = rests;
    if (!batch) throw new Error('no rows');
    const rows = new CapturedRows(columns);
    // The mask's last byte has the first columns, the first of them in its lowest bit.
    rows.pushUpdated(batch, 0, '\x04');
    rows.pushUpdated(batch, 0, '\x06');
    rows.pushUpdated(batch, 0, null);
    rows.pushOld(batch, 0);
    expect([0, 1, 2, 3].map((row) => appended(rows, row))).to.deep.equal([
      ['1', undefined, null],
      ['1', null, null],
      ['1', null, null],
      ['1', undefined, undefined],
    ]);
    expect([0, 1, 2, 3].map((row) => rows.isWhole(row))).to.deep.equal([false, true, true, false]);
    rows.cut(0);
    rows.pushNew(batch, 0);
    expect(appended(rows, 0)).to.deep.equal(['1', null, null]);
  });
});
