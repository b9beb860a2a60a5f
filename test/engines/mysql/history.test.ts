/** MariaDB: what the log no longer has, and what it lacks. */
import { expect } from 'chai';
import { hasCode } from '../../../src/model/errors.ts';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect, startMariaDb, TEST_SETTINGS, type PrivateServer } from '../../support/mysql-servers.ts';
import { eventually } from '../../support/service.ts';
import { skip } from '../../support/skip.ts';
import { failure, seenIn, STREAM, Stream } from './stream.ts';

describe('MariaDB as source: history that is lost', () => {
  let server: PrivateServer | null = null;
  let database: MysqlTestDatabase;
  let stream: Stream;
  before(async function () {
    const shared = await requireMysql(this);
    if (!shared.isMariaDb || process.env['TEST_MYSQL_URL'])
      skip(this, 'these tests stop and reset a MariaDB of their own');
    server = await startMariaDb();
    database = await createMysqlDatabase(server.server);
    await database.query('CREATE TABLE t (id int PRIMARY KEY)');
    stream = new Stream(database.url);
  });
  after(async () => {
    await stream?.close();
    await database?.connection.close();
    await server?.stop();
  });

  /** Begins another file and purges all others; a reader that just left, or a commit's checkpoint, holds them for a moment. */
  const purge = async () => {
    await database.query('FLUSH BINARY LOGS');
    const [status] = await database.query('SHOW MASTER STATUS');
    await eventually(async () => {
      await database.query(`PURGE BINARY LOGS TO '${String(status?.['File'])}'`);
      const files = await database.query('SHOW BINARY LOGS');
      if (files.length > 1) throw new Error(`${files.length} files are left`);
    });
  };

  it('F41: what was prepared (XA) before the server was restarted comes with its commit', async () => {
    const start = await stream.start();
    const session = connect(database.url, database.name);
    await session.use((own) =>
      own.run('prepare', ["XA START 'early'", 'INSERT INTO t VALUES (-1)', "XA END 'early'", "XA PREPARE 'early'"]),
    );
    await session.close();
    await database.query('INSERT INTO t VALUES (-2)');
    await server?.restart();
    await eventually(() => database.query("XA COMMIT 'early'").then(() => undefined));
    expect(seenIn(await stream.read(start, 2)).map((one) => one.after?.['id'])).to.deep.equal(['-2', '-1']);
  });

  it('F12: a file that was read to its end and purged is no gap', async () => {
    await database.query('INSERT INTO t VALUES (1)');
    const start = await stream.start();
    await purge();
    await database.query('INSERT INTO t VALUES (2)');
    const seen = seenIn(await stream.read(start, 1));
    expect(seen.map((one) => one.after?.['id'])).to.deep.equal(['2']);
  });

  it('F10 F18: a file that was purged before it was read is a gap', async () => {
    const start = await stream.start();
    await database.query('INSERT INTO t VALUES (10)');
    await purge();
    expect((await failure(stream.read(start, 1))).code).to.equal('GAP');
  });

  it('F15 F18: a log that was begun anew is a gap, also where it has a place of that name again', async () => {
    const start = await stream.start();
    await database.query('RESET MASTER');
    expect((await failure(stream.read(start, 1))).code).to.equal('GAP');
    for (let id = 100; id < 160; id++) await database.query('INSERT INTO t VALUES (?)', [id]);
    const now = await stream.start();
    await database.query('RESET MASTER');
    for (let id = 200; id < 300; id++) await database.query('INSERT INTO t VALUES (?), (?)', [id, id + 500]);
    const error = await failure(stream.read(now, 1));
    expect(error.code).to.equal('GAP');
  });

  it('F41: a reader whose connection is killed says so, and another goes on from what was stored', async () => {
    const start = await stream.start();
    const reader = await stream.source.read(STREAM, start, {
      maxChanges: 1000,
      maxBytes: 1 << 20,
      idleProgressMs: () => 50,
      pollMs: () => 50,
    });
    const pieces = reader.pieces[Symbol.asyncIterator]();
    await pieces.next();
    const rows = await database.query(
      "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE COMMAND = 'Binlog Dump'",
    );
    const broken = failure(
      (async () => {
        for (;;) if ((await pieces.next()).done) throw new Error('the stream ended');
      })(),
    );
    for (const row of rows) await database.query(`KILL CONNECTION ${Number(row['id'])}`);
    expect(hasCode(await broken, 'CONNECTION_LOST')).to.equal(true);
    await reader.stop();
    await database.query('INSERT INTO t VALUES (1000)');
    expect(seenIn(await stream.read(start, 1)).map((one) => one.after?.['id'])).to.deep.equal(['1000']);
  });

  it('settings that leave something out of the log are told, with the statements that help', async () => {
    await database.query(
      "SET GLOBAL binlog_row_metadata = 'MINIMAL', GLOBAL binlog_row_image = 'MINIMAL', GLOBAL binlog_format = 'MIXED'",
    );
    try {
      const findings = (await stream.handle.preflight?.source([], { cdc: true })) ?? [];
      expect(findings.map((finding) => finding.fixSql[0]).sort()).to.deep.equal([
        "SET GLOBAL binlog_format = 'ROW';",
        "SET GLOBAL binlog_row_image = 'FULL';",
        "SET GLOBAL binlog_row_metadata = 'FULL';",
      ]);
      expect((await failure(stream.start())).code).to.equal('CDC_NOT_READY');
      for (const { fixSql } of findings) for (const sql of fixSql) await database.query(sql.replace(/;$/, ''));
      expect(await stream.handle.preflight?.source([], { cdc: true })).to.deep.equal([]);
    } finally {
      await database.query(
        "SET GLOBAL binlog_row_metadata = 'FULL', GLOBAL binlog_row_image = 'FULL', GLOBAL binlog_format = 'ROW'",
      );
    }
  });

  it('a login without the rights is told which; a child of a cascading foreign key is refused', async () => {
    await database.query("CREATE OR REPLACE USER reader@'127.0.0.1' IDENTIFIED BY 'geheim'");
    await database.query(`GRANT SELECT ON \`${database.name}\`.* TO reader@'127.0.0.1'`);
    await database.query(
      'CREATE TABLE child (id int PRIMARY KEY, t int, FOREIGN KEY (t) REFERENCES t (id) ON DELETE CASCADE)',
    );
    const url = new URL(database.url);
    url.username = 'reader';
    url.password = 'geheim';
    const reader = new Stream(url.toString());
    try {
      const findings = (await reader.handle.preflight?.source([{ schema: '', table: 'child' }], { cdc: true })) ?? [];
      expect(findings.map((finding) => finding.code)).to.deep.equal([
        'PERMISSION_DENIED',
        'PERMISSION_DENIED',
        'CDC_NOT_READY',
      ]);
      for (const { fixSql, code } of findings)
        if (code === 'PERMISSION_DENIED') for (const sql of fixSql) await database.query(sql.replace(/;$/, ''));
      const after = (await reader.handle.preflight?.source([{ schema: '', table: 't' }], { cdc: true })) ?? [];
      expect(after).to.deep.equal([]);
      expect(await reader.start()).to.contain('my1:');
    } finally {
      await reader.close();
    }
  });
});

describe('MariaDB that does not tell names apart by case', () => {
  let server: PrivateServer | null = null;
  before(async function () {
    const shared = await requireMysql(this);
    if (!shared.isMariaDb || process.env['TEST_MYSQL_URL'] || !process.env['SLUICE_TEST_LONG'])
      skip(this, 'it is a server of its own: npm run test:long');
    server = await startMariaDb({ ...TEST_SETTINGS, 'lower-case-table-names': '1' });
  });
  after(() => server?.stop());

  it('F27: changes of a database arrive under the name that it is wanted by, however that is spelled', async () => {
    if (!server) throw new Error('no server');
    const database = await createMysqlDatabase(server.server, 'shop');
    const stream = new Stream(server.server.url, true);
    try {
      const schema = database.name.toUpperCase();
      await database.query('CREATE TABLE t (id int PRIMARY KEY)');
      const start = await stream.start();
      await database.query('INSERT INTO t VALUES (1)');
      await database.query(`TRUNCATE TABLE ${schema}.T`);
      const tables = (await stream.read(start, 2, { schemas: [schema] })).flatMap((piece) => piece.tables);
      const [described] = await stream.handle.catalog.describe([{ schema, table: 't' }]);
      expect(tables.map(({ relation, ops }) => [relation.name, relation.id, ops.length])).to.deep.equal([
        [{ schema, table: 't' }, described?.id, 2],
      ]);
    } finally {
      await stream.close();
      await database.drop();
    }
  });
});
