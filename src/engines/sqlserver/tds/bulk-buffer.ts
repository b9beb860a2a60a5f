/** Where encoded rows go: blocks of bytes, cut at no particular place. */

/** Blocks of this size: two of the largest TDS packets, so that the driver copies little. */
const BLOCK = 64 * 1024;

export class RowBuffer {
  bytes = Buffer.allocUnsafe(BLOCK);
  at = 0;
  #full: Buffer[] = [];
  #fullBytes = 0;

  /** Makes room for `size` more bytes in `bytes` at `at`. */
  reserve(size: number): void {
    if (this.at + size <= this.bytes.length) return;
    this.#keep(this.bytes.subarray(0, this.at));
    this.bytes = Buffer.allocUnsafe(Math.max(BLOCK, size));
    this.at = 0;
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
