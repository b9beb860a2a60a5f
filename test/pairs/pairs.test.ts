/** Any to any: one service, one control database, a server of each engine, every pair of them. */
import { ENGINES } from '../support/ends.ts';
import { createPairsWorld, type PairsWorld } from '../support/pairs-world.ts';
import { createdTablesSuite } from './created-tables.suite.ts';
import { pairSuite } from './pair.suite.ts';

describe('pairs', function () {
  this.timeout(180_000);
  let world: PairsWorld;
  before(async () => {
    world = await createPairsWorld({ lease_seconds: 15 });
    await world.start();
  });
  after(() => world?.close());

  for (const from of ENGINES) for (const into of ENGINES) pairSuite(() => world, from, into);
  createdTablesSuite(() => world);
});
