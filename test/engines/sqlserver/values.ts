/**
 * Values of every native type as SQL, and the exact cells that a copy, the change stream and the server's own print make of them
 * (F30–F34). The one list of the tests: reading (rows.test.ts), loading (loader.test.ts) and whole mappings (test/values).
 */
import type { Cell } from '../../../src/model/changes.ts';

export interface ServerValue {
  readonly cell: Cell;
  /** An expression; absent: the cell's text, cast. */
  readonly sql?: string;
  /** What Babelfish cannot do with it: hold it at all, or take it in a bulk load. */
  readonly beyond?: 'hold' | 'load';
}

export interface ServerCase {
  readonly type: string;
  readonly values: readonly ServerValue[];
  /** Babelfish does not have the type. */
  readonly sqlServerOnly?: boolean;
}

const of = (...cells: Cell[]): ServerValue[] => cells.map((cell) => ({ cell }));
/** PostgreSQL, which is below a Babelfish, has microseconds, no U+0000 and no half surrogate pairs. */
const beyond = (...cells: Cell[]): ServerValue[] => cells.map((cell) => ({ cell, beyond: 'hold' }));
/** Babelfish's bulk load overruns a buffer with 38 digits, and makes NULL of empty text, ntext and image. */
const notLoaded = (...cells: Cell[]): ServerValue[] => cells.map((cell) => ({ cell, beyond: 'load' }));
/** What the server makes of the text by its own rounding. */
const rounded = (text: string, cell: string): ServerValue => ({ cell, sql: `'${text}'` });

export const ALL_BYTES = Uint8Array.from({ length: 256 }, (_, i) => i);
const DIGITS = [0, 1, 2, 3, 4, 5, 6, 7];

const fractions = (
  name: string,
  make: (fraction: (digit: string, last?: string) => string) => string[],
): ServerCase[] =>
  DIGITS.map((digits) => ({
    type: `${name}(${digits})`,
    values: make((digit, last = digit) => (digits === 0 ? '' : `.${digit.repeat(digits - 1)}${last}`)).map((cell) =>
      // A fraction of zeros is not part of a cell.
      digits === 7 ? { cell, beyond: 'hold' } : { cell: cell.replace(/\.0+(?=\D|$)/, '') },
    ),
  }));

export const SERVER_VALUES: readonly ServerCase[] = [
  {
    type: 'bit',
    values: [
      { cell: 't', sql: '1' },
      { cell: 'f', sql: '0' },
    ],
  },
  { type: 'tinyint', values: of('0', '255') },
  { type: 'smallint', values: of('-32768', '32767') },
  { type: 'int', values: of('-2147483648', '2147483647', '0') },
  {
    type: 'bigint',
    values: of('-9223372036854775808', '9223372036854775807', '9007199254740993', '-9007199254740993', '-1', '0'),
  },
  {
    type: 'decimal(37,10)',
    values: of(
      '999999999999999999999999999.9999999999',
      '-999999999999999999999999999.9999999999',
      '0.0000000000',
      '123456789012345678.1234567890',
      '-0.0000000001',
    ),
  },
  {
    type: 'decimal(38,10)',
    values: [
      ...of('1.1000000000'),
      ...notLoaded('9999999999999999999999999999.9999999999', '-9999999999999999999999999999.9999999999'),
    ],
  },
  {
    type: 'decimal(38,0)',
    values: [
      ...of('1234567890123456789012345678901234567', '0'),
      ...notLoaded('99999999999999999999999999999999999999', '-99999999999999999999999999999999999999'),
    ],
  },
  {
    type: 'decimal(38,38)',
    values: [
      ...of('-0.00000000000000000000000000000000000001'),
      ...notLoaded('0.99999999999999999999999999999999999999', '-0.99999999999999999999999999999999999999'),
    ],
  },
  { type: 'numeric(18,0)', values: of('-999999999999999999', '0') },
  { type: 'numeric(5,2)', values: of('999.99', '-0.01', '1.50') },
  {
    type: 'money',
    values: of('-922337203685477.5808', '922337203685477.5807', '0.0001', '-0.0001', '-1.0000'),
  },
  { type: 'smallmoney', values: of('-214748.3648', '214748.3647', '-1.0000', '-0.0001') },
  {
    type: 'float',
    values: [
      ...of('1.7976931348623157e+308', '-1.7976931348623157e+308', '5e-324', '2.2250738585072014e-308', '0.1', '-1.5'),
      ...of('123456789012345', '1e+15', '-1e-05'),
      { cell: '-0', sql: 'CAST(-1 AS float) * CAST(0 AS float)' },
    ],
  },
  {
    type: 'real',
    values: [
      ...of('3.4028235e+38', '-3.4028235e+38', '1e-45', '0.1', '1.6777216e+07', '123456'),
      { cell: '-0', sql: 'CAST(-1 AS real) * CAST(0 AS real)' },
    ],
  },
  { type: 'date', values: of('0001-01-01', '9999-12-31', '2024-02-29', '1900-03-01') },
  ...fractions('time', (at) => [`00:00:00${at('0')}`, `00:00:00${at('0', '1')}`, `23:59:59${at('9')}`]),
  { type: 'smalldatetime', values: [...of('1900-01-01 00:00:00', '2079-06-06 23:59:00')] },
  {
    type: 'datetime',
    values: [
      ...of('1753-01-01 00:00:00', '9999-12-31 23:59:59.997', '1899-12-31 23:59:59.003', '2024-02-29 12:00:00.007'),
      rounded('2024-12-31T23:59:59.999', '2025-01-01 00:00:00'),
      rounded('2024-02-29T12:00:00.005', '2024-02-29 12:00:00.007'),
      rounded('2024-02-29T12:00:00.001', '2024-02-29 12:00:00'),
    ],
  },
  ...fractions('datetime2', (at) => [
    `0001-01-01 00:00:00${at('0', '1')}`,
    `9999-12-31 23:59:59${at('9')}`,
    `2024-03-31 02:30:00${at('1', '2')}`,
  ]),
  ...fractions('datetimeoffset', (at) => [
    `2024-03-31 01:30:00${at('1', '3')}+14`,
    `2024-03-31 01:30:00${at('1', '3')}-14`,
    `0001-01-01 14:00:00${at('0', '1')}+14`,
    `9999-12-31 09:59:59${at('9')}-14`,
    `2024-01-01 00:30:00${at('5')}+05:30`,
    `2024-01-01 00:00:00${at('0', '1')}-00:30`,
    `2024-10-27 02:30:00${at('1')}+00`,
  ]),
  {
    type: 'uniqueidentifier',
    values: of(
      '00112233-4455-6677-8899-aabbccddeeff',
      'ffffffff-ffff-ffff-ffff-ffffffffffff',
      '00000000-0000-0000-0000-0000000000ff',
      'ff000000-0000-0000-0000-000000000000',
    ),
  },
  {
    type: 'nvarchar(8)',
    values: [
      ...of('', 'NULL', '\\N', 'a\tb\nc\rd', '😀éé\u0301', ' x ', `"'\\`, '\ufeffbom', '日本語', '\ufeffü', 'a  '),
      ...of('\u200b\u0085\u2028', '\u0001\u007f'),
      ...beyond('a\0b', '\ud800', '\udc00x'),
    ],
  },
  { type: 'nchar(4)', values: of('a   ', '日本語 ', 'é😀 ', '😀😀', '    ') },
  {
    type: 'nvarchar(max)',
    values: of('', 'x', 'ü'.repeat(100_000), '😀'.repeat(50_001), ' \t\r\n '),
  },
  {
    type: 'varchar(8) COLLATE Latin1_General_CI_AS',
    values: [
      ...of('', 'abcé€', '\u2019\u00ff', 'a\tb\nc\rd', 'a  '),
      ...of('NULL', '\\N'),
      { cell: '\u0081', beyond: 'hold' },
    ],
  },
  { type: 'char(3)', values: of('a  ', 'é  ', '   ') },
  { type: 'varchar(max)', values: of('', 'é€'.repeat(50_000), 'x'.repeat(8001)) },
  { type: 'varchar(8) COLLATE Cyrillic_General_CI_AS', values: of('Привет', 'abc') },
  { type: 'varchar(8) COLLATE Japanese_CI_AS', values: of('日本ｱ語a') },
  { type: 'varchar(8) COLLATE Chinese_PRC_CI_AS', values: of('汉字ab') },
  { type: 'varchar(8) COLLATE Latin1_General_100_CI_AS_SC_UTF8', values: of('😀日a', 'é '), sqlServerOnly: true },
  { type: 'varbinary(300)', values: of(new Uint8Array(0), ALL_BYTES, Uint8Array.of(0, 0)) },
  { type: 'binary(3)', values: of(Uint8Array.of(0, 1, 255), Uint8Array.of(0, 0, 0)) },
  { type: 'varbinary(max)', values: of(new Uint8Array(0), ALL_BYTES, new Uint8Array(100_000).fill(0xd1)) },
  { type: 'text', values: [...of('abc é'), ...notLoaded('')] },
  { type: 'ntext', values: [...of('abc 😀'), ...notLoaded('')] },
  { type: 'image', values: [...of(ALL_BYTES), ...notLoaded(new Uint8Array(0))] },
  { type: 'xml', values: of('<a b="1">t &amp; ü</a>', 'plain') },
];

const isText = (type: string) => /^(n?(var)?char|n?text|xml)\b/.test(type);
const isBytes = (type: string) => /^((var)?binary|image)\b/.test(type);

/** The value as an expression. */
export function sqlOf(type: string, { cell, sql }: ServerValue): string {
  if (sql !== undefined) return sql;
  if (cell === null) return 'NULL';
  if (cell instanceof Uint8Array) return `0x${Buffer.from(cell).toString('hex')}`;
  if (isText(type)) return unicodeLiteral(cell);
  // The only form of a datetime that no language setting reads otherwise.
  if (/^(small)?datetime$/.test(type)) return `'${cell.replace(' ', 'T')}'`;
  // An offset is written with its minutes.
  if (type.startsWith('datetimeoffset')) return `'${cell.replace(/([+-]\d\d)$/, '$1:00')}'`;
  return `'${cell}'`;
}

/** Characters that no literal holds are joined to it. */
function unicodeLiteral(text: string): string {
  const parts = text.split(/(\0|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff])/);
  const one = (part: string, i: number) =>
    i % 2 === 1 ? `NCHAR(${part.charCodeAt(0)})` : `N'${part.replaceAll("'", "''")}'`;
  return parts.length === 1 ? one(text, 0) : `CONCAT(${parts.map(one).join(', ')})`;
}

/** What the server is asked to print of a column of the type. */
export function printedSql(type: string, column: string): string {
  if (isBytes(type) || type === 'rowversion') return `CAST(${column} AS varbinary(max))`;
  // A cast of nchar gives Babelfish's stored form, which a bulk load has not padded.
  if (type.startsWith('nchar')) return column;
  // Babelfish sends char(n) of several bytes a character cut off.
  if (isText(type)) return `CAST(${column} AS nvarchar(max))`;
  switch (/^[a-z0-9]+/.exec(type)?.[0]) {
    case 'money':
      return `CAST(CAST(${column} AS decimal(19,4)) AS varchar(60))`;
    case 'smallmoney':
      return `CONVERT(varchar(60), ${column}, 2)`;
    case 'float':
      return `CONVERT(varchar(60), ${column}, 3)`;
    case 'real':
      return `CONVERT(varchar(60), CAST(${column} AS float), 3)`;
    case 'date':
      return `CONVERT(varchar(60), ${column}, 23)`;
    case 'smalldatetime':
      return `CONVERT(varchar(60), ${column}, 120)`;
    case 'time':
    case 'datetime':
    case 'datetime2':
    case 'datetimeoffset':
      return `CONVERT(varchar(60), ${column}, 121)`;
    default:
      return `CAST(${column} AS varchar(60))`;
  }
}

/** What the server printed, as the cell that it is. */
export function cellPrinted(type: string, printed: unknown): Cell {
  if (printed === null || printed instanceof Uint8Array) return printed;
  if (typeof printed !== 'string') throw new Error(`${type} was printed as ${typeof printed}`);
  const text = printed;
  if (isText(type)) return text;
  const trimmed = text.trim();
  switch (/^[a-z0-9]+/.exec(type)?.[0]) {
    case 'bit':
      return trimmed === '1' ? 't' : 'f';
    case 'uniqueidentifier':
      return trimmed.toLowerCase();
    case 'time':
    case 'datetime':
    case 'datetime2':
    case 'datetimeoffset':
      return trimmed
        .replace(/(\.\d*?)0+(?!\d)/, '$1')
        .replace(/\.(?!\d)/, '')
        .replace(/ ([+-]\d\d:\d\d)$/, '$1')
        .replace(/([+-]\d\d):00$/, '$1');
    default:
      return trimmed;
  }
}

/** Equal exactly when two cells of the type are the same value: a float may be printed in more digits than it needs. */
export function comparable(type: string, cell: Cell): string {
  if (cell === null) return 'NULL';
  if (cell instanceof Uint8Array) return `0x${Buffer.from(cell).toString('hex')}`;
  if (type === 'real' && cell !== '') return Buffer.from(Float32Array.of(Number(cell)).buffer).toString('hex');
  if (type === 'float' && cell !== '') return Buffer.from(Float64Array.of(Number(cell)).buffer).toString('hex');
  return JSON.stringify(cell);
}
