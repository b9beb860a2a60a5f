import { expect } from 'chai';
import type { Position } from '../../../src/model/position.ts';
import {
  displayLsn,
  formatPosition,
  Lineage,
  parseHistory,
  parseLsn,
  parsePosition,
} from '../../../src/engines/postgres/position.ts';

const SYSTEM = '7412345678901234567';
const at = (lsn: string, timeline = 1, systemId = SYSTEM) => formatPosition({ systemId, timeline, lsn: parseLsn(lsn) });

describe('PostgreSQL positions', () => {
  it('F07: are ordered as numbers where their text orders differently', () => {
    const lineage = new Lineage();
    expect(lineage.compare(at('9/FFFFFFFF'), at('10/0'))).to.equal('before');
    expect(lineage.compare(at('0/A'), at('0/9'))).to.equal('after');
    expect(lineage.compare(at('FFFFFFFF/FFFFFFFF'), at('1/0'))).to.equal('after');
    expect(lineage.compare(at('A/1'), at('a/1'))).to.equal('equal');
    // As text they order the same way, so that whoever sorts them by mistake is right within a timeline.
    expect([at('10/0'), at('9/FFFFFFFF'), at('0/A')].sort()).to.deep.equal([at('0/A'), at('9/FFFFFFFF'), at('10/0')]);
  });

  it('round-trip, and show what the server shows', () => {
    const position = at('16/B374D848', 3);
    expect(position).to.equal(`pg1:${SYSTEM}:3:00000016B374D848`);
    expect(parsePosition(position)).to.deep.equal({ systemId: SYSTEM, timeline: 3, lsn: 0x16b374d848n });
    expect(displayLsn(0x16b374d848n)).to.equal('16/B374D848');
    expect(displayLsn(0n)).to.equal('0/0');
    for (const text of ['', '16/B374D848', 'pg2:1:1:0000000000000000', `${position} `, 'pg1:1:1:16B374D848'])
      expect(parsePosition(text as Position), text).to.equal(null);
    for (const text of ['', '1', '1/2/3', 'x/1', '/1']) expect(() => parseLsn(text), text).to.throw(SyntaxError);
  });

  it('of another cluster, another timeline or another text are unordered', () => {
    const lineage = new Lineage();
    expect(lineage.compare(at('0/1'), at('0/1', 1, '1'))).to.equal('unordered');
    expect(lineage.compare(at('0/1'), at('0/2', 2))).to.equal('unordered');
    expect(lineage.compare(at('0/1'), 'binlog.000001:4' as Position)).to.equal('unordered');
  });

  it('of an ancestor are ordered up to the fork, once the history is known', () => {
    const lineage = new Lineage();
    const history = parseHistory('1\t0/3000000\tno recovery target specified\n\n# note\n2\t0/5000000\tbefore x\n');
    expect(history).to.deep.equal([
      { timeline: 1, end: 0x3000000n },
      { timeline: 2, end: 0x5000000n },
    ]);
    lineage.learn(SYSTEM, 3, history);
    expect(lineage.compare(at('0/3000000', 1), at('0/6000000', 3))).to.equal('before');
    expect(lineage.compare(at('0/6000000', 3), at('0/5000000', 2))).to.equal('after');
    expect(lineage.compare(at('0/3000001', 1), at('0/6000000', 3))).to.equal('unordered');
    expect(lineage.compare(at('0/2000000', 1), at('0/4000000', 2)), 'history of 2 is not known').to.equal('unordered');
    expect(lineage.compare(at('0/1', 1, '9'), at('0/6000000', 3, '9'))).to.equal('unordered');
  });
});
