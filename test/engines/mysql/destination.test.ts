/** What is special to MySQL and MariaDB as a destination: swaps in two steps, proved transactions, what doctor says. */
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CopySession, EngineDatabase, GenerationRequest, RowStream } from '../../../src/engines/contract.ts';
import { Locker } from '../../../src/engines/mysql/locks.ts';
import {
  attempt,
  BEGIN,
  commit,
  inTransaction,
  openWriter,
  rollback,
} from '../../../src/engines/mysql/transactions.ts';
import { engineOf } from '../../../src/engines/registry.ts';
import type { Cell } from '../../../src/model/changes.ts';
import { SluiceError } from '../../../src/model/errors.ts';
import type { Position } from '../../../src/model/position.ts';
import { ITEM_COLUMNS, ITEM_ROUTE, itemsTable } from '../../contract/engine-under-test.ts';
import { createMysqlDatabase, requireMysql, type MysqlTestDatabase } from '../../support/mysql.ts';
import { connect, startMariaDb, type MysqlUnderTest } from '../../support/mysql-servers.ts';

const STREAM = 'test/1/db';
const MAPPING = '00000000-0000-4000-8000-000000000009';

const codeOf = async (work: Promise<unknown>) => {
  const error: unknown = await work.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  return error instanceof SluiceError ? error.code : error;
};

describe('MariaDB as destination: its sessions and swaps', () => {
  let server: MysqlUnderTest;
  let database: MysqlTestDatabase;
  const handles: EngineDatabase[] = [];
  before(async function () {
    server = await requireMysql(this);
  });
  beforeEach(async () => {
    database = await createMysqlDatabase(server);
  });
  afterEach(async () => {
    for (const handle of handles.splice(0)) await handle.close();
    await database.drop();
  });

  const open = (url = database.url) => {
    const handle = engineOf(url).open({
      connectionString: url,
      database: null,
      installation: { uid: 'test' },
      applicationName: 'sluice tests',
    });
    handles.push(handle);
    if (!handle.destination) throw new Error('no destination');
    return { handle, destination: handle.destination };
  };
  const request = (over: Partial<GenerationRequest>): GenerationRequest => {
    const source = { ...itemsTable('', 'items'), id: '1' };
    const { destination } = open();
    return {
      stream: null,
      group: 'main',
      mappingUid: MAPPING,
      copyEpoch: 1,
      requestId: 7,
      source,
      key: ['id'],
      columns: ITEM_ROUTE,
      design: destination.design(source, source.name, ['id']),
      target: source.name,
      live: null,
      lockWaitMs: 500,
      ...over,
    };
  };
  const filled = async (over: Partial<GenerationRequest>): Promise<CopySession> => {
    const { destination } = open();
    await destination.prepare();
    if (over.stream) {
      const options = { stream: over.stream, group: 'main', epoch: 1, lockWaitMs: 500, create: 'p0' as Position };
      await (await destination.takeGroup(options))?.close();
    }
    const session = await destination.copies.open(request(over));
    if (!session) throw new Error('no session');
    await session.load({ id: 0, bounds: '' }, rowsOf(['1', 'a', null], ['2', 'b', 'x']));
    await session.buildKey();
    await session.buildIndexes();
    await session.compare();
    return session;
  };
  const noFold = async () => undefined;
  /** A process that was killed: the server notices when its sockets close. */
  const killed = async (session: CopySession) => {
    (session as unknown as { session: { destroy(): void } }).session.destroy();
    await sleep(100);
  };

  for (const stream of [null, STREAM])
    for (const step of ['before', 'after'] as const)
      it(`F08 F66: a swap ${stream === null ? 'without a stream ' : ''}that was left ${step} its rename is finished by who asks for the state`, async () => {
        const session = await filled({ stream });
        // The first of the two steps, as `finish` takes it; the second is left out.
        (session as unknown as { swapped: () => Promise<void> }).swapped = () => Promise.reject(new Error('killed'));
        await session.finish(noFold).catch(() => undefined);
        const [row] = await database.query('SELECT pending_rename FROM sluice_generations');
        const staging = String(row?.['pending_rename']);
        expect(staging).to.match(/^sluice_stage_/);
        await killed(session);
        if (step === 'after') await database.query(`RENAME TABLE ${staging} TO items`);
        const { destination } = open();
        const [state] = await destination.copies.states([MAPPING]);
        expect([state?.finishedRequest, state?.copyGeneration]).to.deep.equal([7, null]);
        expect(await database.query('SELECT id, v, big FROM items ORDER BY id')).to.deep.equal([
          { id: '1', v: 'a', big: null },
          { id: '2', v: 'b', big: 'x' },
        ]);
        const tables = await database.query(`SHOW TABLES LIKE 'sluice_stage%'`);
        expect(tables).to.deep.equal([]);
        if (stream === null) return;
        const group = await destination.takeGroup({ stream, group: 'main', epoch: 2, lockWaitMs: 500, create: null });
        const transaction = await group?.begin();
        expect(transaction?.routes.map((route) => [route.live, route.backlog])).to.deep.equal([[true, null]]);
        await transaction?.rollback();
        await group?.close();
      });

  it('F08: a table that somebody else made at the moment of the swap stays theirs, and the copy is not done', async () => {
    const session = await filled({});
    await database.query('CREATE TABLE items (id int PRIMARY KEY, mine int)');
    expect(await codeOf(session.finish(noFold))).to.equal('FENCED');
    await session.close();
    const [state] = await open().destination.copies.states([MAPPING]);
    expect([state?.finishedRequest, state?.liveGeneration]).to.deep.equal([null, null]);
    expect(await database.query('SELECT * FROM items')).to.deep.equal([]);
  });

  it('F63: a copier that is frozen under the position’s lock does not stop the stream', async function () {
    this.timeout(30_000);
    const { destination } = open();
    await destination.prepare();
    const options = { stream: STREAM, group: 'main', epoch: 1, lockWaitMs: 500, create: 'p0' as Position };
    const group = await destination.takeGroup(options);
    const connection = connect(database.url, database.name);
    const frozen = await openWriter(connection, { patient: false });
    await new Locker(connection, frozen, 500).group(STREAM, 'main');
    await frozen.run('hold the row', [...BEGIN, 'SELECT epoch FROM sluice_positions FOR UPDATE']);
    const transaction = await group?.begin();
    await transaction?.commit('p1' as Position);
    // A commit that fails lets go of the lock as well.
    const failing = await openWriter(connection, { patient: false });
    const locker = new Locker(connection, failing, 500);
    await locker.group(STREAM, 'main');
    await failing.run('begin', BEGIN);
    expect(await codeOf(commit(failing, 'commit', ['UPDATE nowhere SET n = 1'], locker))).to.not.equal(null);
    await rollback(failing, locker);
    const other = await openWriter(connection, { patient: false });
    const startedAt = performance.now();
    await new Locker(connection, other, 20_000).group(STREAM, 'main');
    expect(performance.now() - startedAt).to.be.lessThan(5000);
    await group?.close();
    await connection.close();
  });

  it('F40: a transaction that the server has ended is not committed, and nothing of it stays', async () => {
    await database.query('CREATE TABLE log (n int PRIMARY KEY)');
    const connection = connect(database.url, database.name);
    const session = await openWriter(connection, { patient: false });
    const work = inTransaction(session, async () => {
      await session.run('write', ['INSERT INTO log VALUES (1)']);
      // As the server does to the victim of a deadlock.
      await session.run('end it', ['ROLLBACK']);
      await session.run('write on', ['INSERT INTO log VALUES (2)']);
    });
    expect(await codeOf(work)).to.equal('DEADLOCK');
    const lost = inTransaction(session, async () => {
      await session.run('end it', ['ROLLBACK']);
      await attempt(session, () => session.run('write on', ['INSERT INTO log VALUES (3)']));
    });
    expect(await codeOf(lost)).to.equal('DEADLOCK');
    // DDL that commits in the middle is found out as well.
    const ddl = inTransaction(session, () =>
      session.run('alter', ['INSERT INTO log VALUES (4)', 'CREATE TABLE other (n int)']),
    );
    expect(await codeOf(ddl)).to.equal('DEADLOCK');
    await inTransaction(session, () => session.run('write', ['INSERT INTO log VALUES (5)']));
    expect((await database.query('SELECT n FROM log')).map((row) => row['n'])).to.deep.equal(['4', '5']);
    await connection.close();
  });

  it('a copy that starts again has another staging table; the former is gone', async () => {
    const session = await filled({});
    await session.restart();
    expect([...(await session.loadedChunks())]).to.deep.equal([]);
    await session.load({ id: 0, bounds: '' }, rowsOf(['3', 'c', null]));
    await session.compare();
    expect(await session.finish(noFold)).to.equal(true);
    await session.close();
    expect(await database.query('SELECT id FROM items')).to.deep.equal([{ id: '3' }]);
    expect(await database.query(`SHOW TABLES LIKE 'sluice_stage%'`)).to.deep.equal([]);
  });

  it('doctor says what the login lacks and what the settings cost, with the statements', async () => {
    const login = `limited_${database.name}`.slice(0, 32);
    await database.query(`CREATE USER '${login}'@'%' IDENTIFIED BY 'secret'`);
    await database.query(`GRANT SELECT ON \`${database.name}\`.* TO '${login}'@'%'`);
    const url = new URL(database.url);
    url.username = login;
    url.password = 'secret';
    const findings = async () => (await open(url.toString()).handle.preflight?.destination()) ?? [];
    const [denied] = (await findings()).filter((finding) => finding.code === 'PERMISSION_DENIED');
    const [grant] = denied?.fixSql ?? [];
    expect(grant).to.include('CREATE TEMPORARY TABLES');
    await database.query(String(grant).replace(/;$/, ''));
    expect((await findings()).filter((finding) => finding.code === 'PERMISSION_DENIED')).to.deep.equal([]);
    // The tests' server does not wait for its disk.
    expect((await findings()).map((finding) => finding.message).join()).to.include('innodb_flush_log_at_trx_commit');
    await database.query(`DROP USER '${login}'@'%'`);
  });

  it('without LOAD DATA LOCAL rows are inserted, and doctor says so', async function () {
    this.timeout(60_000);
    if (process.env['TEST_MYSQL_URL']) return this.skip();
    const other = await startMariaDb({ 'local-infile': '0' });
    const without = await createMysqlDatabase(other.server);
    try {
      const { handle, destination } = open(without.url);
      await destination.prepare();
      const session = await destination.copies.open(request({}));
      const many = Array.from({ length: 1201 }, (_, i): Cell[] => [String(i), `v${i}`, null]);
      expect(await session?.load({ id: 0, bounds: '' }, rowsOf(...many))).to.equal(1201);
      await session?.compare();
      expect(await session?.finish(noFold)).to.equal(true);
      await session?.close();
      expect(await without.query('SELECT COUNT(*) AS n, MAX(v) AS v FROM items')).to.deep.equal([
        { n: '1201', v: 'v999' },
      ]);
      const found = (await handle.preflight?.destination()) ?? [];
      expect(found.map((finding) => finding.message).join()).to.include('local_infile');
    } finally {
      await without.drop();
      await other.stop();
    }
  });
});

function rowsOf(...rows: readonly Cell[][]): RowStream {
  async function* batches() {
    yield { columns: ITEM_COLUMNS, rows: rows.length, cells: rows.flat() };
  }
  return { format: 'cells', batches: batches() };
}
