/** SQL Server as destination. */
import { findSqlServer } from '../support/sqlserver.ts';
import { destinationSuite } from './destination.suite.ts';

destinationSuite({
  name: 'SQL Server',
  engine: 'sqlserver',
  tellsBlanksApart: false,
  guarded: [
    'CREATE TABLE parents (id int NOT NULL PRIMARY KEY)',
    `CREATE TABLE guarded (id int IDENTITY(1,1) NOT NULL PRIMARY KEY,
       parent int NULL CONSTRAINT guarded_parent REFERENCES parents (id) ON DELETE CASCADE, v nvarchar(max) NULL)`,
    `CREATE TRIGGER touch ON guarded AFTER INSERT, UPDATE AS UPDATE guarded SET v = N'touched'`,
  ],
  remedies: async (hint) => {
    const server = await findSqlServer();
    // Babelfish has no NOCHECK CONSTRAINT.
    const isBabelfish = typeof server !== 'string' && server.kind === 'babelfish';
    return (isBabelfish ? hint.replaceAll('NOCHECK CONSTRAINT', 'DROP CONSTRAINT') : hint).split('; ');
  },
});
