/** F51: a person edits, disables or deletes in the middle of a full sync. */
import { expect } from 'chai';
import { createDatabase, testServer } from '../support/postgres.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';
import { startRecorded, type RecordedService } from './support.ts';

const ROWS = 6_000;

describe('F51: edits in the middle of a full sync', function () {
  this.timeout(60_000);
  let world: World;
  let service: RecordedService;
  /** Never touched: goes on beside whatever happens to the other. */
  let other: number;

  beforeEach(async () => {
    world = await createWorld({ copy_chunk_bytes: 1024 * 1024, copy_parallelism: 1 });
    await world.source.query(
      `CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text, go smallint DEFAULT 0)`,
    );
    await world.source.query(
      `INSERT INTO t SELECT i, 'c' || i, repeat('x', 1000) FROM generate_series(1, ${ROWS}) i; ANALYZE t; ALTER TABLE t REPLICA IDENTITY FULL`,
    );
    await world.source.query(`CREATE TABLE other (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO other VALUES (1, 'a')`);
    other = await world.map('other');
  });
  afterEach(async () => {
    await service.stop();
    await world.close();
  });

  /** Waits until some chunks are in and some are not. */
  const inTheMiddle = (id: number) =>
    eventually(async () => {
      const [run] = await world.control.query<{ phase: string }>(
        `SELECT phase FROM sync_status WHERE mapping_id = $1 AND status = 'RUNNING' AND sync_type = 'FULL_SYNC'`,
        [id],
      );
      if (!/^copying [1-9]/.test(run?.phase ?? '')) throw new Error(`not copying: ${run?.phase}`);
    }, 15_000);
  const setSpeed = (bytesPerSecond: number) =>
    world.control.query(`UPDATE config SET config_value = $1 WHERE config_key = 'copy_max_bytes_per_second'`, [
      String(bytesPerSecond),
    ]);
  const fullSpeed = () => setSpeed(0);
  /** Nine chunks, one or two a second: the edit falls into the copy. */
  const slow = () => setSpeed(2_500_000);
  const start = async () => {
    service = await startRecorded(world.control.name);
  };
  const leftovers = async () =>
    (
      await world.destination.query<{ relname: string }>(
        `SELECT relname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
          WHERE s.nspname = 'sluice' AND c.relkind = 'r' AND c.relname ~ '^(stage|backlog)_'`,
      )
    ).map((row) => row.relname);
  const otherGoesOn = async () => {
    await world.source.query(`UPDATE other SET v = v || 'b'`);
    await equal(world, 'other');
    await world.state(other, 'streaming');
  };
  const change = (columns: string, id: number) =>
    world.control.query(`UPDATE table_mappings SET ${columns} WHERE mapping_id = $1`, [id]);

  for (const isFirst of [true, false]) {
    const when = isFirst ? 'the first copy' : 'a copy of a live table';
    const begin = async () => {
      if (isFirst) await slow();
      await start();
      const id = await world.map('t');
      if (!isFirst) {
        await world.state(id, 'streaming', 30);
        await slow();
        await new Promise((resolve) => setTimeout(resolve, 1100)); // read with the next poll
        await change('is_full_sync = 1', id);
      }
      await inTheMiddle(id);
      await fullSpeed();
      return id;
    };
    /** The edit took effect: no copy by the old row is under way, and one by the new row has finished. */
    const copiedAgain = (id: number) =>
      eventually(async () => {
        const [row] = await world.control.query<{ done: boolean }>(
          `SELECT count(*) FILTER (WHERE r.status IN ('queued', 'running')) = 0
              AND count(*) FILTER (WHERE r.status = 'completed' AND r.reason <> 'flag' AND r.requested_at > m.updated_at) > 0 AS done
             FROM full_sync_requests r JOIN table_mappings m USING (mapping_id) WHERE mapping_id = $1 GROUP BY mapping_id`,
          [id],
        );
        if (!row?.done) throw new Error('the copy by the new row has not finished');
      }, 20_000);
    const followed = async (id: number, target: string) => {
      await world.source.query(`UPDATE t SET v = 'changed' WHERE id % 1000 = 1; DELETE FROM t WHERE id % 1000 = 2`);
      await eventually(async () => {
        const found = await world.destination.query(`SELECT to_regclass('${target}') AS name`);
        if (found[0]?.['name'] === null) throw new Error(`${target} is not there`);
      }, 20_000);
      await equal(world, 't', target, 20_000);
      await world.state(id, 'streaming');
      // And it stays: what arrives now goes to the new place.
      await world.source.query(`INSERT INTO t VALUES (${ROWS + 1}, 'new', 'new')`);
      await equal(world, 't', target);
      await otherGoesOn();
      await eventually(async () => {
        const kept = await world.destination.query(
          `SELECT last_generation, live_generation, copy_generation, backlog, backlog_generation, is_live FROM sluice.generations`,
        );
        expect(await leftovers(), JSON.stringify(kept)).to.deep.equal([]);
      });
    };

    // Of a live table one edit by default: the others take the same way.
    const itLong = isFirst || process.env['SLUICE_TEST_LONG'] !== undefined ? it : null;

    itLong?.(`F51: another dest_table during ${when}`, async () => {
      const id = await begin();
      await change(`dest_table = 'elsewhere'`, id);
      await followed(id, 'elsewhere');
    });

    itLong?.(`F51: another key during ${when}`, async () => {
      const id = await begin();
      await change(`primary_key_column = 'code'`, id);
      await copiedAgain(id);
      await followed(id, 't');
      const [route] = await world.destination.query<{ key: string }>(
        `SELECT live_route->>'key' AS key FROM sluice.generations WHERE live_route->'target'->>'table' = 't'`,
      );
      expect(route?.key).to.equal('["code"]');
    });

    it(`F51: another apply_group during ${when}`, async () => {
      const id = await begin();
      await change(`apply_group = 'heavy'`, id);
      await copiedAgain(id);
      await followed(id, 't');
      const [row] = await world.destination.query<{ apply_group: string }>(
        `SELECT apply_group FROM sluice.generations WHERE live_route->'target'->>'table' = 't'`,
      );
      expect(row?.apply_group).to.equal('heavy');
    });

    itLong?.(`F51: disabled and enabled again during ${when}`, async () => {
      const id = await begin();
      await change('is_enabled = 0', id);
      await world.state(id, 'paused');
      await eventually(async () => {
        const running = await world.control.query(
          `SELECT 1 FROM sync_status WHERE mapping_id = $1 AND status = 'RUNNING' AND sync_type = 'FULL_SYNC'`,
          [id],
        );
        expect(running, 'nothing runs for it').to.deep.equal([]);
      });
      await world.source.query(`UPDATE t SET v = 'while disabled' WHERE id % 1000 = 3`);
      await otherGoesOn();
      await change('is_enabled = 1', id);
      await followed(id, 't');
    });

    itLong?.(
      `F51: deleted during ${when}: the copy ends, nothing is left behind, the table stays as it was`,
      async () => {
        const id = await begin();
        await world.control.query(`DELETE FROM table_mappings WHERE mapping_id = $1`, [id]);
        await eventually(async () => {
          expect(await leftovers()).to.deep.equal([]);
          const rows = await world.destination.query(`SELECT 1 FROM sluice.generations`);
          expect(rows, 'only the other mapping is known').to.have.length(1);
          const state = await world.control.query(`SELECT 1 FROM mapping_state WHERE mapping_id = $1`, [id]);
          expect(state).to.deep.equal([]);
        }, 20_000);
        if (!isFirst) {
          const [count] = await world.destination.query<{ n: string }>(`SELECT count(*) AS n FROM t`);
          expect(Number(count?.n)).to.equal(ROWS);
        }
        await otherGoesOn();
        const [published] = await world.source.query<{ n: string }>(
          `SELECT count(*) AS n FROM pg_publication_tables WHERE tablename = 't'`,
        );
        expect(published?.n, 'no longer published').to.equal('0');
      },
    );
  }

  it('F51: the source server disabled and enabled again during a copy', async () => {
    await slow();
    await start();
    const id = await world.map('t');
    await inTheMiddle(id);
    await fullSpeed();
    await world.control.query(`UPDATE source_servers SET is_enabled = 0`);
    await world.state(id, 'paused');
    await world.state(other, 'paused');
    await eventually(async () => {
      const sessions = await world.source.query(
        `SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'walsender'`,
      );
      expect(sessions, 'a disabled server is not read').to.deep.equal([]);
    });
    await world.source.query(
      `UPDATE t SET v = 'while disabled' WHERE id % 1000 = 3; INSERT INTO other VALUES (2, 'b')`,
    );
    await world.control.query(`UPDATE source_servers SET is_enabled = 1`);
    await world.state(id, 'streaming', 20);
    await equal(world, 't');
    await equal(world, 'other');
  });

  it('F51: a connection string that says the same in other words: the copy and the stream go on by it', async () => {
    await slow();
    await start();
    const id = await world.map('t');
    await inTheMiddle(id);
    await fullSpeed();
    await world.control.query(`UPDATE source_servers SET connection_string = connection_string || '?sslmode=disable'`);
    await world.state(id, 'streaming', 20);
    await equal(world, 't');
    await world.source.query(`INSERT INTO t VALUES (${ROWS + 1}, 'new', 'new')`);
    await equal(world, 't');
    const gaps = await world.control.query(`SELECT * FROM error_logs WHERE error_code = 'GAP'`);
    expect(gaps).to.deep.equal([]);
  });

  it('F51: the connection string of the destination changed: changes go on to arrive there', async () => {
    const server = await testServer();
    await world.control.query(
      `INSERT INTO destination_servers (server_name, connection_string) VALUES ('d', '${server.url(world.destination.name)}')`,
    );
    await start();
    const id = await world.map('t', { dest_server_id: 1, dest_table: 'moved' });
    await world.state(id, 'streaming', 20);
    await world.control.query(
      `UPDATE destination_servers SET connection_string = connection_string || '?sslmode=disable'`,
    );
    await world.source.query(`INSERT INTO t VALUES (${ROWS + 1}, 'new', 'new')`);
    await equal(world, 't', 'moved', 20_000);
    await world.source.query(`UPDATE t SET v = 'later' WHERE id = 1`);
    await equal(world, 't', 'moved');
    await otherGoesOn();
    // Both rows lead to one database: the two groups must not take each other's place.
    expect(service.lines.filter((line) => line.includes('newer owner'))).to.deep.equal([]);
  });

  it('F51: a connection string that leads to another cluster: a gap, never its rows in silence', async () => {
    await start();
    const id = await world.map('t');
    await world.state(id, 'streaming', 20);
    // Another database of the same cluster is another source as well: its slot and its tables are not those.
    const another = await createDatabase('another');
    await another.query(
      `CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text, go smallint DEFAULT 0)`,
    );
    await another.query(`INSERT INTO t VALUES (1, 'not', 'ours')`);
    await world.control.query(`UPDATE source_servers SET connection_string = $1`, [another.url]);
    await eventually(async () => {
      const [row] = await world.control.query<{ state: string; error_code: string | null }>(
        `SELECT state, error_code FROM mapping_state WHERE mapping_id = $1`,
        [id],
      );
      const [count] = await world.destination.query<{ n: string }>(`SELECT count(*) AS n FROM t`);
      // Either it says that it is another source, or it has copied that one anew: never a mixture.
      if (row?.state === 'streaming' && row.error_code === null) expect(count?.n).to.equal('1');
      else expect(row?.state, JSON.stringify(row)).to.be.oneOf(['gap', 'failed']);
    }, 15_000);
    await service.stop();
    await another.drop();
  });

  it('F47 F51: the connection string names another database: its rows replace the former ones, and nothing is left there', async () => {
    const another = await createDatabase('another');
    try {
      await another.query(
        `CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text, go smallint DEFAULT 0);
         CREATE TABLE other (id int PRIMARY KEY, v text)`,
      );
      await another.query(`INSERT INTO t VALUES (1, 'not', 'ours')`);
      await start();
      const id = await world.map('t');
      await world.state(id, 'streaming', 20);
      await world.state(other, 'streaming', 20);
      await world.control.query(`UPDATE source_servers SET connection_string = $1`, [another.url]);
      await eventually(async () => {
        expect(await world.destination.query('SELECT id, v FROM t')).to.deep.equal([{ id: 1, v: 'ours' }]);
      }, 20_000);
      await another.query(`INSERT INTO t VALUES (2, 'also', 'theirs')`);
      await eventually(async () => {
        expect(await world.destination.query('SELECT id FROM t ORDER BY id')).to.deep.equal([{ id: 1 }, { id: 2 }]);
      }, 20_000);
      await world.state(id, 'streaming', 20);
      await eventually(async () => {
        const slots = 'SELECT slot_name FROM pg_replication_slots WHERE database = current_database()';
        expect(await world.source.query(slots)).to.deep.equal([]);
        expect(await world.source.query('SELECT pubname FROM pg_publication')).to.deep.equal([]);
        expect(await another.query(slots)).to.have.length(1);
        const groups = await world.destination.query('SELECT DISTINCT stream FROM sluice.positions');
        expect(groups).to.have.length(1);
      }, 20_000);
    } finally {
      await service.stop();
      await another.drop();
    }
  });

  it('F53: is_full_sync and another dest_table in one statement: the rows that are there are replaced', async () => {
    await start();
    const id = await world.map('t');
    await world.state(id, 'streaming', 20);
    await world.destination.query(
      `CREATE TABLE filled (LIKE t INCLUDING ALL); INSERT INTO filled (id, code, v) VALUES (999999, 'stray', 'stray')`,
    );
    await world.control.query(
      `UPDATE table_mappings SET dest_table = 'filled', is_full_sync = 1 WHERE mapping_id = $1`,
      [id],
    );
    await equal(world, 't', 'filled', 20_000);
    await world.state(id, 'streaming', 20);
    const requests = await world.control.query(
      `SELECT reason, status FROM full_sync_requests WHERE mapping_id = $1 ORDER BY request_id`,
      [id],
    );
    expect(requests).to.deep.equal([
      { reason: 'initial', status: 'completed' },
      { reason: 'flag', status: 'completed' },
    ]);
    const [row] = await world.control.query('SELECT is_full_sync FROM table_mappings WHERE mapping_id = $1', [id]);
    expect(row).to.deep.equal({ is_full_sync: 0 });
  });
});
