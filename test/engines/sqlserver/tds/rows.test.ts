import { expect } from 'chai';
import type { Cell } from '../../../../src/model/changes.ts';
import { cellOf, endOfValue } from '../../../../src/engines/sqlserver/tds/read-columns.ts';
import { isSet } from '../../../../src/engines/sqlserver/tds/row-rests.ts';
import { RowExtractor } from '../../../../src/engines/sqlserver/tds/rows.ts';

const COLUMNS = 4;

/** COLMETADATA of int, nvarchar(50), nvarchar(max), varbinary(100), without names (MS-TDS 2.2.7.4). */
function metadata(): Buffer {
  const head = (type: number) => [0, 0, 0, 0, 0, 0, type];
  const collation = [0, 0, 0, 0, 0];
  return Buffer.from([
    ...[0x81, COLUMNS, 0],
    ...[...head(0x38), 0],
    ...[...head(0xe7), 100, 0, ...collation, 0],
    ...[...head(0xe7), 0xff, 0xff, ...collation, 0],
    ...[...head(0xa5), 100, 0, 0],
  ]);
}

/** A row, NULL of the third column as a bit of an NBCROW where that is chosen. */
function row([id, name, text, bytes]: [number, string, string | null, Buffer], parts: number): Buffer {
  const pieces: Buffer[] = [text === null ? Buffer.from([0xd2, 0b0100]) : Buffer.from([0xd1])];
  const number = (size: 2 | 4, value: number) => {
    const made = Buffer.alloc(size);
    made.writeUIntLE(value, 0, size);
    return made;
  };
  pieces.push(number(4, id));
  const named = Buffer.from(name, 'utf16le');
  pieces.push(number(2, named.length), named);
  if (text !== null) {
    const all = Buffer.from(text, 'utf16le');
    pieces.push(Buffer.from('feffffffffffffff', 'hex'));
    const size = Math.max(2, Math.ceil(all.length / parts / 2) * 2);
    for (let at = 0; at < all.length; at += size) {
      const part = all.subarray(at, at + size);
      pieces.push(number(4, part.length), part);
    }
    pieces.push(number(4, 0));
  }
  pieces.push(number(2, bytes.length), bytes);
  return Buffer.concat(pieces);
}

async function* cut(stream: Buffer, sizes: () => number): AsyncGenerator<Buffer> {
  for (let at = 0; at < stream.length;) {
    const size = Math.min(sizes(), stream.length - at);
    // A copy of its own: whoever keeps a place in it must not rely on what lies around it.
    yield Buffer.from(stream.subarray(at, at + size));
    at += size;
    await Promise.resolve();
  }
}

describe('Rows of an answer', () => {
  // A linear congruential generator (Knuth): the same cuts every time.
  let state = 20261122;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };

  const done = Buffer.from([0xfd, 0x10, 0, 0xc1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);

  function answer(rows: number, largest: number): { stream: Buffer; expected: Cell[][] } {
    const expected: Cell[][] = [];
    const pieces = [metadata()];
    for (let id = 0; id < rows; id++) {
      const name = 'n'.repeat(random(50));
      const text = random(4) === 0 ? null : 'x'.repeat(random(random(8) === 0 ? largest : 40));
      const bytes = Buffer.alloc(random(100), id);
      pieces.push(row([id, name, text, bytes], 1 + random(3)));
      expected.push([String(id), name, text, bytes]);
    }
    return { stream: Buffer.concat([...pieces, done]), expected };
  }

  /** All cells, of the rests too, once everything was read: nothing that is kept may have been written over. */
  async function read(stream: Buffer, sizes: () => number, leading: number | null): Promise<Cell[][]> {
    const batches: Parameters<ConstructorParameters<typeof RowExtractor>[0]>[0][] = [];
    const extractor = new RowExtractor(
      (batch) => {
        batches.push(batch);
        return Promise.resolve();
      },
      5000,
      leading,
    );
    const others: Buffer[] = [];
    for await (const other of extractor.rest(cut(stream, sizes))) others.push(other);
    expect(Buffer.concat(others)).to.deep.equal(done);
    return batches.flatMap(({ cells, width, rows, rests }) =>
      Array.from({ length: rows }, (_, at) => {
        const made = cells.slice(at * width, (at + 1) * width);
        if (rests === null) return made;
        const buffer = rests.buffers[at] ?? Buffer.alloc(0);
        let place = rests.starts[at] ?? 0;
        const nulls = rests.nulls[at] ?? null;
        rests.format.columns.forEach((column, i) => {
          if (nulls !== null && isSet(nulls, width + i)) {
            made.push(null);
            return;
          }
          made.push(cellOf(column, buffer, place));
          place = endOfValue(column, buffer, place);
        });
        expect(place).to.equal((rests.starts[at] ?? 0) + (rests.lengths[at] ?? 0));
        return made;
      }),
    );
  }

  for (const [what, sizes] of [
    ['any size', () => 1 + random(9000)],
    ['a few bytes', () => 1 + random(30)],
    ['a packet', () => 4088],
    ['large ones', () => 32_759],
  ] as const)
    for (const leading of [null, 1])
      it(`F33: are the same wherever it was cut: pieces of ${what}, ${leading === null ? 'all cells' : 'rests as they came'}`, async () => {
        for (let round = 0; round < 6; round++) {
          const { stream, expected } = answer(400, [100, 3000, 60_000][round % 3] ?? 100);
          expect(await read(stream, sizes, leading)).to.deep.equal(expected);
        }
      });
});
