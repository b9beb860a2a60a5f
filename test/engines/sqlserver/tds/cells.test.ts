import { expect } from 'chai';
import {
  datetime2Decoder,
  datetimeoffsetDecoder,
  decimalDecoder,
  decodeDatetime,
  decodeFloat,
  decodeMoney,
  timeDecoder,
  type Decoder,
} from '../../../../src/engines/sqlserver/tds/cells.ts';

/** What a stand-in rounds away; bytes as MS-TDS 2.2.5.5 describes them. */
const CASES: [string, Decoder, string, string][] = [
  ['time(7), one unit', timeDecoder(7), '0100000000', '00:00:00.0000001'],
  ['time(7), the last of the day', timeDecoder(7), 'ffbf692ac9', '23:59:59.9999999'],
  ['datetime2(7), the first', datetime2Decoder(7), '0000000000000000', '0001-01-01 00:00:00'],
  ['datetime2(7), the last', datetime2Decoder(7), 'ffbf692ac9dab937', '9999-12-31 23:59:59.9999999'],
  [
    'datetimeoffset(7), over midnight',
    datetimeoffsetDecoder(7),
    '0100000000dab937c4ff',
    '9999-12-30 23:00:00.0000001-01',
  ],
  ['datetimeoffset(0), into the next day', datetimeoffsetDecoder(0), '7f5101da0a004a01', '0008-08-11 05:29:59+05:30'],
  ['datetime, three ticks', decodeDatetime, '0000000003000000', '1900-01-01 00:00:00.01'],
  ['datetime, two ticks', decodeDatetime, 'ffffffff02000000', '1899-12-31 00:00:00.007'],
  ['money, the lowest', decodeMoney, '0000008000000000', '-922337203685477.5808'],
  ['float, minus zero', decodeFloat, '0000000000000080', '-0'],
  ['real, minus zero', decodeFloat, '00000080', '-0'],
  ['decimal, minus zero', decimalDecoder(2), '0000000000', '0.00'],
  [
    'decimal of 16 bytes',
    decimalDecoder(0),
    '01ffffffff3f228a097ac4865aa84c3b4b',
    '99999999999999999999999999999999999999',
  ],
];

describe('TDS values as cells', () => {
  for (const [name, decode, hex, cell] of CASES)
    it(`F30 F31: ${name}`, () => {
      const bytes = Buffer.from(`aa${hex}bb`, 'hex');
      expect(decode(bytes, 1, bytes.length - 2)).to.equal(cell);
    });
});
