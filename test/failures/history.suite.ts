/** From an engine to itself, one service: what is lost, let go and left behind. */
import { expect } from 'chai';
import { createSameEnginePair, type EngineOfPairs, type SameEnginePair } from '../support/same-engine-pair.ts';
import { eventually, type TestService } from '../support/service.ts';

export interface HistoryWorld {
  readonly pair: () => SameEnginePair;
  /** While `work` is done the service is stopped. */
  readonly whileStopped: (work: () => Promise<unknown>) => Promise<void>;
}

export function historySuite(under: EngineOfPairs, more?: (world: HistoryWorld) => void): void {
  describe(`${under.name} to ${under.name}: history`, function () {
    this.timeout(300_000);
    let pair: SameEnginePair;
    let service: TestService;
    before(async function () {
      pair = await createSameEnginePair(this, under, { backlog_max_bytes: 1_048_576 });
      service = await pair.world.start();
    });
    after(() => pair?.close());
    const kept = (table: string) => pair.into.query(`SELECT * FROM ${pair.into.home(table)}`);
    const whileStopped = async (work: () => Promise<unknown>) => {
      await service.stop();
      await work();
      service = await pair.world.start();
    };

    more?.({ pair: () => pair, whileStopped });

    it('F35: NULL stays NULL where the destination has a default, through copy and stream; empty text stays empty', async () => {
      const { from, into } = pair;
      await pair.create('voids', 2);
      await from.query('UPDATE voids SET v = NULL WHERE id = 1');
      await from.query("UPDATE voids SET v = '' WHERE id = 2");
      await into.query(`CREATE TABLE voids (id int NOT NULL PRIMARY KEY, v ${into.words.text} NULL DEFAULT ('x'))`);
      await pair.stream('voids');
      await pair.equal('voids');
      await from.query("INSERT INTO voids VALUES (3, NULL), (4, '')");
      await from.query('UPDATE voids SET v = NULL WHERE id = 2');
      await pair.equal('voids');
    });

    it('F48: the backlog of a paused mapping past its limit is dropped, and the mapping is in gap; a full sync mends it', async () => {
      await pair.create('bulky', 10);
      const mapping = await pair.stream('bulky');
      const enable = (enabled: number) =>
        pair.world.control.query('UPDATE table_mappings SET is_enabled = $2 WHERE mapping_id = $1', [mapping, enabled]);
      await enable(0);
      await pair.state(mapping, 'paused');
      await pair.from.query(`INSERT INTO bulky SELECT 100 + i, ${under.unique} FROM ${under.numbers(4000)}`);
      await pair.state(mapping, 'gap');
      expect(await pair.errorCode(mapping)).to.equal('BACKLOG_FULL');
      await eventually(async () => {
        expect(await pair.into.query(under.backlogs)).to.deep.equal([]);
      }, 60_000);
      await enable(1);
      await pair.copyAgain(mapping);
      await pair.state(mapping, 'streaming');
      await pair.equal('bulky');
    });

    it('F64: two control databases, the same mapping numbers, one source, one destination: nothing mixes, and one leaves alone', async function () {
      await pair.create('shared', 300);
      const other = await createSameEnginePair(this, under, {}, pair);
      try {
        await pair.stream('shared');
        const [first] = await pair.world.control.query<{ id: number }>(
          'SELECT MIN(mapping_id) AS id FROM table_mappings',
        );
        await other.world.start();
        const theirs = await other.stream('shared', { dest_table: 'theirs' });
        expect(theirs).to.equal(first?.id);
        await pair.from.query("UPDATE shared SET id = -id, v = 'both' WHERE id % 3 = 0");
        await pair.equal('shared');
        await pair.equal('shared', 'theirs');
        await pair.from.query("UPDATE shared SET v = 'during a copy' WHERE id % 5 = 0");
        await other.copyAgain(theirs);
        await pair.equal('shared', 'theirs');
        const streams = () => pair.into.query(`SELECT DISTINCT stream FROM ${pair.into.home('positions')}`);
        expect(await streams()).to.have.length(2);
        const refused = await other.map('shared');
        await other.state(refused, 'failed');
        expect(await other.errorCode(refused)).to.equal('DESTINATION_NOT_EMPTY');
        await other.world.control.query('DELETE FROM table_mappings');
        await eventually(async () => {
          expect(await streams()).to.have.length(1);
        }, 60_000);
        await pair.from.query('DELETE FROM shared WHERE id % 2 = 0');
        await pair.equal('shared');
      } finally {
        await other.close();
      }
    });

    it('F19: a destination restored to an earlier moment gets what it lacks from the source; one that lost what Sluice kept in it is a gap, and a full sync mends it', async () => {
      const { from, into } = pair;
      await pair.create('restored', 50);
      const mapping = await pair.stream('restored');
      await pair.equal('restored');
      const positions = into.home('positions');
      // What a restore does, as seen from outside: rows and positions of an earlier moment, in one piece.
      await into.query(under.copyTable('restored', 'saved'));
      await into.query(under.copyTable(positions, 'saved_positions'));
      await from.query("UPDATE restored SET v = 'later', id = id + 1000 WHERE id <= 20");
      await from.query('DELETE FROM restored WHERE id = 30');
      await pair.equal('restored');
      await whileStopped(async () => {
        await into.query('DELETE FROM restored');
        await into.query('INSERT INTO restored SELECT * FROM saved');
        await into.query(under.restorePositions(positions, 'saved_positions'));
      });
      await pair.equal('restored');
      await pair.state(mapping, 'streaming');
      await whileStopped(async () => {
        await into.query(`DELETE FROM ${positions}`);
        await into.query(`DELETE FROM ${into.home('generations')}`);
      });
      await pair.state(mapping, 'gap');
      await from.query('DELETE FROM restored WHERE id > 1000');
      await pair.copyAgain(mapping);
      await pair.state(mapping, 'streaming');
      await pair.equal('restored');
    });

    it('F47: the last mapping deleted while the service was stopped: what was kept for it goes, its rows and what the source captures stay', async () => {
      const { from, into, world } = pair;
      await pair.create('last', 20);
      await pair.stream('last');
      await pair.equal('last');
      await whileStopped(() => world.control.query('DELETE FROM table_mappings'));
      await eventually(async () => {
        expect([...(await kept('positions')), ...(await kept('generations'))]).to.deep.equal([]);
      }, 90_000);
      expect(await into.query('SELECT id FROM last')).to.have.length(20);
      if (under.logReaders !== undefined) expect(await from.query(under.logReaders)).to.deep.equal([]);
      if (from.sqlServer)
        expect(await from.query('SELECT capture_instance FROM cdc.change_tables')).to.not.deep.equal([]);
      expect(await world.control.query('SELECT * FROM source_objects')).to.deep.equal([]);
    });
  });
}
