/** Spreads chunks of a copy over time: `copy_max_bytes_per_second`. */
import { setTimeout as pause } from 'node:timers/promises';

export class Throttle {
  readonly #perSecond: number | null;
  readonly #chunkBytes: number;
  #next = performance.now();

  constructor(perSecond: number | null, chunkBytes: number) {
    this.#perSecond = perSecond;
    this.#chunkBytes = chunkBytes;
  }

  async wait(): Promise<void> {
    if (this.#perSecond === null || this.#perSecond <= 0) return;
    this.#next = Math.max(this.#next, performance.now()) + (this.#chunkBytes / this.#perSecond) * 1000;
    await pause(this.#next - performance.now());
  }
}
