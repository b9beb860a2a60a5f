/** What a person meets on MySQL and MariaDB: the file run by the command-line client, and what they type into it. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { ControlDatabase } from '../../src/control/index.ts';
import { skip } from '../support/skip.ts';
import { MARIADB, MYSQL } from './mysql-server.ts';
import { schemaFile, type ControlTestDatabase } from './server.ts';
import { randomName } from './servers.ts';
import { rejection } from './support.ts';

/** The catalog in lines that can be compared. */
const CATALOG = [
  `SELECT CONCAT_WS(' ', TABLE_NAME, ORDINAL_POSITION, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COALESCE(COLUMN_DEFAULT, '-'), EXTRA,
     COALESCE(COLLATION_NAME, '-'), COALESCE(GENERATION_EXPRESSION, '-')) AS line
   FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()`,
  `SELECT CONCAT_WS(' ', TABLE_NAME, TABLE_TYPE, ENGINE, ROW_FORMAT, TABLE_COLLATION) AS line
   FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()`,
  `SELECT CONCAT_WS(' ', TABLE_NAME, INDEX_NAME, NON_UNIQUE, SEQ_IN_INDEX, COLUMN_NAME) AS line
   FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()`,
  `SELECT CONCAT_WS(' ', CONSTRAINT_NAME, CHECK_CLAUSE) AS line
   FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE()`,
  `SELECT CONCAT_WS(' ', CONSTRAINT_NAME, TABLE_NAME, REFERENCED_TABLE_NAME, DELETE_RULE, UPDATE_RULE) AS line
   FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE()`,
  `SELECT CONCAT_WS(' ', TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_STATEMENT, SQL_MODE,
     COLLATION_CONNECTION) AS line FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()`,
  `SELECT CONCAT_WS(' ', TABLE_NAME, VIEW_DEFINITION, SECURITY_TYPE, COLLATION_CONNECTION) AS line
   FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()`,
];

for (const server of [MARIADB, MYSQL])
  describe(`control: what a person types on ${server.name}`, () => {
    const databases: ControlTestDatabase[] = [];
    const controls: ControlDatabase[] = [];
    before(function () {
      return server.require(this);
    });
    after(async () => {
      for (const control of controls) await control.close();
      for (const database of databases) await database.drop();
    });
    const create = async () => {
      const database = await server.createDatabase();
      databases.push(database);
      return database;
    };
    const open = async (url: string, database: string) => {
      const control = await ControlDatabase.open({ url, database });
      controls.push(control);
      return control;
    };
    /** What a person pastes into the client, with the settings it comes with. */
    const paste = (context: Mocha.Context, database: ControlTestDatabase, sql: string) => {
      const client = ['mariadb', 'mysql'].find((name) => !spawnSync(name, ['--version']).error);
      if (client === undefined) return skip(context, 'there is no command-line client (Debian: mariadb-client)');
      const { hostname, port, username, password } = new URL(database.url);
      const login = [`--host=${hostname}`, `--port=${port || '3306'}`, `--user=${decodeURIComponent(username)}`];
      const run = spawnSync(client, ['--no-defaults', ...login, '--protocol=tcp', database.name], {
        input: sql,
        encoding: 'utf8',
        env: { ...process.env, MYSQL_PWD: decodeURIComponent(password) },
      });
      expect(run.status, run.stderr).to.equal(0);
      return run.stdout;
    };
    const catalog = async (database: ControlTestDatabase) => {
      const lines: string[] = [];
      for (const sql of CATALOG)
        for (const { line } of await database.query<{ line: string }>(sql))
          lines.push(line.replaceAll(database.name, 'control'));
      return lines.sort();
    };

    it('schema.sql run by the client equals what migrate makes, and may be run again', async function () {
      const byHand = await create();
      paste(this, byHand, schemaFile('mysql'));
      const [before] = await byHand.query('SELECT * FROM meta');
      paste(this, byHand, schemaFile('mysql'));
      expect((await byHand.query('SELECT * FROM meta'))[0]).to.deep.equal(before);
      const byMigrate = await create();
      await (await open(byMigrate.url, byMigrate.name)).migrate();
      const expected = await catalog(byHand);
      expect(expected.length, 'the catalog was read').to.be.greaterThan(300);
      expect(await catalog(byMigrate)).to.deep.equal(expected);
    });

    it('F59: interrupted after any of its statements, migrate goes on and ends with the same', async function () {
      this.timeout(120_000);
      const whole = await create();
      await (await open(whole.url, whole.name)).migrate();
      const expected = await catalog(whole);
      const statements = schemaFile('mysql')
        .replaceAll(/^--.*$/gm, '')
        .split(/;$/m)
        .filter((each) => each.trim() !== '');
      const every = process.env['SLUICE_TEST_LONG'] ? 1 : 15;
      for (let done = 1; done < statements.length; done += every) {
        const part = await create();
        await part.query(statements.slice(0, done).join(';'));
        const control = await open(part.url, part.name);
        expect((await control.migrate()).applied, `after ${done} statements`).to.deep.equal(['0001_schema']);
        expect(await catalog(part), `after ${done} statements`).to.deep.equal(expected);
      }
    });

    it('the two INSERTs of the README, a flag, and the views, as typed into the client', async function () {
      const database = await create();
      const control = await open(database.url, database.name);
      await control.migrate();
      const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
      const inserts = /```sql\n([^`]+)```/.exec(readme)?.[1] ?? '';
      expect(inserts.match(/INSERT INTO/g)).to.have.length(2);
      paste(this, database, inserts);
      await control.states.ensure();
      const plan = await control.readPlanRows();
      if ('unchanged' in plan) throw new Error('first read');
      expect(plan.invalid).to.deep.equal([]);
      expect(plan.sources.get(1)?.connectionString).to.equal('postgres://sluice:${env:SHOP_PASSWORD}@db1:5432/shop');
      const [mapping] = plan.mappings;
      expect(mapping).to.include({ serverId: 1, sourceTable: 'orders', destDatabase: 'warehouse', cdcEnabled: true });

      // Whatever the session's time zone and mode are, times are UTC and the flip is counted.
      paste(
        this,
        database,
        `SET time_zone = '+05:45', sql_mode = 'ANSI';
       UPDATE table_mappings SET is_full_sync = 1 WHERE source_table = 'orders';
       SELECT * FROM v_sync_summary; SELECT * FROM v_recent_errors; SELECT * FROM v_recent_logs;`,
      );
      expect((await control.requests.fromFlags()).mappings).to.deep.equal([1]);
      const [row] = await database.query<{ updated_at: Date; is_full_sync: number }>('SELECT * FROM table_mappings');
      expect(row?.is_full_sync).to.equal(1);
      expect(Math.abs((row?.updated_at.getTime() ?? 0) - Date.now())).to.be.below(120_000);
      const health = paste(
        this,
        database,
        `SELECT state, error_code FROM v_mapping_health WHERE source_table = 'orders'`,
      );
      expect(health).to.equal('state\terror_code\nnew\tNULL\n');
    });

    it('flags that are neither 0 nor 1, and mappings of servers that are not there, are refused at once', async () => {
      const database = await create();
      await (await open(database.url, database.name)).migrate();
      await database.query(`INSERT INTO source_servers (server_name, connection_string) VALUES ('s', 'postgres://s/')`);
      for (const sql of [
        `INSERT INTO table_mappings (server_id, source_table, is_enabled) VALUES (1, 'orders', 2)`,
        `INSERT INTO table_mappings (server_id, source_table) VALUES (7, 'orders')`,
        `INSERT INTO table_mappings (server_id, source_table) VALUES (1, NULL)`,
        `INSERT INTO source_servers (server_name, connection_string) VALUES ('s', 'postgres://other/')`,
      ])
        await rejection(database.query(sql));
      expect(await database.query('SELECT * FROM table_mappings')).to.deep.equal([]);
    });

    it('an account that may only read is told what it lacks; one that may make its own database makes it', async () => {
      const database = await create();
      const account = randomName('reader');
      const own = randomName('own');
      await server.createLogin(account, 'Plain_pass1');
      try {
        await database.query(`GRANT SELECT ON ${database.name}.* TO ${account}`);
        const url = new URL(database.url);
        [url.username, url.password] = [account, 'Plain_pass1'];
        const refused = await rejection((await open(url.toString(), database.name)).migrate());
        expect(refused).to.have.property('code', 'PERMISSION_DENIED');
        expect(refused).to.have.property('hint').that.includes('Grant the account ALL');
        await database.query(`GRANT ALL ON ${own}.* TO ${account}`);
        expect((await (await open(url.toString(), own)).health()).migrated).to.equal(false);
      } finally {
        await server.dropLogin(account);
        await server.dropDatabase(own);
      }
    });

    it('an account without SUPER where the binary log is on: the setting is named; once it is set, migrate goes on', async function () {
      const database = await create();
      const account = randomName('plain');
      await server.createLogin(account, 'Plain_pass1');
      const [settings] = await database.query<{ logs: string | number; trusted: string | number }>(
        'SELECT @@GLOBAL.log_bin AS logs, @@GLOBAL.log_bin_trust_function_creators AS trusted',
      );
      if (Number(settings?.logs) !== 1) return skip(this, 'the server keeps no binary log');
      try {
        await database.query(`GRANT ALL ON ${database.name}.* TO ${account}`);
        await database.query('SET GLOBAL log_bin_trust_function_creators = 0');
        const url = new URL(database.url);
        [url.username, url.password] = [account, 'Plain_pass1'];
        const control = await open(url.toString(), database.name);
        const refused = await rejection(control.migrate());
        expect(refused).to.have.property('code', 'PERMISSION_DENIED');
        expect(refused).to.have.property('hint').that.includes('SET GLOBAL log_bin_trust_function_creators = 1');
        await database.query('SET GLOBAL log_bin_trust_function_creators = 1');
        expect((await control.migrate()).applied).to.deep.equal(['0001_schema']);
      } finally {
        await database.query(`SET GLOBAL log_bin_trust_function_creators = ${Number(settings?.trusted)}`);
        await server.dropLogin(account);
      }
    });
  });
