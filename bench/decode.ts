/**
 * What a change costs us, out of memory, without network or server: decoding pgoutput, collapsing, writing COPY BINARY. Processor
 * time per change and the changes of one core. Run: npx tsx bench/decode.ts
 */
import { binaryFrames, binaryWriters } from '../src/engines/postgres/binary-rows.ts';
import { PgoutputDecoder, type Taken } from '../src/engines/postgres/pgoutput.ts';
import type { Column } from '../src/model/tables.ts';
import type { LogicalType } from '../src/model/types.ts';
import { Collapse } from '../src/sync/collapse.ts';

const ROWS_PER_TRANSACTION = 1_000;
const TRANSACTIONS = 300;
const PIECE_BYTES = 8 << 20;
/** As the socket delivers them. */
const CHUNK = 64 << 10;

const COLUMNS: readonly { name: string; oid: number; native: string; type: LogicalType }[] = [
  { name: 'id', oid: 20, native: 'bigint', type: { kind: 'int', bits: 64, signed: true } },
  { name: 'customer', oid: 25, native: 'text', type: { kind: 'text', length: null, fixed: false, nul: false } },
  {
    name: 'amount',
    oid: 1700,
    native: 'numeric(14,2)',
    type: { kind: 'decimal', precision: 14, scale: 2, special: true },
  },
  {
    name: 'ordered_at',
    oid: 1184,
    native: 'timestamp with time zone',
    type: { kind: 'timestamptz', fraction: 6, infinity: true, offset: false },
  },
  { name: 'details', oid: 3802, native: 'jsonb', type: { kind: 'json', binary: true } },
  { name: 'note', oid: 25, native: 'text', type: { kind: 'text', length: null, fixed: false, nul: false } },
];

function begin(): Buffer {
  const message = Buffer.alloc(21);
  message[0] = 0x42;
  return message;
}

function commit(): Buffer {
  const message = Buffer.alloc(26);
  message[0] = 0x43;
  return message;
}

function relation(): Buffer {
  const columns = COLUMNS.map(({ name, oid }, index) => {
    const tail = Buffer.alloc(8);
    tail.writeUInt32BE(oid, 0);
    tail.writeInt32BE(-1, 4);
    return Buffer.concat([Buffer.from([index === 0 ? 1 : 0]), Buffer.from(`${name}\0`), tail]);
  });
  return Buffer.concat([
    Buffer.from(`R\0\0\0\x2apublic\0t\0d\0${String.fromCharCode(COLUMNS.length)}`, 'latin1'),
    ...columns,
  ]);
}

function row(id: number): Buffer {
  const cells = [
    String(id),
    `customer ${id % 100003}`,
    `${id % 1000000}.${10 + (id % 90)}`,
    '2024-01-01 00:00:00.123456+00',
    `{"qty": 3, "sku": ${id % 5000}, "tags": ["a", "b17"]}`,
    'd41d8cd98f00b204e9800998ecf8427ed41d8cd98f00b204e9800998ecf8427e',
  ];
  const parts = cells.map((cell) => {
    const head = Buffer.alloc(5);
    head[0] = 0x74;
    head.writeUInt32BE(cell.length, 1);
    return Buffer.concat([head, Buffer.from(cell)]);
  });
  return Buffer.concat([Buffer.from(`I\0\0\0\x2aN\0${String.fromCharCode(COLUMNS.length)}`, 'latin1'), ...parts]);
}

/** The messages of one transaction, each in a chunk: [chunk, start, end]. */
function transaction(first: number): [Buffer, number, number][] {
  const placed: [Buffer, number, number][] = [];
  let chunk: Buffer[] = [];
  let size = 0;
  const places: [number, number][] = [];
  const close = () => {
    const buffer = Buffer.concat(chunk);
    for (const [start, end] of places) placed.push([buffer, start, end]);
    chunk = [];
    places.length = 0;
    size = 0;
  };
  const messages = [begin(), ...Array.from({ length: ROWS_PER_TRANSACTION }, (_, i) => row(first + i)), commit()];
  for (const message of messages) {
    chunk.push(message);
    places.push([size, size + message.length]);
    size += message.length;
    if (size >= CHUNK) close();
  }
  close();
  return placed;
}

const columns: Column[] = COLUMNS.map(({ name, native, type }) => ({
  name,
  nativeType: native,
  type,
  nullable: true,
  generated: null,
  identity: null,
  default: null,
  collation: null,
}));
const names = columns.map((column) => column.name);
const transactions = Array.from({ length: TRANSACTIONS }, (_, n) => transaction(10_000_000 + n * ROWS_PER_TRANSACTION));

const STEPS = ['decode', 'decode, collapse', 'decode, collapse, COPY', 'decode, cells'] as const;
for (let round = 0; round < 4; round++) {
  for (const step of STEPS) {
    const decoder = new PgoutputDecoder();
    const description = relation();
    decoder.decode(description, 0, description.length);
    let changes = 0;
    let bytes = 0;
    const take = async (taken: Taken | null) => {
      changes += taken?.changes ?? 0;
      for (const table of taken?.tables ?? []) {
        if (step === 'decode, cells') bytes += 8 * table.cells.length;
        if (step === 'decode' || step === 'decode, cells') continue;
        const collapse = new Collapse(names, ['id']);
        collapse.add(table);
        const { images, newCount } = collapse.result();
        const writers = images ? binaryWriters(images, columns) : null;
        if (!images || !writers) throw new Error('these rows should go as they came');
        if (step !== 'decode, collapse, COPY') continue;
        for await (const frame of binaryFrames(images, writers, 0, newCount)) bytes += frame.length;
      }
    };
    const started = process.cpuUsage();
    for (const messages of transactions) {
      for (const [buffer, start, end] of messages) decoder.decode(buffer, start, end);
      if (decoder.bytes >= PIECE_BYTES) await take(decoder.takeCompleted());
    }
    await take(decoder.takeCompleted());
    const used = process.cpuUsage(started);
    const micros = (used.user + used.system) / changes;
    console.log(`${step.padEnd(24)} ${micros.toFixed(2)} µs a change, ${Math.round(bytes / changes)} bytes made`);
  }
}
