/** What is special to SQL Server as a destination; the rest is in test/contract and test/service. */
import { expect } from 'chai';
import { Connection } from '../../../src/engines/sqlserver/connection.ts';
import type { Destination, GroupApplier } from '../../../src/engines/contract.ts';
import { engineOf } from '../../../src/engines/registry.ts';
import { differsSql } from '../../../src/engines/sqlserver/exact.ts';
import type { EngineDatabase } from '../../../src/engines/contract.ts';
import type { Cell } from '../../../src/model/changes.ts';
import { hasCode } from '../../../src/model/errors.ts';
import type { Position } from '../../../src/model/position.ts';
import type { Column, Table } from '../../../src/model/tables.ts';
import { Collapse } from '../../../src/sync/collapse.ts';
import { changesOf, type ChangeSpec } from '../../support/changes.ts';
import { createSqlServerDatabase, requireSqlServer, type SqlServerTestDatabase } from '../../support/sqlserver.ts';

const STREAM = 'test/1/db';
const at = (n: number) => `position ${n}` as Position;

describe('SQL Server destination', function () {
  this.timeout(60_000);
  let database: SqlServerTestDatabase;
  let handle: EngineDatabase;
  let destination: Destination;
  let applier: GroupApplier;
  let epoch = 0;
  before(async function () {
    database = await createSqlServerDatabase(await requireSqlServer(this), 'dest');
    handle = engineOf(database.url).open({
      connectionString: database.url,
      database: null,
      installation: { uid: 'test' },
      applicationName: 'sluice tests',
    });
    if (!handle.destination) throw new Error('no destination');
    destination = handle.destination;
    await destination.prepare();
    const taken = await destination.takeGroup({
      stream: STREAM,
      group: 'main',
      epoch: ++epoch,
      lockWaitMs: 1000,
      create: at(0),
    });
    if (!taken) throw new Error('the group was not made');
    applier = taken;
  });
  after(async () => {
    await applier?.close();
    await handle?.close();
    await database?.drop();
  });

  const describeTable = async (table: string): Promise<Table> => {
    const [found] = await handle.catalog.describe([{ schema: 'dbo', table }]);
    if (!found) throw new Error(`${table} was not made`);
    return found;
  };
  /** Makes a table and routes `columns` (the first is the key) to it. */
  const adopt = async (table: string, columns: readonly string[], ddl: string) => {
    await database.query(ddl);
    const live = await describeTable(table);
    const mappingUid = `00000000-0000-4000-8000-${table.padStart(12, '0')}`;
    await destination.copies.adopt({
      stream: STREAM,
      group: 'main',
      mappingUid,
      copyEpoch: ++epoch,
      requestId: 0,
      source: { ...live, id: '1' },
      key: columns.slice(0, 1),
      columns: columns.map((name) => ({ source: name, target: name })),
      design: destination.design(live, live.name, columns.slice(0, 1)),
      target: live.name,
      live,
      lockWaitMs: 1000,
    });
    return mappingUid;
  };
  const collapsed = (columns: readonly string[], specs: readonly ChangeSpec[]) => {
    const collapse = new Collapse(columns, columns.slice(0, 1));
    collapse.add(changesOf(columns, specs));
    return collapse.result();
  };
  let position = 0;
  const apply = async (uid: string, columns: readonly string[], specs: readonly ChangeSpec[]) => {
    const transaction = await applier.begin();
    try {
      const route = transaction.routes.find((each) => each.mappingUid === uid);
      if (!route) throw new Error('no route');
      const counts = await transaction.apply(route, collapsed(columns, specs));
      await transaction.commit(at(++position));
      return counts;
    } catch (error) {
      await transaction.rollback();
      throw error;
    }
  };

  it('F24: a thousand times two rows exchange a unique value, over several parts of the batch', async () => {
    const columns = ['id', 'seat'];
    const uid = await adopt(
      'seats',
      columns,
      'CREATE TABLE dbo.seats (id int NOT NULL PRIMARY KEY, seat int NOT NULL UNIQUE)',
    );
    const rows = Array.from({ length: 2100 }, (_, i) => i + 1);
    const inserted = await apply(
      uid,
      columns,
      rows.map((id) => ['I', null, [String(id), String(id)]]),
    );
    expect(inserted).to.deep.equal({ inserted: 2100, updated: 0, deleted: 0 });
    const exchanged = await apply(
      uid,
      columns,
      rows.map((id) => ['U', null, [String(id), String(2101 - id)]]),
    );
    expect(exchanged).to.deep.equal({ inserted: 0, updated: 2100, deleted: 0 });
    const [row] = await database.query('SELECT COUNT(*) AS n FROM dbo.seats WHERE seat = 2101 - id');
    expect(row?.['n']).to.equal(2100);
    const deleted = await apply(
      uid,
      columns,
      rows.map((id) => ['D', [String(id), undefined], null]),
    );
    expect(deleted).to.deep.equal({ inserted: 0, updated: 0, deleted: 2100 });
  });

  it('F27: identity values are taken, and changed; computed columns and rowversion are left alone', async () => {
    const columns = ['id', 'n', 'v'];
    const uid = await adopt(
      'counted',
      columns,
      // Babelfish has no rowversion.
      `CREATE TABLE dbo.counted (id int NOT NULL PRIMARY KEY, n int IDENTITY(1,1) NOT NULL, v nvarchar(20) NULL, twice AS (id * 2)
         ${database.server.kind === 'sqlserver' ? ', ver rowversion' : ''})`,
    );
    await apply(uid, columns, [
      ['I', null, ['1', '70', 'a']],
      ['I', null, ['2', '80', 'b']],
    ]);
    await apply(uid, columns, [
      ['U', null, ['1', '71', 'a']],
      ['U', null, ['2', '80', 'c']],
    ]);
    const rows = await database.query('SELECT id, n, v, twice FROM dbo.counted ORDER BY id');
    expect(rows).to.deep.equal([
      { id: 1, n: 71, v: 'a', twice: 2 },
      { id: 2, n: 80, v: 'c', twice: 4 },
    ]);
  });

  it('F36: a refused row is undone by itself, and the transaction goes on', async () => {
    const columns = ['id', 'v', 'n'];
    const uid = await adopt(
      'strict',
      columns,
      'CREATE TABLE dbo.strict (id int NOT NULL PRIMARY KEY, v nvarchar(5) NULL, n int NULL UNIQUE CHECK (n < 100))',
    );
    const transaction = await applier.begin();
    const route = transaction.routes.find((each) => each.mappingUid === uid);
    if (!route) throw new Error('no route');
    const codes: unknown[] = [];
    const attempt = (...cells: readonly Cell[][]) =>
      transaction
        .attempt(route, () =>
          transaction.apply(
            route,
            collapsed(
              columns,
              cells.map((row) => ['I', null, row]),
            ),
          ),
        )
        .then(
          () => codes.push('applied'),
          (error: unknown) =>
            codes.push(hasCode(error, 'ROW_REFUSED') ? (error.isConflict ? 'conflict' : 'refused') : error),
        );
    await attempt(['1', 'a', '1']);
    await attempt(['2', 'b', '1']); // the unique value is taken
    await attempt(['3', 'c', '3'], ['4', 'd', '500']); // a check: neither of them
    await attempt(['5', 'too long', '5']);
    await attempt(['6', 'e', 'no number']);
    await attempt(['7', 'f', '7']);
    await transaction.commit(at(++position));
    expect(codes).to.deep.equal(['applied', 'conflict', 'conflict', 'refused', 'refused', 'applied']);
    expect(await database.query('SELECT id FROM dbo.strict ORDER BY id')).to.deep.equal([{ id: 1 }, { id: 7 }]);
  });

  it('an error that ends the whole transaction is said to, and nothing of it stays', async () => {
    await database.query('CREATE TABLE dbo.doomed (id int NOT NULL PRIMARY KEY)');
    const session = await database.connection.open();
    try {
      await session.run('begin', ['BEGIN TRANSACTION', 'INSERT INTO dbo.doomed (id) VALUES (1)']);
      const error: unknown = await session
        .attempt(() => session.run('convert', [`INSERT INTO dbo.doomed (id) SELECT CAST(N'x' AS int)`]))
        .then(
          () => null,
          (thrown: unknown) => thrown,
        );
      expect(hasCode(error, 'INTERNAL')).to.equal(true);
      await session.rollback();
      expect(await session.query('read', 'SELECT id FROM dbo.doomed')).to.deep.equal([]);
      // And the session goes on as before: an error outside of an attempt ends the transaction.
      await session.run('begin', ['BEGIN TRANSACTION', 'INSERT INTO dbo.doomed (id) VALUES (2)']);
      await session.run('insert twice', ['INSERT INTO dbo.doomed (id) VALUES (2)']).catch(() => undefined);
      expect((await session.query('count', 'SELECT @@TRANCOUNT AS n'))[0]?.['n']).to.equal(0);
    } finally {
      await database.connection.release(session);
    }
  });

  it('F40: a key’s lock is not waited for by who reads positions and states', async () => {
    const transaction = await applier.begin();
    const other = new Connection({
      connectionString: database.url,
      database: null,
      installation: { uid: 'test' },
      applicationName: 'sluice tests',
    });
    try {
      const rows = await other.use(async (session) => {
        await session.run('bound the wait', ['SET LOCK_TIMEOUT 500']);
        return session.query('read positions', 'SELECT position FROM sluice.positions');
      });
      expect(rows).to.have.length(1);
    } finally {
      await transaction.rollback();
      await other.close();
    }
  });

  const DIFFERENT: readonly (readonly [type: string, left: string, right: string])[] = [
    ['nvarchar(10)', `N'a'`, `N'A'`],
    ['nvarchar(10)', `N'a'`, `N'a '`],
    ['varchar(10)', `''`, `NULL`],
    ['varbinary(10)', '0x01', '0x0100'],
    ['float', 'CAST(0 AS float) * -1', '0'],
    ['datetimeoffset(0)', `'2024-01-01 12:00:00 +01:00'`, `'2024-01-01 11:00:00 +00:00'`],
    ['decimal(10,2)', '1.00', '1.01'],
    ['nvarchar(max)', `N'a' + NCHAR(1)`, `N'a'`],
  ];
  for (const [type, left, right] of DIFFERENT) {
    it(`a swap tells ${left} from ${right} (${type}), and each from itself not`, async () => {
      const column = { name: 'x', nativeType: type } as Column;
      const differs = async (one: string, two: string) => {
        const sql = differsSql(
          [column],
          () => 'l.x',
          () => 'r.x',
        );
        const rows = await database.query(
          `SELECT 1 AS differs FROM (SELECT CAST(${one} AS ${type}) AS x) AS l CROSS JOIN (SELECT CAST(${two} AS ${type}) AS x) AS r WHERE ${sql}`,
        );
        return rows.length === 1;
      };
      expect([await differs(left, right), await differs(left, left), await differs(right, right)]).to.deep.equal([
        true,
        false,
        false,
      ]);
    });
  }
});
