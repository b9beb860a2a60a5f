/**
 * What a collapse knows of each key, as numbers in one array: a million objects that live as long as a piece does are what the
 * garbage collector takes longest for.
 */

/** Numbers of an entry: its flags; the source and cell where its row lies, and where its key was seen. */
const WIDTH = 5;
const FROM = 1;
const AT = 2;
const KEY_FROM = 3;
const KEY_AT = 4;

const ALIVE = 1;
/** The first change of the key made its row: before these changes no row had it. */
const FRESH = 2;
/** The row was made within these changes: nothing of it is at the destination. */
const MADE = 4;

/** Where its row is in no source. */
const NOWHERE = -1;

export class Slots {
  #entries = new Int32Array(WIDTH * 32);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** A key without a row. */
  append(keyFrom: number, keyAt: number): number {
    const slot = this.#count++;
    const at = slot * WIDTH;
    if (at === this.#entries.length) {
      const larger = new Int32Array(this.#entries.length * 2);
      larger.set(this.#entries);
      this.#entries = larger;
    }
    const entries = this.#entries;
    entries[at] = 0;
    entries[at + FROM] = NOWHERE;
    entries[at + KEY_FROM] = keyFrom;
    entries[at + KEY_AT] = keyAt;
    return slot;
  }

  clear(): void {
    this.#count = 0;
  }

  isAlive(slot: number): boolean {
    return (this.#flags(slot) & ALIVE) !== 0;
  }

  isFresh(slot: number): boolean {
    return (this.#flags(slot) & FRESH) !== 0;
  }

  isMade(slot: number): boolean {
    return (this.#flags(slot) & MADE) !== 0;
  }

  setFresh(slot: number): void {
    this.#entries[slot * WIDTH] = this.#flags(slot) | FRESH;
  }

  setAlive(slot: number, isMade: boolean): void {
    this.#entries[slot * WIDTH] = (this.#flags(slot) & FRESH) | ALIVE | (isMade ? MADE : 0);
  }

  kill(slot: number): void {
    this.#entries[slot * WIDTH] = this.#flags(slot) & FRESH;
    this.setNoRow(slot);
  }

  setRow(slot: number, from: number, at: number): void {
    this.#entries[slot * WIDTH + FROM] = from;
    this.#entries[slot * WIDTH + AT] = at;
  }

  setNoRow(slot: number): void {
    this.#entries[slot * WIDTH + FROM] = NOWHERE;
  }

  /** Number of the source in which the row lies; -1: in none. */
  from(slot: number): number {
    return this.#entries[slot * WIDTH + FROM] ?? NOWHERE;
  }

  /** The row's first cell there. */
  at(slot: number): number {
    return this.#entries[slot * WIDTH + AT] ?? 0;
  }

  keyFrom(slot: number): number {
    return this.#entries[slot * WIDTH + KEY_FROM] ?? NOWHERE;
  }

  keyAt(slot: number): number {
    return this.#entries[slot * WIDTH + KEY_AT] ?? 0;
  }

  #flags(slot: number): number {
    return this.#entries[slot * WIDTH] ?? 0;
  }
}
