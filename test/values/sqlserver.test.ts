/** The value matrix with SQL Server at either end: one service, one control database, every pair. */
import { expect } from 'chai';
import { USER_TYPE_MATRIX, USER_TYPES, VALUE_MATRIX } from '../engines/postgres/values.ts';
import { comparable, SERVER_VALUES, sqlOf, type ServerCase, type ServerValue } from '../engines/sqlserver/values.ts';
import { createWorld, eventually, type World } from '../support/service.ts';
import { skip } from '../support/skip.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../support/sqlserver.ts';
import { asSqlServer, postgresEnd, sqlServerEnd } from './ends.ts';
import { controlledBy, Matrix, refusal, type MatrixColumn } from './matrix.ts';

/** Long enough for a busy machine: what is waited for comes by itself, or never. */
const PATIENCE_S = 60;

/** PostgreSQL's types that have a place in SQL Server, and which; the others are refused by the schema check. */
const PLACES: Readonly<Record<string, string>> = {
  boolean: 'bit',
  smallint: 'smallint',
  integer: 'int',
  bigint: 'bigint',
  'numeric(38,10)': 'decimal(38,10)',
  'numeric(5,-2)': 'decimal(7,0)',
  'double precision': 'float',
  real: 'real',
  text: 'nvarchar(max)',
  'character varying(5)': 'nvarchar(10)',
  'character(5)': 'nvarchar(10)',
  bytea: 'varbinary(max)',
  date: 'date',
  time: 'time(6)',
  'time(3)': 'time(3)',
  timestamp: 'datetime2(6)',
  timestamptz: 'datetimeoffset(6)',
  uuid: 'uniqueidentifier',
  json: 'nvarchar(max)',
  jsonb: 'nvarchar(max)',
  xml: 'nvarchar(max)',
  'public.mood': 'nvarchar(10)',
  'public.posint': 'int',
};

/** What SQL Server's types have no value for (manual: float, date, time, datetime2): as PostgreSQL prints it. */
const isOutside = (text: string) => /^-?(NaN|Infinity|infinity)$| BC$|^\d{5,}-\d\d-|^24:00:00/.test(text);
/** Babelfish's bulk load overruns a buffer with 38 digits. */
const isBeyondBabelfish = (type: string, text: string) => type === 'numeric(38,10)' && text.length > 38;

describe('values, SQL Server and PostgreSQL', function () {
  this.timeout(480_000);
  let world: World;
  let source: SqlServerTestDatabase;
  let target: SqlServerTestDatabase;

  before(async function () {
    const server = await requireSqlServer(this);
    world = await createWorld({ lease_seconds: 15 });
    source = await createSqlServerDatabase(server, 'src');
    await source.enableCdc();
    target = await createSqlServerDatabase(server, 'dst');
    await world.control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('sql', $1)`, [
      source.url,
    ]);
    await world.control.query(`INSERT INTO destination_servers (server_name, connection_string) VALUES ('sql', $1)`, [
      target.url,
    ]);
    await world.start();
  });
  after(async () => {
    await world?.close();
    await source?.drop();
    await target?.drop();
  });

  const isBabelfish = () => source.server.kind === 'babelfish';
  const FROM = {
    sqlserver: () => ({ server_id: 2, source_database: source.name, source_schema: 'dbo' }),
    postgres: () => ({}),
  };
  const INTO = {
    sqlserver: () => ({ dest_server_id: 1, dest_database: target.name, dest_schema: 'dbo' }),
    postgres: () => ({ dest_schema: 'public' }),
  };
  type Engine = keyof typeof FROM;
  const map = (from: Engine, into: Engine, table: string, more: Readonly<Record<string, string | number>> = {}) =>
    world.map(table, { ...FROM[from](), ...INTO[into](), ...more });
  const told = (mapping: number) => refusal(world, mapping, PATIENCE_S);

  const column = ({ type, values }: ServerCase, some: readonly ServerValue[] = values): MatrixColumn => ({
    type,
    values: some.map((value) => ({ sql: sqlOf(type, value), printed: comparable(bare(type), value.cell) })),
  });
  const bare = (type: string) => type.replace(/ COLLATE .*/, '');
  const captured = async (matrix: Matrix, table: string) => {
    await source.query(matrix.createSql());
    await source.captureTable('dbo', table);
  };

  for (const beyond of [false, true]) {
    /** What this server can be asked for, or (`beyond`) what only SQL Server can; `load`: into SQL Server as well. */
    const columns = (cases: readonly ServerCase[], load: boolean): MatrixColumn[] =>
      cases.flatMap((one) => {
        const isBeyond = (value: ServerValue) =>
          one.sqlServerOnly === true || value.beyond === 'hold' || (load && value.beyond === 'load');
        const some = one.values.filter((value) => isBeyond(value) === beyond);
        return some.length === 0 ? [] : [column(one, some)];
      });
    const what = beyond ? ', what only SQL Server holds' : '';

    it(`F30 F31 F32 F33 F34: SQL Server to SQL Server: every type through copy, stream and backlog${what}`, async function () {
      if (beyond && isBabelfish()) skip(this, 'Babelfish does not hold these values, or not in a bulk load');
      const table = beyond ? 'same_beyond' : 'same';
      const list = columns(SERVER_VALUES, true);
      const types = list.map(({ type }) => bare(type));
      const matrix = new Matrix({
        ...controlledBy(world, PATIENCE_S),
        table,
        columns: list,
        source: sqlServerEnd(source, types),
        destination: sqlServerEnd(target, types),
        map: async () => [{ mapping: await map('sqlserver', 'sqlserver', table), table }],
      });
      await captured(matrix, table);
      await matrix.throughEverything();
    });

    it(`F30 F31 F32 F33 F34 F36: SQL Server to PostgreSQL: every type that it can hold${what}`, async function () {
      if (beyond && isBabelfish()) skip(this, 'Babelfish does not hold these values');
      const table = beyond ? 'out_beyond' : 'out';
      const list = columns(SERVER_VALUES.filter(goesToPostgres), false).map((one) => ({
        ...one,
        // Half a surrogate pair is no character, and U+0000 has no place in PostgreSQL's text.
        values: one.values.map((value) => ({ ...value, isRefused: /\\u0000|\\ud[89a-f]/.test(value.printed ?? '') })),
      }));
      const types = list.map(({ type }) => bare(type));
      const matrix = new Matrix({
        ...controlledBy(world, PATIENCE_S),
        table,
        columns: list,
        source: sqlServerEnd(source, types),
        destination: postgresEnd(world.destination, list.length, {
          shown: (i, text) => asSqlServer(types[i] ?? '', text),
        }),
        map: async () => [{ mapping: await map('sqlserver', 'postgres', table, { max_failed_rows: 100 }), table }],
      });
      await captured(matrix, table);
      await matrix.throughEverything();
    });
  }

  it('F30 F31 F32 F34 F36: PostgreSQL to SQL Server: every type that it can hold; what lies outside is left out, and nothing else', async () => {
    await world.source.query(USER_TYPES);
    const cases = [...VALUE_MATRIX, ...USER_TYPE_MATRIX].filter(({ type }) => PLACES[type] !== undefined);
    // Which values lie outside is told by the text that PostgreSQL prints.
    const list: MatrixColumn[] = [];
    for (const { type, values } of cases) {
      const texts = values.map((sql) => `format('%s', (${sql})::${type})`);
      const [row] = await world.source.query<{ texts: string[] }>(`SELECT ARRAY[${texts.join(', ')}] AS texts`);
      const printed = values.map((sql, i) => ({ sql: `(${sql})::${type}`, text: row?.texts[i] ?? '' }));
      const held = printed.filter(({ text }) => !isBabelfish() || !isBeyondBabelfish(type, text));
      const isBounded = !/^(text|char|json|xml|bytea|public)/.test(type);
      list.push({ type, values: held.map(({ sql, text }) => ({ sql, isRefused: isBounded && isOutside(text) })) });
    }
    const types = list.map(({ type }) => PLACES[type] ?? '');
    const matrix = new Matrix({
      ...controlledBy(world, PATIENCE_S),
      table: 'into',
      columns: list,
      source: postgresEnd(world.source, list.length, { shown: (i, text) => asSqlServer(types[i] ?? '', text) }),
      destination: sqlServerEnd(target, types),
      map: async () => [
        { mapping: await map('postgres', 'sqlserver', 'into', { max_failed_rows: 1000 }), table: 'into' },
      ],
    });
    await world.source.query(matrix.createSql());
    await matrix.throughEverything();
    expect(matrix.refused).to.be.greaterThan(10);
    const declared = await target.query(
      `SELECT LOWER(DATA_TYPE) AS type FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = N'into' AND COLUMN_NAME <> N'id' ORDER BY ORDINAL_POSITION`,
    );
    expect(declared.map((row) => row['type'])).to.deep.equal(types.map((type) => type.replace(/\(.*/, '')));
  });

  it('F36: PostgreSQL to SQL Server: types without a place are refused by name, before any row moves', async () => {
    const cases = [...VALUE_MATRIX, ...USER_TYPE_MATRIX].filter(({ type }) => PLACES[type] === undefined);
    await world.source.query(
      `CREATE TABLE nowhere (id int PRIMARY KEY, ${cases.map(({ type }, i) => `c${i}_ ${type}`).join(', ')})`,
    );
    await world.source.query('INSERT INTO nowhere (id) VALUES (1)');
    const said = await told(await map('postgres', 'sqlserver', 'nowhere'));
    expect(said).to.include('SCHEMA_MISMATCH');
    for (const [i, { type }] of cases.entries()) expect(said, type).to.include(`c${i}_ (`);
    expect(await target.query(`SELECT OBJECT_ID(N'dbo.nowhere') AS id`)).to.deep.equal([{ id: null }]);
  });

  it('F36: PostgreSQL to SQL Server: a value outside is no reason to cut or round it in a copy either', async () => {
    await world.source.query(`CREATE TABLE outside (id int PRIMARY KEY, n numeric(10,2), f float8)`);
    await world.source.query(`INSERT INTO outside VALUES (1, 1.25, 0.5), (2, 'NaN', 1)`);
    const mapping = await map('postgres', 'sqlserver', 'outside');
    const said = await told(mapping);
    expect(said).to.include('ROW_REFUSED').and.to.include('column n');
    await world.source.query('DELETE FROM outside WHERE id = 2');
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming', PATIENCE_S);
    expect(await target.query('SELECT id, CAST(n AS varchar(20)) AS n FROM dbo.outside')).to.deep.equal([
      { id: 1, n: '1.25' },
    ]);
  });

  it('F36: SQL Server to PostgreSQL: offsets and the seventh digit of a second are refused by the column’s name', async () => {
    // Babelfish declares a seventh digit as six.
    const nowhere = SERVER_VALUES.filter(
      (one) => !goesToPostgres(one) && (!isBabelfish() || one.type.startsWith('datetimeoffset')),
    );
    await source.query(
      `CREATE TABLE dbo.zoned (id int NOT NULL PRIMARY KEY, ${nowhere.map(({ type }, i) => `c${i}_ ${type} NULL`).join(', ')})`,
    );
    await source.captureTable('dbo', 'zoned');
    await source.query('INSERT INTO dbo.zoned (id) VALUES (1)');
    const said = await told(await map('sqlserver', 'postgres', 'zoned'));
    expect(said).to.include('SCHEMA_MISMATCH');
    for (const [i, { type }] of nowhere.entries()) expect(said, type).to.include(`c${i}_ (`);
    // Into a table that a person made there, no better.
    await world.destination.query(
      `CREATE TABLE zoned_given (id int PRIMARY KEY, ${nowhere.map((_, i) => `c${i}_ timestamptz`).join(', ')})`,
    );
    const given = await told(await map('sqlserver', 'postgres', 'zoned', { dest_table: 'zoned_given' }));
    for (const [i, { type }] of nowhere.entries()) expect(given, type).to.include(`column c${i}_ of`);
  });

  for (const type of ['sql_variant', 'hierarchyid', 'geography', 'geometry'])
    it(`F34 F36: ${type} is refused by the column’s name${type === 'sql_variant' ? ', and holds up no other table' : ' by PostgreSQL, and goes to SQL Server byte for byte'}`, async function () {
      if (type !== 'sql_variant' && isBabelfish()) skip(this, `Babelfish has no ${type}`);
      const table = `of_${type}`;
      const value = {
        sql_variant: 'CAST(7 AS bigint)',
        hierarchyid: `hierarchyid::Parse('/1/2.3/')`,
        geography: `geography::STGeomFromText('POINT(1 2 3 4)', 4326)`,
        geometry: `geometry::STGeomFromText('LINESTRING(1 2, 3 4)', 7)`,
      }[type];
      await source.query(`CREATE TABLE dbo.${table} (id int NOT NULL PRIMARY KEY, odd_one ${type} NULL)`);
      await source.captureTable('dbo', table);
      await source.query(`INSERT INTO dbo.${table} VALUES (1, ${value})`);
      const said = await told(await map('sqlserver', 'postgres', table));
      expect(said).to.include('SCHEMA_MISMATCH').and.to.include('odd_one');
      const mapping = await map('sqlserver', 'sqlserver', table);
      if (type === 'sql_variant') {
        expect(await told(mapping))
          .to.include('SCHEMA_MISMATCH')
          .and.to.include('odd_one');
        // Its changes are in the stream of every other table.
        await source.query('CREATE TABLE dbo.beside (id int NOT NULL PRIMARY KEY)');
        await source.captureTable('dbo', 'beside');
        await world.state(await map('sqlserver', 'postgres', 'beside'), 'streaming', PATIENCE_S);
        await source.query(`INSERT INTO dbo.${table} VALUES (2, ${value}); INSERT INTO dbo.beside VALUES (7)`);
        await eventually(async () => {
          expect(await world.destination.query('SELECT id FROM beside')).to.deep.equal([{ id: 7 }]);
        }, PATIENCE_S * 1000);
        return;
      }
      await world.state(mapping, 'streaming', PATIENCE_S);
      await source.query(`INSERT INTO dbo.${table} VALUES (2, ${value}), (3, NULL)`);
      const print = `SELECT id, CONVERT(varchar(max), CAST(odd_one AS varbinary(max)), 1) AS v FROM dbo.${table} ORDER BY id`;
      await eventually(async () => {
        expect(await target.query(print)).to.deep.equal(await source.query(print));
      }, PATIENCE_S * 1000);
    });

  it('F27: identity, computed, sparse and rowversion columns', async () => {
    // Babelfish has rowversion only by a setting of the whole server.
    const rv = isBabelfish() ? 'CAST(NULL AS binary(8))' : 'CAST(rv AS binary(8))';
    await source.query(
      `CREATE TABLE dbo.special (id int IDENTITY(5, 3) NOT NULL PRIMARY KEY, v int NULL, twice AS (v * 2), thrice AS (v * 3) PERSISTED,
         s nvarchar(20) SPARSE NULL${isBabelfish() ? '' : ', rv rowversion'})`,
    );
    await source.captureTable('dbo', 'special');
    await source.query(`INSERT INTO dbo.special (v, s) VALUES (1, N'ü'), (NULL, NULL), (-3, N'')`);
    for (const into of ['sqlserver', 'postgres'] as const)
      await world.state(await map('sqlserver', into, 'special'), 'streaming', PATIENCE_S);
    const equal = () =>
      eventually(async () => {
        const computed = `SELECT id, v, s, ${rv} AS rv, twice, thrice FROM dbo.special ORDER BY id`;
        const here = await source.query(computed);
        expect(here.map((row) => row['twice'])).to.include(-6);
        expect(await target.query(computed)).to.deep.equal(here);
        const plain = await world.destination.query(
          `SELECT id, v, s, ${isBabelfish() ? 'NULL AS rv' : 'rv'} FROM special ORDER BY id`,
        );
        expect(plain).to.deep.equal(here.map(({ id, v, s, rv }) => ({ id, v, s, rv })));
      }, PATIENCE_S * 1000);
    await equal();
    await source.query(`INSERT INTO dbo.special (v, s) VALUES (10, NULL)`);
    await source.query(`UPDATE dbo.special SET v = 7, s = N'a  ' WHERE id = 8`);
    await source.query(`UPDATE dbo.special SET v = NULL WHERE id = 5`);
    await equal();
  });

  it('F27: hidden period columns of a temporal table are ordinary columns at the destination', async function () {
    if (isBabelfish()) skip(this, 'Babelfish has no temporal tables');
    await source.query(
      `CREATE TABLE dbo.temporal (id int NOT NULL PRIMARY KEY, v int NULL,
         since datetime2(7) GENERATED ALWAYS AS ROW START HIDDEN NOT NULL, until datetime2(7) GENERATED ALWAYS AS ROW END HIDDEN NOT NULL,
         PERIOD FOR SYSTEM_TIME (since, until)) WITH (SYSTEM_VERSIONING = ON)`,
    );
    await source.captureTable('dbo', 'temporal');
    await source.query('INSERT INTO dbo.temporal (id, v) VALUES (1, 1), (2, 2)');
    await world.state(await map('sqlserver', 'sqlserver', 'temporal'), 'streaming', PATIENCE_S);
    await source.query('UPDATE dbo.temporal SET v = 20 WHERE id = 2; INSERT INTO dbo.temporal (id, v) VALUES (3, 3)');
    const print =
      'SELECT id, v, CONVERT(varchar(30), since, 121) AS since, CONVERT(varchar(30), until, 121) AS until FROM dbo.temporal ORDER BY id';
    await eventually(async () => {
      expect(await target.query(print)).to.deep.equal(await source.query(print));
    }, PATIENCE_S * 1000);
  });
});

/** PostgreSQL keeps no offset, and six digits of a second. */
function goesToPostgres({ type }: ServerCase): boolean {
  return !/^datetimeoffset|^(time|datetime2)\(7\)/.test(type);
}
