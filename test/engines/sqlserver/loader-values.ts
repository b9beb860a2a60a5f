/** Cells and what the server prints for the values they become (F30–F36). */
import type { Cell } from '../../../src/model/changes.ts';

export interface LoadCase {
  readonly type: string;
  /** What is read back, with `v` for the column. */
  readonly read: string;
  /** A cell, and the text it is read back as where that is another. */
  readonly values: readonly (Cell | readonly [Cell, string])[];
  /** Cells that are refused. */
  readonly refused: readonly Cell[];
  /** Values that Babelfish does not hold: PostgreSQL has microseconds, no U+0000, no half surrogate pairs. */
  readonly beyondBabelfish?: readonly (Cell | readonly [Cell, string])[];
}

const text = 'CAST(v AS varchar(60))';
const styled = (style: number) => `RTRIM(LTRIM(CONVERT(varchar(60), v, ${style})))`;
/** Babelfish sends char(n) of several bytes a character cut off. */
const unicode = 'CAST(v AS nvarchar(max))';
const own = 'v';
const utf8 = (value: string) => new Uint8Array(Buffer.from(value, 'utf8'));
const all256 = Uint8Array.from({ length: 256 }, (_, i) => i);

export const LOAD_CASES: readonly LoadCase[] = [
  {
    type: 'bit',
    read: text,
    values: [
      ['t', '1'],
      ['f', '0'],
      ['true', '1'],
      ['0', '0'],
    ],
    refused: ['2', '', 'yes'],
  },
  { type: 'tinyint', read: text, values: ['0', '255'], refused: ['256', '-1', '1.5', '', '12a'] },
  { type: 'smallint', read: text, values: ['-32768', '32767'], refused: ['32768', '-32769'] },
  {
    type: 'int',
    read: text,
    values: ['-2147483648', '2147483647', ['1.0', '1'], ['1E+3', '1000'], [utf8('42'), '42']],
    refused: ['2147483648', 'NaN', '0x10', '1E-1'],
  },
  {
    type: 'bigint',
    read: text,
    values: ['-9223372036854775808', '9223372036854775807', '9007199254740993', '0'],
    refused: ['9223372036854775808', '-9223372036854775809', '99999999999999999999999'],
  },
  {
    type: 'decimal(37,10)',
    read: text,
    values: [
      '999999999999999999999999999.9999999999',
      '-999999999999999999999999999.9999999999',
      ['-0', '0.0000000000'],
      ['.5', '0.5000000000'],
      '123456789012345678.1234567890',
      '-0.0000000001',
    ],
    refused: ['1000000000000000000000000000', '0.00000000001', 'NaN', 'Infinity', '', '.', '1,5', '1e30'],
  },
  {
    type: 'decimal(38,10)',
    read: text,
    values: ['1.1000000000'],
    refused: ['99999999999999999999999999999.5'],
    beyondBabelfish: ['9999999999999999999999999999.9999999999', '-9999999999999999999999999999.9999999999'],
  },
  {
    type: 'decimal(38,0)',
    read: text,
    values: ['1234567890123456789012345678901234567'],
    refused: ['100000000000000000000000000000000000000', '0.5'],
    beyondBabelfish: ['99999999999999999999999999999999999999'],
  },
  { type: 'numeric(5,2)', read: text, values: ['999.99', '-0.01', ['1.500', '1.50']], refused: ['1000', '0.001'] },
  {
    type: 'money',
    read: 'CAST(CAST(v AS decimal(19,4)) AS varchar(60))',
    values: ['-922337203685477.5808', '922337203685477.5807', '0.0001', ['-1', '-1.0000']],
    refused: ['922337203685477.5808', '-922337203685477.5809', '0.00001'],
  },
  {
    type: 'smallmoney',
    read: styled(2),
    values: ['-214748.3648', '214748.3647', '-1.0000', '-0.0001'],
    refused: ['214748.3648'],
  },
  {
    type: 'float',
    read: styled(3),
    values: [
      ['1.7976931348623157e308', '1.7976931348623157e+308'],
      ['5e-324', '4.9406564584124654e-324'],
      ['-0', '-0.0000000000000000e+00'],
      ['0.1', '1.0000000000000001e-01'],
      ['2.2250738585072014e-308', '2.2250738585072014e-308'],
      ['-1.5', '-1.5000000000000000e+00'],
    ],
    refused: ['NaN', 'Infinity', '-Infinity', '1e309', '1e-400', '', '0x1p3', '1_0'],
  },
  {
    type: 'real',
    read: 'RTRIM(LTRIM(CONVERT(varchar(60), CAST(v AS float), 3)))',
    values: [
      ['3.4028235e38', '3.4028234663852886e+38'],
      ['1e-45', '1.4012984643248171e-45'],
      ['0.1', '1.0000000149011612e-01'],
      ['-0', '-0.0000000000000000e+00'],
    ],
    refused: ['3.5e38', 'NaN', '1e-60'],
  },
  {
    type: 'date',
    read: styled(23),
    values: ['0001-01-01', '9999-12-31', '2024-02-29', '1900-01-01'],
    refused: ['2023-02-29', '0000-01-01', '10000-01-01', 'infinity', '2024-13-01', '2024-01-01 BC', '2024-01-01 00:00'],
  },
  {
    type: 'time(6)',
    read: 'CONVERT(varchar(15), v, 121)',
    values: ['23:59:59.999999', ['00:00', '00:00:00.000000'], ['12:34:56.5', '12:34:56.500000']],
    refused: ['24:00:00', '23:59:60', '12:34:56.1234567', '12:00:00+01'],
  },
  {
    type: 'time(7)',
    read: 'CONVERT(varchar(16), v, 121)',
    values: [],
    refused: ['12:34:56.12345678'],
    beyondBabelfish: ['23:59:59.9999999', '00:00:00.0000001'],
  },
  { type: 'time(0)', read: 'CONVERT(varchar(8), v, 121)', values: ['23:59:59'], refused: ['23:59:59.5'] },
  { type: 'time(3)', read: 'CONVERT(varchar(12), v, 121)', values: ['12:34:56.789'], refused: ['12:34:56.7891'] },
  {
    type: 'datetime',
    read: styled(121),
    values: [
      '1753-01-01 00:00:00.000',
      '9999-12-31 23:59:59.997',
      '1899-12-31 23:59:59.003',
      '2024-02-29 12:00:00.007',
      ['2024-02-29T12:00:00.0066667', '2024-02-29 12:00:00.007'],
    ],
    refused: ['1752-12-31 00:00:00', '2024-01-01 00:00:00.001', '2024-01-01 00:00:00.999', '2024-01-01 00:00:00.0034'],
  },
  {
    type: 'smalldatetime',
    read: 'CONVERT(varchar(19), v, 120)',
    values: ['1900-01-01 00:00:00', '2079-06-06 23:59:00'],
    refused: ['2024-01-01 00:00:01', '2079-06-07 00:00', '1899-12-31 23:59'],
  },
  {
    type: 'datetime2(6)',
    read: 'CONVERT(varchar(26), v, 121)',
    values: ['2024-02-29 12:00:01.123456', '9999-12-31 23:59:59.999999', '0001-01-01 00:00:00.000001'],
    refused: ['2024-01-01 00:00:00.0000001', '2024-01-01 24:00:00', '2024-01-01 00:00:00+00', '-0001-01-01 00:00:00'],
  },
  {
    type: 'datetime2(7)',
    read: 'CONVERT(varchar(27), v, 121)',
    values: [],
    refused: ['2024-01-01 00:00:00.00000001', 'infinity'],
    beyondBabelfish: ['0001-01-01 00:00:00.0000001', '9999-12-31 23:59:59.9999999'],
  },
  { type: 'datetime2(0)', read: 'CONVERT(varchar(19), v, 120)', values: ['2024-02-29 12:00:01'], refused: [] },
  {
    type: 'datetimeoffset(6)',
    read: 'CONVERT(varchar(40), v, 121)',
    values: [
      ['2024-03-31 01:30:00.123456+14:00', '2024-03-31 01:30:00.123456 +14:00'],
      ['2024-03-31 01:30:00.123456 -14:00', '2024-03-31 01:30:00.123456 -14:00'],
      ['0001-01-01 14:00:00.000001+14', '0001-01-01 14:00:00.000001 +14:00'],
      ['9999-12-31 09:59:59.999999-14:00', '9999-12-31 09:59:59.999999 -14:00'],
      ['2024-10-27 02:30:00.100001Z', '2024-10-27 02:30:00.100001 +00:00'],
      ['2024-01-01 00:00:00.000001-00:30', '2024-01-01 00:00:00.000001 -00:30'],
    ],
    refused: [
      '2024-01-01 00:00:00',
      '2024-01-01 00:00:00+14:01',
      '2024-01-01 00:00:00+00:53:28',
      '0001-01-01 13:59:59+14:00',
      '9999-12-31 23:59:59-00:01',
    ],
  },
  {
    type: 'uniqueidentifier',
    read: text,
    values: [
      ['00112233-4455-6677-8899-aabbccddeeff', '00112233-4455-6677-8899-AABBCCDDEEFF'],
      'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF',
    ],
    refused: [
      '00112233445566778899aabbccddeeff',
      '{0112233-4455-6677-8899-aabbccddeeff',
      '0011223g-4455-6677-8899-aabbccddeeff',
    ],
  },
  {
    type: 'nvarchar(8)',
    read: own,
    values: [
      '',
      'NULL',
      '\\N',
      'a\tb\nc\rd',
      '😀éé\u0301',
      ' x ',
      `"'\\`,
      '\ufeffbom',
      '日本語',
      [utf8('\ufeffü'), '\ufeffü'],
    ],
    refused: ['123456789', '😀😀😀😀😀', Uint8Array.of(0xff, 0xfe)],
    beyondBabelfish: ['a\0b', '\ud800', '\udc00x'],
  },
  { type: 'nchar(3)', read: own, values: ['a  ', '日本語', ['a', 'a  ']], refused: ['abcd'] },
  {
    type: 'nvarchar(max)',
    read: own,
    values: ['', 'x', 'ü'.repeat(100_000), '😀'.repeat(50_001), [utf8('ä'.repeat(9000)), 'ä'.repeat(9000)]],
    refused: [],
  },
  {
    type: 'varchar(8) COLLATE Latin1_General_CI_AS',
    read: unicode,
    values: ['', 'abcé€', '\u2019\u00ff', 'a\tb\nc\rd', [utf8('ü'), 'ü']],
    refused: ['123456789', '日', 'e\u0301', '😀', '\ud800'],
    beyondBabelfish: ['\u0081'],
  },
  { type: 'char(3)', read: unicode, values: ['a  ', 'é  '], refused: ['abcd', 'ł'] },
  { type: 'varchar(max)', read: unicode, values: ['', 'é€'.repeat(50_000)], refused: ['日'] },
  { type: 'varchar(8) COLLATE Cyrillic_General_CI_AS', read: unicode, values: ['Привет', 'abc'], refused: ['é'] },
  { type: 'varchar(8) COLLATE Japanese_CI_AS', read: unicode, values: ['日本ｱ語a'], refused: ['日本語日本', 'é'] },
  { type: 'varchar(8) COLLATE Chinese_PRC_CI_AS', read: unicode, values: ['汉字ab'], refused: ['汉字汉字汉', '😀'] },
  { type: 'varbinary(300)', read: own, values: [new Uint8Array(0), all256], refused: [new Uint8Array(301), '0x41'] },
  { type: 'binary(3)', read: own, values: [Uint8Array.of(0, 1, 255)], refused: [new Uint8Array(2), new Uint8Array(4)] },
  {
    type: 'varbinary(max)',
    read: own,
    values: [new Uint8Array(0), all256, new Uint8Array(100_000).fill(0xd1)],
    refused: [],
  },
  { type: 'text', read: 'CAST(v AS varchar(max))', values: ['abc é'], refused: ['日'], beyondBabelfish: [''] },
  { type: 'ntext', read: 'CAST(v AS nvarchar(max))', values: ['abc 😀'], refused: [], beyondBabelfish: [''] },
  {
    type: 'image',
    read: 'CAST(v AS varbinary(max))',
    values: [all256],
    refused: [],
    beyondBabelfish: [new Uint8Array(0)],
  },
  { type: 'xml', read: 'CAST(v AS nvarchar(max))', values: ['<a b="1">t &amp; ü</a>', 'plain'], refused: [] },
];
