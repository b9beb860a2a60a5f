import { expect } from 'chai';
import { draw, drawLine, type Picture } from '../../src/demo/view.ts';

const picture: Picture = {
  health: [
    {
      table: 'cities',
      mappingId: 1,
      state: 'streaming',
      lagSeconds: 0.25,
      applied: 1234,
      copied: null,
      expected: null,
      verification: 'PASSED',
      error: null,
    },
    {
      table: 'regions',
      mappingId: 2,
      state: 'copying',
      lagSeconds: null,
      applied: 0,
      copied: 50,
      expected: 100,
      verification: null,
      error: null,
    },
  ],
  rows: new Map([['cities', { source: 171075, copy: 171000 }]]),
  written: { inserted: 1, updated: 2, deleted: 3, rekeyed: 4, transactions: 5 },
  servicePid: 42,
  events: ['the service was gone'],
};

describe('demo view', () => {
  it('shows state, lag and rows of each mapping, the writer and the service', () => {
    const lines = draw(picture);
    expect(lines[1]).to.match(/^cities +streaming +0\.3 s +171,075 +171,000 +1,234 +PASSED$/);
    expect(lines[2]).to.match(/^regions +copying .*copying 50 of 100$/);
    expect(lines.join('\n')).to.include('10 rows changed in 5 transactions').and.to.include('kill -9 42');
  });

  it('fits into one line for a log', () => {
    expect(drawLine(picture)).to.equal('cities streaming 171000/171075 · regions copying 0/0 · 10 changes written');
  });
});
