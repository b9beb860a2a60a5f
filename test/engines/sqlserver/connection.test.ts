import { expect } from 'chai';
import { SluiceError, type ErrorCode } from '../../../src/model/errors.ts';
import { Connection } from '../../../src/engines/sqlserver/connection.ts';
import {
  createSqlServerDatabase,
  requireSqlServer,
  type SqlServerTestDatabase,
  type SqlServerUnderTest,
} from '../../support/sqlserver.ts';
import { skip } from '../../support/skip.ts';

async function failure(work: Promise<unknown>): Promise<SluiceError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof SluiceError) return error;
    throw error;
  }
  throw new Error('nothing failed');
}

describe('SQL Server: sessions', () => {
  let server: SqlServerUnderTest;
  let database: SqlServerTestDatabase;
  const opened: Connection[] = [];

  before(async function () {
    server = await requireSqlServer(this);
    database = await createSqlServerDatabase(server, 'sessions');
  });
  after(async () => {
    await Promise.all(opened.map((each) => each.close()));
    await database?.drop();
  });

  function connection(change: (url: URL) => void, name: string | null = null): Connection {
    const url = new URL(server.url);
    change(url);
    const made = new Connection({
      connectionString: url.toString(),
      database: name,
      installation: { uid: 'test' },
      applicationName: 'sluice tests',
    });
    opened.push(made);
    return made;
  }

  it('a session that is given back is as new for whoever takes it next', async () => {
    const own = connection(() => undefined, database.name);
    const session = await own.take();
    await session.run('leave things behind', [
      'CREATE TABLE #left (id int)',
      'SET NOCOUNT ON',
      'SET LOCK_TIMEOUT 1234',
      'SET XACT_ABORT OFF',
      'BEGIN TRANSACTION',
      'CREATE TABLE dbo.rolled_back (id int)',
    ]);
    await own.giveBack(session);
    const again = await own.take();
    expect(again).to.equal(session);
    const [row] = await again.query(
      'look around',
      `SELECT @@LOCK_TIMEOUT AS wait, OBJECT_ID(N'tempdb..#left') AS temporary, OBJECT_ID(N'dbo.rolled_back') AS made,
         512 & @@OPTIONS AS nocount, 16384 & @@OPTIONS AS xact_abort`,
    );
    expect(row).to.deep.equal({ wait: -1, temporary: null, made: null, nocount: 0, xact_abort: 16384 });
    await own.release(again);
  });

  it('binds text, numbers, bytes and NULL', async () => {
    const [row] = await database.query('SELECT CAST(@t AS nvarchar(50)) AS t, @n AS n, @b AS b, @z AS z', {
      t: "a'b 😀 é",
      n: 2 ** 53 - 1,
      b: Uint8Array.of(0, 255),
      z: null,
    });
    expect(row?.['n']).to.equal('9007199254740991');
    expect(Buffer.from(row?.['b'] as Uint8Array)).to.deep.equal(Buffer.from([0, 255]));
    expect(row?.['z']).to.equal(null);
    expect(row?.['t']).to.equal("a'b 😀 é");
  });

  it('counts the rows of each statement of a batch', async () => {
    const counts = await database.connection.use(async (session) => {
      await session.run('make a table', ['CREATE TABLE dbo.counted (id int NOT NULL)']);
      return session.run('count', [
        'INSERT INTO dbo.counted VALUES (1), (2), (3)',
        'UPDATE dbo.counted SET id = id + 10 WHERE id > 1',
        'DELETE FROM dbo.counted WHERE id = 99',
      ]);
    });
    expect(counts).to.deep.equal([3, 2, 0]);
  });

  it('rolls a transaction back when its work throws, and the session goes on', async () => {
    await database.query('CREATE TABLE dbo.kept (id int NOT NULL PRIMARY KEY)');
    await database.connection.use(async (session) => {
      await failure(
        session.transaction(async () => {
          await session.run('insert', ['INSERT INTO dbo.kept VALUES (1)']);
          await session.run('insert again', ['INSERT INTO dbo.kept VALUES (1)']);
        }),
      );
      await session.transaction(() => session.run('insert', ['INSERT INTO dbo.kept VALUES (2)']));
    });
    expect(await database.query('SELECT id FROM dbo.kept')).to.deep.equal([{ id: 2 }]);
  });

  it('a duplicate key is a refused row whose message repeats no value', async () => {
    await database.query('CREATE TABLE dbo.unique_text (v nvarchar(40) NOT NULL PRIMARY KEY)');
    const insert = () => database.query("INSERT INTO dbo.unique_text VALUES ('a secret value')");
    await insert();
    const error = await failure(insert());
    expect(error.code).to.equal('ROW_REFUSED');
    expect(error.isConflict).to.equal(true);
    expect(error.message).not.to.contain('secret value');
  });

  const bad: readonly [string, ErrorCode, () => Promise<unknown>][] = [
    [
      'an unknown login',
      'LOGIN_FAILED',
      () => connection((url) => (url.username = 'nobody_at_all')).query('ask', 'SELECT 1 AS x'),
    ],
    [
      'a missing database',
      'DATABASE_MISSING',
      () => connection(() => undefined, 'no_such_database').query('ask', 'SELECT 1 AS x'),
    ],
    [
      'an unknown host',
      'SERVER_UNREACHABLE',
      () => connection((url) => (url.hostname = 'no-such-host.invalid')).query('ask', 'SELECT 1 AS x'),
    ],
    ['a closed port', 'SERVER_UNREACHABLE', () => connection((url) => (url.port = '1')).query('ask', 'SELECT 1 AS x')],
  ];
  for (const [what, code, attempt] of bad) {
    it(`${what} is ${code}, with what to do`, async () => {
      const error = await failure(attempt());
      expect(error.code).to.equal(code);
      expect(error.hint).to.be.a('string');
      expect(error.message).not.to.contain(new URL(server.url).password);
    });
  }

  it('a server without TLS is not sent the login when encryption was asked for, which is the default', async function () {
    if (server.kind !== 'babelfish') skip(this, 'needs a server without TLS');
    const error = await failure(connection((url) => url.searchParams.delete('encrypt')).query('ask', 'SELECT 1 AS x'));
    expect(error.code).to.equal('TLS_FAILED');
    expect(error.message).to.contain('no TLS');
  });

  it('F41: a session whose connection was cut says CONNECTION_LOST, and the pool opens another', async () => {
    const own = connection(() => undefined, database.name);
    const error = await failure(
      own.use(async (session) => {
        session.destroy();
        await session.query('ask', 'SELECT 1 AS x');
      }),
    );
    expect(error.code).to.equal('CONNECTION_LOST');
    expect(await own.query('ask', 'SELECT 1 AS x')).to.deep.equal([{ x: 1 }]);
  });

  it('F41: a deadlock within an attempt, which costs the whole transaction, is DEADLOCK', async () => {
    const own = connection(() => undefined, database.name);
    await own.query('make rows', 'CREATE TABLE dbo.crossed (id int PRIMARY KEY, v int)');
    await own.query('make rows', 'INSERT INTO dbo.crossed VALUES (1, 0), (2, 0)');
    const sessions = await Promise.all([own.take(), own.take()]);
    const update = (id: number) => `UPDATE dbo.crossed SET v = v + 1 WHERE id = ${id}`;
    try {
      for (const [i, session] of sessions.entries()) await session.run('begin', ['BEGIN TRANSACTION', update(i + 1)]);
      const ends = await Promise.allSettled(
        sessions.map((session, i) =>
          session.attempt(async () => {
            await session.run('cross', [update(2 - i)]);
            await session.run('commit', ['COMMIT TRANSACTION']);
          }),
        ),
      );
      const errors = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as SluiceError] : []));
      expect(errors.map(({ code }) => code)).to.deep.equal(['DEADLOCK']);
      const rows = await own.query('read', 'SELECT v FROM dbo.crossed');
      expect(rows.map((row) => Number(row['v']))).to.deep.equal([1, 1]);
    } finally {
      await Promise.all(sessions.map((session) => own.release(session)));
    }
  });
});
