import { expect } from 'chai';
import {
  comparePositions,
  displayLsn,
  formatPosition,
  lsnOf,
  parseDisplayedLsn,
  parsePosition,
  type Place,
} from '../../../src/engines/sqlserver/position.ts';
import type { Position } from '../../../src/model/position.ts';

const place = (lsn: string, more: Partial<Place> = {}) =>
  formatPosition({ database: 'd', fork: 'F', lsn: lsn.padStart(20, '0'), time: 1000, ...more });

describe('SQL Server positions', () => {
  it('F07: LSNs are compared as bytes, whatever their digits', () => {
    expect(comparePositions(place('9'), place('A'))).to.equal('before');
    expect(comparePositions(place('FF'), place('100'))).to.equal('before');
    expect(comparePositions(place('80000000000000000000'), place('7FFFFFFFFFFFFFFFFFFF'))).to.equal('after');
    expect(comparePositions(place('1'), place('1', { time: 5 }))).to.equal('equal');
    expect(lsnOf(Uint8Array.from([0, 0, 0, 0x2a, 0, 0, 1, 0xff, 0, 3]))).to.equal('0000002A000001FF0003');
    expect(displayLsn('0000002A000001FF0003')).to.equal('0000002A:000001FF:0003');
    expect(parseDisplayedLsn('0000002a:000001ff:0003')).to.equal('0000002A000001FF0003');
    expect(parseDisplayedLsn('42:511:3')).to.equal(null);
  });

  it('F15: positions of another recovery fork have no order; where a fork is not visible, the database decides', () => {
    expect(comparePositions(place('1'), place('2', { fork: 'G' }))).to.equal('unordered');
    expect(comparePositions(place('1'), place('2', { database: 'e' }))).to.equal('before');
    expect(comparePositions(place('1', { fork: null }), place('2'))).to.equal('before');
    expect(comparePositions(place('1', { fork: null }), place('2', { database: 'e' }))).to.equal('unordered');
    expect(comparePositions('nonsense' as Position, place('2'))).to.equal('unordered');
  });

  it('an end that is known as a moment lies behind every commit up to it, and before later ones', () => {
    const end = place('5', { time: 2000, beyond: true });
    expect(comparePositions(place('4', { time: 3000 }), end)).to.equal('before');
    expect(comparePositions(place('6', { time: 2000 }), end)).to.equal('before');
    expect(comparePositions(place('6', { time: 2001 }), end)).to.equal('after');
    expect(comparePositions(end, place('6', { time: 2001 }))).to.equal('before');
    expect(comparePositions(end, place('5', { time: 2500, beyond: true }))).to.equal('before');
    expect(parsePosition(end)).to.deep.equal({
      database: 'd',
      fork: 'F',
      lsn: '5'.padStart(20, '0'),
      time: 2000,
      beyond: true,
    });
  });
});
