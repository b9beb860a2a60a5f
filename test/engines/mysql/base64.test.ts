import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { base64Length, writeBase64 } from '../../../src/engines/mysql/load/base64.ts';

describe('base 64 from buffer to buffer', () => {
  it('is what Node writes, whatever the length, and touches nothing around it', () => {
    for (const length of [0, 1, 2, 3, 4, 5, 6, 255, 256, 257, 10_000]) {
      const source = randomBytes(length);
      const target = Buffer.alloc(base64Length(length) + 8, 'x');
      const end = writeBase64(source, target, 4);
      const expected = source.toString('base64');
      expect(target.toString('latin1')).to.equal(`xxxx${expected}xxxx`);
      expect(end).to.equal(4 + expected.length);
    }
  });

  it('knows every pair of characters', () => {
    const source = Buffer.alloc(4096 * 3);
    for (let i = 0; i < 4096; i++) source.writeUIntBE((i << 12) | (4095 - i), i * 3, 3);
    const target = Buffer.alloc(base64Length(source.length));
    writeBase64(source, target, 0);
    expect(target.toString('latin1')).to.equal(source.toString('base64'));
  });
});
