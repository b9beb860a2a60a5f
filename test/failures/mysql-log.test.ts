/** MariaDB to MariaDB: a binary log that is purged, begun anew, off, or of statements. */
import { expect } from 'chai';
import { isMariaDbInstalled, startMariaDb, type PrivateServer } from '../support/mysql-servers.ts';
import { createSameEnginePair, MARIADB, type SameEnginePair } from '../support/same-engine-pair.ts';
import { eventually } from '../support/service.ts';
import { skip } from '../support/skip.ts';

describe('MariaDB to MariaDB: a log that is gone', function () {
  this.timeout(120_000);
  let server: PrivateServer | null = null;
  let pair: SameEnginePair;
  before(async function () {
    if (!isMariaDbInstalled()) skip(this, 'there is no mariadbd to start one of its own');
    server = await startMariaDb();
    const own = server.server;
    pair = await createSameEnginePair(this, { ...MARIADB, mysql: () => Promise.resolve(own) });
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
