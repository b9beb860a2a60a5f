/** Defaults that are constants, as each server prints them. */
import { expect } from 'chai';
import * as mysql from '../../src/engines/mysql/defaults.ts';
import * as postgres from '../../src/engines/postgres/defaults.ts';
import * as sqlserver from '../../src/engines/sqlserver/defaults.ts';
import type { Constant } from '../../src/model/tables.ts';

const number = (text: string): Constant => ({ kind: 'number', text });
const text = (value: string): Constant => ({ kind: 'text', text: value });
const now: Constant = { kind: 'now' };

const CASES: readonly (readonly [
  string,
  (printed: string | null) => Constant | null,
  readonly (readonly [string, Constant | null])[],
])[] = [
  [
    'PostgreSQL',
    postgres.constantOf,
    [
      ['0', number('0')],
      ["'-7'::integer", text('-7')],
      ["'it''s'::character varying(20)", text("it's")],
      ["''::text", text('')],
      ['true', { kind: 'boolean', value: true }],
      ['now()', now],
      ['CURRENT_TIMESTAMP(3)', now],
      ["nextval('s'::regclass)", null],
      ["E'a\\\\b'::text", null],
      ["('now'::text)::date", null],
      ["'a'::text || 'b'::text", null],
      ['(1 + 2)', null],
    ],
  ],
  [
    'MariaDB',
    mysql.constantOf,
    [
      ['-7', number('-7')],
      ["'it''s'", text("it's")],
      ["b'1'", { kind: 'boolean', value: true }],
      ['current_timestamp(3)', now],
      ['uuid()', null],
      ["concat('a','b')", null],
    ],
  ],
  [
    'SQL Server',
    sqlserver.constantOf,
    [
      ['((0))', number('0')],
      ['((-7))', number('-7')],
      ["(N'it''s')", text("it's")],
      ["('')", text('')],
      ['(getdate())', now],
      ["CAST('-7' AS int)", text('-7')],
      ["CAST(('x') AS nvarchar(1))", text('x')],
      ['(newid())', null],
      ['(sysutcdatetime())', null],
      ["('a'+'b')", null],
      ['((1)+(2))', null],
      ['(NEXT VALUE FOR [dbo].[s])', null],
    ],
  ],
];

describe('constants as defaults', () => {
  for (const [engine, constantOf, printed] of CASES)
    it(`of ${engine}`, () => {
      for (const [each, constant] of printed) expect(constantOf(each), each).to.deep.equal(constant);
      expect(constantOf(null)).to.equal(null);
    });
});
