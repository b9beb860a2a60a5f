import { expect } from 'chai';
import { PostgresCatalog } from '../../../src/engines/postgres/catalog.ts';
import type { Connection } from '../../../src/engines/postgres/connection.ts';
import { createTableSql, design, indexSql, keySql } from '../../../src/engines/postgres/ddl.ts';
import type { Table } from '../../../src/model/tables.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { connect, describeTable } from './support.ts';

const inPublic = (table: string) => ({ schema: 'public', table });

describe('PostgreSQL catalog', () => {
  let database: TestDatabase;
  let connection: Connection;
  const describePublic = (table: string) => describeTable(connection, inPublic(table));
  before(async () => {
    database = await createDatabase('catalog');
    connection = connect(database);
  });
  after(async () => {
    await connection.close();
    await database.drop();
  });

  it('describes many tables in one round trip, null for what is missing, in the order asked', async () => {
    await database.query(
      'CREATE TABLE many_a (x int); CREATE TABLE many_b (y text); CREATE VIEW many_v AS SELECT 1 AS z',
    );
    let queries = 0;
    const counting = {
      query: (...args: Parameters<Connection['query']>) => {
        queries++;
        return connection.query(...args);
      },
    } as unknown as Connection;
    const tables = await new PostgresCatalog(counting).describe(
      ['many_b', 'missing', 'many_a', 'many_v', 'many_b'].map(inPublic),
    );
    expect(queries).to.equal(1);
    expect(tables.map((table) => table?.columns[0]?.name ?? null)).to.deep.equal(['y', null, 'x', 'z', 'y']);
    expect(tables.map((table) => table?.kind ?? null)).to.deep.equal(['table', null, 'table', 'other', 'table']);
  });

  it('maps types through domains, arrays and modifiers', async () => {
    await database.query(`CREATE DOMAIN short AS varchar(7); CREATE DOMAIN shorter AS short NOT NULL;
      CREATE TYPE color AS ENUM ('red', 'dark green'); CREATE TYPE couple AS (a int);
      CREATE TABLE typed (a numeric(10,2), b numeric(3,-2), c shorter, d color, e color[], f couple, g int4range,
        h timestamp(3), i char(4), j varchar, k interval second(0), l bytea, m numeric, n shorter[], o money, p bpchar)`);
    const table = await describePublic('typed');
    const text = (length: number | null, fixed = false) => ({ kind: 'text', length, fixed, nul: false });
    expect(table.columns.map((column) => column.type)).to.deep.equal([
      { kind: 'decimal', precision: 10, scale: 2, special: true },
      { kind: 'decimal', precision: 3, scale: -2, special: true },
      text(7),
      { kind: 'enum', labels: ['red', 'dark green'] },
      { kind: 'array', element: { kind: 'enum', labels: ['red', 'dark green'] } },
      { kind: 'opaque', engine: 'postgres', native: 'public.couple' },
      { kind: 'opaque', engine: 'postgres', native: 'int4range' },
      { kind: 'timestamp', fraction: 3, infinity: true },
      text(4, true),
      text(null),
      { kind: 'opaque', engine: 'postgres', native: 'interval second(0)' },
      { kind: 'bytes', length: null, fixed: false },
      { kind: 'decimal', precision: null, scale: null, special: true },
      { kind: 'array', element: text(7) },
      { kind: 'opaque', engine: 'postgres', native: 'money' },
      text(null),
    ]);
    expect(table.columns.filter((column) => !column.nullable).map((column) => column.name)).to.deep.equal(['c']);
    expect(table.columns[2]?.nativeType).to.equal('public.shorter');
  });

  it('F25: says which keys are usable and which are loose, primary key first', async () => {
    await database.query(
      `
      CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      CREATE TABLE keyed (id int PRIMARY KEY, a int NOT NULL, b text NOT NULL COLLATE ci, c numeric NOT NULL, d int, e text NOT NULL,
        f int NOT NULL);
      CREATE UNIQUE INDEX k_include ON keyed (a, e) INCLUDE (d);
      CREATE UNIQUE INDEX k_collation ON keyed (b);
      CREATE UNIQUE INDEX k_column_of_strict_index ON keyed (b COLLATE "C");
      CREATE UNIQUE INDEX k_numeric ON keyed (c);
      CREATE UNIQUE INDEX k_nullable ON keyed (d);
      CREATE UNIQUE INDEX k_partial ON keyed (a) WHERE a > 0;
      CREATE UNIQUE INDEX k_expression ON keyed (lower(e));
      CREATE UNIQUE INDEX k_distinct ON keyed (a, d) NULLS NOT DISTINCT;
      ALTER TABLE keyed ADD CONSTRAINT k_deferrable UNIQUE (f) DEFERRABLE;
      CREATE INDEX plain ON keyed (e DESC)`,
    );
    const table = await describePublic('keyed');
    expect(
      table.keys.map(
        (key) => `${key.name} (${key.columns.join()})${key.usable ? ' usable' : ''}${key.loose ? ' loose' : ''}`,
      ),
    ).to.deep.equal([
      'keyed_pkey (id) usable',
      'k_collation (b) usable loose',
      'k_column_of_strict_index (b) usable loose', // joins compare by the column's collation
      'k_deferrable (f)',
      'k_distinct (a,d)',
      'k_include (a,e) usable',
      'k_nullable (d)',
      'k_numeric (c) usable loose',
    ]);
    expect(table.keys[0]?.primary).to.equal(true);
    expect(table.indexes.map((index) => index.name)).to.include.members([
      'plain',
      'k_partial',
      'k_expression',
      'k_nullable',
    ]);
    expect(table.indexes.map((index) => index.name)).to.not.include('keyed_pkey');
  });

  it('F27: generated (stored and virtual), identity, default and collation', async () => {
    await database.query(`CREATE TABLE special (id int GENERATED ALWAYS AS IDENTITY, other int GENERATED BY DEFAULT AS IDENTITY,
      a int DEFAULT 7, s int GENERATED ALWAYS AS (a * 2) STORED, v int GENERATED ALWAYS AS (a * 3) VIRTUAL, t text COLLATE "C")`);
    const table = await describePublic('special');
    expect(
      table.columns.map(({ name, identity, generated, default: value, collation }) => [
        name,
        identity,
        generated,
        value,
        collation,
      ]),
    ).to.deep.equal([
      ['id', 'always', null, null, null],
      ['other', 'by default', null, null, null],
      ['a', null, null, '7', null],
      ['s', null, '((a * 2)) STORED', null, null],
      ['v', null, '((a * 3)) VIRTUAL', null, null],
      ['t', null, null, null, 'pg_catalog."C"'],
    ]);
  });

  it('counts rows and bytes of a partitioned table by its leaves, and knows none before they were analyzed', async () => {
    await database.query(`CREATE TABLE parted (id int, at date) PARTITION BY RANGE (at);
      CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
      CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY LIST (id);
      CREATE TABLE parted_2a PARTITION OF parted_2 DEFAULT;
      INSERT INTO parted SELECT g, '2020-06-01'::date + g FROM generate_series(1, 400) g`);
    const before = await describePublic('parted');
    expect([before.kind, before.estimatedRows]).to.deep.equal(['partitioned', null]);
    await database.query('ANALYZE parted_1; ANALYZE parted_2a');
    const after = await describePublic('parted');
    expect(after.estimatedRows).to.equal(400);
    expect(after.bytes).to.be.greaterThan(8192);
  });

  it('F45: lists triggers, foreign keys and who refers to the table', async () => {
    await database.query(`CREATE TABLE parent (id int PRIMARY KEY, up int REFERENCES parent);
      CREATE TABLE child (id int PRIMARY KEY, p int CONSTRAINT child_parent REFERENCES parent);
      CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
      CREATE TRIGGER on_it BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION nothing();
      CREATE TRIGGER off_it BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION nothing();
      ALTER TABLE parent DISABLE TRIGGER off_it`);
    const table = await describePublic('parent');
    expect(table.triggers).to.deep.equal(['on_it']);
    expect(table.foreignKeys).to.deep.equal(['parent_up_fkey']);
    expect(table.referencedBy).to.deep.equal(['public.child.child_parent']);
  });

  it('PostgreSQL 18: a NOT NULL that was not validated makes no key', async () => {
    await database.query(`CREATE TABLE unproven (a int); INSERT INTO unproven VALUES (NULL);
      ALTER TABLE unproven ADD CONSTRAINT later NOT NULL a NOT VALID; CREATE UNIQUE INDEX unproven_a ON unproven (a)`);
    const table = await describePublic('unproven');
    expect(table.columns[0]?.nullable).to.equal(true);
    expect(table.keys[0]?.usable).to.equal(false);
  });

  it('gives up on a table that is held exclusively', async () => {
    await database.query('CREATE TABLE held (a int)');
    const holder = await database.connect();
    await holder.query('BEGIN; LOCK TABLE held');
    const outcome = await describePublic('held').then(
      () => 'described',
      (error: { code: string }) => error.code,
    );
    await holder.query('ROLLBACK');
    expect(outcome).to.equal('TIMEOUT');
  }).timeout(20_000);

  describe('table design', () => {
    it('declares a table so that the catalog describes it the same again', async () => {
      await database.query(`CREATE SCHEMA "to";
        CREATE TABLE "full" (id serial PRIMARY KEY, n numeric(12,4) NOT NULL DEFAULT 0.5, t varchar(20) DEFAULT 'it''s \\.x'::varchar,
          at timestamptz(3) DEFAULT now(), c color DEFAULT 'red', cs color[], j jsonb, u uuid DEFAULT gen_random_uuid(),
          s text GENERATED ALWAYS AS (lower(t)) STORED, "odd ""name" text COLLATE "C" NOT NULL, sh short, x int DEFAULT length('a.b'));
        CREATE INDEX full_partial ON "full" (n DESC NULLS LAST) WHERE t IS NOT NULL;
        CREATE UNIQUE INDEX full_expression ON "full" (lower("odd ""name"), n);
        CREATE INDEX full_gin ON "full" USING gin (j jsonb_path_ops);
        CREATE FUNCTION public.own(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
        CREATE INDEX full_own ON "full" (public.own(t))`);
      const source = await describePublic('full');
      const target = { schema: 'to', table: 'copy of it' };
      const designed = design(source, target, ['id']);
      for (const sql of designed.ddl) await database.query(sql);
      const made = await describeTable(connection, target);
      const shape = (table: Table) =>
        table.columns.map(({ name, nativeType, nullable, generated, default: value }) => [
          name,
          nativeType,
          nullable,
          generated,
          value,
        ]);
      const expected = shape(source).map((column) => {
        if (column[0] === 'id') return ['id', 'integer', false, null, null];
        if (column[0] === 'c') return ['c', '"to".color', true, null, null];
        if (column[0] === 'cs') return ['cs', '"to".color[]', true, null, null];
        if (column[0] === 'sh') return ['sh', 'character varying(7)', true, null, null];
        return column;
      });
      expect(shape(made)).to.deep.equal(expected);
      expect(made.columns[0]?.identity).to.equal('by default');
      expect(made.columns.find((column) => column.name === 'odd "name')?.collation).to.equal('pg_catalog."C"');
      expect(made.keys.find((key) => key.primary)?.columns).to.deep.equal(['id']);
      const tails = (table: Table) => table.indexes.map((index) => index.definition.replace(/^.* USING /, '')).sort();
      expect(tails(made)).to.deep.equal(tails(source).filter((definition) => !definition.includes('own')));
      expect(designed.leftOut.join('\n'))
        .to.match(/index full_own/)
        .and.match(/default of column c/)
        .and.match(/domain public.short/);
      // Again: the type is there already.
      for (const sql of designed.types) await database.query(sql);
    });

    it('declares other engines’ tables by logical type and names what no type holds', () => {
      const column = (name: string, type: Table['columns'][number]['type'], more = {}) => ({
        name,
        nativeType: 'theirs',
        type,
        nullable: true,
        generated: null,
        identity: null,
        default: null,
        collation: null,
        ...more,
      });
      const table: Table = {
        engine: 'other',
        name: { schema: 'dbo', table: 't' },
        id: '1',
        kind: 'table',
        columns: [
          column('id', { kind: 'int', bits: 64, signed: true }, { nullable: false, identity: 'always' }),
          column('u', { kind: 'int', bits: 64, signed: false }, { default: '((0))' }),
          column('t', { kind: 'text', length: 10, fixed: false, nul: true }),
          column('e', { kind: 'enum', labels: ['a'] }, { nativeType: "enum('a')" }),
          column('g', { kind: 'int', bits: 32, signed: true }, { generated: '([id]*(2))' }),
        ],
        keys: [{ name: 'PK', columns: ['id'], primary: true, usable: true, loose: false }],
        indexes: [],
        triggers: [],
        foreignKeys: [],
        referencedBy: [],
        estimatedRows: null,
        bytes: 0,
      };
      const target = { schema: 'public', table: 't' };
      const designed = design(table, target, ['id']);
      expect(createTableSql(designed, target)).to.equal(`CREATE TABLE "public"."t" (
  "id" bigint GENERATED BY DEFAULT AS IDENTITY,
  "u" numeric(20,0),
  "t" character varying(10),
  "e" text
)`);
      expect(keySql(designed, target)).to.deep.equal(['ALTER TABLE "public"."t" ADD PRIMARY KEY ("id")']);
      expect(indexSql(designed, target)).to.deep.equal([]);
      expect(designed.leftOut).to.have.length(2);
      const seven = { ...table, columns: [column('at', { kind: 'timestamp', fraction: 7, infinity: false })] };
      expect(() => design(seven, target, [])).to.throw(/no type that holds every value of at/);
    });
  });
});
