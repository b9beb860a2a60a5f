import { expect } from 'chai';
import type { EngineDatabase } from '../../../src/engines/contract.ts';
import { engineOf } from '../../../src/engines/registry.ts';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../../support/mysql.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';

const COLUMNS = [
  ['id', 'int NOT NULL', 'integer NOT NULL'],
  ['i', 'bigint unsigned', 'numeric(20)'],
  ['d', 'decimal(12,3)', 'numeric(12,3)'],
  ['f', 'float', 'real'],
  ['g', 'double', 'double precision'],
  ['b', 'bit(1)', 'boolean'],
  ['t', 'varchar(50)', 'varchar(50)'],
  ['y', 'varbinary(20)', 'bytea'],
  ['day', 'date', 'date'],
  ['at', 'datetime(6)', 'timestamp'],
  ['z', 'timestamp(6) NULL', 'timestamptz'],
] as const;

/** As MariaDB reads them; bytes and booleans are written otherwise for PostgreSQL. */
const ROWS = [
  "1, 18446744073709551615, -1.500, 0.1, 1e20, b'1', 'it''s, 😀', X'00FF5C', '2020-02-29', '2020-01-01 00:00:00.5', '2020-01-01 12:00:00.25'",
  "2, 0, 0.001, 16777216, -1.5e-7, b'0', '', X'', '1000-01-01', '9999-12-31 23:59:59.999999', '1999-12-31 23:59:59'",
  '3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL',
  "4, 42, 12.000, 1e30, 123456.789, b'1', 'back\\slash', X'4E', '2024-12-31', '2000-01-01 00:00:00', '2000-01-01 00:00:00'",
];

const forPostgres = (row: string) =>
  row.replace(/X'([0-9A-F]*)'/g, "'\\x$1'::bytea").replace(/b'([01])'/g, "'$1'::boolean");

describe('MySQL checksums', () => {
  let mysql: MysqlTestDatabase;
  let postgres: TestDatabase;
  const handles: EngineDatabase[] = [];
  before(async function () {
    mysql = await createMysqlDatabase(await requireMysql(this));
    postgres = await createDatabase();
    await postgres.query("SET timezone = 'UTC'");
    await mysql.query(`CREATE TABLE t (${COLUMNS.map(([name, my]) => `${name} ${my}`).join(', ')}, PRIMARY KEY (id))`);
    await postgres.query(
      `CREATE TABLE t (${COLUMNS.map(([name, , pg]) => `${name} ${pg}`).join(', ')}, PRIMARY KEY (id))`,
    );
    for (const row of ROWS) {
      await mysql.query(`INSERT INTO t VALUES (${row})`);
      await postgres.query(`INSERT INTO t VALUES (${forPostgres(row)})`);
    }
    for (const url of [mysql.url, postgres.url])
      handles.push(
        engineOf(url).open({
          connectionString: url,
          database: null,
          installation: { uid: 'test' },
          applicationName: 'sluice tests',
        }),
      );
  });
  after(async () => {
    await Promise.all(handles.map((handle) => handle.close()));
    await mysql?.drop();
    await postgres?.drop();
  });

  it('are equal to PostgreSQL’s for equal values, column by column and as blocks', async () => {
    const sums = (columns: readonly string[]) =>
      Promise.all(
        handles.map(async (handle, i) =>
          (
            await handle.checksum?.recent({
              table: { schema: i === 0 ? '' : 'public', table: 't' },
              columns,
              key: ['id'],
              limit: 100,
              blockRows: 2,
            })
          )?.map(({ md5, rows, first, last }) => [md5, rows, first.map(String), last.map(String)]),
        ),
      );
    for (const [name] of COLUMNS) {
      const [left, right] = await sums([name]);
      expect(left, name).to.deep.equal(right);
      expect(left?.length).to.equal(2);
    }
    const [left, right] = await sums(COLUMNS.map(([name]) => name));
    expect(left).to.deep.equal(right);
  });

  it('F61: of ranges and keys find the same rows on both sides', async () => {
    for (const [i, handle] of handles.entries()) {
      const request = {
        table: { schema: i === 0 ? '' : 'public', table: 't' },
        columns: ['t'],
        key: ['id'],
        limit: 10,
        blockRows: 10,
      };
      const range = (await handle.checksum?.rows({ ...request, from: ['2'], to: ['3'] })) ?? [];
      expect(range.map((row) => row.key.map(String))).to.deep.equal([['2'], ['3']]);
      const some = (await handle.checksum?.rowsByKey(request, [['4'], ['99'], ['1']])) ?? [];
      expect(some.map((row) => row.key.map(String))).to.deep.equal([['1'], ['4']]);
      const below = (await handle.checksum?.recent({ ...request, below: ['2'] })) ?? [];
      expect(below.map((block) => block.rows)).to.deep.equal([2]);
    }
  });
});
