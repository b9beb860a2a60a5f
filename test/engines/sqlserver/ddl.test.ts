import { expect } from 'chai';
import { addColumnSql, design, indexSql, keySql } from '../../../src/engines/sqlserver/ddl.ts';
import { columnRemedies } from '../../../src/engines/sqlserver/remedies.ts';
import { logicalType } from '../../../src/engines/sqlserver/types.ts';
import type { Column, Table } from '../../../src/model/tables.ts';
import type { LogicalType } from '../../../src/model/types.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';

const target = { schema: 'dbo', table: 'made' };

function column(name: string, nativeType: string, more: Partial<Column> = {}): Column {
  return {
    name,
    nativeType,
    type: logicalType(nativeType),
    nullable: false,
    generated: null,
    identity: null,
    default: null,
    collation: null,
    ...more,
  };
}

function table(columns: readonly Column[], key: readonly string[], more: Partial<Table> = {}): Table {
  return {
    engine: 'sqlserver',
    name: { schema: 'dbo', table: 'source' },
    id: '1',
    kind: 'table',
    columns,
    keys: key.length > 0 ? [{ name: 'pk_source', columns: key, primary: true, usable: true, loose: false }] : [],
    indexes: [],
    triggers: [],
    foreignKeys: [],
    referencedBy: [],
    estimatedRows: null,
    bytes: 0,
    ...more,
  };
}

const foreign = (name: string, type: LogicalType, more: Partial<Column> = {}) =>
  column(name, 'of another engine', { type, ...more });

const messageOf = (work: () => unknown): string => {
  try {
    work();
    return 'no error';
  } catch (error) {
    return `${(error as { code?: string }).code}: ${(error as Error).message}`;
  }
};

describe('SQL Server table designs', () => {
  let database: SqlServerTestDatabase;
  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this), 'ddl');
  });
  after(() => database?.drop());
  beforeEach(() => database.query('DROP TABLE IF EXISTS dbo.made'));

  const make = async (made: { ddl: readonly string[] }) => {
    for (const statement of made.ddl) await database.query(statement);
  };

  it('F27: a table of SQL Server keeps types, collations, identity, defaults, computed columns and indexes', async () => {
    const source = table(
      [
        column('id', 'int', { identity: 'always' }),
        column(`odd "na'me.`, 'nvarchar(20)', { collation: 'Latin1_General_BIN2', nullable: true }),
        column('price', 'decimal(19,4)', { default: '((1.5))' }),
        column('twice', 'decimal(20,4)', { nullable: true, generated: '([price]*(2))' }),
        column('version', 'rowversion'),
      ],
      ['id'],
      {
        indexes: [
          {
            name: 'by price',
            columns: ['price'],
            unique: false,
            definition:
              'CREATE NONCLUSTERED INDEX [by price] ON [dbo].[source] ([price] DESC) INCLUDE ([odd "na\'me.])',
          },
          {
            name: 'columnar',
            columns: [],
            unique: false,
            definition: 'CREATE COLUMNSTORE INDEX [columnar] ON [dbo].[source] ([price])',
          },
        ],
      },
    );
    const made = design(source, target, ['id']);
    await make(made);
    expect(made.columns.map((one) => one.target)).to.deep.equal(['id', `odd "na'me.`, 'price', 'version']);
    expect(made.columns.at(-1)?.nativeType).to.equal('binary(8)');
    expect(made.leftOut.join('\n')).to.include('index columnar').and.not.include('by price');
    await database.query(`INSERT INTO dbo.made ([odd "na'me.], version) VALUES (N'x', 0x0000000000000001)`);
    const rows = await database.query(
      'SELECT id, CAST(price AS varchar(20)) AS price, CAST(twice AS varchar(20)) AS twice FROM dbo.made',
    );
    expect(rows).to.deep.equal([{ id: 1, price: '1.5000', twice: '3.0000' }]);
    const [indexes] = await database.query(
      `SELECT COUNT(*) AS n FROM sys.indexes WHERE object_id = OBJECT_ID('dbo.made') AND name IS NOT NULL`,
    );
    expect(Number(indexes?.['n'])).to.equal(2);
    expect(
      await database
        .query(`INSERT INTO dbo.made ([odd "na'me.]) VALUES (N'x')`)
        .catch((error: { code: string }) => error.code),
    ).to.equal('ROW_REFUSED');
  });

  it('what refers to other objects of the source is left out and said', () => {
    const made = design(
      table(
        [
          column('id', 'int', { default: '(NEXT VALUE FOR [dbo].[numbers])' }),
          column('a', 'int', { default: '([dbo].[f]())' }),
          column('b', 'nvarchar(10)', { default: "(N'a.b [c].[d]')" }),
          column('c', 'float', { default: '((1.5))' }),
          column('d', 'int', { nullable: true, generated: '([dbo].[g]([a]))' }),
        ],
        ['id'],
        { foreignKeys: ['fk'], triggers: ['tr'] },
      ),
      target,
      ['id'],
    );
    expect(made.leftOut.map((line) => /^\S+ \S+( \S+ \S+)?/.exec(line)?.[0])).to.include.members([
      'default of column id:',
      'default of column a:',
      'generated column d: its',
      'foreign key fk: not',
      'trigger tr: not carried',
    ]);
    expect(made.ddl[0]).to.include("DEFAULT (N'a.b [c].[d]')").and.include('DEFAULT ((1.5))').and.not.include('[g]');
  });

  it('a table of another engine: by logical type, its text keys by code points', async () => {
    const made = design(
      table(
        [
          foreign('id', { kind: 'text', length: 40, fixed: false, nul: false }),
          foreign('n', { kind: 'int', bits: 64, signed: true }, { identity: 'by default' }),
          foreign('t', { kind: 'text', length: null, fixed: false, nul: false }, { nullable: true }),
          foreign('at', { kind: 'timestamptz', fraction: 6, infinity: true, offset: false }, { default: 'now()' }),
        ],
        ['id'],
        { engine: 'postgres' },
      ),
      target,
      ['id'],
    );
    await make(made);
    await database.query(
      `INSERT INTO dbo.made (id, t, at) VALUES (N'a', NULL, '2020-01-01T00:00:00+02:00'), (N'A', N'x', '2020-01-01T00:00:00Z')`,
    );
    expect(await database.query('SELECT id, t FROM dbo.made ORDER BY id')).to.deep.equal([
      { id: 'A', t: 'x' },
      { id: 'a', t: null },
    ]);
    expect(made.leftOut).to.deep.equal(['default of column at: now()']);
  });

  it('a type or a key that there is not is a schema mismatch with the column’s name', () => {
    const text = foreign('k', { kind: 'text', length: null, fixed: false, nul: false });
    const of = (columns: Column[], key: string[]) => () =>
      design(table(columns, key, { engine: 'postgres' }), target, key);
    expect(messageOf(of([text], ['k']))).to.match(/^SCHEMA_MISMATCH: dbo.source: .*column k would be nvarchar\(max\)/);
    expect(messageOf(of([text], []))).to.equal('no error');
    expect(messageOf(of([foreign('span', { kind: 'interval' })], []))).to.match(/^SCHEMA_MISMATCH: .* span /);
    expect(messageOf(() => design(table([column('v', 'sql_variant')], []), target, []))).to.match(/^SCHEMA_MISMATCH/);
    const long = design(table([column('k', 'nvarchar(500)')], ['k']), target, ['k']);
    expect(long.ddl[1]).to.include('PRIMARY KEY NONCLUSTERED');
    const longer = design(table([column('k', 'nvarchar(1000)')], ['k']), target, ['k']);
    expect(longer.leftOut.join()).to.include('1700 bytes');
    expect(messageOf(() => design(table([column('k', 'nchar(1000)')], ['k']), target, ['k']))).to.match(/1700 bytes/);
  });

  it('a unique key that is not primary, and a clustered index beside it', () => {
    const source = table([column('k', 'int'), column('o', 'int')], [], {
      keys: [{ name: 'uq', columns: ['k'], primary: false, usable: true, loose: false }],
      indexes: [
        {
          name: 'cx',
          columns: ['o'],
          unique: false,
          definition: 'CREATE CLUSTERED INDEX [cx] ON [dbo].[source] ([o] ASC)',
        },
      ],
    });
    const made = design(source, target, ['k']);
    expect(keySql(made, target)).to.deep.equal(['CREATE UNIQUE NONCLUSTERED INDEX [uq] ON [dbo].[made] ([k])']);
    expect(indexSql(made, target)).to.deep.equal(['CREATE CLUSTERED INDEX [cx] ON [dbo].[made] ([o] ASC)']);
  });

  it('F26: a column is added once, NULL allowed, without its default; hints say type and collation again', async () => {
    await database.query('CREATE TABLE dbo.made (id int NOT NULL)');
    const source = table(
      [
        column('id', 'int'),
        column('added', 'varchar(10)', { default: "('x')", collation: 'Latin1_General_CI_AS' }),
        column('wider', 'nvarchar(50)'),
      ],
      ['id'],
    );
    const statements = addColumnSql(design(source, target, ['id']), target, ['added']);
    for (const statement of [...statements, ...statements]) await database.query(statement);
    await database.query('INSERT INTO dbo.made (id) VALUES (1)');
    expect(await database.query('SELECT id, added FROM dbo.made')).to.deep.equal([{ id: 1, added: null }]);
    expect(columnRemedies.addColumn(target, source, 'added')).to.deep.equal(statements);
    const here = column('added', 'varchar(10)', { collation: 'Latin1_General_CI_AS' });
    expect(columnRemedies.allowNull(target, here)).to.equal(
      'ALTER TABLE [dbo].[made] ALTER COLUMN [added] varchar(10) COLLATE Latin1_General_CI_AS NULL',
    );
    const [retype] = columnRemedies.retype(target, here, source, 'wider');
    expect(retype).to.equal('ALTER TABLE [dbo].[made] ALTER COLUMN [added] nvarchar(50) NOT NULL');
    // Babelfish cannot say NULL or NOT NULL there.
    if (database.server.kind === 'sqlserver') await database.query(retype?.replace('NOT NULL', 'NULL') ?? '');
  });
});
