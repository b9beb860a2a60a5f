import { expect } from 'chai';
import { float32Text, float64Text } from '../../src/engines/float-text.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';

describe('float text', () => {
  let database: TestDatabase;
  before(async () => {
    database = await createDatabase();
  });
  after(() => database.drop());

  it('F30: is PostgreSQL’s own for any bits', async () => {
    const doubles = [0, -0, 5e-324, Number.MAX_VALUE, 1e15, 999999999999999.9, 1e-4, 9.9999e-5, 0.1, -123.456];
    const floats = [0, -0, 1e-45, 3.4028234663852886e38, 1e6, 999999.9, 1e-4, 0.1, 16777216, 1.17549435e-38, 33554430];
    const bits = new DataView(new ArrayBuffer(8));
    for (let i = 0; i < 3000; i++) {
      for (const at of [0, 4]) bits.setUint32(at, Math.floor(Math.random() * 2 ** 32));
      if (Number.isFinite(bits.getFloat64(0))) doubles.push(bits.getFloat64(0));
      if (Number.isFinite(bits.getFloat32(0))) floats.push(bits.getFloat32(0));
      doubles.push(Math.random() * 10 ** (i % 20), Math.random() * 10 ** (16 + (i % 8)));
      floats.push(Math.fround(Math.random() * 10 ** (i % 20)));
    }
    const image = (value: number, size: 4 | 8) => {
      const bytes = Buffer.alloc(size);
      if (size === 8) bytes.writeDoubleBE(value);
      else bytes.writeFloatBE(value);
      return bytes;
    };
    const [row] = await database.query<{ d: string[]; f: string[] }>(
      `SELECT ARRAY(SELECT v::float8::text FROM unnest($1::text[]) WITH ORDINALITY AS u(v, n) ORDER BY n) AS d,
         ARRAY(SELECT v::float4::text FROM unnest($2::text[]) WITH ORDINALITY AS u(v, n) ORDER BY n) AS f`,
      [doubles.map(float64Text), floats.map((value) => float32Text(Math.fround(value)))],
    );
    // What PostgreSQL reads and prints again is the same text, and it is the same number.
    expect(doubles.map(float64Text)).to.deep.equal(row?.d);
    expect(floats.map((value) => float32Text(Math.fround(value)))).to.deep.equal(row?.f);
    for (const value of doubles) expect(image(Number(float64Text(value)), 8).equals(image(value, 8))).to.equal(true);
    for (const value of floats)
      expect(image(Math.fround(Number(float32Text(Math.fround(value)))), 4).equals(image(value, 4))).to.equal(true);
  });
});
