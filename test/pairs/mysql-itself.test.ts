/** MySQL itself in pairs, in the long run: as MariaDB is in all of them. */
import { TITLES, type EngineName } from '../support/ends.ts';
import { findMysqlItself } from '../support/mysql.ts';
import { createPairsWorld, type PairsWorld } from '../support/pairs-world.ts';
import { richTableTest } from './created-tables.suite.ts';
import { pairSuite } from './pair.suite.ts';

const PAIRED: readonly EngineName[] = ['postgres', 'mysql'];

if (process.env['SLUICE_TEST_LONG'])
  describe('pairs with MySQL itself', function () {
    this.timeout(180_000);
    let world: PairsWorld;
    before(async () => {
      world = await createPairsWorld({ lease_seconds: 15 }, PAIRED, PAIRED, findMysqlItself);
      await world.start();
    });
    after(() => world?.close());

    for (const from of PAIRED)
      for (const into of PAIRED)
        if (from === 'mysql' || into === 'mysql') pairSuite(() => world, from, into, { ...TITLES, mysql: 'MySQL' });
    richTableTest(() => world, 'MySQL');
  });
