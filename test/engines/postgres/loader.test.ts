import { expect } from 'chai';
import type { Connection } from '../../../src/engines/postgres/connection.ts';
import { CopyTextEncoder, decodeCopyText } from '../../../src/engines/postgres/copy-format.ts';
import { loadRows } from '../../../src/engines/postgres/loader.ts';
import type { RowStream } from '../../../src/engines/contract.ts';
import type { Cell, RowBatch } from '../../../src/model/changes.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { connect, copyTable, describeTable } from './support.ts';

const inPublic = (table: string) => ({ schema: 'public', table });

function batchOf(columns: readonly string[], cells: readonly Cell[]): RowBatch {
  return { columns, rows: cells.length / columns.length, cells };
}

async function* once<T>(...items: T[]): AsyncGenerator<T> {
  yield* items;
}

const cellsOf = (...batches: RowBatch[]): RowStream => ({ format: 'cells', batches: once(...batches) });

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'no error',
    (error: { code?: string; message?: string }) => error.code ?? error.message,
  );

describe('PostgreSQL loader', () => {
  let database: TestDatabase;
  let connection: Connection;
  before(async () => {
    database = await createDatabase('loader');
    connection = connect(database);
  });
  after(async () => {
    await connection.close();
    await database.drop();
  });

  const load = async (table: string, rows: RowStream) => {
    const { columns } = await describeTable(connection, inPublic(table));
    return connection.use((session) => loadRows(session, inPublic(table), columns, rows));
  };

  it('F32 F33: cells as text, as UTF-8 bytes and as raw bytes', async () => {
    await database.query('CREATE TABLE cells (n int, t text, b bytea)');
    const odd = 'tab\t nl\n cr\r bs\\ \b\f\v \\N \\. "quote" \' 😀 é \u0001';
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
    const long = odd.repeat(5000);
    const cells: Cell[] = [
      '1',
      odd,
      bytes,
      '2',
      Buffer.from(odd),
      Buffer.alloc(0),
      '3',
      '',
      null,
      '4',
      null,
      null,
      '5',
      '\\N',
      null,
    ];
    const rows = await load(
      'cells',
      cellsOf(batchOf(['n', 't', 'b'], cells), batchOf(['n', 't', 'b'], ['6', long, null])),
    );
    expect(rows).to.equal(6);
    const found = await database.query('SELECT n, t, b FROM cells ORDER BY n');
    expect(found).to.deep.equal([
      { n: 1, t: odd, b: Buffer.from(bytes) },
      { n: 2, t: odd, b: Buffer.alloc(0) },
      { n: 3, t: '', b: null },
      { n: 4, t: null, b: null },
      { n: 5, t: '\\N', b: null },
      { n: 6, t: long, b: null },
    ]);
  });

  it('F35: NULL into a column with a default stays NULL', async () => {
    await database.query('CREATE TABLE defaults (a int DEFAULT 7, b text DEFAULT $$x$$)');
    await load('defaults', cellsOf(batchOf(['a', 'b'], [null, null, '1', ''])));
    expect(await database.query('SELECT * FROM defaults ORDER BY a NULLS FIRST')).to.deep.equal([
      { a: null, b: null },
      { a: 1, b: '' },
    ]);
  });

  it('F45: identity always takes the values that are given', async () => {
    await database.query('CREATE TABLE identities (id int GENERATED ALWAYS AS IDENTITY, x int)');
    await load('identities', cellsOf(batchOf(['id', 'x'], ['41', '1'])));
    expect(await database.query('SELECT id FROM identities')).to.deep.equal([{ id: 41 }]);
  });

  for (const [what, type, value] of [
    ['too long', 'varchar(3)', 'abcd'],
    ['out of range', 'smallint', '40000'],
    ['NUL', 'text', 'a\0b'],
    ['half a surrogate pair', 'text', 'long enough to be written at once \ud800'],
    ['half a surrogate pair in short text', 'text', '\udc00'],
    ['not null', 'text NOT NULL', null],
  ] as const)
    it(`F32 F36: ${what} is refused, never changed; its text is not in the message`, async () => {
      await database.query(`DROP TABLE IF EXISTS narrow; CREATE TABLE narrow (a int, b ${type})`);
      const session = await connection.open();
      const { columns } = await describeTable(connection, inPublic('narrow'));
      const work = session.transaction('BEGIN', () =>
        loadRows(session, inPublic('narrow'), columns, cellsOf(batchOf(['a', 'b'], ['1', value]))),
      );
      const error = await work.catch((thrown: unknown) => thrown as { code: string; message: string });
      if (typeof error === 'number') throw new Error('was loaded');
      expect(error.code).to.equal('ROW_REFUSED');
      expect(error.message).to.not.include('abcd').and.not.include('40000');
      // The session goes on.
      expect(await session.query('count', 'SELECT count(*) AS n FROM public.narrow')).to.deep.equal([{ n: '0' }]);
      await connection.release(session);
    });

  it('F40: rows of a source that fails half-way do not stay', async () => {
    await database.query('CREATE TABLE half (a int)');
    const broken = (async function* () {
      yield batchOf(
        ['a'],
        Array.from({ length: 50_000 }, (_, i) => String(i)),
      );
      throw new Error('the source is gone');
    })();
    expect(await codeOf(load('half', { format: 'cells', batches: broken }))).to.equal('the source is gone');
    expect(await database.query('SELECT count(*)::int AS n FROM half')).to.deep.equal([{ n: 0 }]);
  });

  it('F40: a destination killed in mid-load is CONNECTION_LOST, and the source is let go', async () => {
    await database.query('CREATE TABLE killed (a text)');
    let returned = false;
    const endless = {
      [Symbol.asyncIterator]: () => ({
        next: async () => {
          await new Promise((resolve) => setImmediate(resolve));
          return {
            done: false as const,
            value: batchOf(
              ['a'],
              Array.from({ length: 1000 }, () => 'x'.repeat(100)),
            ),
          };
        },
        return: async () => {
          returned = true;
          return { done: true as const, value: undefined };
        },
      }),
    };
    const work = codeOf(load('killed', { format: 'cells', batches: endless }));
    await new Promise((resolve) => setTimeout(resolve, 200));
    await database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY %' AND datname = current_database()`,
    );
    expect(await work).to.equal('CONNECTION_LOST');
    expect(returned).to.equal(true);
  });

  it('F43: a destination that stops taking rows stops the source: what is in flight is bounded', async () => {
    await database.query(`CREATE TABLE slow (a text); CREATE TABLE source_of_slow (a text);
      CREATE FUNCTION wait_at_half() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.a LIKE '50000 %' THEN PERFORM pg_advisory_xact_lock(4711); END IF; RETURN NEW; END $$;
      CREATE TRIGGER wait_at_half BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION wait_at_half();
      INSERT INTO source_of_slow SELECT g || ' ' || repeat('x', 1000) FROM generate_series(1, 100000) g`);
    const locker = await database.connect();
    await locker.query('BEGIN; SELECT pg_advisory_xact_lock(4711)');
    let read = 0;
    const work = copyTable(connection, connection, inPublic('source_of_slow'), inPublic('slow'), {
      lane: 'text',
      wrap: (rows) => {
        if (!('bytes' in rows)) return rows;
        const { bytes, format } = rows;
        return {
          format,
          bytes: (async function* () {
            for await (const data of bytes) {
              read += data.length;
              yield data;
            }
          })(),
        };
      },
    });
    const until = Date.now() + 20_000;
    for (let last = -1; last !== read || read === 0;) {
      if (Date.now() > until) throw new Error('did not come to rest');
      last = read;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    // Half the rows are in; beyond them no more than the buffers of two sockets and our own.
    expect(read).to.be.greaterThan(49_000_000).and.lessThan(65_000_000);
    await locker.query('COMMIT');
    expect(await work).to.equal(100_000);
  });

  it('text of COPY decodes to what was encoded, cut anywhere', async () => {
    const cells: Cell[] = [];
    for (let i = 0; i < 3000; i++)
      cells.push(`${i}\t\\é`, i % 3 === 0 ? null : Buffer.from([i & 255, 92, 10]), 'x'.repeat(i % 50));
    const columns = ['t', 'b', 'p'];
    const binary = [false, true, false];
    const encoder = new CopyTextEncoder(binary);
    const framed = [...encoder.encode(batchOf(columns, cells))];
    const last = encoder.flush();
    if (last) framed.push(last);
    const payload = Buffer.concat(framed.map((data) => data.subarray(5)));
    // One message a row, as a server sends; rows of more than ten bytes in two messages.
    const messages: Buffer[] = [];
    const message = (data: Buffer) => {
      const head = Buffer.from([0x64, 0, 0, 0, 0]);
      head.writeUInt32BE(data.length + 4, 1);
      messages.push(Buffer.concat([head, data]));
    };
    for (let at = 0; at < payload.length;) {
      const end = payload.indexOf(10, at) + 1;
      if (end - at > 10) {
        message(payload.subarray(at, at + 9));
        message(payload.subarray(at + 9, end));
      } else message(payload.subarray(at, end));
      at = end;
    }
    const decoded: Cell[] = [];
    for await (const batch of decodeCopyText(once(...messages), columns, binary)) decoded.push(...batch.cells);
    expect(decoded).to.deep.equal(cells);
  });
});
