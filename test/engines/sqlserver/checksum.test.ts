import { expect } from 'chai';
import { engineOf } from '../../../src/engines/registry.ts';
import type { Checksummer, EngineDatabase } from '../../../src/engines/contract.ts';
import type { Cell } from '../../../src/model/changes.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';

/** A type here, the one that holds the same values in PostgreSQL, and literals that both understand. */
const TYPES: [sqlserver: string, postgres: string, ...literals: string[]][] = [
  ['bit', 'boolean', "'1'", "'0'"],
  ['bigint', 'bigint', '-9223372036854775808', '42'],
  ['decimal(20,5)', 'numeric(20,5)', '-0.00001', '123456789012345.5'],
  ['money', 'numeric(19,4)', '-922337203685477.5808', '1.5'],
  ['real', 'real', '0.1', '16777216'],
  ['float', 'double precision', '-0.1E0', '1E300'],
  ['date', 'date', "'0001-01-01'", "'9999-12-31'"],
  ['time(6)', 'time', "'12:34:56.100'", "'00:00:00'"],
  ['datetime', 'timestamp(3)', "'2024-02-29 12:00:00.010'", "'1753-01-01 00:00:00'"],
  ['datetime2(6)', 'timestamp', "'2024-02-29 12:00:00.000001'", "'0001-01-01 00:00:00'"],
  ['datetimeoffset(6)', 'timestamptz', "'2024-02-29 12:00:00.5 +00:00'", "'1999-12-31 23:59:59 +00:00'"],
  ['nvarchar(50)', 'text', `N'it''s \\ é 😀'`, "N''"],
  ['varchar(50)', 'varchar(50)', "N'€ , ;'", "'x'"],
  ['char(5)', 'char(5)', "'ab'", "''"],
  ['uniqueidentifier', 'uuid', "'01234567-89AB-CDEF-0123-456789ABCDEF'", "'00000000-0000-0000-0000-000000000001'"],
];
const BYTES = ['00ff5c27', ''];

describe('SQL Server checksums', () => {
  let ours: SqlServerTestDatabase;
  let theirs: TestDatabase;
  const handles: EngineDatabase[] = [];
  let here: Checksummer;
  let there: Checksummer;

  before(async function () {
    ours = await createSqlServerDatabase(await requireSqlServer(this), 'sums');
    theirs = await createDatabase('sums');
    here = checksummer(ours.url);
    there = checksummer(theirs.url);
  });
  after(async () => {
    await Promise.all(handles.map((handle) => handle.close()));
    await ours?.drop();
    await theirs?.drop();
  });

  const checksummer = (url: string): Checksummer => {
    const handle = engineOf(url).open({
      connectionString: url,
      database: null,
      installation: { uid: 'sums' },
      applicationName: 'sums',
    });
    handles.push(handle);
    if (!handle.checksum) throw new Error('no checksums');
    return handle.checksum;
  };

  it('F61: equal values have the checksums that PostgreSQL computes, whatever their types', async () => {
    const columns = TYPES.map((_, i) => `c${i}`);
    const declare = (side: 0 | 1) => TYPES.map((type, i) => `c${i} ${type[side]} NULL`).join(', ');
    const row = (n: number) => TYPES.map((type) => type[2 + n] ?? 'NULL').join(', ');
    const bytes = (n: number) => BYTES[n] ?? null;
    await ours.query(`CREATE TABLE every (id int NOT NULL PRIMARY KEY, ${declare(0)}, b varbinary(max) NULL)`);
    await theirs.query(`CREATE TABLE every (id int NOT NULL PRIMARY KEY, ${declare(1)}, b bytea NULL)`);
    for (const n of [0, 1, 2]) {
      const hex = bytes(n);
      await ours.query(`INSERT INTO every VALUES (${n}, ${row(n)}, ${hex === null ? 'NULL' : `0x${hex}`})`);
      await theirs.query(
        `INSERT INTO every VALUES (${n}, ${row(n).replaceAll("N'", "'")}, ${hex === null ? 'NULL' : `'\\x${hex}'`})`,
      );
    }
    const compare = async (of: readonly string[], what: string) => {
      const request = (schema: string) => ({
        table: { schema, table: 'every' },
        columns: ['id', ...of],
        key: ['id'],
        limit: 10,
        blockRows: 2,
      });
      const [left, right] = await Promise.all([here.recent(request('dbo')), there.recent(request('public'))]);
      expect(left, what).to.deep.equal(right);
      expect(left, what).to.have.length(2);
    };
    // One by one first, so that a difference has a name.
    for (const [i, type] of TYPES.entries()) await compare([`c${i}`], type[0]);
    await compare([...columns, 'b'], 'all');
  });

  it('F25: text and uuid keys come in the order of PostgreSQL’s, and ranges hold the same rows', async () => {
    const texts = ['a', 'B', 'b', 'Z', 'ä', 'é1', 'Я', '中', '-x', '_'];
    const guids = [3, 1, 2].map((n) => `0${n}000000-0000-0000-0000-00000000000${9 - n}`);
    const tables: [string, string, string, string[]][] = [
      ['texts', 'nvarchar(20) COLLATE Latin1_General_BIN2', 'text', texts],
      ['guids', 'uniqueidentifier', 'uuid', guids],
    ];
    for (const [table, native, other, keys] of tables) {
      const values = (prefix: string) => keys.map((key) => `(${prefix}'${key}')`).join(', ');
      await ours.query(`CREATE TABLE ${table} (k ${native} NOT NULL PRIMARY KEY)`);
      await ours.query(`INSERT INTO ${table} VALUES ${values('N')}`);
      await theirs.query(
        `CREATE TABLE ${table} (k ${other} NOT NULL PRIMARY KEY); INSERT INTO ${table} VALUES ${values('')}`,
      );
      const request = (schema: string) => ({
        table: { schema, table },
        columns: ['k'],
        key: ['k'],
        limit: keys.length - 1,
        blockRows: 2,
      });
      const blocks = await here.recent(request('dbo'));
      expect(blocks, table).to.deep.equal(await there.recent(request('public')));
      const [from, to]: readonly Cell[][] = [[...(blocks[0]?.first ?? [])], [...(blocks.at(-1)?.last ?? [])]];
      if (!from || !to) throw new Error('no blocks');
      const range = await here.rows({ ...request('dbo'), from, to });
      expect(range, table).to.deep.equal(await there.rows({ ...request('public'), from, to }));
      expect(range.length, table).to.be.greaterThan(0);
      const asked = [from, to, [table === 'texts' ? 'none' : '99999999-0000-0000-0000-000000000000']];
      const byKey = await here.rowsByKey(request('dbo'), asked);
      expect(byKey.map((row) => String(row.key[0])).sort()).to.deep.equal(
        [...new Set([from, to].map((key) => String(key[0])))].sort(),
      );
    }
  });
});
