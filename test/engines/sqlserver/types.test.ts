import { declare as declareInPostgres } from '../../../src/engines/postgres/types.ts';
import { expect } from 'chai';
import { declare, logicalType, nativeTypeOf, selectExpression } from '../../../src/engines/sqlserver/types.ts';
import { cannotHold } from '../../../src/model/types.ts';

/** sys.columns: name of the system type, max_length, precision, scale; the declaration. */
const NATIVE: [string, number, number, number, string][] = [
  ['bit', 1, 1, 0, 'bit'],
  ['decimal', 17, 38, 10, 'decimal(38,10)'],
  ['numeric', 9, 18, 0, 'numeric(18,0)'],
  ['money', 8, 19, 4, 'money'],
  ['float', 8, 53, 0, 'float'],
  ['time', 5, 16, 7, 'time(7)'],
  ['datetime', 8, 23, 3, 'datetime'],
  ['datetime2', 6, 19, 0, 'datetime2(0)'],
  ['datetimeoffset', 10, 34, 7, 'datetimeoffset(7)'],
  ['char', 10, 0, 0, 'char(10)'],
  ['varchar', -1, 0, 0, 'varchar(max)'],
  ['nvarchar', 100, 0, 0, 'nvarchar(50)'],
  ['nvarchar', -1, 0, 0, 'nvarchar(max)'],
  ['nchar', 20, 0, 0, 'nchar(10)'],
  ['sysname', 256, 0, 0, 'nvarchar(128)'],
  ['varbinary', -1, 0, 0, 'varbinary(max)'],
  ['timestamp', 8, 0, 0, 'rowversion'],
  ['uniqueidentifier', 16, 0, 0, 'uniqueidentifier'],
  ['hierarchyid', 892, 0, 0, 'hierarchyid'],
];

describe('SQL Server types', () => {
  for (const [name, maxLength, precision, scale, native] of NATIVE)
    it(`${native} is spelled as CREATE TABLE takes it, and what is made of its logical type holds its values`, () => {
      expect(nativeTypeOf({ name, maxLength, precision, scale })).to.equal(native);
      const type = logicalType(native);
      const declared = declare(type);
      expect(declared).to.be.a('string');
      expect(cannotHold(type, logicalType(declared ?? ''))).to.equal(null);
    });

  it('F36: other engines’ types that nothing here holds', () => {
    expect(declare({ kind: 'decimal', precision: null, scale: null, special: true })).to.equal(null);
    expect(declare({ kind: 'decimal', precision: 39, scale: 0, special: true })).to.equal(null);
    expect(declare({ kind: 'timestamp', fraction: 9, infinity: false })).to.equal(null);
    expect(declare({ kind: 'interval' })).to.equal(null);
    expect(declare({ kind: 'decimal', precision: 3, scale: 5, special: true })).to.equal('decimal(5,5)');
    expect(declare({ kind: 'decimal', precision: 3, scale: -2, special: true })).to.equal('decimal(5,0)');
    expect(declare({ kind: 'text', length: 10, fixed: true, nul: false })).to.equal('nvarchar(20)');
    expect(declare({ kind: 'text', length: 2001, fixed: false, nul: false })).to.equal('nvarchar(max)');
  });

  it('F36: PostgreSQL, which pads to characters, does not pad again what was padded to bytes or UTF-16 units', () => {
    expect(declareInPostgres(logicalType('char(4)', 1252))).to.equal('character(4)');
    expect(declareInPostgres(logicalType('char(4)', 65001))).to.equal('character varying(4)');
    expect(declareInPostgres(logicalType('char(4)', 932))).to.equal('character varying(4)');
    expect(declareInPostgres(logicalType('nchar(4)'))).to.equal('character varying(4)');
  });

  it('sql_variant and types that are not known go nowhere', () => {
    for (const native of ['sql_variant', 'vector'])
      expect(cannotHold(logicalType(native), logicalType(native))).to.be.a('string');
    expect(cannotHold(logicalType('geometry'), logicalType('geometry'))).to.equal(null);
  });

  it('text of a code page is converted by the server; long text is not cut by it', () => {
    expect(selectExpression('varchar(4000)', '[a]')).to.equal('CAST([a] AS nvarchar(4000))');
    expect(selectExpression('varchar(8000)', '[a]')).to.equal('CAST([a] AS nvarchar(max))');
    expect(selectExpression('nvarchar(10)', '[a]')).to.equal('[a]');
  });
});
