/** Base 64 from buffer to buffer: through a string, as Node has it, each megabyte leaves two behind for the garbage collector. */
const ALPHABET = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', 'latin1');
const PADDING = 0x3d;

/** For twelve bits their two characters, in the order in which they lie in memory. */
const PAIRS = new Uint16Array(4096);
{
  const bytes = new Uint8Array(PAIRS.buffer);
  for (let bits = 0; bits < PAIRS.length; bits++) {
    bytes[2 * bits] = ALPHABET[bits >> 6] ?? 0;
    bytes[2 * bits + 1] = ALPHABET[bits & 63] ?? 0;
  }
}

export function base64Length(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}

/** Writes `source`, with padding, into `target` from `at` on, which is an even place of its memory. Returns the end of what was written. */
export function writeBase64(source: Uint8Array, target: Uint8Array, at: number): number {
  const end = at + base64Length(source.length);
  const pairs = new Uint16Array(target.buffer, target.byteOffset + at, (end - at) / 2);
  const whole = source.length - (source.length % 3);
  let pair = 0;
  for (let from = 0; from < whole; from += 3) {
    const bits = ((source[from] ?? 0) << 16) | ((source[from + 1] ?? 0) << 8) | (source[from + 2] ?? 0);
    pairs[pair++] = PAIRS[bits >>> 12] ?? 0;
    pairs[pair++] = PAIRS[bits & 4095] ?? 0;
  }
  if (whole < source.length) {
    const bits = ((source[whole] ?? 0) << 16) | ((source[whole + 1] ?? 0) << 8);
    pairs[pair++] = PAIRS[bits >>> 12] ?? 0;
    pairs[pair++] = PAIRS[bits & 4095] ?? 0;
    target[end - 1] = PADDING;
    if (whole + 1 === source.length) target[end - 2] = PADDING;
  }
  return end;
}
