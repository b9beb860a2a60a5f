import { expect } from 'chai';
import * as values from '../../../src/engines/postgres/binary-values.ts';
import { mostBytes, type ValueWriter } from '../../../src/engines/postgres/binary-values.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';

/** Texts are those of the server itself for these expressions; what is written must be what its send function writes. */
const TYPES: Readonly<Record<string, { write: ValueWriter; send: string; of: readonly string[] }>> = {
  int2: {
    write: values.writeInt16,
    send: 'int2send',
    of: [`0`, `-32768`, `32767`, `(random() * 65535 - 32768)::int`],
  },
  int4: {
    write: values.writeInt32,
    send: 'int4send',
    of: [`0`, `-1`, `-2147483648`, `2147483647`, `(random() * 4294967295 - 2147483648)::int8`],
  },
  int8: {
    write: values.writeInt64Text,
    send: 'int8send',
    of: [
      ...['0', '-1', '4294967295', '4294967296', '-4294967296', '-4294967297', '999999999999999', '1000000000000000'],
      `'-9223372036854775808'`,
      `9223372036854775807`,
      `(random() * 2e10 - 1e10)::int8`,
      `(random() * 2e15 - 1e15)::int8`,
      `(random() * 1.8e19 - 9e18)::int8`,
    ],
  },
  float4: {
    write: values.writeFloat32,
    send: 'float4send',
    of: [
      `'-0'`,
      `'NaN'`,
      `'-Infinity'`,
      `'1e-45'`,
      `3.4028235e38`,
      `0.1`,
      `(random() * power(10, n % 70 - 35))::float4`,
    ],
  },
  float8: {
    write: values.writeFloat64,
    send: 'float8send',
    of: [`'-0'`, `'NaN'`, `'Infinity'`, `'5e-324'`, `1.7976931348623157e308`, `random() * power(10, n % 600 - 300)`],
  },
  numeric: {
    write: values.writeNumeric,
    send: 'numeric_send',
    of: [
      ...[
        '0',
        '0.000',
        '-0.5',
        '1',
        '10000',
        '100000000',
        '123456789.10',
        '0.0001',
        '0.00001',
        '-1234.0000',
        '9999.9999',
      ],
      ...[`'NaN'`, `'Infinity'`, `'-Infinity'`, `1e1000`, `1e-1000`, `-(10::numeric ^ 131071)`, `repeat('9', 500)`],
      `(random() * power(10, n % 40 - 20))::numeric * CASE n % 2 WHEN 0 THEN 1 ELSE -1 END`,
      `trunc((random() * 1e12)::numeric, n % 9)`,
    ],
  },
  bool: { write: values.writeBoolean, send: 'boolsend', of: ['true', 'false'] },
  text: { write: values.writeText, send: 'textsend', of: [`''`, `E'\\t\\\\.\\n'`, `'ä€😀'`, `repeat('long ', 100)`] },
  json: { write: values.writeText, send: 'json_send', of: [`'{"a" : 1}'`] },
  jsonb: { write: values.writeJsonb, send: 'jsonb_send', of: [`'{"a" : [1, null, "\\u00e4"]}'`, `'"x"'`] },
  bytea: { write: values.writeBytea, send: 'byteasend', of: [`''`, `'\\x00ff5c'`, `sha256(n::text::bytea)`] },
  uuid: { write: values.writeUuid, send: 'uuid_send', of: [`gen_random_uuid()`] },
  date: {
    write: values.writeDate,
    send: 'date_send',
    of: [
      ...[`'infinity'`, `'-infinity'`, `'4713-01-01 BC'`, `'0001-02-29 BC'`, `'0001-01-01'`, `'5874897-12-31'`],
      `'2000-01-01'::date + n * 367`,
      `'2000-01-01'::date - n * 1009`,
    ],
  },
  time: {
    write: values.writeTime,
    send: 'time_send',
    of: [`'00:00'`, `'24:00'`, `'23:59:59.999999'`, `'00:00:00.000001'`, `time '0:00' + n * interval '13.37 s'`],
  },
  timestamp: {
    write: values.writeTimestampWithoutZone,
    send: 'timestamp_send',
    of: [
      ...[`'infinity'`, `'-infinity'`, `'4713-01-01 00:00:00 BC'`, `'294276-12-31 23:59:59.999999'`],
      `'1999-12-31 23:59:59.999999'`,
      `'0001-12-31 23:59:59.1 BC'`,
      `timestamp '2000-01-01' + (n - 500) * interval '1.1 years 3.000007 s'`,
    ],
  },
  timestamptz: {
    write: values.writeTimestampWithZone,
    send: 'timestamptz_send',
    of: [
      ...[`'infinity'`, `'-infinity'`, `'4713-01-01 00:00:00+00 BC'`, `'294276-12-31 23:59:59.999999+00'`],
      `'2024-02-29 12:00:00.5+14'`,
      `timestamptz '2000-01-01 00:00:00.5Z' - (n * n * n) * interval '1.000001 s'`,
    ],
  },
};

describe('binary values', () => {
  let database: TestDatabase;
  before(async () => {
    database = await createDatabase();
    await database.query(`SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET bytea_output = 'hex'`);
  });
  after(() => database.drop());

  for (const [type, { write, send, of }] of Object.entries(TYPES)) {
    it(`F30 F31 F32 F33: ${type} as the server writes it`, async () => {
      for (const value of of) {
        const repeats = /\bn\b|random/.test(value) ? 1000 : 1;
        const rows = await database.query<{ text: string; sent: string }>(
          `SELECT format('%s', v) AS text, encode(${send}(v), 'hex') AS sent FROM (SELECT (${value})::${type} AS v FROM generate_series(1, ${repeats}) n OFFSET 0) made`,
        );
        for (const { text, sent } of rows) {
          const bytes = Buffer.from(`<${text}>`);
          const out = Buffer.alloc(mostBytes(bytes.length - 2) + 3);
          const end = write(bytes, 1, bytes.length - 1, out, 3);
          expect(end - 3, text).to.be.at.most(mostBytes(bytes.length - 2));
          expect(out.toString('hex', 3, end), `${type} ${text}`).to.equal(sent);
        }
      }
    });
  }

  it('F36: what is not a value of the type, or does not fit it, is refused', () => {
    const write = (writer: ValueWriter, text: string) => () =>
      writer(Buffer.from(text), 0, Buffer.byteLength(text), Buffer.alloc(200), 0);
    for (const text of ['32768', '-32769', '9999999999999999'])
      expect(write(values.writeInt16, text)).to.throw('16-bit');
    expect(write(values.writeInt32, '2147483648')).to.throw('32-bit');
    expect(write(values.writeInt64Text, '9223372036854775808')).to.throw('64-bit');
    for (const [writer, text] of [
      [values.writeInt32, ''],
      [values.writeInt32, '1e3'],
      [values.writeFloat64, 'none'],
      [values.writeNumeric, 'nan'],
      [values.writeNumeric, '1.2.3'],
      [values.writeBoolean, 'true'],
      [values.writeUuid, '00000000-0000-0000-0000-00000000000g'],
      [values.writeBytea, 'abc'],
      [values.writeDate, '01/02/2024'],
      [values.writeTime, '12:00'],
      [values.writeTimestampWithoutZone, '2024-01-01 00:00:00+00'],
      [values.writeTimestampWithZone, '2024-01-01 00:00:00+01'],
    ] as const)
      expect(write(writer, text), text).to.throw('is not the text of');
  });
});
