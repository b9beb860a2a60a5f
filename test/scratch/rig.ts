import { createSameEnginePair, MARIADB, MYSQL_ITSELF, type SameEnginePair, type EngineOfPairs } from '../support/same-engine-pair.ts';
import { eventually } from '../support/service.ts';
import { PATIENCE } from '../support/patience.ts';
import assert from 'node:assert/strict';

export interface Scenario {
  readonly name: string;
  readonly only?: 'MariaDB' | 'MySQL';
  readonly ddl: readonly string[];
  readonly ops: readonly string[];
  readonly tables: readonly string[];
  /** Compared at both ends besides the rows. */
  readonly probe?: string;
  readonly columns?: Record<string, string | number | null>;
  readonly dst?: readonly string[];
  readonly seconds?: number;
}
export function suite(scenarios: readonly Scenario[]) {
  for (const under of [MARIADB, MYSQL_ITSELF] as EngineOfPairs[])
    describe(under.name, function () {
      this.timeout(120_000);
      let pair: SameEnginePair;
      before(async function () {
        pair = await createSameEnginePair(this, under, { lease_seconds: 15 });
        await pair.world.start();
      });
      after(() => pair?.close());
      for (const s of scenarios)
        if (!s.only || s.only === under.name)
          it(s.name, async () => {
            for (const sql of s.dst ?? []) await pair.into.query(sql);
            for (const sql of s.ddl) await pair.from.query(sql);
            const ids: number[] = [];
            for (const t of s.tables) ids.push(await pair.map(t, s.columns ?? {}));
            for (const id of ids) await pair.world.state(id, 'streaming', 20 / PATIENCE);
            await same(pair, s, ids);
            await pair.from.held(async (run) => { await run('COMMIT'); for (const op of s.ops) await run(op); });
            await same(pair, s, ids);
            for (const id of ids) await pair.world.state(id, 'streaming', 15 / PATIENCE);
            await same(pair, s, ids);
          });
    });
}
function b2({columns, rows}: {columns: string[]; rows: string[]}) {
  return rows.map((r) => { const v = JSON.parse(r) as unknown[]; return JSON.stringify(columns.map((c, i) => [c, typeof v[i] === 'string' && v[i].length > 200 ? v[i].length + v[i].slice(0, 50) : v[i]]).sort()); }).sort();
}
async function same(pair: SameEnginePair, s: Scenario, ids: number[]) {
  try {
    await eventually(async () => {
      for (const t of s.tables) {
        const a = await pair.from.rows(t);
        const b = await pair.into.rows(t);
        const [x, y] = [new Set(b2(b)), new Set(b2(a))];
        const extra = [...x].filter((r) => !y.has(r)); const missing = [...y].filter((r) => !x.has(r));
        if (extra.length + missing.length > 0 || a.rows.length !== b.rows.length) throw new Error(`${t}: there ${x.size} of ${y.size}; extra ${extra.length} ${extra.slice(0, 2).join()}; missing ${missing.length} ${missing.slice(0, 2).join()}`);
      }
      if (s.probe) assert.deepEqual(await pair.into.query(s.probe), await pair.from.query(s.probe));
    }, (s.seconds ?? 12) * 1000 / PATIENCE);
  } catch (e) {
    for (const id of ids) console.log('   problem', JSON.stringify(await pair.world.problem(id)));
    throw e;
  }
}
