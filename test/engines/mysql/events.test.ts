/** Large batches of another server's rows, which go into a table of MariaDB as row events. */
import { expect } from 'chai';
import type { Connection, Session } from '../../../src/engines/mysql/connection.ts';
import { SluiceError } from '../../../src/model/errors.ts';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect } from '../../support/mysql-servers.ts';
import { eventually } from '../../support/service.ts';
import { asTheyCame, openReplay, type Replay } from './replay.ts';
import { Stream } from './stream.ts';
import { casesFor, valueTable } from './values.ts';

/** Enough for events to be used. */
const MANY = 400;

/** Types of which rows go as they are, but for those of the other tests. */
const AS_THEY_ARE =
  /^(tiny|small|medium|big)?int|^decimal|^float|^double|^date|^time|^(var)?char|^varbinary|text$|blob$|^enum|^set/;

describe('MariaDB: rows that go in as events', () => {
  let database: MysqlTestDatabase;
  let stream: Stream;
  let connection: Connection;
  let session: Session;
  let rows: Replay;
  before(async function () {
    database = await createMysqlDatabase(await requireMysql(this));
    if (!database.server.isMariaDb) return this.skip();
    stream = new Stream(database.url);
  });
  const open = async (connectionString: string) => {
    connection = connect(connectionString, database.name);
    ({ session, rows } = await openReplay(database, stream, connection));
  };
  beforeEach(() => open(database.url));
  afterEach(() => connection.close());
  after(async () => {
    await stream?.close();
    await database?.drop();
  });

  const filled = (table: string, columns: string, first = 1) =>
    `INSERT INTO ${table} SELECT ${columns} FROM seq_${first}_to_${first + MANY - 1}`;
  /** Runs `work`; resolves to how many statements of each kind it took. */
  const statements = async (work: () => Promise<unknown>): Promise<{ events: number; loads: number }> => {
    const count = async () => {
      const found = await session.query(
        'count statements',
        `SHOW SESSION STATUS WHERE Variable_name IN ('Com_binlog', 'Com_load')`,
      );
      const of = (name: string) => Number(found.find((row) => row['Variable_name'] === name)?.['Value']);
      return { events: of('Com_binlog'), loads: of('Com_load') };
    };
    const before = await count();
    await work();
    const after = await count();
    return { events: after.events - before.events, loads: after.loads - before.loads };
  };

  it('F30 F31 F32 F33: new rows and changed ones, of every type that goes as it is', async () => {
    const isShort = ([, cell]: readonly [string, string | Buffer]) => cell.length < 10_000;
    const cases = casesFor(true)
      .filter(({ type }) => AS_THEY_ARE.test(type))
      .map((each) => ({
        ...each,
        values: each.values.some(isShort) ? each.values.filter(isShort) : ([["''", '']] as const),
      }));
    const made = valueTable(cases, 'every');
    await database.query(made.create);
    await database.query('CREATE TABLE every_copied LIKE every');
    const count = made.rows.length;
    const times = Math.ceil(MANY / count);
    await database.query(made.create.replace('every', 'every_once'));
    await database.query(made.insert.replace('every', 'every_once'));
    const names = cases.map((_, i) => `c${i}`);
    const list = (await database.query('SHOW COLUMNS FROM every_once')).map((row) => String(row['Field']));
    expect(list.length).to.be.greaterThan(names.length);
    const others = list.slice(1).map((name) => `\`${name}\``);
    const insert = `INSERT INTO every SELECT seq * 1000 + id, ${others.join(', ')} FROM every_once JOIN seq_1_to_${times}`;
    const inserted = await statements(async () =>
      expect(await rows.replay('every', 'every_copied', [insert], count * times, asTheyCame)).to.deep.equal({
        inserted: count * times,
        updated: 0,
        deleted: 0,
      }),
    );
    expect(inserted.events).to.be.greaterThan(1);
    expect(inserted.loads).to.equal(0);
    await rows.expectSame('every_copied', 'every');
    // Each row gets the values of another.
    const set = others.map((name) => `e.${name} = o.${name}`);
    const update = `UPDATE every e JOIN every_once o ON o.id = (SELECT MIN(id) FROM every_once) + (e.id + 1) % ${count} SET ${set.join(', ')}`;
    const changed = await statements(async () => {
      const counts = await rows.replay('every', 'every_copied', [update], 1, asTheyCame);
      expect(counts.inserted).to.equal(0);
      expect(counts.updated).to.be.greaterThan(MANY / 2);
    });
    expect(changed.events).to.be.greaterThan(0);
    expect(changed.loads).to.equal(0);
    await rows.expectSame('every_copied', 'every');
  });

  it('F25: a key that is of several columns and not the first, in another order than the table’s', async () => {
    const columns = 'v varchar(20), b int NOT NULL, id varchar(300) NOT NULL, w int, PRIMARY KEY (id)';
    await database.query(`CREATE TABLE late (${columns}) DEFAULT CHARACTER SET utf8mb4`);
    await database.query('CREATE TABLE late_copied LIKE late');
    await rows.replay(
      'late',
      'late_copied',
      [filled('late', `NULL, seq, CONCAT('é', seq), IF(seq % 2, seq, NULL)`)],
      MANY,
      asTheyCame,
    );
    const taken = await statements(() =>
      rows.replay('late', 'late_copied', [`UPDATE late SET v = CONCAT('now ', b), w = NULL`], MANY, asTheyCame),
    );
    expect(taken).to.deep.equal({ events: 1, loads: 0 });
    await rows.expectSame('late_copied', 'late');
  });

  it('what the destination logs of them is whole, for whoever reads on from there', async () => {
    await database.query('CREATE TABLE chain (id int PRIMARY KEY, v varchar(20), w varchar(20))');
    await database.query('CREATE TABLE chain_second LIKE chain');
    await database.query('CREATE TABLE chain_third LIKE chain');
    await rows.replay('chain', 'chain_second', [filled('chain', `seq, 'a', 'kept'`)], MANY);
    await rows.replay('chain', 'chain_third', [`INSERT INTO chain_third SELECT * FROM chain`], 0);
    const from = await stream.start();
    const update = [`UPDATE chain SET v = CONCAT('b', id)`];
    expect(await statements(() => rows.replay('chain', 'chain_second', update, MANY, asTheyCame))).to.deep.equal({
      events: 1,
      loads: 0,
    });
    const read = await stream.read(from, 2 * MANY);
    const changes = read
      .flatMap((piece) => piece.tables)
      .filter(({ relation }) => relation.name.table === 'chain_second');
    const cells = changes.flatMap((each) => each.after.map((at) => each.cells.slice(at, at + 3)));
    expect(cells.length).to.equal(MANY);
    for (const [id, v, w] of cells) expect([v, w]).to.deep.equal([`b${String(id)}`, 'kept']);
  });

  it('F45: foreign keys neither check nor cascade, numbers and times that the table makes itself are not made', async () => {
    await database.query(
      `CREATE TABLE own (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, parent int,
        changed timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))`,
    );
    await database.query('CREATE TABLE own_copied LIKE own');
    await database.query('CREATE TABLE own_parents (id int PRIMARY KEY)');
    await database.query('ALTER TABLE own_copied ADD FOREIGN KEY (parent) REFERENCES own_parents (id)');
    await rows.replay('own', 'own_copied', [filled('own', `seq, seq, '2020-01-01 00:00:00.5'`)], MANY, asTheyCame);
    const taken = await statements(() =>
      rows.replay('own', 'own_copied', [`UPDATE own SET parent = 7, changed = '2021-01-01 00:00:00.25'`], MANY),
    );
    expect(taken).to.deep.equal({ events: 1, loads: 0 });
    await rows.expectSame('own_copied', 'own');
  });

  it('F25: rows whose key moved, or that are not there, go another way, and so does what is not as the table has it', async () => {
    await database.query('CREATE TABLE moved (id int PRIMARY KEY, v varchar(20))');
    await database.query('CREATE TABLE moved_copied LIKE moved');
    await rows.replay('moved', 'moved_copied', [filled('moved', `seq, 'a'`)], MANY);
    const update = [`UPDATE moved SET id = id + 10000, v = CONCAT('b', id)`];
    const taken = await statements(() => rows.replay('moved', 'moved_copied', update, MANY, asTheyCame));
    expect(taken.loads).to.be.greaterThan(0);
    await rows.expectSame('moved_copied', 'moved');
    await database.query('DELETE FROM moved_copied WHERE id % 3 = 0');
    await rows.replay('moved', 'moved_copied', [`UPDATE moved SET v = 'c'`], MANY, asTheyCame);
    await rows.expectSame('moved_copied', 'moved');
    // A row of somebody else's where a new one goes.
    await database.query(`INSERT INTO moved_copied VALUES (20001, 'theirs')`);
    await rows.replay('moved', 'moved_copied', [filled('moved', `seq, 'd'`, 20_001)], MANY);
    await rows.expectSame('moved_copied', 'moved');
  });

  it('nothing is passed over where the server is told to pass over what does not match (slave_exec_mode)', async () => {
    await database.query('CREATE TABLE passed (id int PRIMARY KEY, v varchar(20))');
    await database.query('CREATE TABLE passed_copied LIKE passed');
    await rows.replay('passed', 'passed_copied', [filled('passed', `seq, 'a'`)], MANY);
    await database.query('DELETE FROM passed_copied WHERE id % 3 = 0');
    await database.query(`SET GLOBAL slave_exec_mode = 'IDEMPOTENT'`);
    try {
      await rows.replay('passed', 'passed_copied', [`UPDATE passed SET v = 'b'`], MANY, asTheyCame);
    } finally {
      await database.query(`SET GLOBAL slave_exec_mode = 'STRICT'`);
    }
    await rows.expectSame('passed_copied', 'passed');
  });

  for (const { what, source, target } of [
    { what: 'columns in another order', source: 'a int, b int', target: 'b int, a int' },
    {
      what: 'another character set',
      source: 'a varchar(20), b int',
      target: 'a varchar(20) CHARACTER SET latin1, b int',
    },
    { what: 'another length', source: 'a varchar(20), b int', target: 'a varchar(30), b int' },
    { what: 'labels in another order', source: `a enum('1', '2'), b int`, target: `a enum('2', '1'), b int` },
    { what: 'a check', source: 'a int, b int', target: 'a int CHECK (a > 0), b int' },
    { what: 'a column of its own', source: 'a int, b int', target: 'a int, b int, c int GENERATED ALWAYS AS (a + 1)' },
    { what: 'versions', source: 'a int, b int', target: 'a int, b int, WITH SYSTEM VERSIONING' },
  ])
    it(`F26 F27: a table with ${what} takes no events`, async () => {
      await database.query('DROP TABLE IF EXISTS unlike');
      await database.query('DROP TABLE IF EXISTS unlike_copied');
      await database.query(`CREATE TABLE unlike (id int PRIMARY KEY, ${source}) DEFAULT CHARACTER SET utf8mb4`);
      const [columns = '', versioned = ''] = target.split(', WITH');
      await database.query(
        `CREATE TABLE unlike_copied (id int PRIMARY KEY, ${columns}) DEFAULT CHARACTER SET utf8mb4 ${versioned === '' ? '' : `WITH${versioned}`}`,
      );
      const taken = await statements(() =>
        rows.replay('unlike', 'unlike_copied', [filled('unlike', 'seq, 1 + seq % 2, 7')], MANY),
      );
      expect(taken.events).to.equal(0);
      const select = (table: string) => database.query(`SELECT id, a, b FROM ${table} ORDER BY id`);
      expect(await select('unlike_copied')).to.deep.equal(await select('unlike'));
    });

  it('F26: a table whose columns changed places since the last batch takes no more events', async () => {
    await database.query('CREATE TABLE turned (id int PRIMARY KEY, a int, b int)');
    await database.query('CREATE TABLE turned_copied LIKE turned');
    rows.kept = new Map();
    const first = await statements(() =>
      rows.replay('turned', 'turned_copied', [filled('turned', 'seq, 1, 2')], MANY, asTheyCame),
    );
    expect(first.loads).to.equal(0);
    await database.query('ALTER TABLE turned_copied MODIFY b int AFTER id');
    const second = await statements(() =>
      rows.replay('turned', 'turned_copied', [filled('turned', 'seq, 3, 4', 10_001)], MANY, asTheyCame),
    );
    expect(second).to.deep.equal({ events: 0, loads: 1 });
    const select = (table: string) => database.query(`SELECT id, a, b FROM ${table} ORDER BY id`);
    expect(await select('turned_copied')).to.deep.equal(await select('turned'));
  });

  it('F40: a row that somebody else has locked is waited for, and the server says so', async () => {
    await database.query('CREATE TABLE locked (id int PRIMARY KEY, v varchar(20))');
    await database.query('CREATE TABLE locked_copied LIKE locked');
    await rows.replay('locked', 'locked_copied', [filled('locked', `seq, 'a'`)], MANY);
    await session.run('wait briefly', ['SET SESSION innodb_lock_wait_timeout = 1']);
    const other = await connection.open();
    await other.run('lock a row', ['START TRANSACTION', 'UPDATE locked_copied SET v = v WHERE id = 300']);
    const failed: unknown = await rows
      .replay('locked', 'locked_copied', [`UPDATE locked SET v = 'b'`], MANY, asTheyCame)
      .catch((error: unknown) => error);
    await other.run('let go', ['ROLLBACK']);
    expect(failed instanceof SluiceError && failed.code).to.equal('TIMEOUT');
    expect((await rows.of('locked_copied')).every(([, v]) => v === 'a')).to.equal(true);
  });

  it('F40: a session that is killed among the rows leaves nothing of them', async () => {
    await database.query('CREATE TABLE killed (id int PRIMARY KEY, v varchar(20))');
    await database.query('CREATE TABLE killed_copied LIKE killed');
    await rows.replay('killed', 'killed_copied', [filled('killed', `seq, 'a'`)], MANY);
    const other = await connection.open();
    await other.run('lock a row', ['START TRANSACTION', 'UPDATE killed_copied SET v = v WHERE id = 300']);
    const replayed = rows
      .replay('killed', 'killed_copied', [`UPDATE killed SET v = 'b'`], MANY, asTheyCame)
      .catch((error: unknown) => error);
    await eventually(async () => {
      const [row] = await other.query(
        'look what it does',
        `SELECT INFO AS doing FROM information_schema.PROCESSLIST WHERE ID = ${session.id}`,
      );
      expect(String(row?.['doing'])).to.match(/^BINLOG/);
    });
    await other.run('kill it', [`KILL ${session.id}`]);
    await other.run('let go', ['ROLLBACK']);
    expect(await replayed).to.be.instanceOf(SluiceError);
    ({ session, rows } = await openReplay(database, stream, connection));
    const left = await rows.of('killed_copied');
    expect(left.length === MANY && left.every(([, v]) => v === 'a')).to.equal(true);
  });

  // The statements behind the one that fails are sent by then.
  it('F24: of rows of several statements none stays when the first of them meets a row that is there', async () => {
    await database.query('CREATE TABLE several (id int PRIMARY KEY, v text)');
    await database.query('CREATE TABLE several_copied LIKE several');
    await database.query(`INSERT INTO several_copied VALUES (1, 'theirs')`);
    const taken = await statements(async () =>
      expect(
        await rows.replay('several', 'several_copied', [filled('several', `seq, REPEAT('x', 8000)`)], MANY),
      ).to.deep.equal({ inserted: MANY, updated: 0, deleted: 0 }),
    );
    expect(taken.events).to.be.greaterThan(2);
    await rows.expectSame('several_copied', 'several');
  });

  it('F40: a transaction that the server ends among the rows leaves nothing of them, and nothing of what is sent by then', async () => {
    await database.query('CREATE TABLE dead (id int PRIMARY KEY, v text, n int)');
    await database.query('CREATE TABLE dead_copied LIKE dead');
    await rows.replay('dead', 'dead_copied', [filled('dead', `seq, REPEAT('x', 8000), 0`)], MANY);
    const other = await connection.open();
    // It has written more, so that it is not the one that the server gives up.
    await other.run('lock rows', ['START TRANSACTION', `UPDATE dead_copied SET v = REPEAT('y', 8000) WHERE id > 150`]);
    const replayed = rows
      .replay('dead', 'dead_copied', ['UPDATE dead SET n = 1'], MANY, asTheyCame)
      .catch((error: unknown) => error);
    await eventually(async () => {
      const [row] = await other.query('look who waits', 'SHOW ENGINE INNODB STATUS');
      expect(String(row?.['Status'])).to.contain('LOCK WAIT');
    });
    await other.run('want what it has', ['UPDATE dead_copied SET n = 2 WHERE id = 1', 'ROLLBACK']);
    const failed = await replayed;
    expect(failed instanceof SluiceError && failed.code).to.equal('DEADLOCK');
    expect((await rows.of('dead_copied')).every(([, v, n]) => n === '0' && String(v).startsWith('x'))).to.equal(true);
  });

  it('F36: NULL where the table takes none is refused, not made a default', async () => {
    await database.query('CREATE TABLE some (id int PRIMARY KEY, v int)');
    await database.query('CREATE TABLE none (id int PRIMARY KEY, v int NOT NULL DEFAULT 7)');
    const refused: unknown = await rows
      .replay('some', 'none', [filled('some', 'seq, IF(seq = 300, NULL, seq)')], MANY)
      .catch((error: unknown) => error);
    expect(refused instanceof SluiceError && refused.code).to.equal('ROW_REFUSED');
    expect(await rows.of('none')).to.deep.equal([]);
  });

  it('a login without BINLOG REPLAY loads as before', async () => {
    await database.query('CREATE TABLE plain (id int PRIMARY KEY, v varchar(20))');
    await database.query('CREATE TABLE plain_copied LIKE plain');
    await database.query(`CREATE OR REPLACE USER events_less IDENTIFIED BY 'secret'`);
    await database.query(`GRANT ALL ON ${database.name}.* TO events_less`);
    await connection.close();
    const url = new URL(database.url);
    [url.username, url.password] = ['events_less', 'secret'];
    await open(url.toString());
    const taken = await statements(() =>
      rows.replay('plain', 'plain_copied', [filled('plain', `seq, 'a'`)], MANY, asTheyCame),
    );
    expect(taken.loads).to.equal(1);
    await rows.expectSame('plain_copied', 'plain');
    await database.query('DROP USER events_less');
  });
});
