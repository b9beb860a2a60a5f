import { expect } from 'chai';
import { SluiceError } from '../../src/model/errors.ts';
import type { KeyedChanges } from '../../src/model/keyed-changes.ts';
import { applySparing, keyHash } from '../../src/sync/refused-rows.ts';

const ROWS = 1000;

function batch(): KeyedChanges {
  const upserts = Array.from({ length: ROWS }, (_, i) => [String(i), 'v']).flat();
  return {
    columns: ['id', 'v'],
    key: ['id'],
    truncate: false,
    deletes: ['-1'],
    upserts,
    newCount: 0,
    bases: new Map(),
    hasAbsent: false,
    deleteCount: 1,
    upsertCount: ROWS,
  };
}

/** A table that refuses rows by their keys, and counts how often it is asked. */
class Table {
  tries = 0;
  applied: KeyedChanges | null = null;
  readonly #refused: ReadonlySet<number>;

  constructor(refused: readonly number[]) {
    this.#refused = new Set(refused);
  }

  async apply(changes: KeyedChanges) {
    this.tries++;
    for (let i = 0; i < changes.upsertCount; i++)
      if (this.#refused.has(Number(changes.upserts[i * 2]))) throw new SluiceError('ROW_REFUSED', 'no place for it');
    this.applied = changes;
    return Promise.resolve({ inserted: 0, updated: changes.upsertCount, deleted: changes.deleteCount });
  }

  attempt<T>(work: () => Promise<T>): Promise<T> {
    return work();
  }
}

describe('rows that are refused', () => {
  const refused = Array.from({ length: 20 }, (_, i) => i * 50 + 7);
  const hashes = new Set(refused.map((id) => keyHash([String(id)])));
  const options = { limit: 100, suspects: new Set<string>(), drops: false };

  it('F36: are found, and the others applied', async () => {
    const table = new Table(refused);
    const spared = await applySparing(batch(), table, options);
    expect(spared.refused.map(({ key }) => Number(key[0])).sort((a, b) => a - b)).to.deep.equal(refused);
    expect(spared.counts).to.deep.equal({ inserted: 0, updated: ROWS - 20, deleted: 1 });
  });

  it('F36: and known from before cost a try each, however many rows are among them', async () => {
    const table = new Table(refused);
    const spared = await applySparing(batch(), table, { ...options, suspects: hashes });
    expect(spared.refused.length).to.equal(20);
    expect(table.tries).to.equal(22);
    const good = new Table([]);
    const { counts } = await applySparing(batch(), good, { ...options, suspects: hashes });
    expect(counts?.updated).to.equal(ROWS);
    expect(good.tries).to.equal(1);
    expect(good.applied?.upsertCount).to.equal(ROWS);
  });

  it('F36: a new one among known ones is found all the same; more than allowed, and nothing is applied', async () => {
    const table = new Table([...refused, 999]);
    const spared = await applySparing(batch(), table, { ...options, suspects: hashes });
    expect(spared.refused.length).to.equal(21);
    expect(spared.counts?.updated).to.equal(ROWS - 21);
    const full = new Table([...refused, 999]);
    const none = await applySparing(batch(), full, { ...options, limit: 20, suspects: hashes });
    expect(none.counts).to.equal(null);
  });

  it('F36: of a copy nothing of a refused row remains', async () => {
    const table = new Table([3]);
    await applySparing(batch(), table, { ...options, drops: true });
    expect(table.applied?.deletes).to.deep.equal(['-1', '3']);
    expect(table.applied?.deleteCount).to.equal(2);
  });
});
