import { expect } from 'chai';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

describe('the source’s columns change while its rows are followed', () => {
  let world: World;
  before(async () => {
    world = await createWorld();
    await world.start();
  });
  after(() => world.close());

  /** A table of two rows, mapped and followed. */
  async function follow(table: string, columns: string): Promise<number> {
    await world.source.query(`CREATE TABLE ${table} (id int PRIMARY KEY, ${columns})`);
    await world.source.query(`INSERT INTO ${table} (id) VALUES (1), (2)`);
    const mapping = await world.map(table);
    await world.state(mapping, 'streaming');
    return mapping;
  }

  async function requests(mapping: number): Promise<string[]> {
    const rows = await world.control.query<{ reason: string }>(
      'SELECT reason FROM full_sync_requests WHERE mapping_id = $1 ORDER BY request_id',
      [mapping],
    );
    return rows.map((row) => row.reason);
  }

  async function logged(mapping: number, text: string): Promise<void> {
    await eventually(async () => {
      const rows = await world.control.query(
        `SELECT 1 FROM sync_logs WHERE mapping_id = $1 AND log_message LIKE '%' || $2 || '%'`,
        [mapping, text],
      );
      if (rows.length !== 1) throw new Error(`${rows.length} lines of sync_logs say ${text}`);
    });
  }

  async function error(mapping: number): Promise<Record<string, unknown>> {
    const [row] = await world.control.query(
      'SELECT s.state, s.error_code, s.error_message, s.error_hint FROM table_mappings m JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1',
      [mapping],
    );
    return row ?? {};
  }

  /** Columns in another order would print another row: compared by name. */
  async function equalByName(table: string, columns: string): Promise<void> {
    await equal(world, `(SELECT ${columns} FROM ${table})`);
  }

  it('F26: a nullable column without default is added in place, no value of it lost, no copy made', async () => {
    const mapping = await follow('added', 'v text');
    // In one transaction with rows before and after; large values that are not sent again.
    await world.source.query(`ALTER TABLE added ALTER v SET STORAGE EXTERNAL`);
    await world.source.query(`UPDATE added SET v = repeat('v', 10000) WHERE id = 2`);
    await world.source
      .query(`BEGIN; INSERT INTO added VALUES (3, 'before'); ALTER TABLE added ADD COLUMN n numeric(10,2);
      INSERT INTO added VALUES (4, 'after', 1.50); UPDATE added SET n = 2 WHERE id = 2; COMMIT`);
    await world.source.query(`ALTER TABLE added ADD COLUMN "e m" text COLLATE "C", ADD COLUMN list int[]`);
    await world.source.query(`UPDATE added SET "e m" = '', list = '{1,NULL}' WHERE id = 1`);
    await equal(world, 'added');
    expect(await requests(mapping)).to.deep.equal(['initial']);
    await logged(mapping, 'columns added in place: n');

    // And the copy that somebody asks for later finds nothing to change.
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await eventually(async () => void expect(await requests(mapping)).to.have.length(2));
    await world.state(mapping, 'streaming');
    await equal(world, 'added');
  });

  it('F26: a column of a new enum type is added in place with its type', async () => {
    await follow('enums', 'v text');
    await world.source.query(`CREATE TYPE colour AS ENUM ('red', 'it''s \\green')`);
    await world.source.query(`ALTER TABLE enums ADD COLUMN c colour`);
    await world.source.query(`UPDATE enums SET c = 'it''s \\green' WHERE id = 1`);
    await equal(world, 'enums');
  });

  for (const [name, ddl] of [
    ['a constant default', `ALTER TABLE # ADD COLUMN d int DEFAULT 7`],
    ['a volatile default', `ALTER TABLE # ADD COLUMN d uuid DEFAULT gen_random_uuid()`],
    ['NOT NULL and a default', `ALTER TABLE # ADD COLUMN d text NOT NULL DEFAULT 'x'`],
    ['an identity', `ALTER TABLE # ADD COLUMN d int GENERATED ALWAYS AS IDENTITY`],
  ] as const)
    it(`F28: a column added with ${name}: existing rows get its values by one copy`, async () => {
      const table = `with_${name.replaceAll(/\W/g, '_')}`.toLowerCase();
      const mapping = await follow(table, 'v text');
      await world.source.query(ddl.replace('#', table));
      await world.source.query(`INSERT INTO ${table} (id, v) VALUES (3, 'after')`);
      await world.source.query(`UPDATE ${table} SET v = 'changed' WHERE id = 2`);
      await equal(world, table, table, 20_000);
      await eventually(async () => void expect(await requests(mapping)).to.deep.equal(['initial', 'schema_change']));
      await world.state(mapping, 'streaming');
      await world.source.query(`INSERT INTO ${table} (id, v) VALUES (4, 'and on')`);
      await equal(world, table);
    });

  for (const [name, first, reasons] of [
    ['filled by a copy', 'int DEFAULT 7', ['initial', 'schema_change', 'schema_change']],
    ['followed in place', 'int', ['initial', 'schema_change']],
  ] as const)
    it(`F26 F28: a column that was ${name}, dropped, and added again with a default: the copy that it needs is made`, async () => {
      const table = `again_${name.replaceAll(' ', '_')}`;
      const mapping = await follow(table, 'v text');
      await world.source.query(`ALTER TABLE ${table} ADD COLUMN d ${first}`);
      await world.source.query(`UPDATE ${table} SET d = id WHERE id = 1`);
      await equal(world, table);
      await world.source.query(`ALTER TABLE ${table} DROP COLUMN d`);
      await world.source.query(`UPDATE ${table} SET v = 'without it' WHERE id = 2`);
      await equalByName(table, 'id, v');
      await world.source.query(`ALTER TABLE ${table} ADD COLUMN d int DEFAULT 8`);
      await world.source.query(`UPDATE ${table} SET v = 'with it' WHERE id = 2`);
      await equalByName(table, 'id, v, d');
      expect(await requests(mapping)).to.deep.equal(reasons);
    });

  it('F28: a nullable column that is backfilled by UPDATE is followed in place', async () => {
    const mapping = await follow('backfilled', 'v text');
    await world.source.query(`ALTER TABLE backfilled ADD COLUMN b int`);
    await world.source.query(`UPDATE backfilled SET b = id * 10`);
    await world.source.query(`ALTER TABLE backfilled ALTER b SET NOT NULL, ALTER b SET DEFAULT 5`);
    await world.source.query(`INSERT INTO backfilled (id) VALUES (3)`);
    await equal(world, 'backfilled');
    expect(await requests(mapping)).to.deep.equal(['initial']);
  });

  it('F26: a dropped column stays at the destination and is no longer written; added again, it is filled by a copy', async () => {
    const mapping = await follow('dropped', `v text, w int DEFAULT 1`);
    await world.source.query(`UPDATE dropped SET v = 'old'`);
    await world.source.query(`ALTER TABLE dropped DROP COLUMN v`);
    await world.source.query(`INSERT INTO dropped (id, w) VALUES (3, 3)`);
    await world.source.query(`UPDATE dropped SET w = 2 WHERE id = 2`);
    await equalByName('dropped', 'id, w');
    await logged(mapping, 'columns dropped at the source');
    const kept = await world.destination.query(`SELECT v FROM dropped ORDER BY id`);
    expect(kept.map((row) => row['v'])).to.deep.equal(['old', 'old', null]);

    await world.source.query(`ALTER TABLE dropped ADD COLUMN v text`);
    await world.source.query(`UPDATE dropped SET v = 'new' WHERE id = 1`);
    await equalByName('dropped', 'id, w, v');
    expect(await requests(mapping)).to.deep.equal(['initial', 'schema_change']);
  });

  it('F26: a dropped column that the destination requires stops the mapping with the statement that helps', async () => {
    await world.source.query(`CREATE TABLE required (id int PRIMARY KEY, v text NOT NULL DEFAULT 'x')`);
    await world.destination.query(`CREATE TABLE required (id int PRIMARY KEY, v text NOT NULL)`);
    const mapping = await world.map('required');
    await world.state(mapping, 'streaming');
    await world.source.query(`ALTER TABLE required DROP COLUMN v`);
    await world.source.query(`INSERT INTO required VALUES (1)`);
    await world.state(mapping, 'failed');
    const failed = await error(mapping);
    expect(failed).to.include({ error_code: 'SCHEMA_CHANGED' });
    await world.destination.query(String(failed['error_hint']));
    await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'paused');
    await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming');
    await equalByName('required', 'id');
  });

  it('F26: a renamed column is one dropped and one added: filled by a copy', async () => {
    const mapping = await follow('renamed', `old_name text DEFAULT 'v'`);
    await world.source.query(`ALTER TABLE renamed RENAME old_name TO new_name`);
    await world.source.query(`UPDATE renamed SET new_name = 'changed' WHERE id = 1`);
    await equalByName('renamed', 'id, new_name');
    expect(await requests(mapping)).to.deep.equal(['initial', 'schema_change']);
  });

  it('F26 F36: a widened column: what fits goes on; what does not stops the mapping, never cut off', async () => {
    const mapping = await follow('widened', 'v varchar(5)');
    await world.source.query(`ALTER TABLE widened ALTER v TYPE varchar(10)`);
    await world.source.query(`UPDATE widened SET v = '12345' WHERE id = 1`);
    await equal(world, 'widened');
    expect(await requests(mapping)).to.deep.equal(['initial']);

    await world.source.query(`UPDATE widened SET v = '1234567890' WHERE id = 1`);
    await world.state(mapping, 'failed');
    const failed = await error(mapping);
    expect(failed).to.include({ error_code: 'SCHEMA_MISMATCH' });
    expect(failed['error_hint']).to.include(
      'ALTER TABLE "public"."widened" ALTER COLUMN "v" TYPE character varying(10)',
    );
    const [row] = await world.destination.query(`SELECT v FROM widened WHERE id = 1`);
    expect(row?.['v']).to.equal('12345');

    await world.destination.query(String(failed['error_hint']));
    await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'paused');
    await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
    await equal(world, 'widened');
  });

  it('F26: a narrowed column is followed', async () => {
    const mapping = await follow('narrowed', 'v varchar(20)');
    await world.source.query(`ALTER TABLE narrowed ALTER v TYPE varchar(5)`);
    await world.source.query(`UPDATE narrowed SET v = '12345'`);
    await equal(world, 'narrowed', 'narrowed', 20_000);
    await world.state(mapping, 'streaming');
  });

  it('F26: a column retyped with other values: the copy brings them, and needs a type that holds them', async () => {
    const mapping = await follow('retyped', 'v int DEFAULT 3');
    await world.source.query(`ALTER TABLE retyped ALTER v DROP DEFAULT, ALTER v TYPE bigint USING v * 10000000000`);
    await world.source.query(`INSERT INTO retyped VALUES (3, 5)`);
    await world.state(mapping, 'failed');
    await eventually(async () => void expect(await error(mapping)).to.include({ error_code: 'SCHEMA_MISMATCH' }));
    const failed = await error(mapping);
    expect(failed['error_hint']).to.include('ALTER COLUMN "v" TYPE bigint');
    await world.destination.query(String(failed['error_hint']));
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming');
    await equal(world, 'retyped');
  });

  it('F26: made nullable and not null', async () => {
    await world.source.query(`CREATE TABLE nullable (id int PRIMARY KEY, v text NOT NULL DEFAULT '', w text)`);
    const mapping = await world.map('nullable');
    await world.state(mapping, 'streaming');
    await world.source.query(`ALTER TABLE nullable ALTER w SET NOT NULL`);
    await world.source.query(`INSERT INTO nullable VALUES (1, 'v', 'w')`);
    await equal(world, 'nullable');
    await world.source.query(`ALTER TABLE nullable ALTER v DROP NOT NULL`);
    await world.source.query(`INSERT INTO nullable VALUES (2, NULL, 'w')`);
    await world.state(mapping, 'failed');
    expect((await error(mapping))['error_hint']).to.equal(
      'ALTER TABLE "public"."nullable" ALTER COLUMN "v" DROP NOT NULL',
    );
  });

  it('F34: an enum gains a label while streaming', async () => {
    await world.source.query(`CREATE TYPE mood AS ENUM ('sad')`);
    const mapping = await follow('moods', `m mood DEFAULT 'sad'`);
    await world.source.query(`ALTER TYPE mood ADD VALUE 'o''k'`);
    await world.source.query(`UPDATE moods SET m = 'o''k' WHERE id = 1`);
    await world.state(mapping, 'failed');
    const failed = await error(mapping);
    expect(failed['error_hint']).to.equal(`ALTER TYPE public.mood ADD VALUE IF NOT EXISTS 'o''k'`);
    await world.destination.query(String(failed['error_hint']));
    await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'paused');
    await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
    await equal(world, 'moods');
  });

  it('F26: while the mapping is paused: a nullable column is added in place, another brings a copy', async () => {
    const plain = await follow('paused_plain', 'v text');
    const filled = await follow('paused_filled', 'v text');
    await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id IN ($1, $2)', [plain, filled]);
    await world.state(plain, 'paused');
    await world.state(filled, 'paused');
    await world.source.query(`INSERT INTO paused_plain VALUES (3, 'before')`);
    await world.source.query(`ALTER TABLE paused_plain ADD COLUMN n int`);
    await world.source.query(`UPDATE paused_plain SET n = 1 WHERE id = 1`);
    await world.source.query(`INSERT INTO paused_filled VALUES (3, 'before')`);
    await world.source.query(`ALTER TABLE paused_filled ADD COLUMN n int DEFAULT 9`);
    await world.source.query(`UPDATE paused_filled SET v = 'after' WHERE id = 1`);
    await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id IN ($1, $2)', [plain, filled]);
    await equal(world, 'paused_plain');
    await equal(world, 'paused_filled');
    expect(await requests(plain)).to.deep.equal(['initial']);
    expect(await requests(filled)).to.deep.equal(['initial', 'schema_change']);
  });

  it('F26: a renamed table: said, its changes kept; renamed back, nothing is lost', async () => {
    const mapping = await follow('first_name', 'v text');
    await world.source.query('ALTER TABLE first_name RENAME TO other_name');
    await world.source.query(
      `INSERT INTO other_name VALUES (3, 'under the other name'); DELETE FROM other_name WHERE id = 1`,
    );
    await world.state(mapping, 'failed');
    await eventually(async () => {
      const rows = await world.control.query(
        `SELECT 1 FROM error_logs WHERE mapping_id = $1 AND error_code = 'SOURCE_TABLE_REPLACED' AND error_message LIKE '%renamed to public.other_name%'`,
        [mapping],
      );
      if (rows.length === 0) throw new Error('not said');
    });
    await world.source.query(`UPDATE other_name SET v = 'still' WHERE id = 2`);
    // Tried again before it has its name back: nothing is folded.
    const again = async () => {
      await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
      await world.state(mapping, 'paused');
      await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
    };
    await again();
    await world.state(mapping, 'failed');
    expect((await error(mapping))['error_code']).to.equal('SOURCE_TABLE_MISSING');
    expect(await world.destination.query('SELECT count(*)::int AS n FROM first_name')).to.deep.equal([{ n: 2 }]);
    await world.source.query('ALTER TABLE other_name RENAME TO first_name');
    await again();
    await world.state(mapping, 'streaming');
    await equal(world, 'first_name');
    expect(await requests(mapping)).to.deep.equal(['initial']);
  });

  it('F26: a renamed table whose mapping follows the new name', async () => {
    const mapping = await follow('old_name', 'v text');
    await world.source.query('ALTER TABLE old_name RENAME TO new_name');
    await world.source.query(`INSERT INTO new_name VALUES (3, 'new')`);
    await world.state(mapping, 'failed');
    await world.control.query(
      `UPDATE table_mappings SET source_table = 'new_name', dest_table = 'old_name' WHERE mapping_id = $1`,
      [mapping],
    );
    await world.state(mapping, 'streaming');
    await equal(world, 'new_name', 'old_name');
  });
});
