import { expect } from 'chai';
import { randomBytes } from 'node:crypto';
import { Connection } from '../../../src/engines/sqlserver/connection.ts';
import { SqlServerChanges } from '../../../src/engines/sqlserver/changes.ts';
import { SqlServerPreflight } from '../../../src/engines/sqlserver/preflight.ts';
import type { Finding } from '../../../src/model/findings.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';
import { follow, shown, STREAM } from './change-support.ts';

const errors = (findings: readonly Finding[]) => findings.filter(({ severity }) => severity === 'error');
const brief = (findings: readonly Finding[]) => findings.map((one) => `${one.code}: ${one.message}`);
const items = { schema: 'dbo', table: 'items' };

describe('SQL Server preflight', () => {
  let database: SqlServerTestDatabase;
  let weak: Connection;
  const login = `weak_${randomBytes(3).toString('hex')}`;
  before(async function () {
    const server = await requireSqlServer(this);
    database = await createSqlServerDatabase(server, 'preflight');
    await database.query(`CREATE LOGIN ${login} WITH PASSWORD = 'Weak_pass1'`);
    await database.query(`CREATE USER ${login} FOR LOGIN ${login}`);
    await database.query('CREATE TABLE dbo.items (id int NOT NULL PRIMARY KEY, v nvarchar(20))');
    const url = new URL(database.url);
    url.username = login;
    url.password = 'Weak_pass1';
    weak = new Connection({
      connectionString: url.toString(),
      database: database.name,
      installation: { uid: 't' },
      applicationName: 'sluice-test',
    });
  });
  after(async () => {
    await weak?.close();
    await database?.drop();
  });

  it('prints the statements that enable capture with least privileges; after them a login with nothing else can follow', async () => {
    const preflight = new SqlServerPreflight(weak);
    const changes = new SqlServerChanges(weak);
    const refusal = async () => {
      const thrown: unknown = await changes.prepare(STREAM).catch((error: unknown) => error);
      const { code, hint } = thrown as { code?: string; hint?: string };
      return `${code ?? 'none'}: ${hint ?? ''}`;
    };
    expect(await refusal()).to.match(/^CDC_NOT_READY: .*sp_cdc_enable_db/);
    // As whoever administers the server, in the order printed, until there is nothing to print.
    const ran: string[] = [];
    for (let round = 0; round < 4; round++) {
      const found = errors(await preflight.source([items], { cdc: true }));
      if (found.length === 0) break;
      for (const sql of found.flatMap(({ fixSql }) => fixSql)) {
        if (sql.startsWith('USE ')) continue;
        if (sql.startsWith('GRANT SELECT ON SCHEMA') && round === 0)
          expect(await refusal()).to.equal(`PERMISSION_DENIED: ${sql}`);
        ran.push(sql);
        await database.query(sql);
      }
    }
    expect(brief(errors(await preflight.source([items], { cdc: true })))).to.deep.equal([]);
    expect(ran[0]).to.contain('GRANT SELECT ON [dbo].[items]');
    expect(ran.join(' ')).to.match(/sp_cdc_enable_db.*GRANT SELECT ON SCHEMA::\[cdc\].*sp_cdc_enable_table/);
    const { start } = await changes.prepare(STREAM);
    const following = await follow(changes, start);
    await database.query(`INSERT INTO dbo.items VALUES (1, N'a')`);
    await database.query('EXEC sys.sp_cdc_scan');
    try {
      expect(shown(await following.changes(1))).to.deep.equal(['I:1,a']);
    } finally {
      await following.reader.stop();
    }
  });

  it('F29: names the columns that the capture instance does not hold, and the statement that captures them', async () => {
    await database.query('CREATE TABLE dbo.part (id int NOT NULL PRIMARY KEY, v int, w int)');
    await database.query(
      `EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'part', @role_name = NULL, @captured_column_list = N'id, v'`,
    );
    const part = { schema: 'dbo', table: 'part' };
    const preflight = new SqlServerPreflight(database.connection);
    const [found] = errors(await preflight.source([part], { cdc: true }));
    expect(found?.code).to.equal('SCHEMA_MISMATCH');
    expect(found?.message).to.match(/does not hold w$/);
    for (const sql of found?.fixSql ?? []) await database.query(sql);
    expect(brief(errors(await preflight.source([part], { cdc: true })))).to.deep.equal([]);
  });

  it('names a table that is missing, and needs nothing of capture where it is not used', async () => {
    const preflight = new SqlServerPreflight(database.connection);
    const found = await preflight.source([{ schema: 'dbo', table: 'nowhere' }], { cdc: false });
    expect(found.map(({ code }) => code)).to.deep.equal(['SOURCE_TABLE_MISSING']);
    expect(brief(await preflight.destination())).to.deep.equal([]);
  });
});
