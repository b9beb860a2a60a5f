import { expect } from 'chai';
import { randomBytes } from 'node:crypto';
import { Op } from '../../../src/model/changes.ts';
import type { Position } from '../../../src/model/position.ts';
import type { Table, TableName } from '../../../src/model/tables.ts';
import type { ChangeReader, ReadOptions } from '../../../src/engines/contract.ts';
import { PostgresChanges } from '../../../src/engines/postgres/changes.ts';
import { Connection } from '../../../src/engines/postgres/connection.ts';
import { formatPosition, type Place } from '../../../src/engines/postgres/position.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { Collector, describeTable, end, place, rejects, rows, sleep, until } from './change-helpers.ts';

const READ: ReadOptions = { maxChanges: 10_000, maxBytes: 16 << 20, idleProgressMs: () => 50, pollMs: () => 50 };
const STREAM = 'server:1/db';

describe('PostgreSQL change stream', () => {
  let db: TestDatabase;
  let connection: Connection;
  let changes: PostgresChanges;
  const readers: ChangeReader[] = [];
  const extra: Connection[] = [];

  beforeEach(async () => {
    db = await createDatabase('chg');
    connection = connect(db.url);
    changes = new PostgresChanges(connection);
  });

  afterEach(async () => {
    await Promise.all(readers.splice(0).map((reader) => reader.stop().catch(() => undefined)));
    await changes.drop(STREAM).catch(() => undefined);
    await Promise.all([connection, ...extra.splice(0)].map((each) => each.close()));
    await db.drop();
  });

  function connect(url: string, uid = `installation-${db.name}`): Connection {
    return new Connection({
      connectionString: url,
      database: null,
      installation: { uid },
      applicationName: 'sluice test',
    });
  }

  async function table(name: TableName | string): Promise<Table> {
    const full = typeof name === 'string' ? { schema: 'public', table: name } : name;
    return describeTable(db, full);
  }

  /** Creates a table, prepares the stream, includes the table. */
  async function follow(...ddl: string[]): Promise<Position> {
    for (const each of ddl) await db.query(each);
    await changes.prepare(STREAM);
    const names = await db.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition`,
    );
    const tables: Table[] = [];
    for (const { name } of names) tables.push(await table(name));
    await Promise.all(tables.map((each) => changes.include(STREAM, each)));
    return changes.end();
  }

  async function read(from: Position, options: Partial<ReadOptions> = {}): Promise<Collector> {
    const reader = await changes.read(STREAM, from, { ...READ, ...options });
    readers.push(reader);
    return new Collector(reader, changes);
  }

  describe('positions and acknowledgement', () => {
    it('hands out a single committed transaction at once, with its end position', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY, v text)');
      const stream = await read(start, { idleProgressMs: () => 60_000 });
      await sleep(50);
      const before = performance.now();
      await db.query(`INSERT INTO t VALUES (1, 'ä€😀'), (2, ''), (3, NULL)`);
      const piece = await stream.next((each) => each.changes > 0);
      expect(performance.now() - before).to.be.below(500);
      expect(rows(piece)).to.deep.equal(['public.t I 1,ä€😀', 'public.t I 2,', 'public.t I 3,NULL']);
      expect(piece.transactions).to.equal(1);
      expect(changes.compare(start, end(piece))).to.equal('before');
      expect(Math.abs(Date.now() - (piece.committedAt ?? 0))).to.be.below(5_000);
    });

    it('F02: the slot does not move beyond what was acknowledged', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      const confirmed = async () =>
        (
          await db.query<{ lsn: string }>(
            'SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE database = current_database()',
          )
        )[0]?.lsn;
      const stream = await read(start);
      await db.query('INSERT INTO t VALUES (1)');
      const first = await stream.next((each) => each.changes > 0);
      await db.query('INSERT INTO t VALUES (2)');
      await stream.next((each) => each.changes > 0);
      await changes.end();
      await sleep(300);
      expect(await confirmed()).to.equal(changes.display(start));
      stream.reader.acknowledge(end(first));
      await until(async () => (await confirmed()) === changes.display(end(first)));
      stream.reader.acknowledge(start); // never backwards
      stream.reader.acknowledge(formatPosition({ ...place(end(first)), lsn: place(end(first)).lsn + (1n << 40n) }));
      await sleep(200);
      const last = stream.lastEnd;
      expect(await confirmed()).to.equal(changes.display(last)); // not beyond what was handed out
    });

    it('F05 F06: reading again from a stored end loses nothing and repeats nothing', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      for (let i = 0; i < 30; i++) await db.query(`INSERT INTO t VALUES (${i * 2}), (${i * 2 + 1})`);
      const seen: string[] = [];
      let from = start;
      for (let round = 0; seen.length < 60 && round < 100; round++) {
        const stream = await read(from, { maxChanges: 1 + (round % 5) });
        const piece = await stream.next((each) => each.changes > 0);
        seen.push(...rows(piece));
        from = end(piece);
        if (round % 2) stream.reader.acknowledge(from);
        await stream.reader.stop();
      }
      expect(seen).to.deep.equal(Array.from({ length: 60 }, (_, i) => `public.t I ${i}`));
    });

    it('idle: a quiet stream passes end() in less than 500 ms, and a stop and start later goes on from there', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      const stream = await read(start);
      await sleep(200);
      const before = performance.now();
      const target = await changes.end();
      const piece = await stream.next(
        (each) => each.end !== null && ['equal', 'after'].includes(changes.compare(each.end, target)),
      );
      expect(performance.now() - before).to.be.below(500);
      expect(piece.tables).to.deep.equal([]);
      stream.reader.acknowledge(end(piece));
      await stream.reader.stop();
      const again = await read(end(piece));
      await db.query('INSERT INTO t VALUES (7)');
      expect(rows(await again.next((each) => each.changes > 0))).to.deep.equal(['public.t I 7']);
    });

    it('idle progress is handed out no more often than asked', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      const stream = await read(start, { idleProgressMs: () => 300 });
      const at: number[] = [];
      for (let i = 0; i < 20; i++) {
        await changes.end();
        await sleep(50);
      }
      const stop = performance.now() + 900;
      while (performance.now() < stop) {
        const piece = await Promise.race([stream.next(), sleep(1_000)]);
        if (!piece) break;
        at.push(performance.now());
        await changes.end();
      }
      for (let i = 1; i < at.length; i++) expect((at[i] ?? 0) - (at[i - 1] ?? 0)).to.be.above(250);
    });
  });

  describe('what the source lost', () => {
    it('F10: a slot that is gone is a gap, and prepare makes a new one', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      await db.query(
        'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()',
      );
      await rejects(changes.read(STREAM, start, READ), 'GAP');
      expect((await changes.health(STREAM, [])).stream?.[0]?.code).to.equal('GAP');
    });

    it('F17: a slot re-created behind our back is a gap', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      await db.query(
        'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()',
      );
      await db.query('INSERT INTO t VALUES (1)');
      const again = await changes.prepare(STREAM);
      expect(again.created).to.equal(true);
      await rejects(changes.read(STREAM, start, READ), 'GAP', /lies below/);
      const stream = await read(again.start); // and the new one works
      await db.query('INSERT INTO t VALUES (2)');
      expect(rows(await stream.next((each) => each.changes > 0))).to.deep.equal(['public.t I 2']);
    });

    it('F17: a publication that lost the table, and an identity that went, are found by health', async () => {
      await follow('CREATE TABLE t (id int PRIMARY KEY)', 'CREATE TABLE "Ü""b" (id int PRIMARY KEY)');
      const names = [
        { schema: 'public', table: 't' },
        { schema: 'public', table: 'Ü"b' },
        { schema: 'public', table: 'gone' },
      ];
      const well = await changes.health(STREAM, names.slice(0, 2));
      expect(well.tables).to.deep.equal([]);
      expect(well.stream).to.deep.equal([]);
      expect(well.retainedBytes).to.be.at.least(0);
      const [publication] = await db.query<{ pubname: string }>('SELECT pubname FROM pg_publication');
      await db.query(`ALTER PUBLICATION ${publication?.pubname} DROP TABLE t`);
      await db.query('ALTER TABLE "Ü""b" REPLICA IDENTITY NOTHING');
      const ill = await changes.health(STREAM, names);
      expect(ill.tables.map((each) => `${each.name.table} ${each.finding.code}`)).to.deep.equal([
        't GAP',
        'Ü"b CDC_NOT_READY',
        'gone SOURCE_TABLE_MISSING',
      ]);
      for (const each of ill.tables) for (const sql of each.finding.fixSql) await db.query(sql);
      expect((await changes.health(STREAM, names.slice(0, 2))).tables).to.deep.equal([]);
    });

    it('F17: a publication that is gone is a gap', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      const [publication] = await db.query<{ pubname: string }>('SELECT pubname FROM pg_publication');
      await db.query(`ALTER PUBLICATION ${publication?.pubname} SET (publish = 'insert')`);
      const [finding] = (await changes.health(STREAM, [])).stream ?? [];
      expect(finding?.code).to.equal('CDC_NOT_READY');
      await rejects(changes.read(STREAM, start, READ), 'CDC_NOT_READY', /pubupdate/);
      for (const sql of finding?.fixSql ?? []) await db.query(sql);
      await (await changes.read(STREAM, start, READ)).stop();
      await db.query(`DROP PUBLICATION ${publication?.pubname}`);
      expect((await changes.health(STREAM, [])).stream?.[0]?.code).to.equal('GAP');
      await rejects(changes.read(STREAM, start, READ), 'GAP', /publication/);
    });

    it('F19: a stored position below what was acknowledged is a gap, never a silent later start', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      const stream = await read(start);
      await db.query('INSERT INTO t VALUES (1)');
      stream.reader.acknowledge(end(await stream.next((each) => each.changes > 0)));
      await stream.reader.stop();
      await rejects(changes.read(STREAM, start, READ), 'GAP', /lies below/);
    });

    it('F15: another cluster, an earlier point, an unknown timeline and foreign text are gaps', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      const here = place(start);
      const at = (change: Partial<Place>) => formatPosition({ ...here, ...change });
      await rejects(changes.read(STREAM, at({ systemId: '1' }), READ), 'GAP', /another cluster/);
      await rejects(changes.read(STREAM, at({ timeline: 7 }), READ), 'GAP', /timeline/);
      await rejects(changes.read(STREAM, at({ lsn: here.lsn + (1n << 42n) }), READ), 'GAP', /earlier point/);
      await rejects(changes.read(STREAM, 'binlog.000001:4' as Position, READ), 'GAP');
      await read(start); // none of these attempts has held or moved the slot
    });

    it('a second reader is told that the stream is in use', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      await read(start);
      await rejects(changes.read(STREAM, start, READ), 'CDC_IN_USE');
    });

    it('F41: a killed connection ends the stream with CONNECTION_LOST; reading again goes on', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY)');
      const stream = await read(start);
      const pending = rejects(
        stream.next((each) => each.changes > 0),
        'CONNECTION_LOST',
      );
      await db.query(
        'SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()',
      );
      await pending;
      await db.query('INSERT INTO t VALUES (1)');
      const again = await read(start);
      expect(rows(await again.next((each) => each.changes > 0))).to.deep.equal(['public.t I 1']);
    });
  });

  describe('what rows mean', () => {
    it('F20: key changes carry the old key; two rows swap theirs', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY, v text)');
      const stream = await read(start);
      await db.query(`INSERT INTO t VALUES (1, 'a'), (2, 'b')`);
      await db.query(
        'BEGIN; UPDATE t SET id = 3 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 3; COMMIT',
      );
      await db.query(`UPDATE t SET v = 'c' WHERE id = 1; DELETE FROM t WHERE id = 2`);
      expect(await stream.take(7)).to.deep.equal([
        'public.t I 1,a',
        'public.t I 2,b',
        'public.t U 1,- > 3,a',
        'public.t U 2,- > 1,b',
        'public.t U 3,- > 2,a',
        'public.t U > 1,c',
        'public.t D 2,-',
      ]);
    });

    it('F21: insert, update, delete, insert of one key stay in order', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY, v int)');
      const stream = await read(start, { maxChanges: 3 });
      await db.query('INSERT INTO t VALUES (1, 1); UPDATE t SET v = 2; DELETE FROM t; INSERT INTO t VALUES (1, 3)');
      await db.query('UPDATE t SET v = 4');
      expect(await stream.take(5)).to.deep.equal([
        'public.t I 1,1',
        'public.t U > 1,2',
        'public.t D 1,-',
        'public.t I 1,3',
        'public.t U > 1,4',
      ]);
    });

    it('F22: unchanged large values are absent, with a visibility token; REPLICA IDENTITY FULL fills them', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY, big text STORAGE EXTERNAL, n int)');
      const stream = await read(start);
      const big = randomBytes(6_000).toString('hex');
      await db.query('INSERT INTO t VALUES (1, $1, 0)', [big]);
      await db.query('UPDATE t SET n = 1');
      const first = await stream.next((each) => each.changes > 0);
      const update = first.tables[0]?.ops.includes(Op.Update)
        ? first
        : await stream.next((each) => each.tables[0]?.ops.includes(Op.Update) ?? false);
      const tableChanges = update.tables[0];
      expect(tableChanges?.hasAbsent).to.equal(true);
      expect(tableChanges?.visibility).to.have.length(1);
      const [xid] = await db.query<{ xmin: string }>('SELECT xmin::text FROM t');
      expect(tableChanges?.visibility).to.deep.equal([xid?.xmin]);
      expect(rows(update).at(-1)).to.equal('public.t U > 1,-,1');
      await db.query('ALTER TABLE t REPLICA IDENTITY FULL');
      await db.query('UPDATE t SET n = 2');
      const full = await stream.next((each) => each.changes > 0);
      expect(full.tables[0]?.hasAbsent).to.equal(false);
      expect(rows(full)).to.deep.equal([`public.t U 1,${big},1 > 1,${big},2`]);
    });

    it('F22: a large key that did not change is filled from the old key', async () => {
      const start = await follow(
        'CREATE TABLE t (k text STORAGE EXTERNAL, n int, PRIMARY KEY (k))',
        'ALTER TABLE t SET (toast_tuple_target = 128)',
      );
      const key = randomBytes(1_200).toString('hex');
      const stream = await read(start);
      await db.query('INSERT INTO t VALUES ($1, 0)', [key]);
      await db.query('UPDATE t SET n = 1');
      const seen = await stream.take(2);
      expect(seen[1]).to.match(new RegExp(`> ${key},1$`));
    });

    it('F23: TRUNCATE of several tables, and through CASCADE', async () => {
      const start = await follow(
        'CREATE TABLE a (id int PRIMARY KEY)',
        'CREATE TABLE b (id int PRIMARY KEY REFERENCES a)',
      );
      const stream = await read(start);
      await db.query('INSERT INTO a VALUES (1)');
      await db.query('TRUNCATE a CASCADE');
      expect((await stream.take(3)).sort()).to.deep.equal(['public.a I 1', 'public.a T', 'public.b T']);
    });

    it('F26: a relation that changes in mid-stream starts a new entry', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY, v int)');
      const stream = await read(start);
      await db.query(
        `BEGIN; INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD COLUMN w text; INSERT INTO t VALUES (2, 2, 'x');
         ALTER TABLE t ALTER COLUMN v TYPE bigint; INSERT INTO t VALUES (3, 3, 'y'); COMMIT`,
      );
      const piece = await stream.next((each) => each.changes > 0);
      expect(piece.tables.map((each) => each.relation.columns.join())).to.deep.equal(['id,v', 'id,v,w', 'id,v,w']);
      expect(piece.tables.map((each) => each.relation.columnTypes[1])).to.deep.equal(['23:-1', '23:-1', '20:-1']);
      expect(rows(piece)).to.deep.equal(['public.t I 1,1', 'public.t I 2,2,x', 'public.t I 3,3,y']);
    });

    it('partitions arrive under the name of their root', async () => {
      const start = await follow(
        'CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)',
        'CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)',
        // Columns in another order, as attached partitions may have them.
        'CREATE TABLE p2 (v text, id int NOT NULL PRIMARY KEY)',
        'ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)',
      );
      const stream = await read(start);
      await db.query(`INSERT INTO p VALUES (1, 'a'), (11, 'b')`);
      await db.query(`UPDATE p SET v = 'c' WHERE id = 11; TRUNCATE p`);
      expect(await stream.take(4)).to.deep.equal([
        'public.p I 1,a',
        'public.p I 11,b',
        'public.p U > 11,c',
        'public.p T',
      ]);
    });

    it('weird names, bytea as bytes, all of a text', async () => {
      const schema = `s"c'h \\ $ é`;
      const name = `T.a"b'l\\e [x] 🦆`;
      await db.query(`CREATE SCHEMA ${quote(schema)}`);
      await db.query('CREATE DOMAIN public.blob AS bytea');
      await db.query(
        `CREATE TABLE ${quote(schema)}.${quote(name)} ("select" int, "c""o'l" bytea, "é 🦆" public.blob, PRIMARY KEY ("select"))`,
      );
      const start = await follow();
      await changes.include(STREAM, await table({ schema, table: name }));
      const stream = await read(start);
      await db.query(
        `INSERT INTO ${quote(schema)}.${quote(name)} VALUES (1, '\\x00ff61', '\\x'), (2, NULL, '\\xabcd')`,
      );
      const piece = await stream.next((each) => each.changes > 0);
      expect(piece.tables[0]?.relation.name).to.deep.equal({ schema, table: name });
      expect(piece.tables[0]?.relation.columns).to.deep.equal(['select', `c"o'l`, 'é 🦆']);
      expect(piece.tables[0]?.cells.map((cell) => (cell instanceof Uint8Array ? [...cell] : cell))).to.deep.equal([
        '1',
        [0, 255, 97],
        [],
        '2',
        null,
        [171, 205],
      ]);
    });
  });

  describe('memory', () => {
    it('F43: a transaction of 200,000 rows comes in pieces that end inside it; the last ends it', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY, v text)', 'CREATE TABLE u (id int PRIMARY KEY)');
      const stream = await read(start, { maxBytes: 2 << 20 });
      await db.query('INSERT INTO u VALUES (1)');
      await db.query(`INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 200000) i`);
      await db.query('INSERT INTO u VALUES (2)');
      let count = 0;
      let pieces = 0;
      const ends: boolean[] = [];
      while (count < 200_002) {
        const piece = await stream.next((each) => each.changes > 0);
        expect(piece.bytes).to.be.below(3 << 20);
        const other = piece.tables.some((each) => each.relation.name.table === 'u');
        if (piece.end === null) expect(other, 'only the large transaction is cut').to.equal(false);
        count += piece.changes;
        pieces++;
        ends.push(piece.end !== null);
      }
      expect(count).to.equal(200_002);
      expect(pieces).to.be.above(5);
      expect(ends.filter((each) => !each).length).to.be.above(4);
    });

    it('F43: not pulling while 50 MB are written keeps memory bounded, and the connection stays', async function () {
      this.timeout(120_000);
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY, v text)');
      const stream = await read(start, { maxBytes: 1 << 20 });
      await stream.next();
      const heap = () => process.memoryUsage().rss;
      const before = heap();
      for (let i = 0; i < 10; i++) {
        await db.query(
          `INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(${i * 5000}, ${i * 5000 + 4999}) i`,
        );
      }
      await sleep(1_000);
      expect(heap() - before).to.be.below(40 << 20);
      let count = 0;
      while (count < 50_000) count += (await stream.next((each) => each.changes > 0)).changes;
      expect(count).to.equal(50_000);
    });

    it('a value larger than any limit arrives whole', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY, v text, b bytea)');
      const stream = await read(start, { maxBytes: 1 << 20 });
      await db.query(`INSERT INTO t VALUES (1, repeat('é', 20000000), decode(repeat('ab', 10000000), 'hex'))`);
      const piece = await stream.next((each) => each.changes > 0);
      const [, text, bytes] = piece.tables[0]?.cells ?? [];
      expect(text).to.be.instanceOf(Uint8Array);
      expect((text as Uint8Array).length).to.equal(40_000_000);
      expect((bytes as Uint8Array).length).to.equal(10_000_000);
    });

    it('F33: a transaction whose last change fills a piece ends without waiting for another', async () => {
      const start = await follow('CREATE TABLE t (id int PRIMARY KEY, v text)');
      const stream = await read(start, { maxBytes: 1 << 20 });
      await db.query(`INSERT INTO t VALUES (1, repeat('x', 2000000))`);
      const piece = await stream.next((each) => each.changes > 0);
      expect(piece.end).to.equal(null);
      const last = await stream.next((each) => each.end !== null);
      expect(last).to.include({ changes: 0, transactions: 1 });
    });
  });

  describe('include', () => {
    it('waits for open writers: their rows are visible afterwards or in the stream', async () => {
      await db.query('CREATE TABLE t (id int PRIMARY KEY)');
      const { start } = await changes.prepare(STREAM);
      const writers = await Promise.all([db.connect(), db.connect(), db.connect()]);
      let id = 0;
      let going = true;
      const load = writers.map(async (client, n) => {
        while (going) {
          await client.query('BEGIN');
          await client.query(`INSERT INTO t VALUES (${++id})`);
          await sleep(20 + 30 * n);
          await client.query(`INSERT INTO t VALUES (${++id})`);
          await client.query('COMMIT');
        }
      });
      await sleep(100);
      const slow = await db.connect();
      await slow.query('BEGIN; INSERT INTO t VALUES (-1)');
      const included = changes.include(STREAM, await table('t'));
      expect(await Promise.race([included.then(() => 'done'), sleep(400).then(() => 'waits')])).to.equal('waits');
      await slow.query('INSERT INTO t VALUES (-2)');
      await slow.query('COMMIT');
      await included;
      const visible = new Set((await db.query<{ id: number }>('SELECT id FROM t')).map((row) => String(row.id)));
      await sleep(200);
      going = false;
      await Promise.all(load);
      const target = await changes.end();
      const stream = await read(start);
      for (const row of await stream.through(target)) visible.add(row.replace('public.t I ', ''));
      const all = (await db.query<{ id: number }>('SELECT id FROM t')).map((row) => String(row.id));
      expect(all.filter((each) => !visible.has(each))).to.deep.equal([]);
      expect(visible.has('-1') && visible.has('-2')).to.equal(true);
    });

    it('names the transactions it waited for in vain; other tables are not held up', async () => {
      await db.query('CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)');
      const quick = new PostgresChanges(connection, { includeWaitMs: 300 });
      await quick.prepare(STREAM);
      const writer = await db.connect();
      await writer.query('BEGIN; INSERT INTO t VALUES (1)');
      const [{ pid } = { pid: 0 }] = (await writer.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows;
      const first = quick.include(STREAM, await table('t'));
      const checked = rejects(first, 'TIMEOUT', new RegExp(`pid ${pid}`));
      await quick.include(STREAM, await table('u'));
      await checked;
      await writer.query('COMMIT');
      await quick.include(STREAM, await table('t'));
    });

    it('is idempotent, and safe when several processes call it at once for many tables', async function () {
      this.timeout(120_000);
      await db.query(
        `DO $$ BEGIN FOR i IN 1..200 LOOP EXECUTE 'CREATE TABLE t' || i || ' (id int PRIMARY KEY)'; END LOOP; END $$`,
      );
      await changes.prepare(STREAM);
      const other = connect(db.url);
      extra.push(other);
      const twin = new PostgresChanges(other);
      const tables: Table[] = [];
      for (let i = 1; i <= 200; i++) tables.push(await table(`t${i}`));
      await Promise.all(tables.flatMap((each) => [changes.include(STREAM, each), twin.include(STREAM, each)]));
      const [count] = await db.query<{ n: string }>('SELECT count(*) AS n FROM pg_publication_rel');
      expect(count?.n).to.equal('200');
      await Promise.all(
        tables.slice(0, 50).flatMap((each) => [changes.exclude(STREAM, each.name), twin.exclude(STREAM, each.name)]),
      );
      const [left] = await db.query<{ n: string }>('SELECT count(*) AS n FROM pg_publication_rel');
      expect(left?.n).to.equal('150');
    });

    it('one bad table stops alone, before its owner is hurt', async () => {
      await db.query(
        `CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE keyless (id int); CREATE TABLE nokey (id int PRIMARY KEY, o int NOT NULL UNIQUE);
         ALTER TABLE nokey REPLICA IDENTITY USING INDEX nokey_o_key; CREATE TABLE gone (id int PRIMARY KEY); CREATE TABLE replaced (id int PRIMARY KEY)`,
      );
      await changes.prepare(STREAM);
      const gone = await table('gone');
      const replaced = await table('replaced');
      await db.query('DROP TABLE gone; DROP TABLE replaced; CREATE TABLE replaced (id int PRIMARY KEY)');
      const good = await table('good');
      const keyless = await table('keyless');
      const nokey = await table('nokey');
      await Promise.all([
        changes.include(STREAM, good),
        rejects(changes.include(STREAM, keyless), 'CDC_NOT_READY', /no replica identity/),
        rejects(changes.include(STREAM, nokey, ['id']), 'CDC_NOT_READY', /lacks key columns: id/),
        changes.include(STREAM, nokey, ['o']),
        rejects(changes.include(STREAM, gone), 'SOURCE_TABLE_MISSING'),
        rejects(changes.include(STREAM, replaced), 'SOURCE_TABLE_REPLACED'),
      ]);
      await db.query('CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY)');
      await rejects(changes.include(STREAM, await table('volatile')), 'CDC_NOT_READY', /unlogged/);
      await db.query('INSERT INTO keyless VALUES (1); UPDATE keyless SET id = 2');
      const published = await db.query<{ tablename: string }>('SELECT tablename FROM pg_publication_tables ORDER BY 1');
      expect(published.map((row) => row.tablename)).to.deep.equal(['good', 'nokey']);
    });

    it('a partition whose identity is not the root’s is refused with its fix', async () => {
      await db.query(
        `CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         ALTER TABLE p1 REPLICA IDENTITY NOTHING`,
      );
      await changes.prepare(STREAM);
      const error = await rejects(changes.include(STREAM, await table('p')), 'CDC_NOT_READY', /public\.p1/);
      await db.query(error.hint ?? '');
      await changes.include(STREAM, await table('p'));
    });
  });

  describe('prepare and drop', () => {
    it('is idempotent; drop leaves nothing, even while a reader holds the slot', async () => {
      const first = await changes.prepare(STREAM);
      expect(first.created).to.equal(true);
      expect(first.objects.map((each) => each.kind)).to.deep.equal(['replication slot', 'publication']);
      const second = await changes.prepare(STREAM);
      expect(second).to.deep.equal({ ...first, created: false });
      const [slot] = await db.query<{ slot_name: string; failover: boolean }>(
        'SELECT slot_name, failover FROM pg_replication_slots WHERE database = current_database()',
      );
      expect(slot?.slot_name).to.match(/^sluice_[a-z0-9_]{1,56}$/);
      expect(slot?.failover).to.equal(true);
      await read(first.start);
      await changes.drop(STREAM);
      await changes.drop(STREAM);
      expect(await db.query('SELECT FROM pg_publication')).to.deep.equal([]);
      expect(await db.query('SELECT FROM pg_replication_slots WHERE database = current_database()')).to.deep.equal([]);
    });

    it('F64: two installations and two streams have slots of their own', async () => {
      const other = connect(db.url, 'another installation');
      extra.push(other);
      const twin = new PostgresChanges(other);
      await changes.prepare(STREAM);
      await changes.prepare('another stream');
      await twin.prepare(STREAM);
      const slots = await db.query('SELECT FROM pg_replication_slots WHERE database = current_database()');
      expect(slots).to.have.length(3);
      await changes.drop('another stream');
      await twin.drop(STREAM);
    });

    it('the printed SQL undoes what was made', async () => {
      const { objects } = await changes.prepare(STREAM);
      for (const each of objects) await db.query(each.dropSql);
      expect(await db.query('SELECT FROM pg_publication')).to.deep.equal([]);
      expect(await db.query('SELECT FROM pg_replication_slots WHERE database = current_database()')).to.deep.equal([]);
    });

    it('bounds the wait for old transactions and names them', async () => {
      await db.query('CREATE TABLE t (id int PRIMARY KEY)');
      const writer = await db.connect();
      await writer.query('BEGIN; INSERT INTO t VALUES (1)');
      const [{ pid } = { pid: 0 }] = (await writer.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows;
      const quick = new PostgresChanges(connection, { slotWaitMs: 300 });
      await rejects(quick.prepare(STREAM), 'TIMEOUT', new RegExp(`pid ${pid}`));
      await writer.query('COMMIT');
      await changes.prepare(STREAM);
    });

    it('a role without the right is told the statement that grants it', async () => {
      const role = `r_${randomBytes(4).toString('hex')}`;
      await db.query(`CREATE ROLE ${role} LOGIN; GRANT CREATE ON DATABASE "${db.name}" TO ${role}`);
      const url = new URL(db.url);
      url.username = role;
      const weak = connect(url.toString());
      extra.push(weak);
      const poor = new PostgresChanges(weak);
      const error = await rejects(poor.prepare(STREAM), 'PERMISSION_DENIED');
      expect(error.hint).to.contain(`ALTER ROLE "${role}" REPLICATION`);
      await db.query(`ALTER ROLE ${role} REPLICATION`);
      const { start } = await poor.prepare(STREAM);
      // The whole stream needs no more than that; a table needs its owner.
      await db.query('CREATE TABLE t (id int PRIMARY KEY)');
      await rejects(poor.include(STREAM, await table('t')), 'PERMISSION_DENIED', /owner/);
      await db.query(`ALTER TABLE t OWNER TO ${role}`);
      await poor.include(STREAM, await table('t'));
      const reader = await poor.read(STREAM, start, READ);
      await db.query('INSERT INTO t VALUES (5)');
      expect(await new Collector(reader, poor).take(1)).to.deep.equal(['public.t I 5']);
      await reader.stop();
      await poor.drop(STREAM);
      await weak.close();
      await db.query(`DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}`);
    });

    it('a slot and a publication given by the connection string are used, checked, and never dropped', async () => {
      await db.query('CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE u (id int PRIMARY KEY)');
      const url = new URL(db.url);
      const slot = `given_${db.name}`;
      url.searchParams.set('slot', slot);
      url.searchParams.set('publication', 'My "Pub\'');
      const given = connect(url.toString());
      extra.push(given);
      const theirs = new PostgresChanges(given);
      await rejects(theirs.prepare(STREAM), 'CDC_NOT_READY', /publication/);
      await db.query(`CREATE PUBLICATION "My ""Pub'" FOR TABLE t (id)`);
      const error = await rejects(theirs.prepare(STREAM), 'CDC_NOT_READY', /pubviaroot/);
      await db.query(error.hint ?? '');
      await rejects(theirs.prepare(STREAM), 'CDC_NOT_READY', /slot/);
      await db.query(`SELECT pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
      const { start, created, objects } = await theirs.prepare(STREAM);
      expect({ created, objects }).to.deep.equal({ created: false, objects: [] });
      await rejects(theirs.include(STREAM, await table('t')), 'CDC_NOT_READY', /columns v/);
      await rejects(theirs.include(STREAM, await table('u')), 'CDC_NOT_READY', /not in publication/);
      await db.query(`ALTER PUBLICATION "My ""Pub'" SET TABLE t`);
      await theirs.include(STREAM, await table('t'));
      const reader = await theirs.read(STREAM, start, READ);
      await db.query('INSERT INTO t VALUES (1, 2)');
      expect(await new Collector(reader, theirs).take(1)).to.deep.equal(['public.t I 1,2']);
      await reader.stop();
      await theirs.exclude(STREAM, { schema: 'public', table: 't' });
      await theirs.drop(STREAM);
      expect(await db.query('SELECT FROM pg_publication_tables')).to.have.length(1);
      expect(await db.query('SELECT FROM pg_replication_slots WHERE database = current_database()')).to.have.length(1);
    });
  });

  it('stop frees the slot at once, also in the middle of a large transaction', async () => {
    const start = await follow('CREATE TABLE t (id int PRIMARY KEY, v text)');
    const stream = await read(start, { maxBytes: 1 << 20 });
    await db.query(`INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 100000) i`);
    await stream.next((each) => each.changes > 0);
    await stream.reader.stop();
    expect(
      await db.query('SELECT FROM pg_replication_slots WHERE database = current_database() AND active'),
    ).to.deep.equal([]);
    expect(await stream.reader.pieces[Symbol.asyncIterator]().next()).to.deep.equal({ done: true, value: undefined });
  });
});

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
