import { expect } from 'chai';
import { CapturedRows } from '../../../../src/engines/sqlserver/captured-rows.ts';
import { RowExtractor, type ResultRows } from '../../../../src/engines/sqlserver/tds/rows.ts';
import type { Cell, ChangeCell } from '../../../../src/model/changes.ts';

const u16 = (value: number) => Buffer.from([value & 0xff, value >> 8]);
const u32 = (value: number) => Buffer.concat([u16(value & 0xffff), u16(value >>> 16)]);
const described = (name: string, type: readonly number[]) =>
  Buffer.concat([Buffer.alloc(6), Buffer.from([...type, name.length]), Buffer.from(name, 'utf16le')]);

/** int, nvarchar(100), varbinary(max), bigint: as a server describes them (MS-TDS 2.2.7.4). */
const METADATA = Buffer.concat([
  Buffer.from([0x81, 4, 0]),
  described('a', [0x26, 4]),
  described('b', [0xe7, 200, 0, 0, 0, 0, 0, 0]),
  described('c', [0xa5, 0xff, 0xff]),
  described('d', [0x26, 8]),
]);
const DONE = Buffer.concat([Buffer.from([0xfd]), Buffer.alloc(12)]);

const NULLS = [Buffer.from([0]), Buffer.from([0xff, 0xff]), Buffer.alloc(8, 0xff), Buffer.from([0])];

/** Of the third column, whose values are `times` as large as small ones. */
const partsOf = (i: number, times: number) =>
  Array.from({ length: i % 4 }, (_, part) => Buffer.alloc((1 + part * 5) * times, i));

/** Values of a row as bytes; null: NULL. */
function valuesOf(i: number, times = 1): (Buffer | null)[] {
  const text = Buffer.from('é'.repeat(i % 7), 'utf16le');
  const parts = partsOf(i, times);
  return [
    i % 3 === 0 ? null : Buffer.concat([Buffer.from([4]), u32(i)]),
    i % 5 === 0 ? null : Buffer.concat([u16(text.length), text]),
    i % 2 === 0
      ? null
      : Buffer.concat([Buffer.alloc(8), ...parts.flatMap((part) => [u32(part.length), part]), Buffer.alloc(4)]),
    i % 4 === 0 ? null : Buffer.concat([Buffer.from([8]), u32(i * 7), u32(0)]),
  ];
}

/** The row, as it is or with a bitmap of its NULLs. */
function row(i: number, times = 1): Buffer {
  const values = valuesOf(i, times);
  if (i % 2 === 0) return Buffer.concat([Buffer.from([0xd1]), ...values.map((value, c) => value ?? NULLS[c] ?? DONE)]);
  const bitmap = values.reduce((bits, value, c) => bits | (value === null ? 1 << c : 0), 0);
  return Buffer.concat([Buffer.from([0xd2, bitmap]), ...values.flatMap((value) => value ?? [])]);
}

async function extract(bytes: Buffer, size: number | (() => number), leading: number | null): Promise<ResultRows[]> {
  const taken: ResultRows[] = [];
  const extractor = new RowExtractor(
    (rows) => {
      taken.push(rows);
      return Promise.resolve();
    },
    300,
    leading,
  );
  const chunks = async function* () {
    for (let at = 0, end = 0; at < bytes.length; at = end) {
      end = at + (typeof size === 'number' ? size : size());
      // A copy of its own: nobody may rely on what lies around it.
      yield await Promise.resolve(Buffer.from(bytes.subarray(at, end)));
    }
  };
  const rest: Buffer[] = [];
  for await (const chunk of extractor.rest(chunks())) rest.push(chunk);
  expect(Buffer.concat(rest).equals(DONE)).to.equal(true);
  return taken;
}

describe('rows of a TDS response', () => {
  const rows = 60;
  const bytes = Buffer.concat([METADATA, ...Array.from({ length: rows }, (_, i) => row(i)), DONE]);
  const cellsOf = (i: number, times = 1): Cell[] => {
    const [a = null, b = null, c = null, d = null] = valuesOf(i, times);
    return [a && String(i), b && 'é'.repeat(i % 7), c && Buffer.concat(partsOf(i, times)), d && String(i * 7)];
  };
  const wanted = Array.from({ length: rows }, (_, i) => cellsOf(i));
  const plain = (cells: readonly ChangeCell[]) =>
    cells.map((cell) => (cell instanceof Uint8Array ? Buffer.from(cell).toString('hex') : cell));

  it('are the same however the network cuts them, with and without a bitmap of NULLs', async () => {
    for (let size = 1; size < 400; size += size < 40 ? 1 : 37) {
      const taken = await extract(bytes, size, null);
      expect(plain(taken.flatMap(({ cells }) => cells))).to.deep.equal(plain(wanted.flat()));
    }
  });

  const columns = ['b', 'c', 'd'].map((name, i) => ({
    name,
    column: name,
    nativeType: 'int',
    ordinal: i + 1,
    isLarge: false,
    isKey: false,
  }));

  /** All cells once everything was read: nothing that is kept may have been written over. */
  function appended(taken: readonly ResultRows[]): { captured: CapturedRows; cells: ChangeCell[] } {
    const captured = new CapturedRows(columns);
    const cells: ChangeCell[] = [];
    for (const { cells: leading, rests, rows: count } of taken)
      for (let i = 0; i < count; i++) {
        cells.push(leading[i]);
        if (rests) captured.append(captured.pushNew(rests, i), cells);
      }
    return { captured, cells };
  }

  it('so are those whose columns are left as they came', async () => {
    for (let size = 1; size < 400; size += size < 40 ? 1 : 37) {
      const { captured, cells } = appended(await extract(bytes, size, 1));
      expect(plain(cells)).to.deep.equal(plain(wanted.flat()));
      expect(captured.cell(7, 1)).to.deep.equal(wanted[7]?.[2]);
    }
  });

  it('F33: so are rows of any size in packets of any size, most of which is not copied', async () => {
    // A linear congruential generator (Knuth): the same sizes every time.
    let state = 20261122;
    const random = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (const sizes of [() => 1 + random(60), () => 1 + random(9000), () => 4088, () => 32_759])
      for (const most of [1, 20, 300, 6000]) {
        // Most rows are small: what is known of the last one does not hold for a large one.
        const scales = Array.from({ length: 400 }, () => (random(6) === 0 ? 1 + random(most) : 1));
        const stream = Buffer.concat([METADATA, ...scales.map((times, i) => row(i, times)), DONE]);
        const cells = plain(scales.flatMap((times, i) => cellsOf(i, times)));
        expect(plain((await extract(stream, sizes, null)).flatMap((each) => each.cells))).to.deep.equal(cells);
        expect(plain(appended(await extract(stream, sizes, 1)).cells)).to.deep.equal(cells);
      }
  });
});
