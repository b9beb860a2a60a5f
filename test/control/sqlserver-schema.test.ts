/** What a person meets on SQL Server: the file run by hand, and the statements of the tool that many come from. */
import { expect } from 'chai';
import { ControlDatabase } from '../../src/control/index.ts';
import { SQLSERVER, type ControlTestDatabase } from './servers.ts';

/** The catalog in lines that can be compared; names that the server draws are left out. */
const CATALOG = [
  `SELECT CONCAT(o.name, N'.', c.name, N' ', t.name, N' ', c.max_length, N' ', c.precision, N' ', c.scale, N' ', c.is_nullable, N' ', c.is_identity, N' ', c.column_id) AS line
   FROM sys.columns AS c JOIN sys.objects AS o ON o.object_id = c.object_id JOIN sys.types AS t ON t.user_type_id = c.user_type_id
   WHERE o.schema_id = SCHEMA_ID(N'dbo') AND o.type IN ('U', 'V')`,
  `SELECT CONCAT(o.type, N' ', o.name) AS line FROM sys.objects AS o WHERE o.schema_id = SCHEMA_ID(N'dbo') AND o.type IN ('U', 'V', 'TR', 'F')`,
  `SELECT CONCAT(OBJECT_NAME(i.object_id), N' ', i.is_unique, N' ', i.is_primary_key, N' ', ic.key_ordinal, N' ', c.name) AS line
   FROM sys.indexes AS i JOIN sys.index_columns AS ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id
   JOIN sys.columns AS c ON c.object_id = ic.object_id AND c.column_id = ic.column_id
   JOIN sys.objects AS o ON o.object_id = i.object_id WHERE o.schema_id = SCHEMA_ID(N'dbo') AND o.type = 'U'`,
  `SELECT CONCAT(OBJECT_NAME(d.parent_object_id), N' ', d.parent_column_id, N' ', CAST(d.definition AS nvarchar(400))) AS line FROM sys.default_constraints AS d`,
];

describe('control: what a person types on SQL Server', () => {
  const databases: ControlTestDatabase[] = [];
  const controls: ControlDatabase[] = [];
  before(function () {
    return SQLSERVER.require(this);
  });
  after(async () => {
    for (const control of controls) await control.close();
    for (const database of databases) await database.drop();
  });
  const create = async () => {
    const database = await SQLSERVER.createDatabase();
    databases.push(database);
    return database;
  };
  const migrated = async () => {
    const database = await create();
    const control = await ControlDatabase.open({ url: database.url, database: database.name });
    controls.push(control);
    await control.migrate();
    return { database, control };
  };

  it('schema.sql run by hand equals what migrate makes', async () => {
    const byHand = await create();
    await byHand.runSchemaFile();
    const { database: byMigrate } = await migrated();
    const read = async (database: ControlTestDatabase) => {
      const lines: string[] = [];
      for (const sql of CATALOG)
        for (const row of await database.query<{ line: string }>(sql))
          lines.push(row.line.replaceAll(database.name, ''));
      return lines.sort();
    };
    const expected = await read(byHand);
    expect(expected.length, 'the catalog was read').to.be.greaterThan(200);
    expect(await read(byMigrate)).to.deep.equal(expected);
  });

  it('F59 the statements of the tool that people come from work word for word', async () => {
    const { database, control } = await migrated();
    const source = 'SourceDB';
    await SQLSERVER.dropDatabase(source);
    const servers = `INSERT INTO source_servers (server_name, connection_string, is_enabled) VALUES ('SourceServer1', 'server=source1.example.com;user id=sa;password=pass;database=master;encrypt=disable', 1);`;
    const mappings = `INSERT INTO table_mappings (server_id, source_database, source_schema, source_table, dest_database, dest_schema, dest_table,
 primary_key_column, full_sync_trigger_column, is_enabled, cdc_enabled) VALUES (1,'SourceDB','dbo','Users','DestDB','dbo','Users','UserID','FullSyncTrigger',1,1);`;
    await database.query(servers);
    await database.query(mappings);
    await control.states.ensure();
    const plan = await control.readPlanRows();
    if ('unchanged' in plan) throw new Error('first read');
    expect(plan.invalid).to.deep.equal([]);
    expect(plan.mappings[0]).to.include({
      mappingId: 1,
      sourceDatabase: 'SourceDB',
      sourceTable: 'Users',
      destDatabase: 'DestDB',
      triggerColumn: 'FullSyncTrigger',
      enabled: true,
      cdcEnabled: true,
    });
    expect(plan.mappings[0]?.primaryKey).to.deep.equal(['UserID']);
    await database.query('UPDATE source_servers SET is_enabled = 0 WHERE server_id = 1;');
    const after = await control.readPlanRows(plan.fingerprint);
    if ('unchanged' in after) throw new Error('the server row was not noticed');
    expect(after.sources.get(1)?.enabled).to.equal(false);

    await control.runs.start({ mappingId: 1, syncType: 'FULL_SYNC', owner: 'me' });
    const summaryAndErrors = await database.query<Record<string, unknown>>(
      'SELECT * FROM v_sync_summary; SELECT * FROM v_recent_errors;',
    );
    expect(summaryAndErrors[0]).to.include({ server_name: 'SourceServer1', source_table: 'Users', status: 'RUNNING' });
    const joined = await database.query(`SELECT 
    tm.source_table,
    tm.dest_table,
    ss.status,
    ss.sync_type,
    ss.records_processed,
    ss.records_failed,
    ss.started_at,
    ss.completed_at
FROM sync_status ss
INNER JOIN table_mappings tm ON ss.mapping_id = tm.mapping_id
WHERE ss.status IN ('RUNNING', 'ERROR')
ORDER BY ss.started_at DESC;`);
    expect(joined[0]).to.include({ source_table: 'Users', status: 'RUNNING' });

    await database.query(`CREATE DATABASE [${source}]`);
    const person = await database.connect();
    try {
      await person.query(`USE [${source}]`);
      await person.query('CREATE TABLE dbo.Users (UserID int NOT NULL PRIMARY KEY, FullSyncTrigger bit NOT NULL)');
      await person.query('INSERT INTO Users (UserID, FullSyncTrigger) VALUES (1, 0)');
      await person.query('UPDATE [SourceDB].[dbo].[Users] SET FullSyncTrigger = 1 WHERE UserID = 1;');
      const users = await person.query('SELECT FullSyncTrigger AS flag FROM [SourceDB].[dbo].[Users]');
      expect(users).to.deep.equal([{ flag: 1 }]);
    } finally {
      await person.query('USE master');
      await SQLSERVER.dropDatabase(source);
    }
  });
});
