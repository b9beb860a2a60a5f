import { expect } from 'chai';
import { parseTableName } from '../../src/cli/table-name.ts';
import { duration, table } from '../../src/cli/output.ts';

describe('plain output', () => {
  it('aligns columns, numbers to the right', () => {
    expect(
      table(
        ['name', 'rows'],
        [
          ['é', 5],
          ['long name', 12345],
        ],
      ),
    ).to.deep.equal(['name        rows', 'é              5', 'long name  12345']);
  });

  it('says durations', () => {
    expect([0.4, 59, 61, 3660, Infinity].map(duration)).to.deep.equal(['0 s', '59 s', '1 min 1 s', '1 h 1 min', '?']);
  });
});

describe('table names', () => {
  const names: [string, string | null, string][] = [
    ['orders', null, 'orders'],
    ['sales.Orders', 'sales', 'Orders'],
    ['"a.b"."c ""d"""', 'a.b', 'c "d"'],
    ['sales . orders', 'sales', 'orders'],
  ];
  for (const [text, schema, name] of names) {
    it(`understands ${text}`, () => expect(parseTableName(text)).to.deep.equal({ schema, table: name }));
  }
  for (const text of ['', 'a.', '.b', 'a.b.c', '"open', 'a"b']) {
    it(`refuses ${JSON.stringify(text)}`, () => expect(() => parseTableName(text)).to.throw(/is not a table name/));
  }
});
