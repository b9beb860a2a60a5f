/** Every pair, by one service that is killed: while copies begin, load and finish, and before and after commits of changes. */
import { expect } from 'chai';
import type { Failpoint } from '../../src/model/failpoint.ts';
import { ChildServices } from '../support/child-service.ts';
import { ENGINES, TITLES, type EngineName } from '../support/ends.ts';
import { createPairsWorld, type PairsWorld } from '../support/pairs-world.ts';
import { skip } from '../support/skip.ts';

/** Each with how often it is passed before the kill, so that different pairs are hit; all share the process. */
const KILLS: readonly (readonly [Failpoint, number])[] = [
  ['copy.chunk-loaded', 3],
  ...(process.env['SLUICE_TEST_LONG']
    ? ([
        ['copy.swapped', 3],
        ['stream.before-commit', 4],
      ] as const)
    : []),
  ['stream.after-commit', 3],
];
const PATIENCE_S = 60;

/** Those with a SQL Server take a minute more, and test/crash kills copies from and to it besides. */
const KILLED: readonly EngineName[] = process.env['SLUICE_TEST_LONG'] ? ENGINES : ['postgres', 'mysql'];

describe('every pair, killed and resumed', function () {
  this.timeout(480_000);
  let world: PairsWorld;
  const services = new ChildServices();
  const pairs = KILLED.flatMap((from) => KILLED.map((into) => ({ from, into, table: `t_${from}_${into}` })));
  const there = ({ from, into }: { from: EngineName; into: EngineName }) =>
    world.missing(from) === null && world.missing(into) === null;
  /** What is not the same when it is applied twice: keys move on. */
  const change = async (n: number) => {
    for (const { from, table } of pairs.filter(there))
      await world
        .from(from)
        .transaction(
          `UPDATE ${table} SET id = id + 1000, v = CONCAT(v, '${n}') WHERE id % 10 = ${n}`,
          `DELETE FROM ${table} WHERE id = ${n * 7 + 8}`,
          `INSERT INTO ${table} (id, v) VALUES (${-n - 1}, 'new')`,
        );
  };
  const mappings = new Map<string, number>();
  /** By the destination's name for the mapping: the generation that its copy had when it was first seen after a kill. */
  const begun = new Map<string, number>();
  const generations = async (into: EngineName) => {
    const end = world.into(into);
    const rows = await end.query(
      `SELECT mapping_uid, copy_generation, live_generation FROM ${end.home('generations')}`,
    );
    return rows.flatMap((row) => {
      const number = row['live_generation'] ?? row['copy_generation'];
      return number == null ? [] : [[String(row['mapping_uid']), Number(number)] as const];
    });
  };

  before(async () => {
    world = await createPairsWorld({ copy_chunk_bytes: 1_048_576 }, KILLED, KILLED);
    for (const { from, into, table } of pairs.filter(there)) {
      const source = world.from(from);
      await source.query(`CREATE TABLE ${table} (id int NOT NULL PRIMARY KEY, v ${source.words.text})`);
      await source.capture(table);
      const rows = Array.from({ length: 300 }, (_, i) => [i + 1, 'x'.repeat(300)]);
      await source.insert(table, ['id', 'v'], rows);
      mappings.set(table, await world.mapPair(from, into, table));
    }
    for (const [n, [point, times]] of KILLS.entries()) {
      // Where servers are missing fewer copies and commits are made.
      const reached = Math.min(times, pairs.filter(there).length);
      const service = await services.start(world, { [point]: `kill:${reached}` });
      if (point.startsWith('stream')) await change(n);
      expect(await service.endsWithin(120_000), `${point}\n${service.lastWords()}`).to.equal(true);
      for (const into of new Set(pairs.filter(there).map((pair) => pair.into)))
        // Where nothing was begun there is not even a table that says so.
        for (const [uid, number] of await generations(into).catch(() => []))
          if (!begun.has(uid)) begun.set(uid, number);
      if (!point.startsWith('stream')) await change(n);
    }
    expect(begun.size).to.be.greaterThan(0);
    await services.start(world);
    for (const mapping of mappings.values()) await world.state(mapping, 'streaming', PATIENCE_S);
    await change(KILLS.length);
  });
  after(async () => {
    await services.killAll();
    await world?.close();
  });

  for (const pair of pairs)
    it(`F01 F03 F08: ${TITLES[pair.from]} → ${TITLES[pair.into]}: nothing is lost, nothing is done twice`, async function () {
      if (!there(pair)) skip(this, world.missing(pair.from) ?? world.missing(pair.into) ?? '');
      await world.equalPair(pair.from, pair.into, pair.table, PATIENCE_S * 1000);
      // A copy that was under way is resumed, not made again.
      for (const [uid, number] of await generations(pair.into))
        if (begun.has(uid)) expect(number).to.equal(begun.get(uid));
    });
});
