/** Bulk loading, by LOAD DATA LOCAL and by INSERT: every value exact, or refused; never adjusted (F30–F36). */
import { expect } from 'chai';
import { describeTables } from '../../../src/engines/mysql/catalog.ts';
import type { Connection, Session } from '../../../src/engines/mysql/connection.ts';
import { loadRows, type LoadOptions } from '../../../src/engines/mysql/load/loader.ts';
import { readColumns, readRows } from '../../../src/engines/mysql/rows.ts';
import { quoteIdentifier } from '../../../src/engines/mysql/sql.ts';
import { BEGIN, openWriter } from '../../../src/engines/mysql/transactions.ts';
import { selectExpression } from '../../../src/engines/mysql/types.ts';
import type { Cell, RowBatch } from '../../../src/model/changes.ts';
import { SluiceError } from '../../../src/model/errors.ts';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect } from '../../support/mysql-servers.ts';
import { casesFor, shown, valueTable } from './values.ts';

for (const way of ['LOAD DATA LOCAL', 'INSERT'] as const)
  describe(`MySQL loader, by ${way}`, () => {
    let database: MysqlTestDatabase;
    let connection: Connection;
    let session: Session;
    before(async function () {
      const server = await requireMysql(this);
      database = await createMysqlDatabase(server);
      connection = connect(database.url, database.name);
    });
    beforeEach(async () => {
      session = await openWriter(connection, { patient: true });
    });
    afterEach(() => connection.release(session));
    after(async () => {
      await connection?.close();
      await database?.drop();
    });

    const described = async (table: string) => {
      const [found] = await describeTables(session, [{ schema: '', table }], database.name);
      if (!found) throw new Error(`${table} is not there`);
      return found;
    };
    /** The driver offers no file to a server that may ask for none. */
    const load = async (table: string, rows: readonly (readonly Cell[])[], options: LoadOptions = {}) => {
      const { columns, name } = await described(table);
      if (way === 'INSERT') session.kind = { ...session.kind, allowsInfile: false };
      await session.run('begin', BEGIN);
      const { rows: loaded } = await loadRows(
        session,
        name,
        columns,
        { format: 'cells', batches: batches(rows) },
        options,
      );
      await session.run('commit', ['COMMIT', 'SET autocommit = 1']);
      return loaded;
    };
    const rowsOf = async (table: string): Promise<Cell[][]> => {
      const { columns } = await described(table);
      const list = columns.map((column) => selectExpression(column.nativeType, quoteIdentifier(column.name)));
      const sql = `SELECT ${list.join(', ')} FROM ${quoteIdentifier(table)} ORDER BY 1`;
      const rows: Cell[][] = [];
      for await (const { cells, rows: count } of readRows(session, 'read rows', sql, readColumns(columns)))
        for (let row = 0; row < count; row++) rows.push(cells.slice(row * columns.length, (row + 1) * columns.length));
      return rows;
    };
    const codeOf = async (work: Promise<unknown>) => {
      const error: unknown = await work.then(
        () => null,
        (thrown: unknown) => thrown,
      );
      await session.run('roll back', ['ROLLBACK', 'SET autocommit = 1']);
      return error instanceof SluiceError ? error.code : error;
    };

    it('F30 F31 F32 F33 F34: every type is written exactly as it was read', async () => {
      const cases = casesFor(database.server.isMariaDb);
      const made = valueTable(cases, 'all_values');
      await database.query(made.create);
      expect(await load('all_values', made.rows)).to.equal(made.rows.length);
      const rows = await rowsOf('all_values');
      expect(rows.length).to.equal(made.rows.length);
      for (const [r, expected] of made.rows.entries())
        for (const [c, cell] of expected.entries()) {
          const type = c === 0 ? 'id' : (cases[c - 1]?.type ?? '');
          expect(shown(rows[r]?.[c]), `row ${r}, ${type}`).to.equal(shown(cell));
        }
    });

    it('F32: text in other character sets, with what delimits and escapes', async () => {
      await database.query(
        `CREATE TABLE texts (id int PRIMARY KEY, u varchar(100), l varchar(100) CHARACTER SET latin1, w varchar(100) CHARACTER SET utf16, e enum('a,b', 'it''s', 'back\\slash'))`,
      );
      const rows: Cell[][] = [
        ['1', 'tab\tline\nreturn\rback\\slash', 'é\\N', '𝄞 \\t', 'a,b'],
        ['2', '\\N', 'NULL', '', "it's"],
        ['3', 'nul\0 and \u001a', 'quo\'te "', 'x\0y', 'back\\slash'],
        ['4', Buffer.from('bytes of é'), null, Buffer.from('😀'), null],
      ];
      await load('texts', rows);
      expect((await rowsOf('texts')).map((row) => row.map(String))).to.deep.equal(rows.map((row) => row.map(String)));
    });

    for (const [what, type, cell] of [
      ['a number out of range', 'tinyint', '128'],
      ['a fraction that is cut', 'decimal(5,1)', '1.25'],
      ['NaN', 'double', 'NaN'],
      ['infinity', 'double', 'Infinity'],
      ['a text that is too long', 'varchar(3)', 'four'],
      ['four bytes in a character set of three', 'varchar(9) CHARACTER SET utf8mb3', '😀'],
      ['what latin1 lacks', 'varchar(9) CHARACTER SET latin1', 'Ω'],
      ['half of a surrogate pair', 'varchar(9)', 'a\ud800'],
      ['no day of the calendar', 'date', '2023-02-30'],
      ['a year before the first', 'datetime', '0044-03-15 00:00:00 BC'],
      ['a time that TIMESTAMP ends before', 'timestamp', '2199-01-01 00:00:00+00'],
      ['an instant with an offset', 'timestamp', '2020-01-01 00:00:00+02'],
      ['more bits than there are', 'bit(4)', '16'],
      ['an unknown label', "enum('a')", 'b'],
      ['too many bytes', 'varbinary(2)', Buffer.from([1, 2, 3])],
    ] as const)
      it(`F36: ${what} is refused`, async () => {
        await database.query('DROP TABLE IF EXISTS narrow');
        await database.query(`CREATE TABLE narrow (id int PRIMARY KEY, v ${type})`);
        expect(
          await codeOf(
            load('narrow', [
              ['1', null],
              ['2', cell],
            ]),
          ),
        ).to.equal('ROW_REFUSED');
        expect(await rowsOf('narrow')).to.deep.equal([]);
      });

    it('F35: NULL never becomes a default; a key that is there refuses the load, or is passed over', async () => {
      await database.query(
        'CREATE TABLE keyed (id int PRIMARY KEY, v int NOT NULL DEFAULT 7, at timestamp NULL DEFAULT CURRENT_TIMESTAMP)',
      );
      expect(await codeOf(load('keyed', [['1', null, null]]))).to.equal('ROW_REFUSED');
      await load('keyed', [['1', '1', null]]);
      expect(await rowsOf('keyed')).to.deep.equal([['1', '1', null]]);
      const more: Cell[][] = [
        ['1', '2', null],
        ['3', '3', null],
      ];
      expect(await codeOf(load('keyed', more))).to.equal('ROW_REFUSED');
      expect(await load('keyed', more, { skipDuplicates: true })).to.equal(2);
      expect(await rowsOf('keyed')).to.deep.equal([
        ['1', '1', null],
        ['3', '3', null],
      ]);
      // A refusal among rows that are passed over is a refusal.
      expect(await codeOf(load('keyed', [...more, ['4', null, null]], { skipDuplicates: true }))).to.equal(
        'ROW_REFUSED',
      );
    });

    it('F08: more rows that are there already than the server has warnings for', async () => {
      await database.query('CREATE TABLE moved (id int PRIMARY KEY)');
      const ids = Array.from({ length: 70_000 }, (_, i) => [String(i)]);
      await load('moved', ids);
      expect(await load('moved', [...ids, ['70000']], { skipDuplicates: true })).to.equal(70_001);
      expect(await database.query('SELECT COUNT(*) AS n FROM moved')).to.deep.equal([{ n: '70001' }]);
      const refused = load('moved', [...ids, ['x']], { skipDuplicates: true });
      expect(await codeOf(refused)).to.equal('ROW_REFUSED');
    });

    it('F41: a source that fails ends the load with its error', async () => {
      await database.query('CREATE TABLE broken (id int PRIMARY KEY)');
      async function* failing(): AsyncGenerator<RowBatch> {
        yield { columns: ['id'], rows: 1, cells: ['1'] };
        throw new SluiceError('COPY_RESTARTED', 'the rows moved');
      }
      const { columns, name } = await described('broken');
      await session.run('begin', BEGIN);
      const loading = loadRows(session, name, columns, { format: 'cells', batches: failing() });
      expect(await codeOf(loading)).to.equal('COPY_RESTARTED');
      expect(await rowsOf('broken')).to.deep.equal([]);
    });
  });

async function* batches(rows: readonly (readonly Cell[])[]): AsyncGenerator<RowBatch> {
  const columns = rows[0]?.map((_, i) => `c${i}`) ?? [];
  for (let at = 0; at < rows.length; at += 7) {
    const part = rows.slice(at, at + 7);
    yield { columns, rows: part.length, cells: part.flat() };
  }
}
