import { expect } from 'chai';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

describe('rows and values that the destination refuses', () => {
  let world: World;
  before(async () => {
    world = await createWorld();
    await world.start();
  });
  after(() => world.close());

  async function health(mapping: number): Promise<Record<string, unknown>> {
    const [row] = await world.control.query(
      `SELECT s.state, s.error_code, s.error_message, s.error_hint, s.rows_failed::int AS rows_failed
         FROM table_mappings m JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1`,
      [mapping],
    );
    return row ?? {};
  }

  async function letters(mapping: number): Promise<Record<string, unknown>[]> {
    return world.control.query(
      `SELECT key_text, operation, error_code, reason, row_values FROM dead_letters WHERE mapping_id = $1 ORDER BY key_text`,
      [mapping],
    );
  }

  it('F35: NULL stays NULL where the destination has a default, through copy and stream', async () => {
    await world.source.query(`CREATE TABLE defaults (id int PRIMARY KEY, t text, n int, d timestamptz)`);
    await world.destination.query(
      `CREATE TABLE defaults (id int PRIMARY KEY, t text DEFAULT 'x', n int DEFAULT 7, d timestamptz DEFAULT now())`,
    );
    await world.source.query(`INSERT INTO defaults (id) VALUES (1), (2)`);
    await world.source.query(`INSERT INTO defaults VALUES (3, '', 0, '-infinity')`);
    await world.state(await world.map('defaults'), 'streaming');
    await equal(world, 'defaults');
    await world.source.query(`INSERT INTO defaults (id) VALUES (4)`);
    await world.source.query(`UPDATE defaults SET t = NULL, n = NULL, d = NULL WHERE id = 3`);
    await world.source.query(`UPDATE defaults SET t = '' WHERE id = 1`);
    await equal(world, 'defaults');
  });

  it('F36: a destination that cannot hold the values is refused by the schema check, before any row moves', async () => {
    await world.source.query(
      `CREATE TABLE narrow (id int PRIMARY KEY, a varchar(10), b numeric(10,4), c timestamptz, d bigint, e text, f float8)`,
    );
    await world.source.query(`INSERT INTO narrow VALUES (1, 'fits', 1, now(), 1, 'x', 1)`);
    await world.destination.query(
      `CREATE TABLE narrow (id int PRIMARY KEY, a varchar(5), b numeric(10,2), c timestamptz(3), d int, e text NOT NULL, f real)`,
    );
    const mapping = await world.map('narrow');
    await world.state(mapping, 'failed');
    expect(await health(mapping)).to.include({ error_code: 'SCHEMA_MISMATCH' });
    const lines = await world.control.query<{ log_message: string; details: string }>(
      `SELECT log_message, details FROM sync_logs WHERE mapping_id = $1 AND error_code = 'SCHEMA_MISMATCH' ORDER BY log_message`,
      [mapping],
    );
    expect(lines.map((line) => line.log_message.split(' ')[1])).to.deep.equal(['a', 'b', 'c', 'd', 'e', 'f']);
    expect(await world.destination.query('SELECT * FROM narrow')).to.deep.equal([]);

    // The hints, run as they are, make it work.
    for (const line of lines) await world.destination.query(line.details);
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming');
    await equal(world, 'narrow');
  });

  it('F36: a row refused by a table that was adopted: what changes until it is mended is kept, and is not adopted away', async () => {
    for (const database of [world.source, world.destination])
      await database.query(`CREATE TABLE adopted (id int PRIMARY KEY, v text)`);
    await world.destination.query(`ALTER TABLE adopted ADD CONSTRAINT no_bad CHECK (v <> 'bad')`);
    const mapping = await world.map('adopted', { initial_sync: 'none' });
    await world.state(mapping, 'streaming');
    await world.source.query(`INSERT INTO adopted VALUES (1, 'good')`);
    await equal(world, 'adopted');
    await world.source.query(`INSERT INTO adopted VALUES (2, 'bad')`);
    await world.state(mapping, 'failed');
    await world.source.query(`INSERT INTO adopted VALUES (3, 'while it fails')`);
    await world.destination.query(`ALTER TABLE adopted DROP CONSTRAINT no_bad`);
    await world.control.query('UPDATE table_mappings SET max_failed_rows = 1 WHERE mapping_id = $1', [mapping]);
    await equal(world, 'adopted');
    await world.state(mapping, 'streaming');
  });

  it('F36: a refused row stops the mapping by default; its key is kept, others go on; allowed, only it is left out', async () => {
    await world.source.query(`CREATE TABLE checked (id int PRIMARY KEY, v int, large text)`);
    await world.source.query(`ALTER TABLE checked ALTER large SET STORAGE EXTERNAL`);
    await world.destination.query(
      `CREATE TABLE checked (id int PRIMARY KEY, v int CONSTRAINT small CHECK (v < 100), large text)`,
    );
    await world.source.query(`CREATE TABLE bystander (id int PRIMARY KEY)`);
    await world.source.query(`INSERT INTO checked SELECT i, i, repeat('l', 5000) FROM generate_series(1, 50) i`);
    const mapping = await world.map('checked');
    const bystander = await world.map('bystander');
    await world.state(mapping, 'streaming');
    await world.state(bystander, 'streaming');

    // One transaction: good rows around the bad one, for both tables.
    await world.source
      .query(`BEGIN; UPDATE checked SET v = v + 1 WHERE id <= 20; INSERT INTO checked VALUES (60, 60, 'new');
      UPDATE checked SET v = 1000 WHERE id = 7; DELETE FROM checked WHERE id = 50; INSERT INTO bystander VALUES (1); COMMIT`);
    await world.state(mapping, 'failed');
    await equal(world, 'bystander');
    expect(await health(mapping)).to.include({ error_code: 'ROW_REFUSED', rows_failed: 1 });
    const [kept] = await letters(mapping);
    expect(kept).to.include({ key_text: '["7"]', operation: 'upsert', error_code: 'ROW_REFUSED', row_values: null });
    expect(kept?.['reason']).to.include('constraint small');
    const [before] = await world.destination.query(`SELECT count(*)::int AS rows, max(v) AS v FROM checked`);
    expect(before).to.deep.equal({ rows: 50, v: 50 });

    // Allowed: from the backlog, without the one row.
    await world.control.query('UPDATE table_mappings SET max_failed_rows = 2 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming');
    await equal(world, '(SELECT * FROM checked WHERE id <> 7)');
    const [refused] = await world.destination.query(`SELECT v, length(large) AS length FROM checked WHERE id = 7`);
    expect(refused).to.deep.equal({ v: 7, length: 5000 });

    expect(await health(mapping)).to.include({ error_code: null });
    expect(new Set((await letters(mapping)).map((row) => row['key_text']))).to.deep.equal(new Set(['["7"]']));

    // In the stream: a second row, a key change with a value that is not sent, and more of the first.
    await world.source
      .query(`BEGIN; UPDATE checked SET v = 2000 WHERE id IN (7, 8); UPDATE checked SET id = 109 WHERE id = 9;
      UPDATE checked SET v = 3 WHERE id = 10; COMMIT`);
    await equal(world, '(SELECT * FROM checked WHERE id NOT IN (7, 8))');
    await world.state(mapping, 'streaming');
    // A row that is good again is written again.
    await world.source.query(`UPDATE checked SET v = 70 WHERE id = 7`);
    await equal(world, '(SELECT * FROM checked WHERE id <> 8)');

    // A third one is more than allowed.
    await world.source.query(`UPDATE checked SET v = 3000 WHERE id = 11`);
    await world.state(mapping, 'failed');
    expect((await letters(mapping)).map((row) => row['key_text'])).to.include.members(['["7"]', '["8"]', '["11"]']);
    await world.destination.query(`ALTER TABLE checked DROP CONSTRAINT small`);
    await world.control.query('UPDATE table_mappings SET max_failed_rows = 3 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming');
    await equal(world, '(SELECT * FROM checked WHERE id <> 8)');
  });

  it('F36: letters that a full sync will close do not keep it from getting through', async () => {
    await world.source.query(`CREATE TABLE stopped (id int PRIMARY KEY, v int)`);
    await world.destination.query(`CREATE DOMAIN meek AS int CHECK (VALUE < 100)`);
    await world.destination.query(`CREATE TABLE stopped (id int PRIMARY KEY, v meek)`);
    await world.source.query(`INSERT INTO stopped SELECT i, i FROM generate_series(1, 3) i`);
    const mapping = await world.map('stopped', { max_failed_rows: 1 });
    await world.state(mapping, 'streaming');
    await world.source.query(`UPDATE stopped SET v = 1000 WHERE id IN (1, 2)`);
    await world.state(mapping, 'failed');
    const keys = async () => (await letters(mapping)).map((row) => row['key_text']).sort();
    expect(await keys()).to.deep.equal(['["1"]', '["2"]']);
    await world.source.query(`UPDATE stopped SET v = 10 WHERE id = 1`);
    await world.copyAgain(mapping);
    await world.state(mapping, 'streaming');
    expect(await keys()).to.deep.equal(['["2"]']);
    await equal(world, '(SELECT * FROM stopped WHERE id <> 2)');
  });

  it('F36: a full sync that got through closes the letters of rows that are right by then: they count no longer', async () => {
    await world.source.query(`CREATE TABLE mended (id int PRIMARY KEY, v int)`);
    await world.destination.query(`CREATE DOMAIN mild AS int CHECK (VALUE < 100)`);
    await world.destination.query(`CREATE TABLE mended (id int PRIMARY KEY, v mild)`);
    await world.source.query(`INSERT INTO mended SELECT i, i FROM generate_series(1, 5) i`);
    const mapping = await world.map('mended', { max_failed_rows: 2 });
    await world.state(mapping, 'streaming');
    await world.source.query(`UPDATE mended SET v = 1000 WHERE id IN (1, 2)`);
    await equal(world, '(SELECT * FROM mended WHERE id > 2)');
    const keys = async () => (await letters(mapping)).map((row) => row['key_text']).sort();
    await eventually(async () => void expect(await keys()).to.deep.equal(['["1"]', '["2"]']));
    // One is right again; the other is refused by the copy as well.
    await world.source.query(`UPDATE mended SET v = 10 WHERE id = 1`);
    await world.copyAgain(mapping);
    expect(await keys()).to.deep.equal(['["2"]']);
    await equal(world, '(SELECT * FROM mended WHERE id <> 2)');
    // So that there is room for another.
    await world.source.query(`UPDATE mended SET v = 1000 WHERE id = 3`);
    await world.source.query(`UPDATE mended SET v = 20 WHERE id = 4`);
    await equal(world, '(SELECT id FROM mended WHERE id = 4 AND v = 20)');
    await world.state(mapping, 'streaming');
    await eventually(async () => void expect(await keys()).to.deep.equal(['["2"]', '["3"]']));
  });

  it('F36 F24: values exchanged between two rows, and among them a row that is refused; its values kept on demand', async () => {
    await world.source.query(`CREATE TABLE swapped (id int PRIMARY KEY, u text UNIQUE DEFERRABLE, v int, b bytea)`);
    await world.destination.query(
      `CREATE TABLE swapped (id int PRIMARY KEY, u text UNIQUE, v int CHECK (v <> 13), b bytea)`,
    );
    await world.source.query(`INSERT INTO swapped SELECT i, 'u' || i, i + 100 FROM generate_series(1, 30) i`);
    const mapping = await world.map('swapped', { max_failed_rows: 5, keep_failed_values: 1 });
    await world.state(mapping, 'streaming');
    await world.source
      .query(`BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE swapped SET u = 'u' || (31 - id) WHERE id <> 15 AND id <> 16;
      UPDATE swapped SET v = 13, b = '\\x00ff' WHERE id = 15; INSERT INTO swapped VALUES (40, 'u40', 13, NULL), (41, 'u41', 1, NULL); COMMIT`);
    await equal(world, '(SELECT * FROM swapped WHERE id NOT IN (15, 40))');
    await world.state(mapping, 'streaming');
    await eventually(async () => void expect(await health(mapping)).to.include({ rows_failed: 2 }));
    const kept = await letters(mapping);
    expect(kept.map((row) => row['key_text'])).to.deep.equal(['["15"]', '["40"]']);
    expect(JSON.parse(String(kept[0]?.['row_values']))).to.deep.equal({ id: '15', u: 'u15', v: '13', b: '\\x00ff' });
  });

  it('F36: a type that Sluice cannot see through: refused by the destination, never cut off', async () => {
    await world.source.query(`CREATE TABLE domains (id int PRIMARY KEY, v text)`);
    await world.destination.query(`CREATE DOMAIN short AS text CHECK (length(VALUE) < 5)`);
    await world.destination.query(`CREATE TABLE domains (id int PRIMARY KEY, v short)`);
    await world.source.query(`INSERT INTO domains VALUES (1, 'ok')`);
    const mapping = await world.map('domains', { max_failed_rows: 1 });
    await world.state(mapping, 'streaming');
    await world.source.query(`INSERT INTO domains VALUES (2, 'fits'), (3, 'does not fit'), (4, NULL)`);
    await equal(world, '(SELECT * FROM domains WHERE id <> 3)');
    expect((await letters(mapping)).map((row) => row['key_text'])).to.deep.equal(['["3"]']);
  });

  for (const cdc of [1, 0])
    it(`F36: a row that a copy cannot load stops it by default, its key kept; allowed, only it is left out (cdc_enabled ${cdc})`, async () => {
      const table = `loaded_${cdc}`;
      await world.source.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v text)`);
      await world.destination.query(`CREATE DOMAIN ${table}_short AS text CHECK (length(VALUE) < 5)`);
      await world.destination.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v ${table}_short)`);
      await world.source.query(`INSERT INTO ${table} SELECT i, i FROM generate_series(1, 9000) i`);
      await world.source.query(`UPDATE ${table} SET v = 'too long' WHERE id IN (1, 4000, 4001, 9000)`);
      const mapping = await world.map(table, { cdc_enabled: cdc });
      await world.state(mapping, 'failed');
      expect(await health(mapping)).to.include({ error_code: 'ROW_REFUSED', rows_failed: 1 });
      expect(await letters(mapping)).to.have.length(1);
      expect(await world.destination.query(`SELECT * FROM ${table}`)).to.deep.equal([]);

      await world.control.query('UPDATE table_mappings SET max_failed_rows = 4 WHERE mapping_id = $1', [mapping]);
      await equal(world, `(SELECT * FROM ${table} WHERE id NOT IN (1, 4000, 4001, 9000))`);
      await eventually(async () => void expect(await health(mapping)).to.include({ error_code: null }));
      const keys = (await letters(mapping)).map((row) => row['key_text']);
      expect([...new Set(keys)]).to.deep.equal(['["1"]', '["4000"]', '["4001"]', '["9000"]']);
    });

  for (const [table, rows] of [
    ['guarded_empty', 0],
    ['guarded_filled', 1],
  ] as const)
    it(`F36: a constraint that only the table has ends a copy by its name, with what helps, and nothing is replaced (${table})`, async () => {
      await world.source.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v int)`);
      await world.source.query(`INSERT INTO ${table} SELECT i, i FROM generate_series(1, 20) i`);
      await world.destination.query(
        `CREATE TABLE ${table} (id int PRIMARY KEY, v int CONSTRAINT ${table}_small CHECK (v < 10)); INSERT INTO ${table} SELECT 1, 5 FROM generate_series(1, ${rows})`,
      );
      const mapping = await world.map(table, { max_failed_rows: 20 });
      if (rows > 0)
        await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
      await eventually(async () => {
        const problem = await world.problem(mapping);
        expect(problem.error_message).to.include(`constraint ${table}_small`).and.include(table);
        expect(problem.error_hint).to.include('drop the constraint').and.include('is_full_sync = 1');
      });
      expect((await world.destination.query(`SELECT v FROM ${table}`)).length).to.equal(rows);
      await world.destination.query(`ALTER TABLE ${table} DROP CONSTRAINT ${table}_small`);
      if (rows > 0)
        await world.control.query('UPDATE table_mappings SET is_full_sync = 0 WHERE mapping_id = $1', [mapping]);
      await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
      await equal(world, table);
    });

  it('F36: of a table without a key each refused row counts, also those that are the same, and no value is kept', async () => {
    await world.source.query(`CREATE TABLE twins (v text, n int)`);
    await world.destination.query(
      `CREATE DOMAIN brief AS text CHECK (length(VALUE) < 5); CREATE TABLE twins (v brief, n int)`,
    );
    await world.source.query(`INSERT INTO twins SELECT 'fine', i FROM generate_series(1, 300) i`);
    await world.source.query(`INSERT INTO twins VALUES ('too long', 1), ('too long', 2), ('too long', 2)`);
    const mapping = await world.map('twins', { cdc_enabled: 0, max_failed_rows: 2 });
    await world.state(mapping, 'failed');
    await world.control.query('UPDATE table_mappings SET max_failed_rows = 3 WHERE mapping_id = $1', [mapping]);
    await equal(world, `(SELECT * FROM twins WHERE v = 'fine')`, 'twins');
    const kept = new Set((await letters(mapping)).map((row) => String(row['key_text'])));
    expect([...kept].map((key) => key.replace(/[0-9a-f]{32}/, 'sum'))).to.have.members([
      '["sum","1"]',
      '["sum","1"]',
      '["sum","2"]',
    ]);
  });

  it('F36: a row that a copy left out, changed while it runs, is left out of what is folded too', async () => {
    await world.source.query(`CREATE TABLE folded (id int PRIMARY KEY, v text, n int, large text)`);
    // What an update of another column does not carry: it is asked of the source each time, for a row that is not there.
    await world.source.query(`ALTER TABLE folded ALTER large SET STORAGE EXTERNAL`);
    await world.destination.query(
      `CREATE DOMAIN four AS text CHECK (length(VALUE) < 5); CREATE TABLE folded (id int PRIMARY KEY, v four, n int, large text)`,
    );
    await world.source.query(
      `INSERT INTO folded SELECT i, CASE WHEN i % 1000 = 7 THEN 'too long' ELSE 'ok' END, 0, repeat('l', CASE WHEN i % 1000 < 10 THEN 3000 ELSE 1 END) FROM generate_series(1, 5000) i`,
    );
    let stop = false;
    const writing = (async () => {
      while (!stop) await world.source.query(`UPDATE folded SET n = n + 1 WHERE id % 1000 < 10`);
    })();
    const mapping = await world.map('folded', { max_failed_rows: 5 });
    try {
      await world.state(mapping, 'streaming');
    } finally {
      stop = true;
      await writing;
    }
    await equal(world, '(SELECT * FROM folded WHERE id % 1000 <> 7)');
    expect(await world.destination.query(`SELECT id FROM folded WHERE id % 1000 = 7`)).to.deep.equal([]);
  });
});
