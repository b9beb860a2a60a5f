/** SQL Server to SQL Server, one service: what is lost, dropped, let go and left behind. */
import { expect } from 'chai';
import { SqlServerPreflight } from '../../src/engines/sqlserver/preflight.ts';
import { SluiceError } from '../../src/model/errors.ts';
import { eventually, type TestService } from '../support/service.ts';
import { skip } from '../support/skip.ts';
import { requireSqlServer } from '../support/sqlserver.ts';
import { createSqlServerPair, numbers, type SqlServerPair } from '../support/sqlserver-pair.ts';

describe('SQL Server to SQL Server: history', function () {
  this.timeout(300_000);
  let pair: SqlServerPair;
  let service: TestService;
  before(async function () {
    pair = await createSqlServerPair(await requireSqlServer(this), { backlog_max_bytes: 1_048_576 });
    service = await pair.world.start();
  });
  after(() => pair?.close());

  const isBabelfish = () => pair.from.server.kind === 'babelfish';
  const kept = (table: string) => pair.into.query(`SELECT * FROM sluice.${table}`);

  it('F28 F29: a column added with a default: existing rows get its value by the copy that a second capture instance brings', async () => {
    await pair.create('grown', 20);
    const mapping = await pair.stream('grown');
    await pair.from.query(`ALTER TABLE dbo.grown ADD w int NOT NULL CONSTRAINT grown_w DEFAULT 7`);
    await pair.from.query(`INSERT INTO dbo.grown VALUES (21, N'before', 8)`);
    await pair.from.captureTable('dbo', 'grown', { instance: 'dbo_grown_2' });
    const requests = () => pair.world.control.query('SELECT reason FROM full_sync_requests ORDER BY request_id');
    await eventually(async () => {
      expect(await requests()).to.have.length(2);
    }, 60_000);
    await pair.from.query(`UPDATE dbo.grown SET w = 9 WHERE id = 1`);
    await pair.equal('grown');
    const [row] = await pair.into.query('SELECT COUNT(*) AS n FROM dbo.grown WHERE w = 7');
    expect(row?.['n']).to.equal(19);
    await pair.state(mapping, 'streaming');
    // One copy, although both the new instance and its first changes say that there is a column.
    expect((await requests()).map(({ reason }) => reason)).to.deep.equal(['initial', 'schema_change']);
  });

  it('F35: NULL stays NULL where the destination has a default, through copy and stream; empty text stays empty', async () => {
    await pair.create('defaults', 2);
    await pair.from.query(
      `UPDATE dbo.defaults SET v = NULL WHERE id = 1; UPDATE dbo.defaults SET v = N'' WHERE id = 2`,
    );
    await pair.into.query(`CREATE TABLE dbo.defaults (id int NOT NULL PRIMARY KEY, v nvarchar(max) NULL DEFAULT N'x')`);
    await pair.stream('defaults');
    await pair.equal('defaults');
    await pair.from.query(
      `INSERT INTO dbo.defaults VALUES (3, NULL), (4, N''); UPDATE dbo.defaults SET v = NULL WHERE id = 2`,
    );
    await pair.equal('defaults');
  });

  it('F23: a captured table is not truncated: the source refuses it, and its rows stay at both ends', async () => {
    await pair.create('kept', 3);
    await pair.stream('kept');
    const refused: unknown = await pair.from.query('TRUNCATE TABLE dbo.kept').then(
      () => null,
      (error: unknown) => error,
    );
    expect(refused).to.be.instanceOf(SluiceError);
    await pair.from.query(`INSERT INTO dbo.kept VALUES (4, N'after it')`);
    await pair.equal('kept');
    expect(await pair.into.query('SELECT id FROM dbo.kept')).to.have.length(4);
  });

  it('F23: partitions of a captured table can be switched, until what doctor prints was run', async function () {
    if (isBabelfish()) skip(this, 'Babelfish has no partition switch');
    await pair.from.query('CREATE PARTITION FUNCTION halves (int) AS RANGE LEFT FOR VALUES (100)');
    await pair.from.query('CREATE PARTITION SCHEME halves AS PARTITION halves ALL TO ([PRIMARY])');
    for (const table of ['switched', 'aside'])
      await pair.from.query(
        `CREATE TABLE dbo.${table} (id int NOT NULL CONSTRAINT ${table}_key PRIMARY KEY, v nvarchar(50) NULL) ON halves (id)`,
      );
    await pair.from.query(`INSERT INTO dbo.switched VALUES (1, N'a'), (101, N'b')`);
    // sp_cdc_enable_table allows the switch unless it is told otherwise.
    await pair.from.captureTable('dbo', 'switched');
    const findings = () =>
      new SqlServerPreflight(pair.from.connection).source([{ schema: 'dbo', table: 'switched' }], { cdc: true });
    const switching = (await findings()).find(({ message }) => message.includes('can be switched'));
    expect(switching?.severity).to.equal('warning');
    for (const sql of switching?.fixSql ?? []) await pair.from.query(sql);
    expect((await findings()).map(({ message }) => message).join()).to.not.include('can be switched');
    const refused: unknown = await pair.from
      .query('ALTER TABLE dbo.switched SWITCH PARTITION 1 TO dbo.aside PARTITION 1')
      .catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(SluiceError);
  });

  it('F15: a source restored from a backup is a gap, whatever its log says; a full sync mends it', async function () {
    if (isBabelfish()) skip(this, 'Babelfish has neither BACKUP nor RESTORE');
    await pair.create('rewound', 20);
    const mapping = await pair.stream('rewound');
    await pair.equal('rewound');
    const { name } = pair.from;
    await pair.from.query(`BACKUP DATABASE [${name}] TO DISK = N'${name}.bak' WITH INIT, COPY_ONLY`);
    await pair.from.query(`UPDATE dbo.rewound SET v = N'undone by the restore'`);
    await pair.equal('rewound');
    await service.stop();
    const session = await pair.from.connection.open();
    await session.run('restore', [
      'USE master',
      `ALTER DATABASE [${name}] SET OFFLINE WITH ROLLBACK IMMEDIATE`,
      `RESTORE DATABASE [${name}] FROM DISK = N'${name}.bak' WITH REPLACE, KEEP_CDC`,
    ]);
    await pair.from.connection.release(session);
    service = await pair.world.start();
    await pair.state(mapping, 'gap');
    await pair.copyAgain(mapping);
    await pair.state(mapping, 'streaming');
    await pair.equal('rewound');
  });

  it('F48: the backlog of a paused mapping past its limit is dropped, and the mapping is in gap; a full sync mends it', async () => {
    await pair.create('bulky', 10);
    const mapping = await pair.stream('bulky');
    const enable = (enabled: number) =>
      pair.world.control.query('UPDATE table_mappings SET is_enabled = $2 WHERE mapping_id = $1', [mapping, enabled]);
    await enable(0);
    await pair.state(mapping, 'paused');
    await pair.from.query(
      `INSERT INTO dbo.bulky SELECT 100 + i, CONVERT(nvarchar(50), NEWID()) + REPLICATE(N'x', 500) FROM ${numbers(4000)} n`,
    );
    await pair.state(mapping, 'gap');
    expect(await pair.errorCode(mapping)).to.equal('BACKLOG_FULL');
    await eventually(async () => {
      const left = await pair.into.query(
        `SELECT t.name AS name FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id WHERE s.name = N'sluice' AND t.name LIKE N'backlog%'`,
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
    const other = await createSqlServerPair(pair.from.server, {}, pair);
    try {
      await pair.stream('shared');
      const [first] = await pair.world.control.query<{ id: number }>(
        'SELECT MIN(mapping_id) AS id FROM table_mappings',
      );
      await other.world.start();
      const theirs = await other.stream('shared', { dest_table: 'theirs' });
      expect(theirs).to.equal(first?.id);
      await pair.from.query(`UPDATE dbo.shared SET id = -id, v = N'both' WHERE id % 3 = 0`);
      await pair.equal('shared');
      await pair.equal('shared', 'theirs');
      await pair.from.query(`UPDATE dbo.shared SET v = N'during a copy' WHERE id % 5 = 0`);
      await other.copyAgain(theirs);
      await pair.equal('shared', 'theirs');
      expect(await pair.into.query('SELECT DISTINCT stream FROM sluice.positions')).to.have.length(2);
      const refused = await other.map('shared');
      await other.state(refused, 'failed');
      expect(await other.errorCode(refused)).to.equal('DESTINATION_NOT_EMPTY');
      await other.world.control.query('DELETE FROM table_mappings');
      await eventually(async () => {
        expect(await pair.into.query('SELECT DISTINCT stream FROM sluice.positions')).to.have.length(1);
      }, 60_000);
      await pair.from.query(`DELETE FROM dbo.shared WHERE id % 2 = 0`);
      await pair.equal('shared');
    } finally {
      await other.close();
    }
  });

  it('F19: a destination restored to an earlier moment gets what it lacks from the change tables; one that lost what Sluice kept in it is a gap, and a full sync mends it', async () => {
    await pair.create('restored', 50);
    const mapping = await pair.stream('restored');
    await pair.equal('restored');
    // What a restore does, as seen from outside: rows and positions of an earlier moment, in one piece.
    await pair.into.query(
      'SELECT * INTO dbo.saved FROM dbo.restored; SELECT * INTO dbo.saved_positions FROM sluice.positions',
    );
    await pair.from.query(
      `UPDATE dbo.restored SET v = N'later', id = id + 1000 WHERE id <= 20; DELETE FROM dbo.restored WHERE id = 30`,
    );
    await pair.equal('restored');
    await service.stop();
    await pair.into.query(
      `DELETE FROM dbo.restored; INSERT INTO dbo.restored SELECT * FROM dbo.saved;
       UPDATE p SET position = s.position FROM sluice.positions p JOIN dbo.saved_positions s ON s.stream = p.stream AND s.apply_group = p.apply_group`,
    );
    service = await pair.world.start();
    await pair.equal('restored');
    await pair.state(mapping, 'streaming');
    await service.stop();
    await pair.into.query('DELETE FROM sluice.positions; DELETE FROM sluice.generations');
    service = await pair.world.start();
    await pair.state(mapping, 'gap');
    await pair.from.query(`DELETE FROM dbo.restored WHERE id > 1000`);
    await pair.copyAgain(mapping);
    await pair.state(mapping, 'streaming');
    await pair.equal('restored');
  });

  it('F47: the last mapping deleted while the service was stopped: what was kept for it goes, its rows and the source’s capture stay', async () => {
    await pair.create('last', 20);
    await pair.stream('last');
    await service.stop();
    await pair.world.control.query('DELETE FROM table_mappings');
    service = await pair.world.start();
    await eventually(async () => {
      expect([...(await kept('positions')), ...(await kept('generations'))]).to.deep.equal([]);
    }, 90_000);
    const [rows] = await pair.into.query('SELECT COUNT(*) AS n FROM dbo.last');
    expect(rows?.['n']).to.equal(20);
    const [captured] = await pair.from.query('SELECT COUNT(*) AS n FROM cdc.change_tables');
    expect(captured?.['n']).to.be.greaterThan(0);
    expect(await pair.world.control.query('SELECT * FROM source_objects')).to.deep.equal([]);
  });
});
