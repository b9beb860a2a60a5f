import { expect } from 'chai';
import { SqlServerCatalog } from '../../../src/engines/sqlserver/catalog.ts';
import type { Table } from '../../../src/model/tables.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';

describe('SQL Server catalog', () => {
  let database: SqlServerTestDatabase;
  let catalog: SqlServerCatalog;

  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this));
    catalog = new SqlServerCatalog(database.connection);
  });
  after(() => database?.drop());

  const describeOne = async (table: string, schema = 'dbo'): Promise<Table> => {
    const [found] = await catalog.describe([{ schema, table }]);
    if (!found) throw new Error(`${table} not found`);
    return found;
  };

  it('F27: columns with exact types, what fills them, keys, indexes, triggers, foreign keys both ways; missing tables are null', async () => {
    await database.query('CREATE TYPE phone FROM varchar(20)');
    await database.query('CREATE TABLE parents (id int NOT NULL PRIMARY KEY)');
    await database.query(`
      CREATE TABLE [many columns] (
        b int NOT NULL, a int IDENTITY(5, 5) NOT NULL, [odd '".name 😀] nvarchar(50) NULL DEFAULT N'x',
        amount decimal(10,2) NOT NULL DEFAULT 0, twice AS (b * 2), phone phone NULL, parent int NULL REFERENCES parents (id),
        t datetimeoffset(3) NULL, big varbinary(max) NULL,
        CONSTRAINT many_pk PRIMARY KEY (b, a))`);
    await database.query('CREATE UNIQUE INDEX many_amount ON [many columns] (amount)');
    await database.query('CREATE UNIQUE INDEX many_parent ON [many columns] (parent)');
    await database.query('CREATE INDEX many_plain ON [many columns] (parent DESC, amount) INCLUDE (phone)');
    await database.query(
      'CREATE TABLE children (id int NOT NULL, b int, a int, CONSTRAINT to_many FOREIGN KEY (b, a) REFERENCES [many columns] (b, a))',
    );
    await database.query('CREATE TRIGGER many_trigger ON [many columns] AFTER INSERT AS SELECT 1 AS one');
    const name = { schema: 'dbo', table: 'many columns' };
    const [missing, found] = await catalog.describe([{ schema: 'dbo', table: 'nowhere' }, name]);
    expect(missing).to.equal(null);
    if (!found) throw new Error('not found');
    expect(found.name).to.deep.equal(name);
    expect(found.kind).to.equal('table');
    expect(found.columns.map((column) => [column.name, column.nativeType, column.nullable])).to.deep.equal([
      ['b', 'int', false],
      ['a', 'int', false],
      [`odd '".name 😀`, 'nvarchar(50)', true],
      ['amount', 'decimal(10,2)', false],
      ['twice', 'int', true],
      ['phone', 'varchar(20)', true],
      ['parent', 'int', true],
      ['t', 'datetimeoffset(3)', true],
      ['big', 'varbinary(max)', true],
    ]);
    const of = (column: string) => found.columns.find((one) => one.name === column);
    expect(of('a')?.identity).to.equal('always');
    expect(of('twice')?.generated).to.match(/b.*\* *\(?2/);
    expect(of('amount')?.default).to.contain('0');
    expect(of('phone')?.collation).to.be.a('string');
    expect(of('phone')?.type).to.deep.include({ kind: 'text', length: 20, codePage: 1252 });
    expect(of('b')?.collation).to.equal(null);
    expect(found.keys.map((key) => [key.columns, key.primary, key.usable, key.loose])).to.deep.equal([
      [['b', 'a'], true, true, false],
      [['amount'], false, true, false],
    ]);
    expect(found.indexes.map((index) => [index.columns, index.unique])).to.deep.equal([
      [['parent'], true],
      [['parent', 'amount'], false],
    ]);
    expect(found.indexes[1]?.definition).to.match(
      /^CREATE NONCLUSTERED INDEX \[.*\] ON \[dbo\]\.\[many columns\] \(\[parent\] DESC, \[amount\]\) INCLUDE \(\[phone\]\)$/,
    );
    expect(found.triggers).to.deep.equal(['many_trigger']);
    expect(found.foreignKeys).to.have.length(1);
    expect(found.referencedBy).to.deep.equal(['dbo.children.to_many']);
  });

  it('names are compared as the server compares them, and another table of the same name has another id', async () => {
    await database.query('CREATE TABLE Spelled (Id int NOT NULL)');
    const first = await describeOne('SPELLED');
    expect(first.name.table.toLowerCase()).to.equal('spelled');
    await database.query('DROP TABLE Spelled');
    await database.query('CREATE TABLE Spelled (Id int NOT NULL)');
    expect((await describeOne('spelled')).id).to.not.equal(first.id);
  });

  it('a name is what it is, with its blanks: another table has the one without', async () => {
    await database.query('CREATE TABLE [ blank] (id int NOT NULL); CREATE TABLE blank (id int NOT NULL)');
    expect((await describeOne(' blank')).name.table).to.equal(' blank');
  });

  it('F25: keys of text are loose but under binary collations; so are floats and offsets', async () => {
    const loose = async (column: string) => {
      await database.query(`DROP TABLE IF EXISTS keyed; CREATE TABLE keyed (k ${column} NOT NULL PRIMARY KEY)`);
      return (await describeOne('keyed')).keys[0]?.loose;
    };
    expect(await loose('nvarchar(10)')).to.equal(true);
    expect(await loose('varchar(10) COLLATE Latin1_General_BIN2')).to.equal(false);
    expect(await loose('float')).to.equal(true);
    expect(await loose('datetimeoffset(3)')).to.equal(true);
    expect(await loose('uniqueidentifier')).to.equal(false);
    expect(await loose('datetime2(3)')).to.equal(false);
  });

  it('views are described as what they are; emptiness', async () => {
    await database.query('CREATE TABLE base (id int NOT NULL)');
    await database.query('CREATE VIEW seen AS SELECT id FROM base');
    expect((await describeOne('seen')).kind).to.equal('other');
    expect(await catalog.isEmpty({ schema: 'dbo', table: 'base' })).to.equal(true);
    await database.query('INSERT INTO base VALUES (1)');
    expect(await catalog.isEmpty({ schema: 'dbo', table: 'base' })).to.equal(false);
  });

  it('a kept session is given back as it was: it counts rows', async () => {
    await database.connection.use(async (session) => {
      const same = { query: session.query.bind(session) } as unknown as typeof database.connection;
      await new SqlServerCatalog(same).describe([{ schema: 'dbo', table: 'base' }]);
      expect(await session.run('count', ['UPDATE base SET id = id'])).to.deep.equal([1]);
    });
  });

  it('several hundred names in one round trip', async () => {
    const names = Array.from({ length: 400 }, (_, i) => ({ schema: 'dbo', table: i === 399 ? 'base' : `no_${i}` }));
    const found = await catalog.describe(names);
    expect(found.map((table) => table !== null).lastIndexOf(true)).to.equal(399);
    expect(found).to.have.length(400);
  });
});
