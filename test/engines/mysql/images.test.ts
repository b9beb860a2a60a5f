/** Rows of the binary log that go into a table from where they lie in what was read; and rows that take the place of others there. */
import { expect } from 'chai';
import type { Connection, Session } from '../../../src/engines/mysql/connection.ts';
import type { ApplyCounts } from '../../../src/engines/contract.ts';
import type { KeyedChanges } from '../../../src/model/keyed-changes.ts';
import { SluiceError } from '../../../src/model/errors.ts';
import { createMysqlDatabase, requireMysql, requireMysqlItself, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect } from '../../support/mysql-servers.ts';
import { asTheyCame, openReplay, type Replay } from './replay.ts';
import { Stream } from './stream.ts';
import { casesFor, valueTable } from './values.ts';

/** Decimals by their digits: full and broken groups of nine on both sides of the point, and none. */
const DECIMALS = [
  [1, 0],
  [2, 2],
  [5, 2],
  [9, 0],
  [9, 9],
  [10, 1],
  [10, 9],
  [14, 2],
  [18, 9],
  [19, 10],
  [38, 0],
  [38, 10],
  [65, 30],
] as const;

function decimals(precision: number, scale: number): string[] {
  const shift = (digits: string) => {
    const all = digits.padStart(scale + 1, '0');
    return scale === 0 ? all : `${all.slice(0, -scale)}.${all.slice(-scale)}`;
  };
  const most = '9'.repeat(precision);
  const mixed = '1020304050607080900102030405060708090010203040506070809001020304050'.slice(0, precision);
  return ['0', '1', most, mixed, `1${'0'.repeat(precision - 1)}`].flatMap((digits) => [
    shift(digits),
    `-${shift(digits)}`,
  ]);
}

for (const { name, require } of [
  { name: 'MariaDB', require: requireMysql },
  { name: 'MySQL', require: requireMysqlItself },
])
  describe(`${name}: rows that are loaded as they came`, () => {
    let database: MysqlTestDatabase;
    let stream: Stream;
    let connection: Connection;
    let session: Session;
    let rows: Replay;
    before(async function () {
      database = await createMysqlDatabase(await require(this));
      stream = new Stream(database.url);
      connection = connect(database.url, database.name);
    });
    beforeEach(async () => {
      ({ session, rows } = await openReplay(database, stream, connection));
    });
    afterEach(() => connection.release(session));
    after(async () => {
      await connection?.close();
      await stream?.close();
      await database?.drop();
    });

    const rowsOf = (table: string) => rows.of(table);
    const expectSame = (left: string, right: string) => rows.expectSame(left, right);
    const replay = (
      source: string,
      target: string,
      statements: readonly string[],
      count: number,
      how?: (changes: KeyedChanges) => KeyedChanges,
    ): Promise<ApplyCounts> => rows.replay(source, target, statements, count, how);

    it('F30 F31 F32 F33 F34: every type, new rows and changed ones', async () => {
      const { isMariaDb } = database.server;
      // A decimal within a document of MySQL is printed like a double, and read back as one, whichever way it goes.
      const cases = casesFor(isMariaDb).filter(({ type }) => isMariaDb || type !== 'json');
      const made = valueTable(cases, 'all_values');
      await database.query(made.create);
      await database.query('CREATE TABLE all_copied LIKE all_values');
      const count = made.rows.length;
      expect(await replay('all_values', 'all_copied', [made.insert], count, asTheyCame)).to.deep.equal({
        inserted: count,
        updated: 0,
        deleted: 0,
      });
      await expectSame('all_copied', 'all_values');
      const moved = ['UPDATE all_values SET id = id + 100'];
      await replay('all_values', 'all_copied', moved, count, asTheyCame);
      await expectSame('all_copied', 'all_values');
    });

    it('F30 F31 F32: numbers of every width, times of every fraction, text of every length', async () => {
      const columns = [
        'id bigint NOT NULL PRIMARY KEY',
        'u bigint unsigned NULL',
        ...DECIMALS.map(([precision, scale], i) => `d${i} decimal(${precision},${scale}) NULL`),
        ...[0, 1, 2, 3, 4, 5, 6].map((fraction) => `t${fraction} datetime(${fraction}) NULL`),
        'day date NULL',
        'v varchar(63) NULL',
        'w varchar(5000) NULL',
        'c char(255) NULL',
        'x longtext NULL',
      ];
      await database.query(`CREATE TABLE widths (${columns.join(', ')}) DEFAULT CHARACTER SET utf8mb4`);
      await database.query('CREATE TABLE widths_copied LIKE widths');
      const ids = [
        '-9223372036854775808',
        '-9007199254740993',
        '-1',
        '0',
        '9007199254740993',
        '9223372036854775807',
        '7',
      ];
      const unsigned = ['0', '1', '4294967296', '9007199254740992', '9007199254740993', '18446744073709551615', null];
      const times = [
        '0000-00-00 00:00:00',
        '1000-01-01 00:00:00.5',
        '2024-02-29 23:59:59.999999',
        '9999-12-31 00:00:00',
      ];
      const texts = ['', 'tab\tline\nback\\slash\0end', '\\N', 'é😀漢', 'x'.repeat(60), '\\', null];
      const literal = (text: string | null | undefined) =>
        text === null || text === undefined
          ? 'NULL'
          : `CONVERT(UNHEX('${Buffer.from(text).toString('hex')}') USING utf8mb4)`;
      const values = Array.from({ length: 10 }, (_, row) => {
        const time = times[row % times.length] ?? '';
        const text = texts[row % texts.length];
        const long = text === null || text === undefined ? null : text.repeat(30);
        return [
          ids[row] ?? String(1_000_000_000 + row),
          unsigned[row % unsigned.length] ?? 'NULL',
          ...DECIMALS.map(([precision, scale]) => decimals(precision, scale)[row] ?? 'NULL'),
          ...[0, 1, 2, 3, 4, 5, 6].map((fraction) => `'${time.slice(0, fraction === 0 ? 19 : 20 + fraction)}'`),
          `'${time.slice(0, 10)}'`,
          literal(text),
          literal(long?.repeat(2)),
          literal(long?.slice(0, 200)),
          literal(long?.repeat(10)),
        ].join(', ');
      });
      const insert = `INSERT INTO widths VALUES (${values.join('), (')})`;
      await replay('widths', 'widths_copied', [insert], values.length, asTheyCame);
      const wanted = await rowsOf('widths');
      expect(wanted.length).to.equal(values.length);
      expect(await rowsOf('widths_copied')).to.deep.equal(wanted);
    });

    it('F33: values larger than a packet of the protocol, with what is escaped and without', async () => {
      await database.query('CREATE TABLE large (id int PRIMARY KEY, t longtext, b longblob)');
      await database.query('CREATE TABLE large_copied LIKE large');
      const insert = `INSERT INTO large VALUES (1, REPEAT('a\tb', 6000000), NULL), (2, REPEAT(CHAR(92), 100000), REPEAT(UNHEX('00ff0a5c'), 100000)), (3, '', '')`;
      await replay('large', 'large_copied', [insert], 3, asTheyCame);
      await replay('large', 'large_copied', [`UPDATE large SET b = 'x' WHERE id < 3`], 2, asTheyCame);
      const sums = (table: string) =>
        database.query(`SELECT id, LENGTH(t) AS n, SHA2(t, 256) AS t, SHA2(b, 256) AS b FROM ${table} ORDER BY id`);
      const wanted = await sums('large');
      expect(wanted.map((row) => row['n'])).to.deep.equal(['18000000', '100000', '0']);
      expect(await sums('large_copied')).to.deep.equal(wanted);
    });

    it('F21: whole rows take the place of those under their key, new ones are added; deletes go first', async () => {
      await database.query('CREATE TABLE plain (id int PRIMARY KEY, v varchar(20))');
      await database.query('CREATE TABLE plain_copied LIKE plain');
      await replay('plain', 'plain_copied', [`INSERT INTO plain VALUES (1, 'a'), (2, 'b'), (3, 'c')`], 3);
      const counts = await replay(
        'plain',
        'plain_copied',
        [
          'DELETE FROM plain WHERE id = 1',
          `UPDATE plain SET v = 'changed' WHERE id = 2`,
          'UPDATE plain SET id = 1 WHERE id = 3',
          `INSERT INTO plain VALUES (4, 'd')`,
        ],
        4,
        asTheyCame,
      );
      expect(counts).to.deep.equal({ inserted: 1, updated: 2, deleted: 1 });
      expect(await rowsOf('plain_copied')).to.deep.equal([
        ['1', 'c'],
        ['2', 'changed'],
        ['4', 'd'],
      ]);
    });

    it('F24: no row goes because of another unique index, and what a row holds besides stays', async () => {
      await database.query('CREATE TABLE other (id int PRIMARY KEY, v varchar(20))');
      await database.query('CREATE TABLE other_unique (id int PRIMARY KEY, v varchar(20), UNIQUE KEY (v))');
      await database.query(
        `CREATE TABLE other_more (id int PRIMARY KEY, v varchar(20), mine varchar(20) DEFAULT 'default')`,
      );
      const insert = [`INSERT INTO other VALUES (1, 'a')`];
      await replay('other', 'other_unique', insert, 1);
      await database.query('DELETE FROM other');
      await replay('other', 'other_more', insert, 1);
      await database.query(`INSERT INTO other_unique VALUES (9, 'theirs')`);
      await database.query(`UPDATE other_more SET mine = 'kept'`);
      const refused: unknown = await replay('other', 'other_unique', [`UPDATE other SET v = 'theirs'`], 1).catch(
        (error: unknown) => error,
      );
      expect(refused instanceof SluiceError && refused.code).to.equal('ROW_REFUSED');
      expect(await rowsOf('other_unique')).to.deep.equal([
        ['1', 'a'],
        ['9', 'theirs'],
      ]);
      await replay('other', 'other_more', [`UPDATE other SET v = 'b'`], 1);
      expect(await rowsOf('other_more')).to.deep.equal([['1', 'b', 'kept']]);
    });

    it('F45: rows of other tables that refer to a row stay when it changes', async () => {
      await database.query('CREATE TABLE parents (id int PRIMARY KEY, v varchar(20))');
      await database.query('CREATE TABLE parents_copied LIKE parents');
      await database.query(
        'CREATE TABLE children (id int PRIMARY KEY, parent int, FOREIGN KEY (parent) REFERENCES parents_copied (id) ON DELETE CASCADE)',
      );
      await replay('parents', 'parents_copied', [`INSERT INTO parents VALUES (1, 'a')`], 1);
      await database.query('INSERT INTO children VALUES (1, 1)');
      const other = await createMysqlDatabase(database.server, 'other');
      try {
        await other.query(
          `CREATE TABLE children (id int PRIMARY KEY, parent int, FOREIGN KEY (parent) REFERENCES ${database.name}.parents_copied (id) ON DELETE CASCADE)`,
        );
        await other.query('INSERT INTO children VALUES (1, 1)');
        await replay('parents', 'parents_copied', [`UPDATE parents SET v = 'b'`], 1);
        expect(await rowsOf('parents_copied')).to.deep.equal([['1', 'b']]);
        expect(await rowsOf('children')).to.deep.equal([['1', '1']]);
        expect(await other.query('SELECT id FROM children')).to.have.length(1);
      } finally {
        await other.drop();
      }
    });

    it('F36: a value that the table does not hold is refused, and nothing of the others is in', async () => {
      await database.query('CREATE TABLE wide (id int PRIMARY KEY, v varchar(20))');
      await database.query('CREATE TABLE narrow (id int PRIMARY KEY, v varchar(3) NOT NULL)');
      for (const bad of [`'too long'`, 'NULL']) {
        const insert = [`INSERT INTO wide VALUES (1, 'a'), (2, ${bad})`];
        const refused: unknown = await replay('wide', 'narrow', insert, 2).catch((error: unknown) => error);
        expect(refused instanceof SluiceError && refused.code).to.equal('ROW_REFUSED');
        expect(await rowsOf('narrow')).to.deep.equal([]);
        await database.query('DELETE FROM wide');
      }
    });
  });
