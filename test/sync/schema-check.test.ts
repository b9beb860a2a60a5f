import { expect } from 'chai';
import { checkSchema, type SchemaCheckRequest } from '../../src/sync/schema-check.ts';
import type { Column, Key, Table } from '../../src/model/tables.ts';
import type { LogicalType } from '../../src/model/types.ts';

const INT: LogicalType = { kind: 'int', bits: 32, signed: true };
const TEXT: LogicalType = { kind: 'text', length: null, fixed: false, nul: false };

function column(name: string, more: Partial<Column> = {}): Column {
  return {
    name,
    nativeType: 'integer',
    type: INT,
    nullable: true,
    generated: null,
    identity: null,
    default: null,
    collation: null,
    ...more,
  };
}

function key(columns: string[], more: Partial<Key> = {}): Key {
  return { name: `${columns.join('_')}_key`, columns, primary: false, usable: true, loose: false, ...more };
}

function table(columns: Column[], keys: Key[] = [], more: Partial<Table> = {}): Table {
  return {
    engine: 'one',
    name: { schema: 's', table: 't' },
    id: '1',
    kind: 'table',
    columns,
    keys,
    indexes: [],
    triggers: [],
    foreignKeys: [],
    referencedBy: [],
    estimatedRows: null,
    bytes: 0,
    ...more,
  };
}

const id = column('id', { nullable: false });
const primary = key(['id'], { name: 'pk', primary: true });
const check = (source: Table, target: Table | null, more: Partial<SchemaCheckRequest> = {}) =>
  checkSchema({ source, target, key: null, cdc: true, suspends: { triggers: true, foreignKeys: true }, ...more });
const briefly = (source: Table, target: Table | null, more: Partial<SchemaCheckRequest> = {}) =>
  check(source, target, more).findings.map((one) => `${one.severity} ${one.code}: ${one.message}`);

describe('schema check', () => {
  const plain = table([id, column('a')], [primary]);

  it('carries every column of a table that is made by us', () => {
    const result = check(table([id, column('a'), column('g', { generated: 'a * 2' })], [primary]), null);
    expect(result.findings).to.deep.equal([]);
    expect(result.columns).to.deep.equal([
      { source: 'id', target: 'id' },
      { source: 'a', target: 'a' },
    ]);
    expect(result.key).to.deep.equal(['id']);
  });

  it('matches names exactly first, then in any case if that is one column', () => {
    const source = table([column('Id', { nullable: false }), column('a'), column('A')], [key(['Id'])]);
    const target = table([column('ID', { nullable: false }), column('A'), column('a')], [key(['ID'])]);
    expect(check(source, target).columns).to.deep.equal([
      { source: 'Id', target: 'ID' },
      { source: 'a', target: 'a' },
      { source: 'A', target: 'A' },
    ]);
    const unclear = table([id, column('AB'), column('ab')], [primary]);
    expect(briefly(table([id, column('Ab')], [primary]), unclear)).to.deep.equal([
      'error SCHEMA_MISMATCH: column Ab of s.t: missing',
    ]);
  });

  it('F29: a column that the destination lacks', () => {
    expect(briefly(plain, table([id], [primary]))).to.deep.equal(['error SCHEMA_MISMATCH: column a of s.t: missing']);
  });

  it('a column of the destination that nothing fills', () => {
    const extra = (more: Partial<Column>) =>
      briefly(plain, table([id, column('a'), column('x', { nullable: false, ...more })], [primary]));
    expect(extra({})[0]).to.match(/column x of s.t: the source has no such column/);
    for (const more of [{ default: '0' }, { identity: 'always' as const }, { generated: 'a' }, { nullable: true }])
      expect(extra(more)).to.deep.equal([]);
  });

  it('F36: a type that cannot hold the values; the same native type always does', () => {
    const wide = table(
      [id, column('a', { nativeType: 'bigint', type: { kind: 'int', bits: 64, signed: true } })],
      [primary],
    );
    expect(briefly(wide, plain)[0]).to.match(/column a of s.t: bigint does not go into integer: 64-bit integers/);
    const odd = (engine: string) =>
      table([id, column('a', { nativeType: 'odd', type: { kind: 'opaque', engine, native: 'odd' } })], [primary], {
        engine,
      });
    expect(briefly(odd('one'), odd('one'))).to.deep.equal([]);
    expect(briefly(odd('one'), odd('two'))[0]).to.match(/only goes to the same type/);
    const stuck: LogicalType = { kind: 'opaque', engine: 'one', native: 'odd', untransportable: 'nothing carries it' };
    const never = table([id, column('a', { nativeType: 'odd', type: stuck })], [primary]);
    expect(briefly(never, never)[0]).to.match(/column a of s.t: .*nothing carries it/);
  });

  it('a column is as the destination declares it: it takes what it can', () => {
    const uuid = table([id, column('u', { nativeType: 'uuid', type: { kind: 'uuid' } })], [primary]);
    const made = table([id, column('u', { nativeType: 'char(36)' })], [primary]);
    const design = () => ({
      target: made.name,
      columns: [{ source: 'u', target: 'u', nativeType: 'char(36)', type: { kind: 'uuid' } as const }],
      key: ['id'],
      ddl: [],
      leftOut: [],
    });
    expect(briefly(uuid, made)).to.have.length(1);
    expect(briefly(uuid, made, { design })).to.deep.equal([]);
    const other = table([id, column('u', { nativeType: 'char(40)' })], [primary]);
    expect(briefly(uuid, other, { design })).to.have.length(1);
  });

  it('F27: a column that the engine alone writes is carried, but not into another such', () => {
    const version = (selfWritten: boolean) => table([id, column('a', { nullable: false, selfWritten })], [primary]);
    expect(briefly(version(true), version(false))).to.deep.equal([]);
    expect(briefly(version(true), version(true))[0]).to.match(/column a of s.t: only the server writes it/);
    expect(briefly(version(false), version(true))[0]).to.match(/column a of s.t: only the server writes it/);
    expect(briefly(table([id], [primary]), version(true))).to.deep.equal([]);
  });

  it('F34: labels are compared even under one name', () => {
    const mood = (...labels: string[]) =>
      table([id, column('a', { nativeType: 's.mood', type: { kind: 'enum', labels } })], [primary]);
    expect(briefly(mood('a', 'b'), mood('b', 'a', 'c'))).to.deep.equal([]);
    expect(briefly(mood('a', 'b', 'c'), mood('a', 'b'))[0]).to.match(/lacks 1 of the labels/);
  });

  it('F35: NULL at the source, NOT NULL at the destination', () => {
    const strict = table([id, column('a', { nullable: false, default: '0' })], [primary]);
    expect(briefly(plain, strict)[0]).to.match(/column a of s.t: it is NOT NULL here/);
    expect(briefly(strict, plain)).to.deep.equal([]);
  });

  it('F27: generated columns', () => {
    const generated = (expression: string | null, engine = 'one') =>
      table([id, column('a', { generated: expression })], [primary], { engine });
    expect(briefly(generated('x'), generated('x'))).to.deep.equal([]);
    expect(check(generated('x'), generated('x')).columns).to.have.length(1);
    expect(briefly(generated('x'), generated('y'))[0]).to.match(
      /generated at the source and not by the same expression/,
    );
    expect(briefly(generated('x'), generated('x', 'two'))[0]).to.match(/not by the same expression/);
    expect(briefly(generated('x'), generated(null))[0]).to.match(/not by the same expression/);
    expect(briefly(generated('x'), table([id], [primary]))[0]).to.match(/missing; it is generated at the source/);
    expect(briefly(generated(null), generated('x'))[0]).to.match(/generated here and an ordinary column/);
  });

  it('F45: identity is overridden; triggers and foreign keys must be suspended', () => {
    const target = table([column('id', { nullable: false, identity: 'always' }), column('a')], [primary], {
      triggers: ['tr'],
      foreignKeys: ['fk'],
      referencedBy: ['s.child.fk2'],
    });
    expect(briefly(plain, target)).to.deep.equal([]);
    const [error, ...others] = briefly(plain, target, { suspends: { triggers: false, foreignKeys: false } });
    expect(others).to.deep.equal([]);
    expect(error).to.match(
      /^error DESTINATION_GUARDED: s.t has enabled triggers \(tr\), foreign keys \(fk\), .*s.child.fk2/,
    );
  });

  describe('F25: key', () => {
    it('is required to follow changes, not to copy', () => {
      const without = table([column('a')], [key(['a'], { usable: false })]);
      expect(briefly(without, null)[0]).to.match(/^error KEY_REQUIRED/);
      expect(briefly(without, without, { cdc: false })).to.deep.equal([]);
      expect(check(without, without, { cdc: false }).key).to.deep.equal([]);
    });

    it('is the primary key, else the first usable one, preferring one that the destination has', () => {
      const code = column('code', { nullable: false, nativeType: 'text', type: TEXT });
      const source = table([id, code], [primary, key(['code'])]);
      expect(check(source, source).key).to.deep.equal(['id']);
      const target = table([id, code], [key(['code'])]);
      expect(check(source, target).key).to.deep.equal(['code']);
      expect(briefly(source, target)).to.deep.equal([]);
      expect(briefly(source, table([id, code]))[0]).to.match(
        /^error KEY_INVALID: s.t has no primary key or unique index on exactly \(id\)/,
      );
    });

    it('may be named, in any order and any case if unambiguous', () => {
      const source = table([column('A', { nullable: false }), column('b', { nullable: false })], [key(['A', 'b'])]);
      expect(check(source, source, { key: ['b', 'a'] }).key).to.deep.equal(['b', 'A']);
      expect(briefly(source, source, { key: ['a'] })[0]).to.match(/^error KEY_INVALID: .* exactly \(A\)/);
      expect(briefly(source, source, { key: ['zzz'] })[0]).to.match(/^error KEY_INVALID: s.t has no column zzz/);
    });

    it('must not be looser at the destination', () => {
      const loose = table([id, column('a')], [{ ...primary, loose: true }]);
      expect(briefly(plain, loose)[0]).to.match(/^error KEY_INVALID: s.t: index pk on \(id\) takes values for equal/);
      expect(briefly(loose, loose)).to.deep.equal([]);
      expect(briefly(loose, plain)).to.deep.equal([]);
      const both = table([id, column('a')], [{ ...primary, loose: true }, key(['id'])]);
      expect(briefly(plain, both)).to.deep.equal([]);
    });

    it('cannot lie on a column that is not carried', () => {
      const source = table([column('g', { nullable: false, generated: 'x' })], [key(['g'])]);
      expect(briefly(source, null)[0]).to.match(/^error KEY_REQUIRED/);
    });
  });

  it('views can be copied, not followed', () => {
    const view = table([id], [primary], { kind: 'other' });
    expect(briefly(view, plain, { cdc: false })).to.deep.equal([]);
    expect(briefly(view, null)[0]).to.match(/^error CAPABILITY_MISSING/);
  });
});
