/** Values of every native type, as SQL and as the exact cell that a copy and the change stream must both make of them (F30–F34). */
export interface ValueCase {
  readonly type: string;
  /** SQL and the cell; a Buffer for bytes. */
  readonly values: readonly (readonly [sql: string, cell: string | Buffer])[];
  /** Where only one of the two servers has the type, or the value. */
  readonly only?: 'mariadb' | 'mysql';
}

const ALL_BYTES = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
const hex = (text: string) => Buffer.from(text, 'hex');

export const VALUES: readonly ValueCase[] = [
  {
    type: 'tinyint',
    values: [
      ['-128', '-128'],
      ['127', '127'],
      ['0', '0'],
    ],
  },
  {
    type: 'tinyint(1)',
    values: [
      ['1', '1'],
      ['-7', '-7'],
    ],
  },
  {
    type: 'tinyint unsigned',
    values: [
      ['255', '255'],
      ['0', '0'],
    ],
  },
  {
    type: 'smallint',
    values: [
      ['-32768', '-32768'],
      ['32767', '32767'],
    ],
  },
  { type: 'smallint unsigned', values: [['65535', '65535']] },
  {
    type: 'mediumint',
    values: [
      ['-8388608', '-8388608'],
      ['8388607', '8388607'],
    ],
  },
  { type: 'mediumint unsigned', values: [['16777215', '16777215']] },
  {
    type: 'int',
    values: [
      ['-2147483648', '-2147483648'],
      ['2147483647', '2147483647'],
    ],
  },
  { type: 'int unsigned', values: [['4294967295', '4294967295']] },
  {
    type: 'int(8) unsigned zerofill',
    values: [
      ['42', '42'],
      ['0', '0'],
    ],
  },
  {
    type: 'bigint',
    values: [
      ['-9223372036854775808', '-9223372036854775808'],
      ['9007199254740993', '9007199254740993'],
    ],
  },
  {
    type: 'bigint unsigned',
    values: [
      ['18446744073709551615', '18446744073709551615'],
      ['9223372036854775808', '9223372036854775808'],
    ],
  },
  {
    type: 'decimal(65,30)',
    values: [
      [
        "'-99999999999999999999999999999999999.999999999999999999999999999999'",
        '-99999999999999999999999999999999999.999999999999999999999999999999',
      ],
      ["'0.000000000000000000000000000001'", '0.000000000000000000000000000001'],
    ],
  },
  {
    type: 'decimal(10,0)',
    values: [
      ['-1234567890', '-1234567890'],
      ['0', '0'],
    ],
  },
  {
    type: 'decimal(10,2)',
    values: [
      ['-0.05', '-0.05'],
      ['12345678.90', '12345678.90'],
    ],
  },
  { type: 'decimal(10,10)', values: [['0.0123456789', '0.0123456789']] },
  {
    type: 'decimal(9,3) unsigned zerofill',
    values: [
      ['1.5', '1.500'],
      ['0', '0.000'],
    ],
  },
  {
    type: 'float',
    values: [
      ['0.1', '0.1'],
      ['16777217', '1.6777216e+07'],
      ['-1.5e-42', '-1.5e-42'],
      ['3.4028234e38', '3.4028235e+38'],
    ],
  },
  {
    type: 'double',
    values: [
      ['0.1', '0.1'],
      ['1.7976931348623157e308', '1.7976931348623157e+308'],
      ['2.2250738585072014e-308', '2.2250738585072014e-308'],
      ['123456789012345680', '1.2345678901234568e+17'],
    ],
  },
  {
    type: 'bit(1)',
    values: [
      ["b'1'", 't'],
      ["b'0'", 'f'],
    ],
  },
  {
    type: 'bit(7)',
    values: [
      ["b'1010101'", '85'],
      ["b'0'", '0'],
    ],
  },
  {
    type: 'bit(64)',
    values: [
      ['18446744073709551615', '18446744073709551615'],
      ['9223372036854775809', '9223372036854775809'],
    ],
  },
  {
    type: 'year',
    values: [
      ['2155', '2155'],
      ["'0000'", '0'],
      ['1901', '1901'],
    ],
  },
  {
    type: 'date',
    values: [
      ["'1000-01-01'", '1000-01-01'],
      ["'9999-12-31'", '9999-12-31'],
      ["'0000-00-00'", '0000-00-00'],
      ["'2020-02-00'", '2020-02-00'],
    ],
  },
  {
    type: 'time(6)',
    values: [
      ["'838:59:59'", '838:59:59'],
      ["'-838:59:58.999999'", '-838:59:58.999999'],
      ["'-00:00:00.5'", '-00:00:00.5'],
      ["'23:59:59.000001'", '23:59:59.000001'],
      ["'00:00:00'", '00:00:00'],
    ],
  },
  {
    type: 'time',
    values: [
      ["'-01:00:00'", '-01:00:00'],
      ["'100:00:01'", '100:00:01'],
    ],
  },
  {
    type: 'time(3)',
    values: [
      ["'-10:00:00.001'", '-10:00:00.001'],
      ["'10:00:00.120'", '10:00:00.12'],
    ],
  },
  {
    type: 'datetime(6)',
    values: [
      ["'9999-12-31 23:59:59.999999'", '9999-12-31 23:59:59.999999'],
      ["'1000-01-01 00:00:00.000001'", '1000-01-01 00:00:00.000001'],
      ["'0000-00-00 00:00:00'", '0000-00-00 00:00:00'],
      ["'2024-03-31 02:30:00.5'", '2024-03-31 02:30:00.5'],
    ],
  },
  {
    type: 'datetime',
    values: [
      ["'2024-10-27 02:30:00'", '2024-10-27 02:30:00'],
      ["'2020-10-10 10:10:10'", '2020-10-10 10:10:10'],
    ],
  },
  { type: 'datetime(2)', values: [["'2020-01-01 00:00:00.10'", '2020-01-01 00:00:00.1']] },
  {
    type: 'timestamp(6)',
    values: [
      ["'2038-01-19 03:14:07.999999'", '2038-01-19 03:14:07.999999+00'],
      ["'1970-01-01 00:00:01'", '1970-01-01 00:00:01+00'],
      ["'2024-03-31 01:30:00.25'", '2024-03-31 01:30:00.25+00'],
      ["'0000-00-00 00:00:00'", '0000-00-00 00:00:00+00'],
    ],
  },
  { type: 'timestamp', values: [["'2000-01-01 00:00:00'", '2000-01-01 00:00:00+00']] },
  {
    type: 'varchar(200)',
    values: [
      ["''", ''],
      ["'NULL'", 'NULL'],
      ["'\\N'", '\\N'],
      ["X'0008090A0D1A5C2722'", '\0\b\t\n\r\x1a\\\'"'],
      ["'😀 é e\u0301 中'", '😀 é e\u0301 中'],
      ["'blanks  '", 'blanks  '],
    ],
  },
  {
    type: 'varchar(300) CHARACTER SET latin1',
    values: [
      ["'äÿ€'", 'äÿ€'],
      ["''", ''],
    ],
  },
  { type: 'varchar(100) CHARACTER SET utf8mb3', values: [["'中é'", '中é']] },
  {
    type: 'char(10)',
    values: [
      ["'ab'", 'ab'],
      ["''", ''],
      ["'é中😀'", 'é中😀'],
    ],
  },
  { type: 'char(10) CHARACTER SET utf16', values: [["'é中😀'", 'é中😀']] },
  { type: 'char(255)', values: [["REPEAT('😀', 255)", '😀'.repeat(255)]] },
  { type: 'tinytext', values: [["'t'", 't']] },
  { type: 'text', values: [["REPEAT('é', 30000)", 'é'.repeat(30_000)]] },
  { type: 'mediumtext CHARACTER SET latin1', values: [["'ü'", 'ü']] },
  {
    type: 'longtext',
    values: [
      ["'long'", 'long'],
      ["''", ''],
    ],
  },
  {
    type: 'binary(4)',
    values: [
      ["X'0102'", hex('01020000')],
      ["X'00000000'", hex('00000000')],
      ["X'20202020'", hex('20202020')],
    ],
  },
  {
    type: 'varbinary(300)',
    values: [
      [`X'${ALL_BYTES.toString('hex')}'`, ALL_BYTES],
      ["X''", Buffer.alloc(0)],
      ["X'0000'", hex('0000')],
    ],
  },
  { type: 'tinyblob', values: [["X'FF00'", hex('ff00')]] },
  {
    type: 'blob',
    values: [
      ["X'00'", hex('00')],
      ["REPEAT(X'FE', 60000)", Buffer.alloc(60_000, 0xfe)],
    ],
  },
  { type: 'mediumblob', values: [["REPEAT(X'01', 70000)", Buffer.alloc(70_000, 1)]] },
  { type: 'longblob', values: [["X''", Buffer.alloc(0)]] },
  {
    type: "enum('a','it''s','ü','')",
    values: [
      ["'it''s'", "it's"],
      ["'ü'", 'ü'],
      ["''", ''],
    ],
  },
  {
    type: "set('x','y','z w')",
    values: [
      ["'z w,x'", 'x,z w'],
      ["''", ''],
    ],
  },
  {
    type: 'json',
    values: [
      ['\'{"a": [1, null, "é😀"], "b": 1.5}\'', '{"a": [1, null, "é😀"], "b": 1.5}'],
      ["'[]'", '[]'],
    ],
  },
  {
    type: 'json',
    only: 'mysql',
    values: [
      [
        `JSON_ARRAY(1e0, -0e0, 1e20, 1e15, 1724926815708343.2e0, 9999999999999998e0, 999999999999999e0, 1.2345678901234567e-14, 1e-16, 1.7976931348623157e308, 5e-324, 0.1e0)`,
        '[1.0, -0.0, 1e20, 1e15, 1724926815708343.2, 9.999999999999998e15, 999999999999999.0, 0.000000000000012345678901234567, 1e-16, 1.7976931348623157e308, 5e-324, 0.1]',
      ],
      [
        `JSON_ARRAY(100000000000000000000, CAST('-1.50' AS decimal(10,3)), 18446744073709551615, -9223372036854775808, -32769, 65536, true, NULL, '')`,
        '[100000000000000000000, -1.500, 18446744073709551615, -9223372036854775808, -32769, 65536, true, null, ""]',
      ],
      [
        `JSON_ARRAY(DATE'2020-01-02', TIMESTAMP'9999-12-31 23:59:59.999999', TIME'-838:59:59', TIME'10:11:12.5', CAST('abc' AS binary), b'101')`,
        '["2020-01-02", "9999-12-31 23:59:59.999999", "-838:59:59.000000", "10:11:12.500000", "base64:type15:YWJj", "base64:type15:BQ=="]',
      ],
    ],
  },
  {
    type: 'json',
    only: 'mysql',
    values: [
      [
        `JSON_OBJECT('b', JSON_OBJECT(), 'a', JSON_ARRAY(JSON_ARRAY()), '', CONCAT(CHAR(8, 0, 31 USING utf8mb4), '"', CHAR(92, 47, 10, 127 USING utf8mb4)))`,
        `{"": "\\b\\u0000\\u001f\\"\\\\/\\n\u007f", "a": [[]], "b": {}}`,
      ],
      // Larger than what offsets of two bytes reach.
      [
        `JSON_ARRAY(REPEAT('x', 70000), 70000, 4000000000, 1, JSON_OBJECT('k', 'é'))`,
        `["${'x'.repeat(70_000)}", 70000, 4000000000, 1, {"k": "é"}]`,
      ],
      [`'null'`, 'null'],
      [`'"text"'`, '"text"'],
    ],
  },
  { type: 'json', only: 'mariadb', values: [['\'{ "kept" :  1,"kept":2 }\'', '{ "kept" :  1,"kept":2 }']] },
  {
    type: 'geometry',
    values: [["ST_GeomFromText('POINT(1 2)')", hex('0101000000000000000000f03f0000000000000040')]],
  },
  {
    type: 'geometry',
    only: 'mariadb',
    values: [["ST_GeomFromText('POINT(1 2)', 4711)", hex('010100002067120000000000000000f03f0000000000000040')]],
  },
  {
    type: 'linestring',
    values: [
      [
        "ST_GeomFromText('LINESTRING(0 0, 1 1)')",
        hex('0102000000020000000000000000000000' + '0000000000000000' + '000000000000f03f000000000000f03f'),
      ],
    ],
  },
  {
    type: 'uuid',
    only: 'mariadb',
    values: [
      ["'01234567-89AB-7CDE-8F01-23456789ABCD'", '01234567-89ab-7cde-8f01-23456789abcd'],
      ["'00000000-0000-0000-0000-000000000000'", '00000000-0000-0000-0000-000000000000'],
      // Versions 1 to 5 are kept in another order of bytes.
      ["'01234567-89ab-4cde-8f01-23456789abcd'", '01234567-89ab-4cde-8f01-23456789abcd'],
      ["'f1234567-89ab-1cde-bf01-23456789ab00'", 'f1234567-89ab-1cde-bf01-23456789ab00'],
      ["'ffffffff-ffff-ffff-ffff-ffffffffffff'", 'ffffffff-ffff-ffff-ffff-ffffffffffff'],
    ],
  },
  {
    type: 'inet6',
    only: 'mariadb',
    values: [
      ["'::1'", '::1'],
      ["'2001:db8::ff00:42:8329'", '2001:db8::ff00:42:8329'],
      ["'::'", '::'],
      ["'fe80::'", 'fe80::'],
      ["'::ffff:192.0.2.128'", '::ffff:192.0.2.128'],
      ["'::192.0.2.1'", '::192.0.2.1'],
      ["'1:2:3:4:5:6:7:8'", '1:2:3:4:5:6:7:8'],
      ["'1:0:0:2:0:0:0:3'", '1:0:0:2::3'],
    ],
  },
  {
    type: 'inet4',
    only: 'mariadb',
    values: [
      ["'192.0.2.1'", '192.0.2.1'],
      ["'10.0.0.0'", '10.0.0.0'],
    ],
  },
];

export function casesFor(isMariaDb: boolean): ValueCase[] {
  return VALUES.filter((one) => one.only === undefined || (one.only === 'mariadb') === isMariaDb);
}

/** Row r has the r-th value of every type, the last row is NULL throughout. */
export function valueTable(
  cases: readonly ValueCase[],
  table: string,
): { create: string; insert: string; rows: (string | Buffer | null)[][] } {
  const rows = Math.max(...cases.map((one) => one.values.length)) + 1;
  const columns = cases.map((one, i) => `c${i} ${one.type} NULL`);
  const lines: string[] = [];
  const expected: (string | Buffer | null)[][] = [];
  for (let r = 0; r < rows; r++) {
    lines.push(`(${[r, ...cases.map((one) => one.values[r]?.[0] ?? 'NULL')].join(', ')})`);
    expected.push([String(r), ...cases.map((one) => one.values[r]?.[1] ?? null)]);
  }
  return {
    create: `CREATE TABLE ${table} (id int PRIMARY KEY, ${columns.join(', ')}) CHARACTER SET utf8mb4`,
    insert: `INSERT INTO ${table} VALUES ${lines.join(',\n')}`,
    rows: expected,
  };
}

/** A cell for messages and comparisons: bytes as hex. */
export function shown(cell: string | Uint8Array | null | undefined): string | null {
  if (cell === null || cell === undefined) return null;
  return typeof cell === 'string' ? cell : `0x${Buffer.from(cell).toString('hex')}`;
}

/** What the server is asked to print of a column of the type. */
export function printedSql(type: string, column: string): string {
  if (isBytes(type)) return `HEX(${column})`;
  if (/^bit\(1\)/.test(type)) return `CASE ${column} WHEN 1 THEN 't' WHEN 0 THEN 'f' END`;
  if (/^(bit|year)/.test(type)) return `CAST(${column} + 0 AS CHAR)`;
  // FLOAT is printed with six digits, as a double it is printed exactly; times one keeps the sign of zero.
  if (/^float/.test(type)) return `CAST(${column} * 1e0 AS CHAR)`;
  return `CAST(${column} AS CHAR)`;
}

/** What the server printed, as the cell that it is. */
export function cellPrinted(type: string, printed: unknown): string | Buffer | null {
  if (printed === null) return null;
  if (typeof printed !== 'string' && !Buffer.isBuffer(printed))
    throw new Error(`${type} was printed as ${typeof printed}`);
  const text = printed.toString();
  if (isBytes(type)) return isGeometry(type) ? asWkb(hex(text)) : hex(text);
  if (/^(time|datetime|timestamp)/.test(type))
    return `${withoutZeros(text)}${type.startsWith('timestamp') ? '+00' : ''}`;
  return /zerofill$/.test(type) ? text.replace(/^0+(?=\d)/, '') : text;
}

/** Equal exactly when two cells of the type are the same value here, where minus zero is zero; whichever engine printed them. */
export function comparable(type: string, cell: string | Uint8Array | null): string {
  if (cell === null) return 'NULL';
  if (cell instanceof Uint8Array) return `0x${Buffer.from(cell).toString('hex')}`;
  if (type.startsWith('float')) return Buffer.from(Float32Array.of(Number(cell) + 0).buffer).toString('hex');
  if (type.startsWith('double')) return Buffer.from(Float64Array.of(Number(cell) + 0).buffer).toString('hex');
  // Parsed documents print the same number in several ways.
  return JSON.stringify(type === 'json' ? cell.replace(/-?\d+(?:\.\d+)?(?:e[+-]?\d+)?/gi, plainNumber) : cell);
}

/** Its digits without zeros at either end, and the power of ten. */
function plainNumber(text: string): string {
  const [, sign = '', whole = '', fraction = '', power = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:e(.*))?$/i.exec(text) ?? [];
  const digits = (whole + fraction).replace(/^0+/, '');
  const kept = digits.replace(/0+$/, '');
  return kept === '' ? '0' : `${sign}${kept}e${Number(power) - fraction.length + digits.length - kept.length}`;
}

const isGeometry = (type: string) => /^(geometry|point|linestring)/.test(type);
const isBytes = (type: string) => isGeometry(type) || /^(var)?binary|blob$/.test(type);
const withoutZeros = (text: string) => text.replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');

/** The server's own form: four bytes of SRID, then WKB; as (extended) WKB. */
function asWkb(internal: Buffer): Buffer {
  const srid = internal.readUInt32LE(0);
  if (srid === 0) return internal.subarray(4);
  const type = Buffer.alloc(4);
  type.writeUInt32LE((internal.readUInt32LE(5) | 0x20000000) >>> 0);
  return Buffer.concat([Buffer.of(1), type, internal.subarray(0, 4), internal.subarray(9)]);
}
