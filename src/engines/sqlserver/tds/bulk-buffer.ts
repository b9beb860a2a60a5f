/** Where encoded rows go: blocks of bytes, cut at no particular place. */

/** Blocks of this size: two of the largest TDS packets, so that the driver copies little. */
const BLOCK = 64 * 1024;

/** Blocks that are kept for the next load, so that the garbage collector is not called for what is needed again at once. */
const spare: Buffer[] = [];
const MOST_SPARE = 128;

export class RowBuffer {
  bytes = spare.pop() ?? Buffer.allocUnsafeSlow(BLOCK);
  at = 0;
  #full: Buffer[] = [];
  #fullBytes = 0;
  readonly #blocks = [this.bytes];

  /** Makes room for `size` more bytes in `bytes` at `at`. */
  reserve(size: number): void {
    if (this.at + size <= this.bytes.length) return;
    this.#keep(this.bytes.subarray(0, this.at));
    this.at = 0;
    if (size > BLOCK) {
      this.bytes = Buffer.allocUnsafeSlow(size);
      return;
    }
    this.bytes = spare.pop() ?? Buffer.allocUnsafeSlow(BLOCK);
    if (this.#blocks.length < MOST_SPARE) this.#blocks.push(this.bytes);
  }

  /** Bytes that somebody else holds and no longer changes. */
  append(bytes: Uint8Array): void {
    if (bytes.length <= 4096) {
      this.reserve(bytes.length);
      this.bytes.set(bytes, this.at);
      this.at += bytes.length;
      return;
    }
    this.#keep(this.bytes.subarray(0, this.at));
    this.#keep(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
    // What is left of the block is used on.
    this.bytes = this.bytes.subarray(this.at);
    this.at = 0;
  }

  /** Bytes held, finished blocks and the open one. */
  get size(): number {
    return this.#fullBytes + this.at;
  }

  /** The finished blocks; `all`: the open one too. They are the caller's from now on. */
  take(all = false): Buffer[] {
    if (all) {
      this.#keep(this.bytes.subarray(0, this.at));
      this.bytes = this.bytes.subarray(this.at);
      this.at = 0;
    }
    const taken = this.#full;
    this.#full = [];
    this.#fullBytes = 0;
    return taken;
  }

  /** Everything that was taken has been sent: its blocks are used again. Nothing is to be added any more. */
  release(): void {
    for (const block of this.#blocks) if (spare.length < MOST_SPARE) spare.push(block);
    this.#blocks.length = 0;
  }

  #keep(block: Buffer): void {
    if (block.length === 0) return;
    this.#full.push(block);
    this.#fullBytes += block.length;
  }
}

/** Why a cell is not taken. The loader adds table and column; the value itself is in no message (invariant 12). */
export class Refused extends Error {}

export function refuse(reason: string): never {
  throw new Refused(reason);
}
