import { expect } from 'chai';
import { cannotHold, type LogicalType } from '../../src/model/types.ts';

const int = (bits: 8 | 16 | 32 | 64, signed = true): LogicalType => ({ kind: 'int', bits, signed });
const decimal = (precision: number | null, scale: number | null, special = false): LogicalType => ({
  kind: 'decimal',
  precision,
  scale,
  special,
});
const text = (length: number | null, fixed = false): LogicalType => ({ kind: 'text', length, fixed, nul: false });
const timestamp = (fraction: number): LogicalType => ({ kind: 'timestamp', fraction, infinity: false });

describe('F36: what a type can hold', () => {
  const holds: [LogicalType, LogicalType][] = [
    [int(32), int(64)],
    [int(32, false), int(64)],
    [int(64, false), decimal(20, 0)],
    [int(64), decimal(null, null)],
    [decimal(10, 2), decimal(12, 4)],
    [decimal(10, 2, true), decimal(10, 2)],
    [decimal(3, -2), decimal(5, 0)],
    [text(10), text(null)],
    [text(10, true), text(10)],
    [timestamp(3), timestamp(6)],
    [
      { kind: 'enum', labels: ['a', 'b'] },
      { kind: 'enum', labels: ['b', 'c', 'a'] },
    ],
    [{ kind: 'enum', labels: ['abc'] }, text(3)],
    [
      { kind: 'array', element: int(16) },
      { kind: 'array', element: int(32) },
    ],
    [{ kind: 'xml' }, text(null)],
    [
      { kind: 'json', binary: true },
      { kind: 'json', binary: false },
    ],
  ];
  const lacks: [LogicalType, LogicalType][] = [
    [int(64), int(32)],
    [int(32), int(64, false)],
    [int(64, false), int(64)],
    [int(64, false), decimal(19, 0)],
    [int(64), { kind: 'float', bits: 64, special: true }],
    [decimal(38, 10, true), decimal(5, 2)],
    [decimal(12, 2), decimal(12, 4)],
    [decimal(10, 4), decimal(12, 2)],
    [decimal(null, null, true), decimal(38, 10)],
    [text(null), text(4000)],
    [text(10), text(10, true)],
    [timestamp(7), timestamp(6)],
    [timestamp(6), { kind: 'timestamptz', fraction: 6, infinity: true, offset: false }],
    [
      { kind: 'timestamptz', fraction: 6, infinity: false, offset: true },
      { kind: 'timestamptz', fraction: 6, infinity: true, offset: false },
    ],
    [{ kind: 'enum', labels: ['abc'] }, text(2)],
    [
      { kind: 'json', binary: false },
      { kind: 'json', binary: true },
    ],
    [{ kind: 'xml' }, text(100)],
  ];
  for (const [from, to] of holds)
    it(`${JSON.stringify(from)} goes into ${JSON.stringify(to)}`, () => expect(cannotHold(from, to)).to.equal(null));
  for (const [from, to] of lacks)
    it(`${JSON.stringify(from)} does not go into ${JSON.stringify(to)}`, () =>
      expect(cannotHold(from, to)).to.be.a('string'));
});
