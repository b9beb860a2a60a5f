import { expect } from 'chai';
import { createWorld, equal, eventually, type World } from '../support/service.ts';

const PARENT = `id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, changed int DEFAULT 0`;

describe('foreign keys, triggers and identity columns at the destination', () => {
  let world: World;
  const role = `limited_${process.pid}`;
  before(async () => {
    world = await createWorld();
    await world.source.query(`CREATE TABLE parent (${PARENT})`);
    await world.source.query(
      `CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent ON DELETE CASCADE)`,
    );
    await world.source.query(`INSERT INTO parent (name) SELECT 'p' || i FROM generate_series(1, 20) i`);
    await world.source.query(`INSERT INTO child SELECT i, i FROM generate_series(1, 20) i`);
    await world.start();
  });
  after(() => world.close());

  /** Tables with a trigger that changes rows and a cascade that removes them. */
  async function guarded(schema: string): Promise<void> {
    await world.destination.query(`CREATE SCHEMA ${schema}`);
    await world.destination.query(`CREATE TABLE ${schema}.parent (${PARENT})`);
    await world.destination.query(
      `CREATE TABLE ${schema}.child (id int PRIMARY KEY, parent int NOT NULL REFERENCES ${schema}.parent ON DELETE CASCADE)`,
    );
    await world.destination.query(`CREATE FUNCTION ${schema}.touch() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN NEW.changed := 99; RETURN NEW; END $$`);
    await world.destination.query(
      `CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON ${schema}.parent FOR EACH ROW EXECUTE FUNCTION ${schema}.touch()`,
    );
  }

  it('F45: a login that may suspend them: rows arrive as they are, in any order', async () => {
    await guarded('free');
    // The child before its parents.
    await world.state(await world.map('child', { dest_schema: 'free' }), 'streaming');
    const parent = await world.map('parent', { dest_schema: 'free' });
    await world.state(parent, 'streaming');
    await world.source
      .query(`BEGIN; INSERT INTO parent (name) VALUES ('new'); INSERT INTO child SELECT 1000 + id, id FROM parent;
      DELETE FROM parent WHERE id % 5 = 0; UPDATE parent SET name = name || '!' WHERE id % 3 = 0; COMMIT`);
    await equal(world, 'parent', 'free.parent');
    await equal(world, 'child', 'free.child');
    await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [parent]);
    await eventually(async () => {
      const [row] = await world.control.query('SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1', [
        parent,
      ]);
      expect(row?.['is_full_sync']).to.equal(0);
    });
    await equal(world, 'parent', 'free.parent');
    await equal(world, 'child', 'free.child');
  });

  it('F45: a login that may not: the schema check says so with the statement that helps, and then it works', async () => {
    await guarded('bound');
    await world.destination.query(`CREATE ROLE ${role} LOGIN PASSWORD 'limited'`);
    try {
      await world.destination.query(`GRANT CREATE ON DATABASE "${world.destination.name}" TO ${role}`);
      await world.destination.query(`GRANT USAGE, CREATE ON SCHEMA bound TO ${role}`);
      await world.destination.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA bound TO ${role}`);
      await world.destination.query(`CREATE TABLE bound.plain (id int PRIMARY KEY)`);
      await world.destination.query(`ALTER TABLE bound.plain OWNER TO ${role}`);
      await world.destination.query(
        `GRANT ALL ON ALL TABLES IN SCHEMA sluice TO ${role}; GRANT ALL ON SCHEMA sluice TO ${role}`,
      );
      await world.source.query(`CREATE TABLE plain (id int PRIMARY KEY)`);
      const url = new URL(world.destination.url);
      url.username = role;
      url.password = 'limited';
      await world.control.query(
        `INSERT INTO destination_servers (server_name, connection_string) VALUES ('limited', $1)`,
        [url.toString()],
      );
      const columns = { dest_schema: 'bound', dest_server_id: 1, apply_group: 'limited' };
      const parent = await world.map('parent', columns);
      await world.state(parent, 'failed');
      // The group's session is opened now, without the right.
      await world.state(await world.map('plain', columns), 'streaming');
      const [row] = await world.control.query(
        `SELECT s.error_code, s.error_message, s.error_hint FROM table_mappings m JOIN mapping_state s USING (mapping_uid) WHERE m.mapping_id = $1`,
        [parent],
      );
      expect(row).to.include({ error_code: 'DESTINATION_GUARDED' });
      expect(row?.['error_message']).to.include('touch');
      expect(await world.destination.query('SELECT * FROM bound.parent')).to.deep.equal([]);

      await world.destination.query(String(row?.['error_hint']));
      await world.control.query('UPDATE table_mappings SET is_full_sync = 1 WHERE mapping_id = $1', [parent]);
      await world.state(parent, 'streaming');
      await world.source.query(`UPDATE parent SET name = name || '?' WHERE id % 2 = 0`);
      await equal(world, 'parent', 'bound.parent');
    } finally {
      await world.control.query('UPDATE table_mappings SET is_enabled = 0 WHERE dest_server_id = 1');
      await world.destination.query(`DROP OWNED BY ${role} CASCADE`).catch(() => undefined);
    }
  });
});
