/** Cells of other engines that the loader takes or refuses, by native type: beside the values of values.ts (F36). */
import type { Cell } from '../../../src/model/changes.ts';

export interface Loading {
  /** What is given, and the cell that is read back. */
  readonly spellings?: readonly (readonly [given: Cell, read: Cell])[];
  readonly refused?: readonly Cell[];
}

const utf8 = (value: string) => new Uint8Array(Buffer.from(value, 'utf8'));

export const LOADING: Readonly<Record<string, Loading>> = {
  bit: {
    spellings: [
      ['true', 't'],
      ['0', 'f'],
    ],
    refused: ['2', '', 'yes'],
  },
  tinyint: { refused: ['256', '-1', '1.5', '', '12a'] },
  smallint: { refused: ['32768', '-32769'] },
  int: {
    spellings: [
      ['1.0', '1'],
      ['1E+3', '1000'],
      [utf8('42'), '42'],
    ],
    refused: ['2147483648', 'NaN', '0x10', '1E-1'],
  },
  bigint: { refused: ['9223372036854775808', '-9223372036854775809', '99999999999999999999999'] },
  'decimal(37,10)': {
    spellings: [
      ['-0', '0.0000000000'],
      ['.5', '0.5000000000'],
    ],
    refused: ['1000000000000000000000000000', '0.00000000001', 'NaN', 'Infinity', '', '.', '1,5', '1e30'],
  },
  'decimal(38,10)': { refused: ['99999999999999999999999999999.5'] },
  'decimal(38,0)': { refused: ['100000000000000000000000000000000000000', '0.5'] },
  'numeric(5,2)': { spellings: [['1.500', '1.50']], refused: ['1000', '0.001'] },
  money: { spellings: [['-1', '-1.0000']], refused: ['922337203685477.5808', '-922337203685477.5809', '0.00001'] },
  smallmoney: { refused: ['214748.3648'] },
  float: { refused: ['NaN', 'Infinity', '-Infinity', '1e309', '1e-400', '', '0x1p3', '1_0'] },
  real: { refused: ['3.5e38', 'NaN', '1e-60'] },
  date: {
    refused: ['2023-02-29', '0000-01-01', '10000-01-01', 'infinity', '2024-13-01', '2024-01-01 BC', '2024-01-01 00:00'],
  },
  'time(0)': { refused: ['23:59:59.5'] },
  'time(3)': { refused: ['12:34:56.7891'] },
  'time(6)': {
    spellings: [['00:00', '00:00:00']],
    refused: ['24:00:00', '23:59:60', '12:34:56.1234567', '12:00:00+01'],
  },
  'time(7)': { refused: ['12:34:56.12345678'] },
  datetime: {
    spellings: [['2024-02-29T12:00:00.0066667', '2024-02-29 12:00:00.007']],
    refused: ['1752-12-31 00:00:00', '2024-01-01 00:00:00.001', '2024-01-01 00:00:00.999', '2024-01-01 00:00:00.0034'],
  },
  smalldatetime: { refused: ['2024-01-01 00:00:01', '2079-06-07 00:00', '1899-12-31 23:59'] },
  'datetime2(6)': {
    refused: ['2024-01-01 00:00:00.0000001', '2024-01-01 24:00:00', '2024-01-01 00:00:00+00', '-0001-01-01 00:00:00'],
  },
  'datetime2(7)': { refused: ['2024-01-01 00:00:00.00000001', 'infinity'] },
  'datetimeoffset(6)': {
    spellings: [
      ['2024-03-31 01:30:00.123456+14:00', '2024-03-31 01:30:00.123456+14'],
      ['2024-03-31 01:30:00.123456 -14:00', '2024-03-31 01:30:00.123456-14'],
      ['2024-10-27 02:30:00.100001Z', '2024-10-27 02:30:00.100001+00'],
    ],
    refused: [
      '2024-01-01 00:00:00',
      '2024-01-01 00:00:00+14:01',
      '2024-01-01 00:00:00+00:53:28',
      '0001-01-01 13:59:59+14:00',
      '9999-12-31 23:59:59-00:01',
    ],
  },
  uniqueidentifier: {
    spellings: [['00112233-4455-6677-8899-AABBCCDDEEFF', '00112233-4455-6677-8899-aabbccddeeff']],
    refused: [
      '00112233445566778899aabbccddeeff',
      '{0112233-4455-6677-8899-aabbccddeeff',
      '0011223g-4455-6677-8899-aabbccddeeff',
    ],
  },
  'nvarchar(8)': {
    spellings: [[utf8('\ufeffü'), '\ufeffü']],
    refused: ['123456789', '😀😀😀😀😀', Uint8Array.of(0xff, 0xfe)],
  },
  'nchar(4)': { spellings: [['a', 'a   ']], refused: ['abcde'] },
  'nvarchar(max)': { spellings: [[utf8('ä'.repeat(9000)), 'ä'.repeat(9000)]] },
  'varchar(8) COLLATE Latin1_General_CI_AS': {
    spellings: [[utf8('ü'), 'ü']],
    refused: ['123456789', '日', 'e\u0301', '😀', '\ud800'],
  },
  'char(3)': { refused: ['abcd', 'ł'] },
  'varchar(max)': { refused: ['日'] },
  'varchar(8) COLLATE Cyrillic_General_CI_AS': { refused: ['é'] },
  'varchar(8) COLLATE Japanese_CI_AS': { refused: ['日本語日本', 'é'] },
  'varchar(8) COLLATE Chinese_PRC_CI_AS': { refused: ['汉字汉字汉', '😀'] },
  'varbinary(300)': { refused: [new Uint8Array(301), '0x41'] },
  'binary(3)': { refused: [new Uint8Array(2), new Uint8Array(4)] },
  text: { refused: ['日'] },
};
