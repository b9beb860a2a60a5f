import { expect } from 'chai';
import { engineOf } from '../../src/engines/registry.ts';
import type { EngineDatabase, Route } from '../../src/engines/contract.ts';
import { verifyRecent } from '../../src/verify/verify-recent.ts';
import { createWorld, equal, type World } from '../support/service.ts';

describe('verification of the last rows', () => {
  let world: World;
  let source: EngineDatabase;
  let destination: EngineDatabase;
  let route: Route;

  beforeEach(async () => {
    world = await createWorld();
    await world.source.query(
      'CREATE TABLE stock (warehouse text, item int, amount numeric(12,3), changed timestamptz DEFAULT now(), PRIMARY KEY (warehouse, item))',
    );
    await world.source.query(`INSERT INTO stock SELECT 'w' || (i % 7), i, i / 3.0 FROM generate_series(1, 5000) i`);
    await world.start();
    await world.state(await world.map('stock'), 'streaming');
    await equal(world, 'stock');
    const open = (url: string) =>
      engineOf(url).open({
        connectionString: url,
        database: null,
        installation: { uid: 'test' },
        applicationName: 'test',
      });
    source = open(world.source.url);
    destination = open(world.destination.url);
    const [row] = await world.destination.query<{ mapping_uid: string }>('SELECT mapping_uid FROM sluice.generations');
    const [state] = (await destination.destination?.copies.states([row?.mapping_uid ?? ''])) ?? [];
    if (!state?.route) throw new Error('no route');
    route = state.route;
  });
  afterEach(async () => {
    await Promise.all([source.close(), destination.close()]);
    await world.close();
  });

  const verify = (rechecksMs?: readonly number[]) =>
    verifyRecent({
      source,
      destination,
      route,
      rows: 2000,
      signal: new AbortController().signal,
      ...(rechecksMs ? { rechecksMs } : {}),
    });
  const found = async () => {
    const result = await verify([10]);
    return result.mismatches.map(({ kind, key }) => `${kind} ${key.map((cell) => String(cell)).join('/')}`).sort();
  };

  it('finds nothing where there is nothing, and looks at as many rows as it was asked', async () => {
    const result = await verify();
    expect(result.mismatches).to.deep.equal([]);
    expect(result.compared).to.equal(2000);
    expect(result.sourceMd5).to.equal(result.destMd5);
  });

  it('F61: finds a changed, a missing and an extra row in the first, the last and a middle key it looks at', async () => {
    const keys = await world.source.query<{ warehouse: string; item: number }>(
      'SELECT warehouse, item FROM (SELECT * FROM stock ORDER BY warehouse COLLATE "C" DESC, item DESC LIMIT 2000) s ORDER BY warehouse COLLATE "C", item',
    );
    const key = (at: number) => {
      const row = keys.at(at);
      return [row?.warehouse, row?.item] as const;
    };
    await world.destination.query('UPDATE stock SET amount = amount + 0.001 WHERE (warehouse, item) = ($1, $2)', [
      ...key(0),
    ]);
    await world.destination.query('DELETE FROM stock WHERE (warehouse, item) = ($1, $2)', [...key(1000)]);
    await world.destination.query(
      'UPDATE stock SET changed = changed + interval $$1 microsecond$$ WHERE (warehouse, item) = ($1, $2)',
      [...key(-1)],
    );
    await world.destination.query(`INSERT INTO stock VALUES ('w6', 999999, 1)`);
    expect(await found()).to.deep.equal(
      [
        `different ${key(0).join('/')}`,
        `different ${key(-1).join('/')}`,
        `missing ${key(1000).join('/')}`,
        'extra w6/999999',
      ].sort(),
    );
  });

  it('F60: raises no false alarm while rows change during the comparison', async function () {
    this.timeout(60_000);
    let writing = true;
    let written = 0;
    const writer = await world.source.connect();
    const load = (async () => {
      while (writing) {
        await writer.query(
          `UPDATE stock SET amount = amount + 1, changed = clock_timestamp() WHERE item IN (SELECT (random() * 5000)::int FROM generate_series(1, 20));
           DELETE FROM stock WHERE item = ${4000 + (written % 1000)};
           INSERT INTO stock VALUES ('w' || ${written % 7}, ${10_000 + written}, 1)`,
        );
        written++;
      }
    })();
    let differed = 0;
    for (let i = 0; i < 6; i++) {
      const result = await verify();
      if (result.sourceMd5 !== result.destMd5) differed++;
      expect(result.mismatches).to.deep.equal([]);
    }
    writing = false;
    await load;
    // The comparison did meet rows on their way: otherwise this test shows nothing.
    expect(differed).to.be.greaterThan(0);
    expect(written).to.be.greaterThan(100);
  });
});
