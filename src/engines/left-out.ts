/**
 * Which rows of a live table are older than the group's position, because a newer state of theirs was refused and left out (F36). Kept
 * with the table and in its transactions: what such a row holds must not be taken for what the source's holds (F22).
 */
import type { LeftOutRows } from './contract.ts';

/** A session of whatever engine. */
interface Sender {
  query(doing: string, text: string): Promise<readonly Readonly<Record<string, unknown>>[]>;
  run(doing: string, statements: readonly string[]): Promise<unknown>;
}

interface Names {
  readonly leftOut: string;
  readonly generations: string;
  readonly quoteLiteral: (text: string) => string;
}

/** Keys that one statement names. */
const AT_ONCE = 500;

export class LeftOutStore {
  readonly #sender: Sender;
  readonly #names: Names;

  constructor(sender: Sender, names: Names) {
    this.#sender = sender;
    this.#names = names;
  }

  ofGroup(stream: string, group: string): Promise<Map<string, Set<string>>> {
    const { quoteLiteral } = this.#names;
    // Not of those into which somebody else folds just now.
    return this.#read(
      `g.stream = ${quoteLiteral(stream)} AND g.apply_group = ${quoteLiteral(group)} AND COALESCE(g.backlog, '') <> 'hold'`,
    );
  }

  /** Within the transaction of a fold into the mapping's live table. */
  ofMapping(mappingUid: string, generation: number | null): LeftOutRows {
    let known: Promise<Set<string>> | null = null;
    const keys = () =>
      (known ??= this.#read(`g.mapping_uid = ${this.#names.quoteLiteral(mappingUid)}`).then(
        (found) => found.get(mappingUid) ?? new Set(),
      ));
    return {
      keys,
      change: async (added, removed) => {
        await this.write(mappingUid, generation, added, removed);
        note(await keys(), added, removed);
      },
    };
  }

  /** A copy's rows are all new, so that what was noted of earlier generations means nothing. */
  async #read(which: string): Promise<Map<string, Set<string>>> {
    const { leftOut, generations } = this.#names;
    const rows = await this.#sender.query(
      'read which rows were left out',
      `SELECT l.mapping_uid AS mapping_uid, l.key_hash AS key_hash FROM ${leftOut} l INNER JOIN ${generations} g
         ON g.mapping_uid = l.mapping_uid AND g.live_generation = l.generation WHERE ${which}`,
    );
    const found = new Map<string, Set<string>>();
    for (const row of rows) {
      const uid = String(row['mapping_uid']);
      const keys = found.get(uid) ?? new Set();
      found.set(uid, keys.add(String(row['key_hash'])));
    }
    return found;
  }

  async write(
    mappingUid: string,
    generation: number | null,
    added: readonly string[],
    removed: readonly string[],
  ): Promise<void> {
    if (generation === null) return;
    const { leftOut, quoteLiteral } = this.#names;
    const uid = quoteLiteral(mappingUid);
    const statements = [`DELETE FROM ${leftOut} WHERE mapping_uid = ${uid} AND generation <> ${generation}`];
    for (const part of parts([...added, ...removed])) {
      const list = part.map(quoteLiteral).join(', ');
      statements.push(`DELETE FROM ${leftOut} WHERE mapping_uid = ${uid} AND key_hash IN (${list})`);
    }
    for (const part of parts([...new Set(added)])) {
      const rows = part.map((key) => `(${uid}, ${generation}, ${quoteLiteral(key)})`).join(', ');
      statements.push(`INSERT INTO ${leftOut} (mapping_uid, generation, key_hash) VALUES ${rows}`);
    }
    await this.#sender.run('note which rows were left out', statements);
  }
}

export function note(keys: Set<string>, added: readonly string[], removed: readonly string[]): void {
  for (const key of removed) keys.delete(key);
  for (const key of added) keys.add(key);
}

function* parts(keys: readonly string[]): Generator<readonly string[]> {
  for (let at = 0; at < keys.length; at += AT_ONCE) yield keys.slice(at, at + AT_ONCE);
}
