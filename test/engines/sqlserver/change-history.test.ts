/** History lost at the source (F10–F16, F29), as pieces tell it: the commit of each asks what is missing, by what its route was made by. */
import { expect } from 'chai';
import { CapturedCatalog } from '../../../src/engines/sqlserver/captured-catalog.ts';
import type { SqlServerChanges } from '../../../src/engines/sqlserver/changes.ts';
import { formatPosition, parsePosition } from '../../../src/engines/sqlserver/position.ts';
import type { ChangePiece } from '../../../src/model/changes.ts';
import type { Position } from '../../../src/model/position.ts';
import type { Table } from '../../../src/model/tables.ts';
import { Client } from 'pg';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';
import { skip } from '../../support/skip.ts';
import { eventually } from '../../support/service.ts';
import { changesOf, follow, shown, STREAM, type Following } from './change-support.ts';

describe('SQL Server change stream: history', () => {
  let database: SqlServerTestDatabase;
  let changes: SqlServerChanges;
  let following: Following | null = null;
  let made = 0;

  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this), 'history');
    changes = changesOf(database);
    await database.enableCdc();
  });
  afterEach(async () => {
    await following?.reader.stop();
    following = null;
  });
  after(() => database?.drop());

  const describeTable = async (table: string): Promise<Table> => {
    const [found] = await new CapturedCatalog(database.connection).describe([{ schema: 'dbo', table }]);
    if (!found) throw new Error(`no table ${table}`);
    return found;
  };
  /** A captured table, and what a route of it is made by. */
  const capturedTable = async (): Promise<{ name: Table['name']; sql: string; instance: string; table: Table }> => {
    const table = `t${++made}`;
    await database.query(`CREATE TABLE dbo.${table} (id int NOT NULL PRIMARY KEY, v int)`);
    await database.captureTable('dbo', table);
    const found = await describeTable(table);
    return { name: found.name, sql: `dbo.${table}`, instance: `dbo_${table}`, table: found };
  };
  /** Everything so far is captured. */
  const captured = async (): Promise<Position> => {
    const end = await changes.end();
    let at: Position | null = null;
    await eventually(async () => {
      at = (await changes.prepare(STREAM)).start;
      if (changes.compare(at, end) === 'before') throw new Error('not captured yet');
    }, 20_000);
    if (at === null) throw new Error('no position');
    return at;
  };
  const clean = (instance: string) =>
    database.query(
      `DECLARE @low binary(10); SELECT TOP (1) @low = start_lsn FROM cdc.lsn_time_mapping ORDER BY start_lsn DESC;
       EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'${instance}', @low_water_mark = @low`,
    );
  const nextEnd = async (): Promise<ChangePiece> => {
    // Progress without a step says nothing of captures.
    const pieces = await (following ?? fail()).until((all) => all.some(({ captures }) => captures !== undefined));
    return pieces.find(({ captures }) => captures !== undefined) ?? fail();
  };
  const fail = (): never => {
    throw new Error('nothing is followed');
  };
  const codeOf = (thrown: unknown) => (thrown as { code?: string }).code;

  it('F10 F11: changes discarded before they were read are a gap of their table, and of no other', async () => {
    const lost = await capturedTable();
    const kept = await capturedTable();
    const from = await captured();
    await database.query(`INSERT INTO ${lost.sql} VALUES (1, 1); INSERT INTO ${kept.sql} VALUES (1, 1)`);
    await captured();
    await clean(lost.instance);
    following = await follow(changes, from);
    const piece = await nextEnd();
    const found = piece.captures?.gap(lost.name, lost.table.capture ?? null);
    expect(found?.code).to.equal('GAP');
    expect(found?.message).to.contain('discarded before they were read');
    expect(piece.captures?.gap(kept.name, kept.table.capture ?? null)).to.equal(null);
  });

  it('F11: discarded while pages are read: asked again before the piece is handed out', async () => {
    const table = await capturedTable();
    const from = await captured();
    following = await follow(changes, from);
    await nextEnd();
    await database.query(`INSERT INTO ${table.sql} VALUES (1, 1)`);
    const first = await following.changes(1);
    expect(first.at(-1)?.captures?.gap(table.name, table.table.capture ?? null)).to.equal(null);
    // The reader stands still meanwhile, as behind a slow destination.
    await database.query(`INSERT INTO ${table.sql} VALUES (2, 2)`);
    await captured();
    await clean(table.instance);
    await database.query(`INSERT INTO ${table.sql} VALUES (3, 3)`);
    const next = await following.until((all) => all.some(({ changes: count }) => count > 0));
    // Whether or not row 2 was still seen: it is never passed over in silence.
    const isSeen = shown(next).includes('I:2,2');
    const found = next.find(({ captures }) => captures?.gap(table.name, table.table.capture ?? null));
    expect(isSeen || found !== undefined).to.equal(true);
  });

  it('F12: cleanup when nothing had changed is no gap: idle rows moved the position on', async () => {
    const table = await capturedTable();
    following = await follow(changes, await captured());
    const end = await captured();
    const idle = await following.until((all) =>
      all.some((piece) => piece.end !== null && changes.compare(piece.end, end) !== 'before'),
    );
    const at = idle.at(-1)?.end ?? fail();
    await following.reader.stop();
    await database.query(
      `EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'${table.instance}', @low_water_mark = 0x${parsePosition(at)?.lsn ?? ''}`,
    );
    following = await follow(changes, at);
    await database.query(`INSERT INTO ${table.sql} VALUES (1, 1)`);
    const seen = await following.changes(1);
    expect(shown(seen)).to.deep.equal(['I:1,1']);
    expect(seen.at(-1)?.captures?.gap(table.name, table.table.capture ?? null)).to.equal(null);
  });

  it('F13: disabled and enabled again is another instance under the same name: a gap, until the table is copied again', async () => {
    const table = await capturedTable();
    const from = await captured();
    await database.query(
      `EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'${table.name.table}', @capture_instance = N'${table.instance}'`,
    );
    await database.query(`INSERT INTO ${table.sql} VALUES (1, 1)`);
    await database.captureTable('dbo', table.name.table);
    following = await follow(changes, from);
    const piece = await nextEnd();
    expect(piece.captures?.gap(table.name, table.table.capture ?? null)?.message).to.contain('another one made later');
    const again = await describeTable(table.name.table);
    expect(again.capture).to.not.equal(table.table.capture);
    expect(piece.captures?.gap(table.name, again.capture ?? null)).to.equal(null);
  });

  it('a dropped capture instance is a gap', async () => {
    const table = await capturedTable();
    following = await follow(changes, await captured());
    await nextEnd();
    await database.query(
      `EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'${table.name.table}', @capture_instance = N'${table.instance}'`,
    );
    const piece = await following.until((all) =>
      all.some(
        ({ captures }) => captures !== undefined && captures.gap(table.name, table.table.capture ?? null) !== null,
      ),
    );
    expect(piece.at(-1)?.captures?.gap(table.name, table.table.capture ?? null)?.message).to.contain(
      'no longer captured',
    );
  });

  it('F14 F29: a second instance is followed from where it begins, with its new column; the first can be dropped then', async () => {
    const table = await capturedTable();
    const from = await captured();
    await database.query(`INSERT INTO ${table.sql} VALUES (1, 1)`);
    await database.query(`ALTER TABLE ${table.sql} ADD w int`);
    await database.query(`INSERT INTO ${table.sql} VALUES (2, 2, 20)`);
    const second = `${table.instance}_2`;
    await database.captureTable('dbo', table.name.table, { instance: second });
    await database.query(`INSERT INTO ${table.sql} VALUES (3, 3, 30)`);
    following = await follow(changes, from);
    const seen = await following.changes(3);
    // Row 2 came while only the first instance was there, which does not hold the column.
    expect(shown(seen)).to.deep.equal(['I:1,1', 'I:2,2', 'I:3,3,30']);
    const { captures } = seen.at(-1) ?? fail();
    expect(captures?.gap(table.name, table.table.capture ?? null)).to.equal(null);
    const successor = captures?.successor(table.name, table.table.capture ?? null);
    expect(successor?.relation.columns).to.deep.equal(['id', 'v', 'w']);
    const health = await changes.health(STREAM, [table.name]);
    expect(health.tables.map(({ finding }) => finding.message).join()).to.contain(`${table.instance} of`);
    await following.reader.stop();
    for (const sql of health.tables.flatMap(({ finding }) => finding.fixSql)) await database.query(sql);
    // From the position stored before, and with the route as it was changed.
    following = await follow(changes, seen.at(-1)?.end ?? from);
    await database.query(`INSERT INTO ${table.sql} VALUES (4, 4, 40)`);
    const later = await following.changes(1);
    expect(shown(later)).to.deep.equal(['I:4,4,40']);
    expect(later.at(-1)?.captures?.gap(table.name, successor?.capture ?? null)).to.equal(null);
    expect(later.at(-1)?.captures?.successor(table.name, successor?.capture ?? null)).to.equal(null);
  });

  it('F43: capture of another table is dropped while a large transaction is handed out in parts: the stream goes on', async () => {
    const other = await capturedTable();
    const name = `t${++made}`;
    await database.query(`CREATE TABLE dbo.${name} (id int NOT NULL PRIMARY KEY, v nvarchar(2000))`);
    await database.captureTable('dbo', name);
    const from = await captured();
    const rows = Array.from({ length: 100 }, (_, i) => `(${i + 1}, REPLICATE(N'x', 1000))`).join(', ');
    await database.query(`INSERT INTO dbo.${name} VALUES ${rows}`);
    following = await follow(changes, from, { maxBytes: 32 * 1024 });
    const parts = await following.until((all) => all.some(({ end, changes: count }) => end === null && count > 0));
    await database.query(`DROP TABLE ${other.sql}; DELETE dbo.${name} WHERE id = 1`);
    await captured();
    const rest = await following.changes(101 - shown(parts).length);
    expect(shown([...parts, ...rest])).to.have.length(101);
  });

  it('F14: tables whose names look alike with a dot between schema and table are not two instances of one', async () => {
    for (const sql of ['CREATE SCHEMA [x]', 'CREATE SCHEMA [x.y]']) await database.query(sql);
    const names = [
      { schema: 'x', table: 'y.z' },
      { schema: 'x.y', table: 'z' },
    ];
    for (const { schema, table } of names) {
      await database.query(`CREATE TABLE [${schema}].[${table}] (id int NOT NULL PRIMARY KEY)`);
      await database.captureTable(schema, table);
    }
    const tables = await new CapturedCatalog(database.connection).describe(names);
    const captures = tables.map((table) => table?.capture ?? '');
    expect(new Set(captures).size).to.equal(2);
    following = await follow(changes, await captured());
    const piece = await nextEnd();
    for (const [i, name] of names.entries())
      expect(piece.captures?.successor(name, captures[i] ?? null) ?? null).to.equal(null);
  });

  it('F14: the first instance dropped at once, before it was read up to the second, is a gap', async () => {
    const table = await capturedTable();
    const from = await captured();
    await database.query(`INSERT INTO ${table.sql} VALUES (1, 1)`);
    await database.captureTable('dbo', table.name.table, { instance: `${table.instance}_2` });
    await database.query(
      `EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'${table.name.table}', @capture_instance = N'${table.instance}'`,
    );
    following = await follow(changes, from);
    const piece = await nextEnd();
    expect(piece.captures?.gap(table.name, table.table.capture ?? null)?.code).to.equal('GAP');
  });

  it('F15: a position beyond what the source has recorded, or of another database or recovery fork, is a gap', async () => {
    await capturedTable();
    const from = await captured();
    const place = parsePosition(from) ?? fail();
    const places = [
      { ...place, fork: null, lsn: 'F'.repeat(20) },
      { ...place, fork: null, database: 'another' },
      'pg1:1:1:0000000000000000' as Position,
    ];
    for (const each of places) {
      const position = typeof each === 'string' ? each : formatPosition(each);
      const thrown: unknown = await changes
        .read(STREAM, position, { maxChanges: 1, maxBytes: 1 << 20, idleProgressMs: () => 50, pollMs: () => 50 })
        .catch((error: unknown) => error);
      expect(codeOf(thrown)).to.equal('GAP');
    }
  });

  it('F16: a stopped agent is told apart from "all caught up", and nobody waits for a position that will not come', async function () {
    const { pgUrl } = database.server;
    if (pgUrl === null) return skip(this, 'the agent of a real server is not stopped by a test');
    const pg = new Client({ connectionString: pgUrl });
    await pg.connect();
    try {
      expect((await changes.health(STREAM, [])).stream).to.deep.equal([]);
      await pg.query('SELECT cdc_standin.set_agent_status(1)');
      const health = await changes.health(STREAM, []);
      expect(health.stream?.map(({ code, severity }) => `${severity} ${code}`)).to.deep.equal(['error CDC_NOT_READY']);
      expect(health.captureLagSeconds).to.be.a('number');
      const thrown: unknown = await changes.end().catch((error: unknown) => error);
      expect(codeOf(thrown)).to.equal('CDC_NOT_READY');
    } finally {
      await pg.query('SELECT cdc_standin.set_agent_status(4)');
      await pg.end();
    }
    await captured();
    expect((await changes.health(STREAM, [])).stream).to.deep.equal([]);
  });

  it('capture disabled for the whole database is a gap for who follows, and not ready for who begins', async () => {
    following = await follow(changes, await captured());
    await nextEnd();
    await database.job()?.stop();
    await database.query('EXEC sys.sp_cdc_disable_db');
    const thrown: unknown = await following.until(() => false).catch((error: unknown) => error);
    expect(codeOf(thrown)).to.equal('GAP');
    const notReady: unknown = await changes.prepare(STREAM).catch((error: unknown) => error);
    expect(codeOf(notReady)).to.equal('CDC_NOT_READY');
    expect((notReady as { hint?: string }).hint).to.contain('sp_cdc_enable_db');
  });
});
