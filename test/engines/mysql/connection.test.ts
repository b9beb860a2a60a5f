import { expect } from 'chai';
import { engineOf } from '../../../src/engines/registry.ts';
import { hasCode, type ErrorCode, type SluiceError } from '../../../src/model/errors.ts';
import { parseMysqlAddress } from '../../../src/engines/mysql/address.ts';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect } from '../../support/mysql-servers.ts';

const open = (url: string, database: string | null = null) => connect(url, database);

async function failure(work: Promise<unknown>): Promise<SluiceError> {
  const thrown: unknown = await work.then(
    () => null,
    (error: unknown) => error,
  );
  if (thrown === null) throw new Error('nothing was thrown');
  return thrown as SluiceError;
}

describe('MySQL connection strings', () => {
  it('mysql:// and mariadb:// name host, port, login and database', () => {
    const address = parseMysqlAddress(
      'mariadb://a%40b:p%25%2Fw@db.example:3307/shop?ssl-mode=VERIFY_IDENTITY&connect-timeout=3',
    );
    expect(address).to.include({ host: 'db.example', port: 3307, user: 'a@b', password: 'p%/w', database: 'shop' });
    expect(address).to.include({ sslMode: 'verify_identity', connectTimeoutMs: 3000 });
    expect(engineOf('mysql://h').databaseOf('mysql://h/shop')).to.equal('shop');
    expect(engineOf('mariadb://h').name).to.equal('mysql');
  });

  it('a certificate authority is there to be checked; without one TLS is preferred', () => {
    expect(parseMysqlAddress('mysql://h').sslMode).to.equal('preferred');
    expect(parseMysqlAddress('mysql://h?ssl-ca=/ca.pem').sslMode).to.equal('verify_ca');
    expect(parseMysqlAddress('mysql://h?ssl-mode=disabled').sslMode).to.equal('disabled');
  });

  for (const [text, what] of [
    ['mysql:///geheim', 'no host'],
    ['mysql://u:geheim@h/d?colour=red', 'colour'],
    ['mysql://u:geheim@h/d?ssl-mode=perhaps', 'ssl-mode'],
    ['mysql://u:geheim%@h/d', '%'],
    ['mysql://u:geheim@h/d?connect-timeout=soon', 'connect-timeout'],
  ] as const)
    it(`F52: ${what}: refused, and the password is not repeated`, () => {
      let thrown: unknown = null;
      try {
        engineOf(text).check(text);
      } catch (error) {
        thrown = error;
      }
      expect(hasCode(thrown, 'MAPPING_INVALID')).to.equal(true);
      expect((thrown as Error).message)
        .to.contain(what)
        .and.not.contain('geheim');
    });
});

describe('MySQL sessions', () => {
  let database: MysqlTestDatabase;
  before(async function () {
    database = await createMysqlDatabase(await requireMysql(this));
  });
  after(() => database?.drop());

  it('agree on what text means, whatever the server’s own settings are', async () => {
    const [row] = await database.query(
      `SELECT @@session.time_zone AS zone, @@session.sql_mode AS mode, @@session.character_set_results AS chars,
         @@session.collation_connection AS collation, @@session.group_concat_max_len AS longest`,
    );
    expect(row?.['zone']).to.equal('+00:00');
    expect(row?.['mode'])
      .to.contain('STRICT_ALL_TABLES')
      .and.contain('NO_AUTO_VALUE_ON_ZERO')
      .and.not.contain('NO_ZERO');
    expect(row).to.include({ chars: 'utf8mb4', collation: 'utf8mb4_bin', longest: '1073741824' });
  });

  it('F30 F31: values arrive as the server’s text; numbers and bytes also where values are bound', async () => {
    const list = `CAST(18446744073709551615 AS UNSIGNED) AS u, CAST('-12345678901234567890123456789012345.123456789012345678901234567890' AS DECIMAL(65,30)) AS d,
      CAST('0000-00-00 00:00:00' AS DATETIME(6)) AS z, CAST('-838:59:59.000000' AS TIME(6)) AS t, X'00FF' AS b`;
    const exact = {
      u: '18446744073709551615',
      d: '-12345678901234567890123456789012345.123456789012345678901234567890',
    };
    const plain = await database.query(`SELECT ${list}`);
    expect(plain[0]).to.include({ t: '-838:59:59.000000', z: '0000-00-00 00:00:00.000000' });
    for (const rows of [plain, await database.query(`SELECT ${list} FROM (SELECT 1) AS one WHERE 1 = ?`, [1])]) {
      expect(rows[0]).to.include(exact);
      expect(rows[0]?.['t']).to.match(/^-838:59:59/);
      expect(rows[0]?.['b']).to.deep.equal(Buffer.from([0, 255]));
    }
  });

  it('statements in one round trip tell the rows that each touched; equal values count as updated', async () => {
    const counts = await database.connection.use((session) =>
      session.run('try', [
        'CREATE TABLE counted (a int)',
        'INSERT INTO counted VALUES (1), (2)',
        'UPDATE counted SET a = a',
        'DELETE FROM counted WHERE a = 1',
      ]),
    );
    expect(counts).to.deep.equal([0, 2, 2, 1]);
  });

  it('F42: a transaction that waits for the other end is not ended by the server’s own limits', async function () {
    if (!database.server.isMariaDb) return this.skip();
    const limits = ['idle_transaction_timeout', 'idle_write_transaction_timeout', 'idle_readonly_transaction_timeout'];
    for (const limit of limits) await database.query(`SET GLOBAL ${limit} = 1`);
    const connection = open(database.url, database.name);
    try {
      await database.query('CREATE TABLE waited (a int)');
      const session = await connection.open();
      await session.transaction('START TRANSACTION', async () => {
        await session.run('write', ['INSERT INTO waited VALUES (1)']);
        // What is limited is how long a session is idle, in whole seconds.
        await new Promise((resolve) => setTimeout(resolve, 1500));
      });
      await connection.release(session);
    } finally {
      await connection.close();
      for (const limit of limits) await database.query(`SET GLOBAL ${limit} = 0`);
    }
    expect(await database.query('SELECT a FROM waited')).to.deep.equal([{ a: '1' }]);
  });

  const codes: [string, () => Promise<unknown>, ErrorCode][] = [
    ['F41: nobody at that port', () => use('mysql://u@127.0.0.1:1'), 'SERVER_UNREACHABLE'],
    ['F41: a name that does not resolve', () => use('mysql://u@nowhere.invalid'), 'SERVER_UNREACHABLE'],
    ['a database that is not there', () => use(database.server.url, 'not_there'), 'DATABASE_MISSING'],
    ['a wrong login', () => use(withLogin(database.server.url, 'nobody_here', 'geheim')), 'LOGIN_FAILED'],
    [
      'F35: NULL where none may be',
      async () => {
        await database.query('CREATE TABLE refusing (a int NOT NULL UNIQUE, b varchar(2))');
        await database.query('INSERT INTO refusing VALUES (?, ?)', [null, 'x']);
      },
      'ROW_REFUSED',
    ],
    [
      'F36: text that is too long is not cut',
      () => database.query('INSERT INTO refusing VALUES (1, ?)', ['geheim']),
      'ROW_REFUSED',
    ],
    ['a table that is not there', () => database.query('SELECT * FROM not_there'), 'DESTINATION_TABLE_MISSING'],
    [
      'a lock that does not come',
      async () => {
        await database.query("INSERT INTO refusing VALUES (5, 'a')");
        await database.connection.use((holder) =>
          holder.transaction('START TRANSACTION', async () => {
            await holder.query('lock', "UPDATE refusing SET b = 'b' WHERE a = 5");
            await database.connection.use((other) =>
              other.query(
                'wait',
                "SET STATEMENT innodb_lock_wait_timeout = 1 FOR UPDATE refusing SET b = 'c' WHERE a = 5",
              ),
            );
          }),
        );
      },
      'TIMEOUT',
    ],
  ];
  for (const [what, work, code] of codes)
    it(`${what}: ${code}`, async function () {
      if (code === 'TIMEOUT' && !database.server.isMariaDb) this.skip();
      const error = await failure(work());
      expect(error.code).to.equal(code);
      expect(error.message).to.not.contain('geheim');
    });

  it('F40: a connection that is killed while in use is told as lost, and the next one works', async () => {
    const session = await database.connection.open();
    const sleeping = failure(session.query('sleep', 'SELECT SLEEP(30)'));
    await database.query(`KILL CONNECTION ${session.id}`);
    expect((await sleeping).code).to.equal('CONNECTION_LOST');
    expect((await failure(session.query('try again', 'SELECT 1'))).code).to.equal('CONNECTION_LOST');
    expect(await database.query('SELECT 1 AS one')).to.deep.equal([{ one: '1' }]);
  });

  async function use(url: string, name: string | null = null): Promise<void> {
    const connection = open(url, name);
    try {
      await connection.query('try', 'SELECT 1');
    } finally {
      await connection.close();
    }
  }
});

function withLogin(url: string, user: string, password: string): string {
  const changed = new URL(url);
  changed.username = user;
  changed.password = password;
  return changed.toString();
}
