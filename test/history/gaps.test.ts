import { expect } from 'chai';
import { createWorld, equal, eventually, type TestService, type World } from '../support/service.ts';
import { skip } from '../support/skip.ts';

/** A gap is a state, never a skip (invariant 5). */
describe('history lost at the source or at the destination', () => {
  let world: World;
  let service: TestService;
  let mapping: number;

  beforeEach(async () => {
    world = await createWorld({ cdc_check_interval_seconds: 1 });
    await world.source.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await world.source.query(`INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 100) i`);
    mapping = await world.map('items');
    service = await world.start();
    await world.state(mapping, 'streaming');
    await equal(world, 'items');
  });
  afterEach(() => world.close());

  const slot = async () => {
    const [row] = await world.source.query<{ slot_name: string }>(
      'SELECT slot_name FROM pg_replication_slots WHERE database = current_database()',
    );
    return row?.slot_name ?? '';
  };
  const errorOf = async () => {
    const [row] = await world.control.query<{ error_code: string; error_hint: string }>(
      'SELECT error_code, error_hint FROM mapping_state WHERE mapping_id = $1',
      [mapping],
    );
    return row;
  };
  const resync = async () => {
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming');
    await equal(world, 'items');
  };

  it('F10 F17: a slot dropped while the service was stopped is a gap; a full sync mends it', async () => {
    await service.stop();
    await world.source.query('SELECT pg_drop_replication_slot($1)', [await slot()]);
    await world.source.query(`INSERT INTO items VALUES (1000, 'lost')`);
    await world.start();
    await world.state(mapping, 'gap');
    expect((await errorOf())?.error_code).to.equal('GAP');
    // Nothing is skipped over: the destination stays as it was.
    const [row] = await world.destination.query('SELECT count(*)::int AS n FROM items');
    expect(row?.['n']).to.equal(100);
    await resync();
  });

  it('F10: on_gap = resync copies again by itself', async () => {
    await world.control.query(`UPDATE table_mappings SET on_gap = 'resync' WHERE mapping_id = $1`, [mapping]);
    await service.stop();
    await world.source.query('SELECT pg_drop_replication_slot($1)', [await slot()]);
    await world.source.query(`INSERT INTO items VALUES (1000, 'lost')`);
    await world.start();
    await equal(world, 'items', 'items', 20_000);
    await world.state(mapping, 'streaming');
  });

  it('F12: no changes for long, and log recycled meanwhile, is no gap: the position advances on idle cycles', async () => {
    const positionOf = async () =>
      (await world.destination.query<{ position: string }>('SELECT position FROM sluice.positions'))[0]?.position;
    const before = await positionOf();
    // Traffic of another kind: a table that is not mapped.
    await world.source.query('CREATE TABLE other AS SELECT i FROM generate_series(1, 20000) i');
    await eventually(async () => {
      if ((await positionOf()) === before) throw new Error('the position stands still');
    });
    const [confirmed] = await world.source.query<{ behind: number }>(
      'SELECT (pg_current_wal_insert_lsn() - confirmed_flush_lsn)::float8 AS behind FROM pg_replication_slots WHERE database = current_database()',
    );
    await eventually(async () => {
      const [now] = await world.source.query<{ behind: number }>(
        'SELECT (pg_current_wal_insert_lsn() - confirmed_flush_lsn)::float8 AS behind FROM pg_replication_slots WHERE database = current_database()',
      );
      if ((now?.behind ?? Infinity) > 200_000)
        throw new Error(`the slot still holds ${now?.behind} bytes (${confirmed?.behind} before)`);
    });
    await service.stop();
    await world.start();
    await world.source.query(`INSERT INTO items VALUES (1001, 'after')`);
    await equal(world, 'items');
    await world.state(mapping, 'streaming');
  });

  it('F17: a table taken out of the publication behind our back is a gap', async () => {
    await world.source.query(`ALTER PUBLICATION ${await slot()} DROP TABLE items`);
    await world.source.query(`INSERT INTO items VALUES (1000, 'unseen')`);
    await world.state(mapping, 'gap');
    await resync();
    await world.source.query(`INSERT INTO items VALUES (1001, 'seen')`);
    await equal(world, 'items');
  });

  it('F17: replica identity nothing is an error that names its fix', async () => {
    await world.source.query('ALTER TABLE items REPLICA IDENTITY NOTHING');
    await world.state(mapping, 'failed');
    const error = await errorOf();
    expect(error?.error_code).to.equal('CDC_NOT_READY');
    expect(error?.error_hint).to.match(/ALTER TABLE .*items.* REPLICA IDENTITY DEFAULT/i);
  });

  it('F17: a slot made anew behind our back is a gap, not a later start', async () => {
    await service.stop();
    const name = await slot();
    await world.source.query('SELECT pg_drop_replication_slot($1)', [name]);
    await world.source.query(`INSERT INTO items VALUES (1000, 'lost')`);
    await world.source.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [name]);
    await world.start();
    await world.state(mapping, 'gap');
    await resync();
  });

  it('F19: a destination restored to before what was acknowledged is a gap', async () => {
    // What a restore does, as seen from outside: rows and position of an earlier moment, in one piece.
    await world.destination.query('CREATE TABLE saved AS SELECT * FROM items');
    await world.destination.query('CREATE TABLE saved_position AS SELECT position FROM sluice.positions');
    for (let i = 0; i < 5; i++)
      await world.source.query('INSERT INTO items VALUES ($1, $2)', [2000 + i, 'x'.repeat(100)]);
    await equal(world, 'items');
    await eventually(async () => {
      const [row] = await world.source.query<{ ahead: boolean }>(
        `SELECT confirmed_flush_lsn > ('0/0'::pg_lsn + ('x' || right($1, 16))::bit(64)::bigint::numeric) AS ahead FROM pg_replication_slots WHERE database = current_database()`,
        [(await world.destination.query<{ position: string }>('SELECT position FROM saved_position'))[0]?.position],
      );
      if (!row?.ahead) throw new Error('not acknowledged yet');
    });
    await service.stop();
    await world.destination.query('TRUNCATE items');
    await world.destination.query('INSERT INTO items SELECT * FROM saved');
    await world.destination.query('UPDATE sluice.positions SET position = (SELECT position FROM saved_position)');
    await world.start();
    await world.state(mapping, 'gap');
    await resync();
  });

  it('F19: a destination that lost what Sluice kept in it is a gap', async () => {
    await service.stop();
    await world.destination.query('DROP SCHEMA sluice CASCADE');
    await world.start();
    await world.state(mapping, 'gap');
    await resync();
  });

  it('F47: deleting the last mapping drops its slot and publication, also while the service was stopped', async () => {
    await service.stop();
    await world.control.query('DELETE FROM table_mappings WHERE mapping_id = $1', [mapping]);
    await world.start();
    await eventually(async () => {
      const left = await world.source.query(
        'SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() UNION ALL SELECT pubname::text FROM pg_publication',
      );
      if (left.length > 0) throw new Error(`still there: ${JSON.stringify(left)}`);
    });
    // The rows stay; what Sluice kept beside them goes.
    const [rows] = await world.destination.query('SELECT count(*)::int AS n FROM items');
    expect(rows?.['n']).to.equal(100);
    await eventually(async () => {
      const kept = await world.destination.query(
        'SELECT mapping_uid FROM sluice.generations UNION ALL SELECT stream FROM sluice.positions',
      );
      if (kept.length > 0) throw new Error('still kept');
    });
    expect(await world.control.query('SELECT * FROM source_objects')).to.have.length(0);
  });

  it('F47: what another process still held when the last mapping was deleted is dropped later, although nothing changes any more', async function () {
    if (!process.env['SLUICE_TEST_LONG']) skip(this, 'takes long: npm run test:long');
    await service.stop();
    const held = `lease_key, 'another', now(), now(), now() + interval '10 seconds' FROM (SELECT 'stream:' || stream AS lease_key FROM mapping_state) s`;
    await world.control.query('DELETE FROM leases');
    await world.control.query(
      `INSERT INTO leases (lease_key, owner, acquired_at, renewed_at, expires_at) SELECT ${held}`,
    );
    await world.control.query('DELETE FROM table_mappings WHERE mapping_id = $1', [mapping]);
    await world.start();
    await eventually(async () => {
      const left = await world.source.query(
        'SELECT slot_name FROM pg_replication_slots WHERE database = current_database()',
      );
      if (left.length > 0) throw new Error(`still there: ${JSON.stringify(left)}`);
    }, 60_000);
  });

  it('F47: one of two mappings deleted leaves the stream to the other', async () => {
    await world.source.query('CREATE TABLE more (id int PRIMARY KEY)');
    const other = await world.map('more');
    await world.state(other, 'streaming');
    await world.control.query('DELETE FROM table_mappings WHERE mapping_id = $1', [mapping]);
    await eventually(async () => {
      const tables = await world.source.query('SELECT tablename FROM pg_publication_tables');
      if (tables.length !== 1) throw new Error('the table is still published');
    });
    await world.source.query('INSERT INTO more VALUES (1)');
    await equal(world, 'more');
  });

  it('a mapping disabled and enabled again catches up from its backlog', async () => {
    await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'paused');
    await world.source.query(`UPDATE items SET v = 'while away' WHERE id <= 10`);
    await world.source.query('DELETE FROM items WHERE id = 11');
    await world.source.query('UPDATE items SET id = 5000 WHERE id = 12');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const [still] = await world.destination.query(`SELECT count(*)::int AS n FROM items WHERE v = 'while away'`);
    expect(still?.['n']).to.equal(0);
    await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'streaming');
    await equal(world, 'items');
  });

  it('F48: the backlog of a paused mapping past its limit is dropped, and the mapping is in gap', async () => {
    await world.control.query(`UPDATE config SET config_value = '1048576' WHERE config_key = 'backlog_max_bytes'`);
    await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $1', [mapping]);
    await world.state(mapping, 'paused');
    await world.source.query(
      `INSERT INTO items SELECT i, md5(i::text) || repeat('x', 500) FROM generate_series(10000, 16000) i`,
    );
    await world.state(mapping, 'gap');
    expect((await errorOf())?.error_code).to.equal('BACKLOG_FULL');
    await eventually(async () => {
      const tables = await world.destination.query(
        `SELECT 1 FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace WHERE nspname = 'sluice' AND relname LIKE 'backlog%' AND relkind = 'r'`,
      );
      if (tables.length > 0) throw new Error('the backlog is still there');
    });
    await world.control.query('UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = $1', [mapping]);
    await resync();
  });
});
