/** MariaDB to MariaDB, one service: what is lost, purged, let go and left behind. */
import { expect } from 'chai';
import { requireMysql } from '../support/mysql.ts';
import { createMysqlPair, numbers, type MysqlPair } from '../support/mysql-pair.ts';
import { isMariaDbInstalled, startMariaDb, type PrivateServer } from '../support/mysql-servers.ts';
import { eventually, type TestService } from '../support/service.ts';
import { skip } from '../support/skip.ts';

describe('MariaDB to MariaDB: history', function () {
  this.timeout(120_000);
  let pair: MysqlPair;
  let service: TestService;
  before(async function () {
    pair = await createMysqlPair(await requireMysql(this), { backlog_max_bytes: 1_048_576 });
    service = await pair.world.start();
  });
  after(() => pair?.close());
  const kept = (table: string) => pair.into.query(`SELECT * FROM sluice_${table}`);

  it('F35: NULL stays NULL where the destination has a default, through copy and stream; empty text stays empty', async () => {
    await pair.create('defaults', 2);
    await pair.from.query('UPDATE `defaults` SET v = NULL WHERE id = 1');
    await pair.from.query("UPDATE `defaults` SET v = '' WHERE id = 2");
    await pair.into.query("CREATE TABLE `defaults` (id int NOT NULL PRIMARY KEY, v longtext NULL DEFAULT 'x')");
    await pair.stream('defaults');
    await pair.equal('defaults');
    await pair.from.query("INSERT INTO `defaults` VALUES (3, NULL), (4, '')");
    await pair.from.query('UPDATE `defaults` SET v = NULL WHERE id = 2');
    await pair.equal('defaults');
  });

  it('F48: the backlog of a paused mapping past its limit is dropped, and the mapping is in gap; a full sync mends it', async () => {
    await pair.create('bulky', 10);
    const mapping = await pair.stream('bulky');
    const enable = (enabled: number) =>
      pair.world.control.query('UPDATE table_mappings SET is_enabled = $2 WHERE mapping_id = $1', [mapping, enabled]);
    await enable(0);
    await pair.state(mapping, 'paused');
    await pair.from.query(`INSERT INTO bulky SELECT 100 + i, CONCAT(UUID(), REPEAT('x', 500)) FROM ${numbers(4000)}`);
    await pair.state(mapping, 'gap');
    expect(await pair.errorCode(mapping)).to.equal('BACKLOG_FULL');
    await eventually(async () => {
      const left = await pair.into.query(
        "SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'sluice\\_backlog%'",
      );
      expect(left).to.deep.equal([]);
    }, 60_000);
    await enable(1);
    await pair.copyAgain(mapping);
    await pair.state(mapping, 'streaming');
    await pair.equal('bulky');
  });

  it('F64: two control databases, the same mapping numbers, one source, one destination: nothing mixes, and one leaves alone', async () => {
    await pair.create('shared', 300);
    const other = await createMysqlPair(pair.from.server, {}, pair);
    try {
      await pair.stream('shared');
      const [first] = await pair.world.control.query<{ id: number }>(
        'SELECT MIN(mapping_id) AS id FROM table_mappings',
      );
      await other.world.start();
      const theirs = await other.stream('shared', { dest_table: 'theirs' });
      expect(theirs).to.equal(first?.id);
      await pair.from.query("UPDATE shared SET id = -id, v = 'both' WHERE id % 3 = 0");
      await pair.equal('shared');
      await pair.equal('shared', 'theirs');
      await pair.from.query("UPDATE shared SET v = 'during a copy' WHERE id % 5 = 0");
      await other.copyAgain(theirs);
      await pair.equal('shared', 'theirs');
      expect(await pair.into.query('SELECT DISTINCT stream FROM sluice_positions')).to.have.length(2);
      const refused = await other.map('shared');
      await other.state(refused, 'failed');
      expect(await other.errorCode(refused)).to.equal('DESTINATION_NOT_EMPTY');
      await other.world.control.query('DELETE FROM table_mappings');
      await eventually(async () => {
        expect(await pair.into.query('SELECT DISTINCT stream FROM sluice_positions')).to.have.length(1);
      }, 60_000);
      await pair.from.query('DELETE FROM shared WHERE id % 2 = 0');
      await pair.equal('shared');
    } finally {
      await other.close();
    }
  });

  it('F19: a destination restored to an earlier moment gets what it lacks from the log; one that lost what Sluice kept in it is a gap, and a full sync mends it', async () => {
    await pair.create('restored', 50);
    const mapping = await pair.stream('restored');
    await pair.equal('restored');
    // What a restore does, as seen from outside: rows and positions of an earlier moment, in one piece.
    await pair.into.query('CREATE TABLE saved AS SELECT * FROM restored');
    await pair.into.query('CREATE TABLE saved_positions AS SELECT * FROM sluice_positions');
    await pair.from.query("UPDATE restored SET v = 'later', id = id + 1000 WHERE id <= 20");
    await pair.from.query('DELETE FROM restored WHERE id = 30');
    await pair.equal('restored');
    await service.stop();
    await pair.into.query('DELETE FROM restored');
    await pair.into.query('INSERT INTO restored SELECT * FROM saved');
    await pair.into.query(
      'UPDATE sluice_positions p JOIN saved_positions s ON s.stream = p.stream AND s.apply_group = p.apply_group SET p.position = s.position',
    );
    service = await pair.world.start();
    await pair.equal('restored');
    await pair.state(mapping, 'streaming');
    await service.stop();
    await pair.into.query('DELETE FROM sluice_positions');
    await pair.into.query('DELETE FROM sluice_generations');
    service = await pair.world.start();
    await pair.state(mapping, 'gap');
    await pair.from.query('DELETE FROM restored WHERE id > 1000');
    await pair.copyAgain(mapping);
    await pair.state(mapping, 'streaming');
    await pair.equal('restored');
  });

  it('F47: the last mapping deleted while the service was stopped: what was kept for it goes, its rows stay', async () => {
    await pair.create('last', 20);
    await pair.stream('last');
    await pair.equal('last');
    await service.stop();
    await pair.world.control.query('DELETE FROM table_mappings');
    service = await pair.world.start();
    await eventually(async () => {
      expect([...(await kept('positions')), ...(await kept('generations'))]).to.deep.equal([]);
    }, 60_000);
    expect(await pair.into.query('SELECT id FROM last')).to.have.length(20);
    const dumps = await pair.from.query(
      "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'",
    );
    expect(dumps).to.deep.equal([]);
  });
});

describe('MariaDB to MariaDB: a log that is gone', function () {
  this.timeout(120_000);
  let server: PrivateServer | null = null;
  let pair: MysqlPair;
  before(async function () {
    if (!isMariaDbInstalled()) skip(this, 'there is no mariadbd to start one of its own');
    server = await startMariaDb();
    pair = await createMysqlPair(server.server);
  });
  after(async () => {
    await pair?.close();
    await server?.stop();
  });

  it('F10 F15 F18: purged while the service was stopped, or begun anew: a gap with the reason, nothing is skipped; a full sync mends it, or the policy does', async () => {
    await pair.create('t', 20);
    await pair.create('u', 20);
    let service = await pair.world.start();
    const [stops, mends] = [await pair.stream('t'), await pair.stream('u', { on_gap: 'resync' })];
    await pair.equal('t');
    await service.stop();
    await pair.from.query("UPDATE t SET v = 'unseen'");
    await pair.from.query("UPDATE u SET v = 'unseen'");
    await eventually(async () => {
      await pair.from.query('FLUSH BINARY LOGS');
      const files = await pair.from.query('SHOW BINARY LOGS');
      await pair.from.query(`PURGE BINARY LOGS TO '${String(files.at(-1)?.['Log_name'])}'`);
      expect(await pair.from.query('SHOW BINARY LOGS')).to.have.length(1);
    }, 30_000);
    service = await pair.world.start();
    await pair.state(stops, 'gap');
    expect(await pair.errorCode(stops)).to.equal('GAP');
    await pair.equal('u');
    await pair.state(mends, 'streaming');
    const [old] = await pair.into.query("SELECT COUNT(*) AS n FROM t WHERE v = 'first'");
    expect(Number(old?.['n'])).to.equal(20);
    await pair.copyAgain(stops);
    await pair.equal('t');
    await service.stop();
    await pair.from.query('RESET MASTER');
    await pair.from.query('DELETE FROM t WHERE id = 1');
    service = await pair.world.start();
    await pair.state(stops, 'gap');
    await pair.copyAgain(stops);
    await pair.state(stops, 'streaming');
    await pair.equal('t');
    await service.stop();
  });

  for (const [what, settings, fix] of [
    ['off', { 'skip-log-bin': '1' }, 'log_bin'],
    ['of statements', { 'binlog-format': 'STATEMENT' }, "SET GLOBAL binlog_format = 'ROW'"],
  ] as const)
    it(`F18: a log that is ${what}: the mapping says so with the statement that helps, and goes on when it was run`, async () => {
      const table = `log_${what.replace(' ', '_')}`;
      await pair.create(table, 5);
      await server?.restart(settings);
      const service = await pair.world.start();
      // To another server: this one may not be written to either.
      const into = { dest_server_id: null, dest_database: pair.world.destination.name };
      const mapping = await pair.map(table, into);
      await eventually(async () => {
        const [row] = await pair.world.control.query<{ error_code: string; hint: string }>(
          'SELECT s.error_code, s.error_hint AS hint FROM table_mappings m JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1',
          [mapping],
        );
        expect(row?.error_code).to.equal('CDC_NOT_READY');
        expect(row?.hint).to.contain(fix);
      }, 40_000);
      await server?.restart();
      await pair.state(mapping, 'streaming');
      expect(await pair.world.destination.query(`SELECT id FROM ${table}`)).to.have.length(5);
      await service.stop();
      await pair.world.control.query('DELETE FROM table_mappings');
    });

  it('F10 F18: rows changed while the log was off: a gap that the policy or a full sync mends, although the log goes on where it was', async () => {
    await pair.create('stops', 5);
    await pair.create('mends', 5);
    const service = await pair.world.start();
    const into = { dest_server_id: null, dest_database: pair.world.destination.name };
    const [stops, mends] = [
      await pair.stream('stops', into),
      await pair.stream('mends', { ...into, on_gap: 'resync' }),
    ];
    await server?.restart({ 'skip-log-bin': '1' });
    await pair.state(stops, 'gap');
    expect(await pair.errorCode(stops)).to.equal('GAP');
    for (const table of ['stops', 'mends']) await pair.from.query(`UPDATE ${table} SET v = 'unseen' WHERE id = 1`);
    await server?.restart();
    const unseen = (table: string) =>
      pair.world.destination.query<{ id: number }>(`SELECT id FROM ${table} WHERE v = 'unseen'`);
    await eventually(async () => void expect(await unseen('mends')).to.deep.equal([{ id: 1 }]), 60_000);
    await pair.state(mends, 'streaming');
    await pair.state(stops, 'gap');
    expect(await unseen('stops')).to.deep.equal([]);
    await pair.copyAgain(stops);
    await pair.state(stops, 'streaming');
    expect(await unseen('stops')).to.deep.equal([{ id: 1 }]);
    await service.stop();
    await pair.world.control.query('DELETE FROM table_mappings');
  });
});
