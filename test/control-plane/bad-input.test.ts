/**
 * Done when 8: whatever a person gets wrong is one line that names its code, its mapping and its fix, in `error_logs` and in
 * the log; and nothing else stops for it.
 */
import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { createWorld, equal, eventually, type World } from '../support/service.ts';
import {
  errorOf,
  errorsOf,
  isOneGoodLine,
  names,
  privateServer,
  startRecorded,
  type PrivateServer,
  type RecordedService,
} from './support.ts';

interface Setting {
  readonly world: World;
  /** `wal_level = replica`, and a role `guarded` whose password is `right`. */
  readonly replica: PrivateServer;
  /** One replication slot, taken. */
  readonly full: PrivateServer;
  /** A database owned by a role that may do all but replicate. */
  readonly unprivileged: TestDatabase;
}

interface Case {
  readonly name: string;
  /** Writes the bad row; resolves to its mapping_id. */
  readonly insert: (setting: Setting) => Promise<number>;
  readonly code: string;
  /** Words of the hint: the fix. */
  readonly fix: RegExp;
}

const CASES: readonly Case[] = [
  {
    name: 'a wrong password',
    insert: async ({ world, replica }) =>
      mapOn(world, `postgres://guarded:wrong@127.0.0.1:${replica.port}/postgres`, 'plain'),
    code: 'LOGIN_FAILED',
    fix: /password/,
  },
  {
    name: 'an unknown host',
    insert: ({ world }) => mapOn(world, 'postgres://postgres@no-such-host.invalid/postgres', 'plain'),
    code: 'SERVER_UNREACHABLE',
    fix: /host and port/,
  },
  {
    name: 'a port where nobody listens',
    insert: ({ world }) => mapOn(world, 'postgres://postgres@127.0.0.1:1/postgres', 'plain'),
    code: 'SERVER_UNREACHABLE',
    fix: /host and port/,
  },
  {
    name: 'a missing table',
    insert: ({ world }) => world.map('no_such_table'),
    code: 'SOURCE_TABLE_MISSING',
    fix: /source_table/,
  },
  {
    name: 'a missing key',
    insert: ({ world }) => world.map('without_key'),
    code: 'KEY_REQUIRED',
    fix: /PRIMARY KEY/,
  },
  {
    name: 'a key that is none',
    insert: ({ world }) => world.map('plain', { primary_key_column: 'v', dest_table: 'key_invalid' }),
    code: 'KEY_INVALID',
    fix: /primary_key_column/,
  },
  {
    name: 'a key column that does not exist',
    insert: ({ world }) => world.map('plain', { primary_key_column: 'nope', dest_table: 'key_unknown' }),
    code: 'KEY_INVALID',
    fix: /primary_key_column/,
  },
  {
    name: 'wal_level that is not logical',
    insert: ({ world, replica }) =>
      mapOn(world, `postgres://guarded:right@127.0.0.1:${replica.port}/postgres`, 'plain'),
    code: 'CDC_NOT_READY',
    fix: /wal_level/,
  },
  {
    name: 'no right to replicate',
    insert: ({ world, unprivileged }) =>
      mapOn(world, unprivileged.url.replace('//postgres@', '//unprivileged@'), 'plain'),
    code: 'PERMISSION_DENIED',
    fix: /REPLICATION/,
  },
  {
    name: 'no free replication slot',
    insert: ({ world, full }) => mapOn(world, full.url('postgres'), 'plain'),
    code: 'CDC_SLOTS_EXHAUSTED',
    fix: /max_replication_slots/,
  },
  {
    name: 'a malformed mapping',
    insert: ({ world }) => world.map('plain', { on_gap: 'panic', dest_table: 'malformed' }),
    code: 'MAPPING_INVALID',
    fix: /on_gap/,
  },
  {
    name: 'a malformed connection string',
    insert: ({ world }) => mapOn(world, 'postgres//forgot-the-colon', 'plain'),
    code: 'ENGINE_UNKNOWN',
    fix: /postgres:\/\//,
  },
  {
    name: 'an engine that does not exist',
    insert: ({ world }) => mapOn(world, 'oracle://scott:tiger@127.0.0.1/orcl', 'plain'),
    code: 'ENGINE_UNKNOWN',
    fix: /postgres/,
  },
  {
    name: 'a secret that is not there',
    insert: ({ world }) =>
      mapOn(world, 'postgres://postgres:${env:SLUICE_NO_SUCH_VARIABLE}@127.0.0.1/postgres', 'plain'),
    code: 'SECRET_UNREADABLE',
    fix: /SLUICE_NO_SUCH_VARIABLE/,
  },
  {
    name: 'a destination that another mapping has',
    insert: ({ world }) => world.map('plain', { dest_table: 'good' }),
    code: 'DESTINATION_TAKEN',
    fix: /dest_table/,
  },
  {
    name: 'a destination that holds rows of somebody else',
    insert: async ({ world }) => {
      await world.destination.query(`CREATE TABLE filled (id int PRIMARY KEY, v text)`);
      await world.destination.query(`INSERT INTO filled VALUES (1, 'not yours')`);
      return world.map('plain', { dest_table: 'filled' });
    },
    code: 'DESTINATION_NOT_EMPTY',
    fix: /is_full_sync = 1.*initial_sync = 'none'/,
  },
  {
    name: 'a destination database that does not exist',
    insert: ({ world }) => world.map('plain', { dest_database: 'no_such_database' }),
    code: 'DATABASE_MISSING',
    fix: /create it/i,
  },
  {
    name: 'a source database that does not exist',
    insert: ({ world }) => world.map('plain', { source_database: 'no_such_database', dest_table: 'from_nowhere' }),
    code: 'DATABASE_MISSING',
    fix: /create it/i,
  },
  {
    name: 'a type that the destination cannot hold',
    insert: async ({ world }) => {
      await world.destination.query(`CREATE TABLE narrow (id int PRIMARY KEY, v int)`);
      return world.map('plain', { dest_table: 'narrow' });
    },
    code: 'SCHEMA_MISMATCH',
    fix: /ALTER TABLE/,
  },
  {
    name: 'initial_sync none without a table',
    insert: ({ world }) => world.map('plain', { dest_table: 'not_there', initial_sync: 'none' }),
    code: 'DESTINATION_TABLE_MISSING',
    fix: /initial_sync = 'copy'/,
  },
];

/** A mapping of a source server of its own. */
async function mapOn(world: World, connectionString: string, table: string): Promise<number> {
  const [server] = await world.control.query<{ server_id: number }>(
    `INSERT INTO source_servers (server_name, connection_string) VALUES ($1, $2) RETURNING server_id`,
    [`server ${randomUUID()}`, connectionString],
  );
  const id = server?.server_id ?? 0;
  return world.map(table, { server_id: id, dest_table: `from_server_${id}` });
}

describe('bad input', function () {
  this.timeout(90_000);
  let setting: Setting;
  let service: RecordedService;
  const mappings = new Map<Case, number>();
  let good = 0;

  before(async () => {
    const [world, replica, full, unprivileged] = await Promise.all([
      // More bad mappings than the queue has places: none of them may keep one.
      createWorld({ parallel_scheduler_count: 3, max_retry_attempts: 1 }),
      privateServer({ wal_level: 'replica' }),
      privateServer({ wal_level: 'logical', max_replication_slots: '1' }),
      createDatabase('unpriv'),
    ]);
    setting = { world, replica, full, unprivileged };
    await replica.query(`CREATE ROLE guarded LOGIN REPLICATION SUPERUSER PASSWORD 'right'`);
    await replica.query(`CREATE TABLE plain (id int PRIMARY KEY, v text)`);
    await replica.authenticate([
      'host all postgres 127.0.0.1/32 trust',
      'host all all 127.0.0.1/32 scram-sha-256',
      'host replication all 127.0.0.1/32 scram-sha-256',
    ]);
    await full.query(`CREATE TABLE plain (id int PRIMARY KEY, v text)`);
    await full.query(`SELECT pg_create_physical_replication_slot('somebody_elses')`);
    await unprivileged.query(
      `DO $$ BEGIN CREATE ROLE unprivileged LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$`,
    );
    await unprivileged.query(`ALTER DATABASE "${unprivileged.name}" OWNER TO unprivileged`);
    await unprivileged.query(
      `CREATE TABLE plain (id int PRIMARY KEY, v text); ALTER TABLE plain OWNER TO unprivileged`,
    );
    await world.source.query(`CREATE TABLE good (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO good SELECT i, 'v' || i FROM generate_series(1, 100) i`);
    await world.source.query(`CREATE TABLE plain (id int PRIMARY KEY, v text)`);
    await world.source.query(`INSERT INTO plain VALUES (1, 'a')`);
    await world.source.query(`CREATE TABLE without_key (id int, v text)`);
    good = await world.map('good');
    for (const each of CASES) mappings.set(each, await each.insert(setting));
    service = await startRecorded(world.control.name);
  });

  after(async () => {
    await service?.stop();
    await setting?.world.close();
    await Promise.all([setting?.replica.remove(), setting?.full.remove(), setting?.unprivileged.drop()]);
  });

  it('F52: the mapping with nothing wrong is copied and followed beside them', async () => {
    const { world } = setting;
    await world.state(good, 'streaming', 30);
    await world.source.query(`UPDATE good SET v = 'changed' WHERE id = 7`);
    await equal(world, 'good');
  });

  for (const each of CASES) {
    it(`F52: ${each.name}: ${each.code}, the mapping, the fix, in error_logs, in v_mapping_health and in the log`, async () => {
      const { world } = setting;
      const id = mappings.get(each) ?? 0;
      const error = await errorOf(world, id, each.code, 30);
      isOneGoodLine(error, id, each.fix);
      await eventually(async () => {
        const [row] = await world.control.query(`SELECT * FROM v_mapping_health WHERE mapping_id = $1`, [id]);
        expect(row?.['error_code'], JSON.stringify(row)).to.equal(each.code);
        expect(row?.['error_hint']).to.be.a('string').that.matches(each.fix);
      }, 15_000);
      const line = service.lines.find(
        (text) => / (ERROR|WARN) /.test(text) && text.includes(`code=${each.code}`) && names(text, id),
      );
      expect(line, `no line of the log says ${each.code} of mapping ${id}`).to.be.a('string');
      expect(line).to.match(each.fix);
      // The copy and the stream may both have met it; nothing else is blamed.
      expect(new Set((await errorsOf(world, id)).map((row) => row.error_code))).to.deep.equal(new Set([each.code]));
    });
  }

  it('F52: an unknown setting and a value out of range are said once, and the last good value stays', async () => {
    const { world } = setting;
    await world.control.query(`INSERT INTO config (config_key, config_value) VALUES ('batch_sise', '7')`);
    await world.control.query(`UPDATE config SET config_value = '-5' WHERE config_key = 'batch_size'`);
    await eventually(async () => {
      const rows = await world.control.query<{ error_message: string; hint: string }>(
        `SELECT error_message, hint FROM error_logs WHERE error_code = 'CONFIG_INVALID' ORDER BY error_message`,
      );
      expect(rows).to.have.length(2);
      expect(rows[0]?.error_message).to.match(/batch_size.*-5.*1000 stays/);
      expect(rows[0]?.hint).to.match(/UPDATE config SET config_value/);
      expect(rows[1]?.error_message).to.match(/no setting batch_sise/);
      expect(rows[1]?.hint).to.match(/batch_size/);
    });
    expect(service.lines.filter((line) => line.includes('code=CONFIG_INVALID'))).to.have.length(2);
    const open = async () =>
      (
        await world.control.query<{ error_message: string }>(
          `SELECT error_message FROM error_logs WHERE error_code = 'CONFIG_INVALID' AND is_resolved = 0`,
        )
      ).map((row) => row.error_message);
    // What is right again is resolved; what is still wrong is not.
    await world.control.query(`UPDATE config SET config_value = '500' WHERE config_key = 'batch_size'`);
    await eventually(async () => {
      const still = await open();
      if (still.length !== 1 || !still[0]?.includes('batch_sise')) throw new Error(still.join('; '));
    });
    await world.control.query(`DELETE FROM config WHERE config_key = 'batch_sise'`);
    await eventually(async () => {
      expect(await open()).to.deep.equal([]);
    });
  });

  it('no bad row makes the log or error_logs grow with every poll', async () => {
    const { world } = setting;
    const [before] = await world.control.query<{ n: string; lines: string }>(
      `SELECT (SELECT count(*) FROM error_logs) AS n, (SELECT count(*) FROM sync_logs) AS lines`,
    );
    const from = service.lines.length;
    await new Promise((resolve) => setTimeout(resolve, 3000)); // three polls
    const [now] = await world.control.query<{ n: string; lines: string }>(
      `SELECT (SELECT count(*) FROM error_logs) AS n, (SELECT count(*) FROM sync_logs) AS lines`,
    );
    expect(now).to.deep.equal(before);
    const said = service.lines.slice(from).filter((line) => / (ERROR|WARN) /.test(line));
    expect(said.length, said.join('\n')).to.be.lessThan(15);
  });

  it('a password is in no line of the log and in no row of the control database', async () => {
    const { world } = setting;
    const rows = await world.control.query(
      `SELECT e::text AS text FROM error_logs e UNION ALL SELECT s::text FROM sync_logs s UNION ALL SELECT m::text FROM mapping_state m`,
    );
    const all = [...rows.map((row) => String(row['text'])), ...service.lines];
    expect(all.filter((text) => /:right@|:wrong@|:tiger@|\btiger\b/.test(text))).to.deep.equal([]);
  });

  it('F52: a destination database that is dropped under a mapping: said with its name, the others go on', async () => {
    const { world } = setting;
    const doomed = await createDatabase('doomed');
    const id = await world.map('plain', { dest_database: doomed.name, dest_table: 'doomed' });
    await world.state(id, 'streaming', 30);
    await doomed.drop();
    await world.source.query(`UPDATE plain SET v = 'b'; UPDATE good SET v = 'after the drop' WHERE id = 8`);
    const error = await errorOf(world, id, 'DATABASE_MISSING', 30);
    expect(names(error.error_message, id)).to.equal(true);
    expect(error.hint).to.match(/create it/);
    await equal(world, 'good');
  });

  it('F52: a row that is put right starts by itself', async () => {
    const { world } = setting;
    const find = (name: string) => mappings.get(CASES.find((each) => each.name === name) ?? (CASES[0] as Case)) ?? 0;
    const [malformed, missing, secret] = [
      find('a malformed mapping'),
      find('a missing table'),
      find('a secret that is not there'),
    ];
    await world.control.query(`UPDATE table_mappings SET on_gap = 'stop' WHERE mapping_id = $1`, [malformed]);
    await world.control.query(
      `UPDATE table_mappings SET source_table = 'plain', dest_table = 'was_missing' WHERE mapping_id = $1`,
      [missing],
    );
    await world.control.query(
      `UPDATE source_servers SET connection_string = $2 WHERE server_id = (SELECT server_id FROM table_mappings WHERE mapping_id = $1)`,
      [secret, world.source.url],
    );
    for (const id of [malformed, missing, secret]) await world.state(id, 'streaming', 30);
    await equal(world, 'plain', 'malformed');
    await equal(world, 'plain', 'was_missing');
    const open = await world.control.query(`SELECT * FROM error_logs WHERE mapping_id = ANY ($1) AND is_resolved = 0`, [
      [malformed, missing, secret],
    ]);
    expect(open, 'its errors are resolved').to.deep.equal([]);
  });
});
