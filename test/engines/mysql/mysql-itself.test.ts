/** What only MySQL itself has: sets of GTIDs, compressed transactions, parsed JSON, and servers without GTIDs. */
import { expect } from 'chai';
import { Op } from '../../../src/model/changes.ts';
import type { Position } from '../../../src/model/position.ts';
import { formatPosition, parsePosition } from '../../../src/engines/mysql/binlog/position.ts';
import { createMysqlDatabase, requireMysqlItself, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect, startMysqlItself, type PrivateServer } from '../../support/mysql-servers.ts';
import { eventually } from '../../support/service.ts';
import { skip } from '../../support/skip.ts';
import { failure, seenIn, STREAM, Stream } from './stream.ts';
import { expectNothingUnseen } from './unseen-commits.ts';

describe('MySQL as source: its binary log', () => {
  let database: MysqlTestDatabase;
  let stream: Stream;
  before(async function () {
    database = await createMysqlDatabase(await requireMysqlItself(this));
    stream = new Stream(database.url);
    await database.query('CREATE TABLE t (id int PRIMARY KEY, v longtext)');
  });
  after(async () => {
    await stream?.close();
    await database?.drop();
  });
  const inSession = (...statements: string[]) =>
    database.connection.use((session) => session.run('change', statements));

  it('F07 F18: positions are ordered by their sets of transactions, and those of sets of which neither holds the other are not ordered', () => {
    const uuid = '3b2b2d52-e5fe-11f1-9393-02fc00000001';
    const at = (gtids: string, offset = 4) => formatPosition({ server: 's', file: 'binlog.000001', offset, gtids });
    const order = (a: string, b: string) => stream.source.compare(at(a), at(b, 900));
    expect(order(`${uuid}:1-9`, `${uuid}:1-10`)).to.equal('before');
    expect(order(`${uuid}:1-10`, `${uuid}:1-9`)).to.equal('after');
    expect(order(`${uuid}:1-3:4-5`, `${uuid}:1-5`)).to.equal('equal');
    expect(order(`${uuid}:1-5`, `${uuid}:1-4:tag:1`)).to.equal('unordered');
    expect(order(`${uuid}:1-5`, `${uuid}:1-5:tag:1`)).to.equal('before');
  });

  it('F05 F22: compressed transactions are read, whole ones and those larger than a piece, and positions between them hold', async () => {
    const start = await stream.start();
    await inSession(
      'SET SESSION binlog_transaction_compression = ON',
      "INSERT INTO t VALUES (1, REPEAT('abc', 2000)), (2, NULL)",
      "UPDATE t SET v = 'short' WHERE id = 2",
      `INSERT INTO t SELECT 100 + a.i * 20 + b.i, REPEAT(UUID(), 200) FROM
         (SELECT ROW_NUMBER() OVER () AS i FROM information_schema.COLUMNS LIMIT 20) a,
         (SELECT ROW_NUMBER() OVER () AS i FROM information_schema.COLUMNS LIMIT 20) b`,
      'SET SESSION binlog_transaction_compression = OFF',
      'DELETE FROM t WHERE id >= 100',
    );
    const pieces = await stream.read(start, 803, { maxBytes: 256 * 1024, maxChanges: 1 });
    const seen = seenIn(pieces);
    expect(seen.map((one) => one.op)).to.deep.equal([
      ...[Op.Insert, Op.Insert, Op.Update],
      ...Array<number>(400).fill(Op.Insert),
      ...Array<number>(400).fill(Op.Delete),
    ]);
    expect(seen[0]?.after?.['v']).to.equal('abc'.repeat(2000));
    expect(pieces.filter((piece) => piece.end === null).length, 'pieces within the transaction').to.be.greaterThan(1);
    const [middle] = pieces.flatMap(({ end, changes }) => (end !== null && changes > 0 ? [end] : []));
    const rest = seenIn(await stream.read(middle as Position, 801));
    expect(rest.map((one) => one.op)).to.deep.equal(seen.slice(2).map((one) => one.op));
  });

  it('transactions with tags are read, and a reader goes on behind them', async () => {
    await inSession(
      "SET SESSION gtid_next = 'AUTOMATIC:our_tag'",
      "REPLACE INTO t VALUES (5, 'tagged')",
      "SET SESSION gtid_next = 'AUTOMATIC'",
    );
    const start = await stream.start();
    expect(start).to.contain(':our_tag:1');
    await inSession(
      "SET SESSION gtid_next = 'AUTOMATIC:our_tag'",
      "REPLACE INTO t VALUES (6, 'tagged')",
      "SET SESSION gtid_next = 'AUTOMATIC'",
    );
    const pieces = await stream.read(start, 1);
    expect(seenIn(pieces).map((one) => one.after?.['id'])).to.deep.equal(['6']);
    const end = pieces.at(-1)?.end as Position;
    await database.query("REPLACE INTO t VALUES (7, 'plain')");
    expect(seenIn(await stream.read(end, 1)).map((one) => one.after?.['id'])).to.deep.equal(['7']);
  });

  it('F34: documents of every form arrive as the server prints them', async () => {
    await database.query('CREATE TABLE documents (id int PRIMARY KEY, j json)');
    const start = await stream.start();
    // Numbers of every size and every kind, nested at random: what the server makes of them is the expectation.
    const number = (i: number) =>
      [
        'RAND() * POW(10, RAND() * 40 - 20)',
        'FLOOR(POW(2, RAND() * 62))',
        '-FLOOR(POW(2, RAND() * 62))',
        'ROUND(RAND() * 1e9, 4)',
      ][i % 4] ?? '0';
    const depth = (level: number, i: number): string =>
      level === 0
        ? `JSON_ARRAY(${number(i)}, HEX(RANDOM_BYTES(8)), ${number(i + 1)}, RAND() < 0.5, NULL)`
        : `JSON_OBJECT(CONVERT(HEX(RANDOM_BYTES(8)) USING utf8mb4), ${depth(level - 1, i + 1)}, 'é${i}', JSON_ARRAY(${number(i)}, ${depth(level - 1, i)}))`;
    const rows = Array.from({ length: 60 }, (_, i) => `(${i}, ${depth(i % 5, i)})`);
    await database.query(`INSERT INTO documents VALUES ${rows.join(', ')}`);
    const printed = await database.query('SELECT id, CAST(j AS CHAR) AS j FROM documents ORDER BY id');
    const seen = seenIn(await stream.read(start, 60));
    expect(seen.map((one) => [one.after?.['id'], one.after?.['j']])).to.deep.equal(
      printed.map((row) => [row['id'], row['j']]),
    );
  });

  it('F27: parts of documents instead of whole ones: preflight refuses them for the server; those of a session are told to be missing', async () => {
    await database.query("REPLACE INTO documents VALUES (1000, JSON_OBJECT('a', REPEAT('x', 100)))");
    const start = await stream.start();
    await database.query("SET GLOBAL binlog_row_value_options = 'PARTIAL_JSON'");
    try {
      const findings = (await stream.handle.preflight?.source([], { cdc: true })) ?? [];
      expect(findings.map(({ code, fixSql }) => [code, fixSql])).to.deep.equal([
        ['CDC_NOT_READY', ["SET GLOBAL binlog_row_value_options = '';"]],
      ]);
    } finally {
      await database.query("SET GLOBAL binlog_row_value_options = ''");
    }
    await inSession(
      "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
      "UPDATE documents SET j = JSON_SET(j, '$.a', 'y') WHERE id = 1000",
      "SET SESSION binlog_row_value_options = ''",
    );
    await database.query("REPLACE INTO t VALUES (9, 'beside it')");
    const pieces = await stream.read(start, 1);
    expect(seenIn(pieces).map((one) => one.table)).to.deep.equal(['t']);
    const told = pieces.flatMap(({ captures }) => captures?.gap({ schema: '', table: 'documents' }, null)?.code ?? []);
    expect(told).to.deep.equal(['GAP']);
  });

  it('F27: a table with a type that cannot be read stops alone: its changes are told to be missing, those of others arrive', async () => {
    const [{ version = '0' } = {}] = await database.query('SELECT VERSION() AS version');
    if (Number(String(version).split('.')[0]) < 9) return;
    await database.query('CREATE TABLE vectors (id int PRIMARY KEY, v vector(2))');
    const [table] = await stream.handle.catalog.describe([{ schema: '', table: 'vectors' }]);
    if (!table) throw new Error('not there');
    expect((await failure(stream.source.include(STREAM, table, ['id']))).code).to.equal('CAPABILITY_MISSING');
    const start = await stream.start();
    await database.query("INSERT INTO vectors VALUES (1, STRING_TO_VECTOR('[1, 2]'))");
    await database.query("REPLACE INTO t VALUES (8, 'beside it')");
    const pieces = await stream.read(start, 1);
    expect(seenIn(pieces).map((one) => one.table)).to.deep.equal(['t']);
    const told = pieces.flatMap(({ captures }) => captures?.gap({ schema: '', table: 'vectors' }, null)?.code ?? []);
    expect(told).to.deep.equal(['CAPABILITY_MISSING']);
    expect(pieces.every(({ captures }) => captures?.gap({ schema: '', table: 't' }, null) == null)).to.equal(true);
  });

  it('F45: what a foreign key changes by itself is in the log since 9.6, and only before that refused', async () => {
    await database.query(
      'CREATE TABLE child (id int PRIMARY KEY, t int, FOREIGN KEY (t) REFERENCES t (id) ON DELETE CASCADE ON UPDATE SET NULL)',
    );
    await database.query("REPLACE INTO t VALUES (50, 'parent')");
    const findings = (await stream.handle.preflight?.source([{ schema: '', table: 'child' }], { cdc: true })) ?? [];
    const start = await stream.start();
    await database.query('INSERT INTO child VALUES (1, 50)');
    await database.query('DELETE FROM t WHERE id = 50');
    const [row] = await database.query("SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'");
    const isLogged = row?.['Value'] === 'OFF';
    expect(findings).to.have.length(isLogged ? 0 : 1);
    const seen = seenIn(await stream.read(start, isLogged ? 3 : 2)).map((one) => `${one.table} ${one.op}`);
    expect(seen.sort()).to.deep.equal(isLogged ? ['child 1', 'child 3', 't 3'] : ['child 1', 't 3']);
  });

  it('a login with caching_sha2_password and the rights that preflight names can follow', async () => {
    await database.query("CREATE USER reader@'127.0.0.1' IDENTIFIED WITH caching_sha2_password BY 'geheim'");
    await database.query(`GRANT SELECT ON \`${database.name}\`.* TO reader@'127.0.0.1'`);
    const url = new URL(database.url);
    [url.username, url.password] = ['reader', 'geheim'];
    for (const mode of ['PREFERRED', 'REQUIRED', 'DISABLED']) {
      url.searchParams.set('ssl-mode', mode);
      const reader = new Stream(url.toString());
      try {
        const findings = (await reader.handle.preflight?.source([], { cdc: true })) ?? [];
        if (mode === 'PREFERRED') {
          expect(findings.map(({ code }) => code)).to.deep.equal(['PERMISSION_DENIED', 'PERMISSION_DENIED']);
          for (const { fixSql } of findings) for (const sql of fixSql) await database.query(sql.replace(/;$/, ''));
          // Rights on everything are those of the sessions that begin from now on.
          continue;
        } else expect(findings).to.deep.equal([]);
        const start = await reader.start();
        await database.query(`REPLACE INTO t VALUES (9, '${mode}')`);
        expect(seenIn(await reader.read(start, 1)).at(-1)?.after?.['v']).to.equal(mode);
      } finally {
        await reader.close();
      }
    }
    await database.query("DROP USER reader@'127.0.0.1'");
  });
});

for (const { name, settings } of [
  { name: 'with GTIDs', settings: {} },
  {
    name: 'without GTIDs',
    settings: { 'gtid-mode': 'OFF', 'enforce-gtid-consistency': 'OFF', 'performance-schema': 'ON' },
  },
])
  describe(`MySQL as source, ${name}: what its log no longer has`, function () {
    this.timeout(60_000);
    const hasGtids = name === 'with GTIDs';
    let server: PrivateServer | null = null;
    let database: MysqlTestDatabase;
    let stream: Stream;
    before(async function () {
      await requireMysqlItself(this);
      if (process.env['TEST_MYSQL8_URL']) skip(this, 'these tests stop and reset a MySQL of their own');
      server = await startMysqlItself(settings);
      database = await createMysqlDatabase(server.server);
      await database.query('CREATE TABLE t (id int PRIMARY KEY)');
      stream = new Stream(database.url);
    });
    after(async () => {
      await stream?.close();
      await database?.connection.close();
      await server?.stop();
    });
    const insert = (id: number) => database.query('INSERT INTO t VALUES (?)', [id]);
    /** Where a reader stands that has read everything. */
    const readAll = async (from: Position): Promise<Position> => {
      const end = await stream.source.end();
      const reader = await stream.source.read(STREAM, from, {
        ...{ maxChanges: 1000, maxBytes: 1 << 20, idleProgressMs: () => 10, pollMs: () => 10 },
      });
      try {
        for await (const piece of reader.pieces)
          if (piece.end !== null && stream.source.compare(piece.end, end) !== 'before') return piece.end;
      } finally {
        await reader.stop();
      }
      throw new Error('the stream ended');
    };
    const purge = async () => {
      await database.query('FLUSH BINARY LOGS');
      const files = await database.query('SHOW BINARY LOGS');
      await eventually(async () => {
        await database.query(`PURGE BINARY LOGS TO '${String(files.at(-1)?.['Log_name'])}'`);
        if ((await database.query('SHOW BINARY LOGS')).length > 1) throw new Error('files are left');
      });
    };

    it('follows, also after a restart of the server, and what was prepared before it', async () => {
      const start = await stream.start();
      const session = connect(database.url, database.name);
      await session.use((own) =>
        own.run('prepare', ["XA START 'early'", 'INSERT INTO t VALUES (4)', "XA END 'early'", "XA PREPARE 'early'"]),
      );
      await session.close();
      await insert(1);
      const [first] = (await stream.read(start, 1)).flatMap(({ end }) => end ?? []).slice(-1);
      await insert(2);
      await server?.restart();
      await insert(3);
      await eventually(() => database.query("XA COMMIT 'early'").then(() => undefined));
      const seen = seenIn(await stream.read(first as Position, 3));
      expect(seen.map((one) => one.after?.['id'])).to.deep.equal(['2', '3', '4']);
    });

    it('F03 F44: what the log holds and nobody sees yet is waited for: before a copy, and before a table is included', async () => {
      await database.query('CREATE TABLE slow (id int PRIMARY KEY)');
      // Between the log and InnoDB every commit waits for others.
      await database.query('SET GLOBAL binlog_group_commit_sync_delay = 20000');
      try {
        await expectNothingUnseen(database, stream, 'slow', {
          writers: 4,
          insert: (id) => database.query('INSERT INTO slow VALUES (?)', [id]),
          inclusions: 10,
          starts: 5,
        });
      } finally {
        await database.query('SET GLOBAL binlog_group_commit_sync_delay = 0');
      }
    });

    it('F12: a file that was read to its end and purged is no gap', async function () {
      const at = await readAll(await stream.start());
      await purge();
      await insert(20);
      // Without GTIDs nobody can say that the file was read to its end: then it must have been left before.
      if (hasGtids) expect(seenIn(await stream.read(at, 1)).map((one) => one.after?.['id'])).to.deep.equal(['20']);
      else expect((await failure(stream.read(at, 1))).code).to.equal('GAP');
      const onward = await readAll(await stream.start());
      await database.query('FLUSH BINARY LOGS');
      const behind = await readAll(onward);
      await insert(21);
      await purge();
      if (hasGtids) expect((await failure(stream.read(behind, 1))).code).to.equal('GAP');
    });

    it('F10 F18: a file that was purged before it was read is a gap', async () => {
      const start = await stream.start();
      await insert(30);
      await purge();
      expect((await failure(stream.read(start, 1))).code).to.equal('GAP');
    });

    it('F15 F18: a transaction that the server does not know is a gap, never a start from the beginning', async function () {
      if (!hasGtids) skip(this, 'there are none');
      const place = parsePosition(await stream.start());
      if (!place) throw new Error('no place');
      const more = place.gtids.replace(/-(\d+)$/, (_, n: string) => `-${Number(n) + 1}`);
      const other = place.gtids.replace(/^......../, '00000000');
      for (const gtids of [more, other])
        expect((await failure(stream.read(formatPosition({ ...place, gtids }), 1))).code).to.equal('GAP');
      const elsewhere = await failure(stream.read(formatPosition({ ...place, server: 'another' }), 1));
      expect(elsewhere.message).to.contain('another server');
    });

    it('F15 F18: a log that was begun anew is a gap, also where it has grown past the place', async () => {
      const start = await stream.start();
      const [version] = await database.query('SELECT VERSION() AS v');
      const reset = Number(String(version?.['v']).split('.')[0]) > 8 ? 'RESET BINARY LOGS AND GTIDS' : 'RESET MASTER';
      await database.query(reset);
      expect((await failure(stream.read(start, 1))).code).to.equal('GAP');
      for (let id = 100; id < 160; id++) await insert(id);
      const now = await readAll(await stream.start());
      // Without GTIDs a file is known by the second in which it was made.
      if (!hasGtids) await database.query('DO SLEEP(1)');
      await database.query(reset);
      for (let id = 200; id < 300; id++) await database.query('INSERT INTO t VALUES (?), (?)', [id, id + 500]);
      expect((await failure(stream.read(now, 1))).code).to.equal('GAP');
    });

    it('F41: a reader whose connection is killed says so, and another goes on from what was stored', async () => {
      const start = await stream.start();
      const reader = await stream.source.read(STREAM, start, {
        ...{ maxChanges: 1000, maxBytes: 1 << 20, idleProgressMs: () => 50, pollMs: () => 50 },
      });
      const pieces = reader.pieces[Symbol.asyncIterator]();
      await pieces.next();
      const rows = await database.query(
        "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'",
      );
      expect(rows).to.have.length(1);
      const broken = failure(
        (async () => {
          for (;;) if ((await pieces.next()).done) throw new Error('the stream ended');
        })(),
      );
      for (const row of rows) await database.query(`KILL CONNECTION ${Number(row['id'])}`);
      expect((await broken).code).to.equal('CONNECTION_LOST');
      await reader.stop();
      await insert(1000);
      expect(seenIn(await stream.read(start, 1)).map((one) => one.after?.['id'])).to.deep.equal(['1000']);
    });

    it('a position of the one kind is still one after the server was given GTIDs, or lost them', async function () {
      if (!hasGtids) skip(this, 'one direction is enough');
      if (!process.env['SLUICE_TEST_LONG']) skip(this, 'restarts the server twice: npm run test:long');
      const before = await readAll(await stream.start());
      await server?.restart({
        'gtid-mode': 'OFF_PERMISSIVE',
        'enforce-gtid-consistency': 'ON',
        'performance-schema': 'ON',
      });
      await insert(2000);
      const pieces = await stream.read(before, 1);
      expect(seenIn(pieces).map((one) => one.after?.['id'])).to.deep.equal(['2000']);
      const anonymous = pieces.at(-1)?.end as Position;
      expect(parsePosition(anonymous)?.gtids).to.match(/^file-/);
      await server?.restart();
      await insert(2001);
      const again = await stream.read(anonymous, 1);
      expect(seenIn(again).map((one) => one.after?.['id'])).to.deep.equal(['2001']);
      expect(stream.source.compare(again.at(-1)?.end as Position, await stream.source.end())).to.equal('equal');
      expect(stream.source.compare(anonymous, (await stream.source.prepare(STREAM)).start)).to.equal('before');
    });
  });
