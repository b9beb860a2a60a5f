/** SQL Server at both ends, and what only SQL Server has. */
import { expect } from 'chai';
import { SqlServerPreflight } from '../../src/engines/sqlserver/preflight.ts';
import { SluiceError } from '../../src/model/errors.ts';
import { SQL_SERVER } from '../support/same-engine-pair.ts';
import { eventually } from '../support/service.ts';
import { skip } from '../support/skip.ts';
import type { SqlServerTestDatabase } from '../support/sqlserver.ts';
import { historySuite } from './history.suite.ts';
import { troubleSuite } from './trouble.suite.ts';

historySuite(SQL_SERVER, ({ pair, whileStopped }) => {
  const native = (): SqlServerTestDatabase => {
    const { sqlServer } = pair().from;
    if (!sqlServer) throw new Error('not a SQL Server');
    return sqlServer;
  };
  const isBabelfish = () => native().server.kind === 'babelfish';

  it('F28 F29: a column added with a default: existing rows get its value by the copy that a second capture instance brings', async () => {
    await pair().create('grown', 20);
    const mapping = await pair().stream('grown');
    await pair().from.query(`ALTER TABLE dbo.grown ADD w int NOT NULL CONSTRAINT grown_w DEFAULT 7`);
    await pair().from.query(`INSERT INTO dbo.grown VALUES (21, N'before', 8)`);
    await native().captureTable('dbo', 'grown', { instance: 'dbo_grown_2' });
    const requests = () => pair().world.control.query('SELECT reason FROM full_sync_requests ORDER BY request_id');
    await eventually(async () => {
      expect(await requests()).to.have.length(2);
    }, 60_000);
    await pair().from.query(`UPDATE dbo.grown SET w = 9 WHERE id = 1`);
    await pair().equal('grown');
    const [row] = await pair().into.query('SELECT COUNT(*) AS n FROM dbo.grown WHERE w = 7');
    expect(row?.['n']).to.equal(19);
    await pair().state(mapping, 'streaming');
    // One copy, although both the new instance and its first changes say that there is a column.
    expect((await requests()).map(({ reason }) => reason)).to.deep.equal(['initial', 'schema_change']);
  });

  it('F54: names in any case are one table: no mapping leads from it to itself, and no two into it', async () => {
    const { world, from } = pair();
    await pair().create('itself', 2);
    const [server] = await world.control.query<{ id: number }>(
      "INSERT INTO destination_servers (server_name, connection_string) VALUES ('the source', $1) RETURNING server_id AS id",
      [from.url],
    );
    const refused = async (table: string, columns: Readonly<Record<string, string | number>>, code: string) => {
      const mapping = await pair().map(table, { ...columns, is_full_sync: 1 });
      await pair().state(mapping, 'failed');
      expect(await pair().errorCode(mapping)).to.equal(code);
      await world.control.query('DELETE FROM table_mappings WHERE mapping_id = $1', [mapping]);
    };
    const self = { dest_table: 'ITSELF', dest_server_id: server?.id ?? 0, dest_database: from.name };
    await refused('Itself', self, 'MAPPING_INVALID');
    await pair().stream('itself', { dest_table: 'one_place' });
    await refused('itself', { dest_table: 'ONE_PLACE' }, 'DESTINATION_TAKEN');
    await pair().equal('itself', 'one_place');
  });

  it('F23: a captured table is not truncated: the source refuses it, and its rows stay at both ends', async () => {
    await pair().create('kept', 3);
    await pair().stream('kept');
    const refused: unknown = await pair()
      .from.query('TRUNCATE TABLE dbo.kept')
      .then(
        () => null,
        (error: unknown) => error,
      );
    expect(refused).to.be.instanceOf(SluiceError);
    await pair().from.query(`INSERT INTO dbo.kept VALUES (4, N'after it')`);
    await pair().equal('kept');
    expect(await pair().into.query('SELECT id FROM dbo.kept')).to.have.length(4);
  });

  it('F23: partitions of a captured table can be switched, until what doctor prints was run', async function () {
    if (isBabelfish()) skip(this, 'Babelfish has no partition switch');
    await pair().from.query('CREATE PARTITION FUNCTION halves (int) AS RANGE LEFT FOR VALUES (100)');
    await pair().from.query('CREATE PARTITION SCHEME halves AS PARTITION halves ALL TO ([PRIMARY])');
    for (const table of ['switched', 'aside'])
      await pair().from.query(
        `CREATE TABLE dbo.${table} (id int NOT NULL CONSTRAINT ${table}_key PRIMARY KEY, v nvarchar(50) NULL) ON halves (id)`,
      );
    await pair().from.query(`INSERT INTO dbo.switched VALUES (1, N'a'), (101, N'b')`);
    // sp_cdc_enable_table allows the switch unless it is told otherwise.
    await native().captureTable('dbo', 'switched');
    const findings = () =>
      new SqlServerPreflight(native().connection).source([{ schema: 'dbo', table: 'switched' }], { cdc: true });
    const switching = (await findings()).find(({ message }) => message.includes('can be switched'));
    expect(switching?.severity).to.equal('warning');
    for (const sql of switching?.fixSql ?? []) await pair().from.query(sql);
    expect((await findings()).map(({ message }) => message).join()).to.not.include('can be switched');
    const refused: unknown = await pair()
      .from.query('ALTER TABLE dbo.switched SWITCH PARTITION 1 TO dbo.aside PARTITION 1')
      .catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(SluiceError);
  });

  it('F15: a source restored from a backup is a gap, whatever its log says; a full sync mends it', async function () {
    if (isBabelfish()) skip(this, 'Babelfish has neither BACKUP nor RESTORE');
    await pair().create('rewound', 20);
    const mapping = await pair().stream('rewound');
    await pair().equal('rewound');
    const { name } = pair().from;
    await pair().from.query(`BACKUP DATABASE [${name}] TO DISK = N'${name}.bak' WITH INIT, COPY_ONLY`);
    await pair().from.query(`UPDATE dbo.rewound SET v = N'undone by the restore'`);
    await pair().equal('rewound');
    await whileStopped(async () => {
      const session = await native().connection.open();
      await session.run('restore', [
        'USE master',
        `ALTER DATABASE [${name}] SET OFFLINE WITH ROLLBACK IMMEDIATE`,
        `RESTORE DATABASE [${name}] FROM DISK = N'${name}.bak' WITH REPLACE, KEEP_CDC`,
      ]);
      await native().connection.release(session);
    });
    await pair().state(mapping, 'gap');
    await pair().copyAgain(mapping);
    await pair().state(mapping, 'streaming');
    await pair().equal('rewound');
  });
});

troubleSuite(SQL_SERVER, (pair) => {
  it('F40: the destination’s log is full: said, and everything arrives once it has room', async function () {
    if (pair().into.sqlServer?.server.kind === 'babelfish') skip(this, 'Babelfish has no log of a limited size');
    const [log] = await pair().into.query(`SELECT name FROM sys.database_files WHERE type_desc = N'LOG'`);
    const limit = (size: string) =>
      pair().into.query(`ALTER DATABASE CURRENT MODIFY FILE (NAME = N'${String(log?.['name'])}', MAXSIZE = ${size})`);
    await limit('16MB');
    await pair().from.query(
      `INSERT INTO dbo.t SELECT 200000 + i, REPLICATE(CONVERT(nvarchar(max), NEWID()), 60) FROM ${SQL_SERVER.numbers(10_000)}`,
    );
    await eventually(async () => {
      expect(await pair().errorCode(1)).to.equal('SERVER_FULL');
    }, 90_000);
    await limit('UNLIMITED');
    await pair().equal('t');
  });
});
