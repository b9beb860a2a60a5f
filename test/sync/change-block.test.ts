import { expect } from 'chai';
import { decodeBlock, encodeBlocks } from '../../src/sync/change-block.ts';
import type { ChangeCell } from '../../src/model/changes.ts';
import { changesOf } from '../support/changes.ts';

const text = (cell: ChangeCell) => (cell instanceof Uint8Array ? Buffer.from(cell).toString('utf8') : cell);

describe('change blocks', () => {
  it('come back as they were: NULL, absent, empty, multi-byte and binary cells apart', () => {
    const changes = changesOf(
      ['id', 'v'],
      [
        ['I', null, ['1', '']],
        ['U', ['1', undefined], ['2', undefined]],
        ['U', null, ['2', 'naïve 🚰']],
        ['D', ['2', null], null],
        ['T', null, null],
        ['I', null, ['3', Buffer.from([0, 255, 92])]],
      ],
      ['701'],
    );
    const [block] = [...encodeBlocks(changes, 1 << 20)];
    const back = decodeBlock(block?.bytes ?? Buffer.alloc(0));
    expect(back.ops).to.deep.equal(changes.ops);
    expect(back.relation).to.deep.equal(changes.relation);
    expect(back.visibility).to.deep.equal(['701']);
    expect(back.hasAbsent).to.equal(true);
    expect(back.cells.slice(0, -1).map(text)).to.deep.equal(changes.cells.slice(0, -1));
    expect(back.cells.at(-1)).to.deep.equal(Buffer.from([0, 255, 92]));
    expect(back.before.map((at) => at >= 0)).to.deep.equal([false, true, false, true, false, false]);
  });

  it('are split by size, in order, without losing a change', () => {
    const changes = changesOf(
      ['id', 'v'],
      Array.from({ length: 1000 }, (_, i) => ['I', null, [String(i), 'x'.repeat(100)]] as const),
    );
    const blocks = [...encodeBlocks(changes, 10_000)];
    expect(blocks.length).to.be.greaterThan(5);
    const ids = blocks.flatMap((block) => {
      const back = decodeBlock(block.bytes);
      return back.after.map((at) => text(back.cells[at]));
    });
    expect(ids).to.deep.equal(changes.after.map((at) => changes.cells[at]));
  });
});
