/**
 * Decodes pgoutput messages of 5-column rows out of memory: changes per second on one core, without network or server.
 * Run: npx tsx bench/decode.ts
 */
import { PgoutputDecoder } from '../src/engines/postgres/pgoutput.ts';

const ROWS_PER_TRANSACTION = 1_000;
const TRANSACTIONS = 200;
const PIECE_BYTES = 16 << 20;

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
  const columns = ['id', 'name', 'created_at', 'active', 'payload'].map((name, index) => {
    const tail = Buffer.alloc(8);
    tail.writeUInt32BE(25, 0);
    tail.writeInt32BE(-1, 4);
    return Buffer.concat([Buffer.from([index === 0 ? 1 : 0]), Buffer.from(`${name}\0`), tail]);
  });
  return Buffer.concat([Buffer.from('R\0\0\0\x2apublic\0t\0d\0\x05', 'latin1'), ...columns]);
}

function row(id: number): Buffer {
  const cells = [String(id), `hello world ${id % 97}`, '2024-01-01 00:00:00.123456+00', 't', 'x'.repeat(32)];
  const parts = cells.map((cell) => {
    const head = Buffer.alloc(5);
    head[0] = 0x74;
    head.writeUInt32BE(cell.length, 1);
    return Buffer.concat([head, Buffer.from(cell)]);
  });
  return Buffer.concat([Buffer.from('I\0\0\0\x2aN\0\x05', 'latin1'), ...parts]);
}

const messages = [begin(), relation()];
for (let id = 0; id < ROWS_PER_TRANSACTION; id++) messages.push(row(10_000_000 + id));
messages.push(commit());
const buffer = Buffer.concat(messages);
const ends: number[] = [];
for (const message of messages) ends.push((ends.at(-1) ?? 0) + message.length);

for (let round = 0; round < 5; round++) {
  const decoder = new PgoutputDecoder();
  const started = performance.now();
  let changes = 0;
  for (let transaction = 0; transaction < TRANSACTIONS; transaction++) {
    let start = 0;
    for (const end of ends) {
      decoder.decode(buffer, start, end);
      start = end;
    }
    if (decoder.bytes >= PIECE_BYTES) changes += decoder.takeCompleted()?.changes ?? 0;
  }
  changes += decoder.takeCompleted()?.changes ?? 0;
  const seconds = (performance.now() - started) / 1000;
  console.log(`${Math.round(changes / seconds).toLocaleString('en')} changes/s`);
}
