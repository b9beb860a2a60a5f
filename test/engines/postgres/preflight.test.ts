import { expect } from 'chai';
import { suspendGuardsSql } from '../../../src/engines/postgres/reshape.ts';
import { randomBytes } from 'node:crypto';
import { Connection } from '../../../src/engines/postgres/connection.ts';
import { PostgresPreflight } from '../../../src/engines/postgres/preflight.ts';
import type { Finding } from '../../../src/model/findings.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { connect } from './support.ts';

const inPublic = (table: string) => ({ schema: 'public', table });
const brief = (findings: Finding[]) => findings.map((one) => `${one.severity} ${one.code}: ${one.message}`);

describe('PostgreSQL preflight', () => {
  let database: TestDatabase;
  let admin: Connection;
  let weak: Connection;
  const role = `weak_${randomBytes(3).toString('hex')}`;
  before(async () => {
    database = await createDatabase('preflight');
    admin = connect(database);
    await database.query(`CREATE ROLE ${role} LOGIN; REVOKE CREATE ON DATABASE "${database.name}" FROM PUBLIC;
      CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE nokey (a int);
      CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
      CREATE TABLE "by index" (id int PRIMARY KEY, "Code" text NOT NULL UNIQUE);
      ALTER TABLE "by index" REPLICA IDENTITY USING INDEX "by index_Code_key";
      CREATE TABLE only_unique (code text NOT NULL); CREATE UNIQUE INDEX "Only" ON only_unique (code);
      CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY); CREATE VIEW seen AS SELECT 1 AS id;
      CREATE TABLE guarded (id int PRIMARY KEY, owner text); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
      GRANT SELECT ON guarded TO ${role}`);
    const url = database.url.replace('postgres@', `${role}@`);
    weak = new Connection({
      connectionString: url,
      database: null,
      installation: { uid: 't' },
      applicationName: 'sluice-test',
    });
  });
  after(async () => {
    await weak.close();
    await admin.close();
    await database.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
    await database.drop();
  });

  it('finds nothing to say about a table that is ready', async () => {
    const preflight = new PostgresPreflight(admin);
    expect(await preflight.source([inPublic('good')], { cdc: true })).to.deep.equal([]);
    expect(await preflight.destination()).to.deep.equal([]);
  });

  it('F17: prints the statement that gives a table its identity, and it helps', async () => {
    const preflight = new PostgresPreflight(admin);
    const names = ['nothing', 'by index', 'only_unique', 'fleeting'].map(inPublic);
    const findings = await preflight.source(names, { cdc: true });
    expect(findings.map((one) => one.fixSql)).to.deep.equal([
      ['ALTER TABLE "public"."nothing" REPLICA IDENTITY DEFAULT;'],
      ['ALTER TABLE "public"."by index" REPLICA IDENTITY DEFAULT;'],
      ['ALTER TABLE "public"."only_unique" REPLICA IDENTITY USING INDEX "Only";'],
      ['ALTER TABLE "public"."fleeting" SET LOGGED;'],
    ]);
    for (const sql of findings.flatMap((one) => one.fixSql)) await database.query(sql);
    expect(await preflight.source(names, { cdc: true })).to.deep.equal([]);
  });

  it('F17: looks at the identity of partitions, which the table does not pass on', async () => {
    await database.query(`CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
      CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9); CREATE TABLE "Parts 2" PARTITION OF parts DEFAULT;
      ALTER TABLE "Parts 2" REPLICA IDENTITY NOTHING`);
    const preflight = new PostgresPreflight(admin);
    const [one, ...others] = await preflight.source([inPublic('parts')], { cdc: true });
    expect(others).to.deep.equal([]);
    expect(one?.fixSql).to.deep.equal(['ALTER TABLE public."Parts 2" REPLICA IDENTITY DEFAULT;']);
    await database.query(one?.fixSql[0] ?? '');
    expect(await preflight.source([inPublic('parts')], { cdc: true })).to.deep.equal([]);
  });

  it('names missing tables, views and tables without a key; copies do not need one', async () => {
    const names = ['absent', 'seen', 'nokey'].map(inPublic);
    const preflight = new PostgresPreflight(admin);
    expect((await preflight.source(names, { cdc: true })).map((one) => one.code)).to.deep.equal([
      'SOURCE_TABLE_MISSING',
      'CAPABILITY_MISSING',
      'KEY_REQUIRED',
    ]);
    expect((await preflight.source(names, { cdc: false })).map((one) => one.code)).to.deep.equal([
      'SOURCE_TABLE_MISSING',
    ]);
  });

  it('tells a login without rights what to grant, and the grants suffice', async () => {
    const preflight = new PostgresPreflight(weak);
    const found = await preflight.source([inPublic('good'), inPublic('guarded')], { cdc: true });
    expect(brief(found)).to.deep.equal([
      `error PERMISSION_DENIED: role "${role}" may not replicate`,
      `error PERMISSION_DENIED: role "${role}" may not create a publication in database "${database.name}"`,
      `error PERMISSION_DENIED: public.good: role "${role}" may not read it`,
      `error PERMISSION_DENIED: public.good: role "${role}" does not own it, so it cannot add it to a publication`,
      `error PERMISSION_DENIED: public.guarded: row security hides rows from role "${role}", so a copy would lack them`,
      `error PERMISSION_DENIED: public.guarded: role "${role}" does not own it, so it cannot add it to a publication`,
    ]);
    const target = await preflight.destination();
    expect(target.map((one) => [one.severity, one.fixSql[0]])).to.deep.equal([
      ['error', `GRANT CREATE ON DATABASE "${database.name}" TO "${role}";`],
      ['warning', `GRANT SET ON PARAMETER session_replication_role TO "${role}";`],
    ]);
    for (const sql of [...found, ...target].flatMap((one) => one.fixSql).filter((line) => !line.startsWith('--')))
      await database.query(sql);
    expect(await preflight.source([inPublic('good'), inPublic('guarded')], { cdc: true })).to.deep.equal([]);
    expect(await preflight.destination()).to.deep.equal([]);
    await database.query('ALTER TABLE good OWNER TO postgres; ALTER TABLE guarded OWNER TO postgres');
  });

  it('a publication of the user’s own needs no ownership, but the table in it', async () => {
    const url = `${database.url.replace('postgres@', `${role}@`)}?publication=mine`;
    const connection = new Connection({
      connectionString: url,
      database: null,
      installation: { uid: 't' },
      applicationName: 'sluice-test',
    });
    const preflight = new PostgresPreflight(connection);
    await database.query(`GRANT SELECT ON good TO ${role}; ALTER ROLE ${role} REPLICATION`);
    const fix = async () => (await preflight.source([inPublic('good')], { cdc: true })).flatMap((one) => one.fixSql);
    expect(await fix()).to.deep.equal([
      'CREATE PUBLICATION "mine";',
      'ALTER PUBLICATION "mine" ADD TABLE "public"."good";',
    ]);
    for (const sql of await fix()) await database.query(sql);
    expect(await fix()).to.deep.equal([]);
    await connection.close();
  });

  it('F45: the right to suspend triggers is granted from version 15 on; before, only a superuser has it', () => {
    expect(suspendGuardsSql('me', 140_011)).to.equal('ALTER ROLE "me" SUPERUSER');
    expect(suspendGuardsSql('me', 150_000)).to.equal('GRANT SET ON PARAMETER session_replication_role TO "me"');
  });
});
