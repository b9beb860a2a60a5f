/** The value matrix with MySQL or MariaDB at either end: one service, one control database, every pair. */
import { expect } from 'chai';
import { casesFor, comparable, type ValueCase } from '../engines/mysql/values.ts';
import { USER_TYPE_MATRIX, USER_TYPES, VALUE_MATRIX } from '../engines/postgres/values.ts';
import * as sqlserver from '../engines/sqlserver/values.ts';
import { ENGINES, type EngineName } from '../support/ends.ts';
import { findMysql, findMysqlItself } from '../support/mysql.ts';
import { createPairsWorld, type PairsWorld } from '../support/pairs-world.ts';
import { skip } from '../support/skip.ts';
import { findSqlServer } from '../support/sqlserver.ts';
import { asMysql, mysqlEnd, postgresEnd, sqlServerEnd } from './ends.ts';
import { controlledBy, Matrix, refusal, type MatrixColumn, type MatrixPair, type MatrixValue } from './matrix.ts';

const LONG = Boolean(process.env['SLUICE_TEST_LONG']);
const SERVERS = [
  { name: 'MariaDB', find: findMysql },
  { name: 'MySQL', find: findMysqlItself },
];

/** Long enough for a busy machine: what is waited for comes by itself, or never. */
const PATIENCE_S = 30;

/** PostgreSQL's types that have a place in MySQL, and which; the others are refused by the schema check. */
const FROM_POSTGRES: Readonly<Record<string, string>> = {
  boolean: 'bit(1)',
  smallint: 'smallint',
  integer: 'int',
  bigint: 'bigint',
  'numeric(38,10)': 'decimal(38,10)',
  'numeric(5,-2)': 'decimal(7,0)',
  'double precision': 'double',
  real: 'float',
  text: 'longtext',
  'character varying(5)': 'varchar(5)',
  'character(5)': 'varchar(5)',
  bytea: 'longblob',
  date: 'date',
  time: 'time(6)',
  'time(3)': 'time(3)',
  timestamp: 'datetime(6)',
  timestamptz: 'timestamp(6)',
  uuid: 'char(36)',
  json: 'longtext',
  jsonb: 'longtext',
  xml: 'longtext',
  'public.mood': 'varchar(8)',
  'public.posint': 'int',
};

/** What the types here have no value for (manual: Date and Time Data Types, Floating-Point Types). */
function isOutsideMysql(type: string, text: string): boolean {
  if (/^-?(NaN|Infinity|infinity)$| BC$|^\d{5,}-\d\d-/.test(text)) return true;
  // TIMESTAMP: 1970-01-01 00:00:01 to 2038-01-19 03:14:07.
  return type === 'timestamptz' && !/^(19[7-9]\d|20[0-2]\d|203[0-7])-/.test(text);
}

for (const { name, find } of SERVERS)
  describe(`values, ${name} and the others`, function () {
    this.timeout(240_000);
    let world: PairsWorld;
    let cases: readonly ValueCase[];
    before(async function () {
      world = await createPairsWorld({ lease_seconds: 15 }, ENGINES, ENGINES, find);
      const missing = world.missing('mysql');
      if (missing !== null) skip(this, missing);
      const [row] = await world.from('mysql').query('SELECT VERSION() AS version');
      cases = casesFor(/mariadb/i.test(String(row?.['version'])));
      await world.start();
    });
    after(() => world?.close());

    const run = async (
      table: string,
      from: EngineName,
      into: EngineName,
      rest: Pick<MatrixPair, 'columns' | 'source' | 'destination'>,
    ): Promise<Matrix> => {
      const matrix = new Matrix({
        ...controlledBy(world, PATIENCE_S),
        table,
        map: async () => [{ mapping: await world.mapPair(from, into, table, { max_failed_rows: 1000 }), table }],
        ...rest,
      });
      await world.from(from).query(matrix.createSql());
      await world.from(from).capture(table);
      await matrix.throughEverything();
      return matrix;
    };
    const column = (
      { type, values }: ValueCase,
      isRefused: (cell: string | Buffer) => boolean,
      as = type,
    ): MatrixColumn => ({
      type,
      values: values.map(([sql, cell]): MatrixValue => ({
        sql,
        printed: comparable(as, cell),
        isRefused: isRefused(cell),
      })),
    });

    it(`F30 F31 F32 F33 F34: ${name} to ${name}: every type through copy, stream and backlog`, async () => {
      const columns = cases.map((one) => column(one, () => false));
      const types = columns.map(({ type }) => type);
      const source = mysqlEnd(world.from('mysql'), types);
      const destination = mysqlEnd(world.into('mysql'), types);
      const matrix = await run('same', 'mysql', 'mysql', { columns, source, destination });
      expect(matrix.refused).to.equal(0);
    });

    it(`F30 F31 F32 F33 F34 F36: ${name} to PostgreSQL: every type that it can hold; what lies outside is left out, and nothing else`, async () => {
      // No month or day 0, no time below 0 or past a day, and no U+0000.
      const isOutside = (cell: string | Buffer) =>
        typeof cell === 'string' && /^0000-|-00\b|\0|\\u0000|^-\d+:|^(\d{3}|2[5-9]|[3-9]\d):\d\d:/.test(cell);
      const columns = cases.filter(({ type }) => !isGeometry(type)).map((one) => column(one, isOutside));
      const types = columns.map(({ type }) => type);
      const source = mysqlEnd(world.from('mysql'), types);
      const destination = postgresEnd(world.destination, types.length, {
        shown: (i, text) => asMysql(types[i] ?? '', text),
      });
      const matrix = await run('out', 'mysql', 'postgres', { columns, source, destination });
      expect(matrix.refused).to.be.greaterThan(10);
    });

    it(`F30 F31 F32 F33 F34 F36: PostgreSQL to ${name}: every type that it can hold; what lies outside is left out, and nothing else`, async () => {
      await world.source.query(USER_TYPES);
      const own = [...VALUE_MATRIX, ...USER_TYPE_MATRIX].filter(({ type }) => FROM_POSTGRES[type] !== undefined);
      const columns: MatrixColumn[] = [];
      for (const { type, values } of own) {
        const texts = values.map((sql) => `format('%s', (${sql})::${type})`);
        const [row] = await world.source.query<{ texts: string[] }>(`SELECT ARRAY[${texts.join(', ')}] AS texts`);
        const isBounded = !/^(text|char|json|xml|bytea|public)/.test(type);
        const isRefused = (i: number) => isBounded && isOutsideMysql(type, row?.texts[i] ?? '');
        columns.push({ type, values: values.map((sql, i) => ({ sql: `(${sql})::${type}`, isRefused: isRefused(i) })) });
      }
      const types = own.map(({ type }) => FROM_POSTGRES[type] ?? '');
      const source = postgresEnd(world.source, types.length, { shown: (i, text) => asMysql(types[i] ?? '', text) });
      const destination = mysqlEnd(world.into('mysql'), types);
      const matrix = await run('into', 'postgres', 'mysql', { columns, source, destination });
      expect(matrix.refused).to.be.greaterThan(10);
      const declared = await world
        .into('mysql')
        .query(
          `SELECT COLUMN_TYPE AS type FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'into' AND COLUMN_NAME <> 'id' ORDER BY ORDINAL_POSITION`,
        );
      expect(declared.map((row) => String(row['type']).replace(/^((small|big)?int)\(\d+\)$/, '$1'))).to.deep.equal(
        types,
      );
    });

    it(`F36: PostgreSQL to ${name}: types without a place are refused by name, before any row moves`, async () => {
      const nowhere = [...VALUE_MATRIX, ...USER_TYPE_MATRIX].filter(({ type }) => FROM_POSTGRES[type] === undefined);
      const list = nowhere.map(({ type }, i) => `c${i}_ ${type}`).join(', ');
      await world.source.query(`CREATE TABLE nowhere (id int PRIMARY KEY, ${list})`);
      await world.source.query('INSERT INTO nowhere (id) VALUES (1)');
      const said = await refusal(world, await world.mapPair('postgres', 'mysql', 'nowhere'), PATIENCE_S);
      expect(said).to.include('SCHEMA_MISMATCH');
      for (const [i, { type }] of nowhere.entries()) expect(said, type).to.include(`c${i}_ (`);
      expect(await world.into('mysql').query(`SHOW TABLES LIKE 'nowhere'`)).to.deep.equal([]);
    });

    describe('and SQL Server', () => {
      let isBabelfish = false;
      before(async function () {
        const server = await findSqlServer();
        if (typeof server === 'string') return skip(this, server);
        if (find !== findMysql && !LONG) skip(this, 'between MariaDB and SQL Server always: npm run test:long');
        isBabelfish = server.kind === 'babelfish';
      });

      it(`F30 F31 F32 F33 F34 F36: ${name} to SQL Server: every type that it can hold; what lies outside is left out, and nothing else`, async () => {
        const isOutside = (cell: string | Buffer) =>
          typeof cell === 'string' && /^0000-|-00\b|^-\d+:|^(\d{3}|2[4-9]|[3-9]\d):\d\d:/.test(cell);
        // A stand-in with PostgreSQL below it does not hold U+0000.
        const isHeld = ([, cell]: readonly [string, string | Buffer]) =>
          !isBabelfish || typeof cell !== 'string' || !cell.includes('\0');
        // 38 digits at most.
        const held = cases.filter(({ type }) => !isGeometry(type) && type !== 'decimal(65,30)');
        // A document is text there.
        const as = (type: string) => (type === 'json' ? 'longtext' : type);
        const columns = held.map((one) =>
          column({ ...one, values: one.values.filter(isHeld) }, isOutside, as(one.type)),
        );
        const types = columns.map(({ type }) => as(type));
        const places = types.map(inSqlServer);
        const source = mysqlEnd(world.from('mysql'), types);
        const destination = sqlServerEnd(world.into('sqlserver'), places);
        const matrix = await run('over', 'mysql', 'sqlserver', { columns, source, destination });
        expect(matrix.refused).to.be.greaterThan(5);
      });

      it(`F30 F31 F32 F33 F34 F36: SQL Server to ${name}: every type that it can hold; what lies outside is left out, and nothing else`, async () => {
        // No offset, six digits of a second, thirty behind the point; minus zero becomes zero.
        const held = sqlserver.SERVER_VALUES.filter(
          (one) =>
            !/^datetimeoffset|^(time|datetime2)\(7\)|^decimal\(38,38\)/.test(one.type) &&
            !(isBabelfish && one.sqlServerOnly === true),
        );
        const columns = held.map(({ type, values }): MatrixColumn => ({
          type,
          values: values
            .filter((value) => (!isBabelfish || value.beyond !== 'hold') && value.cell !== '-0')
            .map((value) => ({
              sql: sqlserver.sqlOf(type, value),
              printed: sqlserver.comparable(bare(type), value.cell),
              // Half a surrogate pair is no character.
              isRefused: typeof value.cell === 'string' && /\p{Surrogate}/u.test(value.cell),
            })),
        }));
        const types = columns.map(({ type }) => bare(type));
        const places = types.map(inMysql);
        const source = sqlServerEnd(world.from('sqlserver'), types);
        const destination = mysqlEnd(world.into('mysql'), places);
        await run('back', 'sqlserver', 'mysql', { columns, source, destination });
      });
    });
  });

const isGeometry = (type: string) => /^(geometry|linestring)/.test(type);
const bare = (type: string) => type.replace(/ COLLATE .*/, '');

/** A type of SQL Server that is printed as the value of MySQL's is compared. */
function inSqlServer(type: string): string {
  if (type.startsWith('float')) return 'real';
  if (type.startsWith('double')) return 'float';
  if (/^bit\(1\)/.test(type)) return 'bit';
  if (/^(time|date|timestamp)/.test(type)) return type.startsWith('timestamp') ? 'datetimeoffset(6)' : 'datetime2(6)';
  if (/^uuid/.test(type)) return 'uniqueidentifier';
  if (/^(var)?binary|blob$/.test(type)) return 'varbinary(max)';
  return /^(tiny|small|medium|big)?int|^(decimal|year|bit)/.test(type) ? 'decimal(38,10)' : 'nvarchar(max)';
}

/** … and the other way. */
function inMysql(type: string): string {
  if (type === 'real') return 'float';
  if (type === 'float') return 'double';
  if (type === 'bit') return 'bit(1)';
  if (/^(small)?datetime/.test(type)) return 'datetime(6)';
  if (type.startsWith('time')) return 'time(6)';
  return /^(var)?binary|^image/.test(type) ? 'longblob' : 'longtext';
}
