/** A SQL Server source as a person meets it: two INSERTs, first rows, changes, the trigger column, and history that is lost. */
import { expect } from 'chai';
import { Client } from 'pg';
import { createWorld, eventually, type World } from '../support/service.ts';
import { skip } from '../support/skip.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../support/sqlserver.ts';

/** Long enough for a busy machine: what is waited for comes by itself, or never. */
const PATIENCE_S = 60;

describe('from SQL Server to PostgreSQL', function () {
  this.timeout(300_000);
  let world: World;
  let source: SqlServerTestDatabase;

  before(async function () {
    source = await createSqlServerDatabase(await requireSqlServer(this), 'src');
    await source.enableCdc();
    world = await createWorld({ cdc_check_interval_seconds: 1 });
    await world.control.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('sql', $1)`, [
      source.url,
    ]);
    await world.start();
  });
  after(async () => {
    await world?.close();
    await source?.drop();
  });

  const map = (table: string, columns: Readonly<Record<string, string | number>> = {}) =>
    world.map(table, {
      server_id: 2,
      source_database: source.name,
      source_schema: 'dbo',
      dest_schema: 'public',
      ...columns,
    });
  const streaming = (mapping: number) => world.state(mapping, 'streaming', PATIENCE_S);
  /** Waits until the destination's rows are these, as `id:v:…`. */
  const rows = (table: string, expected: readonly string[], columns = ['id', 'v']) =>
    eventually(async () => {
      const list = columns.map((column) => `coalesce("${column}"::text, 'null')`).join(` || ':' || `);
      const found = await world.destination.query<{ row: string }>(
        `SELECT ${list} AS row FROM public."${table}" ORDER BY id`,
      );
      expect(found.map(({ row }) => row)).to.deep.equal(expected);
    }, PATIENCE_S * 1000);
  const told = async (mapping: number) => {
    const [row] = await world.control.query<{
      error_code: string | null;
      error_message: string | null;
      error_hint: string | null;
      warning: string | null;
      warning_hint: string | null;
    }>('SELECT * FROM v_mapping_health WHERE mapping_id = $1', [mapping]);
    return row;
  };
  const finished = async (mapping: number) => {
    const [row] = await world.control.query<{ n: number }>(
      `SELECT count(*)::int AS n FROM sync_status WHERE mapping_id = $1 AND sync_type <> 'CDC' AND status = 'COMPLETED'`,
      [mapping],
    );
    return row?.n ?? 0;
  };

  it('copies first rows and follows inserts, updates, key changes and deletes; values that are large and unchanged stay (F22)', async () => {
    await source.query('CREATE TABLE dbo.items (id int NOT NULL PRIMARY KEY, v nvarchar(50), big nvarchar(max))');
    await source.captureTable('dbo', 'items');
    await source.query(
      `INSERT INTO dbo.items VALUES (1, N'one', REPLICATE(N'x', 5)), (2, N'two', NULL), (3, N'three', N'y')`,
    );
    const mapping = await map('items');
    await streaming(mapping);
    await rows('items', ['1:one:xxxxx', '2:two:null', '3:three:y'], ['id', 'v', 'big']);
    await source.query(`INSERT INTO dbo.items VALUES (4, N'vier ü', N'z')`);
    await source.query(`UPDATE dbo.items SET v = N'eins' WHERE id = 1`);
    await source.query('UPDATE dbo.items SET id = 30 WHERE id = 3');
    await source.query('DELETE FROM dbo.items WHERE id = 2');
    await rows('items', ['1:eins:xxxxx', '4:vier ü:z', '30:three:y'], ['id', 'v', 'big']);
  });

  it('a row that sets the trigger column copies the table again, seen in the stream', async () => {
    await source.query(
      'CREATE TABLE dbo.flagged (id int NOT NULL PRIMARY KEY, v int, fullsync bit NOT NULL DEFAULT 0)',
    );
    await source.captureTable('dbo', 'flagged');
    await source.query('INSERT INTO dbo.flagged (id, v) VALUES (1, 1), (2, 2)');
    const mapping = await map('flagged', { full_sync_trigger_column: 'fullsync' });
    await streaming(mapping);
    await rows('flagged', ['1:1', '2:2']);
    const before = await finished(mapping);
    await source.query('UPDATE dbo.flagged SET fullsync = 1 WHERE id = 1');
    await eventually(async () => {
      expect(await finished(mapping)).to.equal(before + 1);
    }, PATIENCE_S * 1000);
    const [flag] = await source.query('SELECT CAST(MAX(CAST(fullsync AS int)) AS int) AS flag FROM dbo.flagged');
    expect(flag?.['flag']).to.equal(0);
  });

  it('F10 F11: changes discarded unread are a gap of that table alone; a full sync mends it', async () => {
    await source.query('CREATE TABLE dbo.lost (id int NOT NULL PRIMARY KEY, v int)');
    await source.captureTable('dbo', 'lost');
    await source.query('INSERT INTO dbo.lost VALUES (1, 1)');
    const mapping = await map('lost');
    await streaming(mapping);
    await rows('lost', ['1:1']);
    // Disabled and enabled again at once: what changed in between is in no change table (F13).
    await source.query(
      `EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'lost', @capture_instance = N'dbo_lost'`,
    );
    await source.query('INSERT INTO dbo.lost VALUES (2, 2)');
    await source.captureTable('dbo', 'lost');
    await world.state(mapping, 'gap', PATIENCE_S);
    expect((await told(mapping))?.error_code).to.equal('GAP');
    await rows('lost', ['1:1']);
    await source.query(`INSERT INTO dbo.items VALUES (5, N'on', NULL)`);
    await rows('items', ['1:eins', '4:vier ü', '5:on', '30:three']);
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await streaming(mapping);
    await source.query('INSERT INTO dbo.lost VALUES (3, 3)');
    await rows('lost', ['1:1', '2:2', '3:3']);
  });

  it('F14 F29: a second capture instance with a new column: nothing is lost, the column comes by a copy, the old one may be dropped', async () => {
    await source.query('CREATE TABLE dbo.wide (id int NOT NULL PRIMARY KEY, v int)');
    await source.captureTable('dbo', 'wide');
    await source.query('INSERT INTO dbo.wide VALUES (1, 1)');
    const mapping = await map('wide');
    await streaming(mapping);
    await source.query('ALTER TABLE dbo.wide ADD w int');
    await source.query('INSERT INTO dbo.wide VALUES (2, 2, 20)');
    await source.captureTable('dbo', 'wide', { instance: 'dbo_wide_2' });
    await source.query('INSERT INTO dbo.wide VALUES (3, 3, 30)');
    await rows('wide', ['1:1:null', '2:2:20', '3:3:30'], ['id', 'v', 'w']);
    await eventually(async () => {
      expect((await told(mapping))?.warning_hint ?? '').to.contain(`@capture_instance = N'dbo_wide'`);
    }, PATIENCE_S * 1000);
    expect((await told(mapping))?.warning).to.match(/^capture instance dbo_wide of dbo\.wide can be dropped/);
    expect((await told(mapping))?.error_code, 'nothing is wrong').to.equal(null);
    await source.query(
      `EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'wide', @capture_instance = N'dbo_wide'`,
    );
    await source.query('UPDATE dbo.wide SET w = 21 WHERE id = 2');
    await rows('wide', ['1:1:null', '2:2:21', '3:3:30'], ['id', 'v', 'w']);
    await streaming(mapping);
    await eventually(async () => {
      expect((await told(mapping))?.warning, 'it was dropped').to.equal(null);
    }, PATIENCE_S * 1000);
  });

  it('F16: a stopped agent is told of on the mappings, until it runs again', async function () {
    const { pgUrl } = source.server;
    if (pgUrl === null) return skip(this, 'the agent of a real server is not stopped by a test');
    const mapping = 1;
    const pg = new Client({ connectionString: pgUrl });
    await pg.connect();
    try {
      await pg.query('SELECT cdc_standin.set_agent_status(1)');
      await eventually(async () => {
        expect((await told(mapping))?.error_message ?? '').to.contain('SQL Server Agent does not run');
      }, PATIENCE_S * 1000);
    } finally {
      await pg.query('SELECT cdc_standin.set_agent_status(4)');
      await pg.end();
    }
    await eventually(async () => {
      expect((await told(mapping))?.error_code).to.equal(null);
    }, PATIENCE_S * 1000);
  });

  it('a table that is not captured is not ready, with the statement that captures it; then it is copied', async () => {
    await source.query('CREATE TABLE dbo.bare (id int NOT NULL PRIMARY KEY, v int)');
    await source.query('INSERT INTO dbo.bare VALUES (1, 1)');
    const mapping = await map('bare');
    await eventually(async () => {
      expect((await told(mapping))?.error_code).to.equal('CDC_NOT_READY');
    }, PATIENCE_S * 1000);
    const hint = (await told(mapping))?.error_hint ?? '';
    expect(hint).to.contain(`EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'bare'`);
    await source.query(hint.slice(0, hint.indexOf(';')));
    await streaming(mapping);
    await rows('bare', ['1:1']);
  });
});
