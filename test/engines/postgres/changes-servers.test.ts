import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect as tcp, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../../src/embedded/postgres.ts';
import type { ReadOptions } from '../../../src/engines/contract.ts';
import { PostgresChanges, type PostgresChangesOptions } from '../../../src/engines/postgres/changes.ts';
import { Connection } from '../../../src/engines/postgres/connection.ts';
import { Collector, describeTable, end, place, rejects, rows, sleep, type Queryable } from './change-helpers.ts';

const READ: ReadOptions = { maxChanges: 10_000, maxBytes: 16 << 20, idleProgressMs: () => 50, pollMs: () => 50 };
const STREAM = 's';
const SETTINGS = {
  wal_level: 'logical',
  fsync: 'off',
  shared_buffers: '16MB',
  max_prepared_transactions: '4',
  max_replication_slots: '2',
  max_wal_senders: '2',
};

/** Each of these needs a server with settings, or a fate, of its own. */
describe('PostgreSQL change stream, servers of their own', function () {
  this.timeout(120_000);
  let root: string;
  let server: EmbeddedPostgres;
  const closing: (() => Promise<unknown>)[] = [];

  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'sluice-changes-'));
    chmodSync(root, 0o755);
  });

  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close().catch(() => undefined);
    rmSync(root, { recursive: true, force: true });
  });

  async function start(settings: Record<string, string> = {}, directory = 'data'): Promise<EmbeddedPostgres> {
    const made = await startEmbeddedPostgres({
      directory: path.join(root, directory),
      settings: { ...SETTINGS, ...settings },
    });
    closing.push(() => made.stop());
    server = made;
    return made;
  }

  function changesOf(url: string, options: PostgresChangesOptions = {}): PostgresChanges {
    const connection = new Connection({
      connectionString: url,
      database: null,
      installation: { uid: 'i' },
      applicationName: 'sluice test',
    });
    closing.push(() => connection.close());
    return new PostgresChanges(connection, options);
  }

  async function client(url = server.url()): Promise<Queryable & { end(): Promise<void> }> {
    const made = new pg.Client({ connectionString: url });
    made.on('error', () => undefined);
    await made.connect();
    closing.push(() => made.end());
    return {
      query: async <R extends Record<string, unknown>>(sql: string, params?: unknown[]) =>
        (await made.query<R>(sql, params)).rows,
      end: () => made.end(),
    };
  }

  /** A stream with table `t` in it; resolves to where it starts. */
  async function follow(changes: PostgresChanges, db: Queryable) {
    await db.query('CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, v text)');
    const { start: from } = await changes.prepare(STREAM);
    await changes.include(STREAM, await describeTable(db, { schema: 'public', table: 't' }));
    return from;
  }

  it('F10: a slot invalidated by max_slot_wal_keep_size is a gap; headroom is shown before', async () => {
    await start({ max_slot_wal_keep_size: '32MB', min_wal_size: '32MB', max_wal_size: '64MB' });
    const db = await client();
    const changes = changesOf(server.url());
    const from = await follow(changes, db);
    const reader = await changes.read(STREAM, from, READ);
    const pending = rejects(
      new Collector(reader, changes).next((piece) => piece.changes > 0),
      'CONNECTION_LOST',
    );
    const health = await changes.health(STREAM, []);
    expect(health.headroomBytes).to.be.within(1, 64 << 20);
    for (let i = 0; i < 8; i++) {
      await db.query(`SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))`);
      await db.query('SELECT pg_switch_wal()');
      await db.query('CHECKPOINT');
    }
    await pending;
    expect((await changes.health(STREAM, [])).stream?.[0]?.message).to.match(/wal_removed/);
    await rejects(changes.read(STREAM, from, READ), 'GAP');
    const again = await changes.prepare(STREAM);
    expect(again.created).to.equal(true);
    await rejects(changes.read(STREAM, from, READ), 'GAP', /wal_removed/);
  });

  it('says what the server lacks: wal_level, slots, senders', async () => {
    await start({ wal_level: 'replica' });
    const low = await rejects(changesOf(server.url()).prepare(STREAM), 'CDC_NOT_READY', /wal_level/);
    expect(low.hint).to.contain('ALTER SYSTEM SET wal_level = logical');
    await server.stop();
    await start({ max_wal_senders: '1' });
    const changes = changesOf(server.url());
    const { start: from } = await changes.prepare('a');
    const second = await changes.prepare('b');
    const full = await rejects(changes.prepare('c'), 'CDC_SLOTS_EXHAUSTED');
    expect(full.hint).to.contain('max_replication_slots');
    const reader = await changes.read('a', from, READ);
    const senders = await rejects(changes.read('b', second.start, READ), 'CDC_SLOTS_EXHAUSTED');
    expect(senders.hint).to.contain('max_wal_senders');
    await reader.stop();
  });

  it('include waits for a writer that becomes a prepared transaction meanwhile', async () => {
    await start();
    const db = await client();
    const writer = await client();
    const changes = changesOf(server.url());
    await db.query('CREATE TABLE t (id int PRIMARY KEY)');
    await changes.prepare(STREAM);
    await writer.query('BEGIN');
    await writer.query('INSERT INTO t VALUES (1)');
    const included = changes.include(STREAM, await describeTable(db, { schema: 'public', table: 't' }));
    const state = async (ms: number) => Promise.race([included.then(() => 'done'), sleep(ms).then(() => 'waits')]);
    expect(await state(200)).to.equal('waits');
    await writer.query(`PREPARE TRANSACTION 'p'`);
    expect(await state(700)).to.equal('waits');
    const short = changesOf(server.url(), { includeWaitMs: 100 });
    await rejects(
      short.include(STREAM, await describeTable(db, { schema: 'public', table: 't' })),
      'TIMEOUT',
      /prepared transaction/,
    );
    await writer.query(`COMMIT PREPARED 'p'`);
    await included;
    expect(await db.query('SELECT FROM t')).to.have.length(1);
  });

  it('F15 F17: a successor that forked at or above the position goes on; one that forked below is a gap', async () => {
    await start();
    const db = await client();
    const changes = changesOf(server.url());
    const from = await follow(changes, db);
    await db.query(`INSERT INTO t VALUES (1, 'both')`);
    await db.query('CHECKPOINT');
    await db.end();
    await server.stop();
    spawnSync('cp', ['-a', path.join(root, 'data'), path.join(root, 'copy')]); // with its owner, unlike cpSync
    // The original goes on: what it writes now, the copy never saw.
    await start();
    const original = await client();
    await original.query(`INSERT INTO t VALUES (2, 'original')`);
    const beyond = await changesOf(server.url()).end();
    await original.end();
    await server.stop();
    // As a promoted standby would: recovery to the end of the log there is, then a new timeline.
    writeFileSync(path.join(root, 'copy', 'recovery.signal'), '');
    await start({ restore_command: '/bin/false' }, 'copy');
    const copy = await client();
    for (;;) {
      // It serves readers before the promotion is through.
      const [row] = await copy.query<{ recovering: boolean }>('SELECT pg_is_in_recovery() AS recovering');
      if (!row?.recovering) break;
      await sleep(50);
    }
    await copy.query(`INSERT INTO t VALUES (3, 'copy')`);
    const promoted = changesOf(server.url());
    const now = await promoted.end();
    expect(place(now).timeline).to.equal(2);
    expect(promoted.compare(from, now)).to.equal('unordered'); // not yet known
    const reader = await promoted.read(STREAM, from, READ);
    const collector = new Collector(reader, promoted);
    expect(await collector.take(2)).to.deep.equal(['public.t I 1,both', 'public.t I 3,copy']);
    expect(place(collector.lastEnd).timeline).to.equal(2);
    expect(promoted.compare(from, now)).to.equal('before');
    expect(promoted.compare(now, from)).to.equal('after');
    reader.acknowledge(from);
    await reader.stop();
    await copy.query(`SELECT pg_logical_emit_message(false, 'x', repeat('x', 100000))`);
    expect(promoted.compare(beyond, await promoted.end())).to.equal('unordered');
    await rejects(promoted.read(STREAM, beyond, READ), 'GAP', /timeline 2/);
  });

  it('a shutdown of the source is not held up by what nobody acknowledges', async () => {
    await start();
    const db = await client();
    const changes = changesOf(server.url());
    const from = await follow(changes, db);
    const reader = await changes.read(STREAM, from, { ...READ, idleProgressMs: () => 60_000 });
    const collector = new Collector(reader, changes);
    await db.query(`INSERT INTO t VALUES (1, 'x')`);
    await collector.next((piece) => piece.changes > 0);
    await db.end();
    const before = performance.now();
    const stopped = server.stop();
    try {
      for (;;) await collector.next();
    } catch (error) {
      expect(error).to.have.property('code').that.is.oneOf(['SERVER_BUSY', 'CONNECTION_LOST']);
    }
    await stopped;
    expect(performance.now() - before).to.be.below(15_000);
  });

  it('F32: text of an SQL_ASCII database arrives byte for byte', async () => {
    await start();
    const admin = await client();
    await admin.query(
      `CREATE DATABASE raw TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'`,
    );
    const db = await client(server.url('raw'));
    await db.query('SET client_encoding = sql_ascii');
    const changes = changesOf(server.url('raw'));
    const from = await follow(changes, db);
    await db.query(`INSERT INTO t VALUES (1, E'\\xff\\xc3')`);
    const reader = await changes.read(STREAM, from, READ);
    const piece = await new Collector(reader, changes).next((each) => each.changes > 0);
    expect([...(piece.tables[0]?.cells[1] as Uint8Array)]).to.deep.equal([0xff, 0xc3]);
    await reader.stop();
  });

  it('F42: the server keeps a reader whose consumer does not pull for longer than wal_sender_timeout', async () => {
    await start({ wal_sender_timeout: '60s' });
    const db = await client();
    const changes = changesOf(server.url(), { senderTimeoutMs: 900 });
    const from = await follow(changes, db);
    const reader = await changes.read(STREAM, from, { ...READ, maxBytes: 1 << 20, idleProgressMs: () => 10_000 });
    await db.query(`INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i`);
    await sleep(4_000);
    const collector = new Collector(reader, changes);
    let count = 0;
    while (count < 20_000) count += (await collector.next((piece) => piece.changes > 0)).changes;
    await reader.stop();
  });

  it('F41: a network that stalls without closing is noticed', async () => {
    await start();
    const sockets = new Set<Socket>();
    const proxy = createServer((incoming) => {
      const outgoing = tcp(server.port, '127.0.0.1');
      for (const each of [incoming, outgoing]) {
        sockets.add(each);
        each.on('error', () => undefined);
      }
      incoming.pipe(outgoing);
      outgoing.pipe(incoming);
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    closing.push(async () => {
      for (const each of sockets) each.destroy();
      proxy.close();
    });
    const db = await client();
    const url = `postgres://postgres@127.0.0.1:${(proxy.address() as AddressInfo).port}/postgres`;
    const changes = changesOf(url, { silenceMs: 1_000 });
    const from = await follow(changes, db);
    const reader = await changes.read(STREAM, from, READ);
    const collector = new Collector(reader, changes);
    await db.query(`INSERT INTO t VALUES (1, 'x')`);
    const piece = await collector.next((each) => each.changes > 0);
    expect(rows(piece)).to.deep.equal(['public.t I 1,x']);
    expect(changes.compare(from, end(piece))).to.equal('before');
    await sleep(1_500);
    await changes.end();
    await collector.next(); // quiet, but alive
    for (const each of sockets) {
      each.unpipe();
      each.pause();
    }
    const before = performance.now();
    await rejects(
      (async () => {
        for (;;) await collector.next();
      })(),
      'CONNECTION_LOST',
    );
    expect(performance.now() - before).to.be.below(3_000);
  });
});
