/** XA transactions: their rows are logged when they are prepared, and count when they are committed. */
import { expect } from 'chai';
import type { ChangePiece } from '../../../src/model/changes.ts';
import type { Position } from '../../../src/model/position.ts';
import { createMysqlDatabase, requireMysql, requireMysqlItself, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect } from '../../support/mysql-servers.ts';
import { eventually } from '../../support/service.ts';
import { skip } from '../../support/skip.ts';
import { seenIn, Stream } from './stream.ts';
import { expectNothingUnseen } from './unseen-commits.ts';

for (const { name, require, given } of [
  { name: 'MariaDB', require: requireMysql, given: 'TEST_MYSQL_URL' },
  { name: 'MySQL', require: requireMysqlItself, given: 'TEST_MYSQL8_URL' },
])
  describe(`${name} as source: XA transactions`, function () {
    this.timeout(60_000);
    let database: MysqlTestDatabase;
    let stream: Stream;
    before(async function () {
      database = await createMysqlDatabase(await require(this));
      stream = new Stream(database.url);
      await database.query('CREATE TABLE t (id int PRIMARY KEY, v longtext)');
    });
    after(async () => {
      await stream?.close();
      await database?.drop();
    });

    let xids = 0;
    /** A new transaction's identifier, as statements take it; with quotes, zeros and a format of its own. */
    const xid = () => `X'00${(++xids).toString(16).padStart(4, '0')}27','${database.name}',${xids}`;
    /** As application servers do: whoever decides need not be who prepared. */
    const prepare = async (id: string, ...statements: string[]) => {
      const session = connect(database.url, database.name);
      await session.use((own) =>
        own.run('prepare', [`XA START ${id}`, ...statements, `XA END ${id}`, `XA PREPARE ${id}`]),
      );
      await session.close();
    };
    const decide = (verb: 'COMMIT' | 'ROLLBACK', id: string) =>
      eventually(() => database.query(`XA ${verb} ${id}`).then(() => undefined));
    const ids = (pieces: readonly ChangePiece[]) =>
      seenIn(pieces).map(({ before, after }) => `${before?.['id'] ?? ''}→${after?.['id'] ?? ''}`);
    const endOf = (pieces: readonly ChangePiece[]) => pieces.at(-1)?.end as Position;

    it('F49: rows come with the commit, among what was committed before and behind it; never with a rollback', async () => {
      const start = await stream.start();
      const [kept, dropped, quick] = [xid(), xid(), xid()];
      await prepare(kept, 'INSERT INTO t VALUES (1, NULL)', 'UPDATE t SET id = 2 WHERE id = 1', 'SAVEPOINT s');
      await prepare(dropped, 'INSERT INTO t VALUES (3, NULL)');
      await database.query('INSERT INTO t VALUES (4, NULL)');
      await decide('COMMIT', kept);
      await database.query('INSERT INTO t VALUES (5, NULL)');
      await decide('ROLLBACK', dropped);
      await database.connection.use((session) =>
        session.run('one phase', [
          `XA START ${quick}`,
          'DELETE FROM t WHERE id = 2',
          `XA END ${quick}`,
          `XA COMMIT ${quick} ONE PHASE`,
        ]),
      );
      await database.query('INSERT INTO t VALUES (6, NULL)');
      const pieces = await stream.read(start, 6, { maxChanges: 1 });
      expect(ids(pieces)).to.deep.equal(['→4', '→1', '1→2', '→5', '2→', '→6']);
      const [table] = await stream.handle.catalog.describe([{ schema: '', table: 't' }]);
      if (!table) throw new Error('not there');
      // Whoever fetches a row for a change says which transaction it is to be behind.
      const tokens = pieces.flatMap((piece) => piece.tables.flatMap(({ visibility }) => visibility));
      const fetched = await stream.handle.snapshot?.fetchRows(table, ['id'], ['id'], [['2'], ['6']], tokens);
      expect(fetched?.cells).to.deep.equal(['6']);
      // Every place between two transactions is one to go on from, wherever the transactions were prepared.
      for (const [i, { end, changes }] of pieces.entries()) {
        if (end === null || changes === 0 || i === pieces.length - 1) continue;
        const rest = ids(pieces.slice(i + 1));
        expect(ids(await stream.read(end, rest.length)), `behind piece ${i}`).to.deep.equal(rest);
      }
    });

    it('F06 F12: one that was prepared before the reader began is found, also in an earlier file of the log, and one of another database is none', async () => {
      const other = await createMysqlDatabase(database.server);
      await other.query('CREATE TABLE t (id int PRIMARY KEY)');
      try {
        const [first, second, foreign] = [xid(), xid(), xid()];
        await prepare(first, "INSERT INTO t VALUES (10, 'a'), (11, 'b')");
        await database.query('FLUSH BINARY LOGS');
        await prepare(second, 'INSERT INTO t VALUES (12, NULL)');
        await prepare(foreign, `INSERT INTO ${other.name}.t VALUES (1)`);
        await database.query('FLUSH BINARY LOGS');
        await database.query('INSERT INTO t VALUES (13, NULL)');
        const start = await stream.start();
        for (const each of [second, foreign, first]) await decide('COMMIT', each);
        await database.query('INSERT INTO t VALUES (14, NULL)');
        expect(ids(await stream.read(start, 4))).to.deep.equal(['→12', '→10', '→11', '→14']);
      } finally {
        await other.drop();
      }
    });

    it('F43: one that is larger than what is kept of it is read again, in pieces within it', async () => {
      const start = await stream.start();
      const [large, quick] = [xid(), xid()];
      const rows = Array.from({ length: 60 }, (_, i) => `(${100 + i}, REPEAT('${i % 10}', 100000))`).join(', ');
      await prepare(large, `INSERT INTO t VALUES ${rows}`);
      await database.query('INSERT INTO t VALUES (99, NULL)');
      await decide('COMMIT', large);
      await database.connection.use((session) =>
        session.run('one phase', [
          `XA START ${quick}`,
          'DELETE FROM t WHERE id >= 100',
          `XA END ${quick}`,
          `XA COMMIT ${quick} ONE PHASE`,
        ]),
      );
      const pieces = await stream.read(start, 121, { maxChanges: 1 });
      const wanted = Array.from({ length: 60 }, (_, i) => 100 + i);
      expect(ids(pieces)).to.deep.equal(['→99', ...wanted.map((id) => `→${id}`), ...wanted.map((id) => `${id}→`)]);
      expect(pieces.filter((piece) => piece.end === null).length, 'pieces within a transaction').to.be.greaterThan(3);
      expect(seenIn(pieces)[60]?.after?.['v']).to.equal('9'.repeat(100000));
    });

    it('F22: compressed ones', async function () {
      if (database.server.isMariaDb) skip(this, 'MariaDB compresses events, not transactions');
      const start = await stream.start();
      const [small, large, early] = [xid(), xid(), xid()];
      const on = 'SET SESSION binlog_transaction_compression = ON';
      const zipped = async (id: string, ...statements: string[]) => {
        const session = connect(database.url, database.name);
        await session.use((own) =>
          own.run('prepare', [on, `XA START ${id}`, ...statements, `XA END ${id}`, `XA PREPARE ${id}`]),
        );
        await session.close();
      };
      await zipped(early, 'INSERT INTO t VALUES (300, NULL)');
      await zipped(small, 'INSERT INTO t VALUES (301, NULL)');
      const rows = Array.from({ length: 50 }, (_, i) => `(${310 + i}, REPEAT('x', 100000))`).join(', ');
      await zipped(large, `INSERT INTO t VALUES ${rows}`);
      await decide('COMMIT', small);
      await decide('COMMIT', large);
      const first = await stream.read(start, 51);
      expect(ids(first)).to.deep.equal(['→301', ...Array.from({ length: 50 }, (_, i) => `→${310 + i}`)]);
      await decide('COMMIT', early);
      expect(ids(await stream.read(endOf(first), 1))).to.deep.equal(['→300']);
    });

    it('F03 F44: a commit that the log holds and nobody sees yet is waited for: before a copy, and before a table is included', async () => {
      // InnoDB indexes the words when it commits, which is after the log was written.
      await database.query('CREATE TABLE slow (id int PRIMARY KEY, v longtext, FULLTEXT KEY (v))');
      const words = Array.from({ length: 10_000 }, (_, i) => `word${i}`).join(' ');
      await expectNothingUnseen(database, stream, 'slow', {
        writers: 3,
        insert: async (row) => {
          const id = xid();
          await prepare(id, `INSERT INTO slow VALUES (${row}, '${words}')`);
          await decide('COMMIT', id);
        },
        inclusions: 10,
        starts: 10,
      });
    });

    it('F10 F18: one whose file was purged before it was committed is a gap of every table, said once, and the stream goes on', async function () {
      if (process.env[given]) skip(this, 'this test purges the log of a server of its own');
      const gone = xid();
      await prepare(gone, 'INSERT INTO t VALUES (400, NULL)');
      await database.query('FLUSH BINARY LOGS');
      const files = await database.query('SHOW BINARY LOGS');
      await eventually(async () => {
        await database.query(`PURGE BINARY LOGS TO '${String(files.at(-1)?.['Log_name'])}'`);
        if ((await database.query('SHOW BINARY LOGS')).length > 1) throw new Error('files are left');
      });
      const start = await stream.start();
      await decide('COMMIT', gone);
      await database.query('INSERT INTO t VALUES (401, NULL)');
      const pieces = await stream.read(start, 1);
      expect(ids(pieces)).to.deep.equal(['→401']);
      const gaps = pieces.flatMap(({ captures }) => captures?.gap({ schema: '', table: 't' }, null) ?? []);
      expect(gaps.map(({ code, message }) => [code, message.includes('XA')])).to.deep.equal([['GAP', true]]);
    });
  });
