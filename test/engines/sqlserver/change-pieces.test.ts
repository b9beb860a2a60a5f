/** A history of every kind of change, cut into pieces of every size: what they hold is the change tables' own account of it (F21, F43). */
import { expect } from 'chai';
import type { SqlServerChanges } from '../../../src/engines/sqlserver/changes.ts';
import { lsnOf, parsePosition, type Lsn } from '../../../src/engines/sqlserver/position.ts';
import type { ChangePiece } from '../../../src/model/changes.ts';
import type { Position } from '../../../src/model/position.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';
import { eventually } from '../../support/service.ts';
import { changesOf, follow, shown, STREAM } from './change-support.ts';

const isLong = process.env['SLUICE_TEST_LONG'] !== undefined;
/** Transactions before and after a second capture instance. */
const LENGTH = isLong ? 60 : 20;
/** In the smallest one most transactions are large ones, in the largest one all fit at once. */
const SIZES = isLong ? [4 << 10, 16 << 10, 64 << 10, 400 << 10, 16 << 20] : [16 << 10, 100 << 10, 16 << 20];

describe('SQL Server change stream: pieces', () => {
  let database: SqlServerTestDatabase;
  let changes: SqlServerChanges;

  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this), 'pieces');
    changes = changesOf(database);
    await database.enableCdc();
  });
  after(() => database?.drop());

  /** Everything so far is captured. */
  const captured = async (): Promise<Position> => {
    const end = await changes.end();
    let at = (await changes.prepare(STREAM)).start;
    await eventually(async () => {
      at = (await changes.prepare(STREAM)).start;
      if (changes.compare(at, end) === 'before') throw new Error('not captured yet');
    }, 20_000);
    return at;
  };
  /** What the change table says, in order: `<LSN>`, and what `shown` makes of the change without its text. */
  const recorded = async (instance: string, columns: string, above: Lsn, upTo: Lsn) => {
    const rows = await database.query(
      `SELECT c.[__$start_lsn] AS lsn, c.[__$operation] AS operation, ${columns} FROM cdc.[${instance}_CT] c WHERE c.[__$operation] <> 3
       ORDER BY c.[__$start_lsn], c.[__$command_id], c.[__$seqval], c.[__$operation]`,
    );
    return rows
      .map((row) => {
        if (!(row['lsn'] instanceof Uint8Array)) throw new Error('no LSN');
        const op = { 1: 'D', 2: 'I', 4: 'U' }[Number(row['operation'])] ?? '?';
        return { lsn: lsnOf(row['lsn']), text: `${op}${String(row['id'])}${op === 'D' ? '' : `/${String(row['n'])}`}` };
      })
      .filter(({ lsn }) => lsn > above && lsn <= upTo);
  };
  const brief = (piece: ChangePiece, table: string) =>
    shown([{ ...piece, tables: piece.tables.filter(({ relation }) => relation.name.table === table) }]).map((each) => {
      const cells = each.slice(2).split('>').at(-1)?.split(',') ?? [];
      return `${each[0] ?? ''}${cells[0] ?? ''}${each.startsWith('D') ? '' : `/${cells[1] ?? ''}`}`;
    });

  it('F21 F43: whatever their size, pieces hold each change once, in order, and end where transactions end', async function () {
    this.timeout(240_000);
    await database.query(
      `CREATE TABLE dbo.a (id int NOT NULL PRIMARY KEY, n int, v nvarchar(max));
       CREATE TABLE dbo.b (id int NOT NULL PRIMARY KEY, n int, code nvarchar(40) NOT NULL UNIQUE, w nvarchar(3000))`,
    );
    await database.captureTable('dbo', 'a');
    await database.captureTable('dbo', 'b');
    const from = await captured();
    const random = (() => {
      let seed = 7;
      return (below: number) => {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
        return Math.floor((seed / 2_147_483_648) * below);
      };
    })();
    let n = 0;
    let nextId = 0;
    const statement = (): string => {
      const size = [1, 10, 300, 2900][random(4)] ?? 1;
      const first = nextId;
      const count = [1, 1, 2, 5, 40][random(5)] ?? 1;
      const id = random(Math.max(1, nextId));
      n++;
      switch (random(9)) {
        case 0:
        case 1:
          nextId += count;
          return `INSERT INTO dbo.a (id, n, v) VALUES ${Array.from({ length: count }, (_, i) => `(${first + i}, ${n}, REPLICATE(N'x', ${size}))`).join(', ')}`;
        case 2:
        case 3:
          nextId += count;
          return `INSERT INTO dbo.b (id, n, code, w) VALUES ${Array.from({ length: count }, (_, i) => `(${first + i}, ${n}, N'c${first + i}', REPLICATE(N'x', ${size}))`).join(', ')}`;
        case 4:
          return `UPDATE dbo.a SET n = ${n} WHERE id BETWEEN ${id} AND ${id + 60}`;
        case 5:
          return `UPDATE dbo.a SET n = ${n}, v = REPLICATE(N'y', ${size}) WHERE id BETWEEN ${id} AND ${id + 30}`;
        case 6:
          return `UPDATE dbo.b SET n = ${n}, w = REPLICATE(N'y', ${size}) WHERE id BETWEEN ${id} AND ${id + 60}`;
        case 7:
          nextId += 1;
          return `UPDATE dbo.b SET n = ${n}, id = ${first} WHERE id = (SELECT MIN(id) FROM dbo.b WHERE id >= ${id})`;
        default:
          return `DELETE FROM dbo.${random(2) === 0 ? 'a' : 'b'} WHERE id BETWEEN ${id} AND ${id + 3}`;
      }
    };
    const transactions = async (count: number) => {
      const all = Array.from({ length: count }, () => {
        const statements = Array.from({ length: [1, 1, 2, 4, 12][random(5)] ?? 1 }, statement).join('; ');
        return `BEGIN TRANSACTION; ${statements}; COMMIT`;
      });
      for (let at = 0; at < all.length; at += 5) await database.query(all.slice(at, at + 5).join('; '));
    };
    await transactions(LENGTH);
    await database.query('ALTER TABLE dbo.b ADD x int');
    await database.captureTable('dbo', 'b', { instance: 'dbo_b_2' });
    const handOver = await database.query(
      `SELECT c.start_lsn AS lsn FROM cdc.change_tables c WHERE c.capture_instance = N'dbo_b_2'`,
    );
    const { lsn } = handOver[0] ?? {};
    if (!(lsn instanceof Uint8Array)) throw new Error('no second instance');
    await transactions(LENGTH);
    const end = await captured();
    const above = parsePosition(from)?.lsn ?? '';
    const upTo = parsePosition(end)?.lsn ?? '';
    const expected = {
      a: await recorded('dbo_a', 'c.id AS id, c.n AS n', above, upTo),
      b: [
        ...(await recorded('dbo_b', 'c.id AS id, c.n AS n', above, lsnOf(lsn))),
        ...(await recorded('dbo_b_2', 'c.id AS id, c.n AS n', lsnOf(lsn), upTo)),
      ],
    };
    expect(Math.min(expected.a.length, expected.b.length)).to.be.greaterThan(200);
    for (const maxBytes of SIZES)
      for (const maxChanges of isLong ? [1, 7, 10_000] : [10_000]) {
        const following = await follow(changes, from, { maxBytes, maxChanges });
        let last = above;
        let parts: ChangePiece[] = [];
        try {
          while (last < upTo) {
            const [piece] = await following.until((all) => all.length > 0);
            if (!piece) throw new Error('no piece');
            parts.push(piece);
            expect(piece.bytes).to.be.lessThan(maxBytes * 2);
            if (piece.end === null) continue;
            const to = parsePosition(piece.end)?.lsn ?? '';
            for (const table of ['a', 'b'] as const) {
              const low = last;
              expect(
                parts.flatMap((each) => brief(each, table)),
                `${table} with ${maxBytes} bytes, ${maxChanges} changes, from ${low} to ${to}`,
              ).to.deep.equal(expected[table].filter((one) => one.lsn > low && one.lsn <= to).map(({ text }) => text));
            }
            last = to;
            parts = [];
          }
        } finally {
          await following.reader.stop();
        }
      }
  });
});
