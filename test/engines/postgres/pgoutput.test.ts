import { expect } from 'chai';
import { Duplex } from 'node:stream';
import { Collapse } from '../../../src/sync/collapse.ts';
import { changesOf } from '../../support/changes.ts';
import { Op } from '../../../src/model/changes.ts';
import type { Session } from '../../../src/engines/postgres/connection.ts';
import { PgoutputDecoder, Step } from '../../../src/engines/postgres/pgoutput.ts';
import { ReplicationConnection } from '../../../src/engines/postgres/replication-connection.ts';

const int16 = (value: number) => Buffer.from([value >> 8, value & 255]);
const int32 = (value: number) => {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32BE(value);
  return buffer;
};
const int64 = (value: bigint) => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigInt64BE(value);
  return buffer;
};
const message = (type: string, ...parts: (Buffer | string)[]) =>
  Buffer.concat([Buffer.from(type), ...parts.map((part) => Buffer.from(part))]);

const begin = (xid: number, seconds = 0) => message('B', int64(0n), int64(BigInt(seconds) * 1_000_000n), int32(xid));
const commit = (end: bigint) => message('C', '\0', int64(0n), int64(end), int64(0n));
/** Columns as `name`, `*name` (of the identity), `name:type`. */
const relation = (oid: number, table: string, ...columns: string[]) =>
  message(
    'R',
    int32(oid),
    'public\0',
    `${table}\0d`,
    int16(columns.length),
    ...columns.flatMap((column) => {
      const [name = '', type = '25'] = column.replace('*', '').split(':');
      return [column.startsWith('*') ? '\x01' : '\0', `${name}\0`, int32(Number(type)), int32(-1)];
    }),
  );
const tuple = (kind: string, ...cells: (string | null | undefined)[]) =>
  message(
    kind,
    int16(cells.length),
    ...cells.flatMap((cell) =>
      cell === null ? ['n'] : cell === undefined ? ['u'] : ['t', int32(Buffer.byteLength(cell)), cell],
    ),
  );
const insert = (oid: number, ...cells: (string | null)[]) => message('I', int32(oid), tuple('N', ...cells));
const update = (oid: number, ...tuples: Buffer[]) => message('U', int32(oid), ...tuples);
const remove = (oid: number, old: Buffer) => message('D', int32(oid), old);

function decode(decoder: PgoutputDecoder, ...messages: Buffer[]): Step[] {
  return messages.map((each) => decoder.decode(each, 0, each.length));
}

describe('pgoutput decoder', () => {
  it('writes flat arrays: values, NULL, absent, old keys', () => {
    const decoder = new PgoutputDecoder();
    const steps = decode(
      decoder,
      begin(7, 1),
      relation(1, 't', '*id', 'a', 'b:17'),
      insert(1, '1', 'é🦆', '\\x00ff'),
      update(1, tuple('K', '1', null, null), tuple('N', '2', undefined, null)),
      update(1, tuple('O', '2', 'é🦆', '\\x'), tuple('N', '2', undefined, '\\x01')),
      remove(1, tuple('K', '2', null, null)),
      message('O', int64(0n), 'origin\0'),
      message('Y', int32(99), 'public\0', 'mood\0'),
      message('M', '\0', int64(0n), 'prefix\0', int32(1), 'x'),
      commit(99n),
    );
    expect(steps.filter((step) => step === Step.Change)).to.have.length(4);
    const taken = decoder.takeCompleted();
    const [changes] = taken?.tables ?? [];
    expect(taken).to.deep.include({ end: 99n, changes: 4, transactions: 1, committedAt: 946_684_801_000 });
    expect(changes?.ops).to.deep.equal([Op.Insert, Op.Update, Op.Update, Op.Delete]);
    expect(changes?.before).to.deep.equal([-1, 3, 9, 15]);
    expect(changes?.after).to.deep.equal([0, 6, 12, -1]);
    expect(changes?.cells).to.deep.equal([
      ...['1', 'é🦆', Buffer.from([0, 255])],
      ...['1', undefined, undefined],
      ...['2', undefined, null],
      ...['2', 'é🦆', Buffer.alloc(0)],
      ...['2', 'é🦆', Buffer.from([1])],
      ...['2', undefined, undefined],
    ]);
    expect(changes?.hasAbsent).to.equal(true);
    expect(changes?.visibility).to.deep.equal(['7']);
    expect([decoder.bytes, decoder.changes, decoder.completed]).to.deep.equal([0, 0, 0]);
    expect(decoder.takeCompleted()).to.equal(null);
  });

  it('F21: keys meet, and meet no other, whether they are taken from rows as they came or from cells', () => {
    const texts = [
      '0',
      '00',
      '-0',
      '7',
      '07',
      '+7',
      '-7',
      '--7',
      '-',
      '',
      ' 7',
      '7 ',
      '7.0',
      '123456789',
      '-123456789',
    ];
    texts.push('1234567890', '12345678901234567890', '１', '7é', '1e3', '0x7');
    const decoder = new PgoutputDecoder();
    decode(decoder, begin(7), relation(1, 't', '*id', 'v'), ...texts.map((text) => insert(1, text, 'image')));
    decode(decoder, commit(9n));
    const [came] = decoder.takeCompleted()?.tables ?? [];
    expect(came?.images).to.not.equal(undefined);
    const collapse = new Collapse(['id', 'v'], ['id']);
    if (came) collapse.add(came);
    collapse.add(
      changesOf(
        ['id', 'v'],
        texts.map((text, i) => ['U', null, [i % 2 === 0 ? text : Buffer.from(text), 'cell']]),
      ),
    );
    const { upserts } = collapse.result();
    const keys = upserts.filter((_, i) => i % 2 === 0).map(String);
    expect(keys).to.have.members(texts);
    expect(upserts.filter((_, i) => i % 2 === 1)).to.deep.equal(texts.map(() => 'cell'));
  });

  it('cuts what belongs to an unfinished transaction off what is complete', () => {
    const decoder = new PgoutputDecoder();
    decode(decoder, begin(1), relation(1, 't', '*id', 'a'), relation(2, 'u', '*id'));
    decode(decoder, insert(1, '1', 'a'), commit(10n));
    decode(decoder, begin(2), insert(1, '2', 'b'), insert(2, '5'));
    decode(decoder, update(1, tuple('K', '2', null), tuple('N', '3', undefined)));
    const bytes = decoder.bytes;
    const head = decoder.takeCompleted();
    expect(head).to.deep.include({ end: 10n, changes: 1, transactions: 1 });
    expect(head?.tables.map((each) => [each.relation.name.table, each.cells, each.hasAbsent])).to.deep.equal([
      ['t', ['1', 'a'], false],
    ]);
    expect(decoder.bytes + (head?.bytes ?? 0)).to.equal(bytes);
    decode(decoder, insert(1, '4', 'd'));
    const middle = decoder.takeOpen();
    expect(middle).to.deep.include({ end: null, changes: 4, transactions: 0 });
    expect(middle.tables.map((each) => each.relation.name.table)).to.deep.equal(['t', 'u']);
    expect(middle.tables[0]).to.deep.include({
      ops: [Op.Insert, Op.Update, Op.Insert],
      before: [-1, 2, -1],
      after: [0, 4, 6],
      cells: ['2', 'b', '2', undefined, '3', undefined, '4', 'd'],
      hasAbsent: true,
      visibility: ['2'],
    });
    decode(decoder, insert(1, '6', 'f'), update(1, tuple('N', '6', undefined)), commit(20n));
    const tail = decoder.takeCompleted();
    expect(tail).to.deep.include({ end: 20n, changes: 2, transactions: 1 });
    expect(tail?.tables[0]?.visibility).to.deep.equal(['2']);
  });

  it('tells a relation described anew from one described again', () => {
    const decoder = new PgoutputDecoder();
    decode(decoder, begin(1), relation(1, 't', '*id', 'a'), insert(1, '1', 'a'));
    decode(decoder, relation(1, 't', '*id', 'a'), insert(1, '2', 'b'), commit(1n));
    decode(decoder, begin(2), relation(1, 't', '*id', 'a', 'b'), insert(1, '3', 'c', 'x'));
    decode(decoder, relation(1, 'renamed', '*id', 'a', 'b'), insert(1, '4', 'd', 'y'), commit(2n));
    const tables = decoder.takeCompleted()?.tables ?? [];
    expect(tables.map((each) => `${each.relation.name.table} ${each.ops.length}`)).to.deep.equal([
      't 2',
      't 1',
      'renamed 1',
    ]);
  });

  it('F23: a TRUNCATE of several tables is a change of each', () => {
    const decoder = new PgoutputDecoder();
    decode(decoder, begin(1), relation(1, 't', '*id'), relation(2, 'u', '*id'));
    decode(decoder, message('T', int32(2), '\x03', int32(2), int32(1)), commit(1n));
    const tables = decoder.takeCompleted()?.tables ?? [];
    expect(tables.map((each) => [each.relation.name.table, each.ops])).to.deep.equal([
      ['u', [Op.Truncate]],
      ['t', [Op.Truncate]],
    ]);
  });

  it('refuses what the protocol does not have', () => {
    const decoder = new PgoutputDecoder();
    expect(() => decode(decoder, insert(1, 'x'))).to.throw('not described');
    expect(() => decode(decoder, message('Z'))).to.throw('unknown message type');
    decode(decoder, relation(1, 't', '*id'));
    expect(() => decode(decoder, insert(1, 'x', 'y'))).to.throw('2 columns');
    expect(() => decode(decoder, message('I', int32(1), 'N', int16(1), 'b', int32(1), 'x'))).to.throw('unknown kind');
  });
});

describe('replication frames', () => {
  it('are the same however the network cuts them', async () => {
    const frame = (type: string, ...parts: (Buffer | string)[]) => {
      const body = Buffer.concat(parts.map((part) => Buffer.from(part)));
      return Buffer.concat([Buffer.from(type), int32(body.length + 4), body]);
    };
    const texts = ['', 'a', 'x'.repeat(300), 'yz', 'w'.repeat(70_000), 'end'];
    const stream = Buffer.concat([
      frame('W', '\0\0\0'),
      frame('N', 'SNOTICE\0\0'),
      ...texts.flatMap((text) => [
        frame('d', 'w', Buffer.alloc(24), text),
        frame('d', 'k', int64(BigInt(text.length)), int64(0n), '\x01'),
      ]),
    ]);
    for (const size of [1, 2, 3, 5, 7, 64, 1000, 65_536, stream.length]) {
      const socket = new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
      const session = { client: { connection: { stream: socket } }, destroy: () => socket.destroy() };
      const seen: string[] = [];
      const started = ReplicationConnection.start(session as unknown as Session, 'START', 'read', {
        data: (buffer, start, end) => seen.push(buffer.toString('utf8', start, end)),
        keepalive: (walEnd, reply) => seen.push(`${walEnd}${reply}`),
        chunk: () => undefined,
        failed: (error) => seen.push(`${error.code} ${error.message}`),
      });
      for (let at = 0; at < stream.length; at += size) socket.push(stream.subarray(at, at + size));
      await started;
      socket.push(frame('E', 'SFATAL\0C57P01\0Mterminating connection\0\0'));
      await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
      expect(seen, `cut every ${size} bytes`).to.deep.equal([
        ...texts.flatMap((text) => [text, `${text.length}true`]),
        'CONNECTION_LOST could not read: terminating connection',
      ]);
    }
  });
});
