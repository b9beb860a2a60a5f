/** A server that does not tell names of tables apart by case, at both ends. */
import { expect } from 'chai';
import { startMariaDb, startMysqlItself, type PrivateServer } from '../support/mysql-servers.ts';
import { requireMysql, requireMysqlItself } from '../support/mysql.ts';
import { createSameEnginePair, MARIADB, MYSQL_ITSELF, type SameEnginePair } from '../support/same-engine-pair.ts';
import { skip } from '../support/skip.ts';

const SERVERS = [
  { under: MARIADB, start: startMariaDb, require: requireMysql },
  ...(process.env['SLUICE_TEST_LONG']
    ? [{ under: MYSQL_ITSELF, start: startMysqlItself, require: requireMysqlItself }]
    : []),
];

for (const { under, start, require } of SERVERS)
  describe(`${under.name} that does not tell names apart by case, at both ends`, function () {
    this.timeout(60_000);
    let server: PrivateServer | null = null;
    let pair: SameEnginePair;
    before(async function () {
      const shared = await require(this);
      if (shared.isMariaDb !== (under === MARIADB)) skip(this, 'it is a server of its own');
      const own = await start({ 'lower-case-table-names': '1' });
      server = own;
      pair = await createSameEnginePair(this, { ...under, mysql: () => Promise.resolve(own.server) });
      await pair.world.start();
    });
    after(async () => {
      await pair?.close();
      await server?.stop();
    });

    it('F54: a mapping from a table to itself, under a name in another case, is refused before anything is written', async () => {
      await pair.create('itself', 3);
      const [admin] = await pair.world.control.query<{ id: number }>(
        'INSERT INTO destination_servers (server_name, connection_string) VALUES ($1, $2) RETURNING server_id AS id',
        ['the source', pair.from.url],
      );
      for (const columns of [
        { dest_table: 'ITSELF', dest_database: pair.from.name },
        { dest_table: 'itself', dest_database: pair.from.name.toUpperCase() },
      ]) {
        const mapping = await pair.map('Itself', { ...columns, dest_server_id: admin?.id ?? 0, is_full_sync: 1 });
        await pair.state(mapping, 'failed');
        expect(await pair.errorCode(mapping)).to.equal('MAPPING_INVALID');
        await pair.world.control.query('DELETE FROM table_mappings WHERE mapping_id = $1', [mapping]);
      }
      const rows = await pair.from.query('SELECT * FROM itself ORDER BY id');
      expect(rows.map((row) => row['id'])).to.deep.equal(['1', '2', '3']);
    });

    it('F54: the second of two mappings to one table, under names in different cases, is refused', async () => {
      await pair.create('one', 2);
      await pair.create('two', 2, 'of the second');
      const first = await pair.stream('one', { dest_table: 'shared' });
      const second = await pair.map('two', { dest_table: 'SHARED', is_full_sync: 1 });
      await pair.state(second, 'failed');
      expect(await pair.errorCode(second)).to.equal('DESTINATION_TAKEN');
      await pair.state(first, 'streaming');
      await pair.equal('one', 'shared');
    });

    it('F27: tables that are named in any case are copied and followed, also when they are renamed and emptied', async () => {
      await pair.create('spelled', 3);
      const mapping = await pair.stream('SpellEd', { dest_table: 'CopiEd' });
      await pair.from.query("UPDATE SPELLED SET v = 'x' WHERE id = 1");
      await pair.equal('spelled', 'copied');
      await pair.from.query('TRUNCATE TABLE Spelled');
      await pair.from.query("INSERT INTO spelleD VALUES (7, 'seven')");
      await pair.equal('spelled', 'copied');
      await pair.from.query('ALTER TABLE SPELLED ADD COLUMN w int NULL DEFAULT 5');
      await pair.from.query('UPDATE spelled SET w = 6');
      await pair.equal('spelled', 'copied');
      await pair.copyAgain(mapping);
      await pair.equal('spelled', 'copied');
    });
  });
